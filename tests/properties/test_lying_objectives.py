"""An objective that returns nonsense fails its candidate, and one that errs in any way never makes a wrong history."""

import importlib
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib import Cases, LocalSearch, Objective, RandomSearch, Scores, Split, Status, search
from searchlib.errors import InvalidSettings, SearchlibError
from searchlib.spaces import Binary, Subset

amount = importlib.import_module("tests.properties.settings")

BUDGET = 12

def torch():
    """Imported where a lie needs it."""
    return pytest.importorskip("torch")


#: Nothing at all, of any type.
NOTHING: Any = None


class Lying(Objective):
    """Counts the items that are on, unless it lies."""

    direction, chunk_rows = "minimize", 4

    def __init__(self, lie, space=None):
        self.lie, self.space = lie, Binary(6) if space is None else space

    def cases(self, split):
        return Cases(tuple(f"{split.value} {number}" for number in range(3)))

    def evaluate(self, candidates, cases):
        return self.lie(candidates, cases)


def honest(candidates, cases):
    return candidates.array.sum(axis=1, dtype=float)[:, None] + np.zeros(len(cases))


def raises(make):
    def lie(candidates, cases):
        raise make()

    return lie


class Speechless(Exception):
    """Whoever prints it fails as well."""

    def __str__(self):
        raise RuntimeError("no words")


def shaped(make):
    return lambda candidates, cases: make(len(candidates), len(cases))


def scored(**extra):
    return lambda candidates, cases: Scores(honest(candidates, cases), **{k: f(candidates) for k, f in extra.items()})


def empties(candidates, cases):
    candidates.array = candidates.array[:0]
    return honest(candidates, cases)


