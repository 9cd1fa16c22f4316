"""The benchmark of exploration: unseen buildings, equal episodes, claims that can fail, runs that are kept."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest

pytest.importorskip("numba")

from benchmarks import exploration as benchmark
from benchmarks import exploration_runs as runs
from benchmarks.exploration_runs import (
    ARMS,
    CIRCLES,
    FLOOR_PLANS,
    NO_MAIN,
    OURS,
    PAIRS,
    PRIOR,
    TEAMS,
    Job,
    Outcome,
    judged_tasks,
    learned_plans,
    objective_of,
    stored,
    unseen_plans,
)
from benchmarks.table import Table
from searchlib import Split
from searchlib.objectives.exploration_rules import COORDINATED, PLAIN, RULES

PAPER = benchmark.PRESETS["paper"]
PLACES = 4 * len(TEAMS)


def made(level, spread=0.0, seed=0, rollouts=None):
    """Steps around a level, starts harder or easier for everybody alike."""
    rng = np.random.default_rng(5)
    hard = 1 + 0.3 * rng.random(PLACES * PAPER.starts)
    own = 1 + spread * np.random.default_rng(seed).normal(size=PLACES * PAPER.starts)
    steps = tuple((level * hard * own).tolist())
    overlap = ((0.1, 0.2, None, 0.3),) * PLACES
    return Outcome(steps, steps, overlap, PAPER.rollouts if rollouts is None else rollouts, 1.0, (0.0,))


def claims(outcomes):
    table = Table("demonstration", "paper", 3)
    benchmark._claim_alike(table, PAPER, outcomes)
    benchmark._claim_fewer(table, PAPER, outcomes)
    return {claim.claim: claim for claim in table.claims}


def against(level, others, spread=0.05):
    ours = {Job(OURS, seed): made(level, spread, seed) for seed in range(3)}
    theirs = {Job(name, 0): made(steps, spread, 50 + place) for place, (name, steps) in enumerate(others.items())}
    return claims({**ours, **theirs})


def test_fewer_steps_hold_only_where_the_bound_is_beyond_what_is_claimed():
    rules = dict.fromkeys(PLAIN, 100.0) | dict.fromkeys(COORDINATED, 90.0)
    good = against(65.0, rules)
    assert all(claim.holds for claim in good.values())
    assert len([said for said in good if "26%" in said]) == 2 * len(PLAIN)
    bad = against(80.0, rules)
    broken = [said for said, claim in bad.items() if not claim.holds]
    assert len(broken) == 2 * (len(PLAIN) + 2)
    assert all("26%" in said or "15%" in said for said in broken)


def test_the_best_coordinated_rule_is_chosen_for_each_number_of_agents():
    near, useful = list(COORDINATED)[:2]
    fast = np.array([50.0, 90.0, 90.0] * 4)[None, :, None] * np.ones((1, PLACES, 3))
    slow = np.array([60.0, 70.0, 95.0] * 4)[None, :, None] * np.ones((1, PLACES, 3))
    best, names = benchmark._best_coordinated({near: fast, useful: slow})
    np.testing.assert_array_equal(best[0, :3, 0], [50, 70, 90])
    assert names == f"2: {near}; 4: {useful}; 6: {near}"


def test_the_bound_of_the_bootstrap_is_that_of_a_t_test_where_one_seed_and_one_place_are_compared():
    rng = np.random.default_rng(0)
    theirs = 100 + 10 * rng.normal(size=(1, 1, 200))
    ours = theirs * (0.8 + 0.05 * rng.normal(size=(1, 1, 200)))
    value, low = benchmark.fewer_steps(ours, theirs)
    assert value == pytest.approx(0.2, abs=0.01)
    error = (ours - theirs * (1 - value)).std() / theirs.mean() / np.sqrt(200)  # the delta method
    assert low == pytest.approx(value - 1.645 * error, abs=0.2 * error)


def test_an_ablation_and_a_training_with_pairs_are_compared_where_they_were_run():
    arms = {OURS: 80.0, NO_MAIN: 85.0, PAIRS: 78.0}
    outcomes = {Job(arm, seed): made(level, 0.02, seed) for arm, level in arms.items() for seed in range(3)}
    untaught = {Job("nearest", 0): made(140.0), Job(PRIOR, 0): made(90.0), Job(CIRCLES, 0): made(200.0)}
    found = claims({**outcomes, **untaught})
    verdicts = {said.split(" to 9")[0]: claim.holds for said, claim in found.items()}
    assert verdicts[f"{OURS} takes fewer steps than {NO_MAIN}"]
    assert not verdicts[f"{OURS} takes fewer steps than {PAIRS}"]
    assert verdicts[f"{PRIOR} takes fewer steps than {CIRCLES}"]
    assert any(said.startswith(f"{PAIRS} takes at least 26%") for said in found)


def test_unequal_episodes_are_noticed():
    found = claims({Job(OURS, 0): made(80.0), Job(NO_MAIN, 0): made(80.0, rollouts=5)})
    assert not found["all arms that learn had the same episodes"].holds


def test_no_search_meets_a_building_or_a_start_that_is_judged():
    learned, unseen = learned_plans(PAPER, None), unseen_plans(None)
    assert len(learned) >= 4
    assert not {plan.digest for plan in learned} & {plan.digest for plan in unseen}
    tasks = judged_tasks(PAPER, None)
    assert len({task.seed for task in tasks}) == len(tasks) == len(unseen) * len(TEAMS) * PAPER.starts
    cells = [(task.plan, task.agents) for task in tasks]
    assert cells == [(plan.name, team) for plan in unseen for team in TEAMS for _ in range(PAPER.starts)]
    searched = objective_of(PAPER, OURS, None).cases(Split.SEARCH).payload
    assert {task.agents for task in searched} == set(TEAMS)
    assert not {task.seed for task in searched} & {task.seed for task in tasks}
    assert {task.agents for task in objective_of(PAPER, PAIRS, None).cases(Split.SEARCH).payload} == {2}


def test_every_preset_has_arms_that_are_known_and_the_paper_all_of_them():
    assert set(PAPER.arms) == set(ARMS)
    assert set(PAPER.rules) == set(RULES)
    assert PAPER.starts >= 20
    assert benchmark.SEEDS["paper"] >= 3
    assert sum(learns for _, _, learns in FLOOR_PLANS.values()) == 3
    for effort in benchmark.PRESETS.values():
        assert set(effort.arms) <= set(ARMS)


def test_a_run_that_is_kept_is_not_run_again_unless_its_settings_changed(tmp_path, monkeypatch):
    played = []

    def play(effort, job, folder):
        played.append(job)
        return made(90.0)

    monkeypatch.setattr(runs, "run_job", play)
    first = stored(tmp_path, PAPER, Job(OURS, 0), None)
    assert stored(tmp_path, PAPER, Job(OURS, 0), None) == first == made(90.0)
    assert len(played) == 1
    stored(tmp_path, dataclasses.replace(PAPER, generations=3), Job(OURS, 0), None)
    stored(tmp_path, PAPER, Job(OURS, 1), None)
    stored(None, PAPER, Job(OURS, 0), None)
    assert len(played) == 4
    stored(tmp_path, PAPER, Job("nearest", 0), None)
    stored(tmp_path, dataclasses.replace(PAPER, generations=3), Job("nearest", 0), None)  # a rule learns nothing
    assert len(played) == 5


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
@pytest.mark.slow
def test_the_smoke_preset_explores_learns_and_draws(tmp_path):
    pytest.importorskip("matplotlib")
    from benchmarks.__main__ import main

    pictures = tmp_path / "pictures"
    options = ["--preset", "smoke", "--out", str(tmp_path), "--pictures", str(pictures), "--floorplans", str(tmp_path)]
    assert main(["exploration", *options]) == 0
    written = json.loads((tmp_path / "exploration.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    assert len(rows) == PLACES * 5
    for metrics in rows.values():
        assert 0 < metrics["steps to 90 %"]["mean"] <= metrics["steps to 95 %"]["mean"] <= 600
    assert all(claim["holds"] for claim in written["claims"] if claim["preset"] == "smoke")
    drawn = {file.name for file in pictures.iterdir()}
    assert {"exploration-rooms-1000-ours.png", "exploration-caves-1000-exclusion.gif"} <= drawn
