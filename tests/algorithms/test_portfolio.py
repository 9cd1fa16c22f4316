"""Algorithms that share a history."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib import Evolution, LocalSearch, RandomSearch, search
from searchlib.algorithms import Evidence, Problem, Status
from searchlib.algorithms.portfolio import Portfolio
from searchlib.errors import InvalidSettings
from searchlib.space import row_keys
from searchlib.spaces import Allocation, Binary, Product, Real, Subset
from searchlib.testing import check_algorithm

BITS = (2, 4, 8)
SPACES = [
    Binary(9),
    Subset(9, k=3),
    Product(mask=Binary(4), rate=Real(0, 1, length=2)),
    Allocation(tuple("abcd"), BITS, costs=((BITS,) * 4,), budgets=(16.0,)),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_the_contract_holds(space):
    check_algorithm(Portfolio((LocalSearch(), Evolution(population=6))), space)


def told(batch, values):
    nothing = np.full(len(batch), np.nan)
    values = np.asarray(values, float)[:, None]
    return Evidence(
        batch.ids, batch.population, values, np.full(len(batch), Status.DONE, np.int8), nothing, nothing[:, None]
    )


def run(members, evaluations, function, **settings):
    """Every candidate proposed, and the run."""
    going = Portfolio(members, **settings).start(Problem(Binary(40)), np.random.default_rng(0))
    rows = []
    while len(rows) < evaluations:
        batch = going.ask(8)
        rows += list(batch.population)
        going.tell(told(batch, [function(row) for row in batch.population]))
    return np.array(rows), going


def test_no_candidate_is_proposed_twice_though_members_do_not_know_each_other():
    rows, _ = run((RandomSearch(), RandomSearch(), LocalSearch()), 400, lambda row: -row.sum())
    assert len(rows) == 400
    assert len(set(row_keys(rows))) == 400


def test_shares_follow_success_and_nobody_is_given_up():
    _, going = run((RandomSearch(), LocalSearch()), 400, lambda row: -float(row.sum()), floor=0.1)
    random, local = going.notes()["portfolio"]
    assert random["candidates"] + local["candidates"] == 400
    assert 40 <= random["candidates"] < local["candidates"]
    assert random["among_the_best"] < local["among_the_best"]


def test_a_member_starts_from_what_another_has_found():
    """Local search alone is told of a stranger's good candidate: its next children lie near it."""
    going = Portfolio((LocalSearch(), RandomSearch())).start(Problem(Binary(40)), np.random.default_rng(1))
    first = going.ask(2)
    good = np.ones((1, 40), first.population.dtype)
    stranger = Evidence(
        np.array([-1]), good, np.array([[-40.0]]), np.array([Status.DONE], np.int8), np.array([np.nan]),
        np.array([[np.nan]]),
    )  # fmt: skip
    going.tell(told(first, [0.0, 0.0]))
    going.tell(stranger)
    children = going.ask(20).population
    assert ((children != good).sum(axis=1) <= 4).sum() >= 8
    assert (going.recommend(1) == good).all()


def test_seeds_are_proposed_once():
    seeds = np.eye(3, 40, dtype=np.int64)
    going = Portfolio((LocalSearch(), Evolution())).start(
        Problem(Binary(40), seeds=seeds), np.random.default_rng(0)
    )
    rows = np.concatenate([going.ask(2).population, going.ask(30).population])
    assert [tuple(row) for row in rows[:3].tolist()] == [tuple(row) for row in seeds.tolist()]
    assert len(set(row_keys(rows))) == 32


def test_it_resumes_to_the_bit(tmp_path):
    def count(mask):
        return float(sum(i * bit for i, bit in enumerate(mask)))

    both = Portfolio((LocalSearch(), Evolution()))
    whole = search(count, both, space=Binary(20), budget=120, seed=3, batch_size=7)
    study = tmp_path / "x.db"
    search(count, both, space=Binary(20), budget=50, seed=3, batch_size=7, study=study)
    resumed = search(count, both, space=Binary(20), budget=120, seed=3, batch_size=7, study=study)
    # The last batch of a smaller budget is cut, so the histories agree up to there.
    assert resumed.history.evaluations == whole.history.evaluations == 120
    assert (resumed.history.population[:49] == whole.history.population[:49]).all()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"members": (Evolution(),)}, "two or more"),
        ({"members": (Evolution(), "Evolution")}, "two or more"),
        ({"members": (Evolution(), LocalSearch()), "floor": 0.6}, "floor"),
        ({"members": (Evolution(), LocalSearch()), "memory": 0}, "memory"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, said):
    with pytest.raises(InvalidSettings, match=said):
        Portfolio(**settings)
