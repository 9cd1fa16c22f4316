"""A part of a larger choice that is made already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import instance, listed, shown
from searchlib.errors import InvalidCandidate
from searchlib.space import Population, Space

__all__ = ["Fixed"]


@final
@dataclass(frozen=True)
class Fixed(Space):
    """One candidate of another space, and no other: for a part of a :class:`Product` that is not to be searched.

    What it stands for is seen by the objective as before. It has no neighbors and no coordinates in the relaxation.

    Arguments:
        of: the space that it is a candidate of.
        genes: the candidate's row, shape ``(d,)``; :meth:`at` takes the typed value.

    Raises:
        InvalidSettings: not a space, or not a row of numbers.
        InvalidCandidate: the row does not lie in the space.

    Example:
        >>> from searchlib.spaces import Categorical, Integer, Product
        >>> solver = Categorical(("euler", "heun", "dpm++"))
        >>> space = Product(solver=Fixed.at(solver, "heun"), steps=Integer(5, 7))
        >>> space.size, space.decode(space.enumerate()[0])
        (3, {'solver': 'heun', 'steps': 5})
    """

    of: Space
    genes: tuple[Any, ...]

    def __post_init__(self) -> None:
        space = instance("Fixed(of=…)", self.of, Space, "a searchlib Space")
        row = listed("Fixed(genes=…)", self.genes, "numbers, one for each gene")
        rows = space.canonical(space.check([row], name="genes"))
        object.__setattr__(self, "genes", tuple(rows[0].tolist()))

    @classmethod
    def at(cls, space: Space, value: Any) -> Self:
        """The space of this value alone.

        Raises:
            InvalidCandidate: the value does not lie in ``space``.
        """
        space = instance("Fixed.at(space=…)", space, Space, "a searchlib Space")
        return cls(space, tuple(space.encode([value])[0].tolist()))

    @property
    def dimension(self) -> int:
        return self.of.dimension

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.of.dtype

    @property
    def size(self) -> float:
        return 1

    def _rows(self, n: int) -> Population:
        return np.repeat(np.array([self.genes], self.dtype).reshape(1, -1), n, axis=0)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        del rng
        return self._rows(n)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        del rng
        return population.copy()

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        del rng, second
        return first.copy()

    def repair(self, population: Population) -> Population:
        inside, rows = self.contains(population), self._rows(len(population))
        rows[inside] = population[inside]  # other rows may mean the same candidate
        return rows

    def canonical(self, population: Population) -> Population:
        return self._rows(len(population))

    def contains(self, population: Population) -> NDArray[np.bool_]:
        inside = self.of.contains(population)
        same = self.of.canonical(population[inside].astype(self.dtype)) == self._rows(int(inside.sum()))
        inside[inside] = same.all(axis=1)
        return inside

    def encode(self, values: Sequence[Any]) -> Population:
        rows = self.of.encode(values)
        outside = np.flatnonzero(~self.contains(rows))
        if len(outside):
            only = self.of.decode(np.array(self.genes, self.dtype))
            raise InvalidCandidate(f"the only candidate is {shown(only)}, but got {shown(values[outside[0]])}")
        return rows

    def decode(self, row: NDArray[Any]) -> Any:
        return self.of.decode(row)

    def _every_row(self, limit: int) -> Population:
        del limit
        return self._rows(1)

    def features(self, population: Population) -> NDArray[np.float64]:
        return self.of.features(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        return self.of.distance(first, second)

    @property
    def latent_dimension(self) -> int:
        return 0

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return self._rows(len(latent))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.empty((len(population), 0))
