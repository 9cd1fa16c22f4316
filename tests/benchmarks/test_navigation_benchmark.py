"""The benchmark of many-agent navigation: equal episodes, unseen layouts, claims that can fail, runs that are kept."""

from __future__ import annotations

import dataclasses
import json
import os

import numpy as np
import pytest

from benchmarks import navigation as benchmark
from benchmarks import navigation_runs as runs
from benchmarks.navigation_runs import (
    ARENAS,
    BY_ORCA,
    BY_RULE,
    OUR_EXECUTOR,
    OURS,
    RIVALS,
    Job,
    Judged,
    Outcome,
    every,
    judged_layouts,
    stored,
    task,
)
from benchmarks.table import Table
from searchlib.cases import Split
from searchlib.objectives.navigation_layouts import random_layouts

PAPER = benchmark.PRESETS["paper"]
LARGEST = {name: max(arena.sizes) for name, arena in ARENAS.items()}


def judged(arena, method, steps, collisions=0.0, reached=500):
    """A row of 500 worlds with so many steps and collisions on average, a little different from world to world."""
    noise = np.random.default_rng(0).integers(-1, 2, 500)
    hits = (np.random.default_rng(1).random(500) < collisions).astype(int)
    return Judged(
        task(arena, LARGEST[arena]), method, reached, tuple((steps + noise).tolist()), tuple(hits.tolist()), 0.1
    )


def outcome(rows, rollouts=0):
    return Outcome(tuple(rows), rollouts, 1.0, (0.0,), (0.0,))


def rivals(arena, fastest=20):
    return outcome([
        judged(arena, f"hungarian, {BY_RULE}", 30, 0.9), judged(arena, f"bottleneck, {BY_RULE}", fastest + 1, 0.5),
        judged(arena, f"bottleneck, informed, {BY_RULE}", fastest, 0.5),
        judged(arena, f"bottleneck, {BY_ORCA}", fastest + 2, 0.1),
        judged(arena, every(f"bottleneck, {BY_RULE}"), fastest),
    ])  # fmt: skip


def ours(arena, steps=18, collisions=0.2, reached=500):
    return outcome([
        judged(arena, OURS, steps, collisions, reached), judged(arena, every(OURS), steps),
        judged(arena, f"bottleneck, {OUR_EXECUTOR}", 20),
    ], PAPER.rollouts(ARENAS[arena]))  # fmt: skip


def verdicts(arena, outcomes):
    table = Table("demonstration", "paper", 3)
    rows = benchmark._rows(outcomes, arena)[task(arena, LARGEST[arena])]
    benchmark._claim_alike(table, PAPER, outcomes)
    benchmark._claim_reached(table, rows)
    benchmark._claim_planner(table, arena, rows)
    benchmark._claim_rivals(table, arena, rows)
    benchmark._claim_halves(table, arena, rows)
    return [claim.holds for claim in table.claims]


def outcomes_of(arena, *seeds, fastest=20):
    return {Job(arena, RIVALS, 0): rivals(arena, fastest), **{Job(arena, OURS, i): one for i, one in enumerate(seeds)}}


@pytest.mark.parametrize("arena", sorted(ARENAS))
def test_all_claims_hold_where_every_seed_is_better(arena):
    found = verdicts(arena, outcomes_of(arena, *(ours(arena),) * 3))
    assert all(found)
    assert len(found) == (8 if arena in ("thrown", "pillars") else 7)


def test_one_bad_seed_breaks_the_claim_that_it_is_about():
    good = ours("thrown")
    for worse, broken in (
        (ours("thrown", reached=480), [1]), (ours("thrown", collisions=0.8), [5]),
        (ours("thrown", steps=25), [2, 3, 4, 6, 7]),
    ):  # fmt: skip
        found = verdicts("thrown", outcomes_of("thrown", good, good, worse))
        assert [place for place, holds in enumerate(found) if not holds] == broken


