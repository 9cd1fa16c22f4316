"""A cache changes what a search pays, never what it finds."""

import contextlib
import multiprocessing
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from searchlib import (
    CaseRacing,
    Cases,
    EvaluationCache,
    Evolution,
    FunctionObjective,
    Objective,
    Outcome,
    RandomSearch,
    Scores,
    Search,
    Split,
    Study,
    WithCost,
    search,
)  # fmt: skip
from searchlib.captured import captured
from searchlib.errors import CacheError, InvalidSettings
from searchlib.spaces import Binary, Integer, Real, Subset

SPACE = Subset(16, k=4)
BUDGET = 60


class Table(Objective):
    """Scores that a chunk's company cannot change; counts the cells that it evaluates."""

    space = SPACE
    chunk_rows, chunk_cases = 4, 5

    def __init__(self, cases=12, failing=(), infeasible=(), width=1):
        self.n, self.failing, self.infeasible, self.width, self.cells = cases, failing, infeasible, width, []

    def cases(self, split):
        start = {Split.SEARCH: 0, Split.SELECT: 1000, Split.HOLDOUT: 2000}[split]
        return Cases(tuple(range(start, start + self.n)))

    def evaluate(self, candidates, cases):
        rows = candidates.array
        self.cells += [(row.tobytes(), case) for row in rows for case in cases.ids]
        values = np.stack([np.sin(rows.sum(axis=1) * 0.7 + name + rows[:, 0] ** 2) for name in cases.ids], axis=1)
        bad = np.isin(rows[:, 0], self.failing)
        values[bad] = np.nan
        values = np.repeat(values[:, :, None], self.width, axis=2)
        return Scores(values, secondary=np.where(bad[:, None], 0.0, values[:, :, 0] ** 2),
                      infeasible=np.isin(rows[:, 0], self.infeasible))  # fmt: skip

    def aggregate(self, scores):
        return scores.mean(axis=(1, 2))[:, None]

    def fingerprint(self):
        return {"objective": "Table", "failing": list(self.failing)}


def run(objective, cache, budget=BUDGET, seed=0, algorithm=None, **settings):
    return search(objective, algorithm or Evolution(population=12, offspring=8), budget=budget, seed=seed,
                  batch_size=12, max_failures=1000, cache=cache, **settings)  # fmt: skip


def same(one, other, rows):
    """Whether two histories agree to the last bit in their first rows."""
    names = ("ids", "population", "values", "secondary", "standard_error", "status")
    return all(
        np.ascontiguousarray(getattr(one, name)[:rows]).tobytes()
        == np.ascontiguousarray(getattr(other, name)[:rows]).tobytes() for name in names
    )  # fmt: skip


@pytest.mark.parametrize("settings", [{}, {"failing": (3, 5)}, {"infeasible": (2, 4)}, {"width": 3}], ids=str)
def test_a_warm_cache_changes_the_cost_and_nothing_else(tmp_path, settings):
    without = run(Table(**settings), None)
    cold = run(Table(**settings), tmp_path / "scores.db")
    again = Table(**settings)
    warm = run(again, tmp_path / "scores.db")
    assert cold.history.digest == without.history.digest
    assert cold.cache_hits == 0
    # It goes on until its own budget is spent, by batches of its own from where the budget of the other one ended.
    whole = BUDGET // 12 * 12
    assert len(warm.history) > whole
    assert same(warm.history, cold.history, whole)
    failed = int((cold.history.status == 3).sum())
    assert warm.cache_hits >= BUDGET - failed > 0
    assert warm.history.evaluations == BUDGET
    searched = {row for row, case in again.cells if case < 1000}
    known = cold.history.population[cold.history.status != 3]
    assert not searched & {row.tobytes() for row in known}, "a cached candidate was evaluated"


def test_a_search_that_ends_by_itself_has_the_same_history_to_the_last_bit(tmp_path):
    settings = {"space": Integer(0, 40), "budget": 1000, "direction": "maximize"}
    runs = [search(lambda x: -((x - 7) ** 2), cache=cache, **settings)
            for cache in (None, tmp_path / "a.db", tmp_path / "a.db")]  # fmt: skip
    assert len({result.history.digest for result in runs}) == 1
    assert [result.cache_hits for result in runs] == [0, 0, 41]
    assert [result.outcome for result in runs] == [Outcome.EXHAUSTED] * 3
    assert "41 candidates were in the evaluation cache" in str(runs[2])


