"""The smallest exchange under budgets: one part a level up, another one a level down."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.allocation_space import AllocationSpace
from searchlib.space import Population

__all__ = ["LevelSwitch"]

#: How often an exchange that breaks a budget is drawn again.
_TRIES = 8


@final
class LevelSwitch:
    """Mutation of allocations by level switches, the move of EvoPress (Sieberling et al., arXiv 2410.14649, section 3).

    One random part moves to its next dearer option and another to its next cheaper one (all budgets taken together), as
    long as every limit holds. A part that is at the end of its options stays, so that one of the two may move alone.

    Arguments:
        space: what may vary.
    """

    def __init__(self, space: AllocationSpace) -> None:
        self._space = space
        allowed, costs = space.allowed_array, space.costs_array
        spread = np.abs(np.where(allowed, costs, 0.0)).max(axis=(1, 2), keepdims=True)
        total = (costs / np.where(spread > 0, spread, 1.0)).sum(axis=0)
        order = np.argsort(np.where(allowed, total, np.inf), axis=1, kind="stable")
        place = np.argsort(order, axis=1)
        last = allowed.sum(axis=1, keepdims=True) - 1
        self._dearer = np.take_along_axis(order, np.minimum(place + 1, last), axis=1)
        self._cheaper = np.take_along_axis(order, np.maximum(np.minimum(place, last) - 1, 0), axis=1)

    def __call__(self, rng: np.random.Generator, rows: Population) -> Population:
        """One exchange in every row; where none was found, a mutation of the space's own."""
        changed = rows.copy()
        left = np.arange(len(rows))
        for _ in range(_TRIES if rows.shape[1] > 1 else 0):
            trial = self._exchanged(rng, rows[left])
            fits = (trial != rows[left]).any(axis=1) & self._space.contains(trial)
            changed[left[fits]] = trial[fits]
            left = left[~fits]
            if not len(left):
                return changed
        changed[left] = self._space.mutate(rng, rows[left])
        return changed

    def _exchanged(self, rng: np.random.Generator, rows: Population) -> Population:
        trial, index = rows.copy(), np.arange(len(rows))
        up = rng.integers(rows.shape[1], size=len(rows))
        down = (up + rng.integers(1, rows.shape[1], size=len(rows))) % rows.shape[1]
        trial[index, up] = self._moved(self._dearer, rows, up)
        trial[index, down] = self._moved(self._cheaper, rows, down)
        return trial

    @staticmethod
    def _moved(table: NDArray[np.intp], rows: Population, part: NDArray[Any]) -> NDArray[np.intp]:
        return np.asarray(table[part, rows[np.arange(len(rows)), part].astype(np.intp)])
