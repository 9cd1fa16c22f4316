"""Time and memory of a piece of work, and ratios between two ways of doing it."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.table import Table

__all__ = ["Spent", "claim_at_least", "claim_at_most", "in_turn", "peak_megabytes", "threads", "timed"]


class Spent(NamedTuple):
    """What a piece of work took.

    Arguments:
        seconds: on the clock on the wall.
        cpu_seconds: of this process, all its threads together; hardly depends on what else the computer does.
    """

    seconds: float
    cpu_seconds: float

    def per(self, count: int) -> Spent:
        """Of one of so many equal parts."""
        return Spent(self.seconds / count, self.cpu_seconds / count)


def timed(work: Callable[[], Any]) -> Spent:
    """Do it once."""
    start, used = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - start, time.process_time() - used)


def in_turn(works: Mapping[str, Callable[[int], Any]], repetitions: int) -> Iterator[tuple[str, Spent]]:
    """Time several works again and again, each time beginning with the next one.

    A busy spell of the computer then hits all of them alike. Each work gets the number of the repetition.
    """
    names = list(works)
    for repetition in range(repetitions):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            gc.collect()  # what others left behind is not this one's to clear away
            yield name, timed(lambda name=name, repetition=repetition: works[name](repetition))  # type: ignore[misc]


def peak_megabytes(work: Callable[[], Any]) -> float | None:
    """Do it once: how far resident memory rises above what it is now; None where the system (not Linux) hides that."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = _status_megabytes("VmRSS")
    except OSError:
        work()
        return None
    work()
    return _status_megabytes("VmHWM") - before


def _status_megabytes(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(dict(line.split(":", 1) for line in lines)[field].split()[0]) / 1024


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Give torch so many threads for a while."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def claim_at_least(
    table: Table, sentence: str, theirs: Sequence[float], ours: Sequence[float], bound: float, what: str
) -> None:
    """Claim that the median of theirs is at least ``bound`` times the median of ours, measured in pairs."""
    ratios = np.array(theirs) / np.array(ours)
    value = float(np.median(theirs) / np.median(ours))
    table.claim(
        sentence, value=value, bound=bound, interval=(ratios.min(), ratios.max()), n=len(ratios),
        test=f"ratio of the medians of {what}, interval from the least to the largest paired ratio",
        holds=value >= bound,
    )  # fmt: skip


def claim_at_most(table: Table, sentence: str, values: Sequence[float], bound: float, what: str) -> None:
    """Claim that the median stays below a bound."""
    median = float(np.median(values))
    table.claim(
        sentence, value=median, bound=bound, interval=(min(values), max(values)), n=len(values),
        test=f"median of {what}, interval from the least to the largest", holds=median <= bound,
    )  # fmt: skip
