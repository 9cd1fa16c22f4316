"""A long search resumes from where its algorithm stood, without asking for all again, and to the same history."""

import contextlib
import json
import sqlite3

import numpy as np
import pytest

from searchlib import (
    Auto,
    Budget,
    Cases,
    EvaluationCache,
    Evolution,
    LocalSearch,
    Objective,
    RandomSearch,
    Search,
    Split,
    Study,
    search,
)
from searchlib.algorithms import evolution
from searchlib.duplicates import Known
from searchlib.errors import InvalidSettings, StudyDamaged, StudyMismatch
from searchlib.repair import repaired
from searchlib.scoring import Scorer
from searchlib.sealed_file import sealed
from searchlib.spaces import Binary, Integer, Product, Subset
from searchlib.study import STATE, STATE_ARRAY

SPACES = {
    "binary": Binary(16), "subset": Subset(12, k=4), "mixed": Product(on=Binary(4), level=Integer(0, 30)),
    "small": Binary(8),
}  # fmt: skip


class Weighed(Objective):
    """A function of the genes on three cases, with a secondary score; some candidates cannot be evaluated."""

    direction, chunk_rows, power = "minimize", 3, 1

    def __init__(self, space):
        self.space = space

    def cases(self, split):
        return Cases.of([1.0, 2.0, 3.0]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        rows = np.asarray(candidates.array, float)
        if rows.shape[1] < 40 and (rows[:, :4].sum(axis=1) * 7 % 16 == 5).any():
            raise ValueError("not this one")
        sums = np.sin(rows @ np.arange(1, rows.shape[1] + 1.0))
        return sums[:, None] * np.array(cases.payload) + rows.sum(axis=1, keepdims=True) / 9

    def secondary(self, scores):
        return scores[..., 0]

    def aggregate(self, scores):
        return scores.mean(axis=1) ** self.power


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    monkeypatch.setattr("searchlib.committed_state._LEAST", 20)


ALGORITHMS = {
    "evolution": Evolution(population=10, offspring=4, archive=30),
    "steady": Evolution(population=3, offspring=1, secondary_weight=0.5),
    "random": RandomSearch(archive=9),
    "auto": Auto(),
}
#: Auto takes an evolution for so many.
BUDGET = {"auto": 20_100}


def run(name, space, path, stop=None):
    """The search, its result, and how many candidates came with each record."""
    made = Search(
        Weighed(space), ALGORITHMS[name], budget=BUDGET.get(name, 150), seed=3, study=path, batch_size=7,
        max_failures=10**6,
    )  # fmt: skip
    sizes = []
    for record in made:
        sizes.append((len(record.ids), record.replayed))
        if len(sizes) == stop:
            break
    result = made.result() if len(sizes) != stop else None
    made.close()
    return made, result, sizes


def counted(made):
    spent = made.standing
    return spent.evaluations, spent.best, spent.failed, spent.duplicates


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", [name for name in ALGORITHMS if name != "auto"])
def test_a_search_that_was_stopped_after_any_batch_goes_on_from_its_state_to_the_same_history(name, space, tmp_path):
    whole, expected, batches = run(name, SPACES[space], tmp_path / "whole.db")
    assert whole.standing.failed > 0
    used = 0
    for stop in range(1, len(batches) + 1, 1 + len(batches) // 7):
        path = tmp_path / f"{stop}.db"
        run(name, SPACES[space], path, stop)
        made, result, sizes = run(name, SPACES[space], path)
        assert made.history.digest == expected.history.digest
        assert made.history.errors == expected.history.errors
        assert counted(made) == counted(whole)
        assert (result.value, result.notes, result.outcome) == (expected.value, expected.notes, expected.outcome)
        assert bytes(result.row) == bytes(expected.row)
        with Study.open(path) as study:
            assert study.history().digest == expected.history.digest
        used += sizes[0][1] and sizes[0][0] >= 20
    assert used >= 3


def test_many_cheap_evaluations_that_auto_searches_resume_from_a_state(tmp_path):
    space = Binary(40)
    _, expected, _ = run("auto", space, tmp_path / "s.db")
    assert "Evolution" in expected.notes["chosen"]
    made, result, sizes = run("auto", space, tmp_path / "s.db")
    assert sizes[0][0] > 19_000
    assert (made.history.digest, result.notes) == (expected.history.digest, expected.notes)


def test_what_is_in_a_state_is_not_asked_for_again(tmp_path, monkeypatch):
    run("evolution", SPACES["binary"], tmp_path / "s.db")
    asked, ask = [], evolution._EvolutionRun.ask
    monkeypatch.setattr(evolution._EvolutionRun, "ask", lambda self, n: asked.append(n) or ask(self, n))
    _, result, sizes = run("evolution", SPACES["binary"], tmp_path / "s.db")
    assert len(asked) == len(sizes) - 1 < 10
    assert len(result.history) == 150


def test_more_budget_goes_on_from_a_state_as_from_the_journal(tmp_path):
    def searched(name, budget):
        settings = {"seed": 1, "max_failures": 10**6, "study": tmp_path / name}
        return search(Weighed(Binary(16)), Evolution(), budget=budget, **settings).history

    for name in ("one.db", "other.db"):
        searched(name, 120)
    change(tmp_path / "other.db", f"DELETE FROM setting WHERE name = '{STATE}'")
    one, other = (searched(name, 200) for name in ("one.db", "other.db"))
    assert one.digest == other.digest
    assert len(one) == 200


def test_an_algorithm_without_a_state_leaves_none(tmp_path):
    search(Weighed(Binary(16)), LocalSearch(), budget=80, study=tmp_path / "s.db", max_failures=10**6)
    assert states(tmp_path / "s.db") == []


@pytest.mark.parametrize("settings", [{"cache": True}, {"workers": 2, "asynchronous": True}], ids=["cache", "async"])
def test_searches_whose_batches_depend_on_more_than_the_algorithm_leave_none(settings, tmp_path):
    if "cache" in settings:
        settings = {"cache": EvaluationCache(tmp_path / "c.db", scope="as it is")}
    search(Weighed(Binary(16)), Evolution(), budget=80, study=tmp_path / "s.db", max_failures=10**6, **settings)
    assert states(tmp_path / "s.db") == []


def states(path):
    with contextlib.closing(sqlite3.connect(path)) as file:
        arrays = file.execute("SELECT name FROM array WHERE name GLOB ?", (f"{STATE_ARRAY}*",)).fetchall()
        return arrays + file.execute("SELECT name FROM setting WHERE name = ?", (STATE,)).fetchall()


def change(path, statement, *values):
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute(statement, values).rowcount
        file.commit()


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "s.db"
    _, result, _ = run("evolution", SPACES["binary"], path)
    assert states(path)
    return path, result


DAMAGE = {
    "array": f"UPDATE array SET data = zeroblob(length(data)) WHERE name = '{STATE_ARRAY}mutation pool'",
    "setting": f"UPDATE setting SET value = replace(value, 'unbred', 'unbred') || ' ' WHERE name = '{STATE}'",
    "what was told": "UPDATE told SET vals = zeroblob(length(vals)) WHERE batch = 2",
    "candidates": "UPDATE batch SET population = zeroblob(length(population)) WHERE number = 1",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_refused_and_repaired_to_the_same_history(damage, study, tmp_path):
    path, result = study
    change(path, DAMAGE[damage])
    with pytest.raises(StudyDamaged, match="repair"):
        run("evolution", SPACES["binary"], path)
    repaired(path, tmp_path / "sound.db")
    assert states(tmp_path / "sound.db") == []
    _, again, sizes = run("evolution", SPACES["binary"], tmp_path / "sound.db")
    assert again.history.digest == result.history.digest
    assert sizes[0][0] <= 7


def rewritten(path, **changes):
    """Another state with seals that are right, as somebody could write it who means harm."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        state = json.loads(file.execute("SELECT value FROM setting WHERE name = ?", (STATE,)).fetchone()[0])
    with Study.open(path) as opened:
        arrays = {name: opened.read_array(f"{STATE_ARRAY}{name}") for name in state["arrays"]}
        settings = opened.settings
    own = {**state["values"], **arrays, **changes.get("run", {})}
    for name in changes.get("without", ()):
        del own[name]
    writing = Study.create_or_resume(path, settings, ())
    writing.write_state({**state["search"], **changes.get("search", {})}, own)
    writing.close()


HOSTILE = {
    "pools that are no ids": {"run": {"mutation pool": np.array(["x"] * 5)}},
    "pools of nobody": {"run": {"crossover pool": np.array([10**6])}},
    "pools of strangers": {"run": {"crossover pool": np.array([-1])}},
    "no generator": {"without": ["generator"]},
    "a generator of another kind": {"run": {"generator": {"bit_generator": "MT19937", "state": {}}}},
    "a generator that goes round in circles": {"run": {"generator": {
        "bit_generator": "PCG64", "state": {"state": 0, "inc": 0}, "has_uint32": 0, "uinteger": 0,
    }}},
    "a generator that is none": {"run": {"generator": [1, 2]}},
    "children by a word": {"run": {"unbred": "many"}},
    "more children than are bred": {"run": {"unbred": 10**9}},
    "a batch that is not there": {"search": {"batch": -4}},
    "a batch that is a word": {"search": {"batch": "last"}},
}  # fmt: skip


@pytest.mark.parametrize("changes", HOSTILE)
def test_a_state_that_makes_no_sense_is_refused_with_a_sentence(changes, study):
    path, _ = study
    rewritten(path, **HOSTILE[changes])
    with pytest.raises(StudyDamaged, match="is damaged"):
        run("evolution", SPACES["binary"], path)


def test_a_state_of_another_layout_is_not_used(study):
    path, result = study
    rewritten(path, search={"made by": ["999"]}, run={"unbred": "whatever that means by then"})
    _, again, sizes = run("evolution", SPACES["binary"], path)
    assert sizes[0][0] <= 7
    assert again.history.digest == result.history.digest


def test_scores_that_mean_something_else_by_now_are_noticed_at_a_state_too(study, monkeypatch):
    path, _ = study
    monkeypatch.setattr(Weighed, "power", 3)
    with pytest.raises(StudyMismatch, match="aggregate has changed"):
        run("evolution", SPACES["binary"], path)


#: What somebody could write with seals that are right, who means harm.
FORGED = {
    "values twice as wide": "UPDATE told SET vals = CAST(vals || vals AS BLOB) WHERE batch = 2",
    "three hundred million candidates": "UPDATE batch SET rows = 300000000 WHERE number = 2",
    "half a candidate": "UPDATE batch SET population = substr(population, 2) WHERE number = 2",
    "ids of others": "UPDATE batch SET ids = zeroblob(length(ids)) WHERE number = 2",
    "a status of no kind": (
        "UPDATE told SET status = CAST(zeroblob(length(status) - 1) || x'09' AS BLOB) WHERE batch = 2"
    ),
}


@pytest.mark.parametrize("forgery", FORGED)
def test_forged_batches_are_refused_with_a_sentence_also_where_a_state_abbreviates_them(forgery, study):
    path, _ = study
    table = FORGED[forgery].split()[1]
    change(path, FORGED[forgery])
    with contextlib.closing(sqlite3.connect(path)) as file:
        for row in file.execute(f"SELECT rowid, * FROM {table}").fetchall():
            file.execute(f"UPDATE {table} SET seal = ? WHERE rowid = ?", (sealed(row[1:-1]), row[0]))
        file.commit()
    with pytest.raises(StudyDamaged, match="is damaged"):
        run("evolution", SPACES["binary"], path)


class Costly(Weighed):
    """A unit for every candidate, as a number that JSON does not know."""

    def cost(self, candidates, cases):
        return np.float32(len(candidates))


def test_a_limit_of_cost_that_comes_later_counts_what_was_spent_before_the_state(tmp_path):
    settings = {"seed": 1, "max_failures": 10**6, "batch_size": 7}
    for name in ("one.db", "other.db"):
        search(Costly(Binary(16)), Evolution(), budget=120, study=tmp_path / name, **settings)
    change(tmp_path / "other.db", f"DELETE FROM setting WHERE name = '{STATE}'")
    budget = Budget(evaluations=10**6, cost=200)
    one, other = (
        search(Costly(Binary(16)), Evolution(), budget=budget, study=tmp_path / name, **settings)
        for name in ("one.db", "other.db")
    )
    assert one.history.digest == other.history.digest
    assert 200 <= one.history.evaluations < 220


def test_a_study_that_a_cache_has_answered_is_replayed_as_a_whole(tmp_path):
    settings = {"budget": 60, "seed": 1, "max_failures": 10**6}
    cache = EvaluationCache(tmp_path / "c.db", scope="as it is")
    search(Weighed(Binary(16)), Evolution(), cache=cache, study=tmp_path / "first.db", **settings)
    search(Weighed(Binary(16)), Evolution(), cache=cache, study=tmp_path / "s.db", **settings)
    cached = [
        search(Weighed(Binary(16)), Evolution(), study=tmp_path / "s.db", **settings).history.cached.sum()
        for _ in range(2)
    ]
    assert cached[0] == cached[1] > 0
    assert states(tmp_path / "s.db") == []


@pytest.mark.parametrize("where", ["score", "add"])
def test_ctrl_c_while_a_state_is_read_leaves_a_search_that_says_so(where, study, monkeypatch):
    path, result = study
    owner = {"score": Scorer, "add": Known}[where]
    whole = getattr(owner, where)

    def interrupted(*arguments):
        monkeypatch.setattr(owner, where, whole)
        raise KeyboardInterrupt

    made = Search(
        Weighed(SPACES["binary"]), ALGORITHMS["evolution"], budget=150, seed=3, study=path, batch_size=7,
        max_failures=10**6,
    )  # fmt: skip
    monkeypatch.setattr(owner, where, interrupted)
    assert list(made) == []
    with pytest.raises(InvalidSettings, match="was interrupted"):
        list(made)
    made.close()
    _, again, _ = run("evolution", SPACES["binary"], path)
    assert again.history.digest == result.history.digest
