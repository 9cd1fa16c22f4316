"""Rows and claims of the table from what single runs brought home."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine.families import FAMILIES
from benchmarks.engine.methods import METHODS, OURS
from benchmarks.engine.runs import Job, Outcome
from benchmarks.engine.standings import ecdf, standings
from benchmarks.table import Table

__all__ = ["judge", "judge_cell"]

#: What "not inferior" leaves room for, in mean ranks.
MARGIN = 0.5


def judge(table: Table, outcomes: Mapping[Job, Outcome]) -> None:
    """All cells, and what they say together."""
    cells: dict[tuple[str, int], dict[Job, Outcome]] = {}
    for job in sorted(outcomes, key=_place):
        cells.setdefault((job.family, job.budget), {})[job] = outcomes[job]
    for (family, budget), of_cell in cells.items():
        judge_cell(table, family, budget, of_cell)
    _claim_overall(table)


def _place(job: Job) -> tuple[int, ...]:
    """Where a run stands in the suite, so that the table does not depend on who ran what when."""
    families, methods = list(FAMILIES), list(METHODS[job.family])
    problems = (*FAMILIES[job.family].test, *FAMILIES[job.family].train)
    return (
        families.index(job.family), job.budget, problems.index(job.problem), job.number, methods.index(job.method)
    )  # fmt: skip


def judge_cell(table: Table, family: str, budget: int, outcomes: Mapping[Job, Outcome]) -> None:
    """Rows and claims of a cell; methods that fit some of its problems only are compared on those."""
    cell = f"{family}, {budget}"
    problems = list(dict.fromkeys(job.problem for job in outcomes))
    by_method: dict[str, dict[tuple[str, int], Outcome]] = {}
    for job, outcome in outcomes.items():
        by_method.setdefault(job.method, {})[job.problem, job.number] = outcome
    if not {OURS, "random"} <= by_method.keys() or by_method[OURS].keys() != by_method["random"].keys():
        return  # a part of a cell, to be merged with the rest
    everywhere = {name: runs for name, runs in by_method.items() if runs.keys() == by_method[OURS].keys()}
    instances = list(everywhere[OURS])
    found = standings({name: [runs[key].value for key in instances] for name, runs in everywhere.items()}, OURS)
    targets = _targets(outcomes, instances)
    for name, runs in everywhere.items():
        shares = ecdf(np.array([runs[key].reached for key in instances]), targets, [1, 2, 3])
        standing = found[name]
        table.add(
            cell, name, rank=standing.rank, regret=standing.regret, auto_wins=standing.wins,
            p_auto_better=standing.p_better, p_auto_worse=standing.p_worse, reached_tenth=shares[0],
            reached_third=shares[1], reached_all=shares[2],
            # the median: the first run of a process loads the packages
            ms_per_evaluation=_median_time(runs.values()),
        )  # fmt: skip
    for problem in problems:
        for name, runs in by_method.items():
            values = [run.value for (which, _), run in runs.items() if which == problem]
            if values:
                table.add(f"{cell}: {problem}", name, median=float(np.median(values)))
    _claim_cell(table, cell, found, by_method, everywhere, instances)


def _median_time(runs: Iterable[Outcome]) -> float | None:
    """Of those that were timed."""
    times = [run.milliseconds for run in runs if not math.isnan(run.milliseconds)]
    return float(np.median(times)) if times else None


def _targets(outcomes: Mapping[Job, Outcome], instances: Sequence[tuple[str, int]]) -> NDArray[np.float64]:
    """Ten targets per instance, even between where random search ends and the best that any method found."""
    targets = []
    for problem, number in instances:
        runs = {job.method: run for job, run in outcomes.items() if (job.problem, job.number) == (problem, number)}
        best, floor = min(run.value for run in runs.values()), runs["random"].value
        targets.append(np.linspace(max(floor, best), best, 11)[1:])
    return np.array(targets)


def _claim_cell(table, cell, found, by_method, everywhere, instances):  # type: ignore[no-untyped-def]
    """Not inferior to the best rival; not worse than random search."""
    methods = METHODS[cell.split(",")[0]]
    rivals = {name: standing for name, standing in found.items() if not methods[name].own}
    best = min(rivals, key=lambda name: rivals[name].rank)
    table.claim(
        f"{cell}: {OURS} is not inferior to the best rival, {best} (mean rank difference at most {MARGIN})",
        value=-rivals[best].behind, bound=rivals[best].behind_bound, n=len(instances), preset="paper",
        test="upper 95 % bound, paired bootstrap over instances", holds=rivals[best].behind_bound <= MARGIN,
    )  # fmt: skip
    rivals |= _where_they_fit(table, cell, by_method, everywhere)
    libraries = [name for name in rivals if methods[name].needs]
    left = [name for name in libraries if not rivals[name].p_better < 0.05]
    table.claim(
        f"{cell}: {OURS} is significantly better than every optimizer of another library"
        + (f" (not: {', '.join(left)})" if left else ""),
        value=len(libraries) - len(left), bound=len(libraries), n=len(instances), preset="paper",
        test="one-sided Wilcoxon over the instances that it fits, Holm", holds=not left and bool(libraries),
    )  # fmt: skip
    table.claim(
        f"{cell}: {OURS} is not significantly worse than random search",
        value=found["random"].p_worse, bound=0.05, n=len(instances), preset="paper",
        test="one-sided Wilcoxon over instances, Holm", holds=found["random"].p_worse >= 0.05,
    )  # fmt: skip


def _where_they_fit(table, cell, by_method, everywhere):  # type: ignore[no-untyped-def]
    """Rivals that fit some problems of the family, on those."""
    partly = {}
    for name in by_method:
        keys = [key for key in by_method[name] if key in by_method[OURS]]
        if name in everywhere or not keys or METHODS[cell.split(",")[0]][name].own:
            continue
        some = {other: [by_method[other][key].value for key in keys] for other in (OURS, name, "random")}
        standing = partly[name] = standings(some, OURS)[name]
        table.add(
            f"{cell}: where it fits", name, auto_wins=standing.wins, p_auto_better=standing.p_better,
            p_auto_worse=standing.p_worse,
            ms_per_evaluation=_median_time([by_method[name][key] for key in keys]),
        )  # fmt: skip
        table.claim(
            f"{cell}: {OURS} is not inferior to {name} where that fits",
            value=-standing.behind, bound=standing.behind_bound, n=len(keys), preset="paper",
            test="upper 95 % bound of the difference of ranks, paired bootstrap",
            holds=standing.behind_bound <= MARGIN,
        )  # fmt: skip
    return partly


def _claim_overall(table: Table) -> None:
    """In how many families every other library is beaten at every budget."""
    verdicts: dict[str, list[bool]] = {}
    for claim in table.claims:
        if "every optimizer of another library" in claim.claim:
            verdicts.setdefault(claim.claim.split(",")[0], []).append(claim.holds)
    won = sorted(family for family, holds in verdicts.items() if all(holds))
    table.claim(
        f"{OURS} is significantly better than every optimizer of another library at every budget in at least 5 of 7 "
        f"families (in: {', '.join(won) or 'none'})",
        value=len(won), bound=5, n=len(verdicts), preset="paper", test="count of families", holds=len(won) >= 5,
    )  # fmt: skip
