"""Pursuit as an objective: the contract, splits, references, records."""

import dataclasses

import numpy as np
import pytest

from searchlib import search
from searchlib.cases import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives import Pursuit, PursuitRange, PursuitSettings, PursuitTasks
from searchlib.objectives.pursuit_heuristics import Janosov
from searchlib.objectives.pursuit_policy import PursuitNetwork
from searchlib.objectives.pursuit_record import record_pursuit
from searchlib.space import Candidates
from searchlib.spaces import Real
from searchlib.testing import check_objective

SLOW = PursuitRange(evader_speed=(0.6, 1.4), half_size=(0.4, 0.8), obstacle_speed=(1.0, 1.0))
WORLDS = {
    "2-D box": PursuitSettings(steps=40),
    "3-D box": PursuitSettings(dimension=3, obstacles=5, steps=40),
    "cylinder": dataclasses.replace(PursuitSettings.dualcl(), steps=40),
}


@pytest.mark.parametrize("name", WORLDS)
def test_it_keeps_the_contract_of_objectives_to_the_last_bit(name):
    check_objective(Pursuit(SLOW, WORLDS[name], search=6, select=4, holdout=6), tolerance=0)


def test_scores_are_captures_and_ties_are_broken_by_the_least_distance():
    objective = Pursuit(SLOW, search=10)
    rows = objective.space.sample(np.random.default_rng(0), 7)
    cases = objective.cases(Split.SEARCH)
    scores = objective.evaluate(Candidates(objective.space, rows), cases)
    outcome = objective.outcome(rows, PursuitTasks.of(cases.payload))
    assert np.array_equal(scores.values, outcome.captured.reshape(7, 10))
    assert scores.values.dtype == np.float64
    assert 0 < scores.values.sum() < 70
    missed = scores.values == 0
    assert np.array_equal(scores.secondary[missed], outcome.min_distance.reshape(7, 10)[missed])
    assert np.array_equal(objective.aggregate(scores.values)[:, 0], scores.values.mean(axis=1))
    assert objective.cost(Candidates(objective.space, rows), cases) == 7 * 10 * 150


def test_splits_share_no_seed_and_another_seed_is_other_tasks():
    first, second = (Pursuit(search=30, select=30, holdout=30, seed=seed) for seed in (0, 1))
    seeds = [{task.seed for task in first.cases(split).payload} for split in Split]
    assert [len(part) for part in seeds] == [30] * 3
    assert not seeds[0] & seeds[1]
    assert not seeds[0] & seeds[2]
    assert not seeds[1] & seeds[2]
    assert first.cases(Split.SEARCH).ids != second.cases(Split.SEARCH).ids
    assert first.cases(Split.SEARCH).ids == Pursuit(search=30).cases(Split.SEARCH).ids


def test_a_seed_in_two_splits_is_refused():
    tasks = PursuitRange().uniform(np.random.default_rng(0), 5)
    with pytest.raises(InvalidSettings, match="is in both search and holdout"):
        Pursuit(search=tasks, holdout=tasks.take([3]))


def test_the_grid_can_be_held_out():
    objective = Pursuit(holdout=PursuitRange().grid(copies=2), search=4, select=0)
    assert len(objective.cases(Split.HOLDOUT)) == 128
    assert len(objective.cases(Split.SELECT)) == 0


def test_the_heuristics_are_its_references():
    objective = Pursuit(PursuitRange.only(2.0, 1.0), search=8, select=0, holdout=60)
    cases = objective.cases(Split.HOLDOUT)
    rates = {name: objective.evaluate_reference(name, cases).mean() for name in objective.references()}
    assert list(rates) == ["janosov", "angelani", "potential field", "tuned potential field"]
    assert min(rates.values()) > 0.8
    with pytest.raises(InvalidSettings, match="the heuristics are janosov"):
        objective.heuristic("wolves")


def test_a_search_finds_a_team_that_catches_more_than_chance_does():
    objective = Pursuit(SLOW, PursuitSettings(steps=50), hidden=(4,), search=16, select=8, holdout=64)
    rows = objective.space.sample(np.random.default_rng(1), 60)
    holdout = objective.cases(Split.HOLDOUT)
    chance = objective.evaluate(Candidates(objective.space, rows), holdout).values.mean()
    result = search(objective, budget=320, seed=0)
    best = objective.space.encode([result.best])
    found = objective.evaluate(Candidates(objective.space, best), holdout).values.mean()
    assert found > chance + 0.2


def test_a_record_is_what_the_objective_scored():
    objective = Pursuit(SLOW, search=6)
    row = objective.space.sample(np.random.default_rng(2), 1)
    cases = objective.cases(Split.SEARCH)
    scores = objective.evaluate(Candidates(objective.space, row), cases)
    for column, task in enumerate(cases.payload):
        path = objective.record(row[0], task)
        assert path.pursuers.shape == (151, 3, 2)
        assert path.obstacles.shape == (151, 3, 2)
        assert path.times[-1] == pytest.approx(6.0)
        assert path.captured.any() == bool(scores.values[0, column])
    again = record_pursuit(objective.settings, task, Janosov())
    assert np.array_equal(again.evader[0], path.evader[0])
    assert not np.array_equal(again.pursuers[-1], path.pursuers[-1])


def test_a_space_of_ones_own_must_fit_the_network():
    length = PursuitNetwork(2, (4,)).parameters
    objective = Pursuit(hidden=(4,), space=Real(-5.0, 5.0, length=length))
    check_objective(objective, tolerance=0, cases=2)
    with pytest.raises(InvalidSettings, match="network has 66 parameters, but rows of the space have 65"):
        Pursuit(hidden=(4,), space=Real(-5.0, 5.0, length=65))


def test_what_decides_a_score_shows_in_the_fingerprint():
    kinds = [Pursuit(), Pursuit(hidden=(8,)), Pursuit(settings=PursuitSettings(dt=0.02))]
    assert len({repr(kind.fingerprint()) for kind in kinds}) == 3
    assert kinds[0].unseen() == ()


def test_cases_of_another_objective_are_refused():
    from searchlib.cases import Cases

    objective = Pursuit(search=2)
    rows = objective.space.sample(np.random.default_rng(0), 1)
    with pytest.raises(InvalidSettings, match="no pursuit tasks"):
        objective.evaluate(Candidates(objective.space, rows), Cases.of(["a prompt"]))
