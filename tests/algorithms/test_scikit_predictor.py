import sys

import numpy as np
import pytest
from scipy.stats import kendalltau

from searchlib import PredictorGuided, ScikitPredictor, search
from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.spaces import Binary

MODELS = ["forest", "extra trees", "gaussian process"]


def sample(n, seed=0):
    x = np.random.default_rng(seed).uniform(-1, 1, (n, 4))
    return x, 2 * x[:, 0] + x[:, 1] * x[:, 2]


@pytest.mark.parametrize("model", MODELS)
def test_it_orders_what_it_has_not_seen(model):
    pytest.importorskip("sklearn")
    x, values = sample(100)
    unseen, truth = sample(200, seed=1)
    first, again = (ScikitPredictor(model).fit(x, values, np.random.default_rng(3)).predict(unseen) for _ in range(2))
    assert kendalltau(first, truth).statistic > 0.7
    np.testing.assert_array_equal(first, again)


@pytest.mark.parametrize("model", MODELS)
def test_only_the_order_of_values_counts(model):
    pytest.importorskip("sklearn")
    x, values = sample(40)
    fits = (ScikitPredictor(model).fit(x, v, np.random.default_rng(0)) for v in (values, np.exp(3 * values)))
    plain, bent = (fitted.predict(x) for fitted in fits)
    np.testing.assert_array_equal(plain, bent)


def test_it_guides_a_search():
    pytest.importorskip("sklearn")
    algorithm = PredictorGuided(predictor=ScikitPredictor("forest", trees=20))
    result = search(sum, algorithm, space=Binary(20), budget=84, direction="maximize")
    assert any(stage["guided"] for stage in result.notes["stages"])
    assert result.value >= 18


def test_without_scikit_learn_the_extra_is_named_before_anything_is_evaluated(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)

    def never(value):
        raise AssertionError("this must not be evaluated")

    with pytest.raises(MissingDependency, match=r"searchlib\[predictors\]"):
        search(never, PredictorGuided(predictor=ScikitPredictor()), space=Binary(4), budget=3)


@pytest.mark.parametrize(("name", "value"), [("model", "oracle"), ("trees", 0)])
def test_settings_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(InvalidSettings, match=f"{name}.*{value}"):
        ScikitPredictor(**{name: value})
