import itertools
import os
import sys
import warnings

import numpy as np
import pytest

from searchlib import CMAES, Budget, Problem, Stages, search
from searchlib.algorithms import Evidence, Status
from searchlib.errors import InvalidSettings, MissingDependency, MissingOperator
from searchlib.space import row_keys
from searchlib.spaces import Affine, Binary, ExpertMerges, Real, Subset
from searchlib.testing import check_algorithm

cma = pytest.importorskip("cma")

#: One unit of its relaxation is 1, so that a run on it is a run on plain reals.
SPACE = Real(-2.0, 2.0, length=4)


def sphere(x):
    return sum((xi - 0.3) ** 2 for xi in x)


def rosenbrock(x):
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in itertools.pairwise(x))


def evidence(ids, population, values, failed=None):
    failed = np.zeros(len(ids), bool) if failed is None else np.asarray(failed)
    values = np.where(failed[:, None], np.nan, np.asarray(values, float).reshape(-1, 1))
    status = np.where(failed, Status.FAILED, Status.DONE).astype(np.int8)
    nothing = np.full(len(ids), np.nan)
    return Evidence(np.asarray(ids), population, values, status, nothing, np.full_like(values, np.nan))


def plain(rng, generations, function, **options):
    """The candidates of pycma alone."""
    quiet = {"verbose": -10, "verb_log": 0, "seed": np.nan, "randn": lambda *shape: rng.standard_normal(shape)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strategy = cma.CMAEvolutionStrategy(np.zeros(4), 0.5, {**quiet, **options})
        rows = []
        for _ in range(generations):
            points = strategy.ask()
            strategy.tell(points, [function(point) for point in points])
            rows += points
    return np.array(rows)


@pytest.mark.parametrize("function", [sphere, rosenbrock])
@pytest.mark.parametrize(("settings", "options"), [
    (CMAES(), {}), (CMAES(population=12, covariance="separable"), {"popsize": 12, "CMA_diagonal": True})
])  # fmt: skip
def test_it_is_pycma_step_by_step(function, settings, options):
    theirs = plain(np.random.default_rng(3), 40, function, **options)
    assert np.abs(theirs).max() < 2  # nothing was clipped, so that both see the same function
    for batch_size in (64, 3):
        ours = search(function, settings, space=SPACE, budget=len(theirs), seed=3, batch_size=batch_size)
        np.testing.assert_allclose(ours.history.population, theirs, rtol=0, atol=1e-12)


def test_rosenbrocks_valley_takes_as_many_evaluations_as_cma_fmin():
    ours, theirs = [], []
    for seed in range(7):
        budget = Budget(evaluations=6000, target=1e-6)
        result = search(rosenbrock, CMAES(), space=SPACE, budget=budget, seed=seed, batch_size=8)
        ours.append(result.history.evaluations)
        options = {"ftarget": 1e-6, "maxfevals": 6000, "seed": seed + 1, "verbose": -10, "verb_log": 0}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs.append(cma.fmin2(rosenbrock, np.zeros(4), 0.5, options)[1].result.evaluations)
    assert max(ours) < 6000
    assert np.median(ours) < 1.4 * np.median(theirs)


def test_seeds_are_evaluated_first_and_the_mean_starts_at_the_best_of_them():
    seeds = np.array([[-1.5, 0, 0, 0], [1.2, 1.2, 1.2, 1.2], [1.9, -1.9, 0, 0]])
    run = CMAES(0.01).start(Problem(SPACE, seeds=seeds), np.random.default_rng(0))
    first = run.ask(64)
    np.testing.assert_array_equal(first.population, seeds)
    run.tell(evidence(first.ids, seeds, [3.0, 1.0, 2.0]))
    second = run.ask(64)
    assert second.ids[0] == 3
    assert len(second) >= 8
    assert np.abs(second.population - seeds[1]).max() < 0.1


def test_a_seed_that_failed_is_no_start():
    seeds = np.array([[1.2, 1.2, 1.2, 1.2]])
    run = CMAES(0.01).start(Problem(SPACE, seeds=seeds), np.random.default_rng(0))
    run.tell(evidence(run.ask(1).ids, seeds, [0.0], [True]))
    assert np.abs(run.ask(64).population).max() < 0.1


def test_told_strangers_are_a_warm_start():
    strangers = np.array([[1.0, 1, 1, 1], [-1.0, -1, -1, -1]])
    run = CMAES(0.01).start(Problem(SPACE), np.random.default_rng(0))
    run.tell(evidence([-1, -2], strangers, [2.0, 1.0]))
    assert np.abs(run.ask(64).population + 1).max() < 0.1
    middle = CMAES(0.01, mean="middle").start(Problem(SPACE), np.random.default_rng(0))
    middle.tell(evidence([-1, -2], strangers, [2.0, 1.0]))
    assert np.abs(middle.ask(64).population).max() < 0.1


def test_a_good_stranger_draws_the_mean_towards_it():
    means = []
    for strangers in (0, 3):
        run = CMAES(0.1).start(Problem(SPACE), np.random.default_rng(0))
        for _ in range(6):
            batch = run.ask(64)
            run.tell(evidence(batch.ids, batch.population, [sphere(row - 1.2) for row in batch.population]))
            rows = np.full((strangers, 4), 1.5)
            run.tell(evidence(-1 - np.arange(strangers), rows, np.zeros(strangers)))
        means.append(run.recommend(1)[0])
    assert np.abs(means[1] - 1.5).mean() < np.abs(means[0] - 1.5).mean()


def noisy_run(seed, evaluations=400):
    noise = np.random.default_rng([seed, 7])
    run = CMAES().start(Problem(Real(-2.0, 2.0, length=8)), np.random.default_rng(seed))
    told = 0
    while told < evaluations:
        batch = run.ask(64)
        values = np.array([sphere(row - 0.7) for row in batch.population]) + noise.normal(size=len(batch))
        run.tell(evidence(batch.ids, batch.population, values))
        told += len(batch)
    return run


def test_under_noise_the_mean_is_better_than_the_luckiest_candidate():
    pairs = np.array([[sphere(row - 0.7) for row in noisy_run(seed).recommend(2)] for seed in range(9)])
    assert (pairs[:, 0] < pairs[:, 1]).sum() >= 8  # a sign test at 2 %
    assert np.median(pairs[:, 0]) < 0.8 * np.median(pairs[:, 1])


def test_the_search_compares_the_mean_with_the_best_candidate():
    """The mean was never proposed; the loop scores it and it wins on a smooth bowl sooner or later."""
    wins = 0
    for seed in range(5):
        result = search(sphere, CMAES(), space=SPACE, budget=60, seed=seed)
        assert result.value <= result.history.values.min()
        wins += result.value < result.history.values.min()
    assert wins > 0


def test_a_generation_counts_as_whole_once_enough_of_it_was_told_late_ones_included():
    run = CMAES(population=6).start(Problem(SPACE), np.random.default_rng(0))
    first = run.ask(6)
    run.tell(evidence(first.ids[:4], first.population[:4], [1.0, 2, 3, 4]))
    assert not len(run.recommend(1)) or row_keys(run.recommend(1)) == row_keys(first.population[:1])
    more = run.ask(6)  # two are missing; the wait is filled from the same distribution
    assert more.ids.tolist() == list(range(6, 12))
    run.tell(evidence(more.ids[::-1], more.population[::-1], [5.0, 6, 7, 8, 9, 10]))
    next_one = run.ask(6)
    run.tell(evidence(first.ids[4:], first.population[4:], [0.0, 0.5]))
    assert len(run.ask(6)) == len(next_one) == 6


def test_failures_count_as_worst_and_a_generation_of_failures_changes_nothing():
    run = CMAES(population=8).start(Problem(SPACE), np.random.default_rng(0))
    for round_ in range(40):
        batch = run.ask(8)
        bad = (batch.population[:, 0] < 0) | (round_ == 0)  # half the space does not work
        run.tell(evidence(batch.ids, batch.population, [sphere(row + 0.8) for row in batch.population], bad))
    best = run.recommend(4)
    assert (best[1:, 0] >= 0).all()
    assert np.abs(best[1] - [0, -0.5, -0.5, -0.5]).max() < 0.1


def test_after_convergence_it_starts_again_elsewhere_with_twice_the_population():
    def rastrigin(x):
        return sum(10 + (2 * xi) ** 2 - 10 * np.cos(4 * np.pi * xi) for xi in x)

    result = search(rastrigin, CMAES(0.2, mean="middle"), space=Real(-2.0, 2.0, length=2), budget=4000, seed=1,
                    seeds=[(1.5, 1.5)], batch_size=1000)  # fmt: skip
    sizes = np.bincount(result.history.batch)[1:-1]
    assert len(set(sizes.tolist())) > 2
    assert (sizes[1:] % sizes[0] == 0).all()
    assert result.value < 1e-9


@pytest.mark.parametrize("width", [200, 201])
def test_wide_relaxations_adapt_variances_only(width):
    run = CMAES().start(Problem(Real(-1.0, 1.0, length=width)), np.random.default_rng(0))
    run.ask(1)
    assert bool(run._descent._strategy.opts["CMA_diagonal"]) == (width > 200)


def test_it_writes_nothing_prints_nothing_and_leaves_numpys_generator_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = np.random.get_state()[1].copy()
    search(sphere, CMAES(), space=SPACE, budget=200)
    assert os.listdir(tmp_path) == []
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_every_proposal_is_feasible_on_an_exact_subset():
    result = search(lambda kept: -sum(kept), CMAES(), space=Subset(20, k=5), budget=200)
    assert Subset(20, k=5).contains(result.history.population).all()
    assert result.value <= -80


def test_checkpoint_weights_of_a_quadratic_model_are_found():
    """LCSC's unit test with a known optimum: a least-squares mixture of noisy iterates."""
    rng = np.random.default_rng(0)
    iterates = rng.normal(size=(8, 5)) + 1.0
    space = Affine(8)
    basis = np.linalg.svd(np.eye(8) - 1 / 8)[0][:, :7]
    free = np.linalg.lstsq(iterates.T @ basis, -iterates.T @ np.full(8, 1 / 8), rcond=None)[0]
    optimum = float(np.sum((iterates.T @ (1 / 8 + basis @ free)) ** 2))
    result = search(lambda a: float(np.sum((iterates.T @ np.array(a)) ** 2)), CMAES(), space=space, budget=1500)
    assert result.value < optimum + 1e-6


@pytest.mark.parametrize("space", [Real(0.0, 1.0), Real(1.0, 1.0), Binary(1), Subset(3, k=3)], ids=repr)
def test_the_contract_holds_where_the_relaxation_has_fewer_than_two_coordinates(space):
    check_algorithm(CMAES(), space)


def test_the_contract_holds_across_a_hand_over():
    stages = Stages(CMAES(population=4), CMAES(0.2, population=5))
    check_algorithm(stages, ExpertMerges(layers=4, experts=6, keep=3, groups=2), rounds=12)


def test_a_study_rebuilds_the_settings():
    settings = CMAES(0.1, population=8, covariance="full")
    assert eval(repr(settings)) == settings


def test_without_pycma_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cma", None)
    with pytest.raises(MissingDependency, match=r"searchlib\[cma\]"):
        search(sum, CMAES(), space=Binary(4), budget=3)


def test_several_objectives_are_refused_at_the_start():
    with pytest.raises(MissingOperator, match="2"):
        search(lambda x: (x, -x), CMAES(), space=Real(0, 1), budget=5, direction=("minimize", "maximize"))


@pytest.mark.parametrize(("name", "value"), [
    ("sigma", 0), ("sigma", float("nan")), ("population", 3), ("mean", "worst"), ("covariance", "none"), ("archive", 0)
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        CMAES(**{name: value})


def test_a_wide_space_may_be_asked_for_parts_of_a_generation():
    wide = Real(-1, 1, length=1000)
    result = search(lambda x: float(np.square(x).sum()), CMAES(), space=wide, budget=60, batch_size=7)
    assert result.history.evaluations == 60
    assert result.history.failures == 0
