"""A choice between spaces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidCandidate
from searchlib.space import Population, Space
from searchlib.spaces.arguments import fraction
from searchlib.spaces.codec import stack
from searchlib.spaces.named import Named, array_type, keywords, named_spaces

__all__ = ["OneOf"]


@final
@dataclass(frozen=True, init=False, repr=False)
class OneOf(Space):
    """One of several named spaces, and a candidate of it: settings that exist only for the method that is chosen.

    A value is a pair of the branch's name and that branch's value. A row holds the number of the branch, then the genes
    of its candidate, and 0 where the branch needs fewer genes than another one: genes without a meaning cannot differ.
    Branches may be any spaces, other conditional ones too; put :class:`OneOf` into a :class:`Product` for what all
    branches share.

    Samples choose the branch first, all alike, however many candidates it has. Mutation changes the branch with
    probability ``switch_rate``, to a sample of another one, and otherwise mutates within it. Crossover mixes parents of
    one branch as that branch does; of two branches the child is one of the parents. In the relaxation every branch has
    a score and coordinates of its own; the largest score wins.

    A neighbor is a neighbor within the branch, or the middle (latent zero) of another branch.

    Arguments:
        branches: a mapping, or pairs of name and space, for names that are no Python identifiers.
        switch_rate: probability of a mutation to change the branch, in (0, 1].
        named: branches by keyword, after those.

    Raises:
        InvalidSettings: no branches, one that is not a space, two of one name, or a rate that is no probability.

    Example:
        >>> from searchlib.spaces import Integer, Subset
        >>> space = OneOf(prune=Subset(8, k=2), quantize=Integer(2, 8))
        >>> space.size, space.encode([("prune", (7, 3)), ("quantize", 4)]).tolist()
        (35, [[0, 3, 7], [1, 4, 0]])
        >>> space.decode(np.array([1, 4, 0]))
        ('quantize', 4)
    """

    branches: Named
    switch_rate: float

    def __init__(
        self,
        /,
        branches: Mapping[str, Space] | Iterable[tuple[str, Space]] | Space = (),
        *,
        switch_rate: float = 0.2,
        **named: Space,
    ) -> None:
        pairs = named_spaces("branches", branches, named, "OneOf(few=Subset(8, 2), any=Binary(8))")
        object.__setattr__(self, "branches", pairs)
        object.__setattr__(self, "switch_rate", fraction("switch_rate", switch_rate))

    def __repr__(self) -> str:
        return f"OneOf({keywords(self.branches)}, switch_rate={self.switch_rate!r})"

    @property
    def _spaces(self) -> tuple[Space, ...]:
        return tuple(space for _, space in self.branches)

    @property
    def dimension(self) -> int:
        return 1 + max(space.dimension for space in self._spaces)

    @property
    def dtype(self) -> np.dtype[Any]:
        return array_type(self._spaces)

    @property
    def size(self) -> float:
        sizes = [space.size for space in self._spaces]
        return math.inf if math.inf in sizes else sum(sizes)

    def _by_branch(
        self, branch: NDArray[Any], genes: Callable[[int, Space, NDArray[np.intp]], Population]
    ) -> Population:
        """Rows of these branches; ``genes(number, space, rows)`` are those of the rows that are of one branch."""
        out = np.zeros((len(branch), self.dimension), self.dtype)
        out[:, 0] = branch
        for number, space in enumerate(self._spaces):
            rows = np.flatnonzero(branch == number)
            if len(rows):
                out[rows, 1 : 1 + space.dimension] = genes(number, space, rows)
        return out

    def _genes(self, population: Population, space: Space, rows: NDArray[np.intp]) -> Population:
        """The genes of some rows of a branch, in its own array type."""
        return population[rows, 1 : 1 + space.dimension].astype(space.dtype)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        branch = rng.integers(len(self.branches), size=n)
        return self._by_branch(branch, lambda _, space, rows: space.sample(rng, len(rows)))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        old, count = population[:, 0].astype(np.intp), len(self.branches)
        fixed = np.array([space.size == 1 for space in self._spaces])[old]
        switched = (fixed | (rng.random(len(old)) < self.switch_rate)) & (count > 1)
        new = (old + switched * rng.integers(1, max(count, 2), len(old))) % count

        def genes(number: int, space: Space, rows: NDArray[np.intp]) -> Population:
            out, kept = space.sample(rng, len(rows)), ~switched[rows]
            out[kept] = space.mutate(rng, self._genes(population, space, rows[kept]))
            return out

        return self._by_branch(new, genes)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        either = np.where(rng.random((len(first), 1)) < 0.5, first, second)
        alike = first[:, 0] == second[:, 0]

        def genes(number: int, space: Space, rows: NDArray[np.intp]) -> Population:
            out, both = self._genes(either, space, rows), rows[alike[rows]]
            a, b = self._genes(first, space, both), self._genes(second, space, both)
            out[alike[rows]] = space.crossover(rng, a, b)
            return out

        return self._by_branch(either[:, 0], genes)

    def repair(self, population: Population) -> Population:
        """The nearest branch's number, and that branch's repair of the genes that it has."""
        branch = np.rint(np.clip(population[:, 0].astype(np.float64), 0, len(self.branches) - 1))
        return self._by_branch(
            branch, lambda _, space, rows: space.repair(population[rows, 1 : 1 + space.dimension])
        )

    def canonical(self, population: Population) -> Population:
        """Canonical genes in the branch, and 0 in those that it does not have."""
        return self._by_branch(
            population[:, 0], lambda _, space, rows: space.canonical(self._genes(population, space, rows))
        )

    def contains(self, population: Population) -> NDArray[np.bool_]:
        inside = np.zeros(len(population), np.bool_)
        for number, space in enumerate(self._spaces):
            rows = np.flatnonzero(population[:, 0] == number)
            own, idle = np.split(population[rows, 1:], [space.dimension], axis=1)
            inside[rows] = space.contains(own) & (idle == 0).all(axis=1)
        return inside

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, self._row)

    def _row(self, value: Any) -> Population:
        names = [name for name, _ in self.branches]
        if not isinstance(value, tuple | list) or len(value) != 2 or value[0] not in names:
            raise InvalidCandidate(f"a value must be a pair of one of {names} and a value of that space")
        number = names.index(value[0])
        return np.asarray(self._by_branch(np.array([number]), lambda _, space, rows: space.encode([value[1]]))[0])

    def decode(self, row: NDArray[Any]) -> tuple[str, Any]:
        name, space = self.branches[int(row[0])]
        return name, space.decode(self._genes(row[None], space, np.zeros(1, np.intp))[0])

    def _every_row(self, limit: int) -> Population:
        lists = [space.enumerate(limit) for space in self._spaces]
        branch = np.repeat(np.arange(len(lists)), [len(rows) for rows in lists])
        return self._by_branch(branch, lambda number, space, rows: lists[number])

    def _near(self, row: NDArray[Any]) -> Population:
        """A smallest move within the branch, then the middle of every other branch."""
        own = int(row[0])
        near = self._spaces[own].neighbors(row[1 : 1 + self._spaces[own].dimension])
        others = np.delete(np.arange(len(self.branches)), own)
        moves = self._by_branch(np.full(len(near), own), lambda _, space, rows: near)
        return np.concatenate([moves, self._by_branch(others, lambda _, space, rows: _middle(space))])

    def features(self, population: Population) -> NDArray[np.float64]:
        """One indicator per branch, then the features in each, 0 where another branch is chosen."""
        return self._side_by_side(population, 1.0, 0.0, lambda space, genes: space.features(genes))

    def _side_by_side(
        self,
        population: Population,
        on: float,
        off: float,
        columns: Callable[[Space, Population], NDArray[np.float64]],
    ) -> NDArray[np.float64]:
        parts = [np.where(population[:, :1] == np.arange(len(self.branches)), on, off)]
        for number, space in enumerate(self._spaces):
            rows = np.flatnonzero(population[:, 0] == number)
            own = columns(space, self._genes(population, space, rows))
            parts.append(np.zeros((len(population), own.shape[1])))
            parts[-1][rows] = own
        return np.concatenate(parts, axis=1)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """That of the branch; between two branches the number of genes of the larger one and one more."""
        width = np.array([space.dimension for space in self._spaces])
        one, two = first[:, 0].astype(np.intp), second[:, 0].astype(np.intp)
        apart: NDArray[np.float64] = 1.0 + np.maximum(width[one], width[two])
        for number, space in enumerate(self._spaces):
            rows = np.flatnonzero((one == number) & (two == number))
            apart[rows] = space.distance(self._genes(first, space, rows), self._genes(second, space, rows))
        return apart

    @property
    def latent_dimension(self) -> int:
        return len(self.branches) + sum(space.latent_dimension for space in self._spaces)

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        starts = np.cumsum([len(self.branches), *(space.latent_dimension for space in self._spaces)])

        def genes(number: int, space: Space, rows: NDArray[np.intp]) -> Population:
            return space.from_latent(latent[rows, starts[number] : starts[number + 1]])

        return self._by_branch(latent[:, : len(self.branches)].argmax(axis=1), genes)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return self._side_by_side(population, 1.0, -1.0, lambda space, genes: space.to_latent(genes))


def _middle(space: Space) -> Population:
    return space.canonical(space.from_latent(np.zeros((1, space.latent_dimension))))
