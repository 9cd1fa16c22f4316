import json

import numpy as np
import pytest

from searchlib import RandomSearch, Study, search
from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.exchange import to_parquet
from searchlib.exchange.tables import history_rows, plain
from searchlib.spaces import ExpertMatrices, Integer, Product, Subset


def total(value):
    if value["keep"][0] == 1:
        raise RuntimeError("one")
    return sum(value["keep"]) / 3 + value["steps"]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "total.db"
    space = Product(keep=Subset(6, k=2), steps=Integer(1, 9))
    search(total, RandomSearch(), space=space, budget=30, study=path, max_failures=100)
    return path


def test_parquet_holds_every_bit_of_the_history(path, tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.read_parquet(to_parquet(path, tmp_path / "total.parquet"))
    with Study.open(path) as study:
        history = study.history()
    assert len(frame) == len(history) > 30  # duplicates too
    np.testing.assert_array_equal(frame["id"], history.ids)
    np.testing.assert_array_equal(frame["value"], history.values[:, 0])
    np.testing.assert_array_equal(np.stack(list(frame["genes"])), history.population)
    decoded = [plain(history.space.decode(row)) for row in history.population]
    assert [json.loads(text) for text in frame["candidate"]] == decoded
    failed = frame["status"] == "FAILED"
    assert failed.any()
    assert frame["error"][failed & frame["fresh"]].str.contains("one").all()


def test_parquet_says_what_was_searched(path, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    written = parquet.read_schema(to_parquet(path, tmp_path / "total.parquet"))
    about = json.loads(written.metadata[b"searchlib"])
    assert about["algorithm"] == repr(RandomSearch())
    assert about["direction"] == "minimize"
    assert about["space"]["space"] == "Product"


def test_several_objectives_are_several_columns(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    search(lambda kept: (kept[0], -kept[1]), space=Subset(5, k=2), direction=("minimize", "maximize"), budget=10,
           study=tmp_path / "two.db")  # fmt: skip
    table = parquet.read_table(to_parquet(tmp_path / "two.db", tmp_path / "two.parquet"))
    assert table.num_rows >= 10
    assert {"value_0", "value_1"} <= set(table.column_names)


def test_a_table_is_never_written_over_its_study(path):
    pytest.importorskip("pyarrow")
    before = path.read_bytes()
    with pytest.raises(InvalidSettings, match="is the study itself"):
        to_parquet(path, path)
    assert path.read_bytes() == before


def test_a_folder_that_does_not_exist_is_said(path, tmp_path):
    pytest.importorskip("pyarrow")
    with pytest.raises(InvalidSettings, match="its folder must exist"):
        to_parquet(path, tmp_path / "nowhere" / "total.parquet")


def test_a_missing_library_names_the_extra(path, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingDependency, match=r"Parquet needs pyarrow: pip install 'searchlib\[report\]'"):
        to_parquet(path, tmp_path / "total.parquet")


def test_rows_and_values_are_json(path):
    with Study.open(path) as study:
        rows = history_rows(study.history())
    assert len(rows) > 30
    assert not all(row["fresh"] for row in rows)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert {row["status"] for row in rows} == {"DONE", "FAILED"}
    matrices = plain(ExpertMatrices(np.eye(2)[None], np.eye(2)[None]))
    assert json.loads(json.dumps(matrices)) == matrices
    assert plain({1: (np.float64(0.5), None, {2})}) == {"1": [0.5, None, "{2}"]}
