"""The benchmark of workers measures the same work, and its claims can fail."""

import json

import pytest

from benchmarks.__main__ import main
from benchmarks.engine import scaling


@pytest.mark.slow
def test_the_smoke_preset_measures_every_way_and_writes_its_json(tmp_path):
    assert main(["scaling", "--preset", "smoke", "--out", str(tmp_path)]) in (0, 3)
    written = json.loads((tmp_path / "scaling.json").read_text())
    rows = {(row["task"], row["method"]): row["metrics"] for row in written["rows"]}
    ways = {scaling.JOBLIB, scaling.OURS, scaling.JOURNALED, scaling.ASYNCHRONOUS, scaling.JOURNALED_ASYNCHRONOUS}
    for workers in ("1 worker", "2 workers"):
        assert ways <= {method for task, method in rows if task == f"10 ms, {workers}"}
        for way in ways:
            metrics = rows[f"10 ms, {workers}", way]
            assert 0 < metrics["efficiency"]["mean"] <= 1
            assert metrics["evaluations_per_second"]["mean"] <= 100 * int(workers[0])
    assert {method for task, method in rows if "log-normal" in task} == {
        "joblib", "2 at once", "64 at once", scaling.ASYNCHRONOUS, scaling.JOURNALED_ASYNCHRONOUS
    }  # fmt: skip
    assert len(written["claims"]) == 2 * 3 + 1


def test_times_are_log_normal_with_the_mean_that_was_asked_for(monkeypatch):
    taken = []
    monkeypatch.setattr(scaling.time, "sleep", taken.append)
    for candidate in range(4000):
        scaling._Waits(0.02, 1.0)(candidate)
    assert sum(taken) / len(taken) == pytest.approx(0.02, rel=0.1)
    assert max(taken) > 5 * sorted(taken)[2000]
    assert scaling._Waits(0.02)(3) == 3.0
    assert taken[-1] == pytest.approx(0.02)
