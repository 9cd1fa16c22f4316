import itertools

import numpy as np
import pytest

from searchlib import (
    AdditiveProfile,
    Cases,
    Evolution,
    ExactAllocation,
    Objective,
    RandomSearch,
    Search,
    Split,
    measure_profile,
    search,
)
from searchlib.algorithms.allocation_model import AllocationModel
from searchlib.algorithms.drawn_allocations import drawn_allocations
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.spaces import Allocation, Binary
from searchlib.testing import check_algorithm

BITS = (2, 4, 8)


def profiled(space, seed=0):
    loss = -np.sort(-np.random.default_rng(seed).exponential(size=space.allowed_array.shape), axis=1)
    return AdditiveProfile.of(space, loss, error=0.1 * np.ones(loss.shape))


SPACES = [
    Allocation(tuple("abcdefgh"), BITS, ((BITS,) * 8,), (34,)),
    Allocation(tuple("abc"), BITS, ((BITS,) * 3,), (12,)),
    Allocation(tuple("abcdefgh"), BITS, ((BITS,) * 8,), (34,), groups=(0, 0, 0, 0, 1, 1, 1, 1), max_distinct=2),
    Allocation(tuple("abcdefgh"), BITS),
]


class Synthetic(Objective):
    """Noisy cases of: a sum over parts, plus products of pairs; every case has its own level."""

    def __init__(self, parts=24, options=4, budgets=2, cases=24, noise=0.1, pairs=0.0, fill=0.4, seed=0):
        rng = np.random.default_rng(seed)
        costs = np.sort(rng.random((budgets, parts, options)), axis=2)
        low, high = costs.min(axis=2).sum(axis=1), costs.max(axis=2).sum(axis=1)
        names = tuple(f"part {i}" for i in range(parts))
        self.space = Allocation(names, tuple(range(options)), costs, low + fill * (high - low))
        self.losses = np.exp(rng.normal(0, 1, (parts, 1))) * np.exp(-1.2 * np.arange(options))
        self.losses -= self.losses[:, -1:]
        self.couples = rng.integers(parts, size=(2 * parts, 2))
        self.strengths = pairs * rng.normal(size=2 * parts)
        self.noise = noise * rng.standard_normal((cases, parts, options))
        self.levels = 5 * rng.standard_normal(cases)
        self.base = np.full(parts, options - 1)

    def cases(self, split):
        return Cases.of(list(range(len(self.levels)))) if split is Split.SEARCH else Cases.none()

    def true(self, rows):
        own = self.losses[np.arange(rows.shape[1]), rows.astype(int)]
        first, second = own[:, self.couples[:, 0]], own[:, self.couples[:, 1]]
        return own.sum(axis=1) + (self.strengths * np.sqrt(np.maximum(first * second, 0))).sum(axis=1)

    def evaluate(self, candidates, cases):
        numbers = np.array(cases.payload)
        rows = candidates.array.astype(int)
        noise = self.noise[numbers][:, np.arange(rows.shape[1]), rows].sum(axis=2)
        return self.true(rows)[:, None] + self.levels[numbers] + noise.T


@pytest.mark.parametrize("space", SPACES, ids=["budget", "11 candidates", "few options per group", "no budget"])
def test_the_contract_holds(space):
    check_algorithm(ExactAllocation(profiled(space), alternates=3, stage=6), space, rounds=12)


def test_the_first_candidate_is_the_exact_allocation_and_the_notes_certify_it():
    objective = Synthetic(parts=8, options=3)
    profile = measure_profile(objective)
    result = search(objective, ExactAllocation(profile), budget=30)
    rows = np.array(list(itertools.product(range(3), repeat=8)), np.int16)
    rows = rows[objective.space.contains(rows)]
    additive = profile.loss_of(rows)[:, 0]
    assert result.history.population[0].tolist() == rows[additive.argmin()].tolist()
    notes = result.notes
    assert notes["additive"]["loss"] == pytest.approx(additive.min())
    assert notes["additive"]["bound"] <= additive.min() + 1e-9
    assert notes["additive"]["joint"] == pytest.approx(result.history.values[0, 0])
    assert notes["best"]["joint"] == pytest.approx(result.history.values.min())
    assert notes["evaluations"] == 30


def test_with_interactions_it_finds_the_brute_force_optimum_of_small_problems():
    found, additive = 0, 0
    for seed in range(6):
        objective = Synthetic(parts=8, options=3, noise=0.0, pairs=0.8, seed=seed)
        profile = measure_profile(objective)
        rows = np.array(list(itertools.product(range(3), repeat=8)), np.int16)
        rows = rows[objective.space.contains(rows)]
        best = objective.true(rows).min()
        result = search(objective, ExactAllocation(profile), budget=80, seed=seed)
        found += objective.true(result.row[None])[0] <= best + 1e-9
        additive += objective.true(result.history.population[:1])[0] <= best + 1e-9
    assert found >= 4
    assert additive < found


