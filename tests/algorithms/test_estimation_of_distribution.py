import itertools

import numpy as np
import pytest

from searchlib import EstimationOfDistribution, Evidence, Problem, RandomSearch, Status, search
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
SPACES = [
    Binary(12),
    Subset(10, k=4),
    Subset(9, k=1),
    Categorical(("a", "b", "c"), length=5),
    Product(mask=Binary(6), mode=Categorical(("a", "b", "c")), kept=Subset(6, k=2)),
    Grouped(Subset(6, k=3), groups=3),
    ExpertSubsets(layers=4, experts=6, keep=3, groups=2),
    Allocation(tuple("qkvo"), BITS, costs=((BITS,) * 4,), budgets=(16.0,)),
]


def told(batch, values):
    nothing = np.full(len(batch), np.nan)
    status = np.full(len(batch), Status.DONE, np.int8)
    return Evidence(batch.ids, batch.population, np.asarray(values, float)[:, None], status, nothing, nothing[:, None])


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize(
    "algorithm",
    [
        EstimationOfDistribution(population=4, parents=3),
        EstimationOfDistribution(population=5, parents=8, rate=0.4, pairwise=True, patience=0.5),
    ],
    ids=["marginals", "pairs"],
)
def test_the_contract_holds(algorithm, space):
    check_algorithm(algorithm, space, rounds=9)


@pytest.mark.parametrize(
    ("space", "where"),
    [
        (Real(0.0, 1.0), r"\[0\]"),
        (Product(mask=Binary(2), steps=Integer(0, 9)), r"\[2\]"),
        (Permutation(4), r"\[0, 1"),
        (Simplex(3), r"\[0, 1, 2\]"),
    ],
    ids=repr,
)
def test_spaces_of_numbers_are_refused_by_naming_the_coordinates(space, where):
    with pytest.raises(MissingOperator, match=f"on-off scores.*{where}"):
        search(lambda value: 0.0, EstimationOfDistribution(), space=space, budget=5)


@pytest.mark.parametrize("seed", range(3))
def test_one_max_is_learned(seed):
    result = search(sum, EstimationOfDistribution(), space=Binary(40), budget=600, seed=seed, direction="maximize")
    assert result.value >= 39


@pytest.mark.parametrize("pairwise", [False, True])
@pytest.mark.parametrize("seed", range(2))
def test_it_beats_random_search_on_a_subset_of_weighted_items(seed, pairwise):
    weights = np.random.default_rng(seed).normal(size=40)

    def gain(kept):
        return float(weights[list(kept)].sum())

    algorithm = EstimationOfDistribution(pairwise=pairwise, parents=16 if pairwise else 8)
    space = Subset(40, k=12)
    ours = search(gain, algorithm, space=space, budget=400, seed=seed, direction="maximize")
    blind = search(gain, RandomSearch(), space=space, budget=400, seed=seed, direction="maximize")
    assert ours.value > blind.value
    assert ours.value > 0.9 * float(np.sort(weights)[-12:].sum())


def test_a_mixed_space_is_solved_as_all_its_candidates_say():
    rng = np.random.default_rng(0)
    bits, modes, kept = rng.normal(size=4), rng.normal(size=3), rng.normal(size=5)
    space = Product(mask=Binary(4), mode=Categorical((0, 1, 2)), kept=Subset(5, k=2))

    def loss(value):
        return float(bits @ value["mask"] + modes[value["mode"]] + kept[list(value["kept"])].sum())

    every = itertools.product(itertools.product((0, 1), repeat=4), range(3), itertools.combinations(range(5), 2))
    best = min(loss({"mask": mask, "mode": mode, "kept": pair}) for mask, mode, pair in every)
    result = search(loss, EstimationOfDistribution(), space=space, budget=200)
    assert result.value == pytest.approx(best)
    assert len(set(row_keys(result.history.population))) == len(result.history)


def test_a_small_space_is_exhausted():
    result = search(sum, EstimationOfDistribution(), space=Subset(7, k=3), budget=1000, direction="maximize")
    assert len(set(row_keys(result.history.population))) == len(result.history) == 35
    assert result.best == (4, 5, 6)


def test_a_noisy_one_max_is_learned_where_the_luckiest_candidate_says_little():
    """60 bits, noise of 12 bits' worth: PBIL is wrong about 0.217 of the bits after 1,000 evaluations, others 0.5."""
    space, errors, luckiest = Binary(60), [], []
    for seed in range(6):
        noise, target = np.random.default_rng(seed + 100), np.random.default_rng(seed + 200).random(60) < 0.5
        run = EstimationOfDistribution().start(Problem(space, noisy=True), np.random.default_rng(seed))
        seen = []
        for _ in range(50):
            batch = run.ask(20)
            wrong = (batch.population != target).mean(axis=1)
            values = wrong + 0.2 * noise.normal(size=20)
            run.tell(told(batch, values))
            seen.append((values.min(), wrong[values.argmin()]))
        errors.append(float((run.recommend(1) != target).mean()))
        luckiest.append(min(seen)[1])
    assert np.mean(errors) < 0.15
    assert np.mean(errors) < np.mean(luckiest) - 0.05


def test_pairs_find_what_depends_on_what():
    """Of twin bits that should agree, every pair is linked."""
    space = Binary(16)
    run = EstimationOfDistribution(population=1000, parents=100, pairwise=True).start(
        Problem(space, batch_size=1000), np.random.default_rng(0)
    )
    batch = run.ask(1000)
    run.tell(told(batch, (batch.population[:, 0::2] != batch.population[:, 1::2]).sum(axis=1)))
    run.recommend(1)
    assert run.notes()["pairs"] >= 8
    children = run.ask(200).population
    agree = (children[:, 0::2] == children[:, 1::2]).mean(axis=0)
    assert (agree > 0.65).all()
    assert np.abs(children.mean(axis=0) - 0.5).max() < 0.25


def test_several_objectives_are_refused_at_the_start():
    with pytest.raises(MissingOperator, match="2"):
        search(
            lambda x: (sum(x), -sum(x)), EstimationOfDistribution(), space=Binary(3), budget=5,
            direction=("minimize", "maximize"),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"), [("population", 0), ("parents", 1), ("rate", 0.0), ("patience", -1.0), ("archive", 0)]
)
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        EstimationOfDistribution(**{name: value})
