"""Independent yes-or-no choices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Population, Space
from searchlib.spaces import chance
from searchlib.spaces.arguments import whole
from searchlib.spaces.codec import stack
from searchlib.spaces.listing import digits

__all__ = ["Binary"]


@final
@dataclass(frozen=True)
class Binary(Space):
    """Masks of ``n`` bits. A value is a tuple of 0 and 1.

    Mutation flips each bit with probability 1/n, at least one. Crossover takes each bit from either parent. The
    relaxation holds one real per bit, on where it is positive. Use :class:`Subset` where exactly k must be on.

    A neighbor has one bit flipped.

    Arguments:
        n: number of bits, at least 1.

    Raises:
        InvalidSettings: ``n`` is not such a number.

    Example:
        >>> space = Binary(3)
        >>> space.size, space.encode([(1, 0, 1)]).tolist()
        (8, [[True, False, True]])
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("n", self.n))

    @property
    def dimension(self) -> int:
        return self.n

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.bool_)

    @property
    def size(self) -> float:
        return 1 << self.n

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return chance.coins(rng, (n, self.n))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        return np.asarray(population ^ chance.hits(rng, len(population), self.n, 1 / self.n))

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return np.asarray(second ^ (chance.coins(rng, first.shape) & (first ^ second)))  # np.where is 10 times slower

    def repair(self, population: Population) -> Population:
        return np.asarray(population > 0.5)

    def canonical(self, population: Population) -> Population:
        return np.array(population, np.bool_)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        if population.dtype == np.bool_:
            return np.ones(len(population), np.bool_)
        return np.asarray(((population == 0) | (population == 1)).all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, tuple)

    def decode(self, row: NDArray[Any]) -> tuple[int, ...]:
        return tuple(row.astype(np.int64).tolist())

    def _every_row(self, limit: int) -> Population:
        del limit
        return digits((2,) * self.n).astype(np.bool_)

    def _near(self, row: NDArray[Any]) -> Population:
        rows, bit = np.repeat(row[None], self.n, axis=0), np.arange(self.n)
        rows[bit, bit] ^= True
        return rows

    def features(self, population: Population) -> NDArray[np.float64]:
        return population.astype(np.float64)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        return np.asarray((first != second).sum(axis=1), np.float64)

    @property
    def latent_dimension(self) -> int:
        return self.n

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return np.asarray(latent > 0)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.where(population, 1.0, -1.0)