def test_not_worse_in_the_open_is_a_margin_and_better_among_pillars_is_not():
    for arena, place, holds in (("open", 3, True), ("thrown", 4, True), ("pillars", 4, False)):
        found = verdicts(arena, outcomes_of(arena, *(ours(arena, steps=20),) * 3))
        assert found[place] is holds
    for arena, place in (("open", 3), ("thrown", 4)):
        assert verdicts(arena, outcomes_of(arena, *(ours(arena, steps=21),) * 3))[place] is False
    # The fastest one of straight lines takes 21, the one that knows more 20.
    assert verdicts("thrown", outcomes_of("thrown", *(ours("thrown", steps=20),) * 3))[3] is True


def test_unequal_episodes_are_noticed():
    less = Outcome(ours("open").judged, 5, 1.0, (0.0,), (0.0,))
    assert verdicts("open", outcomes_of("open", ours("open"), less))[0] is False


def test_layouts_are_the_same_for_all_and_met_by_no_search():
    few = dataclasses.replace(PAPER, judged=20, authors=False)
    for arena in ARENAS:
        found = judged_layouts(few, arena)
        assert list(found) == [task(arena, agents) for agents in ARENAS[arena].sizes]
        for layouts in found.values():
            searched = random_layouts(
                ARENAS[arena].settings, layouts.agents, 20, np.random.default_rng(0), split=Split.SEARCH
            )  # fmt: skip
            assert not set(searched.seeds.tolist()) & set(layouts.seeds.tolist())
            assert not set(searched.cases().ids) & set(layouts.cases().ids)
    again = judged_layouts(few, "thrown")[task("thrown", 50)]
    np.testing.assert_array_equal(again.starts, judged_layouts(few, "thrown")[task("thrown", 50)].starts)


def test_the_paper_preset_has_all_arenas_enough_layouts_and_seeds():
    assert set(PAPER.arenas) == set(ARENAS)
    assert PAPER.judged >= 500
    assert benchmark.SEEDS["paper"] >= 3
    assert PAPER.agents == 5
    assert LARGEST == {"open": 50, "thrown": 50, "pillars": 50, "flight": 20}
    for effort in benchmark.PRESETS.values():
        assert effort.members % 2 == 0


def test_a_run_that_is_kept_is_not_run_again_unless_its_settings_changed(tmp_path, monkeypatch):
    played = []

    def play(effort, job):
        played.append(job)
        return ours("thrown")

    monkeypatch.setattr(runs, "run_job", play)
    first = stored(tmp_path, PAPER, Job("thrown", OURS, 0))
    assert stored(tmp_path, PAPER, Job("thrown", OURS, 0)) == first == ours("thrown")
    assert len(played) == 1
    stored(tmp_path, dataclasses.replace(PAPER, arenas=("thrown",)), Job("thrown", OURS, 0))
    assert len(played) == 1
    stored(tmp_path, dataclasses.replace(PAPER, layouts=3), Job("thrown", OURS, 0))
    stored(tmp_path, PAPER, Job("thrown", OURS, 1))
    stored(None, PAPER, Job("thrown", OURS, 0))
    assert len(played) == 4


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
@pytest.mark.slow
def test_the_smoke_preset_trains_judges_and_draws(tmp_path):
    pytest.importorskip("jaxmarl")
    pytest.importorskip("matplotlib")
    from benchmarks.__main__ import main

    pictures = tmp_path / "pictures"
    assert main(["navigation", "--preset", "smoke", "--out", str(tmp_path), "--pictures", str(pictures)]) == 0
    written = json.loads((tmp_path / "navigation.json").read_text())
    rows = {row["method"]: row["metrics"] for row in written["rows"]}
    wanted = {f"bottleneck, {OUR_EXECUTOR}", f"bottleneck, {BY_RULE}", f"random, {BY_RULE}"}
    assert {OURS, every(OURS), *wanted} <= set(rows)
    for metrics in rows.values():
        assert 0 < metrics["success"]["mean"] <= 1
        assert 1 <= metrics["steps"]["mean"] <= 120
    assert rows[f"bottleneck, {BY_RULE}"]["steps"]["mean"] < rows[f"random, {BY_RULE}"]["steps"]["mean"]
    assert all(claim["holds"] for claim in written["claims"] if claim["preset"] == "smoke")
    assert {file.name for file in pictures.iterdir()} == {"navigation-open.png", "navigation-open.gif"}