def test_seeds_share_what_they_have_in_common(tmp_path):
    first = run(Table(), tmp_path / "scores.db", algorithm=RandomSearch(), budget=200)
    other = run(Table(), tmp_path / "scores.db", algorithm=RandomSearch(), budget=200, seed=1)
    seen = {row.tobytes() for row in first.history.population}
    common = np.array([row.tobytes() in seen for row in other.history.population])
    assert common.any()
    assert np.array_equal(other.history.cached, common & other.history.fresh)
    assert same(other.history, run(Table(), None, algorithm=RandomSearch(), budget=200, seed=1).history, 192)


def test_hits_cost_no_cells_and_no_cost(tmp_path):
    from searchlib import Budget

    run(Table(), tmp_path / "scores.db")
    for limit in ({"cells": 12 * BUDGET}, {"cost": 12.0 * BUDGET}):
        records = list(Search(Table(), Evolution(population=12, offspring=8), budget=Budget(**limit), batch_size=12,
                              cache=EvaluationCache(tmp_path / "scores.db")))  # fmt: skip
        assert records[-1].hits >= BUDGET
        assert BUDGET <= records[-1].evaluations < BUDGET + 12


def test_only_hits_do_not_end_a_search_as_if_nothing_were_new(tmp_path):
    """More hits in a row than duplicates that stop a search, and then candidates of its own."""
    space = Real(0, 1)
    settings = {"space": space, "direction": "minimize", "batched": True, "cache": tmp_path / "scores.db"}
    search(lambda x: x[:, 0], RandomSearch(), budget=3000, **settings)
    warm = search(lambda x: x[:, 0], RandomSearch(), budget=64, **settings)
    assert warm.cache_hits == 3000
    assert warm.history.evaluations == 64
    assert warm.outcome is Outcome.EVALUATIONS


def test_failures_are_evaluated_again(tmp_path):
    run(Table(failing=(0, 1, 2)), tmp_path / "scores.db")
    again = run(Table(failing=(0, 1, 2)), tmp_path / "scores.db")
    failed = again.history.status == 3
    assert failed.any()
    assert not again.history.cached[failed].any()
    with contextlib.closing(sqlite3.connect(tmp_path / "scores.db")) as file, file:
        assert {status for (status,) in file.execute("SELECT DISTINCT status FROM score")} == {1}


def test_another_objective_scope_space_or_number_of_threads_finds_nothing(tmp_path):
    path = tmp_path / "scores.db"
    run(Table(), path)
    assert run(Table(failing=(99,)), path).cache_hits == 0
    with EvaluationCache(path, scope="other weights") as cache:
        assert run(Table(), cache).cache_hits == 0
    assert run(Table(), path, threads=2).cache_hits == 0
    assert run(Table(), path).cache_hits > 0


def test_more_cases_reuse_the_chunks_of_those_before(tmp_path):
    run(Table(cases=10), tmp_path / "scores.db", budget=12)
    wider = Table(cases=15)
    result = run(wider, tmp_path / "scores.db", budget=12)
    assert result.cache_hits == 0
    assert result.history.evaluations == 12
    assert {case for _, case in wider.cells if case < 1000} == set(range(10, 15))
    assert result.history.digest == run(Table(cases=15), None, budget=12).history.digest


def test_equal_ids_with_other_payload_are_other_cases(tmp_path):
    class Exam(Table):
        def __init__(self, **texts):
            super().__init__()
            self.exam = Cases(tuple(map(ord, texts)), tuple(texts.values()))

        def cases(self, split):
            return self.exam if split is Split.SEARCH else Cases.none()

    run(Exam(a="1+1", b="1+2"), tmp_path / "scores.db", budget=12)
    assert run(Exam(a="2+1", b="2+2"), tmp_path / "scores.db", budget=12).cache_hits == 0
    assert run(Exam(b="1+2", a="1+1"), tmp_path / "scores.db", budget=12).cache_hits >= 12


