"""Shares of a whole."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Population, Space
from searchlib.spaces import chance
from searchlib.spaces.arguments import fraction, whole
from searchlib.spaces.codec import stack

__all__ = ["Simplex"]

TOLERANCE = 1e-9
# Softmax never reaches 0; shares below this are told apart from it by nobody.
SMALLEST = 1e-12


@final
@dataclass(frozen=True)
class Simplex(Space):
    """``n`` non-negative reals that sum to one (to 1e-9). A value is a tuple of floats.

    Sampling is uniform (Dirichlet with all parameters 1). Mutation moves the absolute value of a Gaussian from one
    positive share to another share, at most all there is. Crossover draws a point between the parents. Repair is
    the Euclidean projection (Duchi et al. 2008). The relaxation is the soft-max of n reals; shares below 1e-12 come
    back from it as 1e-12. Use :class:`Affine` where weights may be negative.

    Arguments:
        n: number of shares, at least 1.
        scale: standard deviation of the share that a mutation moves, in (0, 1].

    Raises:
        InvalidSettings: not such numbers.

    Example:
        >>> space = Simplex(4)
        >>> space.from_latent(np.zeros((1, 4))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
        >>> space.repair(np.array([[2.0, 1.5, -7.0, 0.0]])).tolist()
        [[0.75, 0.25, 0.0, 0.0]]
    """

    n: int
    _: KW_ONLY
    scale: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("n", self.n))
        object.__setattr__(self, "scale", fraction("scale", self.scale))

    @property
    def dimension(self) -> int:
        return self.n

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    @property
    def size(self) -> float:
        return math.inf if self.n > 1 else 1

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        parts = rng.standard_exponential((n, self.n))
        return np.asarray(parts / parts.sum(axis=1, keepdims=True))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        changed = self.canonical(population)
        if self.n > 1:
            row = np.arange(len(changed))
            giver = chance.pick(rng, changed > 0)
            taker = (giver + rng.integers(1, self.n, len(row))) % self.n
            share = np.minimum(changed[row, giver], self.scale * np.abs(rng.standard_normal(len(row))))
            changed[row, giver] -= share
            changed[row, taker] += share
        return changed

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return np.asarray(first + rng.random((len(first), 1)) * (second - first))

    def repair(self, population: Population) -> Population:
        inside = self.contains(population)[:, None]
        return np.where(inside, population, _project(population.astype(np.float64)))

    def canonical(self, population: Population) -> Population:
        return np.asarray(population, np.float64) + 0.0  # -0.0 and 0.0 are one candidate

    def contains(self, population: Population) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore", over="ignore"):
            total = population.sum(axis=1)
        return np.asarray((population >= 0).all(axis=1) & (np.abs(total - 1) <= TOLERANCE))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, tuple)

    def decode(self, row: NDArray[Any]) -> tuple[float, ...]:
        return tuple(row.tolist())

    def features(self, population: Population) -> NDArray[np.float64]:
        return self.canonical(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Total variation: the share that would have to move."""
        return np.asarray(np.abs(first - second).sum(axis=1) / 2)

    @property
    def latent_dimension(self) -> int:
        return self.n

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        with np.errstate(over="ignore"):
            weights = np.exp(latent - latent.max(axis=1, keepdims=True))
        return np.asarray(weights / weights.sum(axis=1, keepdims=True))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        logs = np.log(np.maximum(population, SMALLEST))
        return np.asarray(logs - logs.mean(axis=1, keepdims=True))


def _project(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # Adding a constant changes nothing and the largest entry is at most 1 above the threshold: huge numbers are safe.
    with np.errstate(over="ignore"):
        x = np.clip(x - x.max(axis=1, keepdims=True), -1, 0)
    ordered = -np.sort(-x, axis=1)
    thresholds = (np.cumsum(ordered, axis=1) - 1) / np.arange(1, x.shape[1] + 1)
    last = (ordered > thresholds).sum(axis=1, keepdims=True) - 1
    shares = np.maximum(x - np.take_along_axis(thresholds, last, axis=1), 0)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
