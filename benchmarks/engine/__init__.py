"""The engine against its peers: seven families of structured search problems at the budgets that inference allows.

Every method gets the same number of evaluations on the same instances; what counts is the true value of the candidate
that it recommends, never the best value observed. The engine's rules were made on the training problems
(``--problems train``); the committed table is of the others.

A large suite is run in parts, each into a folder of its own, and judged together afterwards::

    python -m benchmarks engine --preset paper --family d --budget 300 --out out/d300
    python -m benchmarks engine --preset paper --family d --budget 300 --method SMAC3 --alone --out out/smac
    python -m benchmarks engine --merge out/d300 out/smac --out benchmarks/results
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import joblib
import numpy as np

from benchmarks.engine.families import FAMILIES
from benchmarks.engine.instance import Meter, Spent
from benchmarks.engine.methods import METHODS, OURS, available
from benchmarks.engine.runs import Job, Outcome, merged, summarized, write
from benchmarks.engine.verdicts import judge
from benchmarks.speed_clock import threads
from benchmarks.table import Table
from searchlib.errors import InvalidSettings

__all__ = ["DESCRIPTION", "SEEDS", "add_arguments", "run"]

DESCRIPTION = "the engine against nevergrad, optuna, SMAC3, pymoo, pycma, scipy, evotorch and simple strong loops"

#: Instances of every problem.
SEEDS = {"smoke": 2, "small": 5, "paper": 7, "full": 25}
_SMOKE = {"a1": 40, "a2": 40, "b": 40, "c": 40, "d": 40, "e": 40, "f": 60}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--family", choices=FAMILIES, action="append", help="only this one (may be repeated)")
    parser.add_argument("--budget", type=int, action="append", help="evaluations (may be repeated; by family)")
    parser.add_argument("--problem", action="append", help="only this one of the family (may be repeated)")
    parser.add_argument("--instances", type=int, metavar="N", help="of every problem: the same as --seeds")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="number of the first instance (%(default)s)")
    parser.add_argument("--method", action="append", help="only this one, beside ours and random (may be repeated)")
    parser.add_argument("--alone", action="store_true", help="leave out ours and random, to merge with a run of them")
    parser.add_argument("--problems", choices=("test", "train"), default="test", help="which (%(default)s)")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side, not timed (%(default)s)")
    parser.add_argument(
        "--merge", type=Path, nargs="+", metavar="FOLDER",
        help="run nothing: judge the runs in these folders together; of a run in two of them, the later counts",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark, or judge what earlier runs left."""
    if arguments.merge:
        return _merge(arguments)
    _check(arguments)
    table = Table("engine", arguments.preset, arguments.instances or arguments.seeds)
    outcomes: dict[Job, Outcome] = {}
    for family in arguments.family or FAMILIES:
        for budget in _budgets(arguments, family):
            for of_problem in _cell(table, arguments, family, budget):
                outcomes |= of_problem
                write(arguments.out, arguments.preset, outcomes)  # what is done is kept, whatever happens to the rest
    judge(table, outcomes)
    return table


def _merge(arguments: argparse.Namespace) -> Table:
    preset, outcomes, environments = merged(arguments.merge)
    table = Table("engine", preset, 1 + max((job.number for job in outcomes), default=0))
    write(arguments.out, preset, outcomes, environments)
    judge(table, outcomes)
    return table


def _check(arguments: argparse.Namespace) -> None:
    """Names that no family knows would be a run of nothing."""
    families = arguments.family or FAMILIES
    known = {
        "--problem": {problem for family in families for problem in _problems(arguments, family)},
        "--method": {method for family in families for method in METHODS[family]},
    }
    for option, given in (("--problem", arguments.problem), ("--method", arguments.method)):
        for name in given or ():
            if name not in known[option]:
                raise InvalidSettings(f"{option} must be one of {', '.join(sorted(known[option]))}, but got {name!r}")
    if arguments.instances is not None and arguments.instances < 1:
        raise InvalidSettings(f"--instances must be at least 1, but is {arguments.instances}")
    if arguments.first < 0:
        raise InvalidSettings(f"--first must be at least 0, but is {arguments.first}")
    if arguments.alone and not arguments.method:
        raise InvalidSettings("--alone says that only the methods of --method are run: name one")


def _problems(arguments: argparse.Namespace, family: str) -> tuple[str, ...]:
    return FAMILIES[family].test if arguments.problems == "test" else FAMILIES[family].train


def _budgets(arguments: argparse.Namespace, family: str) -> Sequence[int]:
    if arguments.budget:
        return tuple(arguments.budget)
    if arguments.preset == "smoke":
        return (_SMOKE[family],)
    return FAMILIES[family].budgets if arguments.preset != "small" else FAMILIES[family].budgets[:2]


def _cell(
    table: Table, arguments: argparse.Namespace, family: str, budget: int
) -> Iterator[dict[Job, Outcome]]:
    """What came of the methods at one budget, a problem of the family after the other."""
    problems = [problem for problem in _problems(arguments, family) if problem in (arguments.problem or [problem])]
    problems = [problem for problem in problems if _is_here(table, family, problem)]
    if arguments.preset == "smoke":
        problems = problems[:1]
    jobs = [
        Job(family, budget, problem, number, method)
        for problem in problems
        for method in _methods(arguments, family, problem, budget)
        for number in range(arguments.first, arguments.first + table.seeds)
    ]
    calls = (joblib.delayed(_run_one)(job, timed=arguments.jobs == 1) for job in jobs)
    results = zip(jobs, joblib.Parallel(arguments.jobs, return_as="generator")(calls), strict=True)
    left = collections.Counter(job.problem for job in jobs)
    found: dict[Job, Outcome] = {}
    for job, outcome in results:
        found[job] = outcome
        if job.number == arguments.first:
            table.progress(f"{family}, {budget}: {job.problem}: {job.method}")
        left[job.problem] -= 1
        if not left[job.problem]:
            yield found
            found = {}


def _methods(arguments: argparse.Namespace, family: str, problem: str, budget: int) -> Iterator[str]:
    space = FAMILIES[family].make(problem, 0).space
    named = {*(arguments.method or ()), *(() if arguments.alone else (OURS, "random"))}
    for method, row in available(family, type(space).__name__, space.latent_dimension).items():
        wanted = method in named if arguments.method else arguments.preset != "smoke" or not row.slow
        if wanted and budget <= row.most:
            yield method


def _is_here(table: Table, family: str, problem: str) -> bool:
    """Whether the package that a problem comes from is installed."""
    try:
        FAMILIES[family].make(problem, 0)
    except ModuleNotFoundError as error:
        table.progress(f"{family}: {problem} is left out ({error}): pip install 'searchlib[peers]'")
        return False
    return True


def _run_one(job: Job, timed: bool = True) -> Outcome:
    """One method on one instance; runs that share a processor's caches and memory with others have no times."""
    instance = FAMILIES[job.family].make(job.problem, job.number)
    method = METHODS[job.family][job.method]
    # The same instance for every method, and numbers of its own for each.
    rng = np.random.default_rng([len(job.method), *job.method.encode(), job.number, job.budget])
    meter = Meter(instance, job.budget, rng)
    start = time.process_time()
    with threads(1), contextlib.suppress(Spent):
        method.run(meter, rng)
    seconds = time.process_time() - start - meter.seconds
    milliseconds = 1e3 * seconds / job.budget if timed else math.nan
    return summarized(meter.outcome(), meter.curve, milliseconds, job.budget)
