"""A bounded interval seen through a linear or logarithmic scale: what Integer and Real share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval"]

Reals = NDArray[np.float64]


@final
@dataclass(frozen=True)
class Interval:
    """``low <= x <= high``; steps and draws happen on the scale, log(x) with ``log`` and x itself without.

    Example:
        >>> Interval(1.0, 100.0, log=True).from_latent(np.array([-2.0, 0.0, 9.0])).round(6).tolist()
        [1.0, 10.0, 100.0]
    """

    low: float
    high: float
    log: bool = False

    @property
    def ends(self) -> tuple[float, float]:
        """Both ends on the scale."""
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)

    @property
    def width(self) -> float:
        """Length on the scale."""
        left, right = self.ends
        return right - left

    def to_scale(self, x: NDArray[Any]) -> Reals:
        """Points of the interval on the scale."""
        return np.log(x) if self.log else np.asarray(x, np.float64)

    def from_scale(self, u: Reals) -> Reals:
        """The inverse of :meth:`to_scale`, kept inside the interval."""
        left, right = self.ends
        inside = np.clip(u, left, right)
        return np.clip(np.exp(inside), self.low, self.high) if self.log else inside

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Reals:
        """Uniform on the scale."""
        return self.from_scale(rng.uniform(*self.ends, shape))

    def move(self, x: NDArray[Any], step: Reals) -> Reals:
        """Points moved by ``step`` times the width on the scale, reflected at the ends; the width is not 0."""
        left, _ = self.ends
        turn = np.mod(self.to_scale(x) - left + step * self.width, 2 * self.width)
        return self.from_scale(left + np.minimum(turn, 2 * self.width - turn))

    def apart(self, first: NDArray[Any], second: NDArray[Any]) -> Reals:
        """Distances on the scale as fractions of the width; 0 only for equal points, however close they round."""
        fraction = np.abs(self.to_scale(first) - self.to_scale(second)) / (self.width or 1.0)
        return np.where(first == second, 0.0, np.maximum(fraction, np.finfo(np.float64).tiny))

    def from_latent(self, latent: Reals) -> Reals:
        """0 is the middle of the scale, one unit a quarter of its width; clipped beyond -2 and 2."""
        left, _ = self.ends
        return self.from_scale(left + self.width * (np.clip(np.asarray(latent, np.float64), -2, 2) + 2) / 4)

    def to_latent(self, x: NDArray[Any]) -> Reals:
        """A right inverse of :meth:`from_latent`."""
        left, _ = self.ends
        return np.asarray((self.to_scale(x) - left) * (4 / (self.width or 1.0)) - 2)
