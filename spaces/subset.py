"""Which k of n to keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.space import ItemSpace, Population
from searchlib.spaces import chance, k_of_n
from searchlib.spaces.arguments import whole
from searchlib.spaces.codec import stack

__all__ = ["Subset"]


@final
@dataclass(frozen=True)
class Subset(ItemSpace):
    """Exactly ``k`` of ``n`` items. A value is the tuple of kept indices, ascending.

    A row holds the k indices, so a population of 50-subsets of 5,000 is 50 columns wide; rows in another order
    mean the same and are sorted by ``canonical``. Mutation swaps each kept index for one that was not kept with
    probability 1/k, at least one (1.6 swaps on average). Crossover keeps what both parents keep and fills up with
    a random half of what only one of them keeps. The relaxation holds one score per item; the k largest are kept.

    A neighbor has one kept item swapped for one that was not.

    Arguments:
        n: number of items, at least 1.
        k: how many are kept, from 0 to n.

    Raises:
        InvalidSettings: not whole numbers, or ``k > n``.

    Example:
        >>> space = Subset(32, k=8)
        >>> space.size
        10518300
        >>> space.encode([(20, 0, 1, 2, 8, 9, 16, 27)]).tolist()
        [[0, 1, 2, 8, 9, 16, 20, 27]]
    """

    n: int
    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("n", self.n))
        object.__setattr__(self, "k", whole("k", self.k, low=0))
        if self.k > self.n:
            raise InvalidSettings(f"`k <= n` must hold, but got (n={self.n}, k={self.k})")

    @property
    def item_count(self) -> int:
        return self.n

    @property
    def dimension(self) -> int:
        return self.k

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int32)

    @property
    def size(self) -> float:
        return math.comb(self.n, self.k)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return k_of_n.draw(rng, n, self.n, self.k).astype(np.int32)

    def sample_from(self, rng: np.random.Generator, n: int, pool: NDArray[np.integer[Any]]) -> Population:
        places = k_of_n.draw(rng, n, len(pool), self.k)
        return np.sort(np.asarray(pool, np.int32)[places], axis=1)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        if self.size == 1:
            return self.canonical(population)
        slots = chance.hits(rng, len(population), self.k, 1 / self.k)
        return k_of_n.replace(rng, self.canonical(population), slots, self.n)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return self.canonical(first) if self.size == 1 else k_of_n.mix(rng, first, second)

    def repair(self, population: Population) -> Population:
        inside = self.contains(population)[:, None]
        return np.where(inside, population, k_of_n.nearest(population, self.n)).astype(np.int32)

    def canonical(self, population: Population) -> Population:
        return np.sort(population, axis=1).astype(np.int32, copy=False)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        return k_of_n.contains(population, self.n)

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, tuple)

    def decode(self, row: NDArray[Any]) -> tuple[int, ...]:
        return tuple(np.sort(row).tolist())

    def _every_row(self, limit: int) -> Population:
        del limit
        return k_of_n.every(self.n, self.k).astype(np.int32)

    def _near(self, row: NDArray[Any]) -> Population:
        return k_of_n.swapped(row, self.n)

    def features(self, population: Population) -> NDArray[np.float64]:
        return k_of_n.mask(population, self.n).astype(np.float64)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        return (self.k - k_of_n.shared(first, second)).astype(np.float64)

    @property
    def latent_dimension(self) -> int:
        return self.n

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return k_of_n.top(latent, self.k).astype(np.int32)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.where(k_of_n.mask(population, self.n), 1.0, -1.0)
