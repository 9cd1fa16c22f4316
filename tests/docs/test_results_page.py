"""The page of all results says what the files of the benchmarks say."""

import json
import re
from xml.etree import ElementTree

import pytest

from benchmarks.results_page import PAGE, PICTURES, RESULTS, SHOWN, main, page, pictures, undated
from benchmarks.table import Table

FILES = sorted(RESULTS.glob("*.json"))
SVG = "{http://www.w3.org/2000/svg}"


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
    monkeypatch.setattr("benchmarks.results_page.PICTURES", tmp_path / "pictures")
    assert main(["--check"]) == 1
    assert "results.md is out of date" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
    (tmp_path / "pictures" / "of_no_file.svg").write_text("<svg/>", encoding="utf-8")
    (tmp_path / "pictures" / "engine.svg").unlink()
    assert main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "engine.svg is out of date" in said
    assert "of_no_file.svg is out of date" in said
    assert main([]) == 0
    assert main(["--check"]) == 0


def test_the_pictures_are_made_of_the_files_of_today():
    late = [name for name, svg in pictures().items() if (PICTURES / name).read_text(encoding="utf-8") != svg]
    assert not late, "run: python -m benchmarks.results_page"
    assert {path.name for path in PICTURES.iterdir()} == set(pictures())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_file_has_a_small_picture_that_the_page_shows_and_describes(path):
    drawing = (PICTURES / f"{path.stem}.svg").read_text(encoding="utf-8")
    assert len(drawing.encode()) < 60_000
    root = ElementTree.fromstring(drawing)
    document = json.loads(path.read_text(encoding="utf-8"))
    texts = {"".join(text.itertext()) for text in root.iter(f"{SVG}text")}
    tasks = {row["task"] for row in document["rows"]} & {text.removesuffix(" (logarithmic)") for text in texts}
    rows = [row for row in document["rows"] if row["task"] in tasks]
    assert 0 < len(list(root.iter(f"{SVG}circle"))) <= len(rows)
    (shown,) = re.findall(rf"^!\[(.+)\]\(pictures/{path.stem}\.svg\)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert shown.replace("\\", "") == root.findtext(f"{SVG}title")


def dots(drawing):
    """Where every dot is, and from where to where every line."""
    root = ElementTree.fromstring(drawing)
    lines = [(float(one.get("x1")), float(one.get("x2"))) for one in root.iter(f"{SVG}line")
             if one.get("class") == "span"]  # fmt: skip
    return [float(one.get("cx")) for one in root.iter(f"{SVG}circle")], lines


def test_a_picture_shows_means_and_ranges_of_each_task_on_its_scale(tmp_path):
    cells = [("easy", "ours", (1.0, 3.0)), ("easy", "theirs <b>", (0.0,)), ("hard", "ours", (5.0,))]
    results_of(tmp_path, "new", cells)
    (drawing,) = pictures(tmp_path).values()
    (ours, theirs, alone), (line,) = dots(drawing)
    low, high = min(theirs, *line), max(line)
    assert (ours - low) / (high - low) == pytest.approx(2 / 3, abs=0.01)
    assert (line[0] - low) / (high - low) == pytest.approx(1 / 3, abs=0.01)
    assert theirs == low < alone < high
    assert "&lt;b&gt;" in drawing
    assert "New: score of 2 methods on 2 tasks" in drawing


def test_values_of_several_orders_are_drawn_by_their_logarithm(tmp_path):
    results_of(tmp_path, "new", [("wide", name, (value,)) for name, value in (("a", 1.0), ("b", 10.0), ("c", 100.0))])
    (drawing,) = pictures(tmp_path).values()
    first, second, third = dots(drawing)[0]
    assert second - first == pytest.approx(third - second, abs=0.2)
    assert "wide (logarithmic)" in drawing


def test_a_picture_says_how_many_tasks_it_leaves_to_the_tables(tmp_path):
    cells = [(f"task {i}", f"method {j}", (float(j),)) for i in range(20) for j in range(20)]
    results_of(tmp_path, "many", cells)
    (drawing,) = pictures(tmp_path).values()
    assert "20 methods on 7 tasks (13 further in the tables)" in drawing
    assert len(dots(drawing)[0]) == 140


def test_missing_values_are_left_out_of_means_and_ranges(tmp_path):
    results_of(tmp_path, "gaps", [("a", "x", (1.0, None)), ("a", "y", (None, 2.0)), ("b", "x", (2.0, 3.0))])
    (drawing,) = pictures(tmp_path).values()
    (x, y, _), (line,) = dots(drawing)
    assert (x, y) == line  # the ends of every task's scale
