"""A driver that dies at any moment loses nothing: the history is that of a search that was never disturbed.

Eight deaths of each kind in every run of the tests, hundreds with ``make soak`` (``SEARCHLIB_SLOW=1``).
"""

import contextlib
import os
import signal
import sqlite3
import time

import numpy as np
import pytest

from searchlib import Cases, Evolution, LocalSearch, Objective, Split, Study, committed_state, search
from searchlib.errors import SearchlibError, StudyBusy, StudyDamaged
from searchlib.spaces import Subset

MANY = os.environ.get("SEARCHLIB_SLOW") == "1"
DEATHS = 220 if MANY else 8
BUDGET = 60

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


class Logged(Objective):
    """Writes down every cell that it evaluates, before anybody else could know its score."""

    space, direction, chunk_rows, chunk_cases = Subset(24, k=6), "minimize", 3, 2

    def __init__(self, log, seconds=0.0):
        self.log, self.seconds = log, seconds

    def cases(self, split):
        return Cases(tuple(f"{split.value} {i}" for i in range(4 if split is Split.SEARCH else 2)))

    def evaluate(self, candidates, cases):
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        lines = [f"{row.tobytes().hex()} {case}\n" for row in candidates.array for case in cases.ids]
        os.write(file, "".join(lines).encode())
        os.close(file)
        time.sleep(self.seconds)
        shifts = np.array([hash_of(case) for case in cases.ids])
        return np.sin(candidates.array @ np.arange(1, 7)[:, None] * 1.7 + shifts)


def hash_of(case):
    return sum(map(ord, case)) % 7 * 0.3


def run(study, log, seconds=0.0):
    return search(Logged(log, seconds), chosen[-1][0], budget=BUDGET, seed=4, study=study, batch_size=7)


#: Algorithms, and the chunks of their 9 batches: 60 candidates, cut into chunks of 3 candidates and 2 of 4 cases. The
#: states of the second one are on file, every few batches.
ALGORITHMS = {
    "replayed": (LocalSearch(), 8 * 3 * 2 + 2 * 2),
    "from states": (Evolution(population=12, offspring=7), (3 + 2 + 6 * 3 + 2) * 2),
}
BATCHES = 9
chosen = [ALGORITHMS["replayed"]]


@pytest.fixture(scope="module", params=ALGORITHMS)
def undisturbed(tmp_path_factory, request):
    chosen.append(ALGORITHMS[request.param])
    committed_state._LEAST, least = 8, committed_state._LEAST
    yield whole(tmp_path_factory.mktemp("whole"))
    committed_state._LEAST = least


def whole(folder):
    result = run(folder / "s.db", folder / "log")
    cells = (folder / "log").read_text().splitlines()
    assert len(cells) == len(set(cells)) >= 4 * BUDGET
    return result, cells


def dies(child):
    """Run ``child`` in a process of its own; whether it was killed."""
    process = os.fork()
    if not process:
        code = 1
        try:
            child()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "the driver failed by itself"
    return False


def finished_cells(study):
    """SEARCH cells whose scores are on file, in the words of the log."""
    if not study.exists():
        return set()
    cases, cells = Logged("").cases(Split.SEARCH).ids, set()
    with contextlib.suppress(StudyDamaged), Study.open(study) as opened:  # it died before there was anything in it
        for batch in opened.batches():
            fresh = batch.population[batch.fresh]
            for scores in opened.chunks(batch.number):
                chunk = scores.chunk
                for row in fresh[chunk.row : chunk.row_end]:
                    cells |= {f"{row.tobytes().hex()} {case}" for case in cases[chunk.case : chunk.case_end]}
    return cells


def disturbed(tmp_path, undisturbed, kill_at):
    """Search a study to its end through deaths that ``kill_at(study, log)`` brings about; how many there were."""
    study, log, deaths = tmp_path / "s.db", tmp_path / "log", 0
    log.touch()
    while True:
        known = finished_cells(study)
        seen = len(log.read_text().splitlines())
        killed = kill_at(study, log)
        again = known & set(log.read_text().splitlines()[seen:])
        assert not again, f"evaluated again although on file: {sorted(again)[:3]}"
        deaths += killed
        if not killed:
            break
    result, cells = undisturbed
    with Study.open(study) as opened:
        history, found = opened.history(), opened.result()
    assert history.digest == result.history.digest
    assert (found.row == result.row).all()
    assert found.holdout.to_json() == result.holdout.to_json()
    assert set(log.read_text().splitlines()) == set(cells), "a cell was lost"
    return deaths


