"""Orders of n items."""

from __future__ import annotations

import math
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

__all__ = ["Permutation"]


@final
@dataclass(frozen=True)
class Permutation(Space):
    """All orders of ``n`` items. A value is the tuple of items in their order.

    Mutation swaps two items, moves one elsewhere, or reverses a stretch, each as likely. In crossover every item
    takes its place in either parent as a random key, ties broken at random (Bean 1994). The relaxation holds one
    key per item; items are sorted by it. Any row of numbers is repaired to the order of its ranks.

    A neighbor has two items swapped.

    Arguments:
        n: number of items, at least 1.

    Raises:
        InvalidSettings: ``n`` is not such a number.

    Example:
        >>> space = Permutation(4)
        >>> space.size, space.from_latent(np.array([[0.3, -1.0, 2.0, 0.0]])).tolist()
        (24, [[1, 3, 0, 2]])
    """

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", whole("n", self.n))

    @property
    def dimension(self) -> int:
        return self.n

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int32)

    @property
    def size(self) -> float:
        return math.factorial(self.n)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return rng.permuted(np.tile(np.arange(self.n, dtype=np.int32), (n, 1)), axis=1)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        if self.n == 1:
            return self.canonical(population)
        rows = len(population)
        start = rng.integers(self.n, size=(rows, 1))
        stop = (start + rng.integers(1, self.n, (rows, 1))) % self.n
        source = _moves(np.arange(self.n), start, stop, rng.integers(3, size=(rows, 1)))
        return np.take_along_axis(self.canonical(population), source, axis=1)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        places = np.where(chance.coins(rng, first.shape), _places(first), _places(second))
        return np.argsort(places + rng.random(first.shape), axis=1).astype(np.int32)

    def repair(self, population: Population) -> Population:
        return _places(np.argsort(population, axis=1, kind="stable")).astype(np.int32)

    def canonical(self, population: Population) -> Population:
        return np.array(population, np.int32)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        return np.asarray((np.sort(population, axis=1) == np.arange(self.n)).all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, tuple)

    def decode(self, row: NDArray[Any]) -> tuple[int, ...]:
        return tuple(row.astype(np.int64).tolist())

    def _every_row(self, limit: int) -> Population:
        del limit
        # Digits of the factorial number system: how many of the items that are left come before the one chosen.
        rows = digits(range(self.n, 0, -1)).astype(np.int32)
        for place in range(self.n - 2, -1, -1):
            rows[:, place + 1 :] += rows[:, place + 1 :] >= rows[:, place : place + 1]
        return rows

    def _near(self, row: NDArray[Any]) -> Population:
        left, right = np.triu_indices(self.n, 1)
        rows, each = np.repeat(row[None], len(left), axis=0), np.arange(len(left))
        rows[each, left], rows[each, right] = row[right], row[left]
        return rows

    def features(self, population: Population) -> NDArray[np.float64]:
        """The place of every item, from -2 for the first to 2 for the last."""
        return self.to_latent(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Number of places that hold another item."""
        return np.asarray((first != second).sum(axis=1), np.float64)

    @property
    def latent_dimension(self) -> int:
        return self.n

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return np.argsort(latent, axis=1, kind="stable").astype(np.int32)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.asarray(_places(population) * (4 / max(self.n - 1, 1)) - 2)


def _places(population: Population) -> NDArray[np.intp]:
    """The inverse permutations: where every item stands."""
    return np.argsort(population, axis=1)


def _moves(
    place: NDArray[np.intp], start: NDArray[np.int64], stop: NDArray[np.int64], kind: NDArray[np.int64]
) -> NDArray[np.intp]:
    """Which place each place is filled from: a swap (0), a move of one item (1), a reversed stretch (2)."""
    left, right = np.minimum(start, stop), np.maximum(start, stop)
    swap = np.where(place == left, right, np.where(place == right, left, place))
    move = np.where(place == stop, start, place + np.sign(stop - start))
    inside = (place >= left) & (place <= right)
    return np.where(kind == 0, swap, np.where(inside, np.where(kind == 1, move, left + right - place), place))
