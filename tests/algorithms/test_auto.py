"""The algorithm that chooses."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib import Auto, FunctionObjective, LocalSearch, Search, search
from searchlib.algorithms import Problem
from searchlib.spaces import (
    Affine,
    Allocation,
    Binary,
    Categorical,
    Permutation,
    PolicyParameters,
    Product,
    Real,
    Simplex,
    Subset,
)
from searchlib.testing import check_algorithm

BITS = (2, 4, 8)
BUDGETED = Allocation(tuple("abcdef"), BITS, costs=((BITS,) * 6,), budgets=(24.0,))
MIXED = Product(method=Categorical(("a", "b", "c"), length=3), rate=Real(0, 1, length=3))


def chosen(space, evaluations=300, **settings):
    return repr(Auto().choose(Problem(space, evaluations=evaluations, **settings)).algorithm)


@pytest.mark.parametrize("space", [Binary(8), Subset(8, k=3), Simplex(4), MIXED, BUDGETED, Permutation(5)], ids=repr)
def test_the_contract_holds_whatever_it_chooses(space):
    check_algorithm(Auto(), space)


@pytest.mark.parametrize(
    ("space", "settings", "members"),
    [
        (Subset(64, k=48), {}, ["LocalSearch", "PredictorGuided"]),
        (Permutation(20), {}, ["LocalSearch", "PredictorGuided"]),
        (Binary(64), {"evaluations": 5000}, ["LocalSearch"]),
        (Binary(64), {"evaluations": 50_000}, ["Evolution"]),
        (BUDGETED, {}, ["ProbedAllocation"]),
        (BUDGETED, {"evaluations": 6, "noisy": True}, ["ProbedAllocation"]),
        (Allocation(tuple("abc"), BITS), {}, ["LocalSearch", "PredictorGuided"]),
        (Simplex(20), {}, ["CMAES", "PredictorGuided"]),
        (Affine(20), {"evaluations": 100, "batch_size": 1}, ["CMAES", "BayesianOptimization"]),
        (Affine(20), {"evaluations": 100, "batch_size": 64}, ["PredictorGuided", "stage=6"]),
        (Affine(20), {"evaluations": 100, "batch_given": False}, ["CMAES", "BayesianOptimization"]),
        (Affine(20), {"evaluations": 100, "noisy": True}, ["CMAES(sigma=0.5, population=24"]),
        (Affine(20), {"evaluations": 1000, "noisy": True}, ["CMAES(sigma=0.5, population=64"]),
        (Real(0, 1, length=10), {"evaluations": 5000}, ["CMAES"]),
        (Real(0, 1, length=1000), {"evaluations": 1000}, ["OnePlusOneES"]),
        (MIXED, {}, ["CMAES", "PredictorGuided", "LocalSearch"]),
        (MIXED, {"evaluations": 100}, ["CMAES", "BayesianOptimization", "LocalSearch"]),
        (MIXED, {"evaluations": 100, "noisy": True}, ["CMAES", "PredictorGuided", "LocalSearch"]),
        (MIXED, {"evaluations": 5000}, ["CatCMAwM"]),
        (Product(rate=Real(0, 1), kept=Subset(8, k=3)), {"evaluations": 5000}, ["LocalSearch"]),
        (Binary(30), {"noisy": True}, ["EstimationOfDistribution"]),
        (Real(0, 1, length=5), {"noisy": True}, ["CMAES", "PredictorGuided"]),
        (PolicyParameters(30_000), {}, ["EvolutionStrategy"]),
        (Binary(8), {"objectives": 2}, ["NSGA2"]),
        (Binary(8), {"objectives": 5}, ["NSGA3"]),
    ],
)
def test_the_choice_follows_the_table(space, settings, members):
    algorithm = chosen(space, **settings)
    places = [algorithm.find(member) for member in members]
    assert -1 not in places, algorithm
    assert places == sorted(places), algorithm
    if "PredictorGuided" not in members:
        assert "PredictorGuided" not in algorithm


def test_algorithms_that_take_turns_are_asked_often_where_nobody_says_how_often():
    """At the default batch of 64 they met 300 evaluations in five rounds, and did worse than with one at a time."""

    def batches(evaluations, **settings):
        return np.bincount(search(sum, space=Subset(64, k=48), budget=evaluations, **settings).history.batch)

    assert batches(300).max() == 12
    assert batches(100).max() == 4
    assert batches(20).max() == 1
    assert batches(300, batch_size=64).max() == 64
    assert batches(300, batch_size=5).max() == 5
    asked = Search(space=Subset(64, k=48), budget=300)
    assert (len(asked.ask()), len(asked.ask(40))) == (12, 40)


def test_the_result_says_which_choice_was_made_and_why():
    result = search(sum, Auto(), space=Binary(12), budget=60)
    assert result.notes["chosen"].startswith("Portfolio")
    assert "predictor" in result.notes["because"]
    shares = [member["candidates"] for member in result.notes["portfolio"]]
    assert sum(shares) == 60


def test_without_cmaes_many_evaluations_of_reals_among_choices_go_to_local_search(monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cmaes" else found(name))
    choice = Auto().choose(Problem(MIXED, evaluations=5000))
    assert choice.algorithm == LocalSearch()
    assert "pip install 'searchlib[cma]'" in choice.because


def test_without_pycma_reals_are_searched_without_it(monkeypatch):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cma" else found(name))
    choice = Auto().choose(Problem(Simplex(6), evaluations=300))
    assert "CMAES" not in repr(choice.algorithm)
    assert "pip install 'searchlib[cma]'" in choice.because


def test_a_resumed_search_makes_the_same_choice_with_a_larger_budget(tmp_path):
    """The choice goes by the budget that the study began with, or its history could not be replayed."""
    first = search(sum, Auto(), space=Real(0, 1, length=3), budget=100, study=tmp_path / "a.db")
    more = search(sum, Auto(), space=Real(0, 1, length=3), budget=200, study=tmp_path / "a.db")
    assert more.notes["chosen"] == first.notes["chosen"]
    assert (more.history.population[:96] == first.history.population[:96]).all()


def test_it_is_better_than_random_search_everywhere():
    rng = np.random.default_rng(0)
    weights = rng.normal(0, 1, 40)
    from searchlib import RandomSearch

    for space in (Subset(40, k=10), Binary(40)):
        def worth(value, space=space):
            mask = np.zeros(40)
            mask[list(value) if isinstance(space, Subset) else np.flatnonzero(value)] = 1
            return float(-mask @ weights)

        ours = [search(worth, Auto(), space=space, budget=100, seed=seed).value for seed in range(3)]
        theirs = [search(worth, RandomSearch(), space=space, budget=100, seed=seed).value for seed in range(3)]
        assert max(ours) < min(theirs)


def test_a_noisy_function_is_searched_by_what_averages():
    noisy = FunctionObjective(lambda mask: float(sum(mask)), Binary(12), noisy=True)
    quiet = FunctionObjective(lambda mask: float(sum(mask)), Binary(12))
    assert "noise" in search(noisy, budget=20).notes["because"]
    assert "noise" not in search(quiet, budget=20).notes["because"]
