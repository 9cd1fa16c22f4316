"""A synchronous search has one history, whoever evaluates: every algorithm, every kind of space, every backend.

Threads and a part of all pairs in every run of the tests, the others with ``make soak`` (``SEARCHLIB_SLOW=1``).
"""

import importlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from searchlib.evaluation import Evaluator

every = importlib.import_module("tests.faults.every_search")
digests = every.digests

MANY = os.environ.get("SEARCHLIB_SLOW") == "1"
PART = "" if MANY else "some"
ROOT = Path(__file__).parents[2]

only_in_soak = pytest.mark.skipif(not MANY, reason="make soak")
pytest.importorskip("cma")
pytest.importorskip("nevergrad")
pytest.importorskip("sklearn")
pytest.importorskip("torch")


@pytest.fixture(scope="module")
def alone():
    """Digests of all pairs, searched in this process alone."""
    found = digests(PART)
    assert {pair.split(" on ")[0] for pair in found} == set(every.ALGORITHMS)
    assert {pair.split(" on ")[1] for pair in found} == set(every.SPACES)
    assert len(found) > (500 if MANY else 45)
    assert len(set(found.values())) > 0.5 * len(found)
    return found


def different(found, alone):
    assert found.keys() == alone.keys()
    return {pair: (found[pair], alone[pair]) for pair in alone if found[pair] != alone[pair]}


def test_chunks_that_come_back_in_any_order_give_the_same_history(alone, monkeypatch):
    """As from workers of which the last one may be the fastest; what comes back is shuffled, so that it surely is."""
    evaluated, rng, moved = Evaluator.run, random.Random(0), 0

    def shuffled(self, *given):
        nonlocal moved
        chunks = list(evaluated(self, *given))
        order = rng.sample(chunks, len(chunks))
        moved += order != chunks
        yield from order

    monkeypatch.setattr(Evaluator, "run", shuffled)
    assert not different(digests(PART), alone)
    assert moved > 3 * len(alone) // 2


@pytest.mark.parametrize("workers", [2, 4, 8] if MANY else [2, 8])
def test_threads_give_the_same_history(alone, workers):
    import joblib

    with joblib.parallel_config(backend="threading"):
        assert not different(digests(PART, workers), alone)


@only_in_soak
@pytest.mark.parametrize("workers", [2, 4, 8])
def test_processes_give_the_same_history(alone, workers):
    assert not different(digests(PART, workers), alone)


@only_in_soak
def test_a_cluster_of_dask_gives_the_same_history(alone):
    distributed = pytest.importorskip("distributed")
    import joblib

    with (
        distributed.LocalCluster(2, threads_per_worker=1, dashboard_address=None, processes=True) as cluster,
        distributed.Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        assert not different(digests(PART, 2), alone)


@only_in_soak
@pytest.mark.parametrize("hash_seed", ["0", "random"])
def test_another_process_with_other_hashes_gives_the_same_history(alone, hash_seed):
    ran = subprocess.run(
        [sys.executable, "-m", "tests.faults.every_search", PART], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert not different(json.loads(ran.stdout), alone)


@only_in_soak
def test_a_study_and_a_cache_change_nothing(alone, tmp_path):
    found = {}
    for pair in alone:
        algorithm, space = pair.split(" on ")
        found[pair] = every.digest(algorithm, space, study=tmp_path / f"{len(found)}.db")
    assert not different(found, alone)
