"""Searches on a cluster of dask's."""

import contextlib
import logging
import os
import signal
import threading
import time
from pathlib import Path

import joblib
import numpy as np
import pytest

from searchlib import Cases, Objective, RandomSearch, Search, Study, search
from searchlib.cases import Split
from searchlib.errors import WorkersLost
from searchlib.spaces import Subset

dask = pytest.importorskip("dask", reason="dask is not installed")
distributed = pytest.importorskip("dask.distributed", reason="dask is not installed")

SPACE = Subset(12, k=3)


class Noted(Objective):
    """Sums of a subset; says who opened it, and some candidates kill their worker."""

    direction = "maximize"
    space = SPACE
    chunk_rows = 2

    def __init__(self, folder, killer=None, seconds=0.0):
        self.folder, self.killer, self.seconds = str(folder), killer, seconds

    def __enter__(self):
        (Path(self.folder) / f"opened-{os.getpid()}-{time.monotonic_ns()}").touch()
        return self

    def cases(self, split):
        return Cases.of([1.0, 2.0, 3.0]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        time.sleep(self.seconds)
        if any(kept[0] == self.killer for kept in candidates):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([[sum(kept) * case for case in cases.payload] for kept in candidates])


def opened(folder):
    return [path.name.split("-")[1] for path in Path(folder).glob("opened-*")]


@contextlib.contextmanager
def cluster(workers, given_up="1 hour"):
    with (
        dask.config.set(
            {
                "distributed.scheduler.allowed-failures": 0,  # else four workers die of every guilty one
                # A LocalCluster gives a worker up that is away 15 seconds after it had died, be it the next time.
                "distributed.deploy.lost-worker-timeout": given_up,
            }
        ),
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as made,
        distributed.Client(made),
        joblib.parallel_config(backend="dask"),
    ):  # fmt: skip
        yield made


@pytest.fixture(scope="module")
def two_workers():
    with cluster(2) as made:
        yield made


def test_the_history_is_that_of_one_process_and_every_worker_opens_the_objective_once(two_workers, tmp_path):
    found = search(Noted(tmp_path), RandomSearch(), budget=60, workers=2, batch_size=12)
    pids = opened(tmp_path)
    assert len(pids) == len(set(pids)) == 1 + 2  # the driver, too, where the winner is picked
    alone = search(Noted(tmp_path), RandomSearch(), budget=60, batch_size=12)
    assert found.history.digest == alone.history.digest
    assert found.best == alone.best == (9, 10, 11)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_candidate_that_kills_its_worker_fails_and_the_search_goes_on(two_workers, tmp_path, asynchronous):
    size = {} if asynchronous else {"batch_size": 10}
    objective = Noted(tmp_path, killer=4)
    result = search(
        objective, RandomSearch(), budget=10, workers=2, max_failures=30, asynchronous=asynchronous, seed=1, **size
    )
    guilty = [SPACE.decode(row)[0] == 4 for row in result.history.population]
    assert sum(guilty) == 1
    assert np.isnan(result.history.values[:, 0]).tolist() == guilty
    errors = [error for error, bad in zip(result.history.errors, guilty, strict=True) if bad]
    assert set(errors) == {"the candidate killed its worker process"}


def test_a_worker_that_joins_late_is_used(tmp_path):
    with cluster(1) as made:
        run = Search(Noted(tmp_path, seconds=0.03), RandomSearch(), budget=200, workers=2, asynchronous=True)
        pids = []
        for number, _ in enumerate(run):
            if number == 3:
                pids = opened(tmp_path)
                made.scale(2)
                distributed.get_client().wait_for_workers(2, timeout=60)
        assert run.history.evaluations == 200
        assert len(set(opened(tmp_path))) == len(set(pids)) + 1


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_cluster_that_goes_away_is_said_and_the_study_goes_on_elsewhere(tmp_path, asynchronous):
    size = {} if asynchronous else {"batch_size": 8}
    settings = {"budget": 24, "workers": 2, "study": tmp_path / "study.db", "asynchronous": asynchronous, **size}
    run = Search(Noted(tmp_path, seconds=0.02), RandomSearch(), **settings)

    def iterate(made):
        for number, _ in enumerate(run):
            if number == 1:
                made.close()

    with cluster(2) as made, pytest.raises(WorkersLost, match="search again with the same study"):
        iterate(made)
    run.close()
    with Study.open(tmp_path / "study.db") as study:
        before = study.history()
    assert before.evaluations >= 2
    after = search(Noted(tmp_path, seconds=0.02), RandomSearch(), **{**settings, "workers": 1}).history
    assert after.evaluations == 24
    assert after.ids.tolist()[: len(before)] == before.ids.tolist()
    assert after.values[: len(before)].tolist() == before.values.tolist()


def test_a_cluster_that_has_given_all_workers_up_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("searchlib.executors._LOOK", 0.5)
    everybody = Noted(tmp_path, seconds=0.5)

    def iterate(made):
        for number, _ in enumerate(run):
            if number == 0:  # what dask does with a worker that is away 15 seconds after it had died
                made.sync(made.workers.pop(0).close)

    with cluster(1) as made:
        run = Search(everybody, RandomSearch(), budget=24, workers=2, batch_size=4, study=tmp_path / "study.db")
        with pytest.raises(WorkersLost, match=r"given all of its workers up.*search again with the same study"):
            iterate(made)
        assert run.history.evaluations >= 4


def test_a_cluster_whose_workers_are_still_to_come_is_waited_for_with_a_word(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("searchlib.executors._LOOK", 0.3)
    with cluster(0) as made, distributed.Client(made.scheduler_address) as elsewhere:
        # A client that knows the address alone cannot know whether the scheduler expects workers.
        assert elsewhere.cluster is None
        threading.Timer(1.5, made.scale, [1]).start()
        with joblib.parallel_config(backend="dask", client=elsewhere):
            found = search(Noted(tmp_path), RandomSearch(), budget=8, workers=2, batch_size=4)
    assert found.history.evaluations == 8
    assert [record.message for record in caplog.records if "waiting for one" in record.message] != []
