from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys
from searchlib.spaces import Permutation


def test_samples_are_uniform_over_all_orders():
    orders = {order: place for place, order in enumerate(itertools.permutations(range(4)))}
    rows = Permutation(4).sample(np.random.default_rng(0), 8000)
    assert stats.chisquare(np.bincount([orders[tuple(row)] for row in rows.tolist()], minlength=24)).pvalue > 1e-3


def test_size_is_the_number_of_orders():
    space = Permutation(5)
    assert len(set(row_keys(space.encode(list(itertools.permutations(range(5))))))) == space.size == 120


def neighbors(order):
    for i, j in itertools.combinations(range(len(order)), 2):
        swapped = list(order)
        swapped[i], swapped[j] = swapped[j], swapped[i]
        yield tuple(swapped)
        yield (*order[:i], *reversed(order[i : j + 1]), *order[j + 1 :])
        yield (*order[:i], *order[i + 1 : j + 1], order[i], *order[j + 1 :])
        yield (*order[:i], order[j], *order[i:j], *order[j + 1 :])


def test_mutation_reaches_every_swap_move_and_reversal_and_nothing_else():
    order = (3, 0, 4, 5, 1, 2)
    children = Permutation(6).mutate(np.random.default_rng(0), np.tile(np.array(order, np.int32), (4000, 1)))
    assert set(map(tuple, children.tolist())) == set(neighbors(order))


def test_children_are_permutations_in_an_order_like_that_of_their_parents():
    space = Permutation(30)
    rng = np.random.default_rng(0)
    first, second = space.sample(rng, 500), space.sample(rng, 500)
    second = np.where(rng.random((500, 1)) < 0.5, first, second)
    children = space.crossover(rng, first, second)
    assert (np.sort(children, axis=1) == np.arange(30)).all()
    twins = (first == second).all(axis=1)
    assert twins.any()
    assert (children[twins] == first[twins]).all()
    rank = [
        stats.spearmanr(np.argsort(a), np.argsort(b)).statistic
        for a, b in zip(first[:100], children[:100], strict=True)
    ]
    assert np.mean(rank) > 0.4


def test_any_numbers_are_repaired_to_the_order_of_their_ranks():
    assert Permutation(4).repair(np.array([[0.5, -7.0, 1e9, 0.5]])).tolist() == [[1, 0, 3, 2]]


@pytest.mark.parametrize("n", [0, 1.5, True])
def test_settings_that_cannot_be_meant_are_printed(n):
    with pytest.raises(InvalidSettings, match=f"n={n!r}"):
        Permutation(n)


@pytest.mark.parametrize("value", [(0, 1), (0, 1, 1), (1, 2, 3), "012"])
def test_a_value_that_is_no_permutation_is_named(value):
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[0] = {value!r} does not lie in Permutation(n=3)")):
        Permutation(3).encode([value])
