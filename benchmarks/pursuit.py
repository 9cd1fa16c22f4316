"""TaskFlex Solver and DualCL: which tasks to train pursuers on, at equal rollouts.

One evolution strategy, seeded alike, learns from scratch on the tasks that each curriculum offers. It is judged by its
center on held-out worlds: on the one hard task that matters, or on a grid over a hard range of tasks. Settings of
problems, arms and strategy were chosen with other seeds than those of the claims.

A long run can be stopped and resumed, or made in parts::

    python -m benchmarks pursuit --preset paper --store runs --problem "target in 3-D" --jobs 2
    python -m benchmarks pursuit --preset paper --store runs --out benchmarks/results
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np

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
from benchmarks.pursuit_radii import by_radius
from benchmarks.pursuit_runs import CHECKPOINTS, COVERED, Diary, Effort, Job, Outcome, run_job, stored
from benchmarks.table import Table, paired_lower_bound
from searchlib import EvolutionStrategy, Split
from searchlib.errors import InvalidSettings
from searchlib.objectives import Pursuit, PursuitTasks

__all__ = ["DESCRIPTION", "PRESETS", "SEEDS", "add_arguments", "ratio_bound", "run"]

DESCRIPTION = "TFS / DualCL: curricula for pursuit against training on the target or on uniform tasks"

STRATEGY = EvolutionStrategy(method="openai", sigma=1.0, population=40)
_PAPER = Effort(STRATEGY, tuple(ARMS), tuple(PROBLEMS), range_seeds=2)
_FEW = (TARGET, SHAPED, UNIFORM, DUALCL, OURS)
_SMOKE = ("target for two", CYLINDER_TARGET, "range")
PRESETS: Mapping[str, Effort] = {
    "smoke": Effort(
        EvolutionStrategy(method="openai", sigma=1.0, population=8), (TARGET, UNIFORM, OURS), _SMOKE, tasks=4,
        scale=0.04, judged=40, copies=1, steps=400,
    ),
    "small": Effort(STRATEGY, _FEW, tuple(PROBLEMS)),
    "paper": _PAPER,
    "full": _PAPER,
}  # fmt: skip
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 1, "paper": 5, "full": 10}
#: What the best curriculum must be worth on a target, in units of training on it alone, at half the budget.
WORTH = 2.0

Outcomes = Mapping[Job, Outcome]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (%(default)s)")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="keep every run there, and go on from what is")
    parser.add_argument("--problem", choices=PROBLEMS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--arm", choices=ARMS, action="append", help="only this one (may be repeated)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw an episode and a curriculum into it")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    effort = PRESETS[arguments.preset]
    problems = tuple(arguments.problem or effort.problems)
    arms = [arm for arm in effort.arms if arm in (arguments.arm or effort.arms)]
    table = Table("pursuit", arguments.preset, arguments.seeds)
    jobs = [
        Job(problem, arm, seed) for problem in problems for arm in _of(problem, arms)
        for seed in range(arguments.seeds * (1 if PROBLEMS[problem].is_target else effort.range_seeds))
    ]  # fmt: skip
    if not jobs:
        raise InvalidSettings(
            f"preset {arguments.preset} has the arms {', '.join(effort.arms)} (on a range none of "
            f"{', '.join(ON_TARGET)}), but --arm named {', '.join(arguments.arm)}"
        )
    calls = (joblib.delayed(stored)(arguments.store, effort, job) for job in jobs)
    results = joblib.Parallel(arguments.jobs, return_as="generator")(calls)
    outcomes: dict[Job, Outcome] = {}
    for job, outcome in zip(jobs, results, strict=True):
        outcomes[job] = outcome
        table.add(job.problem, job.arm, **_metrics(job, outcome))
    _claim_alike(table, effort, outcomes)
    for problem in problems:
        if PROBLEMS[problem].is_target:
            _claim_worth(table, problem, outcomes)
        else:
            _claim_range(table, problem, outcomes)
    if CYLINDER_TARGET in problems:
        by_radius(table, effort, outcomes)
    if arguments.pictures:
        last = [job for job in jobs if job.problem == jobs[0].problem and job.seed == 0][-1]
        _draw(effort, last, outcomes, arguments.pictures)
    return table


def _of(problem: str, arms: Sequence[str]) -> Sequence[str]:
    """The arms that say something about a problem: on a range there is no target."""
    return [arm for arm in arms if PROBLEMS[problem].is_target or arm not in ON_TARGET]


def _metrics(job: Job, outcome: Outcome) -> dict[str, float]:
    row = {f"at {share:g}": success for share, success in zip(CHECKPOINTS, outcome.success, strict=True)}
    if not PROBLEMS[job.problem].is_target:
        row["cover"] = outcome.cover[-1]
    return {**row, "rung": outcome.rungs[-1], "rollouts": outcome.rollouts, "seconds": outcome.seconds}


def _values(outcomes: Outcomes, problem: str, arm: str, checkpoint: int = -1, metric: str = "success") -> list[float]:
    """An arm's numbers on a problem, by seed."""
    found = [(job.seed, outcome) for job, outcome in outcomes.items() if job[:2] == (problem, arm)]
    return [getattr(outcome, metric)[checkpoint] for _, outcome in sorted(found)]


