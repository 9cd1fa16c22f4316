"""A million cheap evaluations in one study: memory, file, resume, and how fast the best is said.

With ``make soak`` (``SEARCHLIB_SLOW=1``), in a process of its own, whose memory is then the search's.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CANDIDATES = 1_000_000
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="make soak"),
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and asks glibc for its free pages"),
]

DRIVER = """
import ctypes, json, os, resource, sys, time
import numpy as np
from searchlib import Cases, Evolution, Objective, RandomSearch, Search
from searchlib.spaces import Binary

weights = np.random.default_rng(0).normal(size=64)

class Cheap(Objective):
    space, direction, chunk_rows, batch_size = Binary(64), "maximize", 10_000, 10_000

    def cases(self, split):
        return Cases((0,)) if split.name == "SEARCH" else Cases.none()

    def evaluate(self, candidates, cases):
        return (candidates.array @ weights)[:, None]

def searched(path, candidates):
    run = Search(Cheap(), algorithm, budget=candidates, seed=1, study=path)
    asking = []
    for record in run:
        start = time.perf_counter()
        for _ in range(100):
            run._spent.best_value
        asking.append((time.perf_counter() - start) / 100)
    start = time.perf_counter()
    result = run.result()
    last = time.perf_counter() - start
    run.close()
    return result, asking, last

def pages():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

def given_back():
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    return pages()

folder, candidates = sys.argv[1], int(sys.argv[2])
algorithm = {"RandomSearch": RandomSearch(), "Evolution": Evolution()}[sys.argv[3]]
searched(f"{folder}/warm.db", 3000)  # what is imported and cached once is not the search's
before = given_back()
start = time.process_time()
result, asking, last = searched(f"{folder}/s.db", candidates)
told = {"cpu": time.process_time() - start, "with what malloc keeps": pages() - before, "grown": given_back() - before}
names = "ids batch population values secondary standard_error status fresh stopped cached".split()
told["arrays"] = sum(getattr(result.history, name).nbytes for name in names)
told["file"] = os.path.getsize(f"{folder}/s.db")
told["asking"], told["result"] = [min(asking[: len(asking) // 4]), min(asking[-len(asking) // 4 :])], last
start = time.process_time()
again, _, _ = searched(f"{folder}/s.db", candidates)
told["resume"] = time.process_time() - start
told["same"] = [again.history.digest == result.history.digest, again.value == result.value, len(result.history)]
print(json.dumps(told))
"""


@pytest.fixture(scope="module", params=["RandomSearch", "Evolution"])
def measured(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("million")
    ran = subprocess.run(
        [sys.executable, "-c", DRIVER, str(folder), str(CANDIDATES), request.param],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=ROOT,
    )  # fmt: skip
    found = json.loads(ran.stdout)
    print(found)
    return {**found, "algorithm": request.param}


def test_the_driver_grows_by_less_than_the_arrays_of_its_history(measured):
    assert measured["arrays"] >= 108 * CANDIDATES
    assert measured["grown"] < measured["arrays"]


def test_a_resumed_study_is_read_fast_and_the_same(measured):
    assert measured["same"] == [True, True, measured["same"][2]]
    assert measured["same"][2] >= CANDIDATES
    assert measured["resume"] < 20 * CANDIDATES / 1e6 + 1


def test_the_file_takes_as_many_bytes_as_is_said(measured):
    """Genes, 35 bytes, and 8 for every cell (docs/reliability.md)."""
    small = 21 if measured["algorithm"] == "Evolution" else 0  # which proposes few at a time, with a row for each batch
    assert 64 + 35 + 8 <= measured["file"] / CANDIDATES < 1.01 * (64 + 35 + 8 + small)


def test_the_best_is_known_without_looking_through_the_history(measured):
    first, last = measured["asking"]
    assert last < 10 * first + 1e-5
    assert measured["result"] < 2
