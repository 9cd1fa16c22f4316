"""One candidate for every free worker, told as it comes back."""

import os
import signal
import threading
import time
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import joblib
import numpy as np
import pytest

from searchlib import (
    CaseRacing,
    Cases,
    EstimationOfDistribution,
    Evolution,
    LocalSearch,
    Objective,
    Outcome,
    PredictorGuided,
    RandomSearch,
    Search,
    Study,
    search,
)
from searchlib.cases import Split
from searchlib.errors import InvalidSettings, StudyMismatch
from searchlib.evaluation import Evaluator
from searchlib.spaces import Binary, Integer, Subset

SPACE = Subset(12, k=3)


class Written(Objective):
    """Sums of a subset times two cases; every cell that is evaluated leaves a line, and some take long."""

    direction = "maximize"
    space = SPACE
    chunk_cases = 1

    def __init__(self, lines, slow=0.0, killer=None):
        self.lines, self.slow, self.killer = str(lines), slow, killer

    def cases(self, split):
        return Cases.of([1.0, 2.0]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        (kept,) = candidates
        if kept[0] == self.killer:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.slow * (kept[0] % 3))
        with open(self.lines, "a") as file:
            file.write(f"{kept} {cases.payload}\n")
        return np.array([[sum(kept) * case for case in cases.payload]])


