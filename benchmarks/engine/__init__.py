"""The engine against its peers: seven families of structured search problems at the budgets that inference allows.

Every method gets the same number of evaluations on the same instances; what counts is the true value of the candidate
that it recommends, never the best value observed. The engine's rules were made on the training problems
(``--problems train``); the committed table is of the others.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import joblib
import numpy as np
from numpy.typing import NDArray

from benchmarks.engine.families import FAMILIES
from benchmarks.engine.instance import Meter, Spent
from benchmarks.engine.methods import METHODS, OURS, available
from benchmarks.engine.standings import ecdf, standings
from benchmarks.speed_clock import threads
from benchmarks.table import Table

__all__ = ["DESCRIPTION", "SEEDS", "add_arguments", "run"]

DESCRIPTION = "the engine against nevergrad, optuna, pymoo, pycma, cmaes and simple strong loops"

#: Instances of every problem.
SEEDS: Mapping[str, int] = {"smoke": 2, "small": 5, "paper": 7, "full": 25}
#: What "not inferior" leaves room for, in mean ranks.
MARGIN = 0.5
_SMOKE = {"a1": 40, "a2": 40, "b": 40, "c": 40, "d": 40, "e": 40, "f": 60}


class _Job(NamedTuple):
    family: str
    problem: str
    number: int
    method: str
    budget: int


class _Outcome(NamedTuple):
    value: float
    curve: list[float]
    milliseconds: float  # of processor time per evaluation, without the objective


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--family", choices=FAMILIES, action="append", help="only this one (may be repeated)")
    parser.add_argument("--budget", type=int, action="append", help="evaluations (may be repeated; by family)")
    parser.add_argument("--method", action="append", help="only this one, beside ours and random (may be repeated)")
    parser.add_argument("--problems", choices=("test", "train"), default="test", help="which (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (%(default)s)")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    table = Table("engine", arguments.preset, arguments.seeds)
    for family in arguments.family or FAMILIES:
        for budget in _budgets(arguments, family):
            _cell(table, arguments, family, budget)
    _claim_overall(table)
    return table


def _budgets(arguments: argparse.Namespace, family: str) -> Sequence[int]:
    if arguments.budget:
        return tuple(arguments.budget)
    if arguments.preset == "smoke":
        return (_SMOKE[family],)
    return FAMILIES[family].budgets if arguments.preset != "small" else FAMILIES[family].budgets[:2]


def _cell(table: Table, arguments: argparse.Namespace, family: str, budget: int) -> None:
    """All methods on all problems of a family at one budget."""
    known = FAMILIES[family]
    problems = known.test if arguments.problems == "test" else known.train
    problems = tuple(problem for problem in problems if _is_here(table, family, problem))
    if not problems:
        return
    if arguments.preset == "smoke":
        problems = problems[:1]
    jobs = [
        _Job(family, problem, number, method, budget)
        for problem in problems
        for number in range(arguments.seeds)
        for method, row in available(family, type(known.make(problem, 0).space).__name__).items()
        if budget <= row.most and (not arguments.method or method in {*arguments.method, OURS, "random"})
    ]
    calls = (joblib.delayed(_run_one)(job) for job in jobs)
    outcomes: dict[_Job, _Outcome] = {}
    for job, outcome in zip(jobs, joblib.Parallel(arguments.jobs, return_as="generator")(calls), strict=True):
        outcomes[job] = outcome
    _judge(table, family, budget, outcomes)


def _is_here(table: Table, family: str, problem: str) -> bool:
    """Whether the package that a problem comes from is installed."""
    try:
        FAMILIES[family].make(problem, 0)
    except ModuleNotFoundError as error:
        table.progress(f"{family}: {problem} is left out ({error}): pip install 'searchlib[peers]'")
        return False
    return True


def _run_one(job: _Job) -> _Outcome:
    """One method on one instance."""
    instance = FAMILIES[job.family].make(job.problem, job.number)
    method = available(job.family, type(instance.space).__name__)[job.method]
    # The same instance for every method, and numbers of its own for each.
    rng = np.random.default_rng([len(job.method), *job.method.encode(), job.number, job.budget])
    meter = Meter(instance, job.budget, rng)
    start = time.process_time()
    with threads(1), contextlib.suppress(Spent):
        method.run(meter, rng)
    seconds = time.process_time() - start - meter.seconds
    return _Outcome(meter.outcome(), meter.curve, 1e3 * seconds / job.budget)


def _judge(table: Table, family: str, budget: int, outcomes: Mapping[_Job, _Outcome]) -> None:
    """Rows and claims of a cell; methods that fit some of its problems only are compared on those."""
    cell = f"{family}, {budget}"
    problems = list(dict.fromkeys(job.problem for job in outcomes))
    by_method: dict[str, dict[tuple[str, int], _Outcome]] = {}
    for job, outcome in outcomes.items():
        by_method.setdefault(job.method, {})[job.problem, job.number] = outcome
    everywhere = {name: runs for name, runs in by_method.items() if len(runs) == len(by_method["random"])}
    if OURS not in everywhere:
        return
    instances = list(everywhere[OURS])
    found = standings({name: [runs[key].value for key in instances] for name, runs in everywhere.items()}, OURS)
    targets = _targets(outcomes, instances)
    for name, runs in everywhere.items():
        curves = _curves(runs, instances, budget)
        shares = ecdf(curves, targets, [max(1, budget // 10), max(1, budget // 3), budget])
        standing = found[name]
        table.add(
            cell, name, rank=standing.rank, regret=standing.regret, auto_wins=standing.wins,
            p_auto_better=standing.p_better, p_auto_worse=standing.p_worse, reached_tenth=shares[0],
            reached_third=shares[1], reached_all=shares[2],
            ms_per_evaluation=float(np.mean([run.milliseconds for run in runs.values()])),
        )  # fmt: skip
    for problem in problems:
        for name, runs in by_method.items():
            values = [run.value for (which, _), run in runs.items() if which == problem]
            if values:
                table.add(f"{cell}: {problem}", name, median=float(np.median(values)))
    _claim_cell(table, cell, found, by_method, everywhere, instances)


def _targets(outcomes: Mapping[_Job, _Outcome], instances: Sequence[tuple[str, int]]) -> NDArray[np.float64]:
    """Ten targets per instance, even between where random search ends and the best that any method found."""
    targets = []
    for problem, number in instances:
        runs = {job.method: run for job, run in outcomes.items() if (job.problem, job.number) == (problem, number)}
        best, floor = min(run.value for run in runs.values()), runs["random"].value
        targets.append(np.linspace(max(floor, best), best, 11)[1:])
    return np.array(targets)


def _curves(
    runs: Mapping[tuple[str, int], _Outcome], instances: Sequence[tuple[str, int]], budget: int
) -> NDArray[np.float64]:
    padded = np.full((len(instances), budget), np.inf)
    for row, key in zip(padded, instances, strict=True):
        curve = runs[key].curve
        row[: len(curve)] = curve
        row[len(curve) :] = curve[-1] if curve else np.inf
    return padded


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
    beaten = [name for name, standing in rivals.items() if standing.p_better < 0.05]
    libraries = [name for name in rivals if methods[name].needs]
    left = [name for name in libraries if name not in beaten]
    table.claim(
        f"{cell}: {OURS} is significantly better than every optimizer of another library"
        + (f" (not: {', '.join(left)})" if left else ""),
        value=len(libraries) - len(left), bound=len(libraries), n=len(instances), preset="paper",
        test="one-sided Wilcoxon over instances, Holm", holds=not left and bool(libraries),
    )  # fmt: skip
    table.claim(
        f"{cell}: {OURS} is not significantly worse than random search",
        value=found["random"].p_worse, bound=0.05, n=len(instances), preset="paper",
        test="one-sided Wilcoxon over instances, Holm", holds=found["random"].p_worse >= 0.05,
    )  # fmt: skip
    for name in by_method:
        if name not in everywhere and not methods[name].own:
            _claim_partial(table, cell, name, by_method)


def _claim_partial(table, cell, name, by_method):  # type: ignore[no-untyped-def]
    """A rival that fits some problems of the family, on those."""
    keys = list(by_method[name])
    some = {other: [by_method[other][key].value for key in keys] for other in (OURS, name, "random")}
    standing = standings(some, OURS)[name]
    table.add(f"{cell}: where it fits", name, auto_wins=standing.wins, p_auto_better=standing.p_better,
              p_auto_worse=standing.p_worse)  # fmt: skip
    table.claim(
        f"{cell}: {OURS} is not inferior to {name} where that fits",
        value=-standing.behind, bound=standing.behind_bound, n=len(keys), preset="paper",
        test="upper 95 % bound of the difference of ranks, paired bootstrap", holds=standing.behind_bound <= MARGIN,
    )  # fmt: skip


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
