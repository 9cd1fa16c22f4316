import itertools
import math

import numpy as np
import pytest

from searchlib import Evidence, Evolution, LocalSearch, Problem, RandomSearch, Status, search
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import row_keys
from searchlib.spaces import (
    Allocation,
    Binary,
    Categorical,
    ExpertSubsets,
    Grouped,
    Integer,
    Permutation,
    Product,
    Real,
    Simplex,
    Subset,
)
from searchlib.testing import check_algorithm

BITS = (2, 4, 8)
BUDGETED = Allocation(tuple("qkvo"), BITS, costs=((BITS,) * 4,), budgets=(16.0,))
SPACES = [
    Binary(12),
    Subset(10, k=4),
    Categorical(("a", "b", "c"), length=5),
    Integer(0, 20, length=3),
    Real(-1.0, 1.0, length=3),
    Simplex(4),
    Permutation(6),
    Product(mask=Binary(6), rate=Real(0.0, 1.0)),
    Grouped(Subset(6, k=3), groups=3),
    ExpertSubsets(layers=4, experts=6, keep=3, groups=2),
    BUDGETED,
]


def told(batch, values):
    nothing = np.full(len(batch), np.nan)
    status = np.full(len(batch), Status.DONE, np.int8)
    return Evidence(batch.ids, batch.population, np.asarray(values, float)[:, None], status, nothing, nothing[:, None])


def evaluations_until(run, value, target, batch=1, most=100_000):
    """How many evaluations it takes to reach ``target`` or less."""
    spent = 0
    while spent < most:
        asked = run.ask(batch)
        values = value(asked.population)
        spent += len(asked)
        if values.min() <= target:
            return spent
        run.tell(told(asked, values))
    raise AssertionError(f"{target} was not reached in {most} evaluations")


def zeros(rows):
    return (~rows).sum(axis=1)


def missing_prefix(rows):
    return rows.shape[1] - np.cumprod(rows, axis=1).sum(axis=1)


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize(
    "algorithm", [LocalSearch(), LocalSearch(pool=1, patience=0.5, kick=0.0), LocalSearch(patience=0.5, kick=0.5)],
    ids=["default", "blind, fresh restarts", "jumps"],
)  # fmt: skip
def test_the_contract_holds(algorithm, space):
    check_algorithm(algorithm, space, rounds=9)


def test_one_max_takes_no_longer_than_a_1_plus_1_ea_with_rate_1_over_n():
    """That one needs e n ln n - 1.8925 n + O(log n) in the mean (Hwang et al., Evolutionary Computation 2018)."""
    n, runs = 64, 6
    expected = math.e * n * math.log(n) - 1.8925 * n
    blind = LocalSearch(pool=1, patience=math.inf)
    spent = [
        evaluations_until(blind.start(Problem(Binary(n)), np.random.default_rng(seed)), zeros, 0)
        for seed in range(runs)
    ]
    assert 0.3 * expected < np.mean(spent) < 1.1 * expected


