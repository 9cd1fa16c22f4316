"""Which tasks to train on next: those whose success is neither certain nor hopeless."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import check_field, flag, instance, listed, one_of, real_number, shown, whole_number
from searchlib.case_source import CaseRun, CaseSource
from searchlib.cases import Cases
from searchlib.errors import InvalidSettings, InvalidTell, MissingOperator
from searchlib.objective import Objective
from searchlib.space import Population
from searchlib.task_archive import KeptTasks, TaskArchive

__all__ = ["Curriculum", "CurriculumBatch", "CurriculumRun", "Ladder"]

#: Seeds of the worlds that tasks are played in.
_SEEDS = 2**60
#: Least weight of an archived task, so that none is out of reach.
_LEAST = 1e-3
#: How often a task that makes no sense is drawn again.
_TRIES = 10


@final
@dataclass(frozen=True)
class Ladder:
    """One coordinate of all tasks climbs from easy to hard, a rung at a time (DualCL's intrinsic curriculum).

    Arguments:
        coordinate: its name.
        start, end: first and last value.
        rungs: values from start to end, evenly spaced.
        threshold: the next rung is reached when the mean success of a generation is above this, in [0, 1).
    """

    coordinate: str
    start: float
    end: float
    rungs: int = 10
    threshold: float = 0.6

    def __post_init__(self) -> None:
        check_field(self, "coordinate", instance, str, "the name of a coordinate")
        check_field(self, "rungs", whole_number, 2)
        for name in ("start", "end"):
            check_field(self, name, real_number)
        check_field(self, "threshold", real_number, "[0, 1)")

    def value(self, rung: int) -> float:
        """The coordinate on a rung, counted from 0."""
        if rung >= self.rungs - 1:
            return self.end
        return self.start + (self.end - self.start) * rung / (self.rungs - 1)


@final
@dataclass(frozen=True, eq=False)
class CurriculumBatch:
    """Tasks to train on: ``tasks`` (n, d), a seed ``(n,)`` for the chance in each, where each came from ``(n,)``.

    ``origin`` is 0 for a task drawn uniformly, 1 for one near an archived task, 2 for a cell of the grid; ``archived``
    is the number of that archived task, else -1.
    """

    tasks: Population
    seeds: NDArray[np.int64]
    origin: NDArray[np.int64]
    archived: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tasks)


@final
@dataclass(frozen=True, kw_only=True)
class Curriculum(CaseSource):
    """An archive of tasks at the edge of what a policy can do, mixed with uniform ones, and ladders.

    ``search(…, cases=Curriculum(…))`` trains any policy search on it: every generation meets its tasks, and the success
    of its members tells the curriculum which of them to keep, for nothing. Any other trainer uses it by hand::

        run = curriculum.start_on(tasks, rng)
        batch = run.ask(24)               # batch.tasks, batch.seeds
        run.tell(batch, success)          # (24,), or (members, 24)

    TaskFlex Solver (arXiv 2312.12255 v1) as coded is ``Curriculum(low=0.5, high=0.95, share=0.9, decay=2.0,
    repeat=True, grid=(4, 4, 4), every=100)``; OPEN's generator (arXiv 2409.15866, section IV) is ``Curriculum(low=0.5,
    high=0.9, share=0.7, expansion=…, archive=TaskArchive(capacity=5000))``. Where members differ most (a success p with
    a large p(1 − p)), ranks say most: ``weights="learnability"`` (Rutherford et al., arXiv 2408.15099).

    Arguments:
        per_generation: tasks of a generation, where a search asks.
        low, high: the mean success of a task that is kept lies between them, inclusive.
        weights: of archived tasks: ``"uniform"``, or ``"learnability"``, p(1 − p).
        share: of the tasks of a generation that come from the archive, in [0, 1]; 0 is uniform sampling.
        repeat: whether a young archive gives its whole share, the same few tasks again and again; otherwise it gives no
            more tasks than it holds.
        decay: the share falls by ``decay`` times the progress of the training, to 0: with 2 it is gone half-way.
        expansion: archived tasks are moved by up to this share of the range in every coordinate.
        archive: its size and manner.
        forget: whether archived tasks that were met again (or what they were moved to) and are no longer within the
            window are dropped; not with a grid.
        grid: cells per coordinate, or per coordinate that is not fixed; every ``every`` generations a task in each cell
            is asked for instead, and the archive is replaced by those that are kept. Empty: no such thing, all tasks
            met are judged.
        every: generations between two grids.
        ladders: one after the other; the archive is emptied on each new rung. The value of a coordinate that the tasks
            fix may lie outside of their bounds.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> from searchlib.spaces import CurriculumTasks
        >>> run = Curriculum(share=0.5).start_on(CurriculumTasks(("speed",), (0.0,), (1.0,)), np.random.default_rng(0))
        >>> for _ in range(50):  # a policy that succeeds at less than half the speed, nearly always
        ...     batch = run.ask(16)
        ...     run.tell(batch, 1 / (1 + np.exp(40 * (batch.tasks[:, 0] - 0.5))))
        >>> bool((abs(run.archive.tasks[:, 0] - 0.5) < 0.1).all()), len(run.archive) > 20
        (True, True)
    """

    per_generation: int = 24
    low: float = 0.15
    high: float = 0.85
    weights: str = "uniform"
    share: float = 0.7
    repeat: bool = False
    decay: float = 0.0
    expansion: float = 0.0
    archive: TaskArchive = TaskArchive()  # noqa: RUF009  frozen
    forget: bool = False
    grid: tuple[int, ...] = ()
    every: int = 100
    ladders: tuple[Ladder, ...] = ()

    def __post_init__(self) -> None:
        for name in ("per_generation", "every"):
            check_field(self, name, whole_number, 1)
        for name in ("low", "high", "share", "expansion"):
            check_field(self, name, real_number, "[0, 1]")
        check_field(self, "decay", real_number, "[0, inf)")
        if self.low > self.high:
            raise InvalidSettings(f"`low <= high` must hold, but got {self!r}")
        check_field(self, "weights", one_of, ("uniform", "learnability"))
        for name in ("repeat", "forget"):
            check_field(self, name, flag)
        check_field(self, "archive", instance, TaskArchive, "a TaskArchive(…)")
        for name in ("grid", "ladders"):
            check_field(self, name, listed)
        object.__setattr__(self, "grid", tuple(whole_number("Curriculum(grid=…)", cells, 1) for cells in self.grid))
        for ladder in self.ladders:
            instance("each of Curriculum(ladders=…)", ladder, Ladder, "a Ladder(…)")
        named = [ladder.coordinate for ladder in self.ladders]
        if len(set(named)) < len(named):
            raise InvalidSettings(f"a coordinate has one ladder at most, but the ladders are of {named}")
        if self.grid and self.forget:
            raise InvalidSettings("a grid replaces the whole archive, so there is nothing to forget; leave one out")

    @property
    def follows_progress(self) -> bool:
        """Whether the archive's share decays."""
        return self.decay > 0 and self.share > 0

    def start_on(self, tasks: Any, rng: np.random.Generator) -> CurriculumRun:
        """Begin on a space of tasks, :class:`searchlib.spaces.CurriculumTasks`; all randomness comes from ``rng``.

        Raises:
            InvalidSettings: a ladder's coordinate that the tasks do not have, or a grid of another dimension.
        """
        return CurriculumRun(self, tasks, rng)

    def start(self, objective: Objective, rng: np.random.Generator) -> CaseRun:
        """Begin inside of a search.

        Raises:
            MissingOperator: the objective has no ``task_space``.
        """
        if objective.task_space is None:
            raise MissingOperator(
                f"a curriculum makes tasks to order, but {type(objective).__name__} has no task_space; "
                f"FreshCases draws from fixed SEARCH cases"
            )
        objective.success(np.zeros((1, 1, 1)))  # refuses what has none
        return _InSearch(self.start_on(objective.task_space, rng), objective)


