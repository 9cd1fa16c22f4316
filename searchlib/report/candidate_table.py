"""Everything a search was told, as the columns of a page's table."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.history import History
from searchlib.objective import Direction

__all__ = ["CandidateTable", "last_line", "shown"]

#: Characters of a candidate that the table shows, and of an error text.
_LIMIT, _ERROR_LIMIT = 240, 20_000
#: Error texts that are kept whole; of further ones (candidates may write themselves into them) the last line.
_WHOLE_ERRORS = 1000
#: Genes from which on a candidate's text is made of its beginning only.
_WIDE = 500


def shown(value: Any, limit: int = _LIMIT) -> str:
    """A candidate's typed value in one line."""
    return _line(repr(value), limit)


def last_line(error: str) -> str:
    """What an error says; its last line in a traceback."""
    lines = [line for line in error.strip().splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def _line(text: str, limit: int = _LIMIT) -> str:
    line = re.sub(r"\s*\n\s*", " ", text)
    return line if len(line) <= limit else line[: limit - 1] + "…"


@final
class CandidateTable:
    """One row per candidate told, in the order in which they were told.

    Arguments:
        history: of the search.
        direction: of every value.
        names: what the values are called; empty: they are numbered.

    Attributes:
        errors: every error text once, in the order in which they came first; very long or very many ones are cut.
        counts: how many candidates have each of them.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Binary
        >>> history = search(sum, space=Binary(2), budget=4).history
        >>> CandidateTable(history, ("minimize",)).to_json()["columns"][3]
        {'key': 'value0', 'label': 'value', 'kind': 'number', 'best': 'low'}
    """

    def __init__(self, history: History, direction: Sequence[Direction], names: Sequence[str] = ()) -> None:
        self._history, self._direction = history, direction
        several = len(direction) > 1
        numbered = tuple(f"value {number}" for number in range(len(direction))) if several else ("value",)
        self.names = tuple(names) if len(names) == len(direction) else numbered
        told = history.errors
        texts = list(dict.fromkeys(error for error in told if error))
        places = {error: place for place, error in enumerate(texts)}
        self._error = [places.get(error, -1) for error in told]
        self.errors = tuple(
            text[:_ERROR_LIMIT] if place < _WHOLE_ERRORS else last_line(text) for place, text in enumerate(texts)
        )
        self.counts = tuple(np.bincount([place for place in self._error if place >= 0], minlength=len(texts)).tolist())

    def to_json(self) -> dict[str, Any]:
        """Columns (``key``, ``label``, ``kind``; of a value which end is ``best``; ``minor`` ones do without a small
        screen), ``rows`` by key and ``errors``, whose places are in ``rows["trace"]``.
        """
        history = self._history
        values, error = history.values, history.standard_error
        columns: list[dict[str, Any]] = [
            {"key": "id", "label": "id", "kind": "number"},
            {"key": "batch", "label": "batch", "kind": "number", "minor": True},
            {"key": "status", "label": "status", "kind": "word"},
        ]
        rows: dict[str, list[Any]] = {
            "id": history.ids.tolist(), "batch": history.batch.tolist(),
            "status": [Status(status).name.lower() for status in history.status],
        }  # fmt: skip
        for place, (name, way) in enumerate(zip(self.names, self._direction, strict=True)):
            best = "high" if way == "maximize" else "low"
            columns.append({"key": f"value{place}", "label": name, "kind": "number", "best": best})
            rows[f"value{place}"] = _numbers(values[:, place])
            if not np.isnan(error[:, place]).all():
                columns.append({"key": f"error{place}", "label": "± s.e.", "kind": "number", "minor": True})
                rows[f"error{place}"] = _numbers(error[:, place])
        if not np.isnan(history.secondary).all():
            columns.append({"key": "secondary", "label": "secondary", "kind": "number"})
            rows["secondary"] = _numbers(history.secondary)
        notes = self._notes()
        if any(notes):
            columns.append({"key": "note", "label": "note", "kind": "word"})
            rows["note"] = notes
        columns.append({"key": "candidate", "label": "candidate", "kind": "text"})
        rows["candidate"] = self._candidates()
        if self.errors:
            rows["trace"] = self._error
        return {"columns": columns, "rows": rows, "errors": list(self.errors)}

    def _candidates(self) -> list[str]:
        space = self._history.space
        short = reprlib.Repr()
        short.maxtuple = short.maxlist = short.maxdict = 80
        short.maxstring = short.maxother = _LIMIT
        text = short.repr if space.dimension > _WIDE else repr
        return [
            "known by its seed only" if row is None else _line(text(space.decode(row))) for row in self._history.rows()
        ]

    def _notes(self) -> list[str]:
        history = self._history
        marks = (("known before", ~history.fresh), ("stopped early", history.stopped), ("cached", history.cached))
        notes = [""] * len(history.ids)
        for word, where in marks:
            for place in np.flatnonzero(where):
                notes[place] = f"{notes[place]}, {word}" if notes[place] else word
        return notes


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    """Numbers with the digits that a reader can use, None for NaN and infinity."""
    return [float(f"{value:.9g}") if abs(value) < np.inf else None for value in values.tolist()]
