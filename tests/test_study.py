import json
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from searchlib import LocalSearch, RandomSearch, Search, Study, search
from searchlib.errors import StudyDamaged, StudyError
from searchlib.sealed_file import sealed
from searchlib.spaces import Real, Subset

KILLED = """
import sys, time
import numpy as np
from searchlib import Evolution, Search
from searchlib.spaces import Subset

def gain(kept):
    time.sleep(0.001)
    return float(np.sin(np.array(kept) * 1.7).sum())

run = Search(gain, Evolution(population=20, offspring=7), space=Subset(30, k=6), budget=400, seed=5,
             direction="maximize", study=sys.argv[1], batch_size=9)
for record in run:
    if not record.replayed:
        print(record.evaluations, flush=True)
print(run.history.digest, len(run.history))
"""


def run_until_done(script, study, batches=None, seconds=0.0):
    """Run the driver; kill it ``seconds`` after it has finished so many new batches. Gives its last line."""
    process = subprocess.Popen([sys.executable, script, study], stdout=subprocess.PIPE, text=True, cwd=Path.cwd(),
                               env={**os.environ, "PYTHONPATH": str(Path.cwd())})  # fmt: skip
    if batches is not None:
        assert process.stdout is not None
        for _ in range(batches):
            process.stdout.readline()
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
    output, _ = process.communicate()
    return process.returncode, output.splitlines()[-1] if output else ""


