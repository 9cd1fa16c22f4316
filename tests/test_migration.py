"""Studies that older versions wrote are brought to the present format: whole, or not at all."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from searchlib import Cases, Evolution, Objective, RandomSearch, Study, search
from searchlib import migration as migrations
from searchlib.__main__ import main
from searchlib.errors import SearchlibError, StudyBusy, StudyDamaged, StudyError, StudyMismatch
from searchlib.migration import STEPS, migrate
from searchlib.sealed_file import SealedFile
from searchlib.spaces import Subset
from searchlib.study import FORMAT

#: What the last searchlib that wrote format 1 has left of a search on `Weights`, statement by statement.
FORMAT_1 = (Path(__file__).parent / "format_1.sql").read_text(encoding="utf-8")

#: With ``make soak``, deaths within statements too, at every row.
MANY = os.environ.get("SEARCHLIB_SLOW") == "1"

TABLES = ("setting", "array", "batch", "chunk", "told", "reference", "memo", "digest")


class Weights(Objective):
    """Three of nine items; the heaviest one cannot be evaluated."""

    space, direction, chunk_rows = Subset(9, k=3), "maximize", 3

    def cases(self, split):
        return Cases(tuple(f"{split.value} {number}" for number in range(2)))

    def evaluate(self, candidates, cases):
        if (candidates.array == 8).any():
            raise ValueError("too heavy")
        shifts = np.array([sum(map(ord, case)) % 7 for case in cases.ids])
        return np.sin(candidates.array.astype(float) @ np.array([[1.7], [0.9], [2.3]]) + shifts)

    def references(self):
        return ("nothing",)

    def evaluate_reference(self, name, cases):
        return np.zeros(len(cases))

    def remember(self, memo):
        memo.recall("a rewrite", lambda: ["once"])


def run(study, **settings):
    settings = {"budget": 16, "seed": 2, "batch_size": 4, **settings}
    return search(Weights(), Evolution(population=4), study=study, **settings)


def written(path, *more):
    """The study of format 1 as a file, after some more statements."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript("\n".join((FORMAT_1, *more)))
    return path


#: The search was killed after its second batch.
HALF = (
    "DELETE FROM chunk WHERE batch > 1; DELETE FROM told WHERE batch > 1; DELETE FROM batch WHERE number > 1;",
    "DELETE FROM reference; DELETE FROM setting WHERE name = 'result';",
)
#: What the first searches did not have.
FIRST = (
    "DROP TABLE memo; DROP TABLE digest;",
    "DELETE FROM setting WHERE name IN ('planned', 'shortlist', 'choose', 'racing', 'case_source', 'task_space');",
)


@pytest.fixture
def old(tmp_path):
    return written(tmp_path / "old.db")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    path = tmp_path_factory.mktemp("fresh") / "fresh.db"
    return path, run(path)


def rows_of(path):
    """All that is in the tables, without the seals."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        rows = {}
        for table in sorted(there & set(TABLES)):
            columns = [one[1] for one in connection.execute(f"PRAGMA table_info({table})") if one[1] != "seal"]
            rows[table] = connection.execute(f"SELECT {', '.join(columns)} FROM {table}").fetchall()
        return rows


def format_of(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute("PRAGMA user_version").fetchone()[0]


def shape_of(path):
    """Names, types and constraints of all columns."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {
            table: [(name, kind, required, key) for _, name, kind, required, _, key in
                    connection.execute(f"PRAGMA table_info({table})")]
            for table in TABLES
        }  # fmt: skip


def test_a_migrated_study_reads_as_one_that_was_written_today(old, fresh):
    done = migrate(old)
    assert (done.old, done.new) == (1, FORMAT)
    path, result = fresh
    assert shape_of(old) == shape_of(path)
    with Study.open(old) as study:
        history, found = study.history(), study.result()
    assert len(history) == 16
    assert 0 < history.failures < 8
    assert history.digest == result.history.digest
    assert [error.splitlines()[-1:] for error in history.errors] == [
        error.splitlines()[-1:] for error in result.history.errors
    ]
    assert found.best == result.best
    assert found.value == result.value
    assert found.holdout.to_json() == result.holdout.to_json()


@pytest.mark.parametrize("more", [(), FIRST])
def test_a_migrated_study_resumes_to_the_history_of_an_undisturbed_search(more, tmp_path, fresh):
    old = written(tmp_path / "half.db", *HALF, *more)
    migrate(old)
    with Study.open(old) as study:
        assert len(study.history()) == 8
    resumed = run(old)
    assert resumed.history.digest == fresh[1].history.digest
    assert resumed.holdout.to_json() == fresh[1].holdout.to_json()
    assert run(old, budget=24).history.evaluations == 24


