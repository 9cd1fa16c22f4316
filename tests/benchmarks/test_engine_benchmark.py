"""The engine's suite: its problems, its rivals, its statistics, and a run as short as it gets."""

from __future__ import annotations

import contextlib
import itertools
import json

import numpy as np
import pytest

pytest.importorskip("cma")
pytest.importorskip("nevergrad")

from benchmarks.__main__ import main
from benchmarks.engine import coco, graphs, masks, plain
from benchmarks.engine.families import FAMILIES
from benchmarks.engine.instance import Instance, Meter, Spent
from benchmarks.engine.runs import Job, Outcome, read
from benchmarks.engine.standings import ecdf, holm, standings
from benchmarks.engine.verdicts import judge
from benchmarks.table import Table
from searchlib.spaces import Allocation, Binary, Subset

OF_IOH = {*masks.TRAIN, *masks.TEST, *graphs.CUTS, *graphs.COVERAGES} - {"priced mask"}
OF_COCO = {*coco.MIXED, *coco.NOISY, *coco.LARGE}
PROBLEMS = [
    (family, problem) for family, known in FAMILIES.items() for problem in (*known.train, *known.test)
]  # fmt: skip


def skip_without_its_package(problem):
    for problems, package in ((OF_IOH, "ioh"), (OF_COCO, "cocoex")):
        if problem in problems:
            pytest.importorskip(package)


@pytest.mark.parametrize(("family", "problem"), PROBLEMS, ids=lambda word: word.replace(" ", "-"))
def test_an_instance_is_a_function_of_its_number(family, problem):
    skip_without_its_package(problem)
    first, again, other = (FAMILIES[family].make(problem, number) for number in (1, 1, 2))
    rows = first.space.sample(np.random.default_rng(0), 12)
    values = first.truth(rows)
    assert values.shape == (12,)
    assert np.isfinite(values).all()
    assert np.array_equal(values, again.truth(rows))
    assert np.ptp(values) > 0
    elsewhere = other.space.sample(np.random.default_rng(0), 12)
    assert not np.array_equal(values, other.truth(elsewhere))
    one_by_one = np.concatenate([first.truth(row[None]) for row in rows])
    np.testing.assert_allclose(values, one_by_one, rtol=1e-9)


def test_a_part_that_breaks_the_model_is_a_large_loss_and_not_an_infinite_one():
    """Number 17 of the weakest part overflowed where a layer got two bits."""
    instance = FAMILIES["b"].make("weakest part, 48 layers", 17)
    few = np.zeros((1, 48), np.int64)
    more = np.full((1, 48), 5)
    assert np.isfinite(instance.truth(few)).all()
    assert instance.truth(few)[0] > instance.truth(more)[0]


def test_training_and_test_problems_are_apart():
    for known in FAMILIES.values():
        assert known.train
        assert known.test
        assert not set(known.train) & set(known.test)


def spent(method, instance, budget, seed=0):
    meter = Meter(instance, budget, np.random.default_rng(seed))
    with contextlib.suppress(Spent):
        method(meter, np.random.default_rng(seed))
    return meter


def test_a_meter_counts_every_row_and_stops():
    instance = Instance("ones", 0, Binary(6), lambda rows: -np.asarray(rows, float).sum(axis=1))
    meter = Meter(instance, 5, np.random.default_rng(0))
    meter(np.zeros((3, 6), bool))
    assert meter.left == 2
    assert len(meter(np.ones((9, 6), bool))) == 2
    assert meter.outcome() == -6.0
    assert meter.curve == [0.0, 0.0, 0.0, -6.0, -6.0]
    with pytest.raises(Spent):
        meter(np.ones((1, 6), bool))


def test_under_noise_the_recommendation_counts_and_not_the_luckiest_value():
    instance = Instance(
        "ones", 0, Binary(2), lambda rows: np.asarray(rows, float).sum(axis=1), lambda rng, true: -100 * true
    )
    meter = Meter(instance, 4, np.random.default_rng(0))
    meter(np.array([[0, 0], [1, 1]]))
    assert meter.outcome() == 2.0, "it looked best"
    meter.recommended = np.array([0, 0])
    assert meter.outcome() == 0.0


