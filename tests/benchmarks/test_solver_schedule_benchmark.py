"""The benchmark of solver schedules, as short as it gets."""

import dataclasses
import json
import os

import pytest

pytest.importorskip("diffusers")

from benchmarks import solver_schedule
from benchmarks.__main__ import main
from benchmarks.small_diffusion import Recipe


@pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="a whole benchmark in small: make soak")
@pytest.mark.slow
def test_the_smoke_preset_prints_all_rows_and_writes_its_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    recipe = Recipe(steps=40, window=(20, 40), interval=10, betas="linear")
    few = {"noises": 24, "select": 24, "holdout": 48, "control": 48}
    shorter = dataclasses.replace(solver_schedule.PRESETS["smoke"], recipe=recipe, **few)
    monkeypatch.setattr(solver_schedule, "PRESETS", {**solver_schedule.PRESETS, "smoke": shorter})
    assert main(["solver_schedule", "--preset", "smoke", "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "solver_schedule.json").read_text())
    methods = {row["method"] for row in written["rows"] if row["task"] == "4 NFE"}
    assert {"random search", "evolution", "S3 (ours)", "best known solver", "UniPC, best of 48"} <= methods
    by_method = {row["method"]: row["metrics"] for row in written["rows"] if row["task"] == "4 NFE"}
    ours, known = by_method["S3 (ours)"], by_method["best known solver"]
    assert ours["evaluations"]["mean"] == 60
    assert 0 < ours["network_evaluations"]["mean"] < 4 * 60  # evaluations are shared
    assert known["evaluations"]["mean"] > 200  # all of them, from several levels
    assert "S3 (ours)" in capsys.readouterr().out


def test_the_full_preset_says_what_it_needs(tmp_path):
    with pytest.raises(SystemExit, match="--pipeline"):
        main(["solver_schedule", "--preset", "full", "--out", str(tmp_path)])
