"""Tasks that a policy can be trained on: vectors within bounds, not all of which need to make sense."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import shown
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import Population, Space
from searchlib.spaces import arguments, chance
from searchlib.spaces.codec import stack

__all__ = ["CurriculumTasks"]

#: How often a task that makes no sense is drawn again before an old one is taken.
_TRIES = 10


@dataclass(frozen=True)
class CurriculumTasks(Space):
    """Named real numbers, each within its own bounds. A value is the tuple of them, in the order of ``names``.

    Where some vectors are no tasks (an obstacle upon an agent), a subclass says so in :meth:`valid`; samples and
    mutations are then drawn again, ten times at most, and replaced by :attr:`middle` or the unchanged task after that.
    In the relaxation 0 is the middle of each range and one unit a quarter of it.

    Arguments:
        names: of the coordinates.
        low, high: inclusive bounds, one of each per coordinate; where they are equal, the coordinate is fixed.
        scale: standard deviation of a mutation as a share of the range, in (0, 1].

    Raises:
        InvalidSettings: names that repeat, bounds of another number, or ``low > high``.

    Example:
        >>> tasks = CurriculumTasks(("speed", "radius"), (1.0, 0.1), (3.5, 0.5))
        >>> tasks.unit(tasks.encode([(1.0, 0.5)])).tolist(), tasks.at(np.array([[0.5, 0.0]])).tolist()
        ([[0.0, 1.0]], [[2.25, 0.1]])
    """

    names: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    scale: float = 0.1

    def __post_init__(self) -> None:
        for name in ("names", "low", "high"):
            given = getattr(self, name)
            if isinstance(given, str) or not isinstance(given, Sequence):
                raise InvalidSettings(f"{name} must hold one entry per coordinate, but got ({name}={shown(given)})")
        for name in ("low", "high"):
            object.__setattr__(self, name, tuple(arguments.real(name, one) for one in getattr(self, name)))
        object.__setattr__(self, "names", tuple(map(str, self.names)))
        object.__setattr__(self, "scale", arguments.fraction("scale", self.scale))
        if not self.names or len(set(self.names)) < len(self.names):
            raise InvalidSettings(
                f"tasks need one coordinate or more, each named once, but got (names={shown(self.names)})"
            )
        if not len(self.names) == len(self.low) == len(self.high):
            raise InvalidSettings(
                f"every coordinate has a bound on either side, but there are {len(self.names)} names, "
                f"{len(self.low)} lower and {len(self.high)} upper bounds"
            )
        if not all(low <= high for low, high in zip(self.low, self.high, strict=True)):
            raise InvalidSettings(f"`low <= high` must hold, but got (low={self.low!r}, high={self.high!r})")
        with np.errstate(over="ignore"):
            if not np.isfinite(self._width).all():
                raise InvalidSettings(f"bounds must not be further apart than floats reach, but are {self!r}")
        if not self.contains(self.middle[None])[0]:
            raise InvalidSettings(f"the middle of the ranges is no task; override {type(self).__name__}.middle")

    def valid(self, rows: Population) -> NDArray[np.bool_]:
        """Which vectors ``(n, d)`` within the bounds are tasks, shape ``(n,)``; all, unless a subclass objects."""
        return np.ones(len(rows), np.bool_)

    @property
    def middle(self) -> NDArray[np.float64]:
        """A task that is always valid, shape ``(d,)``; override it where the middle of the ranges is not."""
        return np.asarray(self._low + self._width / 2)

    @property
    def _low(self) -> NDArray[np.float64]:
        return np.array(self.low)

    @property
    def _width(self) -> NDArray[np.float64]:
        return np.array(self.high) - self.low

    def unit(self, rows: Population) -> NDArray[np.float64]:
        """The tasks as shares of the ranges, from 0 to 1; a fixed coordinate is 0."""
        width = self._width
        return np.asarray((rows - self._low) / np.where(width > 0, width, 1.0))

    def at(self, shares: NDArray[np.float64]) -> Population:
        """The vectors at these shares of the ranges, kept within the bounds."""
        return np.clip(self._low + np.clip(shares, 0, 1) * self._width, self.low, self.high)

    @property
    def dimension(self) -> int:
        return len(self.names)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    @property
    def size(self) -> float:
        return math.inf if (self._width > 0).any() else 1

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        rows = self.at(rng.random((n, self.dimension)))
        return self._drawn_again(rows, self.middle, lambda bad: self.at(rng.random((bad, self.dimension))))

    def near(self, rng: np.random.Generator, rows: Population, width: float) -> Population:
        """The tasks moved uniformly by up to ``width`` of the ranges in every coordinate."""

        def moved(origin: Population) -> Population:
            return self.at(self.unit(origin) + rng.uniform(-width, width, origin.shape))

        out = moved(rows)
        missing: NDArray[np.intp] = np.arange(len(rows))
        for _ in range(_TRIES):
            missing = missing[~self.valid(out[missing])]
            if not len(missing):
                return out
            out[missing] = moved(rows[missing])
        out[missing] = np.where(self.valid(out[missing])[:, None], out[missing], rows[missing])
        return out

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        rows = self.canonical(population)
        free = np.flatnonzero(self._width > 0)
        if not len(free):
            return rows
        out = rows.copy()
        missing: NDArray[np.intp] = np.arange(len(rows))
        for _ in range(_TRIES):
            out[missing] = self._moved(rng, rows[missing], free)
            missing = missing[~self.valid(out[missing])]
            if not len(missing):
                break
        out[missing] = rows[missing]
        return out

    def _moved(self, rng: np.random.Generator, rows: Population, free: NDArray[np.intp]) -> Population:
        hit = np.zeros(rows.shape, np.bool_)
        hit[:, free] = chance.hits(rng, len(rows), len(free), 1 / len(free))
        turn = np.mod(self.unit(rows) + self.scale * rng.standard_normal(rows.shape), 2)  # reflected at the bounds
        moved = self.at(np.minimum(turn, 2 - turn))
        nudged = np.nextafter(rows, np.where(rows < np.array(self.high), self.high, self.low))
        return np.where(hit, np.where(moved == rows, nudged, moved), rows)

    def _drawn_again(self, rows: Population, otherwise: NDArray[np.float64], draw: Any) -> Population:
        for _ in range(_TRIES):
            bad = np.flatnonzero(~self.valid(rows))
            if not len(bad):
                return rows
            rows[bad] = draw(len(bad))
        rows[~self.valid(rows)] = otherwise
        return rows

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        """Take each coordinate from either parent; where the child is no task, it is the first parent."""
        child = self.canonical(np.where(chance.coins(rng, first.shape), first, second))
        return np.where(self.valid(child)[:, None], child, first)

    def repair(self, population: Population) -> Population:
        rows = np.clip(population.astype(np.float64), self.low, self.high)
        return np.where(self.valid(rows)[:, None], rows, self.middle)

    def canonical(self, population: Population) -> Population:
        return np.asarray(population, np.float64) + 0.0

    def contains(self, population: Population) -> NDArray[np.bool_]:
        inside = np.asarray(((population >= np.array(self.low)) & (population <= np.array(self.high))).all(axis=1))
        inside[inside] = self.valid(np.asarray(population, np.float64)[inside])
        return inside

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, tuple)

    def decode(self, row: NDArray[Any]) -> tuple[float, ...]:
        return tuple(row.tolist())

    def features(self, population: Population) -> NDArray[np.float64]:
        """Shares of the ranges."""
        return self.unit(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Sum of the differences as shares of the ranges."""
        apart = np.abs(self.unit(first) - self.unit(second))
        return np.asarray(np.where(first == second, 0.0, np.maximum(apart, np.finfo(np.float64).tiny)).sum(axis=1))

    @property
    def latent_dimension(self) -> int:
        return self.dimension

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return self.repair(self.at((np.clip(latent, -2, 2) + 2) / 4))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return 4 * self.unit(population) - 2

    def column(self, name: str) -> int:
        """Which coordinate has this name.

        Raises:
            InvalidCandidate: none has.
        """
        if name not in self.names:
            raise InvalidCandidate(f"tasks have no coordinate {name!r}; they have {self.names}")
        return self.names.index(name)
