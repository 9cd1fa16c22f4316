"""Several candidates of one space whose order means nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import shown
from searchlib.errors import InvalidSettings
from searchlib.space import Population, Space, distinct
from searchlib.spaces import multisets
from searchlib.spaces.arguments import whole
from searchlib.spaces.codec import stack
from searchlib.spaces.grouped import Grouped

__all__ = ["Multiset"]

#: Parts with at most this many candidates are listed, so that multisets of them are drawn uniformly.
LISTED = 2**12


@final
@dataclass(frozen=True)
class Multiset(Space):
    """``slots`` candidates of one space in equal slots: rules, adapters, templates whose order means nothing.

    A row holds the slots side by side; ``canonical`` sorts them by their genes, so that all orders are one candidate.
    Two slots may hold the same. A value is the tuple of the slots' values in canonical order. Use :class:`Grouped`
    where a slot is a certain layer, :class:`Subset` for distinct items, :class:`EvalSubsets` for FlashEval's operators.

    Samples are uniform over multisets where the part has at most 4,096 candidates. Where it has more, the slots are
    drawn one by one, which draws a multiset that repeats itself too rarely: one in about size / slots² does.
    Mutation and crossover are those of :class:`Grouped` between slots in canonical order.

    Arguments:
        part: the space of one slot.
        slots: how many, at least 1.

    Raises:
        InvalidSettings: ``part`` is not a space, or ``slots`` is not such a number.

    Example:
        >>> from searchlib.spaces import Categorical
        >>> space = Multiset(Categorical(("crop", "flip", "blur")), slots=2)
        >>> space.size, space.decode(space.encode([("blur", "flip")])[0])
        (6, ('flip', 'blur'))
    """

    part: Space
    slots: int

    def __post_init__(self) -> None:
        if not isinstance(self.part, Space):
            raise InvalidSettings(f"part must be a space such as Subset(8, k=2), but got (part={shown(self.part)})")
        object.__setattr__(self, "slots", whole("slots", self.slots))

    @property
    def _ordered(self) -> Grouped:
        """The same with slots in an order that means something."""
        return Grouped(self.part, self.slots)

    @property
    def dimension(self) -> int:
        return self._ordered.dimension

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.part.dtype

    @property
    def size(self) -> float:
        size = self.part.size
        return math.inf if size == math.inf else multisets.count(int(size), self.slots)

    @cached_property
    def _listed(self) -> Population | None:
        return self.part.enumerate(LISTED) if self.part.size <= LISTED else None

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        if self._listed is None:
            return self.canonical(self._ordered.sample(rng, n))
        chosen = multisets.draw(rng, n, len(self._listed), self.slots)
        return self.canonical(self._listed[chosen].reshape(n, self.dimension))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        rows = self.canonical(population)
        changed = self.canonical(self._ordered.mutate(rng, rows))
        same = np.flatnonzero((changed == rows).all(axis=1))  # several slots may come to what others were
        if len(same) and self.part.size > 1:
            changed[same] = self.canonical(self._one_changed(rng, rows[same]))
        return changed

    def _one_changed(self, rng: np.random.Generator, rows: Population) -> Population:
        """Rows with one slot mutated, which cannot come to nothing."""
        slots = rows.reshape(len(rows), self.slots, self.part.dimension).copy()
        each, chosen = np.arange(len(rows)), rng.integers(self.slots, size=len(rows))
        slots[each, chosen] = self.part.mutate(rng, slots[each, chosen])
        return slots.reshape(rows.shape)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return self.canonical(self._ordered.crossover(rng, self.canonical(first), self.canonical(second)))

    def repair(self, population: Population) -> Population:
        return self._ordered.repair(population)

    def canonical(self, population: Population) -> Population:
        rows = self._ordered.canonical(population)
        width = self.part.dimension
        if width == 1:
            return np.sort(rows, axis=1)
        genes = rows.reshape(-1, width)
        candidate = np.repeat(np.arange(len(rows)), self.slots)
        order = np.lexsort((*genes.T[::-1], candidate))
        return np.asarray(genes[order].reshape(rows.shape))

    def contains(self, population: Population) -> NDArray[np.bool_]:
        return self._ordered.contains(population)

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, lambda value: self._ordered.encode([value])[0])

    def decode(self, row: NDArray[Any]) -> tuple[Any, ...]:
        return self._ordered.decode(self.canonical(row[None])[0])

    def _every_row(self, limit: int) -> Population:
        part = self.part.enumerate(limit)
        return self.canonical(part[multisets.every(len(part), self.slots)].reshape(-1, self.dimension))

    def _near(self, row: NDArray[Any]) -> Population:
        """A smallest move of one slot."""
        return distinct(self.canonical(self._ordered.neighbors(row)))

    def features(self, population: Population) -> NDArray[np.float64]:
        """Those of the slots in canonical order."""
        return self._ordered.features(self.canonical(population))

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Sum of the distances between slots of the same place in canonical order."""
        return self._ordered.distance(self.canonical(first), self.canonical(second))

    @property
    def latent_dimension(self) -> int:
        return self._ordered.latent_dimension

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return self.canonical(self._ordered.from_latent(latent))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return self._ordered.to_latent(population)
