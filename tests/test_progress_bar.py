"""What a person reads while a search runs."""

import io
import math
import sys

import numpy as np
import pytest

from searchlib import CaseRacing, Cases, Objective, RandomSearch, Search, search
from searchlib.cases import Split
from searchlib.progress_bar import ProgressBar
from searchlib.spaces import Binary, Integer, Real
from searchlib.standing import Standing, duration


class Terminal(io.StringIO):
    def isatty(self):
        return True


def last_line(stream):
    return stream.getvalue().replace("\n", "\r").rstrip("\r").split("\r")[-1].strip()


@pytest.fixture
def without_tqdm(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)


def fails_below_a_half(x):
    if x < 0.5:
        raise ValueError("too small")
    return x


def test_a_terminal_reads_the_best_value_what_failed_and_what_is_left(monkeypatch, without_tqdm):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    result = search(fails_below_a_half, RandomSearch(), space=Real(0, 1), budget=40, batch_size=8, max_failures=40)
    failures = result.history.failures
    assert 0 < failures < 40
    assert last_line(terminal) == f"40/40  best {result.value:.4g}  {failures} failed  0 s left"
    assert terminal.getvalue().endswith("\n")
    assert terminal.getvalue().count("\r") == 5  # one line, written anew for every batch


def test_tqdm_shows_the_same_where_it_is_installed(monkeypatch):
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    result = search(fails_below_a_half, RandomSearch(), space=Real(0, 1), budget=40, batch_size=8, max_failures=40)
    said = last_line(terminal)
    assert said.startswith("100%|")
    assert "40/40" in said
    assert f"best {result.value:.4g}" in terminal.getvalue()
    assert f"{result.history.failures} failed" in terminal.getvalue()
    assert "picking the winner" in terminal.getvalue()


class Distances(Objective):
    """Distance to targets that are others on SEARCH than on SELECT."""

    space = Integer(0, 40)

    def cases(self, split):
        return Cases(tuple(f"{split.value} {number}" for number in range(4)))

    def evaluate(self, candidates, cases):
        targets = np.array([sum(map(ord, case)) % 41 for case in cases.ids])
        return np.abs(candidates.array - targets).astype(float)


def test_the_best_value_is_that_on_the_select_cases_as_soon_as_the_short_list_has_met_them(monkeypatch, without_tqdm):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    result = search(Distances(), RandomSearch(), budget=24, batch_size=8)
    assert result.history.values.min() != result.value
    *before, said = [line.strip() for line in terminal.getvalue().split("\r")[1:]]
    assert all("on SEARCH" in line for line in before)
    assert f"24/24  best {result.history.values.min():.4g} on SEARCH" in before[-1]
    assert f"24/24  best {result.value:.4g} on SELECT" in said


def test_the_short_list_meets_the_select_cases_once(monkeypatch):
    run, asked = Search(Distances(), RandomSearch(), budget=24, batch_size=8), []
    evaluate = Distances.evaluate

    def counted(objective, candidates, cases):
        asked.extend(case.split()[0] for case in cases.ids)
        return evaluate(objective, candidates, cases)

    monkeypatch.setattr(Distances, "evaluate", counted)
    for _ in run:
        assert math.isnan(run.standing.selected)
    value = run.select()
    assert run.standing.selected == value
    met = asked.count("select")
    assert met >= 4
    assert run.result().value == value
    assert asked.count("select") == met
    assert asked.count("holdout") == 4


def test_a_search_that_asks_for_its_result_on_the_way_lets_the_newest_short_list_compete_later():
    run = Search(Distances(), RandomSearch(), budget=24, batch_size=8)
    batches = iter(run)
    next(batches)
    early = run.result()
    assert run.standing.selected == early.value
    for _ in batches:
        pass
    whole = search(Distances(), RandomSearch(), budget=24, batch_size=8)
    assert run.result().value == run.standing.selected == whole.value != early.value


def test_nothing_is_said_where_nobody_reads_or_wants_it(capsys, monkeypatch):
    search(sum, RandomSearch(), space=Binary(10), budget=20)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys, "stderr", Terminal())
    search(sum, RandomSearch(), space=Binary(10), budget=20, progress=False)
    assert sys.stderr.getvalue() == ""


def test_it_can_be_asked_for_where_there_is_no_terminal(without_tqdm):
    stream = io.StringIO()
    run = Search(sum, RandomSearch(), space=Binary(10), budget=20, batch_size=10)
    with ProgressBar(shown=True, stream=stream) as bar:
        for _ in run:
            bar.show(run.standing)
    assert last_line(stream).startswith("20/20  best")


def test_a_standing_counts_what_racing_and_duplicates_save():
    class Table(Objective):
        space = Binary(8)
        noisy = False

        def cases(self, split):
            return Cases.of(list(range(64))) if split is Split.SEARCH else Cases.none()

        def evaluate(self, candidates, cases):
            return np.array([[sum(kept) + 0.01 * (case % 3) for case in cases.payload] for kept in candidates])

    run = Search(Table(), RandomSearch(), budget=240, racing=CaseRacing(), batch_size=16)
    for _ in run:
        pass
    standing = run.standing
    notes = run.result().notes["racing"]
    assert standing.raced == notes["cells_of_full_rows"] - notes["cells"] > 0
    assert standing.duplicates == len(run.history) - run.history.evaluations > 0
    assert "cells saved by racing" in str(standing)


def test_a_budget_that_does_not_say_when_it_ends_promises_nothing():
    assert str(Standing(5, math.inf, math.nan)) == "5"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min"), (3599, "59 min 59 s"), (7200, "2 h"), (90_000, "1 d 1 h")],
)
def test_times_are_said_as_people_say_them(seconds, said):
    assert duration(seconds) == said
