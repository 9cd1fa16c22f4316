"""OPEN: three quadrotors after a faster evader among cylinders; predictor and generator on and off, and heuristics.

One evolution strategy, seeded alike, trains every learned arm on as many episodes. Policies are judged by the
strategy's center on held-out starts in the authors' four scenarios, of which no search has seen one, and in new draws
of the uniform generator; evaders' gains differ from world to world. All that flies has the same inner loop and, but for
the rows that say so, the same layer for safety. Settings were chosen with other seeds than those of the claims.

A long run can be stopped and resumed, or made in parts::

    python -m benchmarks uav_pursuit --preset paper --store runs --arm ours
    python -m benchmarks uav_pursuit --preset paper --store runs --out benchmarks/results
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from benchmarks.table import Table, paired_lower_bound
from benchmarks.uav_pursuit_runs import (
    ARENAS,
    ARMS,
    BARE,
    CHECKPOINTS,
    NO_GENERATOR,
    NO_PREDICTOR,
    OURS,
    PRIOR,
    UNTAUGHT,
    Counts,
    Diary,
    Effort,
    Job,
    Outcome,
    objective_of,
    run_job,
    stored,
    worlds,
)
from searchlib import EvolutionStrategy
from searchlib.objectives.uav_flight import jax_modules
from searchlib.objectives.uav_heuristics import HEURISTICS
from searchlib.objectives.uav_settings import UavSettings
from searchlib.objectives.uav_tasks import SCENARIOS

__all__ = ["DESCRIPTION", "PRESETS", "SEEDS", "add_arguments", "run", "wilson"]

DESCRIPTION = "OPEN: multi-UAV pursuit with real quadrotor dynamics, against heuristics and its own ablations"

_STRATEGY = EvolutionStrategy(method="openai", sigma=0.4, population=32)
_SHORT = UavSettings(steps=80)
PRESETS: Mapping[str, Effort] = {
    "smoke": Effort(
        replace(_STRATEGY, population=8), 2, tasks=4, judged=8, arms=(OURS,), settings=_SHORT, prepared=(2, 16)
    ),
    "small": Effort(_STRATEGY, 30, judged=200, arms=(OURS, NO_GENERATOR)),
    "paper": Effort(_STRATEGY, 60),
    "full": Effort(_STRATEGY, 200),
}  # fmt: skip
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 1, "paper": 3, "full": 5}
#: What a scenario is solved at: captures, their lower bound, and collisions.
CAPTURED, SURELY, COLLIDED = 0.99, 0.97, 0.01

Outcomes = Mapping[Job, Outcome]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (%(default)s)")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="keep every run there, and go on from what is")
    parser.add_argument("--arm", choices=(*ARMS, *UNTAUGHT), action="append", help="only this one (may be repeated)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw episodes and a curriculum into it")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    jax_modules()  # says what to install before anything is run
    effort = PRESETS[arguments.preset]
    wanted = arguments.arm or (*UNTAUGHT, *effort.arms)
    jobs = [Job(arm, 0) for arm in UNTAUGHT if arm in wanted]
    jobs += [Job(arm, seed) for arm in ARMS if arm in wanted for seed in range(arguments.seeds)]
    table = Table("uav_pursuit", arguments.preset, arguments.seeds)
    calls = (joblib.delayed(stored)(arguments.store, effort, job) for job in jobs)
    outcomes: dict[Job, Outcome] = {}
    for job, outcome in zip(jobs, joblib.Parallel(arguments.jobs, return_as="generator")(calls), strict=True):
        outcomes[job] = outcome
        for arena, counts in zip(ARENAS, outcome.judged[-1], strict=True):
            table.add(arena, job.arm, **_metrics(counts))
        table.progress(f"{job.arm}, seed {job.seed}")
    _claim_alike(table, effort, outcomes)
    if any(job.arm == OURS for job in jobs):
        _claim_solved(table, outcomes)
        _claim_better(table, outcomes)
    if arguments.pictures:
        _draw(effort, outcomes, arguments.pictures)
    return table


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's interval of a share, two-sided.

    Example:
        >>> [round(end, 3) for end in wilson(495, 500)]
        [0.977, 0.996]
    """
    from scipy import stats

    interval = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    return float(interval.low), float(interval.high)


def _metrics(counts: Counts) -> dict[str, float | None]:
    low, high = wilson(counts.captured, counts.worlds)
    return {
        "captured": counts.captured / counts.worlds, "from": low, "to": high,
        "first capture step": counts.first_step, "collided": counts.collided / counts.worlds,
        "captured, no collision": counts.clean / counts.worlds,
    }  # fmt: skip


