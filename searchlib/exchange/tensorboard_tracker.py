"""Records of a search as curves in TensorBoard."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import final

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from searchlib.arguments import file_path, flag
from searchlib.exchange.record_log import RecordLog, passed_on
from searchlib.result import Record

__all__ = ["track_tensorboard"]


def track_tensorboard(
    records: Iterable[Record], folder: str | Path, *, replayed: bool = True
) -> Iterator[Record]:
    """Pass records on and log each to an event file; ``tensorboard --logdir`` shows the folder. Needs no TensorFlow.

    Curves, over the number of evaluations: ``best_value``; of every batch ``batch/mean``, ``batch/min``, ``batch/max``
    (of several objectives each, ``batch/mean_0`` …), ``batch/candidates``, ``batch/failed``, ``batch/seconds``; and
    ``cache_hits``.

    Arguments:
        records: a :class:`~searchlib.Search`, or any iterable of its records.
        folder: of the run; it is made where there is none.
        replayed: whether batches that a resumed search reads from its study are logged too.

    Example:
        >>> import tempfile
        >>> from searchlib import Search
        >>> from searchlib.spaces import Binary
        >>> run = Search(sum, space=Binary(3), budget=8)
        >>> for record in track_tensorboard(run, tempfile.mkdtemp()):
        ...     last = record.best_value
        >>> last, run.result().best
        (0.0, (0, 0, 0))
    """
    path = file_path("folder", folder)
    return passed_on(records, functools.partial(_EventFile, path), flag("replayed", replayed))


@final
class _EventFile(RecordLog):
    def __init__(self, folder: Path) -> None:
        self._writer = EventFileWriter(str(folder))

    def write(self, step: int, numbers: dict[str, float]) -> None:
        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        self._writer.add_event(Event(step=step, wall_time=time.time(), summary=Summary(value=values)))

    def close(self, failed: bool) -> None:
        del failed
        self._writer.close()
