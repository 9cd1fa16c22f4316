"""Several choices at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidCandidate
from searchlib.space import Population, Space
from searchlib.spaces import chance
from searchlib.spaces.codec import stack
from searchlib.spaces.listing import side_by_side, spliced
from searchlib.spaces.named import Named, array_type, keywords, named_spaces

__all__ = ["Product"]


@final
@dataclass(frozen=True, init=False, repr=False)
class Product(Space):
    """Named spaces side by side. A value is a dict from name to the value of that part.

    The parts' columns lie side by side in one array, float64 where any part holds floats and int64 otherwise.
    Mutation mutates each part with probability 1/parts, at least one of those that can change. Crossover, repair,
    features and relaxation are those of the parts; the distance is their sum.

    A neighbor has one part moved to a neighbor of its own; where a part has none, as real numbers, neither has this.

    Arguments:
        parts: a mapping, or pairs of name and space, for names that are no Python identifiers.
        named: the parts by keyword, after those.

    Raises:
        InvalidSettings: no parts, a part that is not a space, or two parts of one name.

    Example:
        >>> from searchlib.spaces import Binary, Integer
        >>> space = Product(mask=Binary(2), steps=Integer(5, 50))
        >>> space.size, space.encode([{"mask": (0, 1), "steps": 20}]).tolist()
        (184, [[0, 1, 20]])
    """

    parts: Named

    def __init__(
        self, /, parts: Mapping[str, Space] | Iterable[tuple[str, Space]] | Space = (), **named: Space
    ) -> None:
        pairs = named_spaces("parts", parts, named, "Product(mask=Binary(8))")
        object.__setattr__(self, "parts", pairs)

    def __repr__(self) -> str:
        return f"Product({keywords(self.parts)})"

    @property
    def dimension(self) -> int:
        return sum(space.dimension for _, space in self.parts)

    @property
    def dtype(self) -> np.dtype[Any]:
        return array_type(self._spaces)

    @property
    def size(self) -> float:
        sizes = [space.size for _, space in self.parts]
        return math.inf if math.inf in sizes else math.prod(sizes)

    def _split(self, population: Population) -> Iterator[tuple[Space, Population]]:
        """Every part with its columns, in the array type that they have here."""
        start = 0
        for _, space in self.parts:
            stop = start + space.dimension
            yield space, population[:, start:stop]
            start = stop

    def _typed(self, population: Population) -> list[Population]:
        return [columns.astype(space.dtype) for space, columns in self._split(population)]

    def _join(self, columns: Iterable[Population]) -> Population:
        return np.concatenate(list(columns), axis=1, dtype=self.dtype)

    @property
    def _spaces(self) -> tuple[Space, ...]:
        return tuple(space for _, space in self.parts)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return self._join(space.sample(rng, n) for space in self._spaces)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        columns = self._typed(population)
        able = [place for place, space in enumerate(self._spaces) if space.size > 1]
        chosen = chance.hits(rng, len(population), len(able), 1 / len(able)) if able else np.empty((0, 0), np.bool_)
        for place, mask in zip(able, chosen.T, strict=True):
            columns[place][mask] = self._spaces[place].mutate(rng, columns[place][mask])
        return self._join(columns)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        pairs = zip(self._spaces, self._typed(first), self._typed(second), strict=True)
        return self._join(space.crossover(rng, a, b) for space, a, b in pairs)

    def repair(self, population: Population) -> Population:
        return self._join(space.repair(columns) for space, columns in self._split(population))

    def canonical(self, population: Population) -> Population:
        columns = zip(self._spaces, self._typed(population), strict=True)
        return self._join(space.canonical(part) for space, part in columns)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        return np.asarray(np.all([space.contains(columns) for space, columns in self._split(population)], axis=0))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, self._genes)

    def _genes(self, value: Any) -> Any:
        if not isinstance(value, Mapping) or set(value) != {name for name, _ in self.parts}:
            raise InvalidCandidate(f"a value must be a dict with exactly the names {[name for name, _ in self.parts]}")
        return self._join(space.encode([value[name]]) for name, space in self.parts)[0]

    def decode(self, row: NDArray[Any]) -> dict[str, Any]:
        columns = self._typed(row[None])
        return {name: space.decode(part[0]) for (name, space), part in zip(self.parts, columns, strict=True)}

    def _every_row(self, limit: int) -> Population:
        return self._join(side_by_side([space.enumerate(limit) for space in self._spaces]))

    def _near(self, row: NDArray[Any]) -> Population:
        starts = np.cumsum([0, *(space.dimension for space in self._spaces)])
        moves = [space.neighbors(part[0]) for space, part in self._split(row[None])]
        return np.concatenate([spliced(row, start, near) for start, near in zip(starts, moves, strict=False)])

    def features(self, population: Population) -> NDArray[np.float64]:
        columns = zip(self._spaces, self._typed(population), strict=True)
        return np.concatenate([space.features(part) for space, part in columns], axis=1)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        pairs = zip(self._spaces, self._typed(first), self._typed(second), strict=True)
        return np.asarray(np.sum([space.distance(a, b) for space, a, b in pairs], axis=0))

    @property
    def latent_dimension(self) -> int:
        return sum(space.latent_dimension for space in self._spaces)

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        stops = np.cumsum([space.latent_dimension for space in self._spaces])[:-1]
        parts = zip(self._spaces, np.split(latent, stops, axis=1), strict=True)
        return self._join(space.from_latent(part) for space, part in parts)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        columns = zip(self._spaces, self._typed(population), strict=True)
        return np.concatenate([space.to_latent(part) for space, part in columns], axis=1)
