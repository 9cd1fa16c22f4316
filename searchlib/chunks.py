"""The atom of evaluation, commit and retry: some candidates × some cases; failures are data."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.cases import Cases
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective, Scores
from searchlib.space import Candidates, Population

__all__ = ["Chunk", "ChunkScores", "failed_chunk", "joined", "plan_chunks", "score_chunk"]

logger = logging.getLogger("searchlib")


@final
@dataclass(frozen=True)
class Chunk:
    """Rows ``[row, row_end)`` × cases ``[case, case_end)`` of one batch."""

    row: int
    row_end: int
    case: int
    case_end: int


@final
@dataclass(frozen=True, eq=False)
class ChunkScores:
    """What became of a chunk of r rows and c cases.

    Arguments:
        chunk: which cells.
        values: shape ``(r, c, k)``; NaN where a row is not DONE.
        secondary: shape ``(r, c)``; NaN where the objective gives none.
        status: shape ``(r,)`` of :class:`~searchlib.algorithms.Status`.
        errors: one text per row, empty where nothing went wrong.
        seconds: time the evaluation took.
    """

    chunk: Chunk
    values: NDArray[np.float64]
    secondary: NDArray[np.float64]
    status: NDArray[np.int8]
    errors: tuple[str, ...]
    seconds: float


def plan_chunks(rows: int, cases: int, chunk_rows: int, chunk_cases: int | None) -> list[Chunk]:
    """Cut a table of ``rows`` × ``cases`` into chunks."""
    width = chunk_cases or max(cases, 1)
    return [
        Chunk(row, min(row + chunk_rows, rows), case, min(case + width, cases))
        for row in range(0, rows, chunk_rows)
        for case in range(0, cases, width)
    ]


def score_chunk(objective: Objective, rows: Population, cases: Cases, chunk: Chunk) -> ChunkScores:
    """Evaluate one chunk; whatever the objective raises costs the guilty candidates only.

    A chunk that raises is tried again in halves where memory ran out, else row by row.
    """
    start = time.perf_counter()
    try:
        values, secondary, status, errors = _checked(
            objective.evaluate(Candidates(objective.space, np.array(rows)), cases), len(rows), cases
        )
    except (Exception, SystemExit) as error:  # who leaves the program would leave every program that resumes, too
        if len(rows) > 1:
            step = (len(rows) + 1) // 2 if _out_of_memory(error) else 1
            said = _writable(traceback.format_exception_only(error)[-1].strip())  # its own repr may raise in turn
            logger.warning("a chunk of %d candidates raised (%s); trying it in parts of %d", len(rows), said, step)
            return _in_parts(objective, rows, cases, chunk, step)
        values, secondary, status, errors = _failed(1, len(cases), _writable(traceback.format_exc()))
    return ChunkScores(chunk, values, secondary, status, errors, time.perf_counter() - start)


def failed_chunk(chunk: Chunk, why: str, seconds: float) -> ChunkScores:
    """A chunk of which no row could be evaluated."""
    return ChunkScores(chunk, *_failed(chunk.row_end - chunk.row, chunk.case_end - chunk.case, why), seconds)


_Parts = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int8], tuple[str, ...]]


def _checked(scores: NDArray[Any] | Scores, n: int, cases: Cases) -> _Parts:
    """Bring what an objective returned into one shape, or say what is wrong with it."""
    given = scores if isinstance(scores, Scores) else Scores(scores)
    values = np.asarray(given.values)
    if isinstance(given.values, np.ma.MaskedArray):  # what is masked is no score
        values = np.where(np.broadcast_to(given.values.mask, values.shape), np.nan, values.astype(np.float64))
    if values.dtype.kind not in "fiub" or values.ndim not in (2, 3) or values.shape[:2] != (n, len(cases)):
        raise InvalidSettings(
            f"evaluate must return numbers of shape ({n}, {len(cases)}) or ({n}, {len(cases)}, k) "
            f"for {n} candidates and {len(cases)} cases, but returned shape {values.shape} of {values.dtype}"
        )
    table = values.astype(np.float64).reshape(n, len(cases), -1)
    if given.secondary is None and given.infeasible is None and np.isfinite(table).all():
        return table, np.full((n, len(cases)), np.nan), np.full(n, Status.DONE, np.int8), ("",) * n
    secondary: NDArray[np.float64] = np.full((n, len(cases)), np.nan)
    if given.secondary is not None:
        secondary = np.array(given.secondary, np.float64)
        if secondary.shape != (n, len(cases)):
            raise InvalidSettings(f"secondary must have shape ({n}, {len(cases)}), but has {secondary.shape}")
    status = np.full(n, Status.DONE, np.int8)
    errors = [""] * n
    finite = np.isfinite(table).all(axis=(1, 2))
    if given.secondary is not None:
        finite &= np.isfinite(secondary).all(axis=1)
    if given.infeasible is not None:
        broken = np.asarray(given.infeasible)
        if broken.shape != (n,) or broken.dtype != np.bool_:
            raise InvalidSettings(f"infeasible must be {n} booleans, but is {broken.shape} of {broken.dtype}")
        status[broken] = Status.INFEASIBLE
    for row in np.flatnonzero(~finite & (status == Status.DONE)):
        status[row] = Status.FAILED
        errors[row] = _not_finite(table[row], secondary[row], cases)
    table[status != Status.DONE] = np.nan
    secondary[status != Status.DONE] = np.nan
    return table, secondary, status, tuple(errors)


def _not_finite(values: NDArray[np.float64], secondary: NDArray[np.float64], cases: Cases) -> str:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        return f"the score for case {cases.ids[bad[0]]!r} is {values[bad[0]].tolist()}, but scores must be finite"
    column = int(np.flatnonzero(~np.isfinite(secondary))[0])
    return f"the secondary score for case {cases.ids[column]!r} is {secondary[column]}, but scores must be finite"


def _in_parts(objective: Objective, rows: Population, cases: Cases, chunk: Chunk, step: int) -> ChunkScores:
    parts = []
    for row in range(0, len(rows), step):
        part = Chunk(chunk.row + row, chunk.row + min(row + step, len(rows)), chunk.case, chunk.case_end)
        parts.append(score_chunk(objective, rows[row : row + step], cases, part))
    return joined(parts, chunk)


def joined(parts: Sequence[ChunkScores], chunk: Chunk) -> ChunkScores:
    """Parts of one chunk, put together again."""
    k = max(part.values.shape[2] for part in parts)  # a failed part has one column of NaN, whatever the others have
    values = [np.broadcast_to(part.values, (*part.values.shape[:2], k)) for part in parts]
    return ChunkScores(
        chunk,
        np.concatenate(values),
        np.concatenate([part.secondary for part in parts]),
        np.concatenate([part.status for part in parts]),
        tuple(error for part in parts for error in part.errors),
        sum(part.seconds for part in parts),
    )


def _failed(rows: int, cases: int, why: str) -> _Parts:
    nothing = np.full((rows, cases, 1), np.nan)
    return nothing, nothing[:, :, 0].copy(), np.full(rows, Status.FAILED, np.int8), (why,) * rows


def _writable(text: str) -> str:
    """The same, where nothing but half of a character could not be written anywhere."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
