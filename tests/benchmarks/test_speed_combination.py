"""What is timed is the same combination in all ways."""

from __future__ import annotations

import pytest

from benchmarks.table import Table

pytest.importorskip("torch")
pytest.importorskip("diffusers")

from benchmarks.speed_combination import CombinationSize, measure, report


def test_all_ways_give_the_same_and_are_reported(tmp_path):
    size = CombinationSize(3, (8, 16), batch=2, repetitions=2)
    measured = measure(size, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    assert 0 <= measured["difference"] < 1e-6
    assert measured["one_bytes"] == 4 * measured["weights"] * 4
    assert {len(times) for times in measured["seconds"].values()} == {2}
    assert measured["batch_ratio"] > 0
    assert measured["copy_share"] > 0
    table = Table("demonstration", "smoke", 2)
    report(table, measured)
    assert {row["method"] for row in table.rows()} >= {"loop", "store", "copy"}
    assert len(table.claims) >= 2


def test_mergekit_gives_the_same_where_it_is_installed(tmp_path):
    measured = measure(CombinationSize(3, (8, 16), batch=2, repetitions=1), tmp_path)["mergekit"]
    if isinstance(measured, str):
        pytest.skip(measured)
    assert measured["difference"] < 1e-5
