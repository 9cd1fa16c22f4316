"""Spaces in which every part gets one of several options and linear budgets hold."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Population, Space

__all__ = ["AllocationSpace", "unit_of_sums"]


class AllocationSpace(Space):
    """A space whose rows hold one option per part (head, layer, tensor), under linear budgets.

    What an additive profile, the knapsack solver and :class:`searchlib.ExactAllocation` need to know about a space,
    whatever its candidates mean: a row of shape ``(parts,)`` holds the index of the option of every part, costs add up
    over the parts, and every budget is an upper limit. ``searchlib.spaces.Allocation`` is the plain one.
    """

    @property
    @abstractmethod
    def part_names(self) -> tuple[str, ...]:
        """One distinct name per part, in the order of the genes."""

    @property
    @abstractmethod
    def option_names(self) -> tuple[str, ...]:
        """One name per option; all parts share the list (:attr:`allowed_array` says which of them a part may have)."""

    @property
    @abstractmethod
    def costs_array(self) -> NDArray[np.float64]:
        """What an option of a part costs of every budget, shape ``(budgets, parts, options)``."""

    @property
    @abstractmethod
    def budgets_array(self) -> NDArray[np.float64]:
        """The upper limits of the summed costs, shape ``(budgets,)``."""

    @property
    @abstractmethod
    def allowed_array(self) -> NDArray[np.bool_]:
        """Which options each part may have, shape ``(parts, options)``."""

    @property
    @abstractmethod
    def groups(self) -> tuple[int, ...] | None:
        """The group (layer) of every part, for :attr:`max_distinct`; None: all parts are one group."""

    @property
    @abstractmethod
    def max_distinct(self) -> int | None:
        """The most different options within a group; None: no limit."""

    @property
    @abstractmethod
    def unlimited(self) -> AllocationSpace:
        """The same parts and options without budgets and without :attr:`max_distinct`, with identical rows.

        A profile asks for one part at a time in it.
        """

    @final
    def cost_of(self, population: Population) -> NDArray[np.float64]:
        """What each row costs of every budget, shape ``(n, budgets)``.

        A sum that only rounding lifts above its budget is given as the budget: costs such as ``bits / parts``
        have no exact binary form, so that 4 bits everywhere may sum to more than 4.0.
        """
        costs, budgets = self.costs_array, self.budgets_array
        parts, options = self.allowed_array.shape
        index = np.asarray(population).astype(np.intp) + np.arange(parts) * options
        sums = np.empty((len(index), len(budgets)))
        for number, cost in enumerate(costs):
            sums[:, number] = cost.ravel().take(index).sum(axis=1)
        over = sums - budgets
        return np.where((over > 0) & (over <= parts * unit_of_sums(costs, budgets)), budgets, sums)

    @final
    def one_hot(self, population: Population) -> NDArray[Any]:
        """An indicator per part and option, shape ``(n, parts, options)``."""
        return np.asarray(population[:, :, None] == np.arange(self.allowed_array.shape[1]))


def unit_of_sums(costs: NDArray[np.float64], budgets: NDArray[np.float64]) -> NDArray[np.float64]:
    """The spacing of numbers in which sums of costs are exact in float64, a power of two per budget, ``(budgets,)``.

    ``parts`` of these are less than 1e-10 of the largest sum for every number of parts below 10^5.
    """
    if not len(budgets):
        return np.empty(0)
    reach = np.maximum(np.abs(costs).max(axis=2).sum(axis=1), np.abs(budgets))
    return np.asarray(np.where(reach > 0, np.exp2(np.ceil(np.log2(np.where(reach > 0, reach, 1.0))) - 50), 1.0))
