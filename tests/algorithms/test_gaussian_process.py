import time

import numpy as np
import pytest
from scipy.stats import kendalltau
from threadpoolctl import threadpool_limits

from searchlib import GaussianProcess
from searchlib.algorithms import gaussian_process
from searchlib.errors import InvalidSettings


def sample(n, seed=0, features=6):
    x = np.random.default_rng(seed).uniform(-1, 1, (n, features))
    return x, x[:, 0] ** 2 + x[:, 1] * x[:, 2] + 0.3 * x[:, 3]


def fit(x, values, **settings):
    return GaussianProcess(**settings).fit(x, values, np.random.default_rng(0))


def test_it_is_scikit_learns_process_at_the_best_of_the_same_grid():
    process = pytest.importorskip("sklearn.gaussian_process")
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel

    x, values = sample(50)
    fitted = fit(x, values)
    scaled = (x - x.mean(axis=0)) / x.std(axis=0)
    y = values - values.mean()
    squared = ((scaled[:, None] - scaled) ** 2).sum(axis=2)
    median = np.median(squared[squared > 1e-12])

    def theirs(length, noise):
        correlation = np.exp(-squared / (2 * length * median)) + noise * np.eye(50)
        variance = float(y @ np.linalg.solve(correlation, y)) / 50
        kernel = ConstantKernel(variance) * RBF(np.sqrt(length * median))
        return process.GaussianProcessRegressor(kernel, alpha=noise * variance, optimizer=None).fit(scaled, y)

    grid = [(length, noise) for length in gaussian_process._LENGTHS for noise in gaussian_process._NOISES]
    likelihoods = [theirs(*point).log_marginal_likelihood_value_ for point in grid]
    best = grid[int(np.argmax(likelihoods))]
    assert (fitted.length, fitted.noise) == best
    unseen = sample(30, seed=1)[0]
    expected = theirs(*best).predict((unseen - x.mean(axis=0)) / x.std(axis=0)) + values.mean()
    np.testing.assert_allclose(fitted.predict(unseen), expected, rtol=1e-6)


def test_it_orders_what_it_has_not_seen():
    unseen, truth = sample(200, seed=1)
    assert kendalltau(fit(*sample(80)).predict(unseen), truth).statistic > 0.8


def test_one_value_that_diverges_does_not_blind_it():
    x, values = sample(80)
    values[np.argmax(values)] = 1e9
    unseen, truth = sample(200, seed=1)
    assert kendalltau(fit(x, values).predict(unseen), truth).statistic > 0.75


def test_a_feature_that_never_differs_and_a_candidate_twice_do_no_harm():
    x, values = sample(40)
    x[:, 5] = 3.0
    twice = fit(np.repeat(x, 2, axis=0), np.repeat(values, 2))
    unseen, truth = sample(100, seed=1)
    assert np.isfinite(twice.predict(unseen)).all()
    assert kendalltau(twice.predict(unseen), truth).statistic > 0.6
    assert np.isfinite(fit(x[:2], np.array([0.0, 1.0])).predict(unseen)).all()
    nothing = fit(np.ones((5, 3)), np.arange(5.0))
    assert np.ptp(nothing.predict(np.ones((4, 3)))) == 0


def test_beyond_the_most_it_learns_from_the_best_are_kept():
    x, values = sample(60)
    best = np.argsort(values)[:30]
    best.sort()
    unseen = sample(20, seed=1)[0]
    np.testing.assert_array_equal(fit(x, values, most=30).predict(unseen), fit(x[best], values[best]).predict(unseen))


def test_three_hundred_candidates_of_a_hundred_features_take_less_than_a_second():
    x, values = sample(300, features=100)
    with threadpool_limits(1):  # threads that wait for a busy processor count as its time
        start = time.process_time()
        fit(x, values).predict(sample(2000, seed=1, features=100)[0])
        assert time.process_time() - start < 1


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(InvalidSettings, match=r"most.*1"):
        GaussianProcess(most=1)
