"""Where chunks of the score table are computed: in process or on worker processes; failures are data.

The *chunk* (some candidate rows × some case columns) is the atom of evaluation, commit and retry. Its extent comes
from the objective alone and it runs with a fixed number of threads, so results do not depend on how many workers
there are.
"""

from __future__ import annotations

import contextlib
import faulthandler
import hashlib
import logging
import math
import os
import pickle
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective, Scores
from searchlib.space import Candidates, Population

__all__ = ["Chunk", "ChunkScores", "Evaluator", "plan_chunks", "score_chunk"]

logger = logging.getLogger("searchlib")

#: Positions of cases in their split.
Columns = NDArray[np.intp]


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
            objective.evaluate(Candidates(objective.space, rows), cases), len(rows), cases
        )
    except Exception as error:
        if len(rows) > 1:
            step = (len(rows) + 1) // 2 if _out_of_memory(error) else 1
            logger.warning("a chunk of %d candidates raised (%r); trying it in parts of %d", len(rows), error, step)
            return _in_parts(objective, rows, cases, chunk, step)
        values, secondary, status, errors = _failed(1, len(cases), traceback.format_exc())
    return ChunkScores(chunk, values, secondary, status, errors, time.perf_counter() - start)


@final
class Evaluator:
    """Runs chunks of an opened objective, in this process or on joblib workers.

    Arguments:
        objective: pickled as a recipe for the workers before anybody has entered it; they enter their own copy.
        workers: 1 evaluates in process; more start that many processes, or what the caller's own
            ``joblib.parallel_config`` names.
        threads: BLAS and OpenMP threads per chunk, the same for any number of workers.
        timeout: seconds per candidate, after which its worker is killed and the candidate failed; needs workers.
    """

    def __init__(self, objective: Objective, *, workers: int = 1, threads: int = 1, timeout: float | None = None):
        workers, threads = whole_number("workers", workers, 1), whole_number("threads", threads, 1)
        if timeout is not None and not timeout > 0:
            raise InvalidSettings(f"timeout must be greater than 0 seconds, but is {timeout!r}")
        if timeout is not None and workers == 1:
            raise InvalidSettings(
                "a time-out can only be kept by killing a worker process, but workers=1 evaluates in this one; "
                "pass workers=2 or more"
            )
        self._objective, self._workers, self._threads, self._timeout = objective, workers, threads, timeout
        # Pickled before anybody enters it: what an objective installs on entry stays in its own process.
        self._recipe = _pickled(objective) if workers > 1 else b""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(_limited(self._threads))
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def run(
        self, rows: Population, split: Split, cases: Cases, chunks: Sequence[Chunk],
        order: Columns | Cases | None = None,
    ) -> Iterator[ChunkScores]:
        """Evaluate chunks of a batch, yielding each as it is done (in any order where there are workers).

        With an ``order`` ``(c,)`` of some of the split's columns, ``cases`` are these, and chunks count in it. Cases
        that the split does not have are their own ``order``.
        """
        if self._workers == 1:
            for chunk in chunks:
                yield score_chunk(self._objective, rows[chunk.row : chunk.row_end], _columns(cases, chunk), chunk)
            return
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        waiting = {chunk: rows[chunk.row : chunk.row_end] for chunk in chunks}
        try:
            for scores in self._on_workers(waiting, split, order):
                del waiting[scores.chunk]
                yield scores
        except TerminatedWorkerError:
            logger.warning("a worker died; running its %d unfinished chunks one by one", len(waiting))
            for chunk, part in waiting.items():
                yield self._alone(part, split, chunk, order)

    def _on_workers(
        self, parts: dict[Chunk, Population], split: Split, order: Columns | Cases | None
    ) -> Iterator[ChunkScores]:
        import joblib  # costs more than all of searchlib, and only workers need it

        parallel = joblib.Parallel(
            n_jobs=self._workers, prefer="processes", return_as="generator_unordered", batch_size=1, max_nbytes=None
        )
        key = f"{hashlib.blake2b(self._recipe, digest_size=16).hexdigest()} on {self._threads} threads"
        limit = self._timeout
        yield from parallel(
            joblib.delayed(_score_on_worker)(key, self._recipe, part, split, chunk, order, self._threads, limit)
            for chunk, part in list(parts.items())
        )

    def _alone(self, rows: Population, split: Split, chunk: Chunk, order: Columns | Cases | None) -> ChunkScores:
        """Run one chunk with nothing beside it, so that a dying worker names the guilty rows."""
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        start = time.perf_counter()
        try:
            (scores,) = self._on_workers({chunk: rows}, split, order)
            return scores
        except TerminatedWorkerError:
            if len(rows) > 1:
                starts = range(chunk.row, chunk.row_end)
                singles = [Chunk(row, row + 1, chunk.case, chunk.case_end) for row in starts]
                parts = [self._alone(rows[i : i + 1], split, single, order) for i, single in enumerate(singles)]
                return _joined(parts, chunk)
            seconds = time.perf_counter() - start
            late = self._timeout is not None and seconds >= self._timeout
            why = f"took longer than timeout={self._timeout} s" if late else "killed its worker process"
            return ChunkScores(chunk, *_failed(1, chunk.case_end - chunk.case, f"the candidate {why}"), seconds)


