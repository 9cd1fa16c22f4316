"""No search spends more than its budget: exactly its evaluations, and of other limits no more than one batch beyond."""

import importlib
import threading
from typing import Any

import joblib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib import (
    Budget,
    Cases,
    Evolution,
    EvolutionStrategy,
    FreshCases,
    LocalSearch,
    Objective,
    Outcome,
    Portfolio,
    RandomSearch,
    Search,
    Split,
    search,
)
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.spaces import Allocation, Binary, Categorical, Integer, Permutation, Product, Real, Subset

amount = importlib.import_module("tests.properties.settings")
every = importlib.import_module("tests.faults.every_search")
Distance: Any = every.Distance
verdict = importlib.import_module("tests.properties.verdict")


class Counted(Objective):
    """Counts every cell that is evaluated, in all threads together; one candidate in eight fails after that."""

    chunk_rows = 4

    def __init__(self, space, cases=3):
        self.space, self.count, self.cells, self.lock = space, cases, [], threading.Lock()

    def cases(self, split):
        return Cases(tuple(range(self.count))) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        features = self.space.features(candidates.array)
        scores = features @ np.arange(1.0, features.shape[1] + 1)[:, None] + np.array(cases.ids)
        scores[[row.tobytes()[0] % 8 == 5 for row in candidates.array]] = np.nan
        with self.lock:
            self.cells += [(row.tobytes(), case) for row in candidates.array for case in cases.ids]
        return scores

    def fingerprint(self):
        return {"objective": "counted"}

    def __reduce__(self):  # threads have copies of their own, which count in the same place
        SHARED[id(self)] = self
        return shared, (id(self),)


SHARED: dict[int, Counted] = {}


def shared(number):
    return SHARED[number]


ALGORITHMS = [
    RandomSearch(), Evolution(population=6, offspring=4), LocalSearch(), None,
    Portfolio((RandomSearch(), Evolution(population=4))),
]  # fmt: skip


@amount.cases(few=25, many=2_000)
@given(st.sampled_from(ALGORITHMS), st.integers(1, 70), st.integers(1, 40), st.integers(1, 4))
def test_the_candidates_of_a_budget_are_never_one_too_many(algorithm, evaluations, batch, cases):
    objective = Counted(Subset(14, k=5), cases)
    result = search(objective, algorithm, budget=evaluations, batch_size=batch, max_failures=10**6)
    assert len({row for row, _ in objective.cells}) == result.history.evaluations == evaluations
    assert len(objective.cells) == len(set(objective.cells)) == evaluations * cases
    assert result.outcome is Outcome.EVALUATIONS


@amount.cases(few=25, many=2_000)
@given(st.sampled_from(ALGORITHMS), st.integers(1, 200), st.integers(1, 30), st.integers(1, 4), st.booleans())
def test_cells_and_cost_go_beyond_their_limit_by_less_than_one_batch(algorithm, limit, batch, cases, costs):
    kind = "cost" if costs else "cells"
    objective = Counted(Subset(14, k=5), cases)
    result = search(objective, algorithm, budget=Budget(**{kind: limit}), batch_size=batch, max_failures=10**6)
    assert limit <= len(objective.cells) < limit + batch * cases
    assert result.outcome is {"cells": Outcome.CELLS, "cost": Outcome.COST}[kind]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("limit", [{"evaluations": 17}, {"cells": 50}])
def test_what_is_under_way_counts_as_spent(workers, limit):
    """Asynchronous workers are busy with candidates of which nobody has been told."""
    objective = Counted(Subset(14, k=5))
    with joblib.parallel_config(backend="threading"):
        result = search(
            objective, RandomSearch(), budget=Budget(**limit), workers=workers, asynchronous=True, max_failures=10**6
        )
    assert len(objective.cells) == len(set(objective.cells)) == 17 * 3
    assert result.history.evaluations == 17


def test_more_budget_than_before_pays_for_what_is_new_only(tmp_path):
    first, more = Counted(Subset(14, k=5)), Counted(Subset(14, k=5))
    for objective, budget in ((first, 23), (more, 40)):
        search(objective, LocalSearch(), budget=budget, study=tmp_path / "s.db", max_failures=10**6)
    assert (len(first.cells), len(more.cells)) == (23 * 3, 17 * 3)
    assert not set(first.cells) & set(more.cells)


# spaces that come to an end -------------------------------------------------------------------------------------------

TINY = [
    Binary(3), Subset(5, k=2), Permutation(3), Integer(0, 6), Categorical(("a", "b"), length=3),
    Product(mask=Binary(2), n=Integer(0, 2)), Allocation(tuple("abc"), (1, 2), (((1, 2),) * 3,), (4.0,)),
]  # fmt: skip

#: That stop where they have nothing more to say, before every candidate of a space has been tried.
CONTENT = {"EvolutionStrategy", "GaussNewton", "Nevergrad"}

