"""Candidates that have been told before."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.history import History, Told
from searchlib.key_table import KeyTable
from searchlib.scoretable import ScoreTable
from searchlib.seeded_population import as_seeded
from searchlib.space import Population, Space, row_keys

__all__ = ["Known", "told"]


@final
class Known:
    """Remembers where every candidate was told first, so that duplicates are answered instead of evaluated."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._first = KeyTable()

    def __len__(self) -> int:
        return len(self._first)

    def find(self, population: Population) -> NDArray[np.int64]:
        """For every row its first position in the history, or -1; shape ``(n,)``."""
        return self._first.find(self._keys(population))

    def add(self, population: Population, start: int) -> NDArray[np.int64]:
        """Note that these rows are told at positions ``start…``; for duplicates their first position, else -1."""
        return self._first.add(self._keys(population), start)

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
    columns: tuple[Any, ...] = (table.values, table.secondary, table.standard_error, table.status, table.stopped)
    if fresh.all():
        values, secondary, error, status, _ = columns
        texts = tuple(table.errors)
        return Told(ids, population, values, secondary, error, status, fresh, texts, table.stopped, table.cached)
    behind = len(history)
    # A new row lies behind the history; a duplicate points into the history or at an earlier new row.
    place = np.cumsum(fresh) - 1 + behind
    place = np.where(fresh, place, np.where(source < behind, source, place[np.maximum(source - behind, 0)]))
    old, new = place < behind, place >= behind
    parts: list[Any] = []
    for name, column in zip(("values", "secondary", "standard_error", "status", "stopped"), columns, strict=True):
        part = np.empty((len(ids), *column.shape[1:]), column.dtype)
        part[old], part[new] = history.at(name, place[old]), column[place[new] - behind]
        parts.append(part)
    values, secondary, error, status, stopped = parts
    told_texts = iter(table.errors)
    errors = tuple(next(told_texts) if new else "" for new in fresh)
    cached = np.zeros(len(ids), np.bool_)
    cached[fresh] = table.cached
    return Told(ids, population, values, secondary, error, status, fresh, errors, stopped, cached)
