from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys
from searchlib.spaces import EvalSubsets


def multisets(items, keep):
    return list(itertools.combinations_with_replacement(range(items), keep))


@pytest.mark.parametrize(("items", "keep"), [(4, 2), (3, 3), (2, 5), (6, 1)])
def test_sampled_items_are_independent_and_uniform(items, keep):
    rows = EvalSubsets(items, keep).sample(np.random.default_rng(0), 8000)
    expected = dict.fromkeys(multisets(items, keep), 0)
    for draw in itertools.product(range(items), repeat=keep):
        expected[tuple(sorted(draw))] += 8000 / items**keep
    seen = [sum(tuple(row) == kept for row in rows.tolist()) for kept in expected]
    assert stats.chisquare(seen, list(expected.values())).pvalue > 1e-3


def test_items_are_drawn_from_the_pool_only_and_evenly():
    pool = np.array([3, 8, 9, 40])
    rows = EvalSubsets(50, 5).sample_from(np.random.default_rng(0), 4000, pool)
    assert (np.diff(rows, axis=1) >= 0).all()
    counts = np.bincount(rows.ravel(), minlength=50)
    assert set(np.flatnonzero(counts).tolist()) == set(pool.tolist())
    assert stats.chisquare(counts[pool]).pvalue > 1e-3


@pytest.mark.parametrize(("items", "keep"), [(1, 1), (1, 3), (4, 2), (3, 5)])
def test_size_is_the_number_of_multisets(items, keep):
    space = EvalSubsets(items, keep)
    assert len(set(row_keys(space.encode(multisets(items, keep))))) == space.size


@pytest.mark.parametrize(("items", "keep"), [(2, 1), (2, 2), (3, 4), (5000, 50)])
def test_a_mutation_is_another_set_of_the_same_size(items, keep):
    space = EvalSubsets(items, keep)
    parents = space.sample(np.random.default_rng(0), 5000)
    children = space.mutate(np.random.default_rng(1), parents)
    assert children.shape == parents.shape
    assert (np.diff(children, axis=1) >= 0).all()
    assert ((children >= 0) & (children < items)).all()
    assert space.distance(parents, children).min() == 1


def test_about_one_and_a_half_items_are_drawn_anew():
    space = EvalSubsets(2000, 20)
    parents = space.sample(np.random.default_rng(0), 4000)
    changed = space.distance(parents, space.mutate(np.random.default_rng(1), parents))
    assert changed.mean() == pytest.approx(1 / (1 - 0.95**20), rel=0.04)


def test_a_space_of_one_item_has_nothing_to_mutate():
    space = EvalSubsets(1, 3)
    assert space.mutate(np.random.default_rng(0), space.sample(np.random.default_rng(0), 4)).tolist() == [[0, 0, 0]] * 4


def test_a_child_has_every_rank_from_either_parent():
    space = EvalSubsets(9, 3)
    first, second = (np.tile(np.array(row, np.int32), (4000, 1)) for row in ([7, 0, 2], [8, 2, 2]))
    children = space.crossover(np.random.default_rng(0), first, second)
    expected = [tuple(sorted(ranks)) for ranks in itertools.product((0, 2), (2, 2), (7, 8))]
    seen = [sum(tuple(row) == kept for row in children.tolist()) for kept in sorted(set(expected))]
    assert sum(seen) == 4000
    assert stats.chisquare(seen).pvalue > 1e-3


def test_distance_counts_the_items_that_must_be_exchanged():
    space = EvalSubsets(10, 4)
    one = space.encode([(1, 1, 2, 3)])
    for other, exchanged in [((1, 1, 2, 3), 0), ((1, 2, 3, 4), 1), ((1, 1, 1, 1), 2), ((5, 6, 7, 8), 4)]:
        assert space.distance(one, space.encode([other])).tolist() == [exchanged]


def test_features_are_the_counts_of_every_item():
    space = EvalSubsets(5, 4)
    rows = space.sample(np.random.default_rng(0), 50)
    np.testing.assert_array_equal(space.features(rows), [np.bincount(row, minlength=5) for row in rows])


def test_the_order_of_a_row_means_nothing():
    space = EvalSubsets(10, 3)
    rows = np.array([[8, 2, 2], [2, 8, 2]], np.int32)
    assert space.contains(rows).all()
    assert space.canonical(rows).tolist() == [[2, 2, 8]] * 2
    assert space.decode(rows[0]) == space.decode(rows[1]) == (2, 2, 8)


@pytest.mark.parametrize(
    ("row", "repaired"), [([9, 9, 9], [9, 9, 9]), ([-5, 0.4, 99], [0, 0, 9]), ([3.6, 2, np.inf], [4, 2, 9])]
)
def test_repair_moves_items_to_the_nearest_that_there_is(row, repaired):
    space = EvalSubsets(10, 3)
    assert space.repair(np.array([row])).tolist() == [repaired]
    assert space.contains(space.repair(np.array([row]))).all()


def test_the_relaxation_is_uniform_over_items_and_leads_back():
    space = EvalSubsets(6, 2)
    rows = space.sample(np.random.default_rng(0), 200)
    np.testing.assert_array_equal(space.from_latent(space.to_latent(rows)), rows)
    drawn = space.from_latent(np.random.default_rng(1).normal(size=(6000, 2)))
    assert stats.chisquare(np.bincount(drawn.ravel(), minlength=6)).pvalue > 1e-3
    assert space.from_latent(np.array([[-40.0, 40.0]])).tolist() == [[0, 5]]


@pytest.mark.parametrize(
    ("items", "keep", "offender"),
    [(0, 1, "items=0"), (4, 0, "keep=0"), (4.0, 1, "items=4.0"), (4, True, "keep=True"), ("4", 1, "items='4'")],
)
def test_settings_that_cannot_be_meant_are_printed(items, keep, offender):
    with pytest.raises(InvalidSettings, match=offender):
        EvalSubsets(items, keep)


@pytest.mark.parametrize("value", [(0, 1), (0, 1, 5), (0, 1, 2.5), (-1, 1, 2), "012", None])
def test_a_value_that_is_no_subset_is_named(value):
    with pytest.raises(InvalidCandidate) as error:
        EvalSubsets(5, 3).encode([value])
    assert f"values[0] = {value!r} does not lie in EvalSubsets(items=5, keep=3)" in str(error.value)
