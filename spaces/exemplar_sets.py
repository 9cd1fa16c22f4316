"""Which k exemplars a prompt shows, where new exemplars may be written during the search."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.space import Population, Space
from searchlib.spaces import chance, k_of_n
from searchlib.spaces.arguments import whole
from searchlib.spaces.codec import stack

__all__ = ["ExemplarSets"]

#: What an exemplar that is not in the pool has to be ahead of the pool's in the relaxation.
_HANDICAP = 1000.0


@final
@dataclass(frozen=True)
class ExemplarSets(Space):
    """Exactly ``k`` distinct exemplars, by their ids. A value is the tuple of ids, ascending: order has no meaning.

    The candidates of Learning by Teaching's iterative refinement (arXiv 2406.14629, M3). Ids below ``pool`` are known
    before the search (training problems); the others, below ``capacity``, are texts that an operator writes while
    the search runs and that only the search's memo can spell out. Samples and replacements come from the pool alone,
    repaired rows, too. Crossover and the relaxation keep what they are given. With ``capacity=pool`` this is
    :class:`Subset`.

    ``size`` counts the sets of any ids below ``capacity``; how many of them can be reached depends on the operator.

    A neighbor has one exemplar replaced by another one of the pool: nothing leads to exemplars that are not written.

    Arguments:
        pool: exemplars known before the search.
        k: exemplars per set, at least 1.
        capacity: how many exemplars there may ever be; 0 stands for no more than the pool.

    Raises:
        InvalidSettings: not whole numbers, ``capacity < pool``, ``k > pool``, or ``k == pool`` with room for more (no
            mutation could then find a replacement in the pool).

    Example:
        >>> space = ExemplarSets(5, k=2, capacity=100)
        >>> space.encode([(99, 3)]).tolist()
        [[3, 99]]
        >>> bool((space.sample(np.random.default_rng(0), 50) < 5).all())
        True
    """

    pool: int
    k: int
    capacity: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pool", whole("pool", self.pool))
        object.__setattr__(self, "k", whole("k", self.k))
        object.__setattr__(self, "capacity", whole("capacity", self.capacity, low=0) or self.pool)
        if not self.k <= self.pool <= self.capacity:
            raise InvalidSettings(
                f"`k <= pool <= capacity` must hold, but got (k={self.k}, pool={self.pool}, capacity={self.capacity})"
            )
        if self.k == self.pool < self.capacity:
            raise InvalidSettings(
                f"a pool of {self.pool} exemplars holds no replacement for one of k={self.k}; "
                f"add exemplars to the pool, or leave capacity={self.capacity} out"
            )

    @property
    def dimension(self) -> int:
        return self.k

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int32)

    @property
    def size(self) -> float:
        return math.comb(self.capacity, self.k)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return k_of_n.draw(rng, n, self.pool, self.k).astype(np.int32)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        """Replace each exemplar by one of the pool with probability 1/k, at least one."""
        out = self.canonical(population).copy()
        if self.size == 1:
            return out
        slots = chance.hits(rng, len(out), self.k, 1 / self.k)
        written = (out >= self.pool).sum(axis=1)
        for count in np.unique(written):
            rows = np.flatnonzero(written == count)
            out[rows] = self._replace(rng, out[rows], slots[rows], int(count))
        return np.sort(out, axis=1)

    def _replace(
        self, rng: np.random.Generator, rows: Population, slots: NDArray[np.bool_], written: int
    ) -> Population:
        """The same for rows that all hold so many written exemplars.

        These take the numbers right behind the pool, so that all that a row does not hold is in the pool.
        """
        numbered = rows.copy()
        numbered[:, self.k - written :] = self.pool + np.arange(written)
        children = k_of_n.replace(rng, numbered, slots, self.pool + written)
        if not written:
            return children
        place = np.maximum(children - self.pool, 0)
        names = np.take_along_axis(rows[:, self.k - written :], place, axis=1)
        return np.where(children >= self.pool, names, children)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return self.canonical(first).copy() if self.size == 1 else k_of_n.mix(rng, first, second)

    def repair(self, population: Population) -> Population:
        inside = self.contains(population)[:, None]
        return np.where(inside, population, k_of_n.nearest(population, self.pool)).astype(np.int32)

    def canonical(self, population: Population) -> Population:
        return np.sort(population, axis=1).astype(np.int32, copy=False)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        return k_of_n.contains(population, self.capacity)

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, tuple)

    def decode(self, row: NDArray[Any]) -> tuple[int, ...]:
        return tuple(np.sort(row).tolist())

    def _every_row(self, limit: int) -> Population:
        del limit
        return k_of_n.every(self.capacity, self.k).astype(np.int32)

    def _near(self, row: NDArray[Any]) -> Population:
        return k_of_n.swapped(row, self.pool)

    def features(self, population: Population) -> NDArray[np.float64]:
        """Which exemplars of the pool are shown, and how many others; shape ``(n, pool + 1)``."""
        features = np.zeros((len(population), self.pool + 1))
        np.add.at(features, (np.arange(len(population))[:, None], np.minimum(population, self.pool)), 1.0)
        return features

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        return (self.k - k_of_n.shared(first, second)).astype(np.float64)

    @property
    def latent_dimension(self) -> int:
        return self.capacity

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return k_of_n.top(latent - self._handicap, self.k).astype(np.int32)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.where(k_of_n.mask(population, self.capacity), 1.0, -1.0) + self._handicap

    @property
    def _handicap(self) -> NDArray[np.float64]:
        return np.where(np.arange(self.capacity) < self.pool, 0.0, _HANDICAP)
