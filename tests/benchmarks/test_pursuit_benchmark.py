"""The benchmark of curricula for pursuit: equal rollouts, honest centers, claims that can fail, runs that are kept."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
from scipy import stats

from benchmarks import pursuit as benchmark
from benchmarks import pursuit_runs
from benchmarks.__main__ import WRONG_USAGE, main
from benchmarks.pursuit_arms import (
    ARMS,
    CURRICULA,
    CYLINDER_TARGET,
    DUALCL,
    ON_TARGET,
    OURS,
    PROBLEMS,
    SHAPED,
    TARGET,
    UNIFORM,
)
from benchmarks.pursuit_radii import RADII
from benchmarks.pursuit_runs import CHECKPOINTS, Diary, Effort, Job, Outcome, held_out, run_job, stored
from benchmarks.table import Table
from searchlib import EvolutionStrategy, search
from searchlib.objectives import Pursuit
from searchlib.objectives.pursuit_tasks import TASK_AXES
from searchlib.spaces import CurriculumTasks

FIRST = next(iter(PROBLEMS))
TINY = Effort(
    EvolutionStrategy(method="openai", sigma=1.0, population=6), tuple(ARMS), tuple(PROBLEMS), tasks=5, scale=0.01,
    judged=10, copies=1,
)  # fmt: skip


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
@pytest.mark.slow
def test_the_smoke_preset_prints_all_rows_and_writes_its_json(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    options = ["--preset", "smoke", "--out", str(tmp_path), "--pictures", str(tmp_path / "pictures")]
    assert main(["pursuit", *options]) == 0
    written = json.loads((tmp_path / "pursuit.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    effort = benchmark.PRESETS["smoke"]
    for problem in effort.problems:
        found = {method: metrics for (task, method), metrics in rows.items() if task == problem}
        assert set(found) == set(effort.arms) - (set() if PROBLEMS[problem].is_target else set(ON_TARGET))
        for metrics in found.values():
            assert all(0 <= metrics[name]["mean"] <= 1 for name in ("at 0.25", "at 0.5", "at 1"))
            assert metrics["rollouts"]["mean"] >= effort.rollouts(PROBLEMS[problem])
    radii = [task for task, _ in rows if task.startswith("captures within")]
    assert len(radii) == len(RADII) * (4 + len(effort.arms))
    wide, narrow = radii[0], radii[-1]
    for heuristic in ("janosov", "angelani", "potential field"):  # the authors' ends of the table: 1 and 0
        assert rows[wide, heuristic]["captures"]["mean"] == 1
        assert rows[narrow, heuristic]["captures"]["mean"] <= 0.2
    claims = written["claims"]
    assert {claim["preset"] for claim in claims} == {"smoke", "paper"}
    assert all(claim["holds"] for claim in claims if claim["preset"] == "smoke")
    printed = capsys.readouterr().out
    assert all(method in printed for _, method in rows)
    assert {file.name for file in (tmp_path / "pictures").iterdir()} == {"curriculum.png", "episode.png", "episode.gif"}


def test_all_arms_have_the_same_rollouts_but_for_a_last_grid():
    planned = TINY.rollouts(PROBLEMS[FIRST])
    spent = {arm: run_job(TINY, Job(FIRST, arm, 0)).rollouts for arm in ARMS}
    assert {arm for arm, rollouts in spent.items() if rollouts != planned} <= {"TFS archive"}
    assert 0 <= spent["TFS archive"] - planned <= 64 * TINY.members


def test_a_grid_smaller_than_a_generation_does_not_end_a_run_early():
    effort = dataclasses.replace(TINY, strategy=dataclasses.replace(TINY.strategy, population=4), tasks=24)
    outcome = run_job(effort, Job(CYLINDER_TARGET, "TFS archive", 0))  # its grid has 16 tasks
    assert len(outcome.success) == len(CHECKPOINTS)
    assert outcome.rollouts >= effort.rollouts(PROBLEMS[CYLINDER_TARGET])


def test_ranges_have_more_seeds_than_targets_where_a_preset_says_so(tmp_path, monkeypatch):
    effort = dataclasses.replace(TINY, arms=(UNIFORM,), problems=(FIRST, "range"), range_seeds=2)
    monkeypatch.setitem(benchmark.PRESETS, "smoke", effort)
    assert main(["pursuit", "--preset", "smoke", "--seeds", "2", "--out", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "pursuit.json").read_text())["rows"]
    assert {row["task"]: len(row["metrics"]["at 1"]["values"]) for row in rows} == {FIRST: 2, "range": 4}


def test_judging_on_the_way_changes_nothing():
    job = Job(FIRST, OURS, 3)
    diary = Diary()
    outcome, again = run_job(TINY, job, diary), run_job(TINY, job)
    assert outcome._replace(seconds=0) == again._replace(seconds=0)
    problem, generations = PROBLEMS[FIRST], TINY.generations(PROBLEMS[FIRST])
    tasks, curriculum, distance = ARMS[OURS](problem, generations)
    assert not distance
    plain = search(
        Pursuit(tasks, problem.settings, search=1, select=0, holdout=0),
        dataclasses.replace(TINY.strategy, secondary=False), seed=3, shortlist=1, budget=generations * TINY.members,
        cases=dataclasses.replace(curriculum, per_generation=TINY.tasks),
    )  # fmt: skip
    np.testing.assert_array_equal(plain.row, outcome.center)
    assert len(diary.tasks) == generations
    assert np.ptp(np.concatenate(diary.tasks), axis=0)[:2].min() > 0  # speeds and sizes differ
    again = run_job(TINY, Job(FIRST, OURS, 4))
    assert again.center != outcome.center


def test_policies_are_judged_on_worlds_that_no_generation_meets():
    for name, problem in PROBLEMS.items():
        worlds, copies = held_out(problem, dataclasses.replace(TINY, judged=30, copies=3), 0)
        others, _ = held_out(problem, dataclasses.replace(TINY, judged=30, copies=3), 1)
        objective = Pursuit(problem.tasks, problem.settings, hidden=problem.hidden, search=1, select=0, holdout=0)
        met = objective.task_cases(problem.tasks.uniform(np.random.default_rng(0), 9).vectors, np.arange(9))
        assert not {task.seed for task in met.payload} & set(worlds.seeds.tolist()), name
        assert not set(others.seeds.tolist()) & set(worlds.seeds.tolist())
        if problem.is_target:
            assert (worlds.vectors == [*problem.tasks.high[:3], problem.tasks.low[3]]).all()
        else:
            assert len(worlds) == 64 * copies
            assert (worlds.vectors.reshape(64, copies, 4) == worlds.vectors[::copies][:, None]).all()


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_arm_offers_tasks_of_the_problem_and_ladders_end_at_it(name):
    problem = PROBLEMS[name]
    for arm, make in ARMS.items():
        tasks, curriculum, _ = make(problem, 50)
        space = CurriculumTasks(TASK_AXES, tuple(tasks.low), tuple(tasks.high))
        run = curriculum.start_on(space, np.random.default_rng(0))
        for _ in range(60):  # somebody who can do everything
            batch = run.ask(24)
            run.tell(batch, np.ones(len(batch)))
        last = run.ask(24).tasks
        for bounds in (tasks, problem.tasks):  # the last rung may be off by a rounding
            assert ((last >= bounds.low - 1e-9) & (last <= bounds.high + 1e-9)).all(), arm
        if curriculum.ladders:
            assert run.rung == sum(ladder.rungs - 1 for ladder in curriculum.ladders)
            np.testing.assert_allclose(last[:, 3], problem.tasks.low[3])
        if problem.is_target and arm in (*ON_TARGET, DUALCL):
            np.testing.assert_allclose(last, np.tile([*problem.tasks.high[:3], problem.tasks.low[3]], (24, 1)))


def test_a_run_that_is_kept_is_not_run_again_unless_its_settings_changed(tmp_path, monkeypatch):
    job = Job(FIRST, TARGET, 1)
    first = stored(tmp_path, TINY, job)
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["outcome"]["rollouts"] == first.rollouts

    def refuse(*_):
        raise AssertionError("it was run again")

    monkeypatch.setattr(pursuit_runs, "run_job", refuse)
    assert stored(tmp_path, TINY, job) == first
    for other in (dataclasses.replace(TINY, judged=11), dataclasses.replace(TINY, tasks=6)):
        with pytest.raises(AssertionError, match="again"):
            stored(tmp_path, other, job)
    with pytest.raises(AssertionError, match="again"):
        stored(tmp_path, TINY, job._replace(seed=2))
    with pytest.raises(AssertionError, match="again"):
        stored(None, TINY, job)


def test_a_ratio_is_bounded_where_the_paired_t_test_says_five_percent():
    rng = np.random.default_rng(0)
    theirs = rng.uniform(0.1, 0.3, 6)
    ours = 3 * theirs + rng.normal(0, 0.1, 6)
    low = benchmark.ratio_bound(ours, theirs)
    assert 0 < low < ours.mean() / theirs.mean()
    assert stats.ttest_1samp(ours - low * theirs, 0, alternative="greater").pvalue == pytest.approx(0.05, abs=1e-6)
    assert benchmark.ratio_bound([0.4, 0.6, 0.8], [0.1, 0.15, 0.2]) == pytest.approx(4)
    assert benchmark.ratio_bound([0.9, 0.0, 0.0], [0.1, 0.1, 0.1]) == 0


def test_only_where_distance_breaks_ties_a_generation_without_captures_moves_the_center(monkeypatch):
    problem = PROBLEMS[FIRST]
    hopeless = dataclasses.replace(problem, tasks=dataclasses.replace(problem.tasks, capture_radius=(1e-6, 0.6)))
    monkeypatch.setitem(pursuit_runs.PROBLEMS, FIRST, hopeless)
    centers = {arm: run_job(TINY, Job(FIRST, arm, 0)).center for arm in (TARGET, SHAPED)}
    assert not any(centers[TARGET])  # where it began
    assert all(centers[SHAPED])


def made(success, cover=None):
    """An outcome whose success at half the budget and at the end is known."""
    return Outcome((0.0, success, success), (0.0, 0.0, success if cover is None else cover), (0, 0, 0), 0, 1, 1.0, ())


def claimed(problem, arms):
    outcomes = {
        Job(problem, arm, seed): made(value) for arm, values in arms.items() for seed, value in enumerate(values)
    }  # fmt: skip
    table = Table("demonstration", "paper", 5)
    judge = benchmark._claim_worth if PROBLEMS[problem].is_target else benchmark._claim_range
    judge(table, problem, outcomes)
    return {claim.claim: claim for claim in table.claims}


def test_a_curriculum_is_worth_twice_the_target_only_where_the_seeds_agree():
    sure, unsure = [0.6, 0.7, 0.65, 0.62, 0.7], [0.9, 0.05, 0.9, 0.05, 0.9]
    claims = claimed(FIRST, {TARGET: [0.2, 0.21, 0.19, 0.2, 0.22], DUALCL: sure, OURS: unsure})
    assert len(claims) == 2
    good, bad = (next(claim for said, claim in claims.items() if arm in said) for arm in (DUALCL, OURS))
    assert good.holds
    assert 2 < good.interval[0] < good.value == pytest.approx(np.mean(sure) / 0.204)
    assert bad.value > 2 > bad.interval[0]
    assert not bad.holds


def test_where_the_target_alone_teaches_nothing_a_difference_is_claimed():
    claims = claimed(FIRST, {TARGET: [0.0] * 3, DUALCL: [0.5, 0.6, 0.4], OURS: [0.0, 0.0, 0.0]})
    good, bad = (next(claim for said, claim in claims.items() if arm in said) for arm in (DUALCL, OURS))
    assert good.holds
    assert good.value == pytest.approx(0.5)
    assert not bad.holds


def test_one_seed_claims_nothing():
    assert not any(claim.holds for claim in claimed(FIRST, {TARGET: [0.1], DUALCL: [0.9]}).values())


def test_over_a_range_every_curriculum_is_held_against_uniform_tasks():
    arms = {UNIFORM: [0.4, 0.5, 0.6], **{arm: [0.4, 0.5, 0.6] for arm in CURRICULA}, OURS: [0.5, 0.61, 0.69]}
    claims = claimed(next(name for name, problem in PROBLEMS.items() if not problem.is_target), arms)
    assert len(claims) == 4 * len(CURRICULA)
    better = {said for said, claim in claims.items() if claim.holds}
    assert better == {said for said in claims if OURS in said and "0.25" not in said}


@pytest.mark.parametrize("words", [["--arm", "TFS archive"], ["--arm", TARGET, "--problem", "range"]])
def test_arms_that_would_be_a_run_of_nothing_are_refused(words, tmp_path, capsys):
    assert main(["pursuit", "--preset", "small", *words, "--out", str(tmp_path)]) == WRONG_USAGE
    assert "target only" in capsys.readouterr().err


def test_the_cylinder_is_the_one_that_the_authors_plotted():
    problem = PROBLEMS[CYLINDER_TARGET]
    assert problem.tasks.high.tolist()[:2] == [2.4, 0.9]
    assert problem.tasks.low[3] == RADII[-1]
    assert (problem.settings.pursuers, problem.settings.obstacles) == (4, 0)
