"""One run of the multi-UAV benchmark: a policy trained by an evolution strategy, judged on the way, and kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from benchmarks.kept_runs import kept_run
from benchmarks.uav_recipes import evolved_inner_loop, fitted_predictor
from benchmarks.watched_source import Diary, Watched
from searchlib import Budget, Cases, Curriculum, EvolutionStrategy, Search, Split, TaskArchive
from searchlib.objectives.uav_heuristics import HEURISTICS
from searchlib.objectives.uav_outcome import UavOutcome
from searchlib.objectives.uav_pursuit import UavPursuit
from searchlib.objectives.uav_settings import UavSettings
from searchlib.objectives.uav_tasks import SCENARIOS, UavTasks, scenario_tasks, uniform_tasks

__all__ = [
    "ARENAS", "ARMS", "BARE", "CHECKPOINTS", "NO_GENERATOR", "NO_PREDICTOR", "OURS", "PRIOR", "UNTAUGHT", "Counts",
    "Diary", "Effort", "Job", "Outcome", "objective_of", "run_job", "stored", "worlds",
]  # fmt: skip

OURS, NO_PREDICTOR, NO_GENERATOR = "ours", "ours without predictor", "ours without generator"
#: The chase that policies begin with.
PRIOR = "the chase, nothing learned"
#: Heuristics without the layer for safety.
BARE = tuple(f"{name}, no layer for safety" for name in HEURISTICS)
UNTAUGHT = (PRIOR, *HEURISTICS, *BARE)
#: The arms that learn: whether they predict, and whether the generator makes their tasks.
ARMS: Mapping[str, tuple[bool, bool]] = {
    OURS: (True, True), NO_PREDICTOR: (False, True), NO_GENERATOR: (True, False),
}  # fmt: skip
#: Where policies are judged: the scenarios of the authors, and new draws of the uniform generator.
ARENAS = (*SCENARIOS, "random arenas")
#: Shares of the budget at which the center is judged.
CHECKPOINTS = (0.25, 0.5, 1.0)
_LAYOUT = 3
#: Of the held-out starts. Nothing was chosen by them; those of seed 0 were seen while the layer for safety was mended.
_STARTS = 1
#: The authors move starts by 0.1 m in an arena 1.8 m wide.
_GENERATOR = Curriculum(low=0.5, high=0.9, share=0.7, expansion=0.1 / 1.8, archive=TaskArchive(capacity=5000))


@final
@dataclass(frozen=True)
class Effort:
    """How much is run.

    Arguments:
        strategy: that follows the curricula; a generation has ``strategy.population`` members.
        generations: how many.
        tasks: that a generation meets.
        judged: held-out starts of each arena.
        arms: that learn.
        settings: of all worlds.
        training_steps: control steps of the episodes that are learned from; shorter than those of the judging, whose
            last seconds say little. At most those of ``settings``.
        prepared: generations of the inner loop, and worlds from which the predictor learns.
    """

    strategy: EvolutionStrategy
    generations: int
    tasks: int = 32
    judged: int = 500
    arms: tuple[str, ...] = tuple(ARMS)
    settings: UavSettings = UavSettings()  # noqa: RUF009  frozen
    training_steps: int = 480
    prepared: tuple[int, int] = (60, 256)

    @property
    def members(self) -> int:
        """Of a generation."""
        assert self.strategy.population is not None
        return self.strategy.population

    @property
    def rollouts(self) -> int:
        """Episodes of a run, the same for every arm."""
        return self.generations * self.members * self.tasks


class Job(NamedTuple):
    """One arm with one seed; what learns nothing has seed 0."""

    arm: str
    seed: int


class Counts(NamedTuple):
    """What happened in the held-out worlds of an arena.

    Arguments:
        worlds: how many.
        captured: with a capture.
        clean: with a capture and no collision.
        collided: with a collision.
        first_step: of the capture, on average over the worlds with one; None where there are none.
    """

    worlds: int
    captured: int
    clean: int
    collided: int
    first_step: float | None


class Outcome(NamedTuple):
    """What came of a job.

    Arguments:
        judged: for every checkpoint, the counts of every arena of :data:`ARENAS`; one checkpoint where nothing learns.
        archive: tasks kept in the end.
        rollouts: episodes spent.
        seconds: of processor time.
        center: parameters of the policy in the end; empty for heuristics.
    """

    judged: tuple[tuple[Counts, ...], ...]
    archive: int
    rollouts: int
    seconds: float
    center: tuple[float, ...]


def _vectors(cases: Cases) -> NDArray[np.float64]:
    return UavTasks.of(cases.payload or ()).vectors


@cache
def objective_of(effort: Effort, predicts: bool, *, safe: bool = True, training: bool = False) -> UavPursuit:
    """The objective with its inner loop and, if wanted, its predictor, from the cache or made now."""
    settings, (generations, examples) = effort.settings, effort.prepared
    law = evolved_inner_loop(settings, generations=generations)
    predictor = fitted_predictor(settings, law, worlds=examples) if predicts else None
    if training:
        settings = replace(settings, steps=min(settings.steps, effort.training_steps))
    return UavPursuit(settings, inner_loop=law, predictor=predictor, safe=safe, search=1, select=0, holdout=0)


def worlds(effort: Effort) -> UavTasks:
    """The held-out starts of all arenas, one arena after the other; the same for every arm and seed."""
    found = [scenario_tasks(name, effort.judged, seed=_STARTS) for name in SCENARIOS]
    found.append(uniform_tasks(np.random.default_rng(_STARTS), effort.judged, split=Split.HOLDOUT))
    return UavTasks(*(np.concatenate([getattr(part, name) for part in found]) for name in ("vectors", "seeds")))


def run_job(effort: Effort, job: Job, diary: Diary | None = None) -> Outcome:
    """Train a policy and judge the strategy's center on the way; or judge what needs no training."""
    start, starts = time.process_time(), worlds(effort)
    if job.arm in UNTAUGHT:
        objective = objective_of(effort, True, safe=job.arm not in BARE)
        rows: Any = (job.arm.split(",")[0],)
        if job.arm == PRIOR:
            rows = np.zeros((1, objective.network.parameters), np.float32)
        judged: list[tuple[Counts, ...]] = [_counts(effort, objective.outcome(rows, starts))]
        return Outcome(tuple(judged), 0, 0, round(time.process_time() - start, 1), ())
    predicts, generates = ARMS[job.arm]
    objective, judge = objective_of(effort, predicts, training=True), objective_of(effort, predicts)
    diary = diary or Diary()
    source = replace(_GENERATOR, per_generation=effort.tasks, share=_GENERATOR.share if generates else 0.0)
    # With a short list of one, a search hands over the center, whatever luck the members had.
    run = Search(
        objective, effort.strategy, seed=job.seed, batch_size=effort.members, shortlist=1,
        budget=Budget(evaluations=effort.generations * effort.members),
        cases=Watched(source, diary, _vectors, effort.tasks),
    )  # fmt: skip
    spent, judged = 0, []
    with run:
        for record in run:
            spent += len(record.ids) * len(diary.tasks[-1])
            while len(judged) < len(CHECKPOINTS) and spent >= CHECKPOINTS[len(judged)] * effort.rollouts:
                row = run.result().row
                assert row is not None
                judged.append(_counts(effort, judge.outcome(row[None], starts)))
    result = run.result()
    assert result.row is not None
    return Outcome(
        tuple(judged), result.notes["cases"]["archive"], spent, round(time.process_time() - start, 1),
        tuple(result.row.tolist()),
    )  # fmt: skip


def _counts(effort: Effort, outcome: UavOutcome) -> tuple[Counts, ...]:
    found = []
    for place in range(len(ARENAS)):
        part = outcome.take(slice(place * effort.judged, (place + 1) * effort.judged))
        first = part.first_capture_step[part.captured]
        found.append(Counts(
            len(part), int(part.captured.sum()), int(part.success.sum()), int(part.collided.sum()),
            float(first.mean()) if len(first) else None,
        ))  # fmt: skip
    return tuple(found)


def stored(folder: Path | None, effort: Effort, job: Job) -> Outcome:
    """A job's outcome, kept for the settings that it was made with."""
    learned_by = (effort.strategy, effort.generations, effort.tasks, effort.training_steps, _GENERATOR)
    trained = repr(learned_by) if job.arm in ARMS else ""
    made_by = repr((_LAYOUT, effort.settings, effort.judged, effort.prepared, trained))
    return kept_run(folder, job, made_by, lambda: run_job(effort, job), _outcome)


def _outcome(document: Mapping[str, Any]) -> Outcome:
    judged = tuple(tuple(Counts(*counts) for counts in checkpoint) for checkpoint in document["judged"])
    return Outcome(**{**document, "judged": judged, "center": tuple(document["center"])})
