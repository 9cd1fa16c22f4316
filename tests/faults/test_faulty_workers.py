"""What a candidate does to its worker costs that candidate only, and the next batch is as fast as ever.

One worker dies in every run of the tests; with ``make soak`` (``SEARCHLIB_SLOW=1``) it dies in every way.
"""

import contextlib
import ctypes
import os
import re
import resource
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from searchlib import Cases, Objective, Outcome, RandomSearch, Scores, Search, Split, Status, search
from searchlib.executors import PROCESSES
from searchlib.spaces import Integer, Real

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="faults are those of POSIX processes")

MANY = os.environ.get("SEARCHLIB_SLOW") == "1"
BATCH, BATCHES = 24, 4
ROOT = Path(__file__).parents[2]


class Unspeakable(Exception):
    """An exception that can neither be pickled nor shown."""

    def __reduce__(self):
        raise TypeError("no pickle of me")

    def __repr__(self):
        raise ValueError("no words for me")

    __str__ = __repr__


def raises_unspeakably(values):
    raise Unspeakable(lambda: None)


def returns_nan(values):
    return np.full_like(values, np.nan)


def returns_infinity(values):
    return np.full_like(values, np.inf)


def returns_another_shape(values):
    return np.zeros((7, 3, 2))


def returns_no_numbers(values):
    return np.full(values.shape, "high", object)


def returns_half_a_secondary(values):
    return Scores(values, secondary=np.zeros(5))


def runs_out_of_memory(values):
    limits = resource.getrlimit(resource.RLIMIT_AS)
    try:
        resource.setrlimit(resource.RLIMIT_AS, (_size() + 2**28, limits[1]))
        return values + np.ones(2**32)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _size():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def exits(values):
    os._exit(0)


def is_killed(values):
    os.kill(os.getpid(), signal.SIGKILL)


def follows_a_wild_pointer(values):
    ctypes.string_at(0)


TALK = "so much to say " * 700_000


def talks(values):
    for stream in (sys.stdout, sys.stderr):
        stream.write(TALK)
        stream.flush()
    return values


#: What a marked candidate does, and what is said about it. Those that raise are in the second batch, those that kill in
#: the third.
RAISED = {
    raises_unspeakably: "Unspeakable",
    returns_nan: "must be finite",
    returns_infinity: "must be finite",
    returns_another_shape: r"must return numbers of shape (1, 2)",
    returns_no_numbers: "of object",
    returns_half_a_secondary: "secondary must have shape (1, 2)",
    runs_out_of_memory: "MemoryError",
}
DEADLY = dict.fromkeys((exits, is_killed, follows_a_wild_pointer) if MANY else (is_killed,), "killed its worker")
ACTS = {
    5: talks, **dict(zip(range(25, 46, 3), RAISED, strict=True)), **dict(zip(range(49, 67, 6), DEADLY, strict=False)),
}  # fmt: skip
SAID = {place: {**RAISED, **DEADLY}[act] for place, act in ACTS.items() if act is not talks}


class Faulty(Objective):
    """Marked candidates misbehave; where nothing may die they raise instead."""

    space, chunk_rows = Integer(0, BATCH * BATCHES - 1), 2 if MANY else 1

    def __init__(self, deadly):
        self.deadly = deadly

    def cases(self, split):
        return Cases(("a", "b")) if split is Split.SEARCH else Cases.none()

    def seeds(self):
        return np.arange(BATCH * BATCHES)[:, None]

    def evaluate(self, candidates, cases):
        values, acts = np.sin(candidates.array + np.arange(len(cases))), map(ACTS.get, candidates.array[:, 0].tolist())
        time.sleep(0.005 * len(candidates))
        for row, act in enumerate(acts):
            if act in DEADLY and not self.deadly:
                raise RuntimeError("would have died")
            if act in (returns_nan, returns_infinity):
                values[row] = act(values[row])
            elif act is not None:
                values = act(values)
        return values

    def fingerprint(self):
        return {"objective": "faulty"}


def searched(objective, workers, **settings):
    """The history, and the seconds of each batch."""
    with Search(
        objective, RandomSearch(), budget=BATCH * BATCHES, batch_size=BATCH, workers=workers, max_failures=BATCH,
        **settings,
    ) as run:  # fmt: skip
        seconds = [record.seconds for record in run]
    return run.history, seconds


