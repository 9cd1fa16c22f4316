import html.parser
import json
import re
import sys

import numpy as np
import pytest

from searchlib import (
    NSGA2,
    CaseRacing,
    Cases,
    EvolutionStrategy,
    Objective,
    RandomSearch,
    Search,
    Split,
    Study,
    search,
)
from searchlib.__main__ import main
from searchlib.errors import StudyDamaged
from searchlib.report import write_report
from searchlib.report.page import report_page
from searchlib.spaces import Binary, Integer, Real


class Distances(Objective):
    """Distance to targets, of which a third is held out."""

    space = Integer(0, 60)

    def cases(self, split):
        return Cases(tuple(range(list(Split).index(split), 60, 3)))

    def evaluate(self, candidates, cases):
        return np.abs(candidates.array - np.array(cases.ids)).astype(float)

    def references(self):
        return ("zero",)

    def evaluate_reference(self, name, cases):
        return np.array(cases.ids, float)


class Page(html.parser.HTMLParser):
    """The text of every section, and the data."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.data, self.policy, self._id, self._script = {}, {}, "", "", False
        self.images = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "data-part" in attributes:
            self._id = attributes["id"]
        self._script = attributes.get("id") == "data" if tag == "script" else False
        self.images += tag == "img"
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]

    def handle_data(self, data):
        if self._script:
            self.data, self._script = json.loads(data), False
        elif self._id:
            self.sections[self._id] = self.sections.get(self._id, "") + data


@pytest.fixture
def with_pictures():
    """Asked for by tests that look at pictures; the others do without, for these take most of the time."""


@pytest.fixture(autouse=True)
def _few_pictures(request):
    if "with_pictures" not in request.fixturenames:
        request.getfixturevalue("without_pictures")


def page_of(path):
    with Study.open(path) as study:
        return Page(report_page(study))


def test_a_page_says_what_was_found_and_how_sure_that_is(with_pictures, tmp_path):
    result = search(Distances(), RandomSearch(), budget=30, study=tmp_path / "far.db")
    page = page_of(tmp_path / "far.db")
    assert list(page.sections) == ["masthead", "winner", "heldout", "pictures", "candidates", "failures", "settings",
                                   "reproduce"]  # fmt: skip
    assert str(result.best) in page.sections["winner"]
    assert f"{result.value:.6g}" in page.sections["winner"]
    for row in result.holdout.rows:
        assert f"{row.value:.6g}" in page.sections["heldout"]
        assert f"[{row.interval[0]:.4g}, {row.interval[1]:.4g}]" in page.sections["heldout"]
    assert "winner is better" in page.sections["heldout"]
    assert "30 of 30" in page.sections["masthead"]
    assert "No candidate failed" in page.sections["failures"]
    assert np.__version__ in page.sections["settings"]
    assert "RandomSearch(" in page.sections["reproduce"]
    assert page.data["rows"]["value0"] == pytest.approx(result.history.values[:, 0])
    assert page.images >= 2


def test_the_policy_forbids_everything_but_the_pages_own(tmp_path):
    search(sum, RandomSearch(), space=Binary(4), budget=10, study=tmp_path / "a.db")
    policy = page_of(tmp_path / "a.db").policy
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    for name in ("script-src", "style-src"):
        assert re.fullmatch(r"'sha256-[A-Za-z0-9+/]{43}='", rules[name])
    assert rules["base-uri"] == rules["form-action"] == "'none'"
    assert set(rules) == {"default-src", "img-src", "style-src", "script-src", "base-uri", "form-action"}


def test_a_running_search_has_a_page_with_the_best_so_far(tmp_path):
    batches = iter(Search(Distances(), RandomSearch(), budget=40, batch_size=10, study=tmp_path / "a.db"))
    next(batches)
    page = page_of(tmp_path / "a.db")
    assert "10 of 40" in page.sections["masthead"]
    assert "Best so far" in page.sections["winner"]
    assert f"{min(page.data['rows']['value0']):.6g}" in page.sections["winner"]
    batches.close()


def test_every_failure_is_there_once_with_its_traceback(tmp_path):
    def fragile(x):
        if x % 2:
            raise ValueError(f"odd numbers are bad: {x % 4}")
        return x

    search(fragile, RandomSearch(), space=Integer(0, 40), budget=30, study=tmp_path / "a.db", max_failures=99)
    page = page_of(tmp_path / "a.db")
    text = page.sections["failures"]
    assert "2 different reasons" in text
    assert "Traceback (most recent call last)" in text
    assert text.count("ValueError: odd numbers are bad: 1") >= 1
    assert len(page.data["errors"]) == 2
    assert sum(page.data["rows"]["status"].count(word) for word in ("done", "failed")) == len(page.data["rows"]["id"])


def test_several_objectives_have_a_front_and_named_values(with_pictures, tmp_path):
    search(lambda bits: (sum(bits), -bits[0]), NSGA2(), space=Binary(8), budget=18, study=tmp_path / "a.db",
           direction=("minimize", "minimize"))  # fmt: skip
    page = page_of(tmp_path / "a.db")
    assert "Front" in page.sections["pictures"]
    assert "Hypervolume" in page.sections["pictures"]
    assert [column["label"] for column in page.data["columns"]][3:5] == ["value 0", "value 1"]


def test_raced_candidates_say_that_they_were_stopped(with_pictures, tmp_path):
    search(Distances(), RandomSearch(), budget=50, racing=CaseRacing(), study=tmp_path / "a.db")
    page = page_of(tmp_path / "a.db")
    assert "stopped early" in page.data["rows"]["note"]
    assert "Score table" not in page.sections["pictures"]


def test_candidates_that_are_known_by_their_seed_are_listed(tmp_path):
    search(lambda rows: (rows**2).sum(axis=1), EvolutionStrategy(), space=Real(-1.0, 1.0, length=30), batched=True,
           budget=60, study=tmp_path / "a.db")  # fmt: skip
    page = page_of(tmp_path / "a.db")
    assert len(page.data["rows"]["candidate"]) == len(page.data["rows"]["id"]) >= 60


def test_a_search_in_which_nothing_succeeds_has_a_page(tmp_path):
    def never(bits):
        raise OSError("no")

    run = Search(never, RandomSearch(), space=Binary(4), budget=5, study=tmp_path / "a.db")
    assert [record.evaluations for record in run][-1] == 5
    run.result()
    page = page_of(tmp_path / "a.db")
    assert "No candidate has succeeded yet" in page.sections["winner"]
    assert page.data["rows"]["value0"] == [None] * 5


def test_without_matplotlib_the_page_says_what_to_install(with_pictures, tmp_path, monkeypatch):
    search(sum, RandomSearch(), space=Binary(4), budget=10, study=tmp_path / "a.db")
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, module, None)
    page = page_of(tmp_path / "a.db")
    assert "searchlib[report]" in page.sections["pictures"]
    assert page.images == 0


def test_a_page_that_cannot_be_written_is_said_in_a_sentence(tmp_path, capsys):
    search(sum, RandomSearch(), space=Binary(4), budget=10, study=tmp_path / "a.db")
    assert main(["report", str(tmp_path / "a.db"), "-o", str(tmp_path / "none" / "a.html")]) == 2
    assert "cannot write the report" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none.db")]) == 1
    assert "no study" in capsys.readouterr().err


def test_what_is_no_study_has_no_page(tmp_path):
    (tmp_path / "a.db").write_bytes(b"SQLite? No." * 100)
    with pytest.raises(StudyDamaged):
        write_report(tmp_path / "a.db", tmp_path / "a.html")
    assert not (tmp_path / "a.html").exists()


def test_the_styles_and_scripts_of_a_page_are_in_the_wheel():
    import tomllib
    from pathlib import Path

    root = Path(__file__).parents[2]
    data = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-data"]
    files = {path.name for path in (root / "searchlib" / "report").iterdir() if path.suffix in (".css", ".js")}
    assert files == {"page.css", "page.js"} == set(data["searchlib.report"])
