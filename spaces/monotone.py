"""Ascending or descending schedules."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import Population, Space, distinct
from searchlib.spaces import multisets
from searchlib.spaces.arguments import flag, fraction, real, whole
from searchlib.spaces.codec import stack
from searchlib.spaces.integer import LARGEST, Integer
from searchlib.spaces.interval import Interval
from searchlib.spaces.listing import one_changed
from searchlib.spaces.real import Real

__all__ = ["Monotone"]

#: What rounding may take from a gap, and the least room that counts, as fractions of the range.
TOLERANCE = 1e-9


@final
@dataclass(frozen=True)
class Monotone(Space):
    """``length`` numbers from ``low`` to ``high`` in ascending order, or descending, at least ``gap`` apart.

    Noise levels, timesteps, thresholds, layers to cut at. A value is the tuple of numbers. With ``gap=0`` neighbors may
    be equal, with a positive gap the order is strict; with ``whole`` and ``gap=1`` a row is a subset in order.

    Taking ``gap`` times its place from every number leaves points without a distance to keep, in any order
    (:attr:`room`), and sorting them and adding the gaps again always makes a row of the space: every operator works
    there. Samples are uniform over the space (on the logarithmic scale with ``log``). Mutation moves each point with
    probability 1/length, at least one, as :class:`Real` and :class:`Integer` do. Crossover takes the number at every
    place from either parent, sorted and spread. In the relaxation 0 are evenly spaced numbers and one unit is a
    quarter of the range. A neighbor is one point one less or one more; real numbers have none.

    Arguments:
        length: how many numbers, at least 1.
        low, high: inclusive finite bounds.
        whole: whole numbers; bounds and gap are whole then.
        gap: least distance between neighbors, on the scale: with ``log`` the logarithm of a ratio.
        descending: the largest number first.
        log: sample, step, relax and keep the gap on a logarithmic scale; needs real numbers and ``low > 0``.
        scale: standard deviation (of whole numbers: mean) of a step in mutation as a fraction of the room.

    Raises:
        InvalidSettings: not such numbers, or no room for ``length`` numbers so far apart.

    Example:
        >>> steps = Monotone(4, 0, 999, whole=True, gap=1, descending=True)
        >>> steps.decode(steps.from_latent(np.zeros((1, 4)))[0]), steps.size
        ((875, 625, 374, 124), 41417124750)
        >>> Monotone(3, 0.0, 1.0, gap=0.25).repair(np.array([[0.9, 0.0, 0.9]])).tolist()
        [[0.0, 0.75, 1.0]]
    """

    length: int
    low: float
    high: float
    _: KW_ONLY
    whole: bool = False
    gap: float = 0
    descending: bool = False
    log: bool = False
    scale: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "length", whole("length", self.length))
        for name in ("whole", "descending", "log"):
            flag(name, getattr(self, name))
        for name, low in (("low", -LARGEST), ("high", -LARGEST), ("gap", 0)):
            value = getattr(self, name)
            number = whole(name, value, low=low, high=LARGEST) if self.whole else real(name, value)
            object.__setattr__(self, name, number)
        object.__setattr__(self, "scale", fraction("scale", self.scale))
        self._check_range()

    def _check_range(self) -> None:
        if self.log and (self.whole or self.low <= 0):
            raise InvalidSettings(
                f"log=True needs real numbers and `low > 0`, but got (low={self.low!r}, whole={self.whole})"
            )
        if not self.low <= self.high or math.isinf(2 * (self.high - self.low)):
            raise InvalidSettings(
                f"`low <= high` must hold, not further apart than floats reach, but got "
                f"(low={self.low!r}, high={self.high!r})"
            )
        width, used = self._scale.width, self.gap * (self.length - 1)
        if used > width * (1 if self.whole else 1 + TOLERANCE):
            raise InvalidSettings(
                f"{self.length} numbers (gap={self.gap}) apart take {used} of the {width} between "
                f"(low={self.low}, high={self.high}); lower the gap or the length"
            )
        least = 0 if self.whole else 1e3 * TOLERANCE * width
        if self.gap < 0 or 0 < self.gap < least:
            raise InvalidSettings(f"gap must be 0, or at least {least} for floats to tell it apart, but is {self.gap}")

    @cached_property
    def _scale(self) -> Interval:
        return Interval(self.low, self.high, self.log)

    @cached_property
    def room(self) -> Integer | Real:
        """The space of ``length`` points in any order that is left when the gaps are taken out, on the scale."""
        left, right = self._scale.ends
        end = right - self.gap * (self.length - 1)
        if self.whole:
            return Integer(int(left), int(end), self.length, scale=self.scale)
        if self.gap and end - left < TOLERANCE * (right - left):
            end = left
        return Real(left, end, self.length, scale=self.scale)

    def _points(self, population: Population) -> Population:
        """Ascending points of :attr:`room` for rows of the space."""
        ascending = population[:, ::-1] if self.descending else population
        points = self._scale.to_scale(ascending) - self.gap * np.arange(self.length)
        return self._sorted(points)

    def _sorted(self, points: NDArray[Any]) -> Population:
        return np.sort(self.room.repair(points), axis=1)

    def _rows(self, points: Population) -> Population:
        """Rows of the space from points of :attr:`room` in ascending order."""
        spread = points + self.gap * np.arange(self.length)
        if not self.whole:
            # Neither exp nor clipping may turn two numbers around.
            spread = np.maximum.accumulate(self._scale.from_scale(spread), axis=1)
        return np.array(spread[:, ::-1] if self.descending else spread, self.dtype)

    @property
    def dimension(self) -> int:
        return self.length

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.room.dtype

    @property
    def size(self) -> float:
        room = self.room
        return multisets.count(room.high - room.low + 1, self.length) if isinstance(room, Integer) else room.size

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        room = self.room
        if isinstance(room, Integer):
            return self._rows(room.low + multisets.draw(rng, n, room.high - room.low + 1, self.length))
        return self._rows(np.sort(room.sample(rng, n), axis=1))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        if self.size == 1:
            return self.canonical(population)
        points = self._points(population)
        changed = self._rows(np.sort(self.room.mutate(rng, points), axis=1))
        # Several steps may amount to none, and a single one of floats may be lost in rounding.
        same = np.flatnonzero((changed == population).all(axis=1))
        changed[same] = self._rows(self._far(rng, points[same]))
        return changed

    def _far(self, rng: np.random.Generator, points: Population) -> Population:
        """One point moved to the farther end of the room."""
        low, high = self.room.low, self.room.high
        each, slot = np.arange(len(points)), rng.integers(self.length, size=len(points))
        own = points[each, slot]
        points[each, slot] = np.where(own - low < high - own, high, low)
        return np.sort(points, axis=1)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return self.repair(self.room.crossover(rng, first, second))

    def repair(self, population: Population) -> Population:
        """Numbers sorted and clipped, then moved up where they are too close, and down at the upper end."""
        inside = self.contains(population)[:, None]
        near = np.sort(np.clip(population.astype(np.float64), self.low, self.high), axis=1)
        points = self._scale.to_scale(np.rint(near) if self.whole else near) - self.gap * np.arange(self.length)
        spread = self._rows(self._sorted(np.maximum.accumulate(points, axis=1)))
        return np.where(inside, population, spread).astype(self.dtype)

    def canonical(self, population: Population) -> Population:
        return np.asarray(np.array(population, self.dtype) + self.dtype.type(0))  # -0.0 and 0.0 are one candidate

    def contains(self, population: Population) -> NDArray[np.bool_]:
        inside = np.asarray(((population >= self.low) & (population <= self.high)).all(axis=1))
        rows = np.where(inside[:, None], population, self.low)
        ascending = rows[:, ::-1] if self.descending else rows
        ordered = (ascending[:, 1:] >= ascending[:, :-1]).all(axis=1)
        least = self.gap if self.whole else self.gap - TOLERANCE * self._scale.width
        apart = (np.diff(self._scale.to_scale(ascending), axis=1) >= least).all(axis=1)
        exact = (rows == np.floor(rows)).all(axis=1) if self.whole else True
        return np.asarray(inside & ordered & apart & exact)

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, tuple)

    def decode(self, row: NDArray[Any]) -> tuple[float, ...]:
        return tuple(row.tolist())

    def _every_row(self, limit: int) -> Population:
        room = self.room
        if not isinstance(room, Integer):
            return self._rows(np.full((1, self.length), room.low))
        return self._rows(room.low + multisets.every(room.high - room.low + 1, self.length))

    def _near(self, row: NDArray[Any]) -> Population:
        room, points = self.room, self._points(row[None])[0]
        if not isinstance(room, Integer):
            raise MissingOperator(f"{self!r} has no neighbors, for its genes are real; use mutate")
        beside = points[:, None] + np.array([-1, 1])
        moved = one_changed(points, beside, (beside >= room.low) & (beside <= room.high))
        return self._rows(distinct(np.sort(moved, axis=1)))

    def features(self, population: Population) -> NDArray[np.float64]:
        """Where each number lies on the scale, from -2 to 2."""
        return self._scale.to_latent(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Sum of the differences between numbers at the same place, each as a fraction of the range on the scale."""
        return np.asarray(self._scale.apart(first, second).sum(axis=1))

    @property
    def latent_dimension(self) -> int:
        return self.length

    @property
    def _even(self) -> NDArray[np.float64]:
        """Latent coordinates in :attr:`room` of evenly spaced points."""
        return 4 * (np.arange(self.length) + 0.5) / self.length - 2

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        points = self.room.from_latent(np.clip(latent, -8, 8) + self._even)
        return self._rows(np.sort(points, axis=1))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.asarray(self.room.to_latent(self._points(population)) - self._even)
