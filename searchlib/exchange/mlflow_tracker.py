"""Records of a search as a run of MLflow."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import final

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from searchlib.arguments import flag, instance
from searchlib.exchange.record_log import RecordLog, passed_on, search_settings
from searchlib.result import Record

__all__ = ["track_mlflow"]


def track_mlflow(
    records: Iterable[Record],
    experiment: str = "searchlib",
    *,
    run_name: str | None = None,
    tracking_uri: str | None = None,
    replayed: bool = True,
) -> Iterator[Record]:
    """Pass records on and log each to a new run; the run that is active in the program stays what it is.

    Metrics are those of :func:`track_tensorboard`, their step the number of evaluations. Parameters are the settings of
    the search, where ``records`` is the :class:`~searchlib.Search` itself. The run ends as ``FINISHED``, also where the
    loop is left early, and as ``FAILED`` where the search raises.

    Arguments:
        records: a :class:`~searchlib.Search`, or any iterable of its records.
        experiment: its name; it is made where there is none.
        run_name: by default MLflow makes one up.
        tracking_uri: where runs are kept; by default what MLflow is set to.
        replayed: whether batches that a resumed search reads from its study are logged too.
    """
    instance("experiment", experiment, str, "a text")
    settings = search_settings(records)

    def start() -> RecordLog:
        return _MlflowRun(MlflowClient(tracking_uri), experiment, run_name, settings)

    return passed_on(records, start, flag("replayed", replayed))


@final
class _MlflowRun(RecordLog):
    def __init__(self, client: MlflowClient, experiment: str, run_name: str | None, settings: dict[str, str]) -> None:
        known = client.get_experiment_by_name(experiment)
        number = client.create_experiment(experiment) if known is None else known.experiment_id
        self._client = client
        self._run = client.create_run(number, run_name=run_name).info.run_id
        client.log_batch(self._run, params=[Param(name, text) for name, text in settings.items()])

    def write(self, step: int, numbers: dict[str, float]) -> None:
        now = int(1000 * time.time())
        self._client.log_batch(self._run, [Metric(name, number, now, step) for name, number in numbers.items()])

    def close(self, failed: bool) -> None:
        self._client.set_terminated(self._run, "FAILED" if failed else "FINISHED")
