import copy
import math
import pickle
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy import stats

from searchlib import CMAES, NSGA2, Algorithm, LocalSearch, RandomSearch, search
from searchlib.algorithms import Status
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.spaces import Real

optuna = pytest.importorskip("optuna")
SearchlibSampler = pytest.importorskip("searchlib.exchange").SearchlibSampler


def bowl(trial):
    place = [trial.suggest_float(f"x{number}", -5, 5) - 1.5 for number in range(3)]
    steps = trial.suggest_int("steps", 1, 9, step=2)
    wrong = trial.suggest_categorical("kind", ["a", "b", None]) != "b"
    return sum(one**2 for one in place) + abs(steps - 3) + wrong


def optimized(objective, sampler, n_trials, **settings):
    study = optuna.create_study(sampler=sampler, **settings)
    study.optimize(objective, n_trials=n_trials, catch=(RuntimeError,))
    return study


def shown(study):
    return [(trial.number, trial.state.name, trial.params, trial.values) for trial in study.trials]


@dataclass(frozen=True)
class Recorded(Algorithm):
    """Random search that notes what its runs are told."""

    runs: Any = ()

    def start(self, problem, rng):
        run = RandomSearch().start(problem, rng)
        told = []
        self.runs.append(told)
        tell = run.tell

        def noted(evidence):
            told.append(evidence)
            tell(evidence)

        run.tell = noted
        return run


def told(run):
    """By id: status and values."""
    return {
        int(evidence.ids[0]): (Status(evidence.status[0]).name, evidence.values[0].tolist()) for evidence in run
    }


def test_the_same_seed_gives_the_same_trials_and_another_one_others():
    first, second, other = (optimized(bowl, SearchlibSampler(seed=seed, evaluations=15), 15) for seed in (3, 3, 4))
    assert shown(first) == shown(second)
    assert len(first.trials) == 15
    assert first.trials[0].params != other.trials[0].params
    assert first.trials[-1].params != other.trials[-1].params


def test_it_is_better_than_random_sampling_at_equal_trials():
    seeds = range(12)
    ours = [optimized(bowl, SearchlibSampler(seed=seed, evaluations=30), 30).best_value for seed in seeds]
    random = [optimized(bowl, optuna.samplers.RandomSampler(seed=seed), 30).best_value for seed in seeds]
    assert stats.ttest_rel(np.log(ours), np.log(random), alternative="less").pvalue < 0.01
    assert np.median(ours) < np.median(random) / 2


def test_it_finds_as_much_as_the_same_algorithm_in_our_own_loop():
    """The first, random trial was told before the first proposal, so that CMA-ES began there: 22 instead of 3."""

    def rosenbrock(place):
        return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(place))

    def drawn(trial):
        return rosenbrock([trial.suggest_float(f"x{number}", -2, 2) for number in range(4)])

    seeds = range(10)
    inside = [optimized(drawn, SearchlibSampler(CMAES(), seed=seed), 60).best_value for seed in seeds]
    outside = [
        search(rosenbrock, CMAES(), space=Real(-2, 2, 4), budget=60, seed=seed, batch_size=1).value for seed in seeds
    ]
    assert np.median(inside) < 1.5 * np.median(outside)


def test_a_stored_study_is_gone_on_with_and_what_it_holds_is_told(tmp_path):
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(tmp_path / "trials.log")))
    begun = optimized(bowl, SearchlibSampler(seed=0), 6, storage=storage, study_name="bowl").trials
    runs = []
    gone_on = optuna.load_study(study_name="bowl", storage=storage, sampler=SearchlibSampler(Recorded(runs), seed=0))
    gone_on.optimize(bowl, n_trials=4)
    (run,) = runs
    assert {number: status for number, (status, _) in told(run).items()} == {
        **{-1 - trial.number: "DONE" for trial in begun}, **dict.fromkeys(range(4), "DONE"),
    }  # fmt: skip
    assert [told(run)[-1 - trial.number][1] for trial in begun] == [trial.values for trial in begun]
    assert len({tuple(trial.params.values()) for trial in gone_on.trials}) == 10


def test_values_are_told_minimized_whatever_the_directions():
    def two(trial):
        x = trial.suggest_float("x", 0, 1)
        return x, 2 * x

    runs = []
    study = optimized(two, SearchlibSampler(Recorded(runs)), 5, directions=["minimize", "maximize"])
    assert [told(runs[0])[number][1] for number in range(4)] == [
        [trial.values[0], -trial.values[1]] for trial in study.trials[1:]
    ]