def test_it_is_resumed_from_the_command_line_with_the_batches_that_it_had(tmp_path, capsys):
    """Early studies do not say whether the batch size was given; the number that was asked for does."""
    old, script = written(tmp_path / "half.db", *HALF), tmp_path / "weights.py"
    source = Path(__file__).read_text(encoding="utf-8")
    body = source[source.index("class Weights") : source.index("def run")]
    script.write_text(f"import numpy as np\nfrom searchlib import Cases, Objective\nfrom searchlib.spaces import Subset"
                      f"\n\n{body}")  # fmt: skip
    assert main(["migrate", str(old)]) == 0
    assert main(["resume", str(old), "--objective", f"{script}:Weights", "--budget", "16"]) == 0
    assert "16 evaluations" in capsys.readouterr().out
    with Study.open(old) as study:
        assert [batch.asked for batch in study.batches()] == [4, 4, 4, 4]


@pytest.mark.parametrize("more", [(), HALF, FIRST])
def test_every_row_stays_what_it_was_and_the_old_file_is_kept(more, tmp_path):
    old = written(tmp_path / "old.db", *more)
    before = rows_of(old)
    done = migrate(old)
    assert done.kept == tmp_path / "old.db.format1.bak"
    assert rows_of(done.kept) == before
    assert format_of(done.kept) == 1
    now = rows_of(old)
    assert {name: now[name] for name in before} == before
    assert all(not now[name] for name in set(now) - set(before))
    assert {path.name for path in tmp_path.iterdir()} == {"old.db", "old.db.format1.bak"}


def test_rows_that_a_killed_search_left_in_the_log_alone_are_migrated_and_kept_too(tmp_path):
    with contextlib.closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as writer:
        writer.executescript("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0;" + FORMAT_1)
        (tmp_path / "killed").mkdir()
        for name in ("old.db", "old.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / "killed" / name)
    assert (tmp_path / "killed" / "old.db").stat().st_size < 10_000  # nothing of it has reached the file itself
    before = rows_of(tmp_path / "old.db")
    done = migrate(tmp_path / "killed" / "old.db")
    assert rows_of(done.study) == rows_of(done.kept) == before
    with Study.open(done.study) as study:
        assert len(study.history()) == 16


def test_what_is_of_the_present_format_is_left_alone(tmp_path):
    run(tmp_path / "new.db")
    before = (tmp_path / "new.db").read_bytes()
    done = migrate(tmp_path / "new.db")
    assert done.kept is None
    assert "nothing to migrate" in str(done)
    assert (tmp_path / "new.db").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"new.db"}


def test_reading_or_resuming_an_older_study_says_how_to_migrate_it_and_writes_nothing(tmp_path, capsys):
    old = written(tmp_path / "it's old.db")
    before = old.read_bytes()
    for use in (Study.open, run):
        with pytest.raises(StudyDamaged, match="has format 1") as caught:
            use(old)
    command = str(caught.value).split("`")[1]
    assert main(["show", str(old)]) == 1
    assert "python -m searchlib migrate" in capsys.readouterr().err
    assert old.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"it's old.db"}
    words = shlex.split(command)
    subprocess.run([sys.executable, *words[1:]], check=True, capture_output=True)
    assert main(["show", str(old)]) == 0


def test_a_study_of_the_future_is_left_to_a_newer_version(old):
    with contextlib.closing(sqlite3.connect(old)) as connection:
        connection.execute("PRAGMA user_version = 99")
    before = old.read_bytes()
    for use in (Study.open, migrate):
        with pytest.raises(StudyDamaged, match=r"has format 99, .* use a newer searchlib"):
            use(old)
    assert old.read_bytes() == before


def test_a_format_that_no_step_begins_with_is_too_old(old, monkeypatch):
    monkeypatch.setattr(migrations, "STEPS", {2: STEPS[1]})
    monkeypatch.setattr(migrations, "FORMAT", 3)
    with pytest.raises(StudyDamaged, match=r"has format 1, which is too old to be migrated \(formats from 2 on are\)"):
        migrate(old)
    assert format_of(old) == 1


