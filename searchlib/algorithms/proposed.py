"""What a run has proposed already, so that no candidate is proposed twice."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Evidence
from searchlib.key_table import KeyTable
from searchlib.space import Population, Space, row_keys

__all__ = ["Proposed"]

#: How often samples may turn out to be known before the space counts as exhausted.
_SAMPLINGS = 32
#: The most samples that are looked at in one go for the last few unknown candidates of a space.
_WIDEST = 4096


@final
class Proposed:
    """The candidates that a run knows: those it proposed, and strangers that it was told about.

    Arguments:
        space: what may vary.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._keys = KeyTable()

    def __len__(self) -> int:
        return len(self._keys)

    def note_strangers(self, evidence: Evidence) -> None:
        """Know the candidates of some evidence that came from elsewhere (negative ids)."""
        strangers = evidence.ids < 0
        if strangers.any():
            self._keys.claim(row_keys(self._space.canonical(evidence.population[strangers])))

    def restore(self, rows: Population) -> None:
        """Know the rows that another run proposed."""
        for start in range(0, len(rows), _WIDEST):
            self.claim(rows[start : start + _WIDEST])

    def claim(self, rows: Population, limit: int | None = None) -> Population:
        """The first ``limit`` canonical rows that were unknown, each once; from now on they are known."""
        places = self.claim_places(rows, limit)
        return rows if len(places) == len(rows) else rows[places]

    def claim_places(self, rows: Population, limit: int | None = None) -> NDArray[np.intp]:
        """Where the rows are that :meth:`claim` returns."""
        return self._keys.claim(row_keys(rows), limit)

    def samples(self, rng: np.random.Generator, n: int) -> Population:
        """Unknown samples of the space, which are known from now on; fewer than ``n`` where it has no more."""
        rows = np.empty((0, self._space.dimension), self._space.dtype)
        for attempt in range(_SAMPLINGS):
            missing = n - len(rows)
            if missing <= 0 or len(self) >= self._space.size:
                break
            # The fewer candidates are left, the more samples it takes to meet one.
            drawn = self._space.sample(rng, min(missing << attempt, max(missing, _WIDEST)))
            rows = np.concatenate([rows, self.claim(self._space.canonical(drawn), missing)])
        return rows