class Integers(Objective):
    """The integers themselves."""

    space = Integer(0, 999)

    def cases(self, split):
        return Cases.of([1.0]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        return np.array([[float(number)] for number in candidates])


class BreakingPool(Executor):
    """Even numbers end it; then everything that it has taken is lost, one future after the other, as with loky."""

    def __init__(self):
        self.broken, self.taken, self.lock = False, [], threading.Lock()

    def submit(self, function, tasks):
        if self.broken:
            raise BrokenProcessPool("it is broken")
        self.taken.append(future := Future())
        deadly = Integers.space.decode(tasks[0].rows[0]) % 2 == 0
        what = (0.02, self.end, (future,)) if deadly else (0.06, self.answer, (future, function, tasks))
        threading.Timer(*what).start()
        return future

    def answer(self, future, function, tasks):
        with self.lock:
            if not (self.broken or future.done()):
                future.set_result(function(tasks))

    def end(self, guilty):
        self.broken = True
        for future in [guilty, *self.taken]:
            with self.lock:
                if not future.done():
                    future.set_exception(BrokenProcessPool("a process has died"))
            time.sleep(0.05)


def lines(path):
    return Path(path).read_text().splitlines()


@pytest.mark.parametrize(
    "algorithm", [RandomSearch(), LocalSearch(), Evolution(), PredictorGuided(), EstimationOfDistribution(), None]
)
def test_in_one_process_it_is_the_search_with_batches_of_one(algorithm):
    alone = {"space": SPACE, "budget": 40, "seed": 3, "direction": "maximize"}
    one_by_one = search(sum, algorithm, **alone, asynchronous=True)
    batches = search(sum, algorithm, **alone, batch_size=1)
    assert one_by_one.history.evaluations == 40
    assert one_by_one.history.digest == batches.history.digest
    assert one_by_one.best == batches.best


def test_candidates_that_are_done_are_told_before_slow_ones_that_were_asked_for_earlier(tmp_path):
    result = search(
        Written(tmp_path / "lines", slow=0.05), RandomSearch(), budget=30, workers=2, asynchronous=True,
        study=tmp_path / "study.db",
    )  # fmt: skip
    ids = result.history.ids.tolist()
    assert sorted(ids) == list(range(len(ids)))
    assert ids != sorted(ids)
    assert len(lines(tmp_path / "lines")) == len(set(lines(tmp_path / "lines"))) == 2 * 30
    with Study.open(tmp_path / "study.db") as study:
        assert study.history().digest == result.history.digest
    expected = [3.0 / 2 * sum(SPACE.decode(row)) for row in result.history.population]
    assert result.history.values[:, 0].tolist() == expected


def test_a_study_that_is_left_anywhere_goes_on_with_the_same_history_and_evaluates_nothing_twice(tmp_path):
    def run(stop_after=None):
        objective = Written(tmp_path / "lines", slow=0.01)
        found = Search(
            objective, LocalSearch(), budget=24, workers=2, asynchronous=True, study=tmp_path / "study.db", seed=1
        )
        for number, _ in enumerate(found, start=1):
            if number == stop_after:
                break
        found.close()
        return found.history

    before: list[list[int]] = []
    for stop in (5, 6, 15, None):
        history = run(stop)
        for shorter in before:
            assert history.ids.tolist()[: len(shorter)] == shorter
        before.append(history.ids.tolist())
    assert len(before[-1]) >= 24
    told_once = len(lines(tmp_path / "lines"))
    again = run()
    assert again.ids.tolist() == before[-1]
    assert len(lines(tmp_path / "lines")) == told_once  # a whole study evaluates nothing
    # What was under way when it was left may have been evaluated in vain; what was told or on file is not repeated.
    assert told_once <= 2 * (24 + 3 * 3)


def test_a_study_of_another_kind_is_refused(tmp_path):
    search(sum, RandomSearch(), space=SPACE, budget=4, study=tmp_path / "study.db", asynchronous=True)
    with pytest.raises(StudyMismatch, match="asynchronous"):
        search(sum, RandomSearch(), space=SPACE, budget=4, study=tmp_path / "study.db", batch_size=1)


def test_a_candidate_that_kills_its_worker_fails_and_the_others_are_evaluated(tmp_path):
    result = search(
        Written(tmp_path / "lines", killer=4), RandomSearch(), budget=20, workers=2, asynchronous=True, max_failures=20
    )
    guilty = [SPACE.decode(row)[0] == 4 for row in result.history.population]
    assert any(guilty)
    assert not all(guilty)
    assert np.isnan(result.history.values[:, 0]).tolist() == guilty
    assert {error for error, bad in zip(result.history.errors, guilty, strict=True) if bad} == {
        "the candidate killed its worker process"
    }


def test_a_candidate_that_is_asked_for_twice_is_evaluated_once(tmp_path):
    objective = Written(tmp_path / "lines")
    objective.space = Subset(4, k=1)
    result = search(objective, Evolution(population=4), budget=50, workers=2, asynchronous=True)
    assert result.outcome is Outcome.EXHAUSTED
    assert result.history.evaluations == 4
    assert len(lines(tmp_path / "lines")) == 2 * 4
    assert result.best == (3,)


def test_threads_have_copies_of_their_own():
    class Threaded(Objective):
        space = Integer(0, 9999)

        def __init__(self):
            self.busy = 0

        def cases(self, split):
            return Cases.of([1.0]) if split is Split.SEARCH else Cases.none()

        def evaluate(self, candidates, cases):
            assert self.busy == 0
            self.busy = threading.get_ident()
            time.sleep(0.002)
            self.busy = 0
            return np.array([[float(candidate)] for candidate in candidates])

    with joblib.parallel_config(backend="threading"):
        for asynchronous in (False, True):
            result = search(Threaded(), RandomSearch(), budget=40, workers=4, asynchronous=asynchronous)
            assert result.history.failures == 0
            assert result.history.evaluations == 40
        with pytest.raises(InvalidSettings, match=r"timeout=5\.0 can only be kept by killing"):
            search(Threaded(), RandomSearch(), budget=4, workers=2, timeout=5.0)


@pytest.mark.parametrize("given", [{"racing": CaseRacing()}, {"cache": "scores.db"}, {"batch_size": 8}])
def test_what_does_not_go_with_it_is_refused(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidSettings, match=f"does not go with {next(iter(given))}=…"):
        search(sum, RandomSearch(), space=Binary(8), budget=4, asynchronous=True, **given)
    assert not list(tmp_path.iterdir())


def test_the_command_line_goes_on_with_such_a_study(tmp_path, capsys):
    from searchlib.__main__ import main

    (tmp_path / "made.py").write_text("from searchlib import *\ndef make():\n    return sum\n")
    run = Search(sum, RandomSearch(), space=SPACE, budget=9, study=tmp_path / "study.db", asynchronous=True)
    for _, _ in zip(range(3), run, strict=False):
        pass
    run.close()
    assert main(["resume", str(tmp_path / "study.db"), "--objective", f"{tmp_path / 'made.py'}:make"]) == 0
    with Study.open(tmp_path / "study.db") as study:
        assert study.history().evaluations == 9


def test_a_fork_has_workers_of_its_own(tmp_path):
    before = search(Written(tmp_path / "before"), RandomSearch(), budget=6, workers=2)
    child = os.fork()
    if not child:
        again = search(Written(tmp_path / "child"), RandomSearch(), budget=6, workers=2)
        os._exit(again.history.digest != before.history.digest)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    after = search(Written(tmp_path / "after"), RandomSearch(), budget=6, workers=2)
    assert after.history.digest == before.history.digest


def test_joblib_works_on_beside_a_search(tmp_path):
    search(Written(tmp_path / "lines"), RandomSearch(), budget=6, workers=2)
    assert joblib.Parallel(2)(joblib.delayed(abs)(number) for number in (-1, 2, -3)) == [1, 2, 3]


def test_nobody_is_blamed_for_the_death_of_what_runs_beside_it(monkeypatch):
    pools = [BreakingPool()]

    def given(evaluator):
        if pools[-1].broken:
            pools.append(BreakingPool())
        return pools[-1]

    monkeypatch.setattr(Evaluator, "executor", given)
    result = search(Integers(), RandomSearch(), budget=24, workers=3, asynchronous=True, max_failures=24)
    deadly = [Integers.space.decode(row) % 2 == 0 for row in result.history.population]
    assert 4 < sum(deadly) < 20
    assert np.isnan(result.history.values[:, 0]).tolist() == deadly
    assert len(pools) >= sum(deadly)
