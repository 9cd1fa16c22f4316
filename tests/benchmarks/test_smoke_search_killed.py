"""The smoke search of the expert-pruning benchmark, killed twice."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

ROOT = Path(__file__).parents[2]

# Every search runs in a process of its own, forked from one that has imported everything: that takes most of the time.
DRIVER = """
import os
import sys
from benchmarks.expert_pruning import PRESETS, small_objective
from searchlib import Search

preset = PRESETS["smoke"]


def search(study):
    run = Search(small_objective(preset, preset.settings[0]), budget=52, seed=0, batch_size=4, study=study)
    print("ready", flush=True)
    for record in run:
        if not record.replayed:
            print(record.evaluations, flush=True)
    result = run.result()
    print(run.history.digest, result.value, result.holdout.value, flush=True)


with small_objective(preset, preset.settings[0]):  # what is imported on the way is imported once
    pass

for line in sys.stdin:
    child = os.fork()
    if not child:
        search(line.strip())
        os._exit(0)
    print("child", child, flush=True)
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


class Searches:
    """Starts searches one after the other."""

    def __init__(self):
        self.process = subprocess.Popen(
            [sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},  # threads would not survive a fork
        )  # fmt: skip

    def start(self, study):
        """The process that searches."""
        assert self.process.stdin is not None
        print(study, file=self.process.stdin, flush=True)
        return int(self.line("child"))

    def line(self, word=""):
        """What follows the word on the next line that begins with it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word):
                return line[len(word) :].strip()
        raise AssertionError(f"the searches ended before they said {word!r}")

    def finished(self, study):
        """The last line of a search that nobody kills."""
        self.start(study)
        last = ""
        while not (line := self.line()).startswith("ended"):
            last = line
        assert line == "ended 0"
        return last


@pytest.mark.slow
def test_kills_at_random_moments_leave_no_trace_in_the_history(tmp_path):
    searches = Searches()
    try:
        reference = searches.finished(tmp_path / "whole.db")
        assert len(reference.split()) == 3
        rng, kills, files = np.random.default_rng(0), 0, 0
        while kills < 2:  # hundreds, at finer moments, in tests/soak
            child = searches.start(tmp_path / f"killed-{files}.db")
            searches.line("ready")
            for _ in range(int(rng.integers(0, 2))):  # perhaps a batch
                searches.line()
            time.sleep(rng.uniform(0, 0.02))
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            killed = int(searches.line("ended")) == signal.SIGKILL
            kills += killed
            if not killed:  # it was faster: what it left is checked, and another one is killed
                assert searches.finished(tmp_path / f"killed-{files}.db") == reference
                files += 1
        assert searches.finished(tmp_path / f"killed-{files}.db") == reference
    finally:
        searches.process.kill()
        searches.process.communicate()
