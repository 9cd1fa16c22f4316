"""Spaces whose rows are those of an allocation, and whose values mean more."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.allocation_space import AllocationSpace
from searchlib.space import Population
from searchlib.spaces.allocation import Allocation

__all__ = ["AllocationView"]


class AllocationView(AllocationSpace):
    """An allocation of options to parts under names of its own: attention plans, plans of bits.

    Rows, operators and budgets are those of :attr:`allocation`. A subclass says what a row means (``encode``,
    ``decode``) and what it is without limits (``unlimited``).
    """

    @property
    @abstractmethod
    def allocation(self) -> Allocation:
        """The plain space with the same rows; computed once."""

    @property
    @final
    def part_names(self) -> tuple[str, ...]:
        return self.allocation.part_names

    @property
    @final
    def option_names(self) -> tuple[str, ...]:
        return self.allocation.option_names

    @property
    @final
    def costs_array(self) -> NDArray[np.float64]:
        return self.allocation.costs_array

    @property
    @final
    def budgets_array(self) -> NDArray[np.float64]:
        return self.allocation.budgets_array

    @property
    @final
    def allowed_array(self) -> NDArray[np.bool_]:
        return self.allocation.allowed_array

    @property
    @final
    def groups(self) -> tuple[int, ...] | None:
        return self.allocation.groups

    @property
    @final
    def max_distinct(self) -> int | None:
        return self.allocation.max_distinct

    @property
    @final
    def dimension(self) -> int:
        return self.allocation.dimension

    @property
    @final
    def dtype(self) -> np.dtype[Any]:
        return self.allocation.dtype

    @property
    @final
    def size(self) -> float:
        return self.allocation.size

    @final
    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return self.allocation.sample(rng, n)

    @final
    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        return self.allocation.mutate(rng, population)

    @final
    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        return self.allocation.crossover(rng, first, second)

    @final
    def repair(self, population: Population) -> Population:
        return self.allocation.repair(population)

    @final
    def canonical(self, population: Population) -> Population:
        return self.allocation.canonical(population)

    @final
    def contains(self, population: Population) -> NDArray[np.bool_]:
        return self.allocation.contains(population)

    @final
    def _every_row(self, limit: int) -> Population:
        return self.allocation.enumerate(limit)

    @final
    def _near(self, row: NDArray[Any]) -> Population:
        return self.allocation.neighbors(row)

    @final
    def features(self, population: Population) -> NDArray[np.float64]:
        return self.allocation.features(population)

    @final
    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        return self.allocation.distance(first, second)

    @property
    @final
    def latent_dimension(self) -> int:
        return self.allocation.latent_dimension

    @final
    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return self.allocation.from_latent(latent)

    @final
    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return self.allocation.to_latent(population)
