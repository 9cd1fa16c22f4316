"""A disk that is full, read-only, locked or far away stops a search with a sentence and costs it nothing."""

import contextlib
import errno
import math
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from searchlib import Budget, Cases, EvaluationCache, Evolution, Objective, Outcome, Search, Study, search
from searchlib.errors import StudyBusy, StudyDamaged, StudyError
from searchlib.file_system import shared_file_system
from searchlib.sealed_file import SealedFile
from searchlib.spaces import Binary

SPACE = Binary(64)
SETTINGS = {"algorithm": Evolution(population=8), "budget": 120, "seed": 3, "batch_size": 12}


class Masks(Objective):
    """Counts what is on, differently on every case, and every cell that it scores."""

    space, direction, chunk_rows = SPACE, "maximize", 6

    def __init__(self):
        self.seen = []

    def cases(self, split):
        return Cases(tuple(f"{split.value} {i}" for i in range(3)))

    def evaluate(self, candidates, cases):
        self.seen += [(row.tobytes(), case) for row in candidates.array for case in cases.ids]
        return np.stack([candidates.array @ np.sin(np.arange(64) + len(case)) for case in cases.ids], axis=1)

    def fingerprint(self):
        return {"objective": "masks"}

    def references(self):
        return ("all",)

    def evaluate_reference(self, name, cases):
        return np.ones(len(cases))


@pytest.fixture(scope="module")
def whole():
    return search(Masks(), **SETTINGS)


@contextlib.contextmanager
def files_of_at_most(size):
    """Writing more fails, as on a disk that is full; the process could write as root otherwise."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@contextlib.contextmanager
def small_disk(folder, size):
    """A disk of its own, where this process may mount one."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=False
    )  # fmt: skip
    if mounted.returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def half(study):
    """Leave a search of which half is on file."""
    run = Search(Masks(), study=study, **SETTINGS)
    told = next(record.evaluations for record in run if record.evaluations >= 60)
    assert told < 100
    run.close()
    return told


def fails_and_goes_on(study, whole, make_room):
    """Search until there is no room; what is known is given all the same, and all of it is on file afterwards."""
    runs, told = [], 0

    def run():
        runs.append(Search(Masks(), study=study, **SETTINGS))
        list(runs[0])

    with pytest.raises(StudyError, match=r"s\.db.*search again with the same study"):
        run()
    for begun in runs:
        told = len(begun.history)
        assert np.array_equal(begun.history.values, whole.history.values[:told])
        result = begun.result()
        assert result.outcome is Outcome.RUNNING
        assert (result.best is None) == (told == 0)
        begun.close()
    make_room()
    again = Masks()
    resumed = search(again, study=study, **SETTINGS)
    assert resumed.history.digest == whole.history.digest
    assert resumed.holdout.to_json() == whole.holdout.to_json()
    with Study.open(study) as opened:
        assert opened.history().digest == whole.history.digest
    return told


def test_a_file_that_must_not_grow_stops_the_search_and_costs_it_nothing(tmp_path, whole, caplog):
    reached = []
    for number, size in enumerate((2**12, 2**16, 2**17)):
        folder = tmp_path / str(number)
        folder.mkdir()
        with contextlib.ExitStack() as limit:
            limit.enter_context(files_of_at_most(size))
            reached.append(fails_and_goes_on(folder / "s.db", whole, limit.close))
    assert reached[0] == 0 < reached[2] < 120
    assert "in memory only" in caplog.text


@pytest.mark.parametrize("size", ["64k", "160k", "320k"])
def test_a_full_disk_stops_the_search_and_costs_it_nothing(tmp_path, whole, size):
    with small_disk(tmp_path, size):
        fails_and_goes_on(tmp_path / "s.db", whole, lambda: remount(tmp_path, "size=8m"))