@pytest.mark.parametrize("after", [1, 4])
def test_a_resumed_search_remembers_what_was_a_hit(tmp_path, after):
    """Also where the cache has grown since, is another one or is gone."""
    run(Table(), tmp_path / "scores.db", budget=30)
    whole = run(Table(), tmp_path / "scores.db", study=tmp_path / "whole.db")
    assert whole.cache_hits >= 24
    for number, cache in enumerate((tmp_path / "scores.db", None, tmp_path / "new.db")):
        study = tmp_path / f"{number}.db"
        with EvaluationCache(tmp_path / "copy.db") as copy:  # the first part sees what the whole search saw
            copy_of(tmp_path / "scores.db", copy, 30)
        part = Search(Table(), Evolution(population=12, offspring=8), budget=BUDGET, batch_size=12, max_failures=1000,
                      study=study, cache=tmp_path / "copy.db")  # fmt: skip
        for _, _ in zip(part, range(after), strict=False):
            pass
        before = part.history.evaluations, int(part.history.cached.sum())
        part.close()
        with Study.open(study) as file:
            assert int(file.history().cached.sum()) == before[1]
        resumed = run(Table(), cache, study=study)
        told = min(len(whole.history), len(resumed.history)) // 12 * 12
        assert told >= 48
        assert same(resumed.history, whole.history, told)
        assert resumed.history.evaluations == BUDGET
        assert resumed.cache_hits >= before[1]
        with Study.open(study) as file:
            assert np.array_equal(file.history().cached, resumed.history.cached)
        (tmp_path / "copy.db").unlink()


def copy_of(path, cache, evaluations):
    """Fill a cache with what a search of so many evaluations leaves."""
    run(Table(), cache, budget=evaluations)
    assert path.exists()


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from test_evaluation_cache import Table, run
class Slow(Table):
    def evaluate(self, candidates, cases):
        time.sleep(0.02)
        return super().evaluate(candidates, cases)
