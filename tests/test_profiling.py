import math

import numpy as np
import pytest

from searchlib import Cases, Objective, OneAtATime, Scores, Split, Study, measure_profile, search
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.profiling import Unlimited, dearest
from searchlib.spaces import Allocation, Binary
from searchlib.testing import check_algorithm, check_objective

PAIR = Allocation(("a", "b"), (1, 2, 3), (((1, 2, 3),) * 2,), (4,), ((True, True, True), (True, False, True)))


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


def test_a_noisy_additive_objective_is_recovered_within_its_standard_errors():
    objective = Synthetic(noise=0.3)
    profile = measure_profile(objective)
    others = profile.errors[0] > 0
    assert others.sum() == 24 * 3
    z = (profile.loss[0] - objective.losses)[others] / profile.errors[0][others]
    assert np.mean(np.abs(z) < 3) > 0.97
    assert 0.8 < np.sqrt(np.mean(z**2)) < 1.25
    assert (profile.loss[0, :, -1] == 0).all()


def test_differences_from_the_base_are_paired_case_by_case():
    profile = measure_profile(Synthetic(noise=0.05))
    # The levels of the cases alone have a standard deviation of 5, a standard error of 1 over 24 cases.
    assert 0 < profile.errors.max() < 0.05


def test_rounds_keep_the_allocation_and_save_cells():
    saved = []
    for seed in range(4):
        objective = Synthetic(seed=seed, noise=0.05, cases=32)
        whole = measure_profile(objective, seed=seed)
        raced = measure_profile(objective, rounds=4, seed=seed)
        spent = sum(raced.cases[raced.loss[0] != 0].tolist())
        saved.append(1 - spent / (24 * 3 * 32))
        assert np.array_equal(raced.allocate().choice, whole.allocate().choice)
    assert np.mean(saved) > 0.35, saved


def test_without_a_limit_of_sigmas_every_entry_sees_every_case_and_rounds_do_not_matter():
    objective = Synthetic(parts=6)
    whole, rounds = measure_profile(objective), measure_profile(objective, rounds=3, sigmas=math.inf)
    assert (rounds.cases == 24).all()
    assert rounds.loss == pytest.approx(whole.loss)
    others = whole.errors > 0
    assert (rounds.errors[others] / whole.errors[others]).mean() == pytest.approx(1, abs=0.15)


def test_a_profile_resumes_from_its_studies_and_does_not_depend_on_workers(tmp_path):
    objective = Synthetic(parts=6, cases=12)
    whole = measure_profile(objective, rounds=2, study=tmp_path / "profile.db")
    assert sorted(path.name for path in tmp_path.glob("*.db")) == ["profile-round2.db", "profile.db"]
    assert len(Study.open(tmp_path / "profile.db").result().history) == 18

    objective.evaluate = None  # nothing is evaluated again
    again = measure_profile(objective, rounds=2, study=tmp_path / "profile.db")
    assert again.digest == whole.digest
    assert measure_profile(Synthetic(parts=6, cases=12), rounds=2, workers=2).digest == whole.digest


class Spread(Objective):
    """Not additive over its cases: the standard deviation of the scores, and their largest, both maximized."""

    space = PAIR
    direction = ("maximize", "maximize")
    additive = False

    def cases(self, split):
        return Cases.of(np.random.default_rng(0).normal(size=90).tolist()) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        return candidates.array.sum(axis=1)[:, None] * np.array(cases.payload)

    def aggregate(self, scores):
        return np.stack([scores[:, :, 0].std(axis=1), scores[:, :, 0].max(axis=1)], axis=1)


def test_objectives_that_are_not_additive_get_their_errors_from_rounds():
    one = measure_profile(Spread(), metrics=("spread", "largest"))
    assert one.metrics == ("spread", "largest")
    assert np.isnan(one.errors[:, 0, :2]).all()
    several = measure_profile(Spread(), rounds=6, sigmas=math.inf, metrics=("spread", "largest"))
    known = several.errors[:, 0, :2]
    assert (known > 0).all()
    scores = np.array(Spread().cases(Split.SEARCH).payload)
    for option in (0, 1):
        assert one.loss[0, 0, option] == pytest.approx((2 - option) * scores.std())  # from 4 to 2 or 3 times
        assert abs(several.loss[0, 0, option] - one.loss[0, 0, option]) < 4 * known[0, option]


