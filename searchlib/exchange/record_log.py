"""What every tracker shares: records are logged as they pass by, because a loop is a loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from searchlib.algorithms.algorithm import Status
from searchlib.loop import Search
from searchlib.result import Record

__all__ = ["RecordLog", "passed_on", "record_numbers", "search_settings"]

#: Characters of a setting that a tracker is given.
_LIMIT = 500


class RecordLog(ABC):
    """An open log of one search."""

    @abstractmethod
    def write(self, step: int, numbers: dict[str, float]) -> None:
        """Log named numbers at a number of evaluations."""

    @abstractmethod
    def close(self, failed: bool) -> None:
        """Nothing more comes; ``failed`` says whether the search has raised."""


def passed_on(records: Iterable[Record], start: Callable[[], RecordLog], replayed: bool) -> Iterator[Record]:
    """Yield every record after it was logged; those read from a study only with ``replayed``.

    The log is begun with the first step of the loop and closed with the last one, also where the loop is left early.
    """
    log, failed = start(), True
    try:
        for record in records:
            if replayed or not record.replayed:
                log.write(record.evaluations, record_numbers(record))
            yield record
        failed = False
    except GeneratorExit:  # the user has left the loop
        failed = False
        raise
    finally:
        log.close(failed)


def record_numbers(record: Record) -> dict[str, float]:
    """What is logged of a record; numbers that are not known are left out.

    Example:
        >>> from searchlib import Search
        >>> from searchlib.spaces import Binary
        >>> numbers = record_numbers(next(iter(Search(sum, space=Binary(2), budget=4, batch_size=4))))
        >>> numbers["best_value"], numbers["batch/max"], numbers["batch/failed"]
        (0.0, 2.0, 0.0)
    """
    done = record.values[record.status == Status.DONE]
    numbers = {"best_value": record.best_value}
    for objective in range(done.shape[1] if len(done) else 0):
        name = f"_{objective}" if done.shape[1] > 1 else ""
        column = done[:, objective]
        numbers |= {
            f"batch/mean{name}": float(column.mean()),
            f"batch/min{name}": float(column.min()),
            f"batch/max{name}": float(column.max()),
        }
    numbers |= {
        "batch/candidates": float(len(record.ids)),
        "batch/failed": float(np.sum(record.status == Status.FAILED)),
        "batch/seconds": record.seconds,
        "cache_hits": float(record.hits),
    }
    return {name: float(number) for name, number in numbers.items() if math.isfinite(number)}


def search_settings(records: Iterable[Record]) -> dict[str, str]:
    """How a search is set up, where the records are a :class:`~searchlib.Search` itself; nothing of other iterables."""
    if not isinstance(records, Search):
        return {}
    settings = {
        "objective": type(records.objective).__name__,
        "space": repr(records.objective.space),
        "direction": repr(records.objective.direction),
        "algorithm": repr(records.algorithm),
        "budget": repr(records.budget),
        "seed": repr(records.seed),
    }
    return {name: text if len(text) <= _LIMIT else f"{text[: _LIMIT - 1]}…" for name, text in settings.items()}
