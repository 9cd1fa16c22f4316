"""Real numbers within bounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.space import Population, Space
from searchlib.spaces import arguments, chance
from searchlib.spaces.codec import stack
from searchlib.spaces.interval import Interval

__all__ = ["Real"]


@final
@dataclass(frozen=True)
class Real(Space):
    """Real numbers from ``low`` to ``high``. A value is a float, or a tuple of ``length`` floats.

    Mutation adds Gaussian noise to each gene with probability 1/length, at least one, reflected at the bounds.
    Crossover takes each gene from either parent. In the relaxation 0 is the middle and one unit a quarter of the
    range, clipped at the bounds.

    Arguments:
        low, high: inclusive finite bounds.
        length: number of genes; a value is a tuple where it is greater than 1.
        log: sample, step and relax on a logarithmic scale; needs ``low > 0``.
        scale: standard deviation of mutation as a fraction of the range, in (0, 1].

    Raises:
        InvalidSettings: bounds that are not finite, ``low > high``, or ``log`` with ``low <= 0``.

    Example:
        >>> rate = Real(1e-5, 1e-1, log=True)
        >>> round(rate.decode(rate.from_latent(np.zeros((1, 1)))[0]), 9)
        0.001
    """

    low: float
    high: float
    length: int = 1
    _: KW_ONLY
    log: bool = False
    scale: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "low", arguments.real("low", self.low))
        object.__setattr__(self, "high", arguments.real("high", self.high))
        object.__setattr__(self, "length", arguments.whole("length", self.length))
        object.__setattr__(self, "scale", arguments.fraction("scale", self.scale))
        if not self.low <= self.high or math.isinf(2 * (self.high - self.low)):
            raise InvalidSettings(
                f"`low <= high` must hold, not further apart than floats reach, "
                f"but got (low={self.low!r}, high={self.high!r})"
            )
        if arguments.flag("log", self.log) and self.low <= 0:
            raise InvalidSettings(f"`low > 0` must hold with log=True, but got (low={self.low!r}, high={self.high!r})")

    @property
    def _interval(self) -> Interval:
        return Interval(self.low, self.high, self.log)

    @property
    def dimension(self) -> int:
        return self.length

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    @property
    def size(self) -> float:
        return math.inf if self.low < self.high else 1

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return self._interval.draw(rng, (n, self.length))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        changed = self.canonical(population)
        if self.low < self.high:
            mask = chance.hits(rng, len(population), self.length, 1 / self.length)
            genes = changed[mask]
            moved = self._interval.move(genes, self.scale * rng.standard_normal(genes.shape))
            # A step below the resolution of floats becomes the smallest one.
            nudged = np.nextafter(genes, np.where(genes < self.high, self.high, self.low))
            changed[mask] = np.where(moved == genes, nudged, moved)
        return changed

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return np.where(chance.coins(rng, first.shape), first, second)

    def repair(self, population: Population) -> Population:
        return np.clip(population.astype(np.float64), self.low, self.high)

    def canonical(self, population: Population) -> Population:
        return np.asarray(population, np.float64) + 0.0  # -0.0 and 0.0 are one candidate

    def contains(self, population: Population) -> NDArray[np.bool_]:
        return np.asarray(((population >= self.low) & (population <= self.high)).all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, (lambda value: [value]) if self.length == 1 else tuple)

    def decode(self, row: NDArray[Any]) -> float | tuple[float, ...]:
        value = tuple(row.tolist())
        return value[0] if self.length == 1 else value

    def features(self, population: Population) -> NDArray[np.float64]:
        """The latent coordinates: where each number lies on its scale, within ±2."""
        return self.to_latent(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Sum of the differences, each as a fraction of the range on its scale."""
        return np.asarray(self._interval.apart(first, second).sum(axis=1))

    @property
    def latent_dimension(self) -> int:
        return self.length

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return self._interval.from_latent(latent)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return self._interval.to_latent(population)
