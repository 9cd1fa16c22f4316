"""Figures that the guide quotes are those of the benchmarks' files, and of textbooks."""

import importlib
import json
import re

import numpy as np
import pytest
from scipy.stats import norm

pages = importlib.import_module("tests.docs.pages")
ROOT = pages.ROOT
CHOOSING, CASES = pages.text("docs/choosing.md"), pages.text("docs/how_many_cases.md")
FAMILIES = {
    "masks": "a1", "exact-k subsets": "a2", "allocations under a budget": "b", "mixtures": "c", "mixed schedules": "d",
    "with noise": "e", "1,000 to 2,000 reals": "f",
}  # fmt: skip


def results(name):
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text(encoding="utf-8"))


def cells(page, first):
    """The cells of the one row of figures that begins so."""
    rows = re.findall(rf"^\| {re.escape(first)} \|([\d.| ]*)\|$", page, re.MULTILINE)
    assert len(rows) == 1, first
    return [cell.strip() for cell in rows[0].split("|")]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_budget_buys_is_what_the_engine_benchmark_measured(family):
    rows = {(row["task"], row["method"]): row["metrics"] for row in results("engine")["rows"]}
    task = f"{FAMILIES[family]}, 1000"
    measured = [rows[task, "auto"][f"reached_{part}"]["mean"] for part in ("tenth", "third", "all")]
    measured.append(rows[task, "random"]["reached_all"]["mean"])
    assert [float(cell) for cell in cells(CHOOSING, family)] == pytest.approx(measured, abs=0.0051)


def test_the_number_of_instances_is_that_of_the_engine_benchmark():
    counts = {}
    for claim in results("engine")["claims"]:
        counts[claim["claim"].split(",")[0]] = claim["n"]
    assert set(FAMILIES.values()) <= set(counts)
    total = sum(counts[family] for family in FAMILIES.values())
    assert f"on {total} instances" in CHOOSING


@pytest.mark.parametrize("cases", ["100", "200", "500", "1,000", "2,000", "5,000"])
def test_half_widths_are_those_of_a_paired_difference(cases):
    disagreeing = np.array([0.02, 0.05, 0.1, 0.2, 0.4])
    half = 100 * norm.ppf(0.975) * np.sqrt(disagreeing / int(cases.replace(",", "")))
    assert [float(cell) for cell in cells(CASES, cases)] == pytest.approx(half, abs=0.051)


def test_the_luck_of_the_best_of_many_is_that_of_normal_maxima():
    found = re.search(r"about (\S+) standard errors for m = 8, (\S+) for\s+100 and (\S+) for 400", CASES)
    draws = np.random.default_rng(0).normal(size=(4000, 400))
    expected = [draws[:, :m].max(axis=1).mean() for m in (8, 100, 400)]
    assert [float(number) for number in found.groups()] == pytest.approx(expected, abs=0.06)


def test_what_the_choice_of_experts_flatters_is_what_the_benchmark_measured():
    gaps = {}
    for row in results("expert_pruning")["rows"]:
        if "search_accuracy" in row["metrics"]:
            searched, held = (row["metrics"][name]["values"] for name in ("search_accuracy", "holdout_accuracy"))
            gaps.setdefault(row["method"], []).extend(100 * np.subtract(searched, held))
    quoted = re.search(r"−(\S+) points for choosing experts, \+(\S+) \(at most \+(\S+)\) for merging", CASES)
    merged = gaps["prune + merge"]
    measured = [-np.mean(gaps["prune"]), np.mean(merged), np.max(merged)]
    assert [float(number) for number in quoted.groups()] == pytest.approx(measured, abs=0.051)
