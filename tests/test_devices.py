"""Every worker sees one GPU."""

import os
import signal
import time
from pathlib import Path

import joblib
import numpy as np
import pytest

from searchlib import Cases, Objective, RandomSearch, search
from searchlib.cases import Split
from searchlib.errors import InvalidSettings
from searchlib.spaces import Subset


class Seen(Objective):
    """Notes which process sees which device when it is opened; one candidate kills its worker."""

    space = Subset(12, k=3)
    chunk_rows = 1

    def __init__(self, folder, killer=None):
        self.folder, self.killer = str(folder), killer

    def __enter__(self):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        (Path(self.folder) / f"{os.getpid()}-{seen}").touch()
        return self

    def cases(self, split):
        return Cases.of([1.0]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        time.sleep(0.02)
        if any(kept == self.killer for kept in candidates):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.array([[float(sum(kept))] for kept in candidates])


def seen(folder):
    """Devices by process, the driver's own left out."""
    pairs = (path.name.split("-", 1) for path in Path(folder).iterdir())
    return {int(pid): device for pid, device in pairs if int(pid) != os.getpid()}


def test_every_worker_has_a_device_of_its_own_and_who_takes_its_place_has_it_next(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (tmp_path / "before").mkdir()
    first = search(Seen(tmp_path / "before"), RandomSearch(), budget=40, devices=[3, "cuda:5"])
    assert first.history.evaluations == 40
    assert sorted(seen(tmp_path / "before").values()) == ["3", "5"]
    (tmp_path / "after").mkdir()
    killer = Seen.space.decode(first.history.population[5])
    second = search(Seen(tmp_path / "after", killer), RandomSearch(), budget=40, devices=[3, 5])
    assert second.history.failures == 1
    found = seen(tmp_path / "after")
    assert len(found) > 2  # others took the place of the dead ones
    assert set(found.values()) == {"3", "5"}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@pytest.mark.parametrize("devices", [[], [0], [1, 1], ["0", "cuda:0"], "01", [True, 2], [0, None], 3])
def test_what_names_no_two_devices_is_refused(devices, tmp_path):
    with pytest.raises(InvalidSettings, match="two GPUs or more"):
        search(Seen(tmp_path), RandomSearch(), budget=4, devices=devices)


def test_there_are_as_many_workers_as_devices(tmp_path):
    with pytest.raises(InvalidSettings, match="workers=3"):
        search(Seen(tmp_path), RandomSearch(), budget=4, devices=[0, 1], workers=3)


def test_other_workers_have_their_own_devices(tmp_path):
    with joblib.parallel_config(backend="threading"), pytest.raises(InvalidSettings, match=r"leave devices=… out"):
        search(Seen(tmp_path), RandomSearch(), budget=4, devices=[0, 1])
