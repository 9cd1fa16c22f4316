"""TaskFlex Solver and DualCL: policies by which slow pursuers catch a faster evader (arXiv 2312.12255).

https://arxiv.org/abs/2312.12255 (two papers under one number), https://github.com/jiayu-ch15/DualCL.

Reproduced: the task, the force-field evader, arenas, start states, capture and collision rules, task ranges and the
grid of 64 cells, and the heuristic baselines, as the authors coded them. Not reproduced: rotors, inertia and
controllers; pursuers follow their velocity command exactly, so that heuristics catch more than in the authors' tables.

At full size: ``Pursuit(PursuitRange(), PursuitSettings.tfs(), holdout=PursuitRange().grid(copies=80))`` is TaskFlex
Solver's task with the episodes of one of its evaluations, and
``Pursuit(PursuitRange.only(2.4, 0.9, 0.0, 0.12), PursuitSettings.dualcl())`` is DualCL's target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import instance, listed, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective, Scores
from searchlib.objectives.pursuit_heuristics import Angelani, Janosov, PotentialField, tuned_potential_field
from searchlib.objectives.pursuit_outcome import PursuitOutcome
from searchlib.objectives.pursuit_policy import PursuitNetwork
from searchlib.objectives.pursuit_record import PursuitTrajectory, record_pursuit
from searchlib.objectives.pursuit_settings import PursuitSettings
from searchlib.objectives.pursuit_tasks import (
    TASK_AXES,
    PursuitRange,
    PursuitTask,
    PursuitTasks,
    require_other_seeds,
    seeds_of,
)
from searchlib.objectives.pursuit_world import Pursuers, rollout
from searchlib.space import Candidates, Space
from searchlib.spaces import CurriculumTasks

__all__ = ["Pursuit"]

_HEURISTICS: dict[str, Pursuers] = {
    "janosov": Janosov(),
    "angelani": Angelani(),
    "potential field": PotentialField(),
}
_TUNED = "tuned potential field"


@final
class Pursuit(Objective):
    """Does a team catch the evader? 1 or 0 per task; the value is the share of tasks with a capture.

    Candidates are rows of parameters of one network that all pursuers of a team share. The least distance that a
    pursuer came to the evader breaks ties. All candidates meet the same worlds: a world's chance depends on its task's
    seed only.

    Arguments:
        tasks: where tasks are drawn from, uniformly, for the splits given as numbers.
        settings: what all worlds share.
        hidden: widths of the network's hidden layers.
        space: of the parameters; its rows are as long as the network has parameters. None:
            :class:`~searchlib.spaces.PolicyParameters` with the spread that torch gives to such layers.
        search: how many tasks to learn on, or the tasks themselves. A curriculum brings its own and passes them to
            :meth:`evaluate` as ``PursuitTasks(…).cases()``.
        select: tasks on which the winner is picked from the short list.
        holdout: tasks on which the winner and the heuristics are compared, such as ``PursuitRange().grid(copies=8)``.
        seed: another seed is other tasks, and other chance in them.

    Raises:
        InvalidSettings: a space of another length, tasks of two splits with a seed in common.

    Example:
        >>> from searchlib import search
        >>> slow = Pursuit(PursuitRange.only(0.8, 0.5), search=8, select=8, holdout=20, hidden=(4,))
        >>> slow.network.parameters
        66
        >>> result = search(slow, budget=60, seed=0)
        >>> 0 <= result.value <= 1
        True
    """

    direction: Literal["maximize"] = "maximize"
    value_names = ("success",)
    chunk_rows = 64

    def __init__(
        self,
        tasks: PursuitRange | None = None,
        settings: PursuitSettings | None = None,
        *,
        hidden: tuple[int, ...] = (16, 16),
        space: Space | None = None,
        search: int | PursuitTasks = 24,
        select: int | PursuitTasks = 64,
        holdout: int | PursuitTasks = 512,
        seed: int = 0,
    ) -> None:
        self.tasks = PursuitRange() if tasks is None else tasks
        self.settings = PursuitSettings() if settings is None else settings
        instance("tasks", self.tasks, PursuitRange, "a PursuitRange(…)")
        instance("settings", self.settings, PursuitSettings, "PursuitSettings(…)")
        self.network = PursuitNetwork(self.settings.dimension, listed("hidden", hidden))
        length = self.network.parameters
        self.space = self.network.space() if space is None else instance("space", space, Space, "a searchlib Space")
        if self.space.dimension != length:
            raise InvalidSettings(
                f"the network has {length} parameters, but rows of the space have {self.space.dimension} genes; "
                f"declare a space of {length} or change hidden={self.network.hidden}"
            )
        given = {Split.SEARCH: search, Split.SELECT: select, Split.HOLDOUT: holdout}
        self._splits = {split: self._drawn(split, amount, seed) for split, amount in given.items()}
        require_other_seeds(
            {split: tasks.seeds for split, tasks in self._splits.items()},
            "split_seeds(split, rng, n) and the split= of PursuitRange draw seeds that never meet",
        )
        #: What a curriculum makes tasks of: the range of ``tasks``, :class:`~searchlib.spaces.CurriculumTasks`.
        self.task_space = CurriculumTasks(TASK_AXES, tuple(self.tasks.low), tuple(self.tasks.high))

    def _drawn(self, split: Split, amount: int | PursuitTasks, seed: int) -> PursuitTasks:
        if isinstance(amount, PursuitTasks):
            return amount
        count = whole_number(split.value, amount, 1 if split is Split.SEARCH else 0, 10**7)
        rng = np.random.default_rng([whole_number("seed", seed, 0), list(Split).index(split)])
        return self.tasks.uniform(rng, count, split=split)

    def cases(self, split: Split) -> Cases:
        """The tasks of a split."""
        return self._splits[split].cases()

    def task_cases(self, tasks: NDArray[Any], seeds: NDArray[np.int64]) -> Cases:
        """Cases of a curriculum's tasks; their seeds are ones that SELECT and HOLDOUT never have."""
        return PursuitTasks(tasks, seeds_of(Split.SEARCH, seeds)).cases()

    def evaluate(self, candidates: Candidates, cases: Cases) -> Scores:
        """Captures, shape ``(n, c)``, with the least distances as secondary scores."""
        outcome = self.outcome(candidates.array, PursuitTasks.of(cases.payload or ()), stop_at_capture=True)
        shape = (len(candidates), len(cases))
        return Scores(
            outcome.captured.reshape(shape).astype(np.float64),
            secondary=outcome.min_distance.reshape(shape).astype(np.float64),
        )

    def outcome(self, rows: NDArray[Any], tasks: PursuitTasks, *, stop_at_capture: bool = False) -> PursuitOutcome:
        """All that happens when every row meets every task, worlds in the order row by row.

        Arguments:
            rows: parameters, shape ``(n, d)``.
            tasks: ``c`` tasks.
            stop_at_capture: whether a world is over when its evader is caught.
        """
        team, task = (part.ravel() for part in np.indices((len(rows), len(tasks))))
        pursuers = self.network.pursuers(rows, team)
        return rollout(self.settings, tasks, pursuers, worlds=task, stop_at_capture=stop_at_capture)

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """Simulated steps, as if no world were over before its time."""
        return float(len(candidates) * len(cases) * self.settings.steps)

    def references(self) -> tuple[str, ...]:
        """The heuristics."""
        return (*_HEURISTICS, _TUNED)

    def heuristic(self, name: str) -> Pursuers:
        """One of :meth:`references`; the tuned field is tuned on the SEARCH tasks."""
        if name not in self.references():
            raise InvalidSettings(f"the heuristics are {', '.join(self.references())}, but {name!r} was asked for")
        return self._tuned if name == _TUNED else _HEURISTICS[name]

    @cached_property
    def _tuned(self) -> PotentialField:
        return tuned_potential_field(self.settings, self._splits[Split.SEARCH])

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Captures of a heuristic, shape ``(c,)``."""
        tasks = PursuitTasks.of(cases.payload or ())
        outcome = rollout(self.settings, tasks, self.heuristic(name), stop_at_capture=True)
        return outcome.captured.astype(np.float64)

    def record(self, row: NDArray[Any], task: PursuitTask) -> PursuitTrajectory:
        """Where everything was in every state, for pictures.

        Arguments:
            row: parameters, shape ``(d,)``.
            task: such as ``objective.cases(Split.SEARCH).payload[0]``.
        """
        return record_pursuit(self.settings, task, self.network.pursuers(np.asarray(row)[None], np.zeros(1, np.intp)))

    def fingerprint(self) -> Mapping[str, Any]:
        """Settings and network; the tasks are told apart by the ids of their cases."""
        return {"objective": "Pursuit", "settings": asdict(self.settings), "hidden": list(self.network.hidden)}
