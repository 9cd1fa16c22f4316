"""The smoke search of the expert-pruning benchmark, killed ten times."""

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

DRIVER = """
import sys
from benchmarks.expert_pruning import PRESETS, small_objective
from searchlib import Search

preset = PRESETS["smoke"]
run = Search(small_objective(preset, preset.settings[0]), budget=52, seed=0, batch_size=4, study=sys.argv[1])
print("ready", flush=True)
for record in run:
    if not record.replayed:
        print(record.evaluations, flush=True)
result = run.result()
print(run.history.digest, result.value, result.holdout.value)
"""


def start(study):
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(study)], stdout=subprocess.PIPE, text=True, cwd=ROOT,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip


@pytest.mark.slow
def test_ten_kills_at_random_moments_leave_no_trace_in_the_history(tmp_path):
    output, _ = start(tmp_path / "whole.db").communicate()
    reference = output.splitlines()[-1]
    assert len(reference.split()) == 3
    rng, kills = np.random.default_rng(0), 0
    for _ in range(10):
        process = start(tmp_path / "killed.db")
        assert process.stdout is not None
        for _ in range(1 + int(rng.integers(0, 2))):  # "ready", and perhaps a batch
            process.stdout.readline()
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills == 10
    output, _ = start(tmp_path / "killed.db").communicate()
    assert output.splitlines()[-1] == reference