@pytest.mark.slow
def test_every_fault_costs_one_candidate_and_the_next_batch_is_as_fast_as_ever(capfd):
    PROCESSES.forget(PROCESSES._executor)  # those of other tests do not print where this one reads
    history, seconds = searched(Faulty(deadly=True), workers=2)
    talked = capfd.readouterr()
    peaceful, _ = searched(Faulty(deadly=False), workers=1)
    rows = history.population[:, 0]
    assert rows.tolist() == list(range(BATCH * BATCHES))
    failed = {row: error for row, error in zip(rows.tolist(), history.errors, strict=True) if error}
    assert sorted(failed) == sorted(SAID)
    assert len(SAID) == len(RAISED) + len(DEADLY) >= 8
    for place, words in SAID.items():
        assert words in failed[place], (ACTS[place].__name__, failed[place])
    assert (history.status == np.where(np.isin(rows, list(SAID)), Status.FAILED, Status.DONE)).all()
    good = history.status == Status.DONE
    assert np.array_equal(history.values[good, 0], np.sin(rows[good, None] + np.arange(2)).mean(axis=1))
    assert history.digest == peaceful.digest
    assert min(len(talked.out), len(talked.err)) >= len(TALK) > 10**7
    # A worker was started for the third batch. The fourth takes 60 ms on two of them: nobody is alone any more.
    assert seconds[3] < 0.5 * seconds[2]
    assert seconds[3] < 1.0


def leaves(value):
    if value % 7 == 0:
        sys.exit("nothing to do here")
    return value


def test_a_candidate_that_leaves_the_program_fails_and_the_search_goes_on():
    history = search(leaves, RandomSearch(), space=Integer(0, 40), budget=41).history
    assert ((history.status == Status.FAILED) == (history.population[:, 0] % 7 == 0)).all()
    assert {error.strip().splitlines()[-1] for error in history.errors if error} == {"SystemExit: nothing to do here"}


@pytest.mark.slow
@pytest.mark.skipif(not MANY, reason="make soak")
def test_a_worker_that_is_killed_while_others_are_slow_is_not_called_slow():
    """A worker takes a second to start, which is no time of the candidate's."""
    history = search(
        dies_or_hangs, RandomSearch(), space=Integer(0, 11), budget=12, seeds=list(range(12)), workers=2, timeout=0.5
    ).history
    said = {row: error for row, error in zip(history.population[:, 0].tolist(), history.errors, strict=True) if error}
    assert {row: "timeout=0.5" in error for row, error in said.items()} == {3: False, 6: True}
    assert "killed its worker" in said[3]


def dies_or_hangs(value):
    if value == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    if value == 6:
        time.sleep(600)
    return value


def worker_processes():
    psutil = pytest.importorskip("psutil")
    children = psutil.Process().children(recursive=True)
    return [child for child in children if any("popen_loky" in word for word in child.cmdline())]


@pytest.mark.slow
@pytest.mark.skipif(not MANY, reason="make soak")
def test_workers_that_die_between_two_batches_cost_nothing():
    """As where the system ends an idle process to get its memory."""
    settings = {"space": Real(0, 1), "budget": 64, "batch_size": 16}
    run, killed = Search(square, RandomSearch(), workers=2, **settings), 0
    for _ in run:
        for process in worker_processes() if killed < 2 else ():
            process.kill()
            killed += 1
    assert killed >= 2
    assert (run.history.status == Status.DONE).all()
    assert run.history.digest == search(square, RandomSearch(), **settings).history.digest


def square(x):
    return x * x


class Tried(Objective):
    """Writes down every candidate before it is evaluated; one of them does not come back."""

    space, chunk_rows = Integer(0, 11), 1

    def __init__(self, log, fate):
        self.log, self.fate = str(log), fate

    def cases(self, split):
        return Cases(("a",)) if split is Split.SEARCH else Cases.none()

    def seeds(self):
        return np.arange(12)[:, None]

    def evaluate(self, candidates, cases):
        (value,) = candidates.array[:, 0].tolist()
        file = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, f"{value}\n".encode())
        os.close(file)
        if value == 5:
            self.fate()
        return np.array([[float(value)]])


