"""A damaged study is never gone on from in silence: it says where it is damaged, and what is sound can be saved."""

import contextlib
import importlib
import json
import os
import re
import sqlite3
from typing import Any

import numpy as np
import pytest

from searchlib import CaseRacing, Cases, EvaluationCache, LocalSearch, Study, search
from searchlib.__main__ import main
from searchlib.errors import StudyDamaged, StudyError, StudyMismatch
from searchlib.repair import repaired

masks = importlib.import_module("tests.faults.test_faulty_disks")
Masks: Any = masks.Masks
SETTINGS = masks.SETTINGS

MANY = os.environ.get("SEARCHLIB_SLOW") == "1"

#: Bytes of a damaged page, which no table begins with.
JUNK = b"\xde\xad" * 2048


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study, its result and the cells that it has evaluated."""
    path, objective = tmp_path_factory.mktemp("whole") / "s.db", Masks()
    result = search(objective, study=path, **SETTINGS)
    return path.read_bytes(), result, set(objective.seen)


@pytest.fixture
def study(whole, tmp_path):
    path = tmp_path / "s.db"
    path.write_bytes(whole[0])
    return path


def change(path, statement, *values):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        done = connection.execute(statement, values).rowcount
        connection.commit()
    return done


#: What is damaged, by name: a statement, and whether cells have to be evaluated again.
DAMAGE = {
    "the scores of a chunk in the middle": (
        "UPDATE chunk SET scores = zeroblob(length(scores)) WHERE batch = 4 AND row = 6", True
    ),
    "what was told of a batch in the middle": ("UPDATE told SET vals = zeroblob(length(vals)) WHERE batch = 3", False),
    "the candidates of a batch in the middle": (
        "UPDATE batch SET population = zeroblob(length(population)) WHERE number = 5", True
    ),
    "how many a batch in the middle was asked for": ("UPDATE batch SET asked = asked + 1 WHERE number = 5", True),
    "a missing batch": ("DELETE FROM batch WHERE number = 6", True),
    "the scores of a reference": ("UPDATE reference SET scores = zeroblob(length(scores))", False),
    "how the search ended": ("UPDATE setting SET value = '{}' WHERE name = 'result'", False),
    "every fourth chunk": ("UPDATE chunk SET seconds = seconds + 1 WHERE batch % 4 = 1", True),
}  # fmt: skip


def refusal(path):
    """What a search and a reader say of a damaged study."""
    said = set()
    for use in (lambda: search(Masks(), study=path, **SETTINGS), lambda: read(path)):
        with contextlib.suppress(StopIteration):
            try:
                use()
            except StudyDamaged as error:
                said.add(str(error))
    return said


def read(path):
    with Study.open(path) as opened:
        opened.history()
        opened.result()
        list(opened.chunks(4))


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_sound_of_a_damaged_study_goes_on_to_the_same_history(name, study, whole, tmp_path):
    statement, again = DAMAGE[name]
    assert change(study, statement) >= 1
    assert refusal(study), "nobody has noticed"
    damaged, (_, result, cells) = study.read_bytes(), whole
    repair, objective = repaired(study, tmp_path / "sound.db"), Masks()
    assert study.read_bytes() == damaged
    assert repair.left_out >= 1
    assert repair.candidates <= len(result.history)
    gone_on = search(objective, study=repair.path, **SETTINGS)
    assert gone_on.history.digest == result.history.digest
    assert gone_on.holdout.to_json() == result.holdout.to_json()
    assert (0 < len(objective.seen) < len(cells)) if again else not objective.seen


def test_a_damaged_row_is_named_with_its_table_and_batch(study):
    change(study, "UPDATE told SET vals = zeroblob(length(vals)) WHERE batch = 3")
    with Study.open(study) as opened, pytest.raises(StudyDamaged) as refused:
        opened.history()
    assert "in the table 'told' of '3'" in str(refused.value)
    assert "searchlib repair s.db -o sound.db" in str(refused.value)


def test_a_page_that_cannot_be_read_hides_what_lies_on_it_and_nothing_else(tmp_path):
    """Wherever the junk lies, the study is repaired to the same history, or refused with a sentence."""
    settings, outcomes = {**SETTINGS, "budget": 480}, []
    expected = search(Masks(), study=tmp_path / "whole.db", **settings).history
    data = (tmp_path / "whole.db").read_bytes()
    for page in range(1, len(data) // 4096, 1 if MANY else 3):
        damaged, sound = tmp_path / f"{page}.db", tmp_path / f"{page} sound.db"
        damaged.write_bytes(data[: page * 4096] + JUNK + data[(page + 1) * 4096 :])
        try:
            outcomes.append(repaired(damaged, sound).candidates)
        except (StudyDamaged, StudyError) as refused:
            outcomes.append(str(refused))
            continue
        assert search(Masks(), study=sound, **settings).history.digest == expected.digest
    saved = [candidates for candidates in outcomes if isinstance(candidates, int)]
    assert len(saved) > 0.7 * len(outcomes) > 7
    assert np.median(saved) > 0.4 * len(expected)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE setting SET value = 'null' WHERE name = 'space'", "space"),
        ("DELETE FROM setting WHERE name = 'seed'", "seed"),
        ("UPDATE array SET shape = '[1, 64]' WHERE name = 'seeds'", "seeds"),
        ("INSERT INTO array VALUES ('hjts 4', '|b1', '[1]', x'01', 7)", "whose some of its scores are"),
        ("INSERT INTO memo VALUES (1, 'made', 'a rewrite', '\"worse\"', 7)", "what a language model wrote"),
    ],
)
def test_what_nobody_can_make_again_is_not_made_up(statement, named, study, tmp_path):
    assert change(study, statement) == 1
    with pytest.raises(StudyDamaged, match=rf"cannot be repaired, .* lost: {named}; go on from another copy"):
        repaired(study, tmp_path / "sound.db")
    assert not (tmp_path / "sound.db").exists()


def test_a_sound_study_is_copied_whole(study, whole, tmp_path):
    repair = repaired(study, tmp_path / "copy.db")
    assert (repair.left_out, repair.candidates) == (1, len(whole[1].history))  # how it ended is found out anew
    objective = Masks()
    assert search(objective, study=repair.path, **SETTINGS).holdout.to_json() == whole[1].holdout.to_json()
    assert objective.seen == []


def test_nothing_is_overwritten_and_no_other_file_repaired(study, whole, tmp_path):
    with pytest.raises(StudyError, match="is there already"):
        repaired(study, study)
    assert study.read_bytes() == whole[0]
    with pytest.raises(StudyDamaged, match="there is no study"):
        repaired(tmp_path / "none.db", tmp_path / "sound.db")
    (tmp_path / "text.db").write_text("no study, but long enough to have been one" * 100)
    with pytest.raises(StudyDamaged, match="cannot be read as a study"):
        repaired(tmp_path / "text.db", tmp_path / "sound.db")
    change(study, "PRAGMA user_version=99")
    with pytest.raises(StudyDamaged, match=r"has format 99.*use a newer searchlib"):
        repaired(study, tmp_path / "sound.db")


class Wide(Masks):
    """Has cases enough to be raced."""

    def cases(self, split):
        return Cases(tuple(f"{split.value} {i}" * (i % 5 + 1) for i in range(32)))


RACED = {**SETTINGS, "racing": CaseRacing()}

#: Searches of other kinds, and what is damaged.
KINDS = {
    "asynchronous": ({"asynchronous": True, "algorithm": LocalSearch(), "budget": 60, "seed": 3}, "chunk", 20),
    "asynchronous, tells": ({"asynchronous": True, "algorithm": LocalSearch(), "budget": 60, "seed": 3}, "told", 31),
    "raced": (RACED, "chunk", 4),
    "cached": (SETTINGS, "chunk", 4),
}


@pytest.mark.parametrize("name", KINDS)
def test_searches_of_every_kind_go_on(name, tmp_path):
    settings, table, batch = KINDS[name]
    cache = {}
    if name == "cached":
        search(Masks(), cache=tmp_path / "c.db", **{**settings, "budget": 40})
        cache = {"cache": EvaluationCache(tmp_path / "c.db")}
    path = tmp_path / "s.db"
    objective = Wide() if name == "raced" else Masks()
    expected = search(objective, study=path, **settings, **cache).history
    column = "scores" if table == "chunk" else "vals"
    assert change(path, f"UPDATE {table} SET {column} = zeroblob(length({column})) WHERE batch = {batch}") >= 1
    assert 0 < repaired(path, tmp_path / "sound.db").candidates < len(expected)
    found = search(objective, study=tmp_path / "sound.db", **settings, **cache).history
    if not cache:
        assert found.digest == expected.digest
    rows = 100  # a cache that has grown pays for more
    assert np.array_equal(found.population[:rows], expected.population[:rows])
    assert np.array_equal(found.values[:rows], expected.values[:rows])


@pytest.mark.parametrize("kind", ["hits", "stopped"])
def test_without_what_tells_whose_scores_they_are_a_batch_is_not_used(kind, tmp_path):
    objective = Wide()
    search(objective, cache=tmp_path / "c.db", **{**SETTINGS, "budget": 100})
    settings, path = RACED if kind == "stopped" else {**SETTINGS, "cache": tmp_path / "c.db"}, tmp_path / "s.db"
    expected = search(objective, study=path, **settings).history
    damaged = change(path, "UPDATE array SET data = zeroblob(length(data)) WHERE name GLOB ?", f"{kind} [4-9]")
    repair = repaired(path, tmp_path / "sound.db")
    assert damaged >= 2
    assert 4 <= repair.batches <= 8
    found = search(objective, study=repair.path, **settings).history
    assert np.array_equal(found.population[:48], expected.population[:48])
    assert np.array_equal(found.values[:48], expected.values[:48])


def test_the_command_says_what_is_left(study, tmp_path, capsys, whole):
    change(study, "UPDATE batch SET asked = asked + 1 WHERE number = 5")
    assert main(["repair", str(study), "-o", str(tmp_path / "sound.db")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"sound\.db: 5\d candidates of 5 batches are sound, \d+ rows of the file were left out", said)
    assert main(["repair", str(study), "-o", str(tmp_path / "sound.db")]) == 1
    assert "is there already" in capsys.readouterr().err
    assert main(["repair", str(study), "-o", str(tmp_path / "other.db"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["batches"] == 5
    assert told["path"] == str(tmp_path / "other.db")
    assert f"{told['candidates']} candidates of 5 batches are sound, {told['left_out']} rows" in said


def test_another_search_than_the_repaired_one_is_refused(study, tmp_path):
    change(study, "UPDATE batch SET asked = asked + 1 WHERE number = 5")
    repair = repaired(study, tmp_path / "sound.db")
    with pytest.raises(StudyMismatch, match="seed"):
        search(Masks(), study=repair.path, **{**SETTINGS, "seed": 4})
