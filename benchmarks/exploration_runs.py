"""One run of the benchmark of exploration: a planner evolved on its buildings, judged in unseen ones, and kept."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from benchmarks.kept_runs import kept_run
from searchlib import Budget, EvolutionStrategy, FreshCases, Search, Split
from searchlib.objectives.exploration import Exploration, ExplorationOutcome
from searchlib.objectives.exploration_maps import KINDS, FloorPlan, generated_plan, load_floor_plan
from searchlib.objectives.exploration_policy import ExplorationPolicy
from searchlib.objectives.exploration_rules import RULES
from searchlib.objectives.exploration_settings import ExplorationSettings
from searchlib.objectives.exploration_tasks import ExplorationTask, exploration_tasks

__all__ = [
    "ARMS", "CIRCLES", "FLOOR_PLANS", "NO_HISTORY", "NO_MAIN", "OURS", "PAIRS", "PRIOR", "TEAMS", "UNTAUGHT", "Arm",
    "Effort", "Job", "Outcome", "judged_tasks", "learned_plans", "objective_of", "run_job", "stored", "unseen_plans",
]  # fmt: skip

OURS, NO_MAIN, NO_HISTORY = "ours", "ours without main nodes", "ours without history"
PAIRS = "ours, learned with 2"
#: The planner that a search begins with (its constants are rounded ones of trial evolutions in other generated
#: buildings), and the same one with the authors' ghosts.
PRIOR, CIRCLES = "before learning", "before learning, ghosts on circles"
UNTAUGHT = (PRIOR, CIRCLES, *RULES)
#: Numbers of agents in unseen buildings.
TEAMS = (2, 4, 6)
_LAYOUT = 1
#: Of the held-out starts; settings were chosen with those of other seeds, in the buildings to learn in.
_STARTS = 1
#: Few noisy episodes rank a generation: wide steps tell members apart, and a slow center averages over generations.
_STRATEGY = partial(EvolutionStrategy, method="snes", sigma=0.3, rate=0.3)


@final
@dataclass(frozen=True)
class Arm:
    """What learns.

    Arguments:
        policy: parts of the planner.
        agents: numbers of agents that it learns with.
    """

    policy: ExplorationPolicy
    agents: tuple[int, ...] = TEAMS


ARMS: Mapping[str, Arm] = {
    OURS: Arm(ExplorationPolicy()),
    NO_MAIN: Arm(ExplorationPolicy(main=False)),
    NO_HISTORY: Arm(ExplorationPolicy(history=False)),
    PAIRS: Arm(ExplorationPolicy(), agents=(2,)),
}  # fmt: skip

#: Floor plans by file: meters per pixel, edge of a cell in m, and whether planners learn there. Only Willow Garage has
#: a scale of its own; the others are brought to 120 cells (80 to learn in) of 0.35 m along their longer side.
#: ``889_05.png`` is left out: it is the same floor as ``hospital_section.png``.
FLOOR_PLANS: Mapping[str, tuple[float, float, bool]] = {
    "autolab.png": (0.0346, 0.35, True), "mbicp.png": (0.0667, 0.35, True), "simple_rooms.png": (0.07, 0.35, True),
    "hospital_section.png": (0.0387, 0.35, False), "uoa_robotics_lab.png": (0.0333, 0.35, False),
    "willow-full.pgm": (0.1, 0.5, False),
}  # fmt: skip
#: Rows and columns of generated buildings, to learn in (in turn) and unseen, and the first seed of the unseen ones.
_LEARNED, _UNSEEN, _FIRST = ((30, 45), (44, 66)), (80, 120), 1000


@final
@dataclass(frozen=True)
class Effort:
    """How much is run.

    Arguments:
        generations: of the evolution strategy.
        population: members of a generation.
        tasks: that a generation meets.
        starts: held-out starts of every unseen building and number of agents.
        arms: that learn.
        rules: that are compared.
        drawn: generated buildings of every kind to learn in.
        steps: after which an episode is over.
    """

    generations: int
    population: int = 16
    tasks: int = 20
    starts: int = 20
    arms: tuple[str, ...] = tuple(ARMS)
    rules: tuple[str, ...] = tuple(RULES)
    drawn: int = 10
    steps: int = 3000

    @property
    def rollouts(self) -> int:
        """Episodes of a run, the same for every arm; the first planner is met once before the first generation."""
        return (self.generations * self.population + 1) * self.tasks


class Job(NamedTuple):
    """One arm with one seed; what learns nothing has seed 0."""

    arm: str
    seed: int


class Outcome(NamedTuple):
    """What came of a job, in the order of :func:`judged_tasks`.

    Arguments:
        to90, to95: steps to 90 % and to 95 % of coverage.
        overlap: share of the covered cells that several agents had seen, at 30, 50, 70 and 90 % of coverage, a mean
            over the starts of each building and number of agents.
        rollouts: episodes spent.
        seconds: of processor time.
        center: parameters of the planner; empty for rules.
    """

    to90: tuple[float, ...]
    to95: tuple[float, ...]
    overlap: tuple[tuple[float | None, ...], ...]
    rollouts: int
    seconds: float
    center: tuple[float, ...]


def _real(folder: Path | None, learned: bool) -> list[FloorPlan]:
    if folder is None or not folder.is_dir():
        return []
    return [
        load_floor_plan(folder / file, resolution=resolution, cell=cell)
        for file, (resolution, cell, learns) in FLOOR_PLANS.items() if learns == learned and (folder / file).exists()
    ]  # fmt: skip


@cache
def learned_plans(effort: Effort, folder: Path | None) -> tuple[FloorPlan, ...]:
    """Buildings to learn in."""
    drawn = [
        generated_plan(kind, seed, height=_LEARNED[seed % 2][0], width=_LEARNED[seed % 2][1])
        for seed in range(effort.drawn) for kind in KINDS
    ]  # fmt: skip
    return (*_real(folder, True), *drawn)


@cache
def unseen_plans(folder: Path | None) -> tuple[FloorPlan, ...]:
    """Buildings that no search has met."""
    tall, wide = _UNSEEN
    return (*_real(folder, False), *(generated_plan(kind, _FIRST, height=tall, width=wide) for kind in KINDS))


def judged_tasks(effort: Effort, folder: Path | None) -> tuple[ExplorationTask, ...]:
    """The held-out tasks: building by building, number by number, all starts."""
    plans = unseen_plans(folder)
    cells = len(plans) * len(TEAMS)
    tasks = exploration_tasks(plans, TEAMS, cells * effort.starts, seed=_STARTS, split=Split.HOLDOUT)
    return tuple(tasks[cell + cells * start] for cell in range(cells) for start in range(effort.starts))


def objective_of(effort: Effort, arm: str, folder: Path | None) -> Exploration:
    """What an arm learns by; rules are played in the same one."""
    made = ARMS.get(arm, ARMS[OURS])
    plans = learned_plans(effort, folder)
    settings = ExplorationSettings(ghosts="circle" if arm == CIRCLES else "frontier", steps=effort.steps)
    return Exploration(
        plans, unseen_plans(folder), settings, policy=made.policy,
        agents=made.agents, search=exploration_tasks(plans, made.agents, 12 * len(plans) * len(made.agents)),
    )  # fmt: skip


def run_job(effort: Effort, job: Job, folder: Path | None) -> Outcome:
    """Evolve a planner and judge the mean of the last generations; or judge what needs no evolution."""
    start = time.process_time()
    objective, spent = objective_of(effort, job.arm, folder), 0
    how: Any = (job.arm,)
    if job.arm in (PRIOR, CIRCLES):
        how = objective.policy.prior()[None]
    if job.arm in ARMS:
        run = Search(
            objective, _STRATEGY(population=effort.population), seed=job.seed, batch_size=effort.population,
            shortlist=1, budget=Budget(evaluations=effort.generations * effort.population + 1),
            cases=FreshCases(effort.tasks),
        )  # fmt: skip
        with run:
            for record in run:
                spent += len(record.ids) * effort.tasks
        # What is left of the noise in the center is less in the mean of the last quarter of the generations.
        late = effort.population * max(1, effort.generations // 4)
        how = np.asarray(run.history.population, np.float64)[-late:].mean(axis=0)[None]
    outcome = objective.outcome(how, judged_tasks(effort, folder))
    center = () if isinstance(how[0], str) else tuple(np.asarray(how[0], np.float64).tolist())
    return Outcome(
        tuple(outcome.steps_to(0.9)[0].tolist()), tuple(outcome.steps_to(0.95)[0].tolist()),
        _overlaps(outcome, effort.starts), spent, round(time.process_time() - start, 1), center,
    )  # fmt: skip


def _overlaps(outcome: ExplorationOutcome, starts: int) -> tuple[tuple[float | None, ...], ...]:
    cells = outcome.overlap[0, :, :4].reshape(-1, starts, 4)
    found = []
    for cell in cells:
        means = [column[np.isfinite(column)] for column in cell.T]
        found.append(tuple(float(known.mean()) if len(known) else None for known in means))
    return tuple(found)


def stored(store: Path | None, effort: Effort, job: Job, folder: Path | None) -> Outcome:
    """A job's outcome, kept for the settings and the buildings that it was made with."""
    learned: Sequence[Any] = ()
    if job.arm in ARMS:
        learned = (
            effort.generations, effort.population, effort.tasks, ARMS[job.arm],
            [plan.digest for plan in learned_plans(effort, folder)],
        )  # fmt: skip
    unseen = [plan.digest for plan in unseen_plans(folder)]
    made_by = repr((_LAYOUT, effort.starts, effort.steps, RULES.get(job.arm), unseen, learned))
    return kept_run(store, job, made_by, lambda: run_job(effort, job, folder), _outcome)


def _outcome(document: Mapping[str, Any]) -> Outcome:
    frozen = {name: tuple(document[name]) for name in ("to90", "to95", "center")}
    return Outcome(**{**document, **frozen, "overlap": tuple(map(tuple, document["overlap"]))})