@pytest.fixture(params=["write-ahead log", "rollback journal"])
def journal(request, monkeypatch, tmp_path_factory):
    """What a study is written through: on a local disk, and on one that other machines may see."""
    if request.param == "rollback journal":
        table = tmp_path_factory.mktemp("mounts") / "table"
        table.write_text("22 1 8:1 / / rw - nfs4 server:/ rw\n")
        monkeypatch.setattr("searchlib.file_system._MOUNTS", table)
    return request.param


def test_death_at_random_moments_changes_nothing(tmp_path, undisturbed, journal):
    rng, deaths, number = np.random.default_rng(0), 0, 0
    while deaths < DEATHS:
        folder = tmp_path / str(number)
        folder.mkdir()

        def kill_at(study, log):
            def child():
                signal.setitimer(signal.ITIMER_REAL, float(rng_delay))
                signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
                run(study, log, seconds=2e-4)

            rng_delay = rng.uniform(0.005, 0.12)
            return dies(child)

        deaths += disturbed(folder, undisturbed, kill_at)
        number += 1


def test_death_inside_every_write_of_the_journal_changes_nothing(tmp_path, undisturbed, journal):
    """The driver is killed as SQLite begins its n-th statement: before, within and after transactions."""
    rng, deaths, number = np.random.default_rng(1), 0, 0
    while deaths < DEATHS:
        folder = tmp_path / str(number)
        folder.mkdir()

        def kill_at(study, log):
            left = [int(rng.integers(1, 120))]

            def count(_):
                left[0] -= 1
                if not left[0]:
                    os.kill(os.getpid(), signal.SIGKILL)

            def child():
                connect = sqlite3.connect

                def traced(*arguments, **settings):
                    connection = connect(*arguments, **settings)
                    connection.set_trace_callback(count)
                    return connection

                sqlite3.connect = traced
                run(study, log)

            return dies(child)

        deaths += disturbed(folder, undisturbed, kill_at)
        number += 1


@pytest.mark.parametrize("locks", ["that hold", "that hold nobody"])
def test_of_two_drivers_that_die_nothing_is_lost_or_mingled(tmp_path, undisturbed, monkeypatch, locks, journal):
    """Each tries again when it was refused or killed, until there is nothing left to do."""
    if locks == "that hold nobody":
        monkeypatch.setattr("fcntl.flock", lambda *_: None)
    rng, deaths, number = np.random.default_rng(3), 0, 0
    while deaths < RIVAL_DEATHS:  # one study may be done before
        folder = tmp_path / str(number)
        folder.mkdir()
        deaths += rivals_died(folder, rng, RIVAL_DEATHS - deaths, undisturbed, locks == "that hold")
        number += 1
    assert number <= 8


def rivals_died(folder, rng, most, undisturbed, held_back):
    """Search one study by two drivers at once, which are killed up to ``most`` times; how often they were."""
    study, log, deaths = folder / "s.db", folder / "log", 0
    log.touch()
    drivers = {begun(study, log, rng, most): name for name in "ab"}
    while drivers:
        process, status = os.waitpid(-1, 0)
        name = drivers.pop(process)
        deaths += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) in (0, REFUSED), "a driver failed by itself"
        if os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == REFUSED:
            drivers[begun(study, log, rng, most - deaths)] = name
    result, cells = undisturbed
    with Study.open(study) as opened:
        assert opened.history().digest == result.history.digest
        assert opened.result().holdout.to_json() == result.holdout.to_json()
    evaluated = log.read_text().splitlines()
    assert set(evaluated) == set(cells), "a cell was lost"
    if held_back:  # a death costs what was being evaluated: a chunk, or the references
        assert len(evaluated) <= len(cells) + 6 * deaths
    return deaths


REFUSED, RIVAL_DEATHS = 3, 40 if MANY else 6


def begun(study, log, rng, more):
    """Begin a driver in a process of its own, which is killed soon, as long as there are to be ``more`` deaths."""
    delay = rng.uniform(0.01, 0.08) if more > 0 else 60.0
    if process := os.fork():
        return process
    code = 1
    try:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        signal.setitimer(signal.ITIMER_REAL, float(delay))
        with contextlib.suppress(StudyBusy):
            code = REFUSED
            run(study, log, seconds=1e-3)
            code = 0
    finally:
        os._exit(code)


def states(tmp_path):
    """A killed driver's study: its file, its log, and where in the log transactions end."""
    study = tmp_path / "whole.db"

    def child():
        commit = Study.write_result
        Study.write_result = lambda *given: (commit(*given), os.kill(os.getpid(), signal.SIGKILL))
        run(study, tmp_path / "log")

    assert dies(child)
    data, log = study.read_bytes(), (tmp_path / "whole.db-wal").read_bytes()
    page = int.from_bytes(log[8:12], "big")
    frames = range(32, len(log), 24 + page)
    ends = [frame + 24 + page for frame in frames if int.from_bytes(log[frame + 4 : frame + 8], "big")]
    assert len(ends) > 60
    assert ends[-1] == len(log)
    return data, log, ends


