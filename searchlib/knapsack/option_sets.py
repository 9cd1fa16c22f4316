"""The cheapest choice with at most a few different options within every group of parts."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from searchlib.knapsack.problem import Knapsack

__all__ = ["OptionSets"]

#: Sets of options per group that are all tried; where there are more, a set grows greedily.
_ENUMERATED = 20_000


class _Group(NamedTuple):
    """A group's parts, and what its sets are made of."""

    members: NDArray[np.intp]
    options: NDArray[np.intp]  # allowed for at least one of the parts
    sets: NDArray[np.intp] | None  # (n, size), into options; None: too many


@final
class OptionSets:
    """At given prices the best set of options for every group, each part then taking the cheapest option of the set.

    Arguments:
        problem: with ``max_distinct``.

    Attributes:
        exact: whether all sets are tried in every group.
        groups: number of groups.
    """

    def __init__(self, problem: Knapsack) -> None:
        if problem.max_distinct is None:
            raise ValueError("without max_distinct there are no sets")
        self.size = problem.max_distinct
        self._shape = problem.loss.shape
        self._groups = []
        for members in problem.members():
            options = np.flatnonzero(problem.allowed[members].any(axis=0))
            size = min(self.size, len(options))
            few = math.comb(len(options), size) <= _ENUMERATED
            sets = np.array(list(itertools.combinations(range(len(options)), size))) if few else None
            self._groups.append(_Group(members, options, sets))
        self.exact = all(group.sets is not None for group in self._groups)
        self.groups = len(self._groups)

    @property
    def blocks(self) -> NDArray[np.intp]:
        """The group of every part, numbered from 0, shape ``(parts,)``."""
        blocks = np.empty(self._shape[0], np.intp)
        for number, group in enumerate(self._groups):
            blocks[group.members] = number
        return blocks

    def uncovered(self, problem: Knapsack) -> int | None:
        """A group of which no set has an allowed option for every part; None: there is none, or sets are not tried."""
        for number, group in enumerate(self._groups):
            if group.sets is not None:
                allowed = problem.allowed[np.ix_(group.members, group.options)]
                if not np.logical_or.reduce([allowed[:, column] for column in group.sets.T]).all(axis=0).any():
                    return number
        return None

    def cheapest(self, prices: NDArray[np.float64]) -> NDArray[np.intp]:
        """The oracle: prices ``(parts, options)``, ``+inf`` where not allowed, to a choice ``(parts,)``."""
        choice = np.empty(self._shape[0], np.intp)
        for number, group in enumerate(self._groups):
            choice[group.members] = self.best(number, prices, 1)[0]
        return choice

    def best(self, number: int, prices: NDArray[np.float64], n: int) -> NDArray[np.intp]:
        """The choices of one group's parts with its ``n`` cheapest sets, cheapest first, shape ``(n, members)``."""
        group = self._groups[number]
        own = prices[np.ix_(group.members, group.options)]
        if group.sets is None:
            sets = _grown(own, self.size)[None]
        else:
            totals = _least(own, group.sets).sum(axis=0)
            n = min(n, max(1, int(np.isfinite(totals).sum())))
            sets = group.sets[np.argsort(totals, kind="stable")[:n] if n > 1 else [np.argmin(totals)]]
        chosen = own[:, sets].argmin(axis=2).T  # (n, members), places in the set
        return np.asarray(group.options[np.take_along_axis(sets, chosen, axis=1)])

    def around(self, choice: NDArray[np.intp], prices: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Options that a choice leaves to every part, shape ``(parts, options)``: those that its group has already.

        Where a group has fewer than it may, those that help most at these prices are added.
        """
        allowed = np.zeros(self._shape, bool)
        for group in self._groups:
            own = prices[np.ix_(group.members, group.options)]
            used = np.flatnonzero(np.isin(group.options, choice[group.members]))
            allowed[np.ix_(group.members, group.options[_grown(own, self.size, used)])] = True
        return allowed


def _least(prices: NDArray[np.float64], sets: NDArray[np.intp]) -> NDArray[np.float64]:
    """Of every part the least price in every set, shape ``(parts, sets)``."""
    least = prices[:, sets[:, 0]]
    for column in sets.T[1:]:
        np.minimum(least, prices[:, column], out=least)
    return least


def _grown(prices: NDArray[np.float64], size: int, used: NDArray[np.intp] | None = None) -> NDArray[np.intp]:
    """A set of options to which the one that lowers the sum of prices most is added again and again."""
    chosen = [] if used is None else used.tolist()
    highest = np.where(np.isfinite(prices), prices, -np.inf).max(axis=None)
    finite = np.where(np.isfinite(prices), prices, highest + 1e6 * (1 + abs(highest)))  # parts without one come first
    least = finite[:, chosen].min(axis=1) if chosen else np.full(len(prices), np.inf)
    while len(chosen) < min(size, prices.shape[1]):
        totals = np.minimum(least[:, None], finite).sum(axis=0)
        totals[chosen] = np.inf
        chosen.append(int(np.argmin(totals)))
        least = np.minimum(least, finite[:, chosen[-1]])
    return np.sort(np.array(chosen, np.intp))
