"""Weights that sum to one and may be negative."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Population, Space
from searchlib.spaces.arguments import fraction, positive, whole
from searchlib.spaces.codec import stack

__all__ = ["Affine"]

TOLERANCE = 1e-9
# Keeps the rounding of the sum far below the tolerance; no sensible weight comes near.
LARGEST = 1e3


@final
@dataclass(frozen=True)
class Affine(Space):
    """``n`` reals that sum to one (to 1e-9), of either sign. A value is a tuple of floats.

    Made for the weights of a combination of checkpoints. Sampling adds Gaussian noise to equal weights and
    projects it on the plane where the sum stays one; mutation does the same to a row, with a smaller step.
    Crossover draws a point between the parents. The relaxation is linear: 0 is equal weights, one unit is
    ``spread``. No weight is beyond ±1000.

    Arguments:
        n: number of weights, at least 1.
        spread: standard deviation around 1/n of a sampled weight; 1/n where None.
        scale: standard deviation of mutation as a fraction of ``spread``, in (0, 1].

    Raises:
        InvalidSettings: not such numbers.

    Example:
        >>> space = Affine(4, spread=0.5)
        >>> space.from_latent(np.array([[1.0, 1.0, -1.0, -1.0]])).tolist()
        [[0.75, 0.75, -0.25, -0.25]]
    """

    n: int
    _: KW_ONLY
    spread: float | None = None
    scale: float = 0.3

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("n", self.n))
        if self.spread is not None:
            object.__setattr__(self, "spread", positive("spread", self.spread))
        object.__setattr__(self, "scale", fraction("scale", self.scale))

    @property
    def _unit(self) -> float:
        return 1 / self.n if self.spread is None else self.spread

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
        return self._onto(self._unit * rng.standard_normal((n, self.n)))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        return self._onto(population + self.scale * self._unit * rng.standard_normal(population.shape))

    def _onto(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Orthogonal projection on the plane, shrunk towards equal weights where that leaves the bounds."""
        x = np.clip(x, -LARGEST, LARGEST)
        x = x - x.mean(axis=1, keepdims=True)
        x *= np.minimum(1, (LARGEST - 1) / np.maximum(np.abs(x).max(axis=1, keepdims=True), 1))
        return np.asarray(1 / self.n + (x - x.mean(axis=1, keepdims=True)))

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return np.asarray(first + rng.random((len(first), 1)) * (second - first))

    def repair(self, population: Population) -> Population:
        inside = self.contains(population)[:, None]
        return np.where(inside, population, self._onto(population.astype(np.float64)))

    def canonical(self, population: Population) -> Population:
        return np.asarray(population, np.float64) + 0.0  # -0.0 and 0.0 are one candidate

    def contains(self, population: Population) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore", over="ignore"):
            total = population.sum(axis=1)
        return np.asarray((np.abs(population) <= LARGEST).all(axis=1) & (np.abs(total - 1) <= TOLERANCE))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, tuple)

    def decode(self, row: NDArray[Any]) -> tuple[float, ...]:
        return tuple(row.tolist())

    def features(self, population: Population) -> NDArray[np.float64]:
        return self.canonical(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Half the sum of the absolute differences: the weight that would have to move."""
        return np.asarray(np.abs(first - second).sum(axis=1) / 2)

    @property
    def latent_dimension(self) -> int:
        return self.n

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        reach = LARGEST / self._unit
        return self._onto(self._unit * np.clip(latent, -reach, reach))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.asarray((population - 1 / self.n) / self._unit)