def hangs():
    time.sleep(600)


def ends_its_process():
    os._exit(1)


def is_interrupted():
    raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fate", "asynchronous"), [(ends_its_process, False), (ends_its_process, True), (hangs, False)]
)
def test_a_candidate_that_does_not_come_back_is_tried_twice_and_others_at_most_twice(tmp_path, fate, asynchronous):
    """Once beside others and once alone, which shows whose fault it was; what had come back is not tried again."""
    result = search(
        Tried(tmp_path / "log", fate), RandomSearch(), budget=12, workers=2, asynchronous=asynchronous,
        timeout=1.0 if fate is hangs else None,
    )  # fmt: skip
    rows, values = result.history.population[:, 0], result.history.values[:, 0]
    assert sorted(rows) == list(range(12))
    assert np.isnan(values).tolist() == (rows == 5).tolist()
    tried = [int(line) for line in (tmp_path / "log").read_text().split()]
    counts = {value: tried.count(value) for value in range(12)}
    assert counts.pop(5) == 2
    assert set(counts.values()) <= {1, 2}
    assert sum(counts.values()) < 2 * 11


@pytest.mark.slow
def test_a_candidate_that_interrupts_a_worker_interrupts_the_search_which_then_goes_on(tmp_path):
    study = tmp_path / "s.db"
    stopped = search(Tried(tmp_path / "log", is_interrupted), RandomSearch(), budget=12, workers=2, study=study)
    assert stopped.outcome is Outcome.INTERRUPTED
    whole = search(Tried(tmp_path / "log", lambda: None), RandomSearch(), budget=12, workers=2, study=study)
    assert sorted(whole.history.values[:, 0]) == list(range(12))


class Endless(Tried):
    """Nobody comes back; workers write down which process they are."""

    def evaluate(self, candidates, cases):
        with open(self.log, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(600)


def alive(process):
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.mark.slow
@pytest.mark.parametrize("asynchronous", [False, True])
def test_ctrl_c_ends_the_workers_that_are_busy_also_where_more_is_waiting_for_them(tmp_path, asynchronous):
    """Some of what waits for a worker has been handed over already, and some has not."""
    log = tmp_path / "log"
    log.touch()

    def interrupt():
        until = time.monotonic() + 60
        while len(log.read_text().split()) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    result = search(Endless(log, hangs), RandomSearch(), budget=12, workers=2, asynchronous=asynchronous)
    thread.join()
    assert result.outcome is Outcome.INTERRUPTED
    busy = [int(line) for line in log.read_text().split()]
    assert len(set(busy)) == 2
    until = time.monotonic() + 20
    while any(map(alive, busy)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(alive, busy))


class Clockless(Tried):
    """Its workers' clock has jumped by a day."""

    def evaluate(self, candidates, cases):
        now = time.time() + 86_400 * (-1) ** int(candidates.array[0, 0])
        time.time = lambda: now
        return super().evaluate(candidates, cases)


@pytest.mark.slow
def test_a_clock_that_jumps_a_day_in_a_worker_ends_nobody_but_who_hangs(tmp_path):
    history = search(Clockless(tmp_path / "log", hangs), RandomSearch(), budget=12, workers=2, timeout=1.0).history
    failed = {row: error for row, error in zip(history.population[:, 0].tolist(), history.errors, strict=True) if error}
    assert list(failed) == [5]
    assert "timeout=1.0" in failed[5]


def test_nothing_in_the_library_measures_time_by_a_clock_that_can_be_set():
    """Where the time of day is told, it is for people or services that ask for it, and nothing is subtracted."""
    told, measured = set(), 0
    for folder in ("searchlib", "spaces", "objectives"):
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            measured += "time.monotonic()" in text or "time.perf_counter()" in text
            if re.search(r"\btime\.time\(|\bdatetime\.(now|today|utcnow)\(", text):
                told.add(path.name)
    assert measured > 5
    assert told == {"page.py", "optuna_storage.py", "tensorboard_tracker.py", "mlflow_tracker.py", "chat_endpoint.py"}