def test_failed_pruned_and_infinite_trials_are_told_as_what_they_are():
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number == 2:
            raise RuntimeError("broken")
        if trial.number == 3:
            trial.report(7.0, step=1)
            trial.report(8.0, step=2)
            raise optuna.TrialPruned
        if trial.number == 4:
            raise optuna.TrialPruned
        return math.inf if trial.number == 5 else x

    runs = []
    study = optimized(objective, SearchlibSampler(Recorded(runs)), 8)
    heard = told(runs[0])
    assert [heard[number][0] for number in (1, 3, 4)] == ["FAILED"] * 3
    assert heard[2] == ("DONE", [8.0])
    assert heard[0] == ("DONE", study.trials[1].values)
    assert heard[-1] == ("DONE", study.trials[0].values)


def test_a_space_that_changes_begins_a_new_run_that_knows_the_old_trials():
    def objective(trial):
        x = trial.suggest_float("x", 0, 1)
        if trial.number < 3:
            return x
        kind = trial.suggest_categorical("kind", ["a", "b"])
        return x + (trial.suggest_float("only a", 0, 1) if kind == "a" else 0.0)

    runs = []
    study = optimized(objective, SearchlibSampler(Recorded(runs), seed=1), 10)
    assert len(runs) == 1  # x is all that every trial has
    assert all(set(trial.params) >= {"x", "kind"} for trial in study.trials[3:])

    def shrinking(trial):
        x = trial.suggest_float("x", 0, 1)
        return x + (trial.suggest_float("y", 0, 1) if trial.number < 4 else 0.0)

    runs.clear()
    study = optimized(shrinking, SearchlibSampler(Recorded(runs), seed=1), 8)
    assert [run[0].population.shape[1] for run in runs] == [2, 1]
    assert {-1 - trial.number for trial in study.trials[:5]} <= set(told(runs[1]))


def test_a_parameter_that_was_fixed_is_told_as_it_was_and_not_as_proposed():
    runs = []
    study = optuna.create_study(sampler=SearchlibSampler(Recorded(runs)))
    study.optimize(bowl, n_trials=2)
    study.enqueue_trial({"x0": 1.5})
    study.optimize(bowl, n_trials=2)
    heard = told(runs[0])
    assert heard[1][0] == "FAILED"  # what it proposed for the third trial was not tried
    assert heard[-3] == ("DONE", study.trials[2].values)
    assert study.trials[2].params["x0"] == 1.5


def test_threads_share_one_run():
    runs = []
    study = optuna.create_study(sampler=SearchlibSampler(Recorded(runs)))
    study.optimize(bowl, n_trials=1)
    study.optimize(bowl, n_trials=24, n_jobs=4)
    study.optimize(bowl, n_trials=1)
    (run,) = runs
    assert sorted(told(run)) == [-1, *range(25)]
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 26


def test_several_objectives_are_searched_for_their_front():
    def two(trial):
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        return x**2 + y, (x - 1) ** 2 + y

    def short(sampler):
        study = optimized(two, sampler, 60, directions=["minimize"] * 2)
        front = np.array([trial.values for trial in study.best_trials])
        return float((np.sqrt(front[:, 0]) + np.sqrt(front[:, 1])).mean())  # 1 on the true front

    ours = [short(SearchlibSampler(NSGA2(population=12), seed=seed)) for seed in range(5)]
    random = [short(optuna.samplers.RandomSampler(seed=seed)) for seed in range(5)]
    assert stats.ttest_rel(ours, random, alternative="less").pvalue < 0.05


def test_an_exhausted_space_is_sampled_at_random():
    study = optimized(lambda trial: float(trial.suggest_categorical("on", [False, True])), SearchlibSampler(), 12)
    assert len(study.trials) == 12
    assert study.best_value == 0.0


def test_a_sampler_on_another_study_begins_anew():
    sampler = SearchlibSampler(LocalSearch(), seed=2)
    first = optimized(bowl, sampler, 8)
    second = optimized(bowl, sampler, 8)
    assert shown(first) == shown(second)


def test_a_pickled_sampler_learns_from_the_study_again():
    sampler = SearchlibSampler(LocalSearch(), seed=2, evaluations=9)
    study = optimized(bowl, sampler, 8)
    for again in (pickle.loads(pickle.dumps(sampler)), copy.deepcopy(sampler)):
        assert repr(again) == repr(sampler)
        study.sampler = again
        study.optimize(bowl, n_trials=2)
    assert len({tuple(trial.params.values()) for trial in study.trials}) == 12


def test_wrong_settings_are_refused_with_their_value():
    with pytest.raises(InvalidSettings, match="algorithm must be an algorithm such as"):
        SearchlibSampler("CMA")
    with pytest.raises(InvalidSettings, match="seed must be a whole number of at least 0, but is -1"):
        SearchlibSampler(seed=-1)
    with pytest.raises(MissingOperator, match="ranks by one number"):
        optimized(lambda trial: (trial.suggest_float("x", 0, 1),) * 2, SearchlibSampler(LocalSearch()), 3,
                  directions=["minimize"] * 2)  # fmt: skip