def test_a_full_disk_leaves_the_objective_closed(tmp_path):
    class Open(Masks):
        entered = 0

        def __enter__(self):
            self.entered += 1
            return self

        def __exit__(self, *_):
            self.entered -= 1

    objective = Open()
    with small_disk(tmp_path, "320k"), pytest.raises(StudyError):
        search(objective, study=tmp_path / "s.db", **SETTINGS)
    assert objective.entered == 0
    assert objective.seen


def test_a_full_disk_stops_no_search_that_only_fills_a_cache(tmp_path, whole, caplog):
    with files_of_at_most(2**16):
        result = search(Masks(), cache=tmp_path / "c.db", **SETTINGS)
    assert result.history.digest == whole.history.digest
    assert caplog.text.count("goes on without adding to it") == 1
    objective = Masks()
    again = search(objective, cache=tmp_path / "c.db", **SETTINGS)
    assert np.array_equal(again.history.values[:100], whole.history.values[:100])


def test_a_study_is_read_from_a_read_only_folder_and_not_written_there(tmp_path, whole):
    with small_disk(tmp_path, "8m"):
        search(Masks(), study=tmp_path / "s.db", **SETTINGS)
        remount(tmp_path, "ro")
        before = (tmp_path / "s.db").read_bytes()
        with Study.open(tmp_path / "s.db") as study:
            assert study.history().digest == whole.history.digest
            assert study.result().value == whole.value
        with pytest.raises(StudyError, match=r"Read-only file system.*needs a folder that it may write to"):
            search(Masks(), study=tmp_path / "s.db", **SETTINGS)
        with pytest.raises(StudyError, match="cannot open or create"):
            search(Masks(), study=tmp_path / "new.db", **SETTINGS)
        assert (tmp_path / "s.db").read_bytes() == before


def test_a_folder_that_becomes_read_only_stops_the_search_and_costs_it_nothing(tmp_path, whole):
    with small_disk(tmp_path, "8m"):
        run, told = Search(Masks(), study=tmp_path / "s.db", **SETTINGS), 0

        def go():
            nonlocal told
            for record in run:
                told = record.evaluations
                if told >= 48:  # files that are open for writing keep a disk from becoming read-only
                    run._study._file.execute("PRAGMA query_only=1")

        with pytest.raises(StudyError, match=r"s\.db"):
            go()
        assert told < 100
        assert run.result().history.evaluations == told
        run.close()
        assert search(Masks(), study=tmp_path / "s.db", **SETTINGS).history.digest == whole.history.digest


def test_rows_that_only_a_log_holds_are_not_passed_over_in_a_read_only_folder(tmp_path):
    with small_disk(tmp_path, "8m"):
        run = Search(Masks(), study=tmp_path / "whole.db", **SETTINGS)
        records = iter(run)
        next(records)
        for name in ("", "-wal"):  # as a driver that was killed leaves it
            (tmp_path / f"s.db{name}").write_bytes((tmp_path / f"whole.db{name}").read_bytes())
        run.close()
        remount(tmp_path, "ro")
        with pytest.raises(StudyError, match=r"newest rows of .* are in 's\.db-wal'.*copy both"):
            Study.open(tmp_path / "s.db")


LOCKS = """
import select, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
print("locked", flush=True)
select.select([sys.stdin], [], [], float(sys.argv[3]))
"""