class _Worker:
    """The one objective that this worker process has open."""

    key = ""
    objective: Objective | None = None
    stack = ExitStack()


def _score_on_worker(
    key: str, recipe: bytes, rows: Population, split: Split, chunk: Chunk, order: Columns | Cases | None, threads: int,
    timeout: float | None,
) -> ChunkScores:  # fmt: skip
    _may_grow()
    if _Worker.key != key or _Worker.objective is None:
        _Worker.objective = None
        _Worker.stack.close()
        objective: Objective = pickle.loads(recipe)  # made by this search's own driver a moment ago
        _Worker.stack.enter_context(objective)
        _Worker.stack.enter_context(_limited(threads))
        _Worker.objective, _Worker.key = objective, key
    if isinstance(order, Cases):
        cases = _columns(order, chunk)
    else:
        cases = _Worker.objective.cases(split)
        cases = _columns(cases, chunk) if order is None else cases.take(order[chunk.case : chunk.case_end])
    if timeout is None:
        return score_chunk(_Worker.objective, rows, cases, chunk)
    with open(os.devnull, "w") as nowhere:
        # The watchdog is a thread in C: it ends this process even from inside a call that never returns.
        faulthandler.dump_traceback_later(timeout * len(rows), exit=True, file=nowhere)
        try:
            return score_chunk(_Worker.objective, rows, cases, chunk)
        finally:
            faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _limited(threads: int) -> Iterator[None]:
    """So many threads for BLAS, OpenMP and, where somebody has loaded it, torch.

    torch brings an MKL of its own, which threadpoolctl does not see. Once ``torch.set_num_threads`` has been called,
    that MKL keeps its number whatever OpenMP is told.
    """
    torch = sys.modules.get("torch")
    before = 0 if torch is None else torch.get_num_threads()
    with threadpoolctl.ThreadpoolController().limit(limits=threads):
        if torch is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)


def _may_grow() -> None:
    """Keep loky from ending this worker because it has grown by 300 MB since its first task.

    A model that is loaded is no leak. The worker would be replaced and load its model again, and where warnings are
    errors the one that loky issues ends the thread that manages the workers, so that the search would wait for good.
    """
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf


def _pickled(objective: Objective) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(objective))
    except Exception as error:
        raise InvalidSettings(
            f"{type(objective).__name__} cannot be sent to worker processes ({error}); make it pickle as a recipe "
            f"(how to load its model, not the model), or pass workers=1"
        ) from error


def _columns(cases: Cases, chunk: Chunk) -> Cases:
    if chunk.case == 0 and chunk.case_end == len(cases):
        return cases
    return cases.take(range(chunk.case, chunk.case_end))


_Parts = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int8], tuple[str, ...]]


def _checked(scores: NDArray[Any] | Scores, n: int, cases: Cases) -> _Parts:
    """Bring what an objective returned into one shape, or say what is wrong with it."""
    given = scores if isinstance(scores, Scores) else Scores(np.asarray(scores))
    values = np.asarray(given.values)
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
        status[np.asarray(given.infeasible, np.bool_)] = Status.INFEASIBLE
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
    return _joined(parts, chunk)


def _joined(parts: Sequence[ChunkScores], chunk: Chunk) -> ChunkScores:
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


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
