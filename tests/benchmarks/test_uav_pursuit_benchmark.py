"""The benchmark of multi-UAV pursuit: equal episodes, unseen starts, claims that can fail, runs that are kept."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest
from scipy import stats

from benchmarks import uav_pursuit as benchmark
from benchmarks import uav_pursuit_runs as runs
from benchmarks.table import Table
from benchmarks.uav_pursuit_runs import (
    ARENAS,
    ARMS,
    BARE,
    NO_GENERATOR,
    OURS,
    PRIOR,
    Counts,
    Job,
    Outcome,
    stored,
    worlds,
)
from searchlib.objectives.uav_heuristics import HEURISTICS
from searchlib.objectives.uav_tasks import SCENARIOS, uniform_tasks

PAPER = benchmark.PRESETS["paper"]


def made(captured=500, collided=0, rollouts=None, start=500):
    counts = Counts(500, captured, max(0, captured - collided), collided, 250.0)
    early = Counts(500, start, start, 0, 300.0)
    return Outcome(
        ((early,) * 5, (early,) * 5, (counts,) * 5), 0, PAPER.rollouts if rollouts is None else rollouts, 1.0, (0.0,)
    )


def claims(outcomes):
    table = Table("demonstration", "paper", 3)
    benchmark._claim_alike(table, PAPER, outcomes)
    benchmark._claim_solved(table, outcomes)
    benchmark._claim_better(table, outcomes)
    return {claim.claim: claim for claim in table.claims}


def test_a_scenario_is_solved_only_where_the_worst_seed_solves_it():
    good = claims({Job(OURS, seed): made() for seed in range(3)})
    assert len([said for said in good if said.startswith(tuple(SCENARIOS))]) == 8
    assert all(claim.holds for claim in good.values())
    for worse in (made(captured=494), made(collided=5)):
        bad = claims({Job(OURS, 0): made(), Job(OURS, 1): made(), Job(OURS, 2): worse})
        broken = [said for said, claim in bad.items() if not claim.holds]
        assert len(broken) == 4
        assert len({said.split(":")[0] for said in broken}) == 4


def test_ours_is_better_only_where_the_seeds_agree():
    ours = {Job(OURS, seed): made(captured=498 + seed // 2) for seed in range(3)}
    rivals = {Job("janosov", 0): made(captured=300), Job(PRIOR, 0): made(captured=499)}
    theirs = {Job(NO_GENERATOR, seed): made(captured=480 + seed, start=520) for seed in range(3)}
    found = claims({**ours, **rivals, **theirs})
    verdicts = {said: claim.holds for said, claim in found.items() if said.startswith(f"{OURS} captures without")}
    assert len(verdicts) == 4
    assert verdicts.pop(f"{OURS} captures without collision more often than janosov (mean of the four scenarios)")
    assert not next(holds for said, holds in verdicts.items() if PRIOR in said)
    assert not next(holds for said, holds in verdicts.items() if "half" in said)
    assert next(holds for said, holds in verdicts.items() if NO_GENERATOR in said and "half" not in said)


def test_unequal_episodes_are_noticed():
    found = claims({Job(OURS, 0): made(), Job(NO_GENERATOR, 0): made(rollouts=5)})
    assert not found["all arms that learn had the same episodes"].holds


def test_wilsons_interval_is_where_the_score_test_says_five_percent():
    low, high = benchmark.wilson(495, 500)
    for share in (low, high):
        score = (495 / 500 - share) / np.sqrt(share * (1 - share) / 500)
        assert 2 * stats.norm.sf(abs(score)) == pytest.approx(0.05, abs=1e-6)
    assert low < 0.99 < high


def test_starts_are_the_same_for_all_and_met_by_no_search():
    starts = worlds(PAPER)
    assert len(starts) == len(ARENAS) * 500
    assert len(set(starts.cases().ids)) == len(starts)
    searched = uniform_tasks(np.random.default_rng(0), 2000)
    assert not set(searched.seeds.tolist()) & set(starts.seeds.tolist())
    np.testing.assert_array_equal(worlds(PAPER).vectors, starts.vectors)


def test_every_preset_has_arms_that_are_known_and_the_paper_all_of_them():
    assert set(PAPER.arms) == set(ARMS)
    assert PAPER.judged >= 500
    assert benchmark.SEEDS["paper"] >= 3
    for effort in benchmark.PRESETS.values():
        assert set(effort.arms) <= set(ARMS)
        assert effort.members % 2 == 0
    assert len(BARE) == len(HEURISTICS) == 3


def test_a_run_that_is_kept_is_not_run_again_unless_its_settings_changed(tmp_path, monkeypatch):
    played = []

    def play(effort, job):
        played.append(job)
        return made()

    monkeypatch.setattr(runs, "run_job", play)
    first = stored(tmp_path, PAPER, Job(OURS, 0))
    assert stored(tmp_path, PAPER, Job(OURS, 0)) == first == made()
    assert len(played) == 1
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["job"] == [OURS, 0]
    stored(tmp_path, dataclasses.replace(PAPER, generations=3), Job(OURS, 0))
    stored(tmp_path, PAPER, Job(OURS, 1))
    stored(None, PAPER, Job(OURS, 0))
    assert len(played) == 4


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
@pytest.mark.slow
def test_the_smoke_preset_flies_trains_and_draws(tmp_path, monkeypatch):
    pytest.importorskip("jax")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    from benchmarks.__main__ import main

    pictures = tmp_path / "pictures"
    options = ["--preset", "smoke", "--out", str(tmp_path), "--pictures", str(pictures)]
    assert main(["uav_pursuit", *options]) == 0
    written = json.loads((tmp_path / "uav_pursuit.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    assert set(rows) == {(arena, arm) for arena in ARENAS for arm in (PRIOR, *HEURISTICS, *BARE, OURS)}
    for metrics in rows.values():
        assert 0 <= metrics["captured"]["mean"] <= 1
        assert metrics["captured, no collision"]["mean"] <= metrics["captured"]["mean"]
    assert all(claim["holds"] for claim in written["claims"] if claim["preset"] == "smoke")
    drawn = {file.name for file in pictures.iterdir()}
    assert {"uav-curriculum.png", "uav-wall.png", "uav-wall.gif"} <= drawn