def _claim_alike(table: Table, effort: Effort, outcomes: Outcomes) -> None:
    """What any run must show."""
    spent = [outcome.rollouts for job, outcome in outcomes.items() if job.arm in ARMS]
    if spent:
        table.claim(
            "all arms that learn had the same episodes", value=float(max(spent)), bound=float(effort.rollouts),
            n=len(spent), test="largest number of episodes, over runs",
            holds=min(spent) == max(spent) == effort.rollouts,
        )  # fmt: skip


def _claim_solved(table: Table, outcomes: Outcomes) -> None:
    """Captures and collisions of the worst seed, in every scenario."""
    runs = [outcome for job, outcome in outcomes.items() if job.arm == OURS]
    for place, name in enumerate(SCENARIOS):
        every = [outcome.judged[-1][place] for outcome in runs]
        worst = min(every, key=lambda counts: counts.captured)
        interval = wilson(worst.captured, worst.worlds)
        share = worst.captured / worst.worlds
        table.claim(
            f"{name}: {OURS} captures at least {CAPTURED:.0%} (Wilson's lower bound {SURELY:.0%}), held-out starts",
            value=share, bound=CAPTURED, interval=interval, n=worst.worlds, preset="paper",
            test="share of starts with a capture, worst seed; Wilson 95 %",
            holds=share >= CAPTURED and interval[0] >= SURELY,
        )  # fmt: skip
        rough = max(every, key=lambda counts: counts.collided)
        table.claim(
            f"{name}: {OURS} collides in less than {COLLIDED:.0%} of the episodes, held-out starts",
            value=rough.collided / rough.worlds, bound=COLLIDED, interval=wilson(rough.collided, rough.worlds),
            n=rough.worlds, preset="paper", test="share of episodes with any collision, worst seed; Wilson 95 %",
            holds=rough.collided / rough.worlds < COLLIDED,
        )  # fmt: skip


def _clean(outcome: Outcome, checkpoint: int = -1) -> float:
    """Captures without collision, a mean over the four scenarios."""
    counts = outcome.judged[checkpoint][: len(SCENARIOS)]
    return float(np.mean([one.clean / one.worlds for one in counts]))


def _claim_better(table: Table, outcomes: Outcomes) -> None:
    """Ours against the heuristics, its own beginning and its ablations."""
    ours = [outcome for job, outcome in sorted(outcomes.items()) if job.arm == OURS]
    half = CHECKPOINTS.index(0.5)
    for arm, checkpoint in (
        *((name, -1) for name in (*HEURISTICS, *BARE, PRIOR)), (NO_PREDICTOR, -1), (NO_GENERATOR, -1),
        (NO_GENERATOR, half),
    ):  # fmt: skip
        theirs = [outcome for job, outcome in sorted(outcomes.items()) if job.arm == arm]
        if not theirs:
            continue
        if arm in UNTAUGHT:
            theirs = theirs * len(ours)
        differences = [
            _clean(a, checkpoint) - _clean(b, checkpoint) for a, b in zip(ours, theirs, strict=True)
        ]  # fmt: skip
        low = paired_lower_bound(differences) if len(differences) > 1 else None
        when = "" if checkpoint == -1 else ", at half the episodes"
        table.claim(
            f"{OURS} captures without collision more often than {arm}{when} (mean of the four scenarios)",
            value=float(np.mean(differences)), bound=0.0, interval=(low, None), n=len(differences), preset="paper",
            test="mean difference; one-sided 95 % by paired t over seeds", holds=low is not None and low > 0,
        )  # fmt: skip


def _draw(effort: Effort, outcomes: Outcomes, folder: Path) -> None:
    """An episode of our policy in every scenario, and the tasks by which it was trained."""
    from searchlib.objectives.uav_pictures import UavEpisode, animate_uav_pursuit, draw_uav_curriculum, draw_uav_pursuit

    def save(axes: Any, name: str) -> None:
        axes.figure.savefig(folder / name)

    folder.mkdir(parents=True, exist_ok=True)
    diary = Diary()
    # The tasks are not kept with a run; they are made again, which is the same run.
    outcome = run_job(effort, Job(OURS, 0), diary)
    save(draw_uav_curriculum(diary.tasks, diary.success)[0], "uav-curriculum.png")
    objective, starts = objective_of(effort, True), worlds(effort)
    chosen: Sequence[int] = [place * effort.judged for place in range(len(ARENAS))]
    some = starts.take(chosen)
    paths = objective.paths(np.array(outcome.center, np.float32)[None], some)
    for place, arena in enumerate(ARENAS):
        episode = UavEpisode(effort.settings, some[place], paths, place)
        name = arena.replace(" ", "-")
        save(draw_uav_pursuit(episode), f"uav-{name}.png")
        animate_uav_pursuit(episode, folder / f"uav-{name}.gif")
