"""Candidates that have been told before."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.history import History, Told
from searchlib.scoretable import ScoreTable
from searchlib.seeded_population import as_seeded
from searchlib.space import Population, Space, row_keys

__all__ = ["Known", "told"]


@final
class Known:
    """Remembers where every candidate was told first, so that duplicates are answered instead of evaluated."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._position: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._position)

    def find(self, population: Population) -> NDArray[np.int64]:
        """For every row its first position in the history, or -1; shape ``(n,)``."""
        return np.array([self._position.get(key, -1) for key in self._keys(population)], np.int64)

    def add(self, population: Population, start: int) -> NDArray[np.int64]:
        """Note that these rows are told at positions ``start…``; for duplicates their first position, else -1."""
        source = np.full(len(population), -1)
        for index, key in enumerate(self._keys(population)):
            first = self._position.setdefault(key, start + index)
            if first != start + index:
                source[index] = first
        return source

    def _keys(self, population: Population) -> list[bytes]:
        seeded = as_seeded(population)
        if seeded is not None:
            return seeded.keys()
        return row_keys(self._space.canonical(population))


def told(
    ids: NDArray[np.int64], population: Population, source: NDArray[np.int64], table: ScoreTable, history: History
) -> Told:
    """What is told about a batch: the table's rows for new candidates, the history's for duplicates.

    Arguments:
        ids: shape ``(n,)``.
        population: shape ``(n, d)``.
        source: shape ``(n,)``, from :meth:`Known.add`.
        table: scores of the new rows, in order.
        history: everything told before.
    """
    fresh = source < 0
    columns = (table.values, table.secondary, table.standard_error, table.status, table.stopped)
    if fresh.all():
        return Told(ids, population, *columns[:4], fresh, tuple(table.errors), table.stopped, table.cached)
    behind = len(history)
    # A new row lies behind the history; a duplicate points into the history or at an earlier new row.
    place = np.cumsum(fresh) - 1 + behind
    place = np.where(fresh, place, np.where(source < behind, source, place[np.maximum(source - behind, 0)]))
    past = (history.values, history.secondary, history.standard_error, history.status, history.stopped)
    pairs: Any = zip(past, columns, strict=True)
    values, secondary, error, status, stopped = (np.concatenate(pair)[place] for pair in pairs)
    texts = iter(table.errors)
    errors = tuple(next(texts) if new else "" for new in fresh)
    cached = np.zeros(len(ids), np.bool_)
    cached[fresh] = table.cached
    return Told(ids, population, values, secondary, error, status, fresh, errors, stopped, cached)
