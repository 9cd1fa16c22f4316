import numpy as np
import pytest
from scipy import stats

from searchlib.forecast import Forecast


def seen(scores, looks, weights=None):
    """A forecast for one candidate that has shown ``scores``, shape ``(k, v)``: k looks of v cells each."""
    scores = np.atleast_2d(np.asarray(scores, float))
    k, v = scores.shape
    weights = np.ones(v) if weights is None else np.asarray(weights, float)
    forecast = Forecast(np.array([looks]), np.array([weights.sum() ** 2 / (weights**2).sum()]))
    forecast.add(np.zeros(k * v, int), np.repeat(np.arange(k), v), np.tile(weights, k), scores.ravel())
    return forecast


@pytest.mark.parametrize("k", [1, 2, 5, 20])
@pytest.mark.parametrize("m", [1, 4, 30])
def test_what_is_left_of_a_coin_is_beta_binomial(k, m):
    for heads in range(k + 1):
        tosses = np.arange(k)[:, None] < heads
        mean, variance = seen(tosses, k + m).rest(np.array([float(m)]))
        law = stats.betabinom(m, 1 + heads, 1 + k - heads)
        np.testing.assert_allclose([mean[0], variance[0]], [law.mean(), law.var()], rtol=1e-12)


def test_a_simulation_of_coins_agrees():
    rng = np.random.default_rng(0)
    bias = rng.random(400_000)
    first, rest = rng.binomial(6, bias), rng.binomial(9, bias)
    for heads in range(7):
        outcomes = rest[first == heads]
        assert len(outcomes) > 40_000
        mean, variance = seen(np.arange(6)[:, None] < heads, 15).rest(np.array([9.0]))
        assert mean[0] == pytest.approx(outcomes.mean(), abs=0.05)
        assert variance[0] == pytest.approx(outcomes.var(), rel=0.03)


def test_a_candidate_that_has_shown_nothing_is_a_coin_of_unknown_bias():
    mean, variance = Forecast(np.array([9]), np.ones(1)).rest(np.array([9.0]))
    law = stats.betabinom(9, 1, 1)
    np.testing.assert_allclose([mean[0], variance[0]], [law.mean(), law.var()], rtol=1e-12)


def test_the_weight_of_what_is_left_scales_mean_and_spread():
    forecast = seen([[1], [0], [1]], 8)
    mean, variance = forecast.rest(np.array([5.0]))
    triple, spread = forecast.rest(np.array([15.0]))
    np.testing.assert_allclose([triple[0], spread[0]], [3 * mean[0], 9 * variance[0]])


def test_nothing_left_is_nothing_to_come():
    mean, variance = seen([[1], [0]], 2).rest(np.array([0.0]))
    assert (mean[0], variance[0]) == (0, 0)


def test_no_scores_are_more_spread_than_coins_and_means_of_rows_are_less():
    rng = np.random.default_rng(1)
    for v in (2, 4, 9):
        for _ in range(30):
            scores = (rng.random((12, v)) < rng.random()).astype(float)
            mean, variance = seen(scores, 30).rest(np.array([18.0]))
            a = 1 + scores.mean(axis=1).sum()
            law = stats.betabinom(18, a, 14 - a)
            assert mean[0] == pytest.approx(law.mean())
            assert 0 < variance[0] <= law.var() * (1 + 1e-12)
    whole = np.tile([[1.0, 0.0, 1.0, 0.0]], (12, 1))  # every look is the same
    a = 1 + 12 * 0.5
    assert seen(whole, 30).rest(np.array([18.0]))[1][0] < 0.4 * stats.betabinom(18, a, 14 - a).var()


def test_scores_that_are_never_0_or_1_are_forecast_with_less_spread_than_coins():
    scores = np.full((12, 1), 0.5)
    law = stats.betabinom(18, 7, 7)
    assert seen(scores, 30).rest(np.array([18.0]))[1][0] < 0.4 * law.var()


def test_unequal_weights_within_a_look_weigh_its_mean():
    forecast = seen([[1.0, 0.0]], 4, weights=[3, 1])
    assert forecast.rest(np.array([3.0]))[0][0] == pytest.approx(3 * (1 + 0.75) / 3)


def test_looks_may_come_one_by_one_or_together_and_candidates_side_by_side():
    rng = np.random.default_rng(2)
    candidate, look = np.repeat([0, 1, 2], 4), np.tile(np.arange(4), 3)
    x, weight = rng.random(12), np.ones(12)
    together, apart = (Forecast(np.full(3, 9), np.ones(3)) for _ in range(2))
    together.add(candidate, look, weight, x)
    for i in range(4):
        part = look == i
        apart.add(candidate[part], look[part], weight[part], x[part])
    left = np.full(3, 5.0)
    np.testing.assert_allclose(together.rest(left), apart.rest(left))
    for i in range(3):
        alone = seen(x[candidate == i][:, None], 9)
        np.testing.assert_allclose(np.ravel(alone.rest(left[:1])), np.array(together.rest(left))[:, i])


def test_a_look_at_nothing_changes_nothing():
    forecast = seen([[1], [0]], 9)
    before = forecast.rest(np.array([7.0]))
    forecast.add(np.empty(0, int), np.empty(0, int), np.empty(0), np.empty(0))
    np.testing.assert_array_equal(forecast.rest(np.array([7.0])), before)
