from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys
from searchlib.spaces import Subset, k_of_n


def counts(rows, n, k):
    codes = {subset: place for place, subset in enumerate(itertools.combinations(range(n), k))}
    return np.bincount([codes[tuple(row)] for row in rows.tolist()], minlength=len(codes))


@pytest.mark.parametrize("keys", [0, k_of_n.KEYS], ids=["redrawing", "random keys"])
@pytest.mark.parametrize(("n", "k"), [(5, 1), (6, 3), (7, 5), (9, 2), (4, 4)])
def test_samples_are_uniform_over_all_subsets(n, k, keys, monkeypatch):
    monkeypatch.setattr(k_of_n, "KEYS", keys)
    space = Subset(n, k)
    seen = counts(space.sample(np.random.default_rng(0), 8000), n, k)
    assert len(seen) == space.size
    assert len(seen) == 1 or stats.chisquare(seen).pvalue > 1e-3


def test_a_large_sample_takes_memory_for_what_is_kept_only():
    space = Subset(5000, 50)
    tracemalloc.start()
    rows = space.sample(np.random.default_rng(0), 20_000)
    children = space.mutate(np.random.default_rng(1), rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(children) == 20_000
    assert peak < 20_000 * 5000  # one byte per item would already be more


@pytest.mark.parametrize(("n", "k"), [(30, 8), (10, 9), (5000, 20)])
def test_a_swap_keeps_exactly_k(n, k):
    space = Subset(n, k)
    rows = space.sample(np.random.default_rng(0), 1000)
    for seed in range(35):
        rows = space.mutate(np.random.default_rng(seed), rows)
        assert (rows[:, 1:] > rows[:, :-1]).all()
        assert ((rows >= 0) & (rows < n)).all()
        assert rows.shape == (1000, k)


def test_one_hundred_thousand_mutations_are_all_feasible_and_all_different_from_their_parents():
    space = Subset(40, 12)
    parents = space.sample(np.random.default_rng(0), 100_000)
    children = space.mutate(np.random.default_rng(1), parents)
    mask = np.zeros((100_000, 40), np.bool_)
    mask[np.arange(100_000)[:, None], children] = True
    assert (mask.sum(axis=1) == 12).all()
    assert space.distance(parents, children).min() == 1


def test_about_one_and_a_half_items_are_swapped():
    space = Subset(100, 20)
    parents = space.sample(np.random.default_rng(0), 20_000)
    swaps = space.distance(parents, space.mutate(np.random.default_rng(1), parents))
    assert swaps.mean() == pytest.approx(1 / (1 - 0.95**20), rel=0.02)


def test_items_leave_and_enter_uniformly():
    space = Subset(12, 4)
    parents = np.tile(np.array([1, 4, 5, 10], np.int32), (8000, 1))
    kept = np.bincount(space.mutate(np.random.default_rng(0), parents).ravel(), minlength=12)
    inside = np.isin(np.arange(12), parents[0])
    assert stats.chisquare(kept[inside]).pvalue > 1e-3
    assert stats.chisquare(kept[~inside]).pvalue > 1e-3


def test_a_child_keeps_the_intersection_and_takes_uniformly_from_the_rest():
    space = Subset(8, 4)
    first, second = (np.tile(np.array(row, np.int32), (6000, 1)) for row in ([7, 0, 2, 1], [3, 2, 4, 0]))
    children = space.crossover(np.random.default_rng(0), first, second)
    seen = counts(children, 8, 4)
    expected = {tuple(sorted((0, 2, *pair))) for pair in itertools.combinations([1, 3, 4, 7], 2)}
    reached = [s for s, count in zip(itertools.combinations(range(8), 4), seen, strict=True) if count]
    assert set(reached) == expected
    assert stats.chisquare(seen[seen > 0]).pvalue > 1e-3


@pytest.mark.parametrize(("n", "k"), [(6, 0), (6, 2), (6, 3), (6, 6), (9, 4)])
def test_size_is_the_number_of_combinations(n, k):
    space = Subset(n, k)
    assert len(set(row_keys(space.encode(list(itertools.combinations(range(n), k)))))) == space.size


@pytest.mark.parametrize(
    ("row", "repaired"),
    [([3, 3, 3], [3, 4, 5]), ([9, 9, 9], [7, 8, 9]), ([-5, 0.4, 99], [0, 1, 9]), ([8, 2, 5], [8, 2, 5])],
)
def test_repair_moves_repeated_indices_to_the_next_free_ones(row, repaired):
    assert Subset(10, 3).repair(np.array([row])).tolist() == [repaired]


def test_the_order_of_a_row_means_nothing():
    space = Subset(10, 3)
    rows = np.array([[8, 2, 5], [2, 5, 8]], np.int32)
    assert space.contains(rows).all()
    assert space.distance(rows[:1], rows[1:]).tolist() == [0]
    assert space.decode(rows[0]) == space.decode(rows[1]) == (2, 5, 8)
    assert space.encode([{8, 5, 2}]).tolist() == [[2, 5, 8]]


def test_the_largest_scores_are_kept():
    assert Subset(5, 2).from_latent(np.array([[0.1, -3, 7.0, 0.2, 0.0]])).tolist() == [[2, 3]]


@pytest.mark.parametrize(
    ("n", "k", "offender"), [(3, 4, "n=3, k=4"), (0, 0, "n=0"), (4, -1, "k=-1"), (4, True, "k=True")]
)
def test_settings_that_cannot_be_meant_are_printed(n, k, offender):
    with pytest.raises(InvalidSettings, match=offender):
        Subset(n, k)


@pytest.mark.parametrize("value", [(0, 1), (0, 1, 1), (0, 1, 5), (0, 1, 2.5), "012", None])
def test_a_value_that_is_no_subset_is_named(value):
    with pytest.raises(InvalidCandidate) as error:
        Subset(5, 3).encode([value])
    assert f"values[0] = {value!r} does not lie in Subset(n=5, k=3)" in str(error.value)
