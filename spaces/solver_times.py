"""The noise levels of populations of schedules: descending rows between bounds, a least ratio apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.spaces.interval import Interval

__all__ = ["NoiseLevels"]

Reals = NDArray[np.float64]
Whole = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]

#: Relative slack on the least distance, far above rounding.
TOLERANCE = 1e-6
#: A share of the way that is smaller rounds to this one in the relaxation.
SMALLEST_SHARE = 1e-13


@final
@dataclass(frozen=True)
class NoiseLevels:
    """Levels σ after the fixed first one: of each row, the first ``count`` columns, the others being 0.

    Everything is measured in λ = -log σ. The last level lies within [low, high], or is 0 where the row ends there
    ("zero"); the ones before lie between ``sigma_max`` and it (and not below ``low``), ``gap`` apart.
    """

    sigma_max: float
    low: float
    high: float
    gap: float

    @property
    def _first(self) -> float:
        return float(-np.log(self.sigma_max))

    @property
    def _bottom(self) -> float:
        return float(-np.log(self.low))

    @property
    def width(self) -> float:
        """From the first to the lowest level, in λ."""
        return self._bottom - self._first

    def position(self, sigmas: Reals, beyond: float) -> Reals:
        """λ as a fraction of the way from the first level (0) to the lowest (1); ``beyond`` for a level of 0."""
        lam = -np.log(np.where(sigmas > 0, sigmas, 1.0))
        return np.where(sigmas > 0, (lam - self._first) / self.width, beyond)

    def at(self, position: Reals) -> Reals:
        """The inverse of :meth:`position` for positive levels."""
        return np.asarray(np.exp(-(self._first + position * self.width)))

    def contains(self, sigmas: Reals, count: Whole) -> Flags:
        """Whether every row keeps all of that; ``count`` is at least 1."""
        before, last = _parts(sigmas.shape, count)
        with np.errstate(invalid="ignore", over="ignore"):
            end = sigmas[np.arange(len(sigmas)), count - 1]
            ends = (end == 0) | ((end >= self.low) & (end <= self.high))
            idle = (sigmas == 0) | before | last
            bounds = ~before | ((sigmas > 0) & (sigmas <= self.sigma_max) & (sigmas >= self.low * (1 - TOLERANCE)))
            lam = self._lambda(sigmas)
            steps = np.diff(lam, axis=1, prepend=self._first)
            apart = (steps >= self.gap * (1 - TOLERANCE)) | ~(before | (last & (sigmas > 0)))
        return np.asarray(ends & idle.all(axis=1) & bounds.all(axis=1) & apart.all(axis=1))

    def _lambda(self, sigmas: Reals) -> Reals:
        kept = np.where(sigmas > 0, sigmas, self.low)
        return np.asarray(-np.log(np.clip(kept, self.low * (1 - TOLERANCE), self.sigma_max)))

    def draw(self, rng: np.random.Generator, count: Whole, zero: Flags, length: int) -> Reals:
        """Steps evenly spaced up to jitter on a random power of the way; ``length`` columns."""
        n = len(count)
        place = (np.arange(1, length + 1) + rng.uniform(-0.5, 0.5, (n, length))) / count[:, None]
        sigmas = self.at(np.clip(place, 0, 1) ** np.exp(0.3 * rng.standard_normal((n, 1))))
        sigmas[np.arange(n), count - 1] = self.ends.draw(rng, (n,)) * ~zero
        return self.nearest(sigmas, count, zero)

    def nearest(self, sigmas: Reals, count: Whole, zero: Flags) -> Reals:
        """Rows of any finite numbers sorted, clipped and spread; rows that fit already may change by rounding."""
        before, last = _parts(sigmas.shape, count)
        lam = np.sort(np.where(before | last, self._lambda(sigmas), np.inf), axis=1)
        end = lam[np.arange(len(lam)), count - 1]
        end = np.where(zero, self._bottom + self.gap, np.clip(end, -np.log(self.high), self._bottom))
        low = np.full(len(lam), self._first)
        for k in range(lam.shape[1]):
            lam[:, k] = low = np.maximum(lam[:, k], low + self.gap)
        high = end
        for k in range(lam.shape[1] - 1, -1, -1):
            lam[:, k] = np.where(before[:, k], np.minimum(lam[:, k], high - self.gap), lam[:, k])
            high = np.where(before[:, k], lam[:, k], high)
        end = np.where(zero, 0.0, np.clip(np.exp(-end), self.low, self.high))
        return np.where(before, np.exp(-np.where(before, lam, 0.0)), np.where(last, end[:, None], 0.0))

    def rooms(self, sigmas: Reals, count: Whole) -> tuple[Reals, Reals, Flags]:
        """Between which λ each level can move while the others stay, and whether it is one that can."""
        before, last = _parts(sigmas.shape, count)
        lam = self._lambda(sigmas)
        left = np.concatenate([np.full((len(lam), 1), self._first), lam[:, :-1]], axis=1) + self.gap
        right = np.concatenate([lam[:, 1:], np.full((len(lam), 1), self._bottom)], axis=1)
        to_zero = np.concatenate([sigmas[:, 1:] == 0, np.ones((len(lam), 1), np.bool_)], axis=1)
        right = np.where(to_zero, self._bottom, right - self.gap)
        ends = last & (sigmas > 0)
        left = np.where(ends, np.maximum(left, -np.log(self.high)), left)
        right = np.where(ends, self._bottom, right)
        return left, right, np.asarray((before | ends) & (right > left))

    def from_shares(self, logits: Reals, count: Whole, end: Reals) -> Reals:
        """Levels whose distances in λ share the way like a soft-max of ``logits``; ``end`` is the last, or 0."""
        active, last = _active(logits.shape, count), _parts(logits.shape, count)[1]
        weights = np.where(active, np.exp(np.clip(logits, -30, 30)), 0.0)
        shares = weights / weights.sum(axis=1, keepdims=True)
        steps = np.where(active, self._spread(count, end)[:, None] * shares + self.gap, 0.0)
        lam = self._first + np.cumsum(steps, axis=1)
        inside = np.exp(-np.minimum(lam, self._bottom))
        return np.where(active & ~last, inside, np.where(last, end[:, None], 0.0))

    def to_shares(self, sigmas: Reals, count: Whole) -> Reals:
        """A right inverse of :meth:`from_shares`."""
        active, last = _active(sigmas.shape, count), _parts(sigmas.shape, count)[1]
        end = sigmas[np.arange(len(sigmas)), count - 1]
        lam = self._lambda(sigmas)
        lam = np.where(last & (sigmas == 0), self._bottom + self.gap, lam)
        steps = np.diff(lam, axis=1, prepend=self._first) - self.gap
        shares = np.maximum(steps / self._spread(count, end)[:, None], SMALLEST_SHARE)
        return np.where(active, np.log(shares * count[:, None]), 0.0)

    def _spread(self, count: Whole, end: Reals) -> Reals:
        """What there is to share: the way less the least distances, one more for the last step to 0."""
        stop = np.where(end > 0, -np.log(np.where(end > 0, end, 1.0)), self._bottom + self.gap)
        return np.asarray(stop - self._first - count * self.gap)

    @property
    def ends(self) -> Interval:
        """The range of a last level that is not 0."""
        return Interval(self.low, self.high, log=True)


def _active(shape: tuple[int, ...], count: Whole) -> Flags:
    return np.asarray(np.arange(shape[1]) < count[:, None])


def _parts(shape: tuple[int, ...], count: Whole) -> tuple[Flags, Flags]:
    """Which columns lie before the last active one, and which is it."""
    column = np.arange(shape[1])
    return np.asarray(column < count[:, None] - 1), np.asarray(column == count[:, None] - 1)