def _claim_alike(table: Table, effort: Effort, outcomes: Outcomes) -> None:
    """What any run must show. A grid of tasks that is begun is finished, beyond the budget."""
    over = [outcome.rollouts / effort.rollouts(PROBLEMS[job.problem]) - 1 for job, outcome in outcomes.items()]
    most = max(64 * effort.members / effort.rollouts(PROBLEMS[job.problem]) for job in outcomes)
    table.claim(
        "all arms had the same rollouts, but for a last grid", value=max(over), bound=most, n=len(over),
        test="largest share beyond the budget, over runs", holds=min(over) >= 0 and max(over) <= most,
    )  # fmt: skip


def ratio_bound(ours: Sequence[float], theirs: Sequence[float], level: float = 0.95) -> float:
    """The one-sided lower bound of mean(ours) / mean(theirs), by Fieller's method on pairs.

    It is the largest ρ for which the paired t-test still says that ours − ρ · theirs is above 0 on average.

    Arguments:
        ours, theirs: one value each per seed, none negative, n ≥ 2; theirs not all zero.
        level: one-sided confidence.

    Example:
        >>> round(ratio_bound([0.6, 0.7, 0.8], [0.2, 0.2, 0.3]), 2)
        2.46
    """
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    low, high = 0.0, float(a.sum() / b.sum())
    if paired_lower_bound(a, level) <= 0:
        return 0.0
    for _ in range(60):  # the bound is below 0 at the ratio of the means
        middle = (low + high) / 2
        if paired_lower_bound(a - middle * b, level) > 0:
            low = middle
        else:
            high = middle
    return low


def _claim_worth(table: Table, problem: str, outcomes: Outcomes) -> None:
    """Every curriculum against training on the target, at half the budget."""
    half = CHECKPOINTS.index(0.5)
    theirs = _values(outcomes, problem, TARGET, half)
    for arm in (SHAPED, UNIFORM, *CURRICULA):
        ours = _values(outcomes, problem, arm, half)
        if not ours or not theirs:
            continue
        several, zero = len(ours) > 1, not any(theirs)
        sentence = f"{problem}: at half the budget {arm} catches at least twice as often as {TARGET} (held out)"
        if zero:
            value, bound = float(np.mean(ours)), 0.0
            low = paired_lower_bound(ours) if several else None
            test = "mean success, where the other one's is 0; one-sided 95 % by t over seeds"
        else:
            value, bound = float(np.mean(ours) / np.mean(theirs)), WORTH
            low = ratio_bound(ours, theirs) if several else None
            test = "ratio of mean successes; one-sided 95 % by Fieller's paired t over seeds"
        table.claim(
            sentence, value=value, bound=bound, interval=(low, None), n=len(ours), test=test, preset="paper",
            holds=low is not None and (low > bound if zero else low >= bound),
        )  # fmt: skip


def _claim_range(table: Table, problem: str, outcomes: Outcomes) -> None:
    """Every curriculum against uniform tasks, at every checkpoint."""
    for metric, checkpoint, said in (
        *(("success", place, f"mean success at {share:g} of the budget") for place, share in enumerate(CHECKPOINTS)),
        ("cover", len(CHECKPOINTS) - 1, f"share of tasks caught {COVERED:.0%} of the time, in the end"),
    ):
        theirs = np.array(_values(outcomes, problem, UNIFORM, checkpoint, metric))
        for arm in CURRICULA:
            ours = np.array(_values(outcomes, problem, arm, checkpoint, metric))
            if not len(ours) or len(ours) != len(theirs):
                continue
            low = paired_lower_bound(ours - theirs) if len(ours) > 1 else None
            table.claim(
                f"{problem}: {arm} is better than {UNIFORM} in the {said} (held out)",
                value=float((ours - theirs).mean()), bound=0.0, interval=(low, None), n=len(ours),
                test="mean difference; one-sided 95 % by paired t over seeds", preset="paper",
                holds=low is not None and low > 0,
            )  # fmt: skip


def _draw(effort: Effort, job: Job, outcomes: Outcomes, folder: Path) -> None:
    """An episode of the policy that an arm trained, and the tasks by which it did."""
    from searchlib.objectives.pursuit_pictures import animate_pursuit, draw_curriculum, draw_pursuit

    def save(axes: Any, name: str) -> None:
        axes.figure.savefig(folder / name)

    folder.mkdir(parents=True, exist_ok=True)
    problem, diary = PROBLEMS[job.problem], Diary()
    run_job(effort, job, diary)
    save(draw_curriculum(diary.tasks, diary.success, problem.varied)[0], "curriculum.png")
    objective = Pursuit(problem.hardest, problem.settings, hidden=problem.hidden, search=1, select=0, holdout=1)
    row = np.array(outcomes[job].center, np.float32)
    trajectory = objective.record(row, PursuitTasks.of(objective.cases(Split.HOLDOUT).payload or ())[0])
    save(draw_pursuit(trajectory), "episode.png")
    animate_pursuit(trajectory, folder / "episode.gif", every=4)