@final
class CurriculumRun:
    """A curriculum at work. ``archive.tasks`` are shares of the ranges; ``rung`` counts over all ladders."""

    def __init__(self, settings: Curriculum, tasks: Any, rng: np.random.Generator) -> None:
        self.settings, self.tasks = instance("settings", settings, Curriculum, "a Curriculum(…)"), tasks
        self._rng = instance("rng", rng, np.random.Generator, "a numpy Generator")
        if not all(hasattr(tasks, name) for name in ("names", "near", "valid", "unit", "at")):
            raise InvalidSettings(f"tasks must be a searchlib.spaces.CurriculumTasks, but are {shown(tasks)}")
        self.archive = KeptTasks(settings.archive, tasks.dimension)
        self.rung = 0
        self._asked = 0
        self._columns = [self._column(ladder) for ladder in settings.ladders]
        self._grid = self._cells(settings.grid)

    def _column(self, ladder: Ladder) -> int:
        names, low, high = self.tasks.names, self.tasks.low, self.tasks.high
        if ladder.coordinate not in names:
            raise InvalidSettings(f"tasks have no coordinate {ladder.coordinate!r}; they have {names}")
        column = int(names.index(ladder.coordinate))
        inside = all(low[column] <= value <= high[column] for value in (ladder.start, ladder.end))
        if low[column] < high[column] and not inside:
            raise InvalidSettings(
                f"the ladder of {ladder.coordinate!r} leads from {ladder.start:g} to {ladder.end:g}, but tasks have it "
                f"from {low[column]:g} to {high[column]:g}"
            )
        return column

    def _cells(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Cells of every coordinate; one where it is fixed."""
        free = np.array(self.tasks.low) < np.array(self.tasks.high)
        if grid and len(grid) not in (len(free), int(free.sum())):
            raise InvalidSettings(
                f"Curriculum(grid=…) needs cells for each of {len(free)} coordinates ({int(free.sum())} of them not "
                f"fixed), but got {grid}"
            )
        if len(grid) == len(free):
            return tuple(cells if one else 1 for cells, one in zip(grid, free, strict=True))
        left = iter(grid)
        return tuple(next(left) if one else 1 for one in free) if grid else ()

    def ask(self, n: int, progress: float = 0.0) -> CurriculumBatch:
        """Tasks for the next generation: ``n``, or one for every cell of the grid where it is due.

        Arguments:
            n: how many.
            progress: of the training, from 0 to 1; decides the archive's share where that decays.
        """
        n = whole_number("n", n, 1)
        grid_is_due = bool(self._grid) and self._asked % self.settings.every == 0
        self._asked += 1
        if grid_is_due:
            rows, origin = self._one_per_cell()
            archived: NDArray[np.int64] = np.full(len(rows), -1)
        else:
            rows, origin, archived = self._mixed(n, progress)
        rows, drawn = self._climbed(rows)
        origin[drawn], archived[drawn] = 0, -1
        return CurriculumBatch(rows, self._rng.integers(_SEEDS, size=len(rows)), origin, archived)

    def _one_per_cell(self) -> tuple[Population, NDArray[np.int64]]:
        """A task in every cell of the grid that has one, as far as a few draws show."""
        cells = np.indices(self._grid).reshape(self.tasks.dimension, -1).T
        rows = self.tasks.at((cells + self._rng.random(cells.shape)) / self._grid)
        for _ in range(_TRIES):
            bad = np.flatnonzero(~self.tasks.valid(rows))
            rows[bad] = self.tasks.at((cells[bad] + self._rng.random(cells[bad].shape)) / self._grid)
        rows = rows[self.tasks.valid(rows)]
        return rows, np.full(len(rows), 2)

    def _mixed(self, n: int, progress: float) -> tuple[Population, NDArray[np.int64], NDArray[np.int64]]:
        settings, rng = self.settings, self._rng
        share = max(0.0, settings.share * (1 - settings.decay * progress))
        rows, origin = self.tasks.sample(rng, n), np.zeros(n, np.int64)
        archived: NDArray[np.int64] = np.full(n, -1)
        old = round(share * n) if settings.repeat else min(round(share * n), len(self.archive))
        if old and len(self.archive):
            places = self.archive.draw(rng, old)
            near = self.tasks.at(self.archive.tasks[places])
            rows[:old] = self.tasks.near(rng, near, settings.expansion) if settings.expansion else near
            origin[:old], archived[:old] = 1, self.archive.ids[places]
        return rows, origin, archived

    def _climbed(self, rows: Population) -> tuple[Population, NDArray[np.bool_]]:
        """The tasks on the present rungs, and which of them had to be drawn anew because there they were none."""
        rows, drawn = self._on_rungs(rows), np.zeros(len(rows), np.bool_)
        for _ in range(_TRIES if self.settings.ladders else 0):
            bad = np.flatnonzero(~self.tasks.valid(rows))
            rows[bad], drawn[bad] = self._on_rungs(self.tasks.sample(self._rng, len(bad))), True
        return rows, drawn

    def _on_rungs(self, rows: Population) -> Population:
        for ladder, column, rung in zip(self.settings.ladders, self._columns, self._rungs(), strict=True):
            rows[:, column] = ladder.value(rung)
        return rows

    def _rungs(self) -> list[int]:
        """The rung of every ladder: each begins where the one before has ended."""
        rungs, left = [], self.rung
        for ladder in self.settings.ladders:
            rungs.append(min(left, ladder.rungs - 1))
            left -= rungs[-1]
        return rungs

    def tell(self, batch: CurriculumBatch, success: Any) -> None:
        """Learn how a batch went.

        Arguments:
            batch: from :meth:`ask`.
            success: shape ``(n,)``, or ``(members, n)``, in [0, 1].

        Raises:
            InvalidTell: another shape, or numbers that are no success.
        """
        table = np.atleast_2d(np.asarray(success, np.float64))
        if table.shape[-1] != len(batch) or table.ndim != 2 or not len(table):
            raise InvalidTell(
                f"success must have shape ({len(batch)},) or (members, {len(batch)}), but has {table.shape}"
            )
        if not ((table >= 0) & (table <= 1)).all():
            raise InvalidTell(f"success must lie in [0, 1], but reaches from {table.min()} to {table.max()}")
        mean = table.mean(axis=0)
        self._judge(batch, mean)
        self._climb(float(mean.mean()))

    def _judge(self, batch: CurriculumBatch, mean: NDArray[np.float64]) -> None:
        settings = self.settings
        inside = (mean >= settings.low) & (mean <= settings.high)
        learnable = np.maximum(mean * (1 - mean), _LEAST)
        weights = np.ones(len(mean)) if settings.weights == "uniform" else learnable
        shares = self.tasks.unit(batch.tasks)
        if settings.grid:
            on_grid = batch.origin == 2
            if (inside & on_grid).any():
                self.archive.replace(self._rng, shares[inside & on_grid], weights[inside & on_grid])
            elif on_grid.any() and not len(self.archive):
                easiest = int(np.argmax(mean))
                self.archive.replace(self._rng, shares[easiest : easiest + 1], np.ones(1))
            return
        again = batch.archived >= 0
        if settings.forget:
            self.archive.drop(batch.archived[again & ~inside])
        if not settings.expansion:  # the very task was met, so it is there already
            self.archive.weigh(batch.archived[again], weights[again])
            inside = inside & ~again
        self.archive.add(self._rng, shares[inside], weights[inside])

    def _climb(self, mean: float) -> None:
        for ladder, rung in zip(self.settings.ladders, self._rungs(), strict=True):
            if rung < ladder.rungs - 1:
                if mean > ladder.threshold:
                    self.rung += 1
                    self.archive.clear()
                return

    def notes(self) -> Mapping[str, Any]:
        """How many tasks the archive holds, and how far the ladders were climbed, as JSON values."""
        return {"generations": self._asked, "archive": len(self.archive), "rung": self.rung}


@final
class _InSearch(CaseRun):
    def __init__(self, run: CurriculumRun, objective: Objective) -> None:
        self._run, self._objective = run, objective
        self._batch: CurriculumBatch | None = None
        self._success: NDArray[np.float64] | None = None

    def ask(self, progress: float) -> Cases:
        self._batch, self._success = self._run.ask(self._run.settings.per_generation, progress), None
        return self._objective.task_cases(self._batch.tasks, self._batch.seeds)

    def tell(self, scores: NDArray[np.float64]) -> None:
        assert self._batch is not None
        if len(scores):
            success = self._objective.success(scores)
            self._run.tell(self._batch, success)
            self._success = np.atleast_2d(np.asarray(success, np.float64)).mean(axis=0)

    @property
    def tasks(self) -> NDArray[np.float64] | None:
        return None if self._batch is None else np.asarray(self._batch.tasks, np.float64)

    @property
    def success(self) -> NDArray[np.float64] | None:
        return self._success

    def notes(self) -> Mapping[str, Any]:
        return self._run.notes()
