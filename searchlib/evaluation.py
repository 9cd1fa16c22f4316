"""Where chunks of the score table are computed: in this process, on worker processes or on a cluster.

The *chunk* (some candidate rows × some case columns) is the atom of evaluation, commit and retry. Its extent comes
from the objective alone and it runs with a fixed number of threads, so results do not depend on how many workers
there are.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import Self, final

from searchlib.arguments import real_number, whole_number
from searchlib.cases import Cases, Split
from searchlib.chunks import Chunk, ChunkScores, failed_chunk, joined, score_chunk
from searchlib.devices import checked_devices
from searchlib.errors import InvalidSettings
from searchlib.executors import PROCESSES, DaskExecutor, RayExecutor, abandon, all_of, arrived, died, sent
from searchlib.objective import Objective
from searchlib.space import Population
from searchlib.worker import TOGETHER, Columns, Task, columns_of, limited, work

__all__ = ["Evaluator"]

logger = logging.getLogger("searchlib")

#: How much the last chunk counts in what is known of their seconds.
_RECENT = 0.05


@final
class Evaluator:
    """Runs chunks of an opened objective, in this process or on joblib workers.

    Arguments:
        objective: pickled as a recipe for the workers before anybody has entered it; they enter their own copy.
        workers: 1 evaluates in process; more start that many processes, or what the caller's own
            ``joblib.parallel_config`` names.
        threads: BLAS and OpenMP threads per chunk, the same for any number of workers.
        timeout: seconds per candidate, after which its worker is killed and the candidate failed; needs workers.
        devices: GPUs, each for one worker process that sees no other.
    """

    def __init__(
        self, objective: Objective, *, workers: int = 1, threads: int = 1, timeout: float | None = None,
        devices: Sequence[int | str] | None = None,
    ) -> None:  # fmt: skip
        workers, threads = whole_number("workers", workers, 1, 10_000), whole_number("threads", threads, 1, 10_000)
        self._devices = () if devices is None else checked_devices(devices, workers)
        workers = len(self._devices) or workers
        if timeout is not None:
            real_number("timeout, greater than 0 seconds,", timeout, "(0, inf)")
        if timeout is not None and workers == 1:
            raise InvalidSettings(
                f"timeout={timeout} can only be kept by killing a worker process, but workers=1 evaluates in this one; "
                "pass workers=2 or more"
            )
        self._objective, self.workers, self._threads, self._timeout = objective, workers, threads, timeout
        # Pickled before anybody enters it: what an objective installs on entry stays in its own process.
        self._recipe = _pickled(objective) if workers > 1 else b""
        self._key = f"{hashlib.blake2b(self._recipe, digest_size=16).hexdigest()} on {threads} threads"
        self._stack = ExitStack()
        self._usual: dict[Split, float] = {}  # seconds of a cell; until something is known, each chunk goes alone

    def __enter__(self) -> Self:
        self._stack.enter_context(limited(self._threads))
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

        Raises:
            WorkersLost: a cluster has gone away.
        """
        if not chunks:
            return
        if self.workers == 1:
            for chunk in chunks:
                yield score_chunk(self._objective, rows[chunk.row : chunk.row_end], columns_of(cases, chunk), chunk)
            return
        dead = []
        tasks = [self.task(rows[chunk.row : chunk.row_end], split, chunk, order) for chunk in chunks]
        for task, scores in self._on_workers(tasks):
            if isinstance(scores, Exception):
                dead.append(task)
            else:
                usual, seconds = self._usual.get(split, TOGETHER), scores.seconds / _cells(task)
                self._usual[split] = usual + (seconds - usual) * _RECENT
                yield scores
        if dead:
            logger.warning("a worker died; running its %d unfinished chunks one by one", len(dead))
        yield from map(self.alone, dead)

    def task(self, rows: Population, split: Split, chunk: Chunk, order: Columns | Cases | None = None) -> Task:
        """A chunk as workers take it."""
        return Task(self._key, self._recipe, rows, split, chunk, order, self._threads, self._timeout)

    def alone(self, task: Task) -> ChunkScores:
        """Run one chunk with nothing beside it, so that a dying worker names the guilty rows."""
        start = time.perf_counter()
        ((_, scores),) = self._on_workers([task])
        if not isinstance(scores, Exception):
            return scores
        chunk, seconds = task.chunk, time.perf_counter() - start
        if len(task.rows) > 1:
            starts = range(chunk.row, chunk.row_end)
            singles = [Chunk(row, row + 1, chunk.case, chunk.case_end) for row in starts]
            parts = [replace(task, rows=task.rows[i : i + 1], chunk=one) for i, one in enumerate(singles)]
            return joined([self.alone(part) for part in parts], chunk)
        # The watchdog ends its process with status 1; that a worker is slow to start is not the candidate's doing.
        other = "exit codes" in str(scores) and "EXIT(1)" not in str(scores)
        late = self._timeout is not None and seconds >= self._timeout and not other
        why = f"took longer than timeout={self._timeout} s" if late else "killed its worker process"
        return failed_chunk(chunk, f"the candidate {why}", seconds)

    def _on_workers(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, ChunkScores | Exception]]:
        """Each task with its scores, or with the death of its worker."""
        executor = self.executor()
        if executor is None:
            yield from self._by_joblib(tasks)
            return
        local = not isinstance(executor, ThreadPoolExecutor | DaskExecutor | RayExecutor)
        while tasks:
            submitted = {sent(executor, some): some for some in (self._together(tasks) if local else zip(tasks))}
            left: list[Task] = []
            try:
                for future in all_of(executor, submitted):
                    came, some = arrived(executor, future), submitted[future]
                    if isinstance(came, Exception):
                        yield from ((task, came) for task in some)
                    else:
                        yield from zip(some, came, strict=False)
                        left += some[len(came) :]  # it took longer than it should have
            finally:
                abandon(executor, submitted)
            tasks = left

    def _together(self, tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
        """Short chunks go to a worker several at a time, fewer and fewer, so that all workers end at the same time.

        Guided self-scheduling (Polychronopoulos and Kuck, IEEE Transactions on Computers C-36, 1987).
        """
        usual, start = self._usual.get(tasks[0].split, TOGETHER), 0
        while start < len(tasks):
            seconds = max(usual * _cells(tasks[start]), TOGETHER / len(tasks))
            size = min(max(1, int(TOGETHER / seconds)), max(1, (len(tasks) - start) // (2 * self.workers)))
            yield tasks[start : start + size]
            start += size

    def _by_joblib(self, tasks: Sequence[Task]) -> Iterator[tuple[Task, ChunkScores | Exception]]:
        import joblib

        parallel = joblib.Parallel(n_jobs=self.workers, return_as="generator_unordered", batch_size=1)
        waiting = {task.chunk: task for task in tasks}
        try:
            for (scores,) in parallel(joblib.delayed(work)((task,)) for task in tasks):
                yield waiting.pop(scores.chunk), scores
        except Exception as error:
            if not died(error):
                raise
            for task in waiting.values():
                yield task, error

    def executor(self) -> Executor | None:
        """The workers, as what takes one task after the other; those of the ``joblib.parallel_config`` around it all.

        None where joblib hides them. (Its own ``Parallel`` waits for good when a worker of dask's dies.)

        Raises:
            InvalidSettings: a time-out, and threads, which cannot be killed.
        """
        from joblib.parallel import get_active_backend  # costs more than all of searchlib, and only workers need it

        backend, _ = get_active_backend(prefer="processes")
        name = type(backend).__name__
        if name == "LokyBackend":
            variables = dict.fromkeys(backend.MAX_NUM_THREADS_VARS, str(self._threads))
            return PROCESSES.given(self.workers, variables, self._devices)
        if self._devices:
            raise InvalidSettings(
                f"devices={list(self._devices)} are for worker processes of this machine, but joblib's backend here is "
                f"{name}, whose workers see the GPUs that they were started with; leave devices=… out"
            )
        if name == "ThreadingBackend":
            if self._timeout is not None:
                raise InvalidSettings(
                    f"timeout={self._timeout} can only be kept by killing a worker process, but joblib's backend here "
                    f"is threads; leave timeout=… out, or use processes"
                )
            return ThreadPoolExecutor(self.workers)
        if name == "DaskDistributedBackend":
            return DaskExecutor(backend.client)
        return RayExecutor() if name == "RayBackend" else None


def _cells(task: Task) -> int:
    return len(task.rows) * (task.chunk.case_end - task.chunk.case)


def _pickled(objective: Objective) -> bytes:
    import cloudpickle

    try:
        return bytes(cloudpickle.dumps(objective))
    except Exception as error:
        raise InvalidSettings(
            f"{type(objective).__name__} cannot be sent to worker processes ({error}); make it pickle as a recipe "
            f"(how to load its model, not the model), or pass workers=1"
        ) from error
