"""MASP: both halves found with five agents, judged with up to fifty, against every assignment and two ways to steer.

A rule is tuned first, a proportional controller or, among pillars, ORCA; the executor begins with it, its matcher being
the least sum of squared distances; then the matcher is found, with the executor frozen. Rivals are every assignment of
straight-line distances, and two of ways that know how agents coast and where pillars stand, with a proportional
controller and with ORCA, whose gains the same strategy has tuned on the same layouts for the same value. All are judged
on held-out layouts of the same density; settings were chosen on other ones.

A long run can be stopped and resumed, or made in parts::

    python -m benchmarks navigation --preset paper --store runs --arena thrown
    python -m benchmarks navigation --preset paper --store runs --out benchmarks/results
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from benchmarks.navigation_bound import AT_FULL_SPEED, steps_at_full_speed
from benchmarks.navigation_runs import (
    ARENAS,
    BY_ORCA,
    BY_RULE,
    OUR_EXECUTOR,
    OURS,
    RIVALS,
    Effort,
    Job,
    Judged,
    Outcome,
    every,
    inner_law,
    judged_layouts,
    paths_of,
    stored,
    task,
)
from benchmarks.table import Table, paired_lower_bound
from benchmarks.uav_pursuit import wilson
from searchlib import EvolutionStrategy

__all__ = ["DESCRIPTION", "PRESETS", "SEEDS", "add_arguments", "run"]

DESCRIPTION = "MASP: many-agent navigation, both halves found with 5 agents, judged with up to 50, and by quadrotors"

_STRATEGY = EvolutionStrategy(method="openai", sigma=0.5, population=32)
PRESETS: Mapping[str, Effort] = {
    "smoke": Effort(
        EvolutionStrategy(method="openai", sigma=0.5, population=8), (2, 2, 2), layouts=4, judged=16, arenas=("open",),
        sizes=(5,), rules=(BY_RULE,), authors=False,
    ),
    "small": Effort(_STRATEGY, (15, 30, 80), judged=200, arenas=("open", "thrown"), sizes=(50,)),
    "paper": Effort(_STRATEGY, (15, 60, 200)),
    "full": Effort(_STRATEGY, (30, 200, 400), judged=1000),
}  # fmt: skip
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 1, "paper": 3, "full": 5}
#: Success that is aimed at, and its lower bound; steps that count as not worse; what the paper claims over planners.
REACHED, SURELY, MARGIN = 0.99, 0.97, 0.02
FASTER: Mapping[str, float] = {"open": 0.19, "thrown": 0.19, "pillars": 0.19, "flight": 0.28}
#: Where straight lines say little about times, and where those who know the physics of one agent are wrong, too.
_DYNAMIC, _WINNING = ("thrown", "pillars"), ("pillars",)
_PLANNER = f"hungarian, {BY_RULE}"

Outcomes = Mapping[Job, Outcome]
Rows = Mapping[str, list[Judged]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (%(default)s)")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="keep every run there, and go on from what is")
    parser.add_argument("--arena", choices=tuple(ARENAS), action="append", help="only this one (may be repeated)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw an episode of every arena into it")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    effort = PRESETS[arguments.preset]
    arenas = tuple(arguments.arena or effort.arenas)
    jobs = [Job(arena, RIVALS, 0) for arena in arenas]
    jobs += [Job(arena, OURS, seed) for arena in arenas for seed in range(arguments.seeds)]
    table = Table("navigation", arguments.preset, arguments.seeds)
    calls = (joblib.delayed(stored)(arguments.store, effort, job) for job in jobs)
    outcomes: dict[Job, Outcome] = {}
    for job, outcome in zip(jobs, joblib.Parallel(arguments.jobs, return_as="generator")(calls), strict=True):
        outcomes[job] = outcome
        table.progress(f"{job.arena}: {job.what}, seed {job.seed}")
    for arena in arenas:
        by_task = _rows(outcomes, arena)
        for said in sorted(by_task, key=_agents):
            for method, judged in by_task[said].items():
                for one in judged:
                    table.add(said, method, **_metrics(one))
    _tell_bound(table, effort, arenas)
    _claim_alike(table, effort, outcomes)
    for arena in arenas:
        rows = _rows(outcomes, arena)[task(arena, max(effort.sizes_of(ARENAS[arena])))]
        _claim_reached(table, rows)
        _claim_planner(table, arena, rows)
        _claim_rivals(table, arena, rows)
        _claim_halves(table, arena, rows)
    if arguments.pictures:
        _draw(effort, outcomes, arenas, arguments.pictures)
    return table


def _tell_bound(table: Table, effort: Effort, arenas: Iterable[str]) -> None:
    """What nobody can beat where drones fly."""
    for arena in arenas:
        law = inner_law(ARENAS[arena])
        if law is None:
            continue
        for said, layouts in judged_layouts(effort, arena).items():
            steps = steps_at_full_speed(ARENAS[arena].settings, law, layouts)
            table.add(said, AT_FULL_SPEED, steps=float(steps.mean()))


def _agents(said: str) -> int:
    return int(said.split()[-2])


def _rows(outcomes: Outcomes, arena: str) -> dict[str, dict[str, list[Judged]]]:
    """By task and method what was judged, one for every seed."""
    found: dict[str, dict[str, list[Judged]]] = {}
    for job in sorted(outcomes):
        if job.arena == arena:
            for one in outcomes[job].judged:
                found.setdefault(one.task, {}).setdefault(one.method, []).append(one)
    return found


def _metrics(judged: Judged) -> dict[str, float | None]:
    return {
        "success": judged.reached / len(judged.steps), "steps": float(np.mean(judged.steps)),
        "collisions per step": float(np.mean(_per_step(judged))), "decision ms": judged.decision_ms,
    }  # fmt: skip


def _per_step(judged: Judged) -> NDArray[np.float64]:
    return np.asarray(judged.collisions) / np.maximum(judged.steps, 1)


def _claim_alike(table: Table, effort: Effort, outcomes: Outcomes) -> None:
    """What any run must show."""
    spent = [(job, outcome.rollouts) for job, outcome in outcomes.items() if job.what == OURS]
    planned = all(rollouts == effort.rollouts(ARENAS[job.arena]) for job, rollouts in spent)
    table.claim(
        "both halves had the same episodes for every seed, all with five agents",
        value=float(max(rollouts for _, rollouts in spent)), n=len(spent), holds=planned and effort.agents == 5,
        test="largest number of episodes, over runs",
    )  # fmt: skip


def _claim_reached(table: Table, rows: Rows) -> None:
    """Success of the worst seed."""
    worst = min(rows[OURS], key=lambda judged: judged.reached)
    n, interval = len(worst.steps), wilson(worst.reached, len(worst.steps))
    table.claim(
        f"{worst.task}: {OURS}, trained with 5, occupies all goals in at least {REACHED:.0%} of the layouts",
        value=worst.reached / n, bound=REACHED, interval=interval, n=n, preset="paper",
        test="share of held-out layouts, worst seed; Wilson 95 %",
        holds=worst.reached / n >= REACHED and interval[0] >= SURELY,
    )  # fmt: skip


def _slowest(rows: Rows, method: str) -> Judged:
    return max(rows[method], key=lambda judged: float(np.mean(judged.steps)))


def _claim_planner(table: Table, arena: str, rows: Rows) -> None:
    """The margin that the paper claims over planners."""
    ours, theirs = _slowest(rows, OURS), rows[_PLANNER][0]
    share = 1 - np.mean(ours.steps) / np.mean(theirs.steps)
    saved = (1 - FASTER[arena]) * np.asarray(theirs.steps, float) - np.asarray(ours.steps, float)
    low = paired_lower_bound(saved)
    table.claim(
        f"{ours.task}: {OURS} takes at least {FASTER[arena]:.0%} fewer steps than {_PLANNER}",
        value=float(share), bound=FASTER[arena], interval=(float(FASTER[arena] + low / np.mean(theirs.steps)), None),
        n=len(saved), preset="paper", holds=low > 0,
        test="share of the mean steps, slowest seed; one-sided 95 % by paired t over layouts",
    )  # fmt: skip


def _rivals(rows: Rows) -> list[Judged]:
    """Every assignment with every rule, goals decided on once or again and again."""
    return [
        judged[0] for method, judged in rows.items() if "our" not in method and (BY_RULE in method or BY_ORCA in method)
    ]  # fmt: skip


def _claim_rivals(table: Table, arena: str, rows: Rows) -> None:
    """Against the fastest rivals, whichever they are on these very layouts: steps, and collisions."""
    once = [rival for rival in _rivals(rows) if "every" not in rival.method]
    best = _fastest(once)
    if arena in _DYNAMIC:
        straight = _fastest([rival for rival in once if "informed" not in rival.method])
        _claim_steps(table, _slowest(rows, OURS), straight, "the fastest rival that measures straight lines", True)
    _claim_steps(table, _slowest(rows, OURS), best, "the fastest rival", arena in _WINNING)
    roughest = max(rows[OURS], key=lambda judged: float(_per_step(judged).mean()))
    fewer = _per_step(best) - _per_step(roughest)
    bound = paired_lower_bound(fewer)
    table.claim(
        f"{roughest.task}: {OURS} collides less per step than the fastest rival ({best.method})",
        value=float(fewer.mean()), bound=0.0, interval=(bound, None), n=len(fewer), preset="paper",
        test="pairs per step saved, roughest seed; one-sided 95 % by paired t over layouts", holds=bound > 0,
    )  # fmt: skip
    again = _fastest([rival for rival in _rivals(rows) if "every" in rival.method])
    _claim_steps(table, _slowest(rows, every(OURS)), again, "the fastest that decides again", arena in _WINNING)


def _fastest(rivals: Iterable[Judged]) -> Judged:
    return min(rivals, key=lambda judged: float(np.mean(judged.steps)))


def _claim_steps(table: Table, ours: Judged, theirs: Judged, who: str, better: bool) -> None:
    """Fewer steps, or not more than a margin more."""
    saved = np.asarray(theirs.steps, float) - np.asarray(ours.steps, float)
    low, margin = paired_lower_bound(saved), 0.0 if better else MARGIN * float(np.mean(theirs.steps))
    said = "fewer steps than" if better else f"no more than {MARGIN:.0%} more steps than"
    table.claim(
        f"{ours.task}: {ours.method} takes {said} {who} ({theirs.method})",
        value=float(saved.mean()), bound=-margin, interval=(low, None), n=len(saved), preset="paper",
        test="steps saved, slowest seed; one-sided 95 % by paired t over layouts", holds=low > -margin,
    )  # fmt: skip


def _claim_halves(table: Table, arena: str, rows: Rows) -> None:
    """What each half is worth: the matcher beside the best assignment of the same executor."""
    ours = np.mean([judged.steps for judged in rows[OURS]], axis=0)
    others = {
        method: np.mean([judged.steps for judged in judged_], axis=0)
        for method, judged_ in rows.items() if OUR_EXECUTOR in method
    }  # fmt: skip
    best = min(others, key=lambda method: float(others[method].mean()))
    better = arena in _DYNAMIC
    margin = 0.0 if better else MARGIN * float(others[best].mean())
    low = paired_lower_bound(others[best] - ours)
    said = "takes fewer steps than" if better else f"takes no more than {MARGIN:.0%} more steps than"
    table.claim(
        f"{rows[OURS][0].task}: our matcher {said} the best assignment with the same executor ({best})",
        value=float((others[best] - ours).mean()), bound=-margin, interval=(low, None), n=len(ours), preset="paper",
        test="steps saved, mean of the seeds; one-sided 95 % by paired t over layouts", holds=low > -margin,
    )  # fmt: skip


def _draw(effort: Effort, outcomes: Outcomes, arenas: Iterable[str], folder: Path) -> None:
    """An episode of the largest teams in every arena: ours, and where the planner's is still on its way."""
    from searchlib.objectives.navigation_pictures import animate_navigation, draw_navigation

    def save(axes: Any, name: str) -> None:
        axes.figure.savefig(folder / name)

    folder.mkdir(parents=True, exist_ok=True)
    for arena in arenas:
        layouts = judged_layouts(effort, arena)[task(arena, max(effort.sizes_of(ARENAS[arena])))].take([0])
        episode = paths_of(effort, arena, outcomes[Job(arena, OURS, 0)], layouts)
        save(draw_navigation(episode), f"navigation-{arena}.png")
        animate_navigation(episode, folder / f"navigation-{arena}.gif")
