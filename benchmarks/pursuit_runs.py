"""One run of the pursuit benchmark: a policy trained by a curriculum, judged on the way; and runs kept in a folder."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from benchmarks.kept_runs import kept_run
from benchmarks.pursuit_arms import ARMS, PROBLEMS, Problem
from benchmarks.watched_source import Diary, Watched
from searchlib import Budget, Cases, EvolutionStrategy, Result, Search, Split
from searchlib.objectives import Pursuit, PursuitTasks

__all__ = ["CHECKPOINTS", "COVERED", "Diary", "Effort", "Job", "Outcome", "held_out", "run_job", "stored"]

#: Shares of the budget at which the center is judged.
CHECKPOINTS = (0.25, 0.5, 1.0)
#: A cell of the grid is covered at this success (TaskFlex Solver).
COVERED = 0.95
_LAYOUT = 1


@final
@dataclass(frozen=True)
class Effort:
    """How much is run.

    Arguments:
        strategy: that follows the curricula; a generation has ``strategy.population`` members.
        tasks: that a generation meets.
        scale: of every problem's generations.
        judged: held-out worlds of a single task.
        copies: held-out worlds of each task of a grid.
        steps: of the episodes by which all capture radii are judged (DualCL: 800).
        arms: that are compared.
        problems: on which ones.
        range_seeds: how many times as many seeds ranges have as targets, because arms differ less there.
    """

    strategy: EvolutionStrategy
    arms: tuple[str, ...]
    problems: tuple[str, ...]
    tasks: int = 24
    scale: float = 1.0
    judged: int = 1000
    copies: int = 40
    steps: int = 800
    range_seeds: int = 1

    def generations(self, problem: Problem) -> int:
        """Of a problem, at least 4."""
        return max(4, round(self.scale * problem.generations))

    def rollouts(self, problem: Problem) -> int:
        """Episodes of a problem, the same for every arm."""
        return self.generations(problem) * self.members * self.tasks

    @property
    def members(self) -> int:
        """Of a generation."""
        assert self.strategy.population is not None
        return self.strategy.population


class Job(NamedTuple):
    """One arm on one problem with one seed."""

    problem: str
    arm: str
    seed: int


class Outcome(NamedTuple):
    """What came of a job.

    Arguments:
        success: held-out success of the center at every checkpoint.
        cover: share of the held-out tasks that are caught in :data:`COVERED` of their worlds, at every checkpoint.
        rungs: how far ladders were climbed.
        archive: tasks kept in the end.
        rollouts: episodes spent.
        seconds: of processor time.
        center: parameters of the policy in the end.
    """

    success: tuple[float, ...]
    cover: tuple[float, ...]
    rungs: tuple[int, ...]
    archive: int
    rollouts: int
    seconds: float
    center: tuple[float, ...]


def _vectors(cases: Cases) -> NDArray[np.float64]:
    return PursuitTasks.of(cases.payload or ()).vectors


def held_out(problem: Problem, effort: Effort, seed: int) -> tuple[PursuitTasks, int]:
    """The worlds on which a policy is judged, and how many of them each task has."""
    if problem.is_target:
        rng = np.random.default_rng([seed, 1])
        return problem.hardest.uniform(rng, effort.judged, split=Split.HOLDOUT), effort.judged
    return problem.tasks.grid(copies=effort.copies, seed=seed), effort.copies


def run_job(effort: Effort, job: Job, diary: Diary | None = None) -> Outcome:
    """Train a policy, and judge the strategy's center on the way."""
    start = time.process_time()
    problem = PROBLEMS[job.problem]
    generations, rollouts = effort.generations(problem), effort.rollouts(problem)
    training, diary = ARMS[job.arm](problem, generations), diary or Diary()
    objective = Pursuit(training.tasks, problem.settings, hidden=problem.hidden, search=1, select=0, holdout=0)
    curriculum = replace(training.curriculum, per_generation=effort.tasks)
    # With a short list of one, a search hands over the center, whatever luck the members had.
    run = Search(
        objective, replace(effort.strategy, secondary=training.distance), seed=job.seed, batch_size=effort.members,
        shortlist=1, budget=Budget(cells=rollouts),  # a small grid takes less than a generation, a large one more
        cases=Watched(curriculum, diary, _vectors, effort.tasks),
    )  # fmt: skip
    worlds, copies = held_out(problem, effort, job.seed)
    spent = 0
    judged: list[tuple[float, float, int]] = []
    with run:
        for record in run:
            spent += len(record.ids) * len(diary.tasks[-1])
            while len(judged) < len(CHECKPOINTS) and spent >= CHECKPOINTS[len(judged)] * rollouts:
                judged.append(_judged(objective, run.result(), worlds, copies))
    success, cover, rungs = zip(*judged, strict=True)
    result = run.result()
    assert result.row is not None
    return Outcome(
        success, cover, rungs, result.notes["cases"]["archive"], spent, round(time.process_time() - start, 1),
        tuple(result.row.tolist()),
    )  # fmt: skip


def _judged(objective: Pursuit, result: Result, worlds: PursuitTasks, copies: int) -> tuple[float, float, int]:
    """Success and cover of what a run would hand over now, and how far its ladders are climbed."""
    assert result.row is not None
    caught = objective.outcome(result.row[None], worlds, stop_at_capture=True).captured.reshape(-1, copies).mean(axis=1)
    return float(caught.mean()), float((caught >= COVERED).mean()), int(result.notes["cases"]["rung"])


def stored(folder: Path | None, effort: Effort, job: Job) -> Outcome:
    """A job's outcome, kept for the settings of the problem, the arm and the effort."""
    problem = PROBLEMS[job.problem]
    training = ARMS[job.arm](problem, effort.generations(problem))
    made_by = repr((_LAYOUT, problem, training, effort.strategy, effort.tasks, effort.judged, effort.copies,
                    effort.generations(problem)))  # fmt: skip
    return kept_run(folder, job, made_by, lambda: run_job(effort, job), _outcome)


def _outcome(document: Mapping[str, Any]) -> Outcome:
    return Outcome(**{name: tuple(value) if isinstance(value, list) else value for name, value in document.items()})
