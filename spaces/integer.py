"""Whole numbers within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.space import Population, Space
from searchlib.spaces import chance
from searchlib.spaces.arguments import flag, fraction, whole
from searchlib.spaces.codec import stack
from searchlib.spaces.interval import Interval
from searchlib.spaces.listing import digits, one_changed

__all__ = ["Integer"]

# Well within what floats tell apart on either scale and in the relaxation.
LARGEST = 2**40


@final
@dataclass(frozen=True)
class Integer(Space):
    """Whole numbers from ``low`` to ``high``, both included. A value is an int, or a tuple of ``length`` ints.

    Mutation moves each gene with probability 1/length, at least one, by a two-sided geometric step, at least 1,
    reflected at the bounds. Crossover takes each gene from either parent. In the relaxation 0 is the middle and
    one unit a quarter of the range, clipped at the bounds. Use :class:`Categorical` for options without an order.

    A neighbor has one number one less or one more.

    Arguments:
        low, high: inclusive bounds within ±2**40.
        length: number of genes; a value is a tuple where it is greater than 1.
        log: sample, step and relax on a logarithmic scale; needs ``low >= 1``.
        scale: mean step of mutation as a fraction of the range, in (0, 1].

    Raises:
        InvalidSettings: not whole numbers, ``low > high``, or ``log`` with ``low < 1``.

    Example:
        >>> steps = Integer(5, 50)
        >>> steps.size, steps.encode([20]).tolist(), steps.decode(np.array([7]))
        (46, [[20]], 7)
    """

    low: int
    high: int
    length: int = 1
    _: KW_ONLY
    log: bool = False
    scale: float = 0.1

    def __post_init__(self) -> None:
        for name in ("low", "high"):
            object.__setattr__(self, name, whole(name, getattr(self, name), low=-LARGEST, high=LARGEST))
        object.__setattr__(self, "length", whole("length", self.length))
        object.__setattr__(self, "scale", fraction("scale", self.scale))
        if self.low > self.high:
            raise InvalidSettings(f"`low <= high` must hold, but got (low={self.low}, high={self.high})")
        if flag("log", self.log) and self.low < 1:
            raise InvalidSettings(f"`low >= 1` must hold with log=True, but got (low={self.low}, high={self.high})")

    @property
    def _cells(self) -> Interval:
        """Every number is the middle of a cell of width 1, so that the ends are as likely as the rest."""
        return Interval(self.low - 0.5, self.high + 0.5, self.log)

    @property
    def dimension(self) -> int:
        return self.length

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int64)

    @property
    def size(self) -> float:
        return int((self.high - self.low + 1) ** self.length)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        if self.log:
            return self.repair(self._cells.draw(rng, (n, self.length)))
        return rng.integers(self.low, self.high, (n, self.length), endpoint=True)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        changed = self.canonical(population)
        if self.low < self.high:
            mask = chance.hits(rng, len(population), self.length, 1 / self.length)
            changed[mask] = self._step(rng, changed[mask])
        return changed

    def _step(self, rng: np.random.Generator, genes: NDArray[np.int64]) -> NDArray[np.int64]:
        # A rounded two-sided exponential step is a two-sided geometric one.
        moved = self.repair(self._cells.move(genes, rng.laplace(0, self.scale, genes.shape)))
        side = np.where(chance.coins(rng, genes.shape), 1, -1)
        side = np.where((genes + side > self.high) | (genes + side < self.low), -side, side)
        return np.where(moved == genes, genes + side, moved)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return np.where(chance.coins(rng, first.shape), first, second)

    def repair(self, population: Population) -> Population:
        return np.rint(np.clip(population.astype(np.float64), self.low, self.high)).astype(np.int64)

    def canonical(self, population: Population) -> Population:
        return np.array(population, np.int64)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        inside = (population >= self.low) & (population <= self.high) & (population == np.floor(population))
        return np.asarray(inside.all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, (lambda value: [value]) if self.length == 1 else tuple)

    def decode(self, row: NDArray[Any]) -> int | tuple[int, ...]:
        value = tuple(row.astype(np.int64).tolist())
        return value[0] if self.length == 1 else value

    def _every_row(self, limit: int) -> Population:
        del limit
        return np.asarray(self.low + digits((self.high - self.low + 1,) * self.length))

    def _near(self, row: NDArray[Any]) -> Population:
        beside = row[:, None] + np.array([-1, 1])
        return one_changed(row, beside, (beside >= self.low) & (beside <= self.high))

    def features(self, population: Population) -> NDArray[np.float64]:
        """The latent coordinates: where each number lies on its scale, within ±2."""
        return self.to_latent(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Sum of the differences, each as a fraction of the range on its scale."""
        return np.asarray(self._cells.apart(first, second).sum(axis=1))

    @property
    def latent_dimension(self) -> int:
        return self.length

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return self.repair(self._cells.from_latent(latent))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return self._cells.to_latent(population)