def test_there_is_a_step_from_every_older_format():
    assert sorted(STEPS) == list(range(1, FORMAT))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no study at"),
        (lambda path: path.write_text("no database, just a text of some length " * 40), "cannot be read as a study"),
        (lambda path: sqlite3.connect(path).execute("CREATE TABLE mine (x)").connection.commit(), "not a study"),
        (lambda path: written(path, "ALTER TABLE told ADD COLUMN more TEXT;"), "its table 'told' has the columns"),
        (lambda path: written(path, "DROP TABLE batch;"), "its table 'batch' has the columns"),
    ],
)
def test_what_is_no_study_of_format_1_is_refused_and_left_as_it_is(make, message, tmp_path):
    path = tmp_path / "s.db"
    make(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(StudyDamaged, match=message):
        migrate(path)
    if before is None:
        assert not list(tmp_path.iterdir())
    elif b"CREATE TABLE setting" in before:
        assert format_of(path) == 1
    else:
        assert path.read_bytes() == before


def test_a_study_that_is_being_written_is_not_migrated(old):
    writer = SealedFile.writing(old)
    with pytest.raises(StudyBusy, match="another search is writing"):
        migrate(old)
    writer.close()
    assert migrate(old).kept is not None


def test_a_copy_of_something_else_is_never_overwritten(old):
    kept = Path(f"{old}.format1.bak")
    kept.write_text("somebody's")
    with pytest.raises(StudyError, match=r"holds something else than .* does now; move it away"):
        migrate(old)
    assert kept.read_text() == "somebody's"
    assert format_of(old) == 1
    assert len(list(old.parent.iterdir())) == 2


def test_where_nothing_can_be_kept_nothing_is_migrated(old, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StudyError, match="No space left on device; make room for a copy"):
        migrate(old)
    monkeypatch.undo()
    assert format_of(old) == 1
    assert {path.name for path in old.parent.iterdir()} == {"old.db"}


def test_what_an_older_algorithm_did_is_read_but_not_gone_on_with_by_another_one(old):
    migrate(old)
    with pytest.raises(StudyMismatch, match="algorithm: 'Evolution"):
        search(Weights(), RandomSearch(), budget=24, seed=2, batch_size=4, study=old)
    with Study.open(old) as study:
        assert len(study.history()) == 16


def test_the_command_says_what_it_has_done(old, capsys):
    assert main(["migrate", str(old), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "study": str(old), "old": 1, "new": FORMAT, "kept": f"{old}.format1.bak",
    }  # fmt: skip
    assert main(["migrate", str(old)]) == 0
    assert "there is nothing to migrate" in capsys.readouterr().out
    assert main(["migrate", f"{old}-none"]) == 1
    assert "there is no study" in capsys.readouterr().err


class Moments:
    """Counts statements, flushes, renames (and rows) of a migration; at one of them the process is killed."""

    def __init__(self, last):
        self.left = last

    def pass_by(self, *_):
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, function):
        def counted(*given, **named):
            self.pass_by()
            result = function(*given, **named)
            self.pass_by()
            return result

        return counted

    def watch(self):
        connect = sqlite3.connect

        def traced(*given, **named):
            connection = connect(*given, **named)
            connection.set_trace_callback(self.pass_by)
            return connection

        sqlite3.connect = traced
        os.fsync, os.replace, Path.replace = map(self.around, (os.fsync, os.replace, Path.replace))
        if MANY:
            migrations.sealed = self.around(migrations.sealed)


def killed(path, moment):
    """Migrate in a process of its own that dies at a moment; whether it did."""
    process = os.fork()
    if not process:
        code = 1
        try:
            Moments(moment).watch()
            migrate(path)
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the migration failed by itself"
    return False


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_death_at_any_moment_leaves_the_old_study_or_the_new_one(tmp_path, fresh):
    whole, ends, moment = fresh[1].history.digest, set(), 0
    old = written(tmp_path / "old.db")
    before = rows_of(old)
    while True:
        moment += 1
        folder = tmp_path / str(moment)
        folder.mkdir()
        path = Path(shutil.copy(old, folder / "s.db"))
        if not killed(path, moment):
            break
        ends.add(format_of(path))
        assert rows_of(path) == before
        with contextlib.suppress(SearchlibError), Study.open(path) as study:
            assert format_of(path) == FORMAT
            assert study.history().digest == whole
        assert migrate(path).new == FORMAT
        assert rows_of(f"{path}.format1.bak") == before
        assert {one.name for one in folder.iterdir()} == {"s.db", "s.db.format1.bak"}
        with Study.open(path) as study:
            assert study.history().digest == whole
    assert ends == {1, FORMAT}
    assert moment > (100 if MANY else 30)
