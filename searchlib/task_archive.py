"""Tasks that were worth training on, kept apart from each other."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import check_field, one_of, real_number, whole_number

__all__ = ["KeptTasks", "TaskArchive", "farthest_points"]

Tasks = NDArray[np.float64]

_KEEPS = ("farthest", "fifo", "random")


def farthest_points(points: Tasks, count: int) -> NDArray[np.intp]:
    """Positions of ``count`` points ``(n, d)`` spread as far apart as greedy choice makes them, ascending.

    The first point is one of them; each further one is the point whose nearest chosen one is farthest (Gonzalez,
    *Theoretical Computer Science* 38, 1985: at most twice the best possible covering radius).

    Example:
        >>> farthest_points(np.array([[0.0], [0.1], [0.9], [1.0]]), 2).tolist()
        [0, 3]
    """
    if count >= len(points):
        return np.arange(len(points))
    chosen = np.zeros(count, np.intp)
    apart = np.full(len(points), math.inf)
    for place in range(1, count):
        np.minimum(apart, ((points - points[chosen[place - 1]]) ** 2).sum(axis=1), out=apart)
        chosen[place] = int(np.argmax(apart))
    return np.sort(chosen)


@final
@dataclass(frozen=True, kw_only=True)
class TaskArchive:
    """How many tasks are kept, and which ones.

    Arguments:
        capacity: tasks at most.
        novelty: a new task that lies within this share of the range of a kept one, in every coordinate, is not kept;
            0 keeps all that are not equal to one.
        keep: when there are too many: ``"farthest"``, those that cover the space (:func:`farthest_points`; OPEN, arXiv
            2409.15866), ``"fifo"``, the newest, or ``"random"`` ones (DualCL, arXiv 2312.12255).

    Raises:
        InvalidSettings: a setting out of its range.
    """

    capacity: int = 2000
    novelty: float = 0.0
    keep: str = "farthest"

    def __post_init__(self) -> None:
        check_field(self, "capacity", whole_number, 1)
        check_field(self, "novelty", real_number, "[0, 1)")
        check_field(self, "keep", one_of, _KEEPS)


@final
class KeptTasks:
    """An archive at work: tasks as shares of their ranges, oldest first, with weights.

    Arguments:
        settings: how many, and which ones.
        dimension: coordinates of a task.
    """

    def __init__(self, settings: TaskArchive, dimension: int) -> None:
        self._settings = settings
        self.tasks: Tasks = np.empty((0, dimension))
        self.weights: NDArray[np.float64] = np.empty(0)
        #: A number of every task, which it keeps; counted up from 0.
        self.ids: NDArray[np.int64] = np.empty(0, np.int64)
        self._given = 0

    def __len__(self) -> int:
        return len(self.tasks)

    def add(self, rng: np.random.Generator, tasks: Tasks, weights: NDArray[np.float64]) -> int:
        """Keep what is new of some tasks ``(n, d)``, with weights ``(n,)`` above 0; how many these were."""
        fresh = self._fresh(tasks)
        self.tasks = np.concatenate([self.tasks, tasks[fresh]])
        self.weights = np.concatenate([self.weights, weights[fresh]])
        self.ids = np.concatenate([self.ids, self._given + np.arange(len(fresh))])
        self._given += len(fresh)
        over = len(self.tasks) - self._settings.capacity
        kept: NDArray[np.intp]
        if over > 0:
            if self._settings.keep == "fifo":
                kept = np.arange(over, len(self.tasks))
            elif self._settings.keep == "random":
                kept = np.sort(rng.permutation(len(self.tasks))[over:])
            else:
                kept = farthest_points(self.tasks, self._settings.capacity)
            self._keep(kept)
        return len(fresh)

    def replace(self, rng: np.random.Generator, tasks: Tasks, weights: NDArray[np.float64]) -> int:
        """Keep what is new among these tasks, as :meth:`add` does, and no others."""
        self.clear()
        return self.add(rng, tasks, weights)

    def clear(self) -> None:
        """Forget all tasks."""
        self._keep(np.empty(0, np.intp))

    def drop(self, ids: NDArray[np.int64]) -> None:
        """Forget the tasks with these numbers; those that are gone already are no matter."""
        self._keep(np.flatnonzero(~np.isin(self.ids, ids)))

    def weigh(self, ids: NDArray[np.int64], weights: NDArray[np.float64]) -> None:
        """Give the tasks with these numbers other weights; the last counts where a number comes again."""
        for number, weight in zip(ids.tolist(), weights.tolist(), strict=True):
            self.weights[self.ids == number] = weight

    def _keep(self, places: NDArray[np.intp]) -> None:
        self.tasks, self.weights, self.ids = self.tasks[places], self.weights[places], self.ids[places]

    def draw(self, rng: np.random.Generator, n: int) -> NDArray[np.intp]:
        """Positions of ``n`` tasks, by weight, with repetitions."""
        return rng.choice(len(self.tasks), n, p=self.weights / self.weights.sum())

    def _fresh(self, tasks: Tasks) -> NDArray[np.intp]:
        """Which tasks are new, in order: neither near a kept one nor near an earlier new one."""
        kept: list[int] = []
        for place, task in enumerate(tasks):
            others = np.concatenate([self.tasks, tasks[kept]])
            if not len(others) or (np.abs(others - task).max(axis=1) > self._settings.novelty).all():
                kept.append(place)
        return np.array(kept, np.intp)
