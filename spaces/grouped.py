"""The same choice once per layer, block or head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import shown
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import Population, Space
from searchlib.spaces import chance
from searchlib.spaces.arguments import whole
from searchlib.spaces.codec import stack
from searchlib.spaces.listing import side_by_side, spliced

__all__ = ["Grouped"]


@final
@dataclass(frozen=True)
class Grouped(Space):
    """The same space once per group: layers, blocks, heads. A value is the tuple of the groups' values, in their order.

    A row holds the groups side by side, in the array type of the part; every operator treats all groups of all
    candidates as one population of the part. Mutation mutates each group with probability 1/groups, at least one. In
    crossover half of the groups come whole from either parent, so that a layer that works can be handed on as it is;
    the others are crossed as the part crosses, and so is a group that is alone. Repair, features and relaxation are
    those of the part, group by group; the distance is the sum over groups.

    Any space can be grouped, also a product or another grouped space. What is searched in stages or narrowed to a pool
    of items as a part is searched at once as a group: use :class:`ExpertMerges` itself for its two stages. Use
    :class:`Product` where the groups differ.

    A neighbor has one group moved to a neighbor of the part.

    Arguments:
        part: the space of one group.
        groups: how many groups, at least 1.

    Raises:
        InvalidSettings: ``part`` is not a space, or ``groups`` is not such a number.

    Example:
        >>> from searchlib.spaces import Subset
        >>> space = Grouped(Subset(8, k=2), groups=3)
        >>> space.size, space.encode([((0, 5), (7, 1), (2, 3))]).tolist()
        (21952, [[0, 5, 1, 7, 2, 3]])
        >>> space.decode(np.array([0, 5, 1, 7, 2, 3]))
        ((0, 5), (1, 7), (2, 3))
    """

    part: Space
    groups: int

    def __post_init__(self) -> None:
        if not isinstance(self.part, Space):
            raise InvalidSettings(f"part must be a space such as Subset(8, k=2), but got (part={shown(self.part)})")
        object.__setattr__(self, "groups", whole("groups", self.groups))

    @property
    def dimension(self) -> int:
        return self.groups * self.part.dimension

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.part.dtype

    @property
    def size(self) -> float:
        return self.part.size**self.groups

    def _by_group(self, array: NDArray[Any]) -> NDArray[Any]:
        """One row per candidate and group, of ``(n, groups * anything)``."""
        return array.reshape(len(array) * self.groups, array.shape[1] // self.groups)

    def _by_candidate(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The inverse of :meth:`_by_group`."""
        return rows.reshape(len(rows) // self.groups, self.groups * rows.shape[1])

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return self._by_candidate(self.part.sample(rng, n * self.groups))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        if self.part.size == 1:
            return self.canonical(population)
        changed = self._by_group(np.array(population, self.dtype))
        chosen = chance.hits(rng, len(population), self.groups, 1 / self.groups).ravel()
        changed[chosen] = self.part.mutate(rng, changed[chosen])
        return self._by_candidate(changed)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        a, b = self._by_group(first), self._by_group(second)
        if self.groups == 1:
            return self.part.crossover(rng, a, b)
        crossed, which = chance.coins(rng, (2, len(a)))
        child = np.where(which[:, None], a, b)
        child[crossed] = self.part.crossover(rng, a[crossed], b[crossed])
        return self._by_candidate(child)

    def repair(self, population: Population) -> Population:
        return self._by_candidate(self.part.repair(self._by_group(population)))

    def canonical(self, population: Population) -> Population:
        return self._by_candidate(self.part.canonical(self._by_group(population)))

    def contains(self, population: Population) -> NDArray[np.bool_]:
        inside = self.part.contains(self._by_group(population))
        return np.asarray(inside.reshape(len(population), self.groups).all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, self._genes)

    def _genes(self, value: Any) -> Population:
        if not isinstance(value, tuple | list | np.ndarray) or len(value) != self.groups:
            raise InvalidCandidate(f"a value must be a tuple of {self.groups} values of {self.part!r}, one per group")
        return self.part.encode(tuple(value)).ravel()

    def decode(self, row: NDArray[Any]) -> tuple[Any, ...]:
        return tuple(self.part.decode(group) for group in self._by_group(row[None]))

    def _every_row(self, limit: int) -> Population:
        return np.concatenate(side_by_side([self.part.enumerate(limit)] * self.groups), axis=1)

    def _near(self, row: NDArray[Any]) -> Population:
        moves = [self.part.neighbors(group) for group in self._by_group(row[None])]
        return np.concatenate([spliced(row, i * self.part.dimension, near) for i, near in enumerate(moves)])

    def features(self, population: Population) -> NDArray[np.float64]:
        return self._by_candidate(self.part.features(self._by_group(population)))

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        apart = self.part.distance(self._by_group(first), self._by_group(second))
        return np.asarray(apart.reshape(len(first), self.groups).sum(axis=1))

    @property
    def latent_dimension(self) -> int:
        return self.groups * self.part.latent_dimension

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return self._by_candidate(self.part.from_latent(self._by_group(latent)))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return self._by_candidate(self.part.to_latent(self._by_group(population)))