def test_the_simple_loops_find_the_optimum_of_small_problems():
    rng = np.random.default_rng(0)
    worth = rng.normal(0, 1, 10)

    def of_subset(rows):
        return -worth[np.asarray(rows)].sum(axis=1)

    best = -np.sort(worth)[-3:].sum()
    subset = Instance("worth", 0, Subset(10, k=3), of_subset)
    for loop in (plain.swap, plain.single_drops_and_swaps, plain.subset_genetic, plain.random_search):
        assert spent(loop, subset, 400).outcome() == pytest.approx(best), loop.__name__
    bits = Instance("bits", 0, Binary(8), lambda rows: -np.asarray(rows, float).sum(axis=1))
    for loop in (plain.bit_flips, plain.heavy_tailed, plain.distribution_of_bits):
        assert spent(loop, bits, 500).outcome() == -8.0, loop.__name__


def test_the_additive_program_is_exact_on_a_sum():
    levels = (2, 3, 4, 5, 6, 8)
    sizes, rng = np.array([3.0, 1.0, 2.0, 1.0]), np.random.default_rng(1)
    loss = np.sort(rng.lognormal(0, 1, (4, 6)), axis=1)[:, ::-1]
    costs = tuple(tuple(float(size * bits) for bits in levels) for size in sizes)
    space = Allocation(tuple("abcd"), levels, costs=(costs,), budgets=(4 * sizes.sum(),))

    def truth(rows):
        return loss[np.arange(4), np.asarray(rows, int)].sum(axis=1)

    every = np.array(list(itertools.product(range(6), repeat=4)))
    best = truth(every[space.contains(every)]).min()
    found = spent(plain.additive_program, Instance("sum", 0, space, truth), 100)
    assert found.outcome() <= best + 1e-12


def test_ranks_wins_and_corrected_tests_are_the_usual_ones():
    from scipy.stats import wilcoxon

    rng = np.random.default_rng(0)
    values = {name: (rng.normal(shift, 1, 30)).tolist() for name, shift in
              (("ours", 0.0), ("near", -0.1), ("far", 3.0), ("random", 9.0))}  # fmt: skip
    found = standings(values, "ours")
    table = np.array(list(values.values()))
    assert found["ours"].rank == pytest.approx((table.argsort(axis=0).argsort(axis=0)[0] + 1).mean())
    assert found["far"].wins == pytest.approx((table[0] < table[2]).mean())
    assert found["far"].p_better < 1e-6
    assert found["near"].p_better > 0.05
    scale = np.maximum(table[3] - table.min(axis=0), 1e-300)
    raw = wilcoxon((table[2] - table[0]) / scale, alternative="greater", zero_method="zsplit").pvalue
    assert raw <= found["far"].p_better <= 3 * raw + 1e-12
    assert found["near"].behind_bound > found["far"].behind_bound


