"""The page of all results says what the files of the benchmarks say."""

import json
import re

import pytest

from benchmarks.results_page import PAGE, RESULTS, SHOWN, main, page, undated
from benchmarks.table import Table

FILES = sorted(RESULTS.glob("*.json"))


def test_the_page_is_made_of_the_files_of_today():
    same = undated(PAGE.read_text(encoding="utf-8")) == undated(page())  # the difference would fill the screen
    assert same, "run: python -m benchmarks.results_page"


def test_what_is_left_out_of_the_comparison_is_the_dates():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("Committed on ") == len(FILES) > 10
    assert "Committed" not in undated(text)
    assert len(text) - len(undated(text)) < 40 * len(FILES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_claim_of_a_file_is_on_the_page_with_its_verdict(path):
    text = PAGE.read_text(encoding="utf-8").replace("\\", "")
    document = json.loads(path.read_text(encoding="utf-8"))
    assert f"../benchmarks/results/{path.name}" in text
    assert document["claims"]
    for claim in document["claims"]:
        verdict = re.escape("| yes |" if claim["holds"] else "| **no** |")
        assert re.search(rf"^\| {re.escape(claim['claim'])} \|.*{verdict}$", text, re.MULTILINE), claim["claim"]


def test_every_known_file_names_values_that_it_has():
    for name, shown in SHOWN.items():
        if (RESULTS / f"{name}.json").exists():
            rows = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]
            assert set(shown.metrics) <= {metric for row in rows for metric in row["metrics"]}, name


def results_of(folder, name, cells, holds=True):
    table = Table(name, "smoke", 2)
    for task, method, values in cells:
        for value in values:
            table.add(task, method, score=value, seconds=1.0)
    table.claim("one | two", value=1.0, holds=holds, n=2, test="none")
    table.write(folder)


def test_a_new_file_appears_with_its_values_spreads_and_claims(tmp_path):
    results_of(tmp_path, "new_thing", [("easy", "ours", (1.0, 3.0)), ("easy", "theirs", (0.5, 0.5))], holds=False)
    text = page(tmp_path)
    assert "## New thing" in text
    assert "| easy | ours | 2 ± 1.4 | 1 |" in text
    assert "| easy | theirs | 0.5 | 1 |" in text
    assert "0 of 1 claims hold" in text
    assert r"| one \| two | 1 | – |  | 2 | none | **no** |" in text
    assert "python -m benchmarks new_thing --preset smoke --seeds 2 --out benchmarks/results" in text


def test_a_matrix_has_the_shorter_side_across_and_says_what_is_missing(tmp_path):
    cells = [(f"task {i}", method, (float(i),)) for i in range(4) for method in ("a", "b") if (i, method) != (2, "b")]
    results_of(tmp_path, "wide", cells)
    text = page(tmp_path)
    assert "|  | a | b |" in text
    assert "| task 2 | 2 | – |" in text
    assert "| task 3 | 3 | 3 |" in text


def test_a_long_list_says_how_many_rows_are_left_out(tmp_path):
    results_of(tmp_path, "long", [(f"task {i}", f"method {i}", (1.0,)) for i in range(75)])
    text = page(tmp_path)
    assert "15 further rows of this table are in the JSON file." in text
    assert "| method 59 |" in text
    assert "| method 60 |" not in text


def test_a_file_that_is_no_table_is_named(tmp_path):
    (tmp_path / "other.json").write_text('{"something": 1}', encoding="utf-8")
    results_of(tmp_path, "table", [("a", "b", (1.0,))])
    assert "## Other files\n\n- [other.json](../benchmarks/results/other.json)" in page(tmp_path)


def test_a_page_that_is_out_of_date_is_noticed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.results_page.PAGE", tmp_path / "results.md")
    assert main(["--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
