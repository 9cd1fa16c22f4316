"""Which items of a benchmark to keep, with repetitions: FlashEval's space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from searchlib.space import ItemSpace, Population
from searchlib.spaces import chance, multisets
from searchlib.spaces.arguments import whole
from searchlib.spaces.codec import stack

__all__ = ["EvalSubsets"]


@final
@dataclass(frozen=True)
class EvalSubsets(ItemSpace):
    """``keep`` of ``items`` benchmark items, drawn with replacement: an item may count several times.

    The space of FlashEval (arXiv 2403.16379, Algorithm 1). A value is the tuple of items, ascending. Mutation draws
    each item anew with probability 1/keep, at least one; crossover takes every rank of the sorted items from either
    parent; the relaxation holds one normal score per place. Use :class:`Subset` to keep distinct items: of the same
    size they hold more information, and they can be handed to a benchmark as they are.

    A neighbor has one item replaced by another.

    Arguments:
        items: number of items of the benchmark, at least 1.
        keep: how many are kept, at least 1; more than there are is allowed.

    Raises:
        InvalidSettings: not whole numbers.

    Example:
        >>> space = EvalSubsets(5000, keep=3)
        >>> space.decode(space.encode([(4999, 7, 7)])[0])
        (7, 7, 4999)
        >>> EvalSubsets(4, keep=2).size
        10
    """

    items: int
    keep: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "items", whole("items", self.items))
        object.__setattr__(self, "keep", whole("keep", self.keep))

    @property
    def item_count(self) -> int:
        return self.items

    @property
    def dimension(self) -> int:
        return self.keep

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int32)

    @property
    def size(self) -> float:
        return multisets.count(self.items, self.keep)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return np.sort(rng.integers(self.items, size=(n, self.keep), dtype=np.int32), axis=1)

    def sample_from(self, rng: np.random.Generator, n: int, pool: NDArray[np.integer[Any]]) -> Population:
        places = rng.integers(len(pool), size=(n, self.keep))
        return np.sort(np.asarray(pool, np.int32)[places], axis=1)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        rows = self.canonical(population).copy()
        if self.items == 1:
            return rows
        slots = chance.hits(rng, len(rows), self.keep, 1 / self.keep)
        changed = self._redrawn(rng, rows, slots)
        undone = (changed == rows).all(axis=1)  # several new items may amount to the old ones; a single one cannot
        slots[undone] &= np.cumsum(slots[undone], axis=1) == 1
        changed[undone] = self._redrawn(rng, rows[undone], slots[undone])
        return changed

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        mothers, fathers = self.canonical(first), self.canonical(second)
        return np.sort(np.where(chance.coins(rng, mothers.shape), mothers, fathers), axis=1).astype(np.int32)

    def repair(self, population: Population) -> Population:
        inside = self.contains(population)[:, None]
        nearest = np.rint(np.clip(population, 0, self.items - 1))
        return np.where(inside, population, nearest).astype(np.int32)

    def canonical(self, population: Population) -> Population:
        return np.sort(population, axis=1).astype(np.int32, copy=False)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):
            whole_numbers = (population >= 0) & (population < self.items) & (population == np.floor(population))
        return np.asarray(whole_numbers.all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, tuple)

    def decode(self, row: NDArray[Any]) -> tuple[int, ...]:
        return tuple(np.sort(row).tolist())

    def _every_row(self, limit: int) -> Population:
        del limit
        return multisets.every(self.items, self.keep).astype(np.int32)

    def _near(self, row: NDArray[Any]) -> Population:
        places = np.unique(row, return_index=True)[1]
        slots, items = np.repeat(places, self.items), np.tile(np.arange(self.items, dtype=np.int32), len(places))
        rows = np.repeat(row[None], len(slots), axis=0)
        rows[np.arange(len(rows)), slots] = items
        return np.sort(rows[items != row[slots]], axis=1)

    def features(self, population: Population) -> NDArray[np.float64]:
        return self._counts(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        return np.asarray(np.abs(self._counts(first) - self._counts(second)).sum(axis=1) / 2)

    @property
    def latent_dimension(self) -> int:
        return self.keep

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        items = np.minimum(np.floor(special.ndtr(latent) * self.items), self.items - 1)
        return np.sort(items.astype(np.int32), axis=1)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.asarray(special.ndtri((self.canonical(population) + 0.5) / self.items))

    def _redrawn(self, rng: np.random.Generator, rows: Population, slots: NDArray[np.bool_]) -> Population:
        """Sorted rows whose items at ``slots`` are replaced by any other item."""
        out = rows.copy()
        out[slots] = (rows[slots] + rng.integers(1, self.items, size=np.count_nonzero(slots))) % self.items
        return np.sort(out, axis=1)

    def _counts(self, population: Population) -> NDArray[np.float64]:
        """How often each row holds each item, shape ``(n, items)``."""
        n = len(population)
        places = (np.arange(n)[:, None] * self.items + population.astype(np.int64)).ravel()
        return np.bincount(places, minlength=n * self.items).reshape(n, self.items).astype(np.float64)
