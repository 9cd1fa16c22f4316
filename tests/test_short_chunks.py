"""Chunks that take milliseconds go to a worker several at a time, and nothing else about a search changes."""

import os
import signal
import time

import numpy as np
import pytest

from searchlib import Cases, Objective, RandomSearch, Split, Status, evaluation, search
from searchlib.chunks import Chunk
from searchlib.evaluation import Evaluator
from searchlib.spaces import Integer


class Numbers(Objective):
    """The numbers themselves, each after some seconds; numbers that end in 77 kill their worker."""

    space, chunk_rows, batch_size = Integer(0, 9999), 1, 48

    def __init__(self, seconds, deadly=False):
        self.seconds, self.deadly = seconds, deadly

    def cases(self, split):
        return Cases.of([1.0]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        time.sleep(self.seconds)
        if self.deadly and candidates.array[0, 0] % 100 == 77:
            os.kill(os.getpid(), signal.SIGKILL)
        return candidates.array.astype(float)


@pytest.fixture
def groups(monkeypatch):
    """How many chunks went to a worker at once, in order."""
    found, sent = [], evaluation.sent

    def noted(executor, tasks):
        found.append(len(tasks))
        return sent(executor, tasks)

    monkeypatch.setattr(evaluation, "sent", noted)
    return found


def digest(workers, **settings):
    objective = Numbers(settings.pop("seconds", 0.001), settings.pop("deadly", False))
    budget = settings.pop("budget", 144)
    return search(objective, RandomSearch(), budget=budget, seed=2, workers=workers, **settings).history


def test_short_chunks_share_their_way_and_the_history_is_that_of_one_process(groups):
    assert digest(2).digest == digest(1).digest
    assert sum(groups) == 144
    assert groups[:48] == [1] * 48  # nothing was known of them
    assert len(groups) < 48 + 2 * 20
    assert max(groups) == 12


def test_chunks_that_take_long_go_alone(groups):
    digest(2, seconds=0.06, budget=64)
    assert groups == [1] * 64


def test_of_chunks_that_went_together_only_the_one_that_kills_its_worker_fails(groups):
    history = digest(2, deadly=True)
    deadly = history.population[:, 0] % 100 == 77
    assert 0 < deadly[48:].sum() < 6
    assert ((history.status == Status.FAILED) == deadly).all()
    assert history.values[~deadly, 0].tolist() == history.population[~deadly, 0].tolist()
    assert max(groups) > 4


def test_a_batch_of_which_nothing_is_left_to_evaluate_needs_no_worker(groups, tmp_path):
    whole = digest(2, study=tmp_path / "s.db")
    sent = len(groups)
    assert digest(2, study=tmp_path / "s.db").digest == whole.digest
    assert len(groups) == sent > 0
    few = search(Numbers(0.0), RandomSearch(), budget=40, seed=0, workers=2, batch_size=4)
    assert few.history.evaluations == 40
    duplicates = search(float, RandomSearch(), space=Integer(0, 9), budget=100, seed=0, workers=2, batch_size=4)
    assert duplicates.history.evaluations == 10


class Slower(Numbers):
    """A cell that picks the winner takes as long as sixty others."""

    def cases(self, split):
        return {Split.SEARCH: Cases.of([1.0]), Split.SELECT: Cases.of([2.0])}.get(split, Cases.none())

    def evaluate(self, candidates, cases):
        if cases.payload == [2.0]:
            time.sleep(0.06)
        return super().evaluate(candidates, cases)


def test_what_takes_long_on_other_cases_goes_alone_there(groups):
    objective = Slower(0.001)
    result = search(objective, RandomSearch(), budget=96, seed=1, workers=2, shortlist=40)
    assert groups[-40:] == [1] * 40
    assert max(groups) > 4
    assert np.isfinite(result.value)


class Sudden(Numbers):
    """One candidate of sixteen takes a hundred times as long as the others."""

    def evaluate(self, candidates, cases):
        if candidates.array[0, 0] % 16 == 0:
            time.sleep(0.1)
        return super().evaluate(candidates, cases)


def test_a_group_that_takes_longer_than_it_should_comes_back_in_parts(groups):
    settings = {"budget": 144, "seed": 2}
    one = search(Sudden(0.0), RandomSearch(), **settings).history
    two = search(Sudden(0.0), RandomSearch(), workers=2, **settings).history
    assert two.digest == one.digest
    assert sum(groups) > 144


@pytest.mark.parametrize("chunks", [1, 2, 7, 64, 1000])
@pytest.mark.parametrize("workers", [2, 4, 16])
@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01, 0.04, 3.0])
def test_every_chunk_goes_once_in_order_and_shares_become_smaller(chunks, workers, seconds):
    evaluator = Evaluator(Numbers(0.0), workers=workers)
    evaluator._usual[Split.SEARCH] = seconds
    rows = np.arange(chunks)[:, None]
    tasks = [evaluator.task(rows[i : i + 1], Split.SEARCH, Chunk(i, i + 1, 0, 1)) for i in range(chunks)]
    shares = [[task.chunk.row for task in share] for share in evaluator._together(tasks)]
    sizes = [len(share) for share in shares]
    assert [chunk for share in shares for chunk in share] == list(range(chunks))
    assert sizes == sorted(sizes, reverse=True)
    assert max(sizes) * seconds <= max(0.05, seconds)
    assert max(sizes) <= max(1, chunks / (2 * workers))
    assert np.sum(np.array(sizes) > 1) > 0 or seconds > 0.025 or chunks < 4 * workers