def test_leading_ones_takes_as_long_as_the_fitness_levels_say():
    """Expected evaluations of a (1+1) search are half the sum of 1 / P(improvement) (Böttcher, Doerr, Neumann 2010)."""
    n, runs, tail = 16, 24, 2.5
    space = Binary(n)
    rng = np.random.default_rng(0)
    weights = np.arange(1.0, 1 + n // 2) ** -tail
    moves = rng.choice(np.arange(1, 1 + n // 2), size=40_000, p=weights / weights.sum())
    start = np.zeros((len(moves), n), np.bool_)
    mutants = start.copy()
    for step in range(1, n // 2 + 1):
        mutants[moves >= step] = space.mutate(rng, mutants[moves >= step])
    flipped = mutants != start
    # On level i the first i bits must stay and the next one must flip.
    rates = [(flipped[:, level] & ~flipped[:, :level].any(axis=1)).mean() for level in range(n)]
    expected = 0.5 * sum(1 / rate for rate in rates)
    blind = LocalSearch(pool=1, tail=tail, patience=math.inf)
    spent = [
        evaluations_until(blind.start(Problem(space), np.random.default_rng(seed)), missing_prefix, 0)
        for seed in range(runs)
    ]
    # Leaving out what was proposed before can only help.
    assert 0.6 * expected < np.mean(spent) < 1.15 * expected


def test_screened_children_and_batches_of_sixteen_cost_few_more_evaluations_than_one_at_a_time():
    def mean(settings, batch):
        return np.mean([
            evaluations_until(settings.start(Problem(Binary(64)), np.random.default_rng(seed)), zeros, 0, batch)
            for seed in range(4)
        ])  # fmt: skip

    single, batched, blind = mean(LocalSearch(), 1), mean(LocalSearch(), 16), mean(LocalSearch(pool=1), 1)
    assert single < 0.6 * blind
    assert batched < 2.5 * single


def test_no_candidate_is_proposed_twice_and_the_space_is_exhausted():
    result = search(sum, LocalSearch(), space=Binary(7), budget=1000, direction="maximize")
    assert len(set(row_keys(result.history.population))) == len(result.history) == 128
    assert result.best == (1,) * 7


@pytest.mark.parametrize("seed", range(3))
def test_the_optimum_of_a_planted_subset_with_pairs_is_what_all_subsets_say(seed):
    rng = np.random.default_rng(seed)
    weights, pairs = rng.normal(size=12), rng.normal(size=(12, 12)) * 0.3

    def gain(kept):
        return float(weights[list(kept)].sum() + pairs[np.ix_(kept, kept)].sum())

    best = max(gain(kept) for kept in itertools.combinations(range(12), 5))
    result = search(gain, LocalSearch(), space=Subset(12, k=5), budget=300, seed=seed, direction="maximize")
    assert result.value == pytest.approx(best)


def test_the_optimum_under_a_budget_is_what_all_allocations_say():
    rng = np.random.default_rng(1)
    names, loss = tuple(f"layer {number}" for number in range(7)), rng.random((7, 3)).cumsum(axis=1)[:, ::-1]
    coupled = rng.normal(size=6) * 0.2
    space = Allocation(names, BITS, costs=((BITS,) * 7,), budgets=(28.0,))

    def damage(options):
        row = np.array([BITS.index(option) for option in options])
        return float(loss[np.arange(7), row].sum() + (coupled * row[1:] * row[:-1]).sum())

    every = [options for options in itertools.product(BITS, repeat=7) if sum(options) <= 28]
    best = min(map(damage, every))
    assert len(every) > 500
    found = [search(damage, LocalSearch(), space=space, budget=250, seed=seed).value for seed in range(3)]
    assert np.median(found) == pytest.approx(best)


@pytest.mark.parametrize("other", [Evolution(), RandomSearch()], ids=["evolution", "random"])
def test_it_beats_the_others_on_a_planted_subset(other):
    weights = np.random.default_rng(0).normal(size=64)

    def gain(kept):
        return float(weights[list(kept)].sum())

    def found(algorithm):
        space = Subset(64, k=48)
        return [search(gain, algorithm, space=space, budget=150, seed=s, direction="maximize").value for s in range(3)]

    assert min(found(LocalSearch())) > max(found(other))


def test_a_search_that_is_stuck_jumps_and_says_so():
    def trap(bits):  # all ones is best, but every step towards it looks worse
        return 20.0 if all(bits) else float(len(bits) - sum(bits))

    run = search(trap, LocalSearch(patience=4.0, kick=0.6), space=Binary(12), budget=800, direction="maximize")
    assert run.notes["restarts"] > 2
    never = search(trap, LocalSearch(patience=math.inf), space=Binary(12), budget=800, direction="maximize")
    assert never.notes["restarts"] == 0


def test_equals_replace_the_incumbent_so_that_plateaus_are_crossed():
    run = LocalSearch(pool=1, patience=math.inf).start(Problem(Binary(30)), np.random.default_rng(0))
    first = run.ask(1)
    run.tell(told(first, [0.0]))
    for _ in range(60):
        batch = run.ask(1)
        run.tell(told(batch, [0.0]))
    assert (batch.population != first.population).sum() > 5


def test_under_noise_the_recommendation_is_better_than_the_luckiest_candidate():
    n, sd = 40, 0.2
    space, rng = Binary(n), np.random.default_rng(0)

    def errors(noisy):
        found = []
        for seed in range(4):
            run = LocalSearch().start(Problem(space, noisy=noisy), np.random.default_rng(seed))
            for _ in range(40):
                batch = run.ask(10)
                run.tell(told(batch, zeros(batch.population) / n + sd * rng.normal(size=len(batch))))
            found.append(zeros(run.recommend(1))[0] / n)
        return np.mean(found)

    assert errors(noisy=True) < errors(noisy=False) - 0.05


def test_several_objectives_are_refused_at_the_start():
    with pytest.raises(MissingOperator, match="2"):
        search(lambda x: (x, -x), LocalSearch(), space=Real(0, 1), budget=5, direction=("minimize", "maximize"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("tail", 1.0), ("pool", 0), ("patience", 0.0), ("kick", 1.5), ("archive", 0), ("tail", math.nan)],
)
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        LocalSearch(**{name: value})
