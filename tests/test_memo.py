import itertools
import math

import numpy as np
import pytest

from searchlib import Cases, Objective, Split, Study, search
from searchlib.errors import InvalidSettings, StudyError
from searchlib.memo import Memo
from searchlib.spaces import Real, Subset


def refuse():
    raise AssertionError("this was made before")


def test_what_was_made_is_not_made_again():
    memo, count = Memo(), itertools.count()
    assert [memo.recall("a", lambda: next(count)) for _ in range(3)] == [0, 0, 0]
    assert memo.recall("b", lambda: next(count)) == 1
    assert memo.recall("nothing", lambda: None) is memo.recall("nothing", refuse) is None


def test_the_first_answer_is_the_same_as_every_later_one():
    memo = Memo()
    first = memo.recall("sets", lambda: {"rows": [(1, 2), (3,)], "text": "ü \n “quoted”", "share": 0.1})
    assert first == memo.recall("sets", refuse) == {"rows": [[1, 2], [3]], "text": "ü \n “quoted”", "share": 0.1}
    first["rows"].append("written by a caller")
    assert memo.recall("sets", refuse)["rows"] == [[1, 2], [3]]


@pytest.mark.parametrize("value", [math.nan, {1, 2}, np.zeros(2), object()])
def test_what_json_cannot_hold_is_refused_and_not_stored(value):
    memo = Memo()
    with pytest.raises(InvalidSettings, match="for 'a' there is"):
        memo.recall("a", lambda: value)
    assert memo.recall("a", lambda: "made after all") == "made after all"


def test_a_failed_making_leaves_nothing_behind():
    memo = Memo()
    with pytest.raises(ZeroDivisionError):
        memo.recall("a", lambda: 1 / 0)
    assert memo.recall("a", lambda: 1) == 1


def test_texts_are_numbered_in_the_order_of_first_interning():
    memo = Memo()
    assert [memo.intern(text) for text in ("b", "a", "b", "", "a")] == [0, 1, 0, 2, 1]
    assert [memo.item(i) for i in range(3)] == list(memo.items) == ["b", "a", ""]
    for number in (3, -1):
        with pytest.raises(InvalidSettings, match=f"id {number}: 3 were interned"):
            memo.item(number)


def test_keys_and_texts_are_two_worlds():
    memo = Memo()
    assert memo.recall("x", lambda: "made") == "made"
    assert memo.intern("x") == 0
    assert memo.recall("x", refuse) == "made"


def test_keys_must_be_strings():
    with pytest.raises(InvalidSettings, match="key must be a string, but is 3"):
        Memo().recall(3, lambda: 1)
    with pytest.raises(InvalidSettings, match="text must be a string, but is None"):
        Memo().intern(None)


def created(path, **settings):
    settings = {"space": Subset(4, k=2).to_json(), "dtype": "<i4", "dimension": 2, "seed": 0, **settings}
    return Study.create_or_resume(path, settings, ("space", "seed"))


def test_a_study_commits_an_entry_before_it_is_seen(tmp_path):
    path = tmp_path / "s.db"
    memo = created(path).memo()

    def on_file():
        with Study.open(path) as study:
            return study.memo()

    seen = []
    memo.recall("outer", lambda: seen.append(memo.intern("inner") == on_file().intern("inner") == 0))
    assert seen == [True]
    assert memo.recall("a", lambda: [1, "two"]) == on_file().recall("a", refuse) == [1, "two"]
    assert memo.intern("second") == on_file().intern("second") == 1
    assert on_file().items == ("inner", "second")


def test_a_study_that_was_opened_for_reading_takes_no_entry(tmp_path):
    path = tmp_path / "s.db"
    with created(path) as study:
        study.memo().intern("first")
    with Study.open(path) as study:
        memo = study.memo()
        assert memo.intern("first") == 0
        with pytest.raises(StudyError):
            memo.intern("second")
        assert memo.items == ("first",)


def test_another_search_in_a_file_without_batches_starts_with_an_empty_memo(tmp_path):
    path = tmp_path / "s.db"
    with created(path) as study:
        study.memo().recall("a", lambda: 1)
    with created(path) as study:
        assert study.memo().recall("a", refuse) == 1
    with created(path, seed=7) as study:
        assert study.memo().recall("a", lambda: 2) == 2


class Wanting(Objective):
    """Every candidate is worth what the memo says; logs what happens when."""

    space = Real(0, 1)
    chunk_rows = 100

    def __init__(self):
        self.log = []

    def cases(self, split):
        return Cases.of([0]) if split is Split.SEARCH else Cases.none()

    def remember(self, memo):
        self.log.append("remember")
        self.memo = memo

    def seeds(self):
        self.log.append("seeds")
        return self.space.encode([self.memo.recall("seed", lambda: 0.25)])

    def evaluate(self, candidates, cases):
        self.log.append("evaluate")
        return candidates.array


def test_an_objective_gets_the_memo_before_anything_is_asked(tmp_path):
    objective, path = Wanting(), tmp_path / "s.db"
    assert search(objective, budget=2).history.population[0] == 0.25
    assert objective.log[:3] == ["remember", "seeds", "evaluate"]
    search(objective, budget=2, study=path)
    with Study.open(path) as study:
        assert study.memo().recall("seed", refuse) == 0.25


def test_two_searches_with_one_objective_do_not_share_a_memo(tmp_path):
    objective = Wanting()
    search(objective, budget=2, study=tmp_path / "a.db")
    first = objective.memo
    search(objective, budget=2, study=tmp_path / "b.db")
    assert objective.memo is not first