run(Slow(), sys.argv[2], budget=10**6, study=sys.argv[3])
"""


def test_a_killed_search_goes_on_to_the_same_history(tmp_path):
    run(Table(), tmp_path / "scores.db", budget=20)
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(Path(__file__).parent), str(tmp_path / "scores.db"), str(tmp_path / "s.db")]
    )
    until = time.monotonic() + 60
    while time.monotonic() < until and len_of(tmp_path / "s.db") < 4:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    resumed = run(Table(), tmp_path / "scores.db", study=tmp_path / "s.db")
    whole = run(Table(), None, budget=200)
    told = len(resumed.history) // 12 * 12
    assert told >= BUDGET
    assert same(resumed.history, whole.history, told)


def len_of(path):
    try:
        with Study.open(path) as study:
            return len(list(study.batches()))
    except Exception:
        return 0


def fill(path, seed):
    run(Table(), path, algorithm=RandomSearch(), budget=150, seed=seed)


def test_many_open_a_new_file_at_once(tmp_path):
    """What one has half made looked like a foreign file to the others, most of the time."""
    for number in range(25):
        path, together, errors = tmp_path / f"{number}.db", threading.Barrier(8), []

        def opened(path=path, together=together, errors=errors):
            together.wait()
            try:
                with EvaluationCache(path) as cache:
                    assert len(cache) == 0
            except Exception as error:
                errors.append(error)

        threads = [threading.Thread(target=opened) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors


def test_many_processes_write_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=fill, args=(tmp_path / "scores.db", seed)) for seed in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    seen = [run(Table(), None, algorithm=RandomSearch(), budget=150, seed=seed).history.population for seed in range(3)]
    for seed, rows in enumerate(seen):
        again = run(Table(), tmp_path / "scores.db", algorithm=RandomSearch(), budget=12, seed=seed)
        assert again.cache_hits >= len(np.unique(rows, axis=0)) == 150  # duplicates are no hits
    with contextlib.closing(sqlite3.connect(tmp_path / "scores.db")) as file, file:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("content", [b"no database, but long enough to have been one" * 100, b"x"])
def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path, content):
    path = tmp_path / "scores.db"
    path.write_bytes(content)
    with pytest.raises(CacheError, match="not an evaluation cache"):
        run(Table(), path)
    assert path.read_bytes() == content


def test_a_study_is_no_cache(tmp_path):
    run(Table(), None, budget=12, study=tmp_path / "study.db")
    before = (tmp_path / "study.db").read_bytes()
    with pytest.raises(CacheError, match=r"is not an evaluation cache; pass another path"):
        EvaluationCache(tmp_path / "study.db")
    assert (tmp_path / "study.db").read_bytes() == before


def test_a_damaged_cache_is_a_sentence(tmp_path):
    path = tmp_path / "scores.db"
    run(Table(), path, budget=200)
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(CacheError, match=r"damaged|cannot be read"):
        run(Table(), path)


def test_an_entry_of_a_wrong_length_is_a_sentence(tmp_path):
    run(Table(), tmp_path / "scores.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "scores.db")) as file, file:
        file.execute("UPDATE score SET scores = x'0102'")
    with pytest.raises(CacheError, match="wrong length"):
        run(Table(), tmp_path / "scores.db")


@pytest.mark.parametrize("use", [EvaluationCache, Study.open, lambda path: run(Table(), path),
                                 lambda path: run(Table(), None, study=path)])  # fmt: skip
def test_a_name_that_is_too_long_for_a_file_is_refused(tmp_path, monkeypatch, use):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSettings, match="must be the path of a file, but is too long for one: 'xxx"):
        use("x" * 1000)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(CacheError, match="nowhere"):
        EvaluationCache(tmp_path / "nowhere" / "scores.db")


def test_a_newer_format_is_refused_by_its_number(tmp_path):
    EvaluationCache(tmp_path / "scores.db").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "scores.db")) as file, file:
        file.execute("PRAGMA user_version=7")
    with pytest.raises(CacheError, match="format 7, not 1"):
        EvaluationCache(tmp_path / "scores.db")


class Unsaid(Table):
    fingerprint = Objective.fingerprint


class Private(Table):
    shareable = False


class Cheap(Table):
    recomputable = True


@pytest.mark.parametrize(("objective", "why"), [
    (Unsaid(), "does not show Unsaid"), (Private(), "shareable=False"), (Cheap(), "cheap to evaluate again"),
    (WithCost(Private(), lambda kept: len(kept)), "shareable=False"),
])  # fmt: skip
def test_what_cannot_be_shared_is_refused_with_the_reason(tmp_path, objective, why):
    with pytest.raises(InvalidSettings, match=why):
        run(objective, tmp_path / "scores.db")


def test_a_cache_beside_ask_and_tell_or_a_race_is_refused(tmp_path):
    with pytest.raises(InvalidSettings, match="ask and tell evaluate nothing"):
        Search(space=SPACE, budget=10, cache=tmp_path / "scores.db")
    with pytest.raises(InvalidSettings, match="a race leaves rows incomplete"):
        Search(Table(), budget=10, cache=tmp_path / "scores.db", racing=CaseRacing())


WEIGHTS = np.arange(16.0)
LIMIT = 3


def test_a_function_of_hidden_things_needs_a_scope(tmp_path):
    scale = [1.0, {"deep": WEIGHTS}]
    assert captured(lambda kept: WEIGHTS[list(kept)].sum()) == ("WEIGHTS (ndarray)",)
    assert captured(lambda kept: [LIMIT for _ in kept]) == ("LIMIT (int)",)
    assert captured(lambda kept: scale[0]) == ("scale (list)",)
    assert captured(lambda kept: run(kept)) == ("run (function)",)
    assert captured(lambda kept: np.sqrt(sum(kept)) + max(kept)) == ()
    with pytest.raises(InvalidSettings, match=r"does not show WEIGHTS \(ndarray\).*scope="):
        search(lambda kept: WEIGHTS[list(kept)].sum(), space=SPACE, budget=5, cache=tmp_path / "scores.db")
    hits = []
    for scope in ("one", "one", "two"):
        with EvaluationCache(tmp_path / "scores.db", scope=scope) as cache:
            result = search(lambda kept: WEIGHTS[list(kept)].sum(), space=SPACE, budget=5, cache=cache)
            hits.append(result.cache_hits)
    assert hits == [0, 5, 0]


def test_workers_find_what_one_process_has_left(tmp_path):
    run(Table(), tmp_path / "scores.db")
    warm = run(Table(), tmp_path / "scores.db", workers=2)
    alone = run(Table(), None, budget=120)
    assert warm.cache_hits >= BUDGET
    assert same(warm.history, alone.history, len(warm.history) // 12 * 12)


def test_a_cache_holds_no_pickle(tmp_path):
    run(Table(), tmp_path / "scores.db", budget=12)
    with contextlib.closing(sqlite3.connect(tmp_path / "scores.db")) as file, file:
        blobs = [blob for row in file.execute("SELECT candidate, scores, secondary FROM score") for blob in row if blob]
    assert blobs
    for blob in blobs:
        with pytest.raises(Exception, match=r".*"):
            pickle.loads(blob)


def test_a_hit_costs_little(tmp_path):
    """Of one case; most of it is what every search does for a candidate."""
    space = Binary(64)
    objective = FunctionObjective(lambda rows: rows.sum(axis=1), space, batched=True)
    search(objective, RandomSearch(), budget=4096, batch_size=4096, cache=tmp_path / "scores.db")
    begin = time.process_time()
    warm = search(objective, RandomSearch(), budget=4096, batch_size=4096, cache=tmp_path / "scores.db")
    assert warm.cache_hits == 4096
    assert (time.process_time() - begin) / 4096 < 200e-6
