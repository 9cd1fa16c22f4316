"""Whoever evaluates outside may tell in any order, but not twice, not too late, and not of others' candidates."""

import importlib
import math

import numpy as np
import pytest

from searchlib import AdditiveProfile, Evolution, ExactAllocation, Outcome, Search, search
from searchlib.errors import InvalidCandidate, InvalidSettings, InvalidTell, MissingDependency, MissingOperator
from searchlib.spaces import Allocation, Binary, Integer, Real, Subset

every = importlib.import_module("tests.faults.every_search")


def asked(told_in_order, algorithm, space):
    """All candidates that an algorithm proposes, where every batch is told one by one in an order that is drawn."""
    several, objective = algorithm in every.SEVERAL, every.Distance(every.SPACES[space], algorithm)
    run = Search(
        space=objective.space, algorithm=every.ALGORITHMS[algorithm], budget=30, seed=7,
        direction=objective.direction if several else None,
    )  # fmt: skip
    rng, rows = np.random.default_rng(1), []
    while len(batch := run.ask(6)):
        rows += [row.tobytes() for row in np.asarray(batch.population)]
        values = scores(objective, np.asarray(batch.population))
        for place in range(len(batch)) if told_in_order else rng.permutation(len(batch)):
            run.tell(batch.ids[place : place + 1], values[place : place + 1])
    return rows


def scores(objective, population):
    """Values of a batch; one candidate in eight has none."""
    features = objective.space.features(population)
    values = np.stack([features @ np.arange(1, features.shape[1] + 1), features.sum(axis=1)], axis=1)
    values[[row.tobytes()[0] % 8 == 5 for row in population]] = math.nan
    return values[:, : np.size(objective.direction)]


@pytest.mark.parametrize("algorithm", sorted(set(every.ALGORITHMS) - set(every.SLOPED)))
def test_the_order_of_telling_has_no_effect(algorithm):
    fitting = 0
    for space in [space for name, space in every.pairs("some") if name == algorithm]:
        try:
            expected = asked(True, algorithm, space)
        except (InvalidSettings, MissingOperator):
            continue
        except MissingDependency as missing:
            pytest.skip(str(missing))
        assert len(expected) >= 6, space
        assert asked(False, algorithm, space) == expected, space
        fitting += 1
    assert fitting


def begun():
    """A search of which two batches are told and a third one is not."""
    run = Search(space=Integer(0, 99), algorithm=Evolution(population=4), budget=12, seed=2)
    for _ in range(2):
        batch = run.ask(4)
        run.tell(batch.ids, np.arange(4.0))
    return run, run.ask(4)


#: Ids that must not be told, whatever their values.
REFUSED = {
    "told a batch ago": [3],
    "told two batches ago": [0, 1],
    "told, beside one that is not": [8, 2],
    "twice at once": [9, 9],
    "never asked": [12],
    "never asked, beside one that was": [8, 99],
    "a stranger": [-1],
}


@pytest.mark.parametrize("name", REFUSED)
def test_ids_that_are_not_waited_for_are_refused_by_name_and_nothing_is_learned(name):
    (run, batch), (other, same) = begun(), begun()
    with pytest.raises(InvalidTell, match=r"not asked, or have been told already: .*\d"):
        run.tell(REFUSED[name], np.zeros(len(REFUSED[name])))
    assert len(run.history) == 8
    for search_, asked_ in ((run, batch), (other, same)):
        search_.tell(asked_.ids, np.arange(4.0))
    assert run.history.digest == other.history.digest
    assert len(run.history) == 12


@pytest.mark.parametrize("late", [[0], [11], [12], [8, 9, 10, 11]])
def test_whoever_tells_after_the_end_is_refused_and_the_winner_stays(late):
    run, batch = begun()
    run.tell(batch.ids, np.arange(4.0) - 1)
    assert len(run.ask(4)) == 0
    assert run.outcome is Outcome.EVALUATIONS
    before = run.result()
    with pytest.raises(InvalidTell, match="told already"):
        run.tell(late, np.full(len(late), -100.0))
    assert (run.result().value, run.result().best) == (before.value, before.best) == (-1.0, before.best)
    assert len(run.history) == 12


def test_what_was_asked_before_the_end_may_be_told_after_it():
    run, batch = begun()
    assert len(run.ask(4)) == 0
    run.tell(batch.ids, np.full(4, -5.0))
    assert run.result().value == -5.0


def test_candidates_of_another_search_are_refused():
    (run, _), other = begun(), Search(space=Real(0, 1), budget=40)
    for _ in range(2):
        theirs = other.ask(10)
    with pytest.raises(InvalidTell, match=r"not asked.*\[12, 13, 14, 15, 16, 17, 18, 19\]"):
        run.tell(theirs.ids[2:], np.zeros(8))
    with pytest.raises(InvalidTell, match="whole numbers"):
        run.tell(theirs.population[:2, 0], np.zeros(2))
    assert len(run.history) == 8


@pytest.mark.parametrize(
    ("space", "seeds"),
    [(Binary(4), [(0, 3)]), (Subset(9, k=2), [(1, 0, 1, 1)]), (Integer(0, 5), [6]), (Real(0, 1), ["a"])],
)
def test_seeds_of_another_space_are_refused_before_anything_is_evaluated(space, seeds):
    calls = []
    with pytest.raises((InvalidCandidate, InvalidSettings)):
        search(calls.append, space=space, seeds=seeds, budget=5)
    assert not calls


def test_an_algorithm_that_was_made_for_another_space_is_refused():
    mine, other = Allocation(("a", "b"), (2, 4)), Allocation(("a", "b", "c"), (2, 4))
    made = ExactAllocation(AdditiveProfile.of(other, np.ones((3, 2))))
    with pytest.raises((MissingOperator, InvalidSettings)):
        search(sum, made, space=mine, budget=4)
