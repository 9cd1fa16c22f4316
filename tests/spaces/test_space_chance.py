from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from searchlib.spaces import chance


@pytest.mark.parametrize(("d", "rate"), [(1, 0.3), (4, 0.05), (4, 0.25), (3, 0.9)])
def test_hits_follow_the_law_of_redrawing_until_one_gene_is_hit(d, rate):
    n = 40_000
    mask = chance.hits(np.random.default_rng(0), n, d, rate)
    patterns = [pattern for pattern in itertools.product([0, 1], repeat=d) if any(pattern)]
    odds = np.array([rate ** sum(p) * (1 - rate) ** (d - sum(p)) for p in patterns])
    seen = np.array([(mask == np.array(pattern)).all(axis=1).sum() for pattern in patterns])
    assert seen.sum() == n
    if d > 1:
        # Rare patterns are counted together, as the test demands.
        expected = n * odds / odds.sum()
        rare = expected < 5
        seen = np.append(seen[~rare], seen[rare].sum())
        expected = np.append(expected[~rare], expected[rare].sum())
        kept = expected > 0
        assert stats.chisquare(seen[kept], expected[kept]).pvalue > 1e-3


def test_a_rate_of_one_hits_everything_and_no_rows_are_fine():
    assert chance.hits(np.random.default_rng(0), 3, 5, 1.0).all()
    assert chance.hits(np.random.default_rng(0), 0, 5, 0.01).shape == (0, 5)


def test_coins_are_fair_and_independent_of_their_neighbors():
    coins = chance.coins(np.random.default_rng(0), (1000, 101))
    assert stats.binomtest(int(coins.sum()), coins.size).pvalue > 1e-3
    equal = coins[:, 1:] == coins[:, :-1]
    assert stats.binomtest(int(equal.sum()), equal.size).pvalue > 1e-3


def test_a_pick_is_uniform_over_the_true_entries():
    mask = np.tile([False, True, True, False, True], (9000, 1))
    assert stats.chisquare(np.bincount(chance.pick(np.random.default_rng(0), mask))[[1, 2, 4]]).pvalue > 1e-3


def test_at_most_drops_random_entries_only_where_there_are_too_many():
    mask = np.array([[True] * 4, [True, False, True, False]] * 3000)
    kept = chance.at_most(np.random.default_rng(0), mask, 2)
    assert (kept.sum(axis=1) == 2).all()
    assert not (kept & ~mask).any()
    assert stats.chisquare(kept[::2].sum(axis=0)).pvalue > 1e-3
