"""What an algorithm remembers: the best candidates told so far, in order."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Evidence, Status
from searchlib.arguments import check_field, instance, real_number, whole_number
from searchlib.space import Population, Space, distinct

__all__ = ["Archive", "Pool"]


@final
@dataclass(frozen=True)
class Pool:
    """Which archive members may become parents: the best ones, and all that are nearly as good.

    Members that tie with the last one admitted are admitted too, so that the order of equals never matters.

    Arguments:
        at_least: number of best members admitted whatever their values.
        margin: also admit members whose value is within ``margin`` of the best one's (inclusive), in units of the
            objective's value.
    """

    at_least: int = 1
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_field(self, "at_least", whole_number, 1)
        check_field(self, "margin", real_number, "[0, inf]")


@final
class Archive:
    """The ``capacity`` best candidates told so far, sorted by value, then secondary score, then id.

    With ``secondary_weight`` w, what counts as the value is value + w · secondary (a smoother rank than a value of
    few levels, such as an accuracy over a hundred cases). Told evidence waits until :meth:`settle`, so the order of
    tells between two asks has no effect. Failed and infeasible candidates never enter.
    """

    def __init__(self, space: Space, capacity: int, secondary_weight: float = 0.0) -> None:
        instance("Archive(space=…)", space, Space, "a searchlib Space")
        self._capacity = whole_number("Archive(capacity=…)", capacity, 1)
        self._weight = real_number("Archive(secondary_weight=…)", secondary_weight, "[0, inf)")
        self._waiting: list[Evidence] = []
        self.population: Population = np.empty((0, space.dimension), space.dtype)
        self.values: NDArray[np.float64] = np.empty(0)  # what members are ranked by
        self._plain: NDArray[np.float64] = np.empty(0)  # what they were told
        self.secondary: NDArray[np.float64] = np.empty(0)
        self.ids: NDArray[np.int64] = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, evidence: Evidence) -> None:
        """Note evidence; it counts from the next :meth:`settle` on."""
        self._waiting.append(evidence)

    def settle(self) -> None:
        """Merge what was told since the last call."""
        if not self._waiting:
            return
        done = [e.take(e.status == Status.DONE) if (e.status != Status.DONE).any() else e for e in self._waiting]
        self._waiting = []
        population = np.concatenate([self.population, *(e.population for e in done)])
        values = np.concatenate([self.values, *(self._ranked(e) for e in done)])
        plain = np.concatenate([self._plain, *(e.values[:, 0] for e in done)])
        secondary = np.concatenate([self.secondary, *(e.secondary for e in done)])
        ids = np.concatenate([self.ids, *(e.ids for e in done)])
        order = np.lexsort((ids, secondary, values))[: self._capacity]
        self.population, self.values, self._plain = population[order], values[order], plain[order]
        self.secondary, self.ids = secondary[order], ids[order]

    def _ranked(self, evidence: Evidence) -> NDArray[np.float64]:
        values = np.asarray(evidence.values[:, 0])
        return values + self._weight * np.nan_to_num(evidence.secondary) if self._weight else values

    def best(self, n: int) -> Population:
        """The ``n`` best distinct members, shape ``(m, d)``.

        With a ``secondary_weight`` every other one is the next best by its value alone: the blend guides the search,
        but a finalist is in the end judged by its value.
        """
        order = np.arange(len(self))
        if self._weight:
            order = np.stack([order, np.lexsort((self.ids, self.secondary, self._plain))], axis=1).ravel()
        return distinct(self.population[order])[:n].copy()

    def pool(self, pool: Pool) -> Population:
        """The members that ``pool`` admits, best first, shape ``(m, d)``."""
        if not len(self):
            return self.population
        admitted = min(pool.at_least, len(self))
        if pool.margin > 0:
            admitted = max(admitted, int(np.searchsorted(self.values, self.values[0] + pool.margin, side="right")))
        last = self.secondary[admitted - 1]
        ties = (self.secondary == last) | (np.isnan(self.secondary) & math.isnan(last))
        ties &= self.values == self.values[admitted - 1]
        return self.population[: 1 + int(np.flatnonzero(ties)[-1])]
