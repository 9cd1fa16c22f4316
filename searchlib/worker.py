"""What a worker does: it opens its own copy of an objective once and scores the chunks that it is given."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import math
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import final

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from searchlib.cases import Cases, Split
from searchlib.chunks import Chunk, ChunkScores, score_chunk
from searchlib.devices import take_device
from searchlib.objective import Objective
from searchlib.space import Population

__all__ = ["TOGETHER", "Columns", "Task", "columns_of", "limited", "work"]

#: Seconds of work that a worker process is given at once, of chunks that take less.
TOGETHER = 0.05

#: Positions of cases in their split.
Columns = NDArray[np.intp]


@final
@dataclass(frozen=True, eq=False)
class Task:
    """A chunk to be scored elsewhere.

    Arguments:
        key: names the objective and the number of threads; a worker keeps what it has opened under it.
        recipe: the objective, pickled before anybody entered it.
        rows: candidates of the chunk, shape ``(r, d)``.
        split: whose cases.
        chunk: which cells.
        order: shape ``(c,)``, columns of the split in which the chunk counts, or cases that the split does not have;
            None: all of the split.
        threads: BLAS and OpenMP threads.
        timeout: seconds per candidate, after which the worker ends itself; None: no limit.
    """

    key: str
    recipe: bytes
    rows: Population
    split: Split
    chunk: Chunk
    order: Columns | Cases | None
    threads: int
    timeout: float | None


class _Copies:
    """The copies of one objective that this process has open: as many as it has used at the same time."""

    def __init__(self) -> None:
        self.free: list[Objective] = []
        self.used = 0
        self.stack = ExitStack()


_LOCK = threading.Lock()
_OPEN: dict[str, _Copies] = {}


@atexit.register  # before the interpreter takes away what closing needs
def _close_all() -> None:
    while _OPEN:
        _OPEN.popitem()[1].stack.close()


def work(tasks: Sequence[Task]) -> list[ChunkScores]:
    """Score some chunks, one after the other; after :data:`TOGETHER` it gives back what it has, at least one."""
    start, found = time.perf_counter(), [_worked(tasks[0])]
    for task in tasks[1:]:
        if time.perf_counter() - start >= TOGETHER:
            break
        found.append(_worked(task))
    return found


def _worked(task: Task) -> ChunkScores:
    """Score a chunk with a copy of the objective that nobody else is using; threads of one process never share one."""
    _may_grow()
    with _LOCK:
        take_device()
        objective = _taken(task)
    try:
        return _scored(objective, task)
    finally:
        with _LOCK:
            copies = _OPEN[task.key]
            copies.used -= 1
            copies.free.append(objective)


def _taken(task: Task) -> Objective:
    if task.key not in _OPEN:
        for key in [key for key, copies in _OPEN.items() if not copies.used]:  # of searches that went before
            _OPEN.pop(key).stack.close()
    copies = _OPEN.setdefault(task.key, _Copies())
    if copies.free:
        objective = copies.free.pop()
    else:
        objective = pickle.loads(task.recipe)  # made by this search's own driver a moment ago
        copies.stack.enter_context(objective)
        copies.stack.enter_context(limited(task.threads))
    copies.used += 1
    return objective


def _scored(objective: Objective, task: Task) -> ChunkScores:
    chunk, order = task.chunk, task.order
    if isinstance(order, Cases):
        cases = columns_of(order, chunk)
    else:
        cases = objective.cases(task.split)
        cases = columns_of(cases, chunk) if order is None else cases.take(order[chunk.case : chunk.case_end])
    if task.timeout is None:
        return score_chunk(objective, task.rows, cases, chunk)
    with open(os.devnull, "w") as nowhere:
        # The watchdog is a thread in C: it ends this process even from inside a call that never returns.
        faulthandler.dump_traceback_later(task.timeout * len(task.rows), exit=True, file=nowhere)
        try:
            return score_chunk(objective, task.rows, cases, chunk)
        finally:
            faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """So many threads for BLAS, OpenMP and, where somebody has loaded it, torch.

    torch brings an MKL of its own, which threadpoolctl does not see. Once ``torch.set_num_threads`` has been called,
    that MKL keeps its number whatever OpenMP is told.
    """
    torch = sys.modules.get("torch")
    before = 0 if torch is None else torch.get_num_threads()
    try:
        with threadpoolctl.ThreadpoolController().limit(limits=threads):
            if torch is not None:
                torch.set_num_threads(threads)
            yield
    finally:
        if torch is not None:  # last: of two OpenMP libraries, torch may have been given the other one's number
            torch.set_num_threads(before)


def _may_grow() -> None:
    """Keep loky from ending this worker because it has grown by 300 MB since its first task.

    A model that is loaded is no leak. The worker would be replaced and load its model again, and where warnings are
    errors the one that loky issues ends the thread that manages the workers, so that the search would wait for good.
    """
    from joblib.externals.loky import process_executor

    process_executor._MAX_MEMORY_LEAK_SIZE = math.inf


def columns_of(cases: Cases, chunk: Chunk) -> Cases:
    """The cases of a chunk."""
    if chunk.case == 0 and chunk.case_end == len(cases):
        return cases
    return cases.take(range(chunk.case, chunk.case_end))