def test_holms_correction_is_that_of_his_paper():
    """Holm 1979: the smallest p times m, the next times m - 1, and never less than the one before."""
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005, "own": 0.0}, "own")
    assert corrected == pytest.approx({"own": 1.0, "d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_the_share_of_targets_reached_counts_by_hand():
    curves = np.array([[3.0, 1.0, 2.0], [5.0, 5.0, 0.0]])
    targets = np.array([[2.5, 1.0], [4.0, 0.0]])
    assert ecdf(curves, targets, [1, 2, 3]) == [0.0, 0.5, 1.0]


def cell_of(values):
    """Runs of family a2 with one evaluation; ``values`` has ten numbers per problem and method."""
    jobs = {
        Job("a2", 1, problem, number, method): Outcome(value, (value,) * 3, 1.0)
        for (problem, method), of_row in values.items()
        for number, value in enumerate(of_row)
    }
    table = Table("engine", "paper", 10)
    judge(table, jobs)
    return table


def test_a_library_that_fits_some_problems_only_counts_among_those_to_be_beaten():
    first, second = FAMILIES["a2"].test[:2]
    rng = np.random.default_rng(0)
    ours, worse, random = rng.normal(0, 1, (3, 2, 10)) + np.array([0, 8, 9])[:, None, None]
    runs = {
        (problem, method): row[place] for place, problem in enumerate((first, second))
        for method, row in (("auto", ours), ("pycma, relaxed", worse), ("random", random))
    }  # fmt: skip
    sentence = "a2, 1: auto is significantly better than every optimizer of another library"
    claims = {claim.claim: claim for claim in cell_of(runs).claims}
    assert claims[sentence].holds
    assert claims[sentence].value == 1
    table = cell_of(runs | {(first, "SMAC3, scores"): ours[0] + rng.normal(0, 0.1, 10)})
    claims = {claim.claim: claim for claim in table.claims}
    assert not claims[f"{sentence} (not: SMAC3, scores)"].holds
    assert claims[f"{sentence} (not: SMAC3, scores)"].bound == 2
    assert claims["a2, 1: auto is not inferior to SMAC3, scores where that fits"].n == 10
    assert ("a2, 1: where it fits", "SMAC3, scores") in {(row["task"], row["method"]) for row in table.rows()}


def test_a_part_of_a_cell_is_not_judged():
    first = FAMILIES["a2"].test[0]
    assert cell_of({(first, "random"): [1.0] * 10}).rows() == []
    assert cell_of({(first, "random"): [1.0] * 10, (first, "auto"): [1.0] * 9}).rows() == []


def test_more_instances_are_run_apart_without_times_and_judged_with_the_first_ones(tmp_path):
    """Two runs of two instances each, the second one on two processors, are the run of all four."""
    part = ["engine", "--preset", "smoke", "--family", "a2", "--method", "swap (1+1)", "--instances"]
    assert main([*part, "2", "--out", str(tmp_path / "first")]) == 0
    assert main([*part, "2", "--first", "2", "--jobs", "2", "--out", str(tmp_path / "more")]) == 0
    assert main([*part, "4", "--out", str(tmp_path / "whole")]) == 0
    together = ["--merge", str(tmp_path / "first"), str(tmp_path / "more"), "--out", str(tmp_path / "merged")]
    assert main(["engine", *together]) == 0
    first, merged, whole = (read(tmp_path / name)[1] for name in ("first", "merged", "whole"))
    assert {job: run[:2] for job, run in merged.items()} == {job: run[:2] for job, run in whole.items()}
    assert len(first) * 2 == len(whole) > 10
    assert all(np.isfinite(run.milliseconds) == (job.number < 2) for job, run in merged.items())
    rows = json.loads((tmp_path / "merged" / "engine.json").read_text())["rows"]
    times = [row["metrics"].get("ms_per_evaluation") for row in rows if row["method"] == "auto"]
    assert times[0]["mean"] > 0


def test_problems_of_a_package_that_is_missing_are_left_out_and_said_so(tmp_path, capsys, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "ioh", None)
    assert main(["engine", "--preset", "smoke", "--family", "a1", "--out", str(tmp_path)]) == 0
    assert "LABS is left out" in capsys.readouterr().err
    written = json.loads((tmp_path / "engine.json").read_text())
    assert written["rows"] == []


@pytest.mark.slow
def test_the_smoke_preset_prints_all_rows_and_writes_its_json(tmp_path, capsys):
    families = ["--family", "a2", "--family", "b", "--family", "c"]
    assert main(["engine", "--preset", "smoke", *families, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "engine.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    assert rows["a2, 40", "auto"]["rank"]["mean"] < rows["a2, 40", "random"]["rank"]["mean"]
    assert rows["b, 40", "auto"]["rank"]["mean"] < rows["b, 40", "random"]["rank"]["mean"]
    assert any("not inferior" in claim["claim"] for claim in written["claims"])
    assert all(claim["preset"] == "paper" for claim in written["claims"])
    assert "swap (1+1)" in capsys.readouterr().out
