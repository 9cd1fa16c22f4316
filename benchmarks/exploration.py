"""MANTM: teams explore unknown buildings; an evolved planner of two levels against planners without learning.

Every arm learns from as many episodes, in generated buildings and (where they are there) real floor plans, with teams
of two, four and six but for the arm that says so. It is judged in buildings that no search has met, by the same teams,
from starts that are the same for all. Floor plans are looked for in ``../shared/data/floorplans`` beside the checkout,
or in the folder that ``--floorplans`` names; without them all buildings are generated ones.

A long run can be stopped and resumed, or made in parts::

    python -m benchmarks exploration --preset paper --store runs --arm ours
    python -m benchmarks exploration --preset paper --store runs --out benchmarks/results
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np
from numpy.typing import NDArray

from benchmarks.exploration_runs import (
    ARMS,
    CIRCLES,
    NO_MAIN,
    OURS,
    PAIRS,
    PRIOR,
    TEAMS,
    UNTAUGHT,
    Effort,
    Job,
    Outcome,
    judged_tasks,
    objective_of,
    stored,
    unseen_plans,
)
from benchmarks.table import Table
from searchlib.objectives.exploration_rules import COORDINATED, PLAIN

__all__ = ["DESCRIPTION", "PRESETS", "SEEDS", "add_arguments", "fewer_steps", "run"]

DESCRIPTION = "MANTM: multi-agent exploration with a topological map, against frontier planners and its own ablations"

_QUICK = ("nearest", "nearest with goal exclusion", "utility with goal exclusion", "voronoi")
PRESETS: Mapping[str, Effort] = {
    "smoke": Effort(2, population=6, tasks=3, starts=1, arms=(OURS,), rules=_QUICK[:2], drawn=1, steps=600),
    "small": Effort(30, starts=6, arms=(OURS, NO_MAIN), rules=_QUICK),
    "paper": Effort(34),
    "full": Effort(120, tasks=40),
}  # fmt: skip
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 1, "paper": 3, "full": 5}
#: By how much fewer steps are to be taken than by planners in which nobody looks at others, and by the best others.
BELOW_PLAIN, BELOW_COORDINATED = 0.26, 0.15
#: Coordinated rules that are usual rows of such tables; the third one, which weighs both, is stronger.
_PAIR = ("nearest with goal exclusion", "voronoi")
_PLANS = Path(__file__).parents[2] / "shared" / "data" / "floorplans"

Outcomes = Mapping[Job, Outcome]
Steps = NDArray[np.float64]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs side by side (%(default)s)")
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="keep every run there, and go on from what is")
    parser.add_argument("--arm", choices=(*ARMS, *UNTAUGHT), action="append", help="only this one (may be repeated)")
    parser.add_argument("--floorplans", type=Path, default=_PLANS, metavar="FOLDER", help="with the real buildings")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw episodes into it")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    effort = PRESETS[arguments.preset]
    folder = arguments.floorplans if arguments.floorplans.is_dir() else None
    rules = tuple(name for name in UNTAUGHT if name in (PRIOR, CIRCLES) or name in effort.rules)
    wanted = arguments.arm or (*rules, *effort.arms)
    jobs = [Job(arm, 0) for arm in UNTAUGHT if arm in wanted]
    jobs += [Job(arm, seed) for arm in ARMS if arm in wanted for seed in range(arguments.seeds)]
    table = Table("exploration", arguments.preset, arguments.seeds)
    calls = (joblib.delayed(stored)(arguments.store, effort, job, folder) for job in jobs)
    outcomes: dict[Job, Outcome] = {}
    for job, outcome in zip(jobs, joblib.Parallel(arguments.jobs, return_as="generator")(calls), strict=True):
        outcomes[job] = outcome
        _add(table, effort, job, outcome, folder)
        table.progress(f"{job.arm}, seed {job.seed}")
    _claim_alike(table, effort, outcomes)
    if any(job.arm == OURS for job in jobs):
        _claim_fewer(table, effort, outcomes)
    if arguments.pictures:
        _draw(effort, outcomes, folder, arguments.pictures)
    return table


def _add(table: Table, effort: Effort, job: Job, outcome: Outcome, folder: Path | None) -> None:
    places = [f"{plan.name}, {team} agents" for plan in unseen_plans(folder) for team in TEAMS]
    shape = (len(places), effort.starts)
    to90, to95 = (np.reshape(steps, shape).mean(axis=1) for steps in (outcome.to90, outcome.to95))
    for place, name in enumerate(places):
        overlaps = zip((30, 50, 70, 90), outcome.overlap[place], strict=True)
        table.add(
            name, job.arm, **{"steps to 90 %": to90[place], "steps to 95 %": to95[place]},
            **{f"overlap at {share} %": overlap for share, overlap in overlaps},
        )  # fmt: skip


def _claim_alike(table: Table, effort: Effort, outcomes: Outcomes) -> None:
    """What any run must show."""
    spent = [outcome.rollouts for job, outcome in outcomes.items() if job.arm in ARMS]
    if spent:
        table.claim(
            "all arms that learn had the same episodes", value=float(max(spent)), bound=float(effort.rollouts),
            n=len(spent), test="largest number of episodes, over runs",
            holds=min(spent) == max(spent) == effort.rollouts,
        )  # fmt: skip


def fewer_steps(
    ours: Steps, theirs: Steps, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """By which share we take fewer steps, on average over places, and its one-sided lower bound.

    In every place (a building and a number of agents) it is one minus the ratio of the mean steps. The bound is that of
    a bootstrap of seeds and, in every place, of starts, which are the same for both.

    Arguments:
        ours, theirs: steps, ``(seeds, places, starts)``; theirs may have one seed.
        level: one-sided confidence.
        resamples: how many.
        seed: of the resampling.

    Example:
        >>> theirs = np.full((1, 3, 4), 100.0)
        >>> [round(float(number), 3) for number in fewer_steps(0.8 * theirs, theirs)]
        [0.2, 0.2]
    """
    rng = np.random.default_rng(seed)
    count, places, starts = ours.shape
    drawn = rng.integers(starts, size=(resamples, places, starts))
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count

    def resampled(steps: Steps) -> Steps:
        means = np.stack([one[np.arange(places)[:, None], drawn].mean(axis=-1) for one in steps])
        return np.asarray(np.einsum("ks,skp->kp", weights, means) if len(steps) == count else means[0])

    found = (1 - resampled(ours) / resampled(theirs)).mean(axis=1)
    value = (1 - ours.mean(axis=(0, 2)) / theirs.mean(axis=(0, 2))).mean()
    return float(value), float(np.quantile(found, 1 - level))


def _steps(outcomes: Outcomes, arm: str, starts: int, which: str) -> Steps | None:
    found = [getattr(outcome, which) for job, outcome in sorted(outcomes.items()) if job.arm == arm]
    return np.reshape(found, (len(found), -1, starts)) if found else None


def _best_coordinated(steps: Mapping[str, Steps]) -> tuple[Steps, str]:
    """For every number of agents the steps of the rule that needs the fewest, relative to all, on average."""
    scale = np.mean([one.mean(axis=(0, 2)) for one in steps.values()], axis=0)
    relative = {name: one.mean(axis=(0, 2)) / scale for name, one in steps.items()}
    best, names = np.empty_like(next(iter(steps.values()))), []
    for team in range(len(TEAMS)):
        name = min(relative, key=lambda one: float(relative[one][team :: len(TEAMS)].mean()))
        best[:, team :: len(TEAMS)] = steps[name][:, team :: len(TEAMS)]
        names.append(f"{TEAMS[team]}: {name}")
    return best, "; ".join(names)


def _claim_fewer(table: Table, effort: Effort, outcomes: Outcomes) -> None:
    """Ours against everything else, at 90 % and at 95 % of coverage."""
    for which, covered in (("to90", "90 %"), ("to95", "95 %")):

        def steps(arm: str, which: str = which) -> Steps | None:
            return _steps(outcomes, arm, effort.starts, which)

        def claim(ours: Steps, theirs: Steps, sentence: str, bound: float, covered: str = covered) -> None:
            value, low = fewer_steps(ours, theirs)
            table.claim(
                f"{sentence} to {covered}, mean over unseen buildings with {', '.join(map(str, TEAMS))} agents",
                value=value, bound=bound, interval=(low, None), n=ours[0].size, preset="paper",
                test="mean share of steps saved; one-sided 95 % by bootstrap of starts and seeds",
                holds=low >= bound if bound else low > 0,
            )  # fmt: skip

        ours = steps(OURS)
        assert ours is not None
        _claim_below(claim, steps, OURS, ours)
        for arm in (PRIOR, *(name for name in ARMS if name != OURS)):
            theirs = steps(arm)
            if theirs is not None:
                claim(ours, theirs, f"{OURS} takes fewer steps than {arm}", 0.0)
        pairs = steps(PAIRS)
        if pairs is not None:
            _claim_below(claim, steps, PAIRS, pairs)
        start, circles = steps(PRIOR), steps(CIRCLES)
        if start is not None and circles is not None:
            claim(start, circles, f"{PRIOR} takes fewer steps than {CIRCLES}", 0.0)


def _claim_below(
    claim: Callable[[Steps, Steps, str, float], None], steps: Callable[[str], Steps | None], arm: str, ours: Steps
) -> None:  # fmt: skip
    """An arm against every plain planner, every coordinated one, and the best of these for each number of agents."""
    for names, bound in ((PLAIN, BELOW_PLAIN), (COORDINATED, 0.0)):
        for name in names:
            theirs = steps(name)
            if theirs is not None:
                least = f"at least {bound:.0%} " if bound else ""
                claim(ours, theirs, f"{arm} takes {least}fewer steps than {name}", bound)
    groups = {"the best coordinated rule": tuple(COORDINATED), f"the better of {' and '.join(_PAIR)}": _PAIR}
    for label, names in groups.items():
        together = {name: found for name in names if (found := steps(name)) is not None}
        if len(together) > 1:
            best, said = _best_coordinated(together)
            sentence = f"{arm} takes at least {BELOW_COORDINATED:.0%} fewer steps than {label} ({said})"
            claim(ours, best, sentence, BELOW_COORDINATED)


def _draw(effort: Effort, outcomes: Outcomes, folder: Path | None, pictures: Path) -> None:
    """The first start of every unseen building with four agents: ours, and the nearest frontier with exclusion."""
    from searchlib.objectives.exploration_pictures import animate_exploration, draw_exploration

    pictures.mkdir(parents=True, exist_ok=True)
    objective, rows = objective_of(effort, OURS, folder), dict[str, Any]()
    if Job(OURS, 0) in outcomes:
        rows["ours"] = np.array(outcomes[Job(OURS, 0)].center, np.float32)
    rows["exclusion"] = "nearest with goal exclusion"
    for task in judged_tasks(effort, folder)[:: effort.starts]:
        if task.agents != 4:
            continue
        for label, row in rows.items():
            name = f"exploration-{task.plan.replace(' ', '-').replace('_', '-')}-{label}"
            episode = objective.record(row, task)
            figure: Any = draw_exploration(episode).figure
            figure.savefig(pictures / f"{name}.png")
            animate_exploration(episode, pictures / f"{name}.gif", every=max(4, episode.steps // 40))
