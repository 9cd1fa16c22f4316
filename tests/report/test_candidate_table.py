import json

import numpy as np

from searchlib import RandomSearch, Search, search
from searchlib.report.candidate_table import CandidateTable, shown
from searchlib.spaces import Binary, Integer


def test_every_candidate_told_is_a_row_with_what_was_told_about_it():
    def inverse(x):
        return 1 / x

    result = search(inverse, space=Integer(-3, 3), budget=7)
    history, table = result.history, CandidateTable(result.history, ("minimize",))
    rows = table.to_json()["rows"]
    assert len(history) == 7
    assert rows["id"] == history.ids.tolist()
    assert [shown(history.space.decode(row)) for row in history.population] == rows["candidate"]
    failed = rows["status"].index("failed")
    assert rows["candidate"][failed] == "0"
    assert rows["value0"][failed] is None
    assert "ZeroDivisionError" in table.errors[rows["trace"][failed]]
    assert table.counts == (1,)
    done = [place for place in range(7) if place != failed]
    assert np.allclose([rows["value0"][place] for place in done], history.values[done, 0])
    json.dumps(rows, allow_nan=False)


def test_several_values_have_columns_with_their_names_and_best_ends():
    result = search(lambda bits: (sum(bits), bits[0]), space=Binary(3), budget=8, direction=("minimize", "maximize"))
    columns = CandidateTable(result.history, ("minimize", "maximize"), ("size", "first")).to_json()["columns"]
    assert [(column["label"], column["best"]) for column in columns if "best" in column] == [
        ("size", "low"), ("first", "high"),
    ]  # fmt: skip


def test_a_wide_space_and_endless_errors_stay_small():
    def fragile(bits):
        raise ValueError(f"{bits} " + "x" * 50_000)

    run = Search(fragile, RandomSearch(), space=Binary(5000), budget=3, max_failures=9)
    assert [record.evaluations for record in run][-1] == 3
    table = CandidateTable(run.history, ("minimize",))
    assert len(json.dumps(table.to_json())) < 3 * 21_000
    assert len(table.errors) == 3
    assert all(text.startswith("(") and len(text) == 240 for text in table.to_json()["rows"]["candidate"])


def test_a_long_candidate_is_cut_and_an_array_takes_one_line():
    assert len(shown("x" * 1000)) == 240
    assert shown("x" * 1000).endswith("…")
    assert "\n" not in shown(np.zeros((3, 3)))
