"""Records of a search as a run of Weights & Biases."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, final

import wandb

from searchlib.arguments import flag
from searchlib.exchange.record_log import RecordLog, passed_on, search_settings
from searchlib.result import Record

__all__ = ["track_wandb"]


def track_wandb(records: Iterable[Record], *, replayed: bool = True, **init: Any) -> Iterator[Record]:
    """Pass records on and log each to a new run of ``wandb.init(**init)``.

    What is logged are the numbers of :func:`track_tensorboard` and ``evaluations``, which is the axis of all of them.
    The settings of the search are the run's config, where ``records`` is the :class:`~searchlib.Search` itself; a
    ``config=`` of your own is added. The run is finished with the loop, as failed where the search raises.

    Arguments:
        records: a :class:`~searchlib.Search`, or any iterable of its records.
        replayed: whether batches that a resumed search reads from its study are logged too.
        init: for ``wandb.init``, for example ``project="prune"``, ``mode="offline"``.
    """
    settings = {**search_settings(records), **(init.pop("config", None) or {})}

    def start() -> RecordLog:
        return _WandbRun(wandb.init(config=settings, **init))

    return passed_on(records, start, flag("replayed", replayed))


@final
class _WandbRun(RecordLog):
    def __init__(self, run: Any) -> None:
        self._run = run
        run.define_metric("*", step_metric="evaluations")

    def write(self, step: int, numbers: dict[str, float]) -> None:
        self._run.log({"evaluations": step, **numbers})

    def close(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))