def known(study):
    """What a study says: its history, and the cells that are on file."""
    try:
        with Study.open(study) as opened:
            return opened.history().digest, finished_cells(study)
    except StudyDamaged as empty:
        return str(empty).partition(":")[2], set()


def cuts(ends, rng):
    """Where a log is cut: around the end of every transaction, and anywhere."""
    near = [end + shift for end in ends for shift in ((-4120, -1, 0, 1) if MANY else (-1, 0))]
    anywhere = rng.integers(0, ends[-1], 3000 if MANY else 60).tolist()
    return sorted({cut for cut in [0, 1, 31, 32, 33, *near, *anywhere] if 0 <= cut <= ends[-1]})


def test_a_log_that_ends_anywhere_holds_all_that_was_committed_before_there(tmp_path, undisturbed):
    """As a driver leaves it that is killed within any write: never refused, and nothing of it is lost."""
    data, log, ends = states(tmp_path)
    rng, study, before, found = np.random.default_rng(4), tmp_path / "s.db", ("", set()), {}
    places = cuts(ends, rng)
    for cut in places:
        for file in (study, tmp_path / "s.db-wal", tmp_path / "s.db-shm"):
            file.unlink(missing_ok=True)
        study.write_bytes(data)
        (tmp_path / "s.db-wal").write_bytes(log[:cut])
        digest, cells = known(study)
        committed = sum(end <= cut for end in ends)
        assert found.setdefault(committed, (digest, cells)) == (digest, cells)
        assert cells >= before[1]
        assert cells or len(digest) == 32 or "has had no time to begin" in digest
        before = digest, cells
    assert len(found) == len(ends) + 1
    assert sum(len(found[end][1]) > len(found[end - 1][1]) for end in range(1, len(ends) + 1)) == chosen[-1][1]
    assert before[0] == undisturbed[0].history.digest
    assert len({digest for digest, _ in found.values()}) >= 1 + BATCHES  # of no batch, and of every batch
    for cut in rng.choice(places, 60 if MANY else 4, replace=False):
        check_goes_on(tmp_path / f"{cut}", data, log[:cut], undisturbed)


def check_goes_on(folder, data, log, undisturbed):
    """A study that was cut goes on to the same history and evaluates nothing that it holds."""
    folder.mkdir()
    (folder / "s.db").write_bytes(data)
    (folder / "s.db-wal").write_bytes(log)
    (folder / "log").touch()
    cells = finished_cells(folder / "s.db")
    assert run(folder / "s.db", folder / "log").history.digest == undisturbed[0].history.digest
    assert not cells & set((folder / "log").read_text().splitlines())


def torn(data, rng):
    """A file as a power cut may leave it: shorter, or with its last pages half written."""
    if rng.random() < 0.5:
        return data[: int(rng.integers(0, len(data)))]
    end = max(1, len(data) - 4096 * int(rng.integers(0, 3)))
    start = max(0, end - int(rng.integers(1, 4096)))
    junk = rng.bytes(end - start) if rng.random() < 0.5 else bytes(end - start)
    return data[:start] + junk + data[end:]


def test_a_torn_journal_is_resumed_or_refused_and_never_another_history(tmp_path, undisturbed):
    rng = np.random.default_rng(2)
    result, _ = undisturbed
    resumed = refused = 0
    kept = tmp_path / "kept"
    kept.mkdir()
    alarm = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
    while resumed + refused < DEATHS:
        if (resumed + refused) % 4 == 0:  # another state of the file and of its write-ahead log
            for file in kept.iterdir():
                file.unlink()

            delay = rng.uniform(0.03, 0.25)

            def child(delay=delay):
                signal.signal(signal.SIGALRM, alarm)
                signal.setitimer(signal.ITIMER_REAL, delay)
                run(kept / "s.db", tmp_path / "log", seconds=2e-4)

            dies(child)
        folder = tmp_path / "torn"
        folder.mkdir()
        files = sorted(file for file in kept.iterdir() if file.name in ("s.db", "s.db-wal"))
        if not files:
            folder.rmdir()
            continue
        victim = files[int(rng.integers(len(files)))]
        for file in files:
            data = file.read_bytes()
            (folder / file.name).write_bytes(torn(data, rng) if file == victim and data else data)
        try:
            assert run(folder / "s.db", tmp_path / "log").history.digest == result.history.digest
            resumed += 1
        except SearchlibError:
            refused += 1
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert resumed
    assert refused or not MANY
