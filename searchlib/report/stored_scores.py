"""The score table that a study holds, candidates × cases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.errors import InvalidSettings
from searchlib.study import StoredBatch, Study

__all__ = ["StoredScores", "stored_scores"]


@final
@dataclass(frozen=True, eq=False)
class StoredScores:
    """Scores of candidates on the SEARCH cases, in the order in which they were asked for.

    Arguments:
        ids: of the candidates, shape ``(n,)``.
        scores: shape ``(n, c)``; NaN where a candidate failed, or has not been evaluated yet.
        candidates: how many there are in all.
        cases: how many there are in all.
        columns: numbers of the cases that are here, shape ``(c,)``.
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    candidates: int
    cases: int
    columns: NDArray[np.intp]


def stored_scores(study: Study, *, candidates: int | None = None, cases: int | None = None) -> StoredScores:
    """Read the score table of a study, or an evenly spaced part of it.

    Of a case with several numbers the first is taken. Candidates that were known already are not repeated.

    Arguments:
        study: opened for reading.
        candidates: most rows; None: all.
        cases: most columns; None: all.

    Raises:
        InvalidSettings: the study holds no such table: it was raced or its cases changed (which scores belong to which
            case is then not on file), its scores are recomputed, or there are none yet.
    """
    settings = study.settings
    for name, why in (("racing", "a race gives every candidate cases of its own"),
                      ("case_source", "its cases change from generation to generation")):  # fmt: skip
        if settings.get(name) is not None:
            raise InvalidSettings(f"{study.path.name!r} has no table of scores, because {why}: {settings[name]!r:.80}")
    batches = [batch for batch in study.batches() if batch.fresh.any()]
    if any(batch.digest for batch in batches) or not batches:
        why = "its scores are recomputed and not kept" if batches else "nothing has been evaluated yet"
        raise InvalidSettings(f"{study.path.name!r} has no table of scores: {why}")
    sizes = np.array([int(batch.fresh.sum()) for batch in batches])
    c = int(settings["cases"]["search"][0])
    rows, columns = _spread(int(sizes.sum()), candidates), _spread(c, cases)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ids, parts = [], []
    for number, batch in enumerate(batches):
        mine = rows[(rows >= starts[number]) & (rows < starts[number + 1])] - starts[number]
        if len(mine):
            ids.append(batch.ids[batch.fresh][mine])
            parts.append(_table(study, batch, int(sizes[number]), c)[np.ix_(mine, columns)])
    if all(np.isnan(part).all() for part in parts):
        raise InvalidSettings(f"{study.path.name!r} has no table of scores: no candidate has any yet")
    return StoredScores(np.concatenate(ids), np.concatenate(parts), int(sizes.sum()), c, columns)


def _table(study: Study, batch: StoredBatch, n: int, c: int) -> NDArray[np.float64]:
    """Scores of the new candidates of a batch, shape ``(n, c)``."""
    table = np.full((n, c), np.nan)
    hits = study.hits(batch.number)
    # On file, candidates that an evaluation cache has answered come first.
    order: NDArray[np.intp] = np.arange(n) if hits is None else np.argsort(~hits, kind="stable")
    for found in study.chunks(batch.number):
        chunk = found.chunk
        done = found.status == Status.DONE
        places = order[chunk.row : chunk.row_end][done]
        table[places, chunk.case : chunk.case_end] = found.values[done, :, 0]
    return table


def _spread(n: int, most: int | None) -> NDArray[np.intp]:
    """Positions of all of n things, or of so many evenly spaced ones."""
    if most is None or n <= most:
        return np.arange(n)
    return np.linspace(0, n - 1, most).round().astype(np.intp)
