"""The benchmark of traffic signals: equal rollouts, unseen drivers, claims that can fail, runs that are kept."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import math

import numpy as np
import pytest

from benchmarks import traffic as benchmark
from benchmarks import traffic_runs as runs
from benchmarks.table import Table
from benchmarks.traffic_runs import (
    ARMS,
    NO_NEIGHBORS,
    OURS,
    PER_SIGNAL,
    UNTAUGHT,
    Driven,
    Hour,
    Job,
    Trained,
    Trial,
    stored_test,
    stored_training,
)

PAPER = benchmark.PRESETS["paper"]
SMALLER = dataclasses.replace(PAPER, networks=("cologne3", "cologne8", "ingolstadt1"))


def driven(delay, arrived=1000, spread=0.01, due=1200):
    """Four hours around a delay."""
    return Driven(
        tuple(
            Hour(delay * math.exp(spread * k), arrived, due + k, 0, 100.0, 30.0, 50, 1.0, 0.1) for k in (-1, 0, 1, 2)
        ),
        (0.0,),
    )


def claims(tests, effort=SMALLER):
    table = Table("demonstration", "paper", 3)
    benchmark._claim_alike(table, effort, {}, tests)
    benchmark._claim_together(table, effort, tests)
    benchmark._claim_never_worse(table, effort, tests)
    return {claim.claim: claim for claim in table.claims}


def everywhere(arm, delay, seeds=1, **changes):
    return {Trial(arm, seed, name): driven(delay, **changes) for seed in range(seeds) for name in SMALLER.networks}


def test_ours_is_at_least_as_good_only_where_delay_and_throughput_both_are():
    tests = everywhere(OURS, 20.0, seeds=3) | everywhere("fixed plan", 40.0) | everywhere("max-queue", 20.0)
    found = claims(tests)
    assert all(claim.holds for claim in found.values())
    halved = next(claim for said, claim in found.items() if "fixed plan in delay" in said)
    assert halved.value == pytest.approx(math.log(2))
    assert halved.n == 12
    worse = claims(tests | everywhere("max-queue", 19.0))
    assert [said for said, claim in worse.items() if not claim.holds] == [
        "ours is at least as good as max-queue in delay (margin 1%), 3 networks taken together"
    ]
    fewer = claims(tests | everywhere("max-queue", 20.0, arrived=1020))
    assert [said for said, claim in fewer.items() if not claim.holds] == [
        "ours is at least as good as max-queue in throughput (margin 1%), 3 networks taken together"
    ]


def test_a_network_where_one_policy_is_worse_than_the_plan_breaks_its_claim_whatever_the_mean():
    tests = everywhere(OURS, 20.0, seeds=3) | everywhere("fixed plan", 40.0)
    tests[Trial(OURS, 2, "ingolstadt1")] = driven(41.0)
    broken = [said for said, claim in claims(tests).items() if not claim.holds]
    assert broken == ["ingolstadt1: no policy of ours has more delay than the network's own plan"]


def test_vehicles_that_are_left_out_of_the_count_are_noticed():
    tests = everywhere(OURS, 20.0) | everywhere("fixed plan", 40.0)
    tests[Trial("fixed plan", 0, "cologne8")] = driven(40.0, due=1190)
    broken = [said for said, claim in claims(tests).items() if not claim.holds]
    assert broken == ["cologne8: every controller was given the same vehicles, none is left out of the count"]


def test_unequal_rollouts_are_noticed():
    table = Table("demonstration", "paper", 3)
    trained = {Job(OURS, 0): Trained((0.0,), 392, 1.0, ()), Job(NO_NEIGHBORS, 0): Trained((0.0,), 394, 1.0, ())}
    benchmark._claim_alike(table, SMALLER, trained, {})
    assert not table.claims[0].holds


def test_rows_that_serve_some_networks_only_are_compared_on_those():
    tests = everywhere(OURS, 20.0) | {
        Trial(PER_SIGNAL, 0, name): driven(30.0 if name == "cologne3" else 10.0) for name in ("cologne3", "cologne8")
    }
    ratios = benchmark.log_ratios(SMALLER, tests, OURS, PER_SIGNAL, "delay")
    np.testing.assert_allclose(ratios, [math.log(2 / 3)] * 4 + [math.log(2)] * 4)
    said = [claim for claim in claims(tests) if PER_SIGNAL in claim]
    assert len(said) == 2
    assert all("cologne3 and cologne8" in one for one in said)


def test_the_paper_has_every_arm_on_every_network_and_at_least_three_policies():
    assert set(PAPER.arms) == set(ARMS)
    assert len(PAPER.networks) == 8
    assert ARMS[OURS].seeds >= 3
    assert benchmark.SEEDS["paper"] >= 3
    assert PAPER.city**2 == 196
    assert {"fixed plan", "actuated", "delay-based", "max-queue", "max-pressure", "SOTL"} < set(UNTAUGHT)
    assert ARMS["ours, α = 0"].neighbor_weight == 0 < ARMS[OURS].neighbor_weight
    for effort in benchmark.PRESETS.values():
        assert set(effort.arms) <= set(ARMS)


@pytest.mark.skipif(importlib.util.find_spec("sumo_rl") is None, reason="RESCO's networks are in sumo-rl")
def test_drivers_of_the_tests_are_met_by_no_training():
    tasks = runs.holdout_tasks(PAPER, "cologne3")
    assert len(tasks) == PAPER.tests >= 3
    assert all(0.9 <= task.scale <= 1.1 for task in tasks)
    for seed in range(3):
        objective = runs.objective_of(PAPER, ARMS[OURS], seed, 100)
        met = {task.seed for split in ("search", "select") for task in objective.cases(split).payload}
        assert len(met) > 60
        assert not met & {task.seed for task in tasks}


def test_a_run_that_is_kept_is_not_run_again_unless_its_settings_or_policy_changed(tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(runs, "train", lambda effort, job: made.append(job) or Trained((1.0,), 3, 1.0, (0.5,)))
    monkeypatch.setattr(runs, "tested", lambda effort, trial, row: made.append(trial) or driven(9.0))
    first = stored_training(tmp_path, PAPER, Job(OURS, 0))
    assert stored_training(tmp_path, PAPER, Job(OURS, 0)) == first
    trial = Trial(OURS, 0, "cologne3")
    assert stored_test(tmp_path, PAPER, trial, (1.0,)) == stored_test(tmp_path, PAPER, trial, (1.0,)) == driven(9.0)
    assert len(made) == 2
    stored_training(tmp_path, dataclasses.replace(PAPER, generations=3), Job(OURS, 0))
    stored_test(tmp_path, PAPER, trial, (2.0,))
    stored_test(None, PAPER, trial, (1.0,))
    assert len(made) == 5


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("sumo_rl") is None, reason="RESCO's networks are in sumo-rl")
def test_the_smoke_preset_drives_trains_and_draws(tmp_path):
    pytest.importorskip("libsumo")
    pytest.importorskip("matplotlib")
    from benchmarks.__main__ import main

    assert main(["traffic", "--preset", "smoke", "--out", str(tmp_path), "--pictures", str(tmp_path / "pictures")]) == 0
    written = json.loads((tmp_path / "traffic.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    for network in benchmark.PRESETS["smoke"].networks:
        for arm in (*UNTAUGHT, OURS):
            assert rows[network, arm]["throughput"]["mean"] > 50
            assert rows[network, arm]["delay"]["mean"] > 0
    assert rows["a grid of 9 signals", OURS]["throughput"]["mean"] > 0
    assert all(claim["holds"] for claim in written["claims"] if claim["preset"] == "smoke")
    assert (tmp_path / "pictures" / "traffic-queues.png").stat().st_size > 10_000