@contextlib.contextmanager
def locked_by_another_process(study, how, seconds=60.0):
    process = subprocess.Popen(
        [sys.executable, "-c", LOCKS, str(study), how, str(seconds)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert process.stdout.readline() == "locked\n"
        yield
    finally:
        process.communicate()


def test_a_database_that_another_process_has_locked_is_read_but_not_written(tmp_path, whole, monkeypatch):
    monkeypatch.setattr("searchlib.sealed_file._PATIENCE", 0.05)
    study = tmp_path / "s.db"
    told = half(study)
    with locked_by_another_process(study, "BEGIN EXCLUSIVE"):
        with Study.open(study) as opened:
            assert opened.history().evaluations == told
        with pytest.raises(StudyBusy, match=r"another process is writing to .*s\.db"):
            search(Masks(), study=study, **SETTINGS)
    assert search(Masks(), study=study, **SETTINGS).history.digest == whole.history.digest


def test_a_lock_that_is_let_go_in_time_is_waited_for(tmp_path, whole):
    study = tmp_path / "s.db"
    half(study)
    with locked_by_another_process(study, "BEGIN IMMEDIATE", 0.3):
        assert search(Masks(), study=study, **SETTINGS).history.digest == whole.history.digest


def test_a_second_driver_is_refused_and_the_first_one_does_not_notice(tmp_path, whole):
    study = tmp_path / "s.db"
    run, refused = Search(Masks(), study=study, **SETTINGS), 0
    for number, record in enumerate(run):
        if number in (1, 4):
            child = os.fork()
            if not child:
                code = 1
                with contextlib.suppress(BaseException):
                    with pytest.raises(StudyBusy, match="another search is writing"):
                        search(Masks(), study=study, **SETTINGS)
                    with Study.open(study) as opened:
                        code = int(opened.history().evaluations != record.evaluations)
                os._exit(code)
            refused += os.waitpid(child, 0)[1] == 0
    assert refused == 2
    assert run.history.digest == whole.history.digest


def test_of_many_drivers_that_follow_each_other_never_two_write_at_once(tmp_path):
    """One that waits for the lock must not get the name that the one before it is just removing."""
    study, seen = tmp_path / "s.db", tmp_path / "seen"
    seen.touch()
    children = []
    for number in range(4):
        if not (child := os.fork()):
            rng, code = np.random.default_rng(number), 1
            with contextlib.suppress(BaseException):
                until = time.monotonic() + 0.5
                while time.monotonic() < until:
                    with contextlib.suppress(StudyBusy):
                        file = SealedFile.writing(study)
                        with open(seen, "a") as log:
                            log.write(f"+{number}\n")
                            log.flush()
                            time.sleep(rng.uniform(0, 1e-3))
                            log.write(f"-{number}\n")
                        file.close()
                code = 0
            os._exit(code)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    log = seen.read_text().split()
    assert len(log) > 40
    assert all(begun[0] == "+" and ended == f"-{begun[1:]}" for begun, ended in zip(log[::2], log[1::2], strict=True))


def test_a_file_system_without_locks_is_refused_with_the_way_out(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(StudyError, match=r"cannot lock .*s\.db.*No locks available.*use a local disk") as raised:
        search(Masks(), study=tmp_path / "s.db", **SETTINGS)
    assert not isinstance(raised.value, StudyBusy)


@pytest.mark.parametrize("head_start", [0, 1, 4])
def test_where_locks_hold_nobody_two_drivers_collide_and_never_mingle(tmp_path, whole, monkeypatch, head_start):
    """As on machines that share a disk without telling each other of locks: the first to write a batch has it."""
    monkeypatch.setattr("fcntl.flock", lambda *_: None)
    study, refused = tmp_path / "s.db", 0
    runs = [Search(Masks(), study=study, **SETTINGS)]
    drivers = [iter(runs[0])]
    for _ in range(head_start):
        next(drivers[0])
    runs.append(Search(Masks(), study=study, **SETTINGS))
    drivers.append(iter(runs[1]))
    while drivers:
        for driver in tuple(drivers):
            try:
                next(driver)
            except (StopIteration, StudyBusy) as end:
                refused += "another process is writing" in str(end)
                drivers.remove(driver)
    assert refused == 1
    for run in runs:
        run.close()
    with Study.open(study) as opened:
        assert opened.history().digest == whole.history.digest
    assert search(Masks(), study=study, **SETTINGS).holdout.to_json() == whole.holdout.to_json()


def test_a_newer_study_is_refused_by_its_number_and_left_as_it_is(tmp_path):
    study = tmp_path / "s.db"
    search(Masks(), study=study, **SETTINGS)
    with contextlib.closing(sqlite3.connect(study)) as connection:
        connection.execute("PRAGMA user_version=99")
        connection.commit()
    before = study.read_bytes()
    objective = Masks()
    with pytest.raises(StudyDamaged, match=r"has format 99.*use a newer searchlib"):
        search(objective, study=study, **SETTINGS)
    assert study.read_bytes() == before
    assert objective.seen == []


@pytest.mark.parametrize("jump", [-86_400.0, 86_400.0])
def test_a_clock_that_jumps_a_day_changes_nothing(tmp_path, whole, monkeypatch, jump):
    clock, calls = time.time, [0]

    def jumping():
        calls[0] += 1
        return clock() + jump * (calls[0] % 2)

    class Jumps(Masks):
        def evaluate(self, candidates, cases):
            monkeypatch.setattr(time, "time", jumping)
            return super().evaluate(candidates, cases)

    limits = SETTINGS | {"budget": Budget(evaluations=120, seconds=3600.0)}
    result = search(Jumps(), study=tmp_path / "s.db", cache=tmp_path / "c.db", **limits)
    assert result.history.digest == whole.history.digest
    assert result.outcome is Outcome.EVALUATIONS
    assert 0 < result.seconds < 60


# network file systems -------------------------------------------------------------------------------------------------

MOUNTS = r"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
23 22 0:21 / /proc rw - proc proc rw
24 22 0:50 / /home rw,relatime - nfs4 server:/home rw,vers=4.2
25 24 8:2 / /home/me/fast\040disk rw - xfs /dev/nvme0n1 rw
26 22 0:51 / /scratch rw - lustre 10.0.0.1@tcp:/scratch rw
27 22 0:52 / /mnt/share rw - cifs //server/share rw
28 22 0:53 / /mnt/far rw - fuse.sshfs me@server: rw
29 27 0:54 / /mnt/share rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp/s.db", ""),
        ("/home/me/s.db", "nfs4"),
        ("/home/me/fast disk/s.db", ""),
        ("/homes/s.db", ""),
        ("/scratch/a/b/c/s.db", "lustre"),
        ("/mnt/share/s.db", ""),
        ("/mnt/far/s.db", "fuse.sshfs"),
        ("/scratch/../tmp/s.db", ""),
    ],
)
def test_a_file_system_is_that_of_the_deepest_and_last_mount(path, kind):
    assert shared_file_system(path, MOUNTS) == kind


def test_a_machine_without_a_table_of_mounts_counts_its_disks_as_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr("searchlib.file_system._MOUNTS", tmp_path / "none")
    assert shared_file_system("/anywhere") == ""
    assert shared_file_system("/anywhere", "what is\nthis - \n") == ""


@pytest.fixture
def _far_away(tmp_path, monkeypatch):
    table = tmp_path.parent / f"{tmp_path.name} mounts"
    table.write_text(f"22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:9 / {tmp_path} rw - nfs4 server:/ rw\n")
    monkeypatch.setattr("searchlib.file_system._MOUNTS", table)


@pytest.mark.usefixtures("_far_away")
def test_on_a_network_file_system_a_study_has_a_rollback_journal_and_resumes_the_same(tmp_path, whole):
    study, names = tmp_path / "s.db", set()
    for record in Search(Masks(), study=study, **SETTINGS):
        names |= {path.name for path in tmp_path.iterdir()}
        with Study.open(study) as opened:
            assert len(opened.history()) == record.evaluations
        if record.evaluations == 60:
            break
    assert "s.db" in names
    assert not {"s.db-wal", "s.db-shm"} & names
    assert study.read_bytes()[18:20] == b"\x01\x01"  # versions that say: no write-ahead log
    assert search(Masks(), study=study, **SETTINGS).history.digest == whole.history.digest


HALF = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=1")  # so that pages are written before the transaction ends
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE chunk SET scores = zeroblob(length(scores))")
connection.execute("CREATE TABLE more (a)")
for _ in range(200):
    connection.execute("INSERT INTO more VALUES (zeroblob(4000))")
os.kill(os.getpid(), 9)
"""


def half_written(study):
    """A study that a driver was writing when it was killed: half a transaction, and the journal that undoes it."""
    told = half(study)
    killed = subprocess.run([sys.executable, "-c", HALF, str(study)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert study.with_name("s.db-journal").stat().st_size > 1000
    return told


@pytest.mark.usefixtures("_far_away")
def test_half_a_transaction_of_a_killed_driver_is_undone_before_a_study_is_read(tmp_path, whole):
    told = half_written(tmp_path / "s.db")
    with Study.open(tmp_path / "s.db") as study:
        assert study.history().evaluations == told
        assert len(list(study.chunks(1))) == 2
    assert search(Masks(), study=tmp_path / "s.db", **SETTINGS).history.digest == whole.history.digest


def test_half_a_transaction_in_a_read_only_folder_is_said(tmp_path, monkeypatch):
    with small_disk(tmp_path, "8m"):
        with monkeypatch.context() as far:
            far.setattr("searchlib.sealed_file.shared_file_system", lambda path: "nfs4")
            half_written(tmp_path / "s.db")
        remount(tmp_path, "ro")
        with pytest.raises(StudyError, match=r"half a transaction is in .*copy it and s\.db-journal to a folder of"):
            Study.open(tmp_path / "s.db")


@pytest.mark.usefixtures("_far_away")
def test_a_study_that_was_brought_to_a_network_file_system_changes_its_journal(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as near:
        near.setattr("searchlib.file_system._MOUNTS", tmp_path / "none")
        half(tmp_path / "s.db")
    assert (tmp_path / "s.db").read_bytes()[18:20] == b"\x02\x02"
    assert search(Masks(), study=tmp_path / "s.db", **SETTINGS).history.digest == whole.history.digest
    assert (tmp_path / "s.db").read_bytes()[18:20] == b"\x01\x01"


@pytest.mark.usefixtures("_far_away")
def test_on_a_network_file_system_a_cache_has_a_rollback_journal(tmp_path, whole):
    first = search(Masks(), cache=tmp_path / "c.db", **SETTINGS)
    assert first.history.digest == whole.history.digest
    assert (tmp_path / "c.db").read_bytes()[18:20] == b"\x01\x01"
    with EvaluationCache(tmp_path / "c.db") as cache:
        assert len(cache) >= 120


# power cuts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [0.0, 0.03])
def test_work_that_took_long_is_flushed_to_the_disk_at_once(tmp_path, monkeypatch, seconds):
    """Two workers may be done within a millisecond of each other, after an hour each: both are worth a flush."""
    monkeypatch.setattr("searchlib.sealed_file._FLUSH_SHARE", 0)  # a disk that is not slow

    class Slow(Masks):
        def evaluate(self, candidates, cases):
            time.sleep(seconds)
            return super().evaluate(candidates, cases)

    said = []
    run = Search(Slow(), study=tmp_path / "s.db", **SETTINGS)
    file = run._study._file
    file.connection.set_trace_callback(said.append)
    with run:
        for number, _ in enumerate(run):
            file._flushed = math.inf  # as if a flush had just been
            if number == 3:
                break
    chunks = [number for number, text in enumerate(said) if text.startswith("INSERT INTO chunk")]
    assert len(chunks) == 8
    levels = [next(text for text in said[number::-1] if "synchronous" in text) for number in chunks[2:]]
    assert set(levels) == {f"PRAGMA synchronous={'FULL' if seconds else 'NORMAL'}"}


def test_what_a_language_model_wrote_is_flushed_to_the_disk_before_anybody_sees_it(tmp_path):
    said = []
    run = Search(Masks(), study=tmp_path / "s.db", **SETTINGS)
    file = run._study._file
    file.connection.set_trace_callback(said.append)
    for number in range(5):
        file._flushed = math.inf
        run._memo.recall(f"rewrite {number}", lambda: "made once")
    run.close()
    assert [text for text in said if "synchronous" in text] == ["PRAGMA synchronous=FULL"] * 5