#: That take seconds until they have nothing more to say: on one space, on all of them with ``make soak``.
SLOW = {"GaussNewton", "Nevergrad", "PredictorGuided by trees"}


def ended(algorithm, space):
    """How a search with all the budget in the world ends; None where they do not fit together."""
    objective = Counted(space)
    if algorithm in every.SEVERAL + every.SLOPED:
        objective = every.Distance(space, algorithm)
    try:
        with verdict.within(20):
            return search(
                objective, every.ALGORITHMS[algorithm], budget=10**6, seed=3, batch_size=4, max_failures=10**6
            )
    except (InvalidSettings, MissingOperator):
        return None


@pytest.mark.filterwarnings("ignore")  # of libraries that are asked for more than there is
@pytest.mark.parametrize("algorithm", every.ALGORITHMS)
def test_a_small_space_comes_to_an_end_that_is_named(algorithm):
    fitting = 0
    for space in TINY if amount.MANY or algorithm not in SLOW else TINY[1:2]:
        result = ended(algorithm, space)
        if result is None:
            continue
        fitting += 1
        rows = {row.tobytes() for row in space.canonical(result.history.population)}
        assert result.history.evaluations == len(rows) <= space.size
        assert result.outcome in (Outcome.EXHAUSTED, Outcome.NOTHING_NEW)
        assert (result.outcome is Outcome.EXHAUSTED) == (len(rows) == space.size)
        assert result.outcome is Outcome.EXHAUSTED or algorithm in CONTENT, space
    assert fitting or algorithm in ("ShrinkingPool", "Stages")


def test_where_cases_change_the_few_candidates_of_a_small_space_are_evaluated_again():
    """Noise is a matter of cases: a candidate that meets others is looked at again, as long as the budget lasts."""
    objective = Counted(Integer(0, 3), cases=40)
    result = search(objective, EvolutionStrategy(population=4), cases=FreshCases(2), budget=120, max_failures=10**6)
    assert result.history.evaluations == 120
    assert result.outcome is Outcome.EVALUATIONS
    rows = result.history.population[:, 0].tolist()
    assert len(set(rows)) <= 4 < 120 <= len(rows)
    assert max(len({case for seen, case in objective.cells if seen == row}) for row, _ in objective.cells) > 20


def test_a_sure_small_space_is_never_evaluated_twice():
    objective = Counted(Integer(0, 3), cases=40)
    result = search(objective, budget=120, max_failures=10**6)
    assert result.outcome is Outcome.EXHAUSTED
    assert len(objective.cells) == 4 * 40


# duplicates -----------------------------------------------------------------------------------------------------------


class Seen(Distance):
    """Remembers every candidate whose scores came back."""

    def __init__(self, space, kind):
        super().__init__(space, kind)
        self.rows = []

    def evaluate(self, candidates, cases):
        scores = super().evaluate(candidates, cases)
        self.rows += [row.tobytes() for row in self.space.canonical(candidates.array)]
        return scores


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algorithm", every.ALGORITHMS)
def test_no_candidate_is_evaluated_twice(algorithm):
    evaluated = 0
    for fitting, space in every.pairs("" if amount.MANY else "some"):
        if fitting != algorithm:
            continue
        objective = Seen(every.SPACES[space], algorithm)
        try:
            run = Search(objective, every.ALGORITHMS[algorithm], budget=60, seed=5, batch_size=7, max_failures=10**6)
            list(run)
        except (InvalidSettings, MissingOperator):
            continue
        assert len(objective.rows) == len(set(objective.rows)) <= 60, space
        evaluated += len(objective.rows)
    assert evaluated > (0 if algorithm in every.SLOPED else 10)


def test_duplicates_that_are_asked_for_are_answered_with_what_is_known():
    """Of seven candidates, a search for a thousand evaluates seven, and says of all others what it knows of them."""
    objective = Counted(Integer(0, 6))
    run = Search(objective, RandomSearch(), budget=10**6, batch_size=50, max_failures=10**6)
    list(run)
    values = {}
    for row, value in zip(run.history.population[:, 0], run.history.values[:, 0], strict=True):
        assert np.array_equal(values.setdefault(int(row), value), value, equal_nan=True)
    assert len(run.history) > 7 == len(values) == len({row for row, _ in objective.cells})


@pytest.mark.parametrize("space", [Real(0, 1), Binary(30)])
def test_reals_and_bits_in_other_clothes_are_the_same_candidate(space):
    objective = Counted(space)
    value = space.decode(space.sample(np.random.default_rng(0), 1)[0])
    search(objective, RandomSearch(), seeds=[value, value, value], budget=5, max_failures=10**6)
    assert len({row for row, _ in objective.cells}) == 5
    assert len(objective.cells) == len(set(objective.cells))
