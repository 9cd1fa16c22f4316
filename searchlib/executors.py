"""What takes chunks: worker processes of this machine, or the cluster that joblib has been told of."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, as_completed, wait
from typing import Any, cast, final

from searchlib.chunks import ChunkScores
from searchlib.devices import DEVICES
from searchlib.errors import WorkersLost
from searchlib.worker import Task, work

__all__ = [
    "PROCESSES", "DaskExecutor", "Processes", "RayExecutor", "Scored", "abandon", "all_of", "arrived", "died",
    "next_of", "sent",
]  # fmt: skip

logger = logging.getLogger("searchlib")

#: What loky, dask and Ray raise for a task whose worker has died or was ended.
_DEATHS = ("BrokenProcessPool", "KilledWorker", "ShutdownExecutorError", "WorkerCrashedError")

#: What dask raises for a task that nobody takes any more.
_GONE = ("ClosedClientError",)

#: What comes back from a worker.
Scored = Future[list[ChunkScores]]

#: Seconds after which worker processes without work end, as in joblib.
_IDLE = 300

#: Seconds without a result after which a cluster is asked whether it has workers.
_LOOK = 30.0


@final
class Processes:
    """The worker processes of this machine, which the next search finds running.

    They are not those that joblib keeps for everybody: its ``Parallel`` breaks where somebody else has started them.
    """

    def __init__(self) -> None:
        self._settings: Any = None
        self._executor: Any = None

    def given(self, workers: int, variables: dict[str, str], devices: tuple[str, ...]) -> Executor:
        """Processes with these environment variables and devices, started where there are none or others."""
        from joblib.externals.loky import ProcessPoolExecutor

        settings = (os.getpid(), workers, variables, devices, tuple(sys.path))  # where they look for modules, too
        if self._settings != settings:
            if self._executor is not None and self._settings[0] == os.getpid():  # else a fork's parent has them
                self._executor.shutdown(wait=False)
            named = {}
            if devices:
                folder = tempfile.mkdtemp(prefix="searchlib-devices-")
                weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
                named = {DEVICES: os.pathsep.join((folder, *devices))}
            self._executor = ProcessPoolExecutor(workers, timeout=_IDLE, env={**variables, **named})
            self._settings = settings
        return cast(Executor, self._executor)

    def kill(self, executor: Executor) -> None:
        """End what is running there, if these are processes.

        loky's own ``shutdown(kill_workers=True)`` stumbles over what waits or was canceled, and then kills nobody.
        """
        if executor is self._executor:
            from joblib.externals.loky.backend.utils import kill_process_tree

            ours: Any = executor
            for process in list(ours._processes.values()):
                kill_process_tree(process)
            self.forget(executor)

    def forget(self, executor: Executor) -> None:
        """Start others for the next task; one of these has died."""
        if executor is self._executor:
            self._settings = self._executor = None


#: Those of this process.
PROCESSES = Processes()


@final
class DaskExecutor(Executor):
    """A cluster of dask's; every task is a new one.

    Arguments:
        client: of the cluster.
    """

    def __init__(self, client: Any) -> None:
        self._client, self._executor = client, client.get_executor(pure=False)
        self._looks = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:  # noqa: D102
        return cast("Future[Any]", self._executor.submit(function, *arguments, **named))

    def look_after(self) -> None:
        """Say that the cluster has no worker; dask itself would wait without a word.

        Raises:
            WorkersLost: the cluster starts its workers itself, and twice in a row expects none. (dask's give up a
                worker that is away 15 seconds after it had died: ``distributed.deploy.lost-worker-timeout``.)
        """
        if self._client.scheduler_info(n_workers=-1)["workers"]:
            self._looks = 0
            return
        self._looks += 1
        cluster = self._client.cluster
        if self._looks > 1 and cluster is not None and not getattr(cluster, "requested", True):
            raise lost("the cluster has given all of its workers up")
        if self._looks == 1:
            logger.warning("the cluster has no worker; waiting for one (Ctrl-C returns the best so far)")


@final
class RayExecutor(Executor):
    """The cluster that ``ray.init`` has found; a task takes one of its cores and is not tried again."""

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:  # noqa: D102
        import ray

        remote = ray.remote(num_cpus=1, max_retries=0)(function)
        return cast("Future[Any]", remote.remote(*arguments, **named).future())


def sent(executor: Executor, tasks: Sequence[Task]) -> Scored:
    """Chunks on their way to one worker; a worker that has died before they were sent is found when it is waited for.

    Raises:
        WorkersLost: the cluster has gone away.
    """
    try:
        return executor.submit(work, tasks)
    except Exception as error:
        if type(error).__name__ in _GONE:
            raise lost() from error
        if not died(error):
            raise
        future: Scored = Future()
        future.set_exception(error)
        return future


def arrived(executor: Executor, future: Scored) -> list[ChunkScores] | Exception:
    """What has come back from a worker: scores, or its death.

    Raises:
        WorkersLost: the cluster has gone away.
    """
    try:
        return future.result()
    except CancelledError as error:
        raise lost() from error
    except Exception as error:
        if not died(error):
            raise
        PROCESSES.forget(executor)
        return error


def lost(why: str = "the workers have gone away (was their scheduler stopped?)") -> WorkersLost:
    """What to raise where nobody is left to work."""
    return WorkersLost(
        f"{why}; what they had finished is kept where there is a study, so start them and search again with the same "
        "study=…"
    )


def all_of(executor: Executor, submitted: Iterable[Scored]) -> Iterator[Scored]:
    """All futures, each as it is done.

    Raises:
        WorkersLost: the cluster has no worker and expects none.
    """
    waiting = set(submitted)
    while waiting:
        try:
            for future in as_completed(waiting, timeout=_LOOK):
                waiting.discard(future)
                yield future
        except TimeoutError:
            _look_after(executor)


def next_of(executor: Executor, submitted: Iterable[Scored]) -> set[Scored]:
    """The futures that are done, at least one.

    Raises:
        WorkersLost: the cluster has no worker and expects none.
    """
    waiting = list(submitted)
    while not (done := wait(waiting, timeout=_LOOK, return_when=FIRST_COMPLETED).done):
        _look_after(executor)
    return done


def _look_after(executor: Executor) -> None:
    if isinstance(executor, DaskExecutor):
        executor.look_after()


def abandon(executor: Executor, submitted: Iterable[Scored]) -> None:
    """Let go of what has not come back; worker processes of this machine that are still busy with it end."""
    busy = [future for future in submitted if not future.cancel() and not future.done()]
    if isinstance(executor, ThreadPoolExecutor):
        executor.shutdown()
    elif busy:
        PROCESSES.kill(executor)


def died(error: Exception) -> bool:
    """Whether a worker is gone, rather than something in it went wrong."""
    return any(kind.__name__ in _DEATHS for kind in type(error).__mro__)