#: What is returned or raised instead of scores; every candidate fails by it.
NONSENSE = {
    "None": shaped(lambda n, c: None),
    "a text": shaped(lambda n, c: "x"),
    "texts": shaped(lambda n, c: np.full((n, c), "1.0")),
    "complex numbers": lambda candidates, cases: honest(candidates, cases) + 0j,
    "objects": lambda candidates, cases: honest(candidates, cases).astype(object),
    "cells of None": shaped(lambda n, c: np.full((n, c), None)),
    "NaN": shaped(lambda n, c: np.full((n, c), np.nan)),
    "infinity": shaped(lambda n, c: np.full((n, c), np.inf)),
    "minus infinity": shaped(lambda n, c: np.full((n, c), -np.inf)),
    "one NaN": shaped(lambda n, c: np.where(np.arange(c) == 1, np.nan, np.ones((n, c)))),
    "huge whole numbers": shaped(lambda n, c: [[2**70] * c] * n),
    "a column too many": shaped(lambda n, c: np.ones((n, c + 1))),
    "a column too few": shaped(lambda n, c: np.ones((n, c - 1))),
    "a row too few": shaped(lambda n, c: np.ones((n - 1, c))),
    "a flat array": shaped(lambda n, c: np.ones(n * c)),
    "one number": shaped(lambda n, c: 1.0),
    "an axis too many": shaped(lambda n, c: np.ones((n, c, 1, 1))),
    "dates": shaped(lambda n, c: np.zeros((n, c), "datetime64[D]")),
    "records": shaped(lambda n, c: np.zeros((n, c), [("a", "f8")])),
    "a generator": shaped(lambda n, c: (number for number in (1, 2))),
    "a mapping": shaped(lambda n, c: {}),
    "a mapping of some of the cases": lambda candidates, cases: {cases.ids[0]: [1.0] * len(candidates)},
    "a list of mappings": shaped(lambda n, c: [{"loss": 1.0}] * n),
    "a 0-d array": shaped(lambda n, c: np.array(1.0)),
    "one flag": shaped(lambda n, c: True),
    "a tensor on another device": lambda candidates, cases: torch().ones(len(candidates), 3, device="meta"),
    "a tensor with a graph behind it": lambda candidates, cases: torch().ones(len(candidates), 3, requires_grad=True),
    "a tensor of complex numbers": lambda candidates, cases: torch().ones(len(candidates), 3) * 1j,
    "the candidates": lambda candidates, cases: candidates,
    "Scores of None": shaped(lambda n, c: Scores(NOTHING)),
    "a secondary score of another shape": scored(secondary=lambda x: np.ones(7)),
    "a secondary score that is text": scored(secondary=lambda x: "x"),
    "a secondary score that is NaN": scored(secondary=lambda x: np.full((len(x), 3), np.nan)),
    "a secondary score of objects": scored(secondary=lambda x: [[object()] * 3] * len(x)),
    "infeasible candidates of another number": scored(infeasible=lambda x: np.ones(99, bool)),
    "writes into its candidates": lambda candidates, cases: candidates.array.__setitem__((0, 0), True),
    "no candidates any more": empties,
    "an error": raises(lambda: ValueError("mine")),
    "an error without words": raises(Speechless),
    "an error with half a character": raises(lambda: ValueError("\ud800\0")),
    "a key error with half a character": raises(lambda: KeyError("\ud800")),
    "no more items": raises(StopIteration),
    "out of memory": raises(MemoryError),
    "too deep": raises(RecursionError),
    "a group of errors": raises(lambda: ExceptionGroup("several", [ValueError(1), KeyError(2)])),
    "an assertion": raises(AssertionError),
    "out of time": raises(TimeoutError),
    "the end of the program": raises(lambda: SystemExit(3)),
    "a GPU out of memory": raises(lambda: torch().OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")),
}


def run(lie, study=None, space=None, **options):
    return search(
        Lying(lie, space), LocalSearch(), budget=BUDGET, seed=0, study=study, max_failures=30, batch_size=6, **options
    )


#: Kinds of nonsense that are also tried on file in every run of the tests; ``make soak`` tries all.
ON_FILE = list(NONSENSE) if amount.MANY else ["NaN", "a text", "an error with half a character", "one NaN"]


@pytest.mark.parametrize(("name", "on_file"), [(name, on) for name in NONSENSE for on in {False, name in ON_FILE}])
def test_nonsense_fails_every_candidate_and_says_why(name, on_file, tmp_path):
    study = tmp_path / "s.db" if on_file else None
    result = run(NONSENSE[name], study)
    history = result.history
    assert len(history) == BUDGET
    assert (history.status == Status.FAILED).all()
    assert np.isnan(history.values).all()
    assert all(history.errors)
    assert result.best is None
    if on_file:
        again = run(NONSENSE[name], study).history
        assert np.array_equal(again.population, history.population)
        assert again.errors == history.errors


#: True scores in odd clothes, or odd manners: taken for what they are.
ODD_BUT_TRUE = {
    "lists": lambda candidates, cases: honest(candidates, cases).tolist(),
    "narrow floats": lambda candidates, cases: honest(candidates, cases).astype(np.float16),
    "whole numbers": lambda candidates, cases: honest(candidates, cases).astype(np.int8),
    "Fortran's order": lambda candidates, cases: np.asfortranarray(honest(candidates, cases)),
    "a view of something larger": lambda candidates, cases: np.repeat(honest(candidates, cases), 2, axis=1)[:, ::2],
    "an array that it keeps and overwrites": None,
    "one observation per case": lambda candidates, cases: honest(candidates, cases)[:, :, None],
    "a tensor": lambda candidates, cases: torch().from_numpy(honest(candidates, cases)),
    "a tensor of half precision": lambda candidates, cases: torch().from_numpy(honest(candidates, cases)).half(),
    "rows that are arrays": lambda candidates, cases: list(honest(candidates, cases)),
}


#: Nonsense that numpy makes something of.
TAKEN_FOR_TRUE = {
    "masked scores": lambda candidates, cases: np.ma.masked_array(honest(candidates, cases), mask=True),
    "a text for the infeasible": scored(infeasible=lambda x: "x"),
    "NaN for the infeasible": scored(infeasible=lambda x: np.full(len(x), np.nan)),
    "row numbers for the infeasible": scored(infeasible=lambda x: np.arange(len(x))),
}


def keeps_its_array():
    kept = np.empty((64, 3))

    def lie(candidates, cases):
        kept[:] = -1e9
        kept[: len(candidates)] = honest(candidates, cases)
        return kept[: len(candidates)]

    return lie


def unlocks(candidates, cases):
    scores = honest(candidates, cases)
    candidates.array.base.setflags(write=True)
    candidates.array.base[:] = True
    return scores


@pytest.mark.parametrize("name", ODD_BUT_TRUE)
@pytest.mark.parametrize("on_file", [False, True], ids=["in memory", "on file"])
def test_true_scores_in_odd_clothes_make_the_true_history(name, on_file, tmp_path):
    history = run(ODD_BUT_TRUE[name] or keeps_its_array(), tmp_path / "s.db" if on_file else None).history
    plain = run(honest).history
    assert len(plain) == BUDGET
    assert np.array_equal(history.population, plain.population)
    assert np.array_equal(history.values, plain.values)


@pytest.mark.parametrize("on_file", [False, True], ids=["in memory", "on file"])
def test_who_unlocks_and_overwrites_its_candidates_changes_nobody_elses(on_file, tmp_path):
    history = run(unlocks, tmp_path / "s.db" if on_file else None).history
    assert np.array_equal(history.population, run(honest).history.population)


@pytest.mark.parametrize("name", TAKEN_FOR_TRUE)
def test_what_only_looks_like_scores_fails_every_candidate(name):
    assert (run(TAKEN_FOR_TRUE[name]).history.status == Status.FAILED).all()


class Leaving(BaseException):
    """Not an exception: the user's wish."""


#: What a plain function returns for one candidate, and what becomes of that: a value, or words about the failure.
RETURNED = {
    "a whole number": (lambda x: 3, 3.0),
    "a narrow float": (lambda x: np.float32(0.5), 0.5),
    "a 0-d array": (lambda x: np.array(2.5), 2.5),
    "an array of one": (lambda x: np.array([2.5]), 2.5),
    "a tensor": (lambda x: torch().tensor(1.5), 1.5),
    "NaN": (lambda x: float("nan"), "[nan], but scores must be finite"),
    "infinity": (lambda x: np.inf, "[inf], but scores must be finite"),
    "minus infinity": (lambda x: -np.inf, "[-inf], but scores must be finite"),
    "None": (lambda x: None, "must return a number, but returned None"),
    "a text": (lambda x: "0.5", "must return a number, but returned '0.5'"),
    "True": (lambda x: True, "must return a number, but returned True"),
    "a complex number": (lambda x: 1 + 0j, "must return a number, but returned (1+0j)"),
    "a mapping": (lambda x: {"loss": 1.0}, "must return a number, but returned {'loss': 1.0}"),
    "a missing key": (lambda x: {"loss": 1.0}["accuracy"], "KeyError: 'accuracy'"),
    "too much": (lambda x: 10**400, "must return a number, but returned 1000"),
}


@pytest.mark.parametrize("name", RETURNED)
def test_whatever_a_plain_function_returns_has_one_outcome(name):
    function, expected = RETURNED[name]
    history = search(function, RandomSearch(), space=Binary(6), budget=5, max_failures=6).history
    assert len(history) == 5
    if isinstance(expected, float):
        assert (history.values == expected).all()
        assert (history.status == Status.DONE).all()
    else:
        assert (history.status == Status.FAILED).all()
        assert all(expected in error for error in history.errors), history.errors[0]


@pytest.mark.parametrize("several", [(), (1.0, 2.0), np.ones((1, 2)), np.ones((2, 2))], ids=len)
def test_more_or_fewer_numbers_than_directions_are_refused_at_once(several):
    with pytest.raises(InvalidSettings, match=r"aggregate must return shape|must return"):
        search(lambda x: several, RandomSearch(), space=Binary(6), budget=5)


@pytest.mark.parametrize("leave", [GeneratorExit, Leaving])
def test_who_wants_to_leave_leaves_and_the_study_goes_on(leave, tmp_path):
    calls = itertools.count()

    def lie(candidates, cases):
        if next(calls) == 2:
            raise leave
        return honest(candidates, cases)

    with pytest.raises(leave):
        run(lie, tmp_path / "s.db")
    assert np.array_equal(run(lie, tmp_path / "s.db").history.population, run(honest).history.population)


@pytest.mark.parametrize("width", [0, 2, 5])
def test_observations_that_nothing_aggregates_are_refused(width):
    with pytest.raises(InvalidSettings, match=rf"aggregate must return shape .* but returned \(\d+, {width}\)"):
        run(shaped(lambda n, c: np.ones((n, c, width))))


def test_an_objective_may_lie_about_a_few_candidates_only():
    def lie(candidates, cases):
        if candidates.array[:, 0].any():
            raise ValueError("not with the first one")
        return honest(candidates, cases)

    history = run(lie).history
    failed = history.status == Status.FAILED
    assert failed.any()
    assert not failed.all()
    assert np.array_equal(failed, history.population[:, 0])
    assert np.array_equal(history.values[~failed, 0], history.population[~failed].sum(axis=1))


class OtherSpace(Lying):
    """Says one space when asked first and another one later."""

    @property
    def space(self):
        return next(self.spaces)

    @space.setter
    def space(self, given):
        self.spaces = itertools.chain([given] * self.honest_for, itertools.repeat(Subset(9, 2)))


@pytest.mark.parametrize("honest_for", range(0, 12, 2))
def test_a_space_that_changes_is_told_or_never_mixes_candidates(honest_for):
    objective = type("Other", (OtherSpace,), {"honest_for": honest_for})(honest)
    try:
        result = search(objective, RandomSearch(), budget=BUDGET, seed=0, batch_size=6, max_failures=30)
    except (SearchlibError, ValueError):
        return
    widths = {result.history.population.shape[1]}
    assert widths in ({6}, {2})


class OtherCases(Lying):
    """Gives other cases whenever it is asked."""

    asked = 0

    def cases(self, split):
        self.asked += 1
        count = 3 + self.asked % 2 if split is Split.SEARCH else 0
        return Cases(tuple(f"{self.asked} {number}" for number in range(count)))


def test_cases_are_asked_for_once_so_that_other_ones_do_no_harm():
    history = search(OtherCases(honest), RandomSearch(), budget=BUDGET, seed=0, batch_size=6).history
    assert len(history) == BUDGET
    assert np.array_equal(history.values[:, 0], history.population.sum(axis=1))


def random_noise(candidates, cases):
    return np.random.default_rng().random((len(candidates), len(cases)))


def test_scores_that_differ_from_look_to_look_are_kept_as_they_were_first_seen(tmp_path):
    first = run(random_noise, tmp_path / "s.db").history
    again = run(random_noise, tmp_path / "s.db").history
    assert np.array_equal(first.values, again.values)
    keys = [row.tobytes() for row in first.population]
    assert len({(key, value) for key, value in zip(keys, first.values[:, 0], strict=True)}) == len(set(keys))


@amount.cases(few=12, many=1_500)
@given(st.lists(st.sampled_from(sorted(NONSENSE)), min_size=1, max_size=6), st.integers(0, 9))
def test_lies_in_any_order_between_truths_leave_the_truths_alone(names, every):
    lies, calls = itertools.cycle(names), itertools.count(1)

    def lie(candidates, cases):
        if next(calls) % (every + 1):
            return NONSENSE[next(lies)](candidates, cases)
        return honest(candidates, cases)

    history = run(lie).history
    done = history.status == Status.DONE
    assert ((history.status == Status.FAILED) | done).all()
    assert np.array_equal(history.values[done, 0], history.population[done].sum(axis=1))
    assert Lying(honest).space.contains(history.population).all()
