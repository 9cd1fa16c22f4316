import time

import numpy as np
import pytest
from scipy.stats import kendalltau

from searchlib import HingeRanker
from searchlib.algorithms.ranking import _Ensemble, _threshold
from searchlib.errors import InvalidSettings


def sample(n, seed=0, features=6):
    x = np.random.default_rng(seed).uniform(-1, 1, (n, features))
    return x, 2 * x[:, 0] + x[:, 1] * x[:, 2] + 0.5 * x[:, 3]


def fit(x, values, seed=0, **settings):
    return HingeRanker(**settings).fit(x, values, np.random.default_rng(seed))


def hinge(scores, values, margin, threshold):
    """The paper's loss, pair by pair."""
    terms = [
        max(0.0, margin - np.sign(values[i] - values[j]) * (scores[i] - scores[j]))
        for i in range(len(values)) for j in range(len(values)) if abs(values[i] - values[j]) > threshold
    ]  # fmt: skip
    return sum(terms) / len(terms)


def test_its_gradient_is_that_of_the_pairwise_hinge_loss():
    """Five candidates are compared with four others each, so that the sample of pairs is all of them."""
    x, values = sample(5)
    values[3] = values[1] + 0.01  # closer than the threshold
    ensemble = _Ensemble(HingeRanker(members=2, hidden=3, steps=1, rate=1e-9), x, values, np.random.default_rng(0))
    for weight in ensemble._weights:
        weight += np.random.default_rng(1).normal(size=weight.shape)
    batch = np.stack([x, x[::-1]])
    told = np.stack([values, values[::-1]])
    found = ensemble._gradients(batch, told, 0.1, np.random.default_rng(2))

    def loss(member):
        return hinge(ensemble._scores(batch[member])[member], told[member], 1.0, 0.1)

    checked = 0
    for weight, gradient in zip(ensemble._weights, found, strict=True):
        for index in np.ndindex(weight.shape):
            before = weight[index]
            weight[index] = before + 1e-6
            above = loss(index[0])
            weight[index] = before - 1e-6
            slope = (above - loss(index[0])) / 2e-6
            weight[index] = before
            assert gradient[index] == pytest.approx(slope, abs=1e-6)
            checked += slope != 0
    assert checked > 20


def test_it_orders_what_it_has_not_seen():
    unseen, truth = sample(200, seed=1)
    assert kendalltau(fit(*sample(100)).predict(unseen), truth).statistic > 0.75


def test_only_the_order_of_values_counts():
    x, values = sample(60)
    unseen = sample(20, seed=1)[0]
    plain, bent = fit(x, values, quantile=0.0), fit(x, np.exp(5 * values), quantile=0.0)
    np.testing.assert_array_equal(plain.predict(unseen), bent.predict(unseen))


def test_the_threshold_is_a_quantile_of_the_differences():
    values = np.linspace(0, 1, 200)
    pairs = np.abs(values[:, None] - values)
    expected = np.quantile(pairs[pairs > 0], 0.25)
    assert _threshold(values, 0.25, np.random.default_rng(0)) == pytest.approx(expected, abs=0.02)
    assert _threshold(values, 0.0, np.random.default_rng(0)) == 0


def test_the_generator_alone_decides_it_and_nothing_given_is_changed():
    x, values = sample(40)
    x.flags.writeable = values.flags.writeable = False
    first, again, other = (fit(x, values, seed, steps=20).predict(x) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@pytest.mark.parametrize("n", [2, 3])
def test_a_few_candidates_are_enough_to_say_something(n):
    scores = fit(np.arange(n)[:, None] * 1.0, np.arange(n) * 1.0).predict(np.arange(n)[:, None] * 1.0)
    assert (np.diff(scores) > 0).all()


def test_features_that_never_differ_say_nothing():
    assert np.ptp(fit(np.ones((6, 2)), np.arange(6.0)).predict(np.ones((3, 2)))) == 0


def test_three_hundred_candidates_of_a_hundred_features_take_less_than_a_second():
    x, values = sample(300, features=100)
    start = time.process_time()
    fit(x, values)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(("name", "value"), [
    ("members", 0), ("hidden", 0), ("steps", 0), ("rate", 0), ("decay", -1), ("margin", 0), ("quantile", 1), ("part", 0)
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        HingeRanker(**{name: value})