def test_an_entry_that_fails_is_not_allowed():
    class Failing(Synthetic):
        def evaluate(self, candidates, cases):
            if (candidates.array[:, 2] == 1).any():
                raise MemoryError("too large")
            return Scores(super().evaluate(candidates, cases), infeasible=candidates.array[:, 3] == 0)

    profile = measure_profile(Failing(parts=5))
    assert np.argwhere(~profile.allowed).tolist() == [[2, 1], [3, 0]]


def test_the_base_is_by_default_what_costs_most():
    assert dearest(PAIR).tolist() == [2, 2]
    tables = [[[3, 1, 0]] * 2, [[0, 1, 9]] * 2]
    assert dearest(Allocation(("a", "b"), (1, 2, 3), tables, [9, 9])).tolist() == [0, 0]


def test_the_wrapper_keeps_the_contract_of_objectives():
    objective = Synthetic(parts=5)
    check_objective(Unlimited(objective, objective.base), pickles=False)
    check_objective(Unlimited(Spread(), np.array([2, 2])), pickles=False)


def test_one_at_a_time_asks_every_allowed_entry_once():
    result = search(lambda value: sum(value), OneAtATime(), space=PAIR.unlimited, budget=99, seeds=[(3, 3)])
    assert [PAIR.unlimited.decode(row) for row in result.history.population] == [(3, 3), (1, 3), (2, 3), (3, 1)]
    check_algorithm(OneAtATime(), PAIR.unlimited)
    with pytest.raises(MissingOperator, match="needs an AllocationSpace"):
        search(sum, OneAtATime(), space=Binary(3), budget=3)
    with pytest.raises(InvalidSettings, match=r"no entry \(0, 7\)"):
        search(sum, OneAtATime(((0, 7),)), space=PAIR.unlimited, budget=3, seeds=[(3, 3)])


def test_what_cannot_be_profiled_is_refused():
    with pytest.raises(InvalidSettings, match="there are 24"):
        measure_profile(Synthetic(), rounds=25)
    with pytest.raises(InvalidSettings, match="base must be a value or a row"):
        measure_profile(Synthetic(parts=3), base=(0, 0))


def test_budgets_that_rank_no_option_do_not_decide_what_is_dearest():
    bits = ((1, 2, 3),) * 2
    space = Allocation(("a", "b"), (1, 2, 3), (bits, ((64, 64, 64),) * 2), (4, 128))
    assert dearest(space).tolist() == [2, 2]


class Counted(Objective):
    """Two metrics; how often anything was evaluated is counted."""

    direction = ("minimize", "minimize")

    def __init__(self):
        self.space, self.evaluations = PAIR, 0

    def cases(self, split):
        return Cases(tuple(range(4))) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        self.evaluations += len(candidates.array)
        return np.zeros((len(candidates.array), len(cases), 2))

    def aggregate(self, scores):
        return scores.mean(axis=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": ("quality",)}, "metrics must be 2 distinct names"),
        ({"weights": {"unknown": 1.0}}, "no metric 'unknown'"),
        ({"budgets": [1.0]}, "budget 0 is 1"),
        ({"budgets": [4.0, 4.0]}, "cost must have shape"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_measured(settings, message):
    objective = Counted()
    with pytest.raises(InvalidSettings, match=message):
        measure_profile(objective, rounds=2, **settings)
    assert objective.evaluations == 0
    measure_profile(objective, rounds=2, metrics=("quality", "speed"), weights={"speed": 1.0}, budgets=[[3.0], [4.0]])
    assert objective.evaluations > 0


def test_a_space_without_budgets_asks_for_the_base():
    objective = Unlimited(Synthetic(parts=4), np.full(4, 3, np.int16))
    with pytest.raises(InvalidSettings, match="pass base="):
        measure_profile(objective)
    assert np.isfinite(measure_profile(objective, base=np.full(4, 3, np.int16)).loss).all()
