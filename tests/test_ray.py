"""Searches on a cluster of Ray's."""

import os
import signal
from pathlib import Path

import joblib
import numpy as np
import pytest

from searchlib import Cases, Objective, RandomSearch, search
from searchlib.cases import Split
from searchlib.spaces import Subset

ray = pytest.importorskip("ray", reason="ray is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own


@pytest.fixture(scope="module", autouse=True)
def two_workers():
    from ray.util.joblib import register_ray

    here = Path(__file__).parent
    paths = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": paths}})
    register_ray()
    with joblib.parallel_config(backend="ray"):
        yield
    ray.shutdown()


class Sums(Objective):
    """Sums of a subset; some candidates kill their worker."""

    direction = "maximize"
    space = Subset(12, k=3)
    chunk_rows = 2

    def __init__(self, killer=None):
        self.killer = killer

    def cases(self, split):
        return Cases.of([1.0, 2.0]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        if any(kept[0] == self.killer for kept in candidates):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([[sum(kept) * case for case in cases.payload] for kept in candidates])


def test_the_history_is_that_of_one_process():
    found = search(Sums(), RandomSearch(), budget=60, workers=2, batch_size=12)
    alone = search(Sums(), RandomSearch(), budget=60, batch_size=12)
    assert found.history.evaluations == 60
    assert found.history.digest == alone.history.digest


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_candidate_that_kills_its_worker_fails_and_the_search_goes_on(asynchronous):
    size = {} if asynchronous else {"batch_size": 10}
    result = search(
        Sums(killer=4), RandomSearch(), budget=10, workers=2, max_failures=30, asynchronous=asynchronous, seed=1, **size
    )
    guilty = [Sums.space.decode(row)[0] == 4 for row in result.history.population]
    assert sum(guilty) == 1
    assert np.isnan(result.history.values[:, 0]).tolist() == guilty
    assert [error for error in result.history.errors if error] == ["the candidate killed its worker process"]
