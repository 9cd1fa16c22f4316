"""What earlier versions have written is read, and gone on with, or refused with a sentence."""

import contextlib
import gzip
import importlib
import json
import math
import re
import sqlite3

import pytest

from searchlib import EvaluationCache, Status, Study, evaluation_cache, search, study
from searchlib.errors import StudyDamaged
from searchlib.space import space_from_json

written = importlib.import_module("tests.compatibility.written")
every = importlib.import_module("tests.faults.every_search")

FILES = sorted(path.name.removesuffix(".gz") for path in written.FOLDER.glob("*.gz"))
STUDIES = [name for name in FILES if not name.startswith("cache")]
HOLDS = {name: held for path in sorted(written.FOLDER.glob("holds-*.json"))
         for name, held in json.loads(path.read_text(encoding="utf-8")).items()}  # fmt: skip


def unpacked(name, folder):
    path = folder / f"{name}.db"
    path.write_bytes(gzip.decompress((written.FOLDER / f"{name}.gz").read_bytes()))
    return path


def current(name):
    return int(name.rpartition("-")[2]) == study.FORMAT


def near(found, held):
    """Whether JSON values are the same, but for the last digits of intervals, which other libraries may compute."""
    if isinstance(held, dict | list):
        keys = held if isinstance(held, dict) else range(len(held))
        return len(found) == len(held) and all(near(found[key], held[key]) for key in keys)
    return found == held or (isinstance(held, float) and math.isclose(found, held, rel_tol=1e-9))


def test_there_are_files_of_todays_formats():
    """Whoever gives a format a new number adds its files; those of the numbers before stay."""
    assert {f"{name}-{study.FORMAT}" for name in written.SEARCHES} <= set(STUDIES) == set(HOLDS)
    assert f"cache-{evaluation_cache._FORMAT}" in FILES


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_of_before_says_what_it_said(name, tmp_path):
    path = unpacked(name, tmp_path)
    before = path.read_bytes()
    if not current(name):
        with pytest.raises(StudyDamaged, match=r"has format \d+, .* searchlib migrate"):
            Study.open(path)
    else:
        with Study.open(path) as opened:
            assert near(written.expected(opened.result()), HOLDS[name])
    assert path.read_bytes() == before
    assert HOLDS[name]["failures"] > 0 < HOLDS[name]["evaluations"]


@pytest.mark.parametrize("name", [name for name in STUDIES if current(name)])
def test_a_study_of_before_goes_on(name, tmp_path):
    """Its algorithm proposes again what is on file, warns of nothing, and evaluates what is new."""
    path, objective = unpacked(name, tmp_path), written.Items()
    settings = written.SEARCHES[name.partition("-")[0]]
    same = search(objective, study=path, max_failures=1000, **settings)
    assert near(written.expected(same), HOLDS[name])
    assert objective.seen == []
    more = search(objective, study=path, max_failures=1000, **{**settings, "budget": settings["budget"] + 20})
    assert more.history.evaluations == HOLDS[name]["evaluations"] + 20
    searched = {row for row, case in objective.seen if case.startswith("search")}
    assert len(searched) == 20
    assert not searched & {row.astype("i8").tobytes() for row in same.history.population}
    assert more.history.population[: len(same.history)].tolist() == same.history.population.tolist()


def test_a_cache_of_before_answers_what_it_knows(tmp_path):
    """The search that has filled it finds there whatever it comes upon again, and evaluates nothing of that."""
    path, objective, settings = unpacked(f"cache-{evaluation_cache._FORMAT}", tmp_path), written.Items(), written.CACHED
    plain = search(written.Items(), max_failures=1000, **settings).history
    with EvaluationCache(path) as cache:
        found = search(objective, cache=cache, max_failures=1000, **settings)
    known = {row.astype("i8").tobytes() for row in plain.population[plain.status != Status.FAILED]}
    searched = {row for row, case in objective.seen if case.startswith("search")}
    assert found.cache_hits > 0.9 * len(known) > 36
    assert len(searched) == settings["budget"]
    assert not searched & known


@pytest.mark.parametrize(
    ("version", "way"),
    [(1, "searchlib migrate"), (study.FORMAT + 1, "use a newer searchlib"), (99, "use a newer searchlib")],
)
def test_another_format_is_refused_by_its_number_and_left_alone(version, way, tmp_path):
    path = unpacked(f"study-{study.FORMAT}", tmp_path)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version={version}")
        connection.commit()
    before, objective = path.read_bytes(), written.Items()
    for read in (Study.open, lambda path: search(objective, study=path, **written.SEARCHES["study"])):
        with pytest.raises(StudyDamaged, match=rf"has format {version}.*format {study.FORMAT}; .*{way}"):
            read(path)
    assert path.read_bytes() == before
    assert objective.seen == []


def test_the_files_say_nothing_of_where_they_were_written():
    for name in FILES:
        data = gzip.decompress((written.FOLDER / f"{name}.gz").read_bytes())
        assert data.startswith(b"SQLite format 3")
        assert not re.search(rb"/(home|root|tmp|work|Users)/", data)


SPACES = json.loads((written.FOLDER / "spaces.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", every.SPACES)
def test_a_space_of_before_is_the_same_space(name):
    """Its JSON is in every study; spaces that get new settings read those that had none."""
    assert space_from_json(SPACES[name]) == every.SPACES[name]
