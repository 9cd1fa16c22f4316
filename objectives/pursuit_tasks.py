"""Tasks of a pursuit: real vectors within bounds, each with a seed that decides all chance in its world."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.arguments import instance, listed, numbers, real_number, shown, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings

__all__ = [
    "TASK_AXES", "PursuitRange", "PursuitTask", "PursuitTasks", "require_other_seeds", "seeds_of", "split_seeds",
]  # fmt: skip

#: The axes of a task vector, in its order.
TASK_AXES = ("evader_speed", "half_size", "obstacle_speed", "capture_radius")

_PLACES = 4


class PursuitTask(NamedTuple):
    """One task, as the payload of a case.

    Arguments:
        evader_speed: in m/s.
        half_size: of the box, or the radius of a cylinder arena, in m.
        obstacle_speed: in m/s; posts stand.
        capture_radius: in m.
        seed: decides start positions and where obstacles go.
        starts: of the pursuers and, last, the evader, shape ``(pursuers + 1, dimension)`` as nested tuples in m; None:
            drawn by the seed.
    """

    evader_speed: float
    half_size: float
    obstacle_speed: float
    capture_radius: float
    seed: int
    starts: tuple[tuple[float, ...], ...] | None = None


@final
@dataclass(frozen=True, eq=False)
class PursuitTasks(Sequence[PursuitTask]):
    """Many tasks as arrays; as a sequence it is the payload of cases.

    Arguments:
        vectors: shape ``(n, 4)``, columns as in :data:`TASK_AXES`, positive (an obstacle's speed may be 0).
        seeds: shape ``(n,)``, whole numbers from 0.
        starts: shape ``(n, pursuers + 1, dimension)``, the evader last; NaN throughout a task: drawn by its seed. None:
            all are drawn.

    Raises:
        InvalidSettings: shapes that do not fit, or numbers that cannot be meant; the message names the first.

    Example:
        >>> tasks = PursuitTasks([[2.4, 1.5, 1.0, 0.15]] * 3, [7, 8, 9])
        >>> tasks[1].seed, len(tasks.take([2, 2])), tasks.capture_radius.tolist()
        (8, 2, [0.15, 0.15, 0.15])
    """

    vectors: NDArray[np.float64]
    seeds: NDArray[np.int64]
    starts: NDArray[np.float64] | None = None

    def __init__(self, vectors: ArrayLike, seeds: ArrayLike, starts: ArrayLike | None = None) -> None:
        rows, given_seeds = numbers("vectors", vectors), numbers("seeds, whole numbers from 0,", seeds, np.int64)
        if rows.ndim != 2 or rows.shape[1] != len(TASK_AXES) or given_seeds.shape != rows.shape[:1]:
            raise InvalidSettings(
                f"tasks need vectors of shape (n, {len(TASK_AXES)}) for {TASK_AXES} and n seeds, "
                f"but got shapes {rows.shape} and {given_seeds.shape}"
            )
        wrong = ~np.isfinite(rows) | (rows < 0) | ((rows == 0) & (np.arange(len(TASK_AXES)) != 2))
        if wrong.any():
            row, axis = np.argwhere(wrong)[0]
            raise InvalidSettings(f"{TASK_AXES[axis]} of task {row} must be positive, but is {rows[row, axis]}")
        if (given_seeds < 0).any():
            raise InvalidSettings(f"seeds must be whole numbers from 0, but are {shown(seeds)}")
        places = None if starts is None else numbers("starts", starts)
        if places is not None and (places.ndim != 3 or len(places) != len(rows)):
            raise InvalidSettings(
                f"starts must have shape ({len(rows)}, pursuers + 1, dimension), but have {places.shape}"
            )
        for name, value in (("vectors", rows), ("seeds", given_seeds), ("starts", places)):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, tasks: Sequence[PursuitTask] | PursuitTasks) -> PursuitTasks:
        """Tasks from single ones, such as the payload of cases."""
        if isinstance(tasks, PursuitTasks):
            return tasks
        if not all(isinstance(task, PursuitTask) for task in tasks):
            raise InvalidSettings("these are no pursuit tasks; take the cases of PursuitTasks(…).cases() or a Pursuit")
        vectors = np.array([task[: len(TASK_AXES)] for task in tasks], np.float64).reshape(-1, len(TASK_AXES))
        seeds, given = np.array([task.seed for task in tasks], np.int64), [task.starts for task in tasks]
        if all(starts is None for starts in given):
            return cls(vectors, seeds)
        shape = np.shape(next(starts for starts in given if starts is not None))
        drawn = np.full(shape, np.nan)
        return cls(vectors, seeds, np.array([drawn if starts is None else starts for starts in given], np.float64))

    @property
    def evader_speed(self) -> NDArray[np.float64]:
        """In m/s, shape ``(n,)``."""
        return self.vectors[:, 0]

    @property
    def half_size(self) -> NDArray[np.float64]:
        """In m, shape ``(n,)``."""
        return self.vectors[:, 1]

    @property
    def obstacle_speed(self) -> NDArray[np.float64]:
        """In m/s, shape ``(n,)``."""
        return self.vectors[:, 2]

    @property
    def capture_radius(self) -> NDArray[np.float64]:
        """In m, shape ``(n,)``."""
        return self.vectors[:, 3]

    def __len__(self) -> int:
        return len(self.vectors)

    @overload
    def __getitem__(self, index: int) -> PursuitTask: ...
    @overload
    def __getitem__(self, index: slice) -> PursuitTasks: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        starts = None if self.starts is None or np.isnan(self.starts[index]).all() else self.starts[index].tolist()
        frozen = None if starts is None else tuple(map(tuple, starts))
        speed, size, obstacle_speed, radius = self.vectors[index].tolist()
        return PursuitTask(speed, size, obstacle_speed, radius, int(self.seeds[index]), frozen)

    def __iter__(self) -> Iterator[PursuitTask]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: ArrayLike) -> PursuitTasks:
        """The tasks at these positions, in this order."""
        places = np.asarray(rows, np.intp)
        starts = None if self.starts is None else self.starts[places]
        return PursuitTasks(self.vectors[places], self.seeds[places], starts)

    def cases(self) -> Cases:
        """These tasks as cases; an id says all that decides a world, so equal ids are equal cells.

        Raises:
            InvalidSettings: a task is there twice.
        """
        return Cases(tuple(map(_name, self)), self)


def _name(task: PursuitTask) -> str:
    numbers = " ".join(f"{value:.17g}" for value in task[: len(TASK_AXES)])
    starts = "" if task.starts is None else hashlib.blake2b(repr(task.starts).encode(), digest_size=8).hexdigest()
    return f"{numbers} #{task.seed} {starts}".rstrip()


def split_seeds(split: Split, rng: np.random.Generator, n: int) -> NDArray[np.int64]:
    """Fresh seeds for worlds of a split; seeds of different splits never meet, whatever generators they come from."""
    instance("split", split, Split, "a Split")
    return seeds_of(split, rng.integers(0, 2**60, n))


def seeds_of(split: Split, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Seeds of a split, one for every whole number ``(n,)`` below 2**60."""
    return np.asarray(numbers, np.int64) * _PLACES + list(Split).index(split)


def require_other_seeds(seeds: Mapping[Split, NDArray[np.int64]], remedy: str) -> None:
    """Refuse splits that have a seed in common, whose worlds would be the same.

    Arguments:
        seeds: of every split, shape ``(n,)``.
        remedy: what draws seeds that never meet; the end of the error.

    Raises:
        InvalidSettings: a seed in two splits.
    """
    seen: dict[int, Split] = {}
    for split, of_split in seeds.items():
        for seed in of_split.tolist():
            if seen.setdefault(seed, split) is not split:
                raise InvalidSettings(f"seed {seed} is in both {seen[seed].value} and {split.value}; {remedy}")


@final
@dataclass(frozen=True, kw_only=True)
class PursuitRange:
    """A box of tasks: ``(low, high)`` for every axis. The default is that of TaskFlex Solver (``train.yaml``).

    Arguments:
        evader_speed: in m/s.
        half_size: in m.
        obstacle_speed: in m/s.
        capture_radius: in m.

    Raises:
        InvalidSettings: a pair that is not in order.

    Example:
        >>> hard = PursuitRange(evader_speed=(1.0, 3.5), half_size=(0.5, 2.2), obstacle_speed=(1.0, 1.0))
        >>> len(PursuitRange().grid()), len(hard.grid(copies=2))
        (64, 32)
    """

    evader_speed: tuple[float, float] = (1.3, 5.0)
    half_size: tuple[float, float] = (0.5, 1.0)
    obstacle_speed: tuple[float, float] = (1.0, 5.0)
    capture_radius: tuple[float, float] = (0.15, 0.15)

    def __post_init__(self) -> None:
        for name in TASK_AXES:
            pair = tuple(
                real_number(f"each of {name}", end, "[0, inf)") for end in listed(name, getattr(self, name))
            )
            if len(pair) != 2 or pair[0] > pair[1]:
                raise InvalidSettings(
                    f"{name} must be (low, high) with 0 <= low <= high, but is {shown(getattr(self, name))}"
                )
            object.__setattr__(self, name, pair)

    @classmethod
    def only(
        cls, evader_speed: float, half_size: float, obstacle_speed: float = 1.0, capture_radius: float = 0.15
    ) -> PursuitRange:
        """The range of a single task."""
        values = (evader_speed, half_size, obstacle_speed, capture_radius)
        return cls(**{name: (value, value) for name, value in zip(TASK_AXES, values, strict=True)})

    @property
    def low(self) -> NDArray[np.float64]:
        """Lower bounds, shape ``(4,)``."""
        return np.array([getattr(self, name)[0] for name in TASK_AXES])

    @property
    def high(self) -> NDArray[np.float64]:
        """Upper bounds, shape ``(4,)``."""
        return np.array([getattr(self, name)[1] for name in TASK_AXES])

    def uniform(self, rng: np.random.Generator, n: int, *, split: Split = Split.SEARCH) -> PursuitTasks:
        """``n`` tasks drawn uniformly, with fresh seeds of the split."""
        shares = rng.random((n, len(TASK_AXES)))
        return PursuitTasks(self.low + shares * (self.high - self.low), split_seeds(split, rng, n))

    def grid(self, cells: int = 4, *, copies: int = 1, seed: int = 0, split: Split = Split.HOLDOUT) -> PursuitTasks:
        """A task drawn in every cell of the grid by which the paper measures its cover rate.

        Every axis is cut into ``cells`` equal parts; one whose bounds are equal is not cut. Four cells of the three
        axes of the paper are its 64 (``copies`` was 80 there: 5120 environments).

        Returns:
            ``copies`` worlds of each task, one after the other: the cell of task i is ``i // copies``.
        """
        parts = [whole_number("cells", cells, 1) if a < b else 1 for a, b in zip(self.low, self.high, strict=True)]
        rng = np.random.default_rng([whole_number("seed", seed, 0), list(Split).index(split)])
        corners = np.stack(np.meshgrid(*map(np.arange, parts), indexing="ij"), axis=-1).reshape(-1, len(parts))
        shares = (corners + rng.random(corners.shape)) / parts
        vectors = np.repeat(self.low + shares * (self.high - self.low), whole_number("copies", copies, 1), axis=0)
        return PursuitTasks(vectors, split_seeds(split, rng, len(vectors)))