@pytest.mark.slow
def test_a_killed_search_resumes_to_the_same_history(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(KILLED)
    code, reference = run_until_done(script, tmp_path / "whole.db")
    assert code == 0
    rng, study = np.random.default_rng(0), tmp_path / "killed.db"
    for _ in range(3):  # more of them, at finer moments, in tests/soak
        code, _ = run_until_done(script, study, batches=int(rng.integers(1, 5)), seconds=float(rng.uniform(0, 0.012)))
        assert code == -signal.SIGKILL
    assert run_until_done(script, study) == (0, reference)


def test_a_missing_file_is_named():
    with pytest.raises(StudyDamaged, match=r"no study at 'nowhere\.db'"):
        Study.open("nowhere.db")


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "s.db"
    path.write_text("this is not a database, it only looks like a file " * 40)
    with pytest.raises(StudyDamaged, match="cannot be read as a study"):
        Study.open(path)
    with pytest.raises(StudyDamaged):
        search(lambda x: x, space=Real(0, 1), budget=3, study=path)


def test_another_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "s.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StudyDamaged, match="not a study"):
        Study.open(path)
    with pytest.raises(StudyDamaged, match="not a study"):
        search(lambda x: x, space=Real(0, 1), budget=3, study=path)
    assert path.read_bytes() == before


def test_a_newer_format_is_refused_by_its_number(tmp_path):
    path = tmp_path / "s.db"
    search(lambda x: x, space=Real(0, 1), budget=3, study=path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StudyDamaged, match="format 99"):
        Study.open(path)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(StudyError, match="missing"):
        search(lambda x: x, space=Real(0, 1), budget=3, study=tmp_path / "missing" / "s.db")


def test_a_study_is_data_and_holds_no_pickle(tmp_path):
    path = tmp_path / "s.db"
    search(lambda kept: float(sum(kept)), space=Subset(9, k=3), budget=30, study=path)
    connection = sqlite3.connect(path)
    blobs = 0
    for table in ("setting", "array", "batch", "chunk", "told", "reference"):
        for row in connection.execute(f"SELECT * FROM {table}"):
            for item in row:
                if isinstance(item, bytes) and len(item) > 2:
                    blobs += 1
                    assert not item.startswith(pickle.PROTO)
    connection.close()
    assert blobs > 5


def test_opening_a_study_imports_nothing_it_names(tmp_path):
    path = tmp_path / "s.db"
    search(lambda x: x, space=Real(0, 1), budget=3, study=path)
    with sqlite3.connect(path) as connection:
        row = ("space", json.dumps({"space": "antigravity"}))
        connection.execute("UPDATE setting SET value = ?, seal = ? WHERE name = ?", (row[1], sealed(row), row[0]))
    connection.close()
    from searchlib.errors import InvalidSettings

    with Study.open(path) as study, pytest.raises(InvalidSettings, match="antigravity"):
        study.history()
    assert "antigravity" not in sys.modules


def test_a_score_that_changed_on_the_disk_is_noticed_before_anybody_is_told_of_it(tmp_path):
    """SQLite reads half of an old page and half of a new one without a word."""
    path, space = tmp_path / "s.db", Subset(9, k=3)
    search(sum, LocalSearch(), space=space, budget=30, study=path, batch_size=5)
    with sqlite3.connect(path) as connection:
        last = connection.execute("SELECT MAX(batch) FROM told").fetchone()[0]
        connection.execute("DELETE FROM told WHERE batch = ?", (last,))
        (scores,) = connection.execute("SELECT scores FROM chunk WHERE batch = ?", (last,)).fetchone()
        connection.execute("UPDATE chunk SET scores = ? WHERE batch = ?", (scores[:-1] + b"!", last))
    connection.close()
    with pytest.raises(StudyDamaged, match=r"s\.db' is damaged"):
        search(sum, LocalSearch(), space=space, budget=30, study=path, batch_size=5)


def test_a_batch_that_is_missing_is_noticed(tmp_path):
    path = tmp_path / "s.db"
    search(sum, LocalSearch(), space=Subset(9, k=3), budget=30, study=path, batch_size=5)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM batch WHERE number = 2")
    connection.close()
    with Study.open(path) as study, pytest.raises(StudyDamaged, match="a batch is missing"):
        study.history()


def test_a_study_that_has_had_no_time_to_begin_says_so(tmp_path):
    """A driver that died between the tables and their first rows left a KeyError to whoever looked."""
    path = tmp_path / "s.db"
    search(sum, space=Subset(9, k=3), budget=5, study=path)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM setting")
    connection.close()
    (tmp_path / "nothing.db").touch()
    for empty in (path, tmp_path / "nothing.db"):
        with pytest.raises(StudyDamaged, match="is empty: its search has had no time to begin"):
            Study.open(empty)


def test_reading_a_study_does_not_disturb_its_writer(tmp_path):
    from searchlib import Search

    path = tmp_path / "s.db"
    run = Search(lambda x: x, space=Real(0, 1), budget=60, study=path)
    lengths = []
    for record in run:
        with Study.open(path) as study:
            lengths.append(len(study.history()))
        assert lengths[-1] == record.evaluations
    assert lengths[-1] == 60


def test_failed_candidates_keep_their_tracebacks(tmp_path):
    path = tmp_path / "s.db"

    def sometimes(x):
        if x > 0.5:
            raise ValueError("too much of it")
        return x

    result = search(sometimes, space=Real(0, 1), budget=30, study=path)
    with Study.open(path) as study:
        errors = study.history().errors
    assert errors == result.history.errors
    assert any("too much of it" in error for error in errors)


def test_durability_costs_little(tmp_path):
    start = time.perf_counter()
    search(lambda rows: rows.sum(axis=1), space=Subset(256, k=8), budget=2000, batched=True, study=tmp_path / "s.db")
    assert time.perf_counter() - start < 10


def test_another_search_begins_with_what_a_study_has_found(tmp_path):
    space = Subset(12, k=3)
    search(sum, RandomSearch(), space=space, budget=50, direction="maximize", study=tmp_path / "first.db", seed=1)
    with Study.open(tmp_path / "first.db") as study:
        found = study.best(5)
        history = study.history()
        values = sorted(history.values[history.fresh, 0], reverse=True)
    assert [sum(value) for value in found] == values[:5]
    assert len(set(found)) == 5
    run = Search(sum, RandomSearch(), space=space, budget=6, direction="maximize", seeds=found)
    assert len(list(run)) == 1
    assert [space.decode(row) for row in run.history.population[:5]] == found
