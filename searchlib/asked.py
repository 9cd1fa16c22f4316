"""Candidates that were asked for by someone who evaluates outside, and what comes back about them."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Batch, Status
from searchlib.errors import InvalidTell

__all__ = ["Asked"]


@final
class Asked:
    """Remembers what was asked and not told yet, and checks what is told.

    Arguments:
        objectives: how many numbers belong to a candidate.
    """

    def __init__(self, objectives: int) -> None:
        self._objectives = objectives
        self._rows: dict[int, NDArray[Any]] = {}

    def add(self, batch: Batch) -> None:
        """Note a batch; its rows are copied, since the caller may change what it was given."""
        self._rows.update(zip(batch.ids.tolist(), np.array(batch.population), strict=True))

    def take(
        self, ids: Any, values: Any
    ) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.float64], NDArray[np.int8]]:
        """Ids ``(n,)``, rows ``(n, d)``, values ``(n, objectives)`` and status ``(n,)`` of what is told.

        Raises:
            InvalidTell: an id was not asked or is told twice, or a value is infinite or missing; nothing is taken.
        """
        whole, table = _parsed(ids, values)
        if table.shape != (len(whole), self._objectives):
            raise InvalidTell(
                f"tell needs {self._objectives} number(s) for each of {len(whole)} ids, "
                f"but got values of shape {table.shape}"
            )
        if np.isinf(table).any():
            raise InvalidTell(f"values must be finite, or NaN for a failed candidate, but got {table.tolist()!r:.200}")
        unknown = [i for i in whole.tolist() if i not in self._rows]
        if unknown or len(set(whole.tolist())) < len(whole):
            raise InvalidTell(f"these ids were not asked, or have been told already: {unknown or whole.tolist()}")
        failed = np.asarray(np.isnan(table).any(axis=1))
        table[failed] = np.nan
        status = np.where(failed, Status.FAILED, Status.DONE).astype(np.int8)
        return whole, np.stack([self._rows.pop(i) for i in whole.tolist()]), table, status


def _parsed(ids: Any, values: Any) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    try:
        whole = np.atleast_1d(np.asarray(ids))
        table: NDArray[np.float64] = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidTell(f"tell needs ids and numbers, but got {ids!r:.100} and {values!r:.100}") from error
    if whole.dtype.kind not in "iu" or whole.ndim != 1:
        raise InvalidTell(f"ids must be whole numbers, as ask gave them, but are {ids!r:.100}")
    return whole.astype(np.int64), table[:, None] if table.ndim == 1 else np.atleast_2d(table)
