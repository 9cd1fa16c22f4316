"""One of several named options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import shown
from searchlib.errors import InvalidSettings
from searchlib.space import Population, Space
from searchlib.spaces import chance
from searchlib.spaces.arguments import whole
from searchlib.spaces.codec import stack
from searchlib.spaces.listing import digits, one_changed

__all__ = ["Categorical"]


@final
@dataclass(frozen=True)
class Categorical(Space):
    """One of several options per gene, without an order. A value is the option, or a tuple of ``length`` options.

    Mutation changes each gene with probability 1/length, at least one, to another option. Crossover takes each
    gene from either parent. The relaxation holds one score per gene and option; the largest wins. Use
    :class:`Integer` where neighboring options are alike.

    A neighbor has one gene with another option.

    Arguments:
        choices: distinct JSON scalars (str, int, finite float, bool, None), at least 1.
        length: number of genes; a value is a tuple where it is greater than 1.

    Raises:
        InvalidSettings: no choices, equal choices, or a choice that JSON cannot hold.

    Example:
        >>> solver = Categorical(("euler", "heun", "dpm++"))
        >>> solver.encode(["heun"]).tolist(), solver.decode(np.array([2]))
        ([[1]], 'dpm++')
    """

    choices: tuple[str | int | float | bool | None, ...]
    length: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "choices", _distinct(self.choices))
        object.__setattr__(self, "length", whole("length", self.length))

    @property
    def dimension(self) -> int:
        return self.length

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int16 if len(self.choices) <= 2**15 else np.int32)

    @property
    def size(self) -> float:
        return int(len(self.choices) ** self.length)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return rng.integers(len(self.choices), size=(n, self.length), dtype=self.dtype.type)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        changed = self.canonical(population)
        count = len(self.choices)
        if count > 1:
            mask = chance.hits(rng, len(population), self.length, 1 / self.length)
            genes = changed[mask].astype(np.int64)
            changed[mask] = (genes + rng.integers(1, count, len(genes))) % count
        return changed

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return np.where(chance.coins(rng, first.shape), first, second)

    def repair(self, population: Population) -> Population:
        return np.rint(np.clip(population.astype(np.float64), 0, len(self.choices) - 1)).astype(self.dtype)

    def canonical(self, population: Population) -> Population:
        return np.array(population, self.dtype)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        inside = (population >= 0) & (population < len(self.choices)) & (population == np.floor(population))
        return np.asarray(inside.all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        index = {choice: place for place, choice in enumerate(self.choices)}
        if self.length == 1:
            return stack(self, values, lambda value: [index[value]])
        return stack(self, values, lambda value: [index[choice] for choice in value])

    def decode(self, row: NDArray[Any]) -> Any:
        value = tuple(self.choices[gene] for gene in row.astype(np.int64).tolist())
        return value[0] if self.length == 1 else value

    def _every_row(self, limit: int) -> Population:
        del limit
        return digits((len(self.choices),) * self.length).astype(self.dtype)

    def _near(self, row: NDArray[Any]) -> Population:
        options = np.broadcast_to(np.arange(len(self.choices)), (self.length, len(self.choices)))
        return one_changed(row, options, options != row[:, None])

    def features(self, population: Population) -> NDArray[np.float64]:
        """One indicator per gene and option, shape ``(n, length * options)``."""
        one_hot = population[:, :, None] == np.arange(len(self.choices))
        return np.asarray(one_hot.reshape(len(population), self.latent_dimension), np.float64)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        return np.asarray((first != second).sum(axis=1), np.float64)

    @property
    def latent_dimension(self) -> int:
        return self.length * len(self.choices)

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        scores = latent.reshape(len(latent), self.length, len(self.choices))
        return np.asarray(scores.argmax(axis=2), self.dtype)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return 2 * self.features(population) - 1


def _distinct(choices: Any) -> tuple[Any, ...]:
    if isinstance(choices, str) or not isinstance(choices, Sequence):
        raise InvalidSettings(f"choices must be a tuple such as ('euler', 'heun'), but got (choices={shown(choices)})")
    plain = tuple(choice.item() if isinstance(choice, np.generic) else choice for choice in choices)
    for choice in plain:
        scalar = choice is None or isinstance(choice, str | int | float)
        if not scalar or (isinstance(choice, float) and not math.isfinite(choice)):
            raise InvalidSettings(f"choices must be str, bool, None or finite numbers, but one is {shown(choice)}")
    if not plain or len(set(plain)) < len(plain):
        raise InvalidSettings(f"choices must be distinct and at least one, but got (choices={shown(choices)})")
    return plain
