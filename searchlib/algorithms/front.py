"""What nothing dominates, of all that an algorithm was told: the archive of a search with several objectives."""

from __future__ import annotations

from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Evidence, Status
from searchlib.pareto import nondominated, spread
from searchlib.space import Population, Space, row_keys

__all__ = ["Front", "Told", "merged", "told"]

#: Candidates that wait before the front is worked out again.
_WAITING = 1024


class Told(NamedTuple):
    """Candidates that succeeded.

    Arguments:
        rows: shape ``(n, d)``.
        values: shape ``(n, objectives)``, minimized.
        ties: secondary scores (infinite where there are none) and ids, shape ``(n, 2)``.
    """

    rows: Population
    values: NDArray[np.float64]
    ties: NDArray[np.float64]

    def take(self, chosen: NDArray[np.intp] | NDArray[np.bool_]) -> Told:
        """Some of them."""
        return Told(self.rows[chosen], self.values[chosen], self.ties[chosen])


def told(evidence: list[Evidence]) -> Told:
    """What succeeded of one piece of evidence or more."""
    done = np.concatenate([one.status for one in evidence]) == Status.DONE
    secondary = np.concatenate([one.secondary for one in evidence])[done]
    ids = np.concatenate([one.ids for one in evidence])[done]
    return Told(
        np.concatenate([one.population for one in evidence])[done],
        np.concatenate([one.values for one in evidence])[done],
        np.stack([np.where(np.isnan(secondary), np.inf, secondary), ids], axis=1),
    )


def merged(parts: list[Told]) -> tuple[Told, NDArray[np.intp]]:
    """One part of several, ordered by secondary score, then by id, and where each row of it was."""
    whole = Told(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))
    order = np.lexsort(whole.ties.T[::-1])
    return whole.take(order), order


@final
class Front:
    """The nondominated candidates so far; of equal values all are kept, the lower secondary score first.

    Arguments:
        space: of the candidates.
        objectives: how many values a candidate has.
    """

    def __init__(self, space: Space, objectives: int) -> None:
        empty = Told(np.empty((0, space.dimension), space.dtype), np.empty((0, objectives)), np.empty((0, 2)))
        self._front, self._waiting, self._count = empty, [empty], 0

    def add(self, evidence: Evidence) -> None:
        """Note evidence; it counts from the next :meth:`settle` on."""
        self.consider(told([evidence]))

    def consider(self, candidates: Told) -> None:
        """Note candidates that succeeded."""
        self._waiting.append(candidates)
        self._count += len(candidates.rows)
        if self._count >= max(_WAITING, len(self._front.rows)):
            self.settle()

    def best(self, n: int) -> Population:
        """At most ``n`` distinct rows of the front as it was last settled, spread out, best first."""
        first: dict[bytes, int] = {}
        for index, key in enumerate(row_keys(self._front.rows)):
            first.setdefault(key, index)
        distinct = self._front.take(np.array(list(first.values()), np.intp))
        return distinct.rows[spread(distinct.values, n)]

    def settle(self) -> None:
        """Work out the front of all that was noted."""
        if self._count:
            whole, _ = merged([self._front, *self._waiting])
            self._front, self._waiting, self._count = whole.take(nondominated(whole.values)), [], 0