def test_it_beats_evolution_and_random_search_that_may_spend_the_profile_too():
    ours, evolved, random, exact = [], [], [], []
    for seed in range(3):
        objective = Synthetic(parts=32, pairs=0.6, noise=0.05, cases=8, seed=seed)
        profile = measure_profile(objective)  # 96 evaluations
        budget = 100
        result = search(objective, ExactAllocation(profile), budget=budget, seed=seed)
        ours.append(objective.true(result.row[None])[0])
        exact.append(objective.true(result.history.population[:1])[0])
        for algorithm, values in ((Evolution(), evolved), (RandomSearch(), random)):
            other = search(objective, algorithm, budget=budget + 96, seed=seed)
            values.append(objective.true(other.row[None])[0])
    assert (np.array(ours) < np.array(evolved)).all()
    assert (np.array(ours) < np.array(exact)).all()
    assert np.mean(evolved) < np.mean(random)


def test_a_search_resumes_to_the_same_history(tmp_path):
    objective = Synthetic(parts=10, pairs=0.5)
    algorithm = ExactAllocation(measure_profile(objective))
    whole = search(objective, algorithm, budget=50, seed=3)
    for number, _ in enumerate(Search(objective, algorithm, budget=50, seed=3, study=tmp_path / "s.db", batch_size=9)):
        if number == 2:
            break
    resumed = search(objective, algorithm, budget=50, seed=3, study=tmp_path / "s.db", batch_size=9)
    again = search(objective, algorithm, budget=50, seed=3, batch_size=9)
    assert resumed.history.digest == again.history.digest
    assert dict(resumed.notes) == dict(again.notes)
    assert len(whole.history) == 50


def test_draws_are_allocated_within_two_percent_of_the_bound():
    rng = np.random.default_rng(0)
    costs = np.sort(rng.random((2, 80, 6)), axis=2)
    budgets = costs.min(axis=2).sum(axis=1) + 0.4 * np.ptp(costs, axis=2).sum(axis=1)
    space = Allocation(tuple(map(str, range(80))), tuple(range(6)), costs, budgets)
    losses = rng.lognormal(size=(4, 80, 1)) * np.exp(-np.arange(6))
    rows = drawn_allocations(space, losses, space.sample(rng, 1)[0])
    assert space.contains(rows).all()
    for loss, row in zip(losses, rows, strict=True):
        bound = AdditiveProfile.of(space, loss).allocate(method="lp").bound
        assert bound <= loss[np.arange(80), row].sum() <= 1.02 * bound


def test_the_model_learns_what_joint_values_say_about_parts():
    rng = np.random.default_rng(1)
    profile = rng.exponential(size=(12, 3))
    profile[:, 2] = 0
    truth = profile * rng.uniform(0.3, 1.7, (12, 1))
    rows = rng.integers(3, size=(120, 12))
    values = 7 + truth[np.arange(12), rows].sum(axis=1)
    model = AllocationModel(profile, 0.05 * np.ones(profile.shape), np.full(12, 2))
    fitted = model.fit(rows, values)
    assert np.abs(fitted.mean() - truth).mean() < 0.25 * np.abs(profile - truth).mean()
    draws = np.stack([fitted.draw(np.random.default_rng(seed)) for seed in range(300)])
    assert np.abs(draws.mean(axis=0) - fitted.mean()).max() < 0.1
    spread = draws.std(axis=0)[:, :2]
    assert np.mean(np.abs(draws.mean(axis=0) - truth)[:, :2] < 3 * spread) > 0.9


@pytest.mark.parametrize("unit", [1 / 30, 30.0])
def test_a_profile_in_other_units_than_the_values_says_as_much(unit):
    rng = np.random.default_rng(1)
    profile = rng.exponential(size=(12, 3))
    profile[:, 2] = 0
    truth = profile * rng.uniform(0.3, 1.7, (12, 1))
    rows = rng.integers(3, size=(120, 12))
    values = 7 + truth[np.arange(12), rows].sum(axis=1)
    model = AllocationModel(unit * profile, unit * 0.05 * np.ones(profile.shape), np.full(12, 2))
    found = model.fit(rows, values).mean()
    assert np.abs(found - truth).mean() < 0.25 * np.abs(profile - truth).mean()
    assert np.array_equal(model.loss, unit * profile)  # what alternates are drawn from


def test_what_does_not_fit_is_refused():
    profile = profiled(SPACES[0])
    with pytest.raises(InvalidSettings, match="parts and options"):
        search(sum, ExactAllocation(profile), space=SPACES[1], budget=3)
    with pytest.raises(MissingOperator, match="needs an AllocationSpace"):
        search(sum, ExactAllocation(profile), space=Binary(8), budget=3)
    with pytest.raises(InvalidSettings, match="say how much each metric"):
        ExactAllocation(AdditiveProfile(np.zeros((2, 3, 2)), [], [], metrics=("a", "b")))


def test_a_budget_on_which_all_options_cost_the_same_changes_no_draw():
    costs, parts = [[BITS] * 8], tuple("abcdefgh")
    one = Allocation(parts, BITS, costs, [32])
    two = Allocation(parts, BITS, [*costs, [[64] * 3] * 8], [32, 512])
    losses = np.random.default_rng(0).exponential(size=(5, 8, 3)).cumsum(axis=2)[:, :, ::-1]
    cheapest = np.zeros(8, one.dtype)
    rows = drawn_allocations(two, losses, cheapest)
    assert two.contains(rows).all()
    np.testing.assert_array_equal(rows, drawn_allocations(one, losses, cheapest))
