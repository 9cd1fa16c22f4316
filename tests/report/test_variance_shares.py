"""Shares of variance against functions whose decomposition is known in closed form."""

import sys

import numpy as np
import pytest

pytest.importorskip("sklearn")

from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.report.parameters import parameters
from searchlib.report.variance_shares import variance_shares
from searchlib.spaces import (
    Allocation,
    Binary,
    Categorical,
    EvalSubsets,
    ExpertSubsets,
    Grouped,
    Integer,
    Product,
    Real,
    Subset,
)


def test_an_additive_function_has_the_shares_of_its_squared_weights():
    space, rng = Real(0.0, 1.0, length=4), np.random.default_rng(0)
    rows = space.sample(rng, 250)
    shares = variance_shares(space, rows, 3 * rows[:, 0] + 2 * rows[:, 1] + rows[:, 2])
    assert np.allclose(shares.alone, np.array([9, 4, 1, 0]) / 14, atol=0.08)
    assert len(shares.together) == 6
    assert (shares.together < 0.05).all()
    assert shares.fit > 0.95


def test_a_centered_product_is_all_interaction():
    space, rng = Real(-1.0, 1.0, length=3), np.random.default_rng(0)
    rows = space.sample(rng, 400)
    shares = variance_shares(space, rows, rows[:, 0] * rows[:, 2])
    assert (shares.alone < 0.05).all()
    found = dict(zip(shares.pairs, shares.together, strict=True))
    assert found.pop((0, 2)) > 0.85
    assert max(found.values()) < 0.02


def test_the_ishigami_function_has_its_published_shares(monkeypatch):
    # Sobol' indices of sin x0 + 7 sin² x1 + 0.1 x2⁴ sin x0 (Ishigami and Homma 1990); the forest is replaced by the
    # function itself, so that only the decomposition is tested.
    space, rng = Real(-np.pi, np.pi, length=3), np.random.default_rng(0)

    class Exact:
        fit = 1.0

        def __init__(self, features, values, seed):
            self.scale = np.pi / 2  # features of a Real lie within ±2

        def __call__(self, features):
            a, b, c = (features * self.scale).T
            return np.sin(a) + 7 * np.sin(b) ** 2 + 0.1 * c**4 * np.sin(a)

    monkeypatch.setattr("searchlib.report.variance_shares._Forest", Exact)
    rows = space.sample(rng, 30)
    shares = variance_shares(space, rows, rows[:, 0], seed=1)
    assert np.allclose(shares.alone, [0.3139, 0.4424, 0.0], atol=0.06)
    assert dict(zip(shares.pairs, shares.together, strict=True))[0, 2] == pytest.approx(0.2437, abs=0.08)


def test_choices_and_switches_have_their_exact_shares():
    # Of k three options, one worth 2: variance 4 · 2/9. Of two switches, their product: 1/16 each and 1/16 together.
    space, rng = Product(k=Categorical(("a", "b", "c")), b=Binary(3)), np.random.default_rng(0)
    rows = space.sample(rng, 400)
    shares = variance_shares(space, rows, 2.0 * (rows[:, 0] == 1) + rows[:, 1] * rows[:, 2])
    whole = 8 / 9 + 3 / 16
    assert shares.names == ("k", "b item 0", "b item 1", "b item 2")
    assert np.allclose(shares.alone, np.array([8 / 9, 1 / 16, 1 / 16, 0]) / whole, atol=0.02)
    found = dict(zip(shares.pairs, shares.together, strict=True))
    assert found.pop((1, 2)) == pytest.approx(1 / 16 / whole, abs=0.02)
    assert max(found.values()) < 0.01


def test_of_noise_the_forest_says_that_it_explains_nothing():
    space, rng = Real(0.0, 1.0, length=2), np.random.default_rng(0)
    assert variance_shares(space, space.sample(rng, 200), rng.normal(size=200)).fit < 0.1


def test_the_same_candidates_give_the_same_shares():
    space, rng = Subset(8, k=3), np.random.default_rng(0)
    rows = space.sample(rng, 40)
    first, again = (variance_shares(space, rows, rows.sum(axis=1) * 1.0, strongest=2) for _ in range(2))
    assert first.alone.tobytes() == again.alone.tobytes()
    assert first.together.tobytes() == again.together.tobytes()
    assert first.alone.sum() > 0.5


@pytest.mark.parametrize("values", [np.zeros(30), np.arange(5.0), np.array([*range(29), np.nan])])
def test_too_few_or_equal_or_missing_values_are_refused(values):
    space = Real(0.0, 1.0)
    with pytest.raises(InvalidSettings, match="20 candidates or more"):
        variance_shares(space, space.sample(np.random.default_rng(0), len(values)), values)


def test_without_scikit_learn_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    space = Real(0.0, 1.0)
    with pytest.raises(MissingDependency, match=r"searchlib\[predictors\]"):
        variance_shares(space, space.sample(np.random.default_rng(0), 30), np.arange(30.0))


SPACES = [
    Product(kind=Categorical(("a", "b"), length=2), depth=Integer(1, 9), inner=Product(rate=Real(0.0, 1.0, length=2))),
    Grouped(Subset(4, k=2), 3), Subset(9, k=2), Binary(3), ExpertSubsets(4, 8, 2, 2), EvalSubsets(20, 3),
    Allocation(("q", "k"), (2, 4, 8), costs=(((2, 4, 8), (2, 4, 8)),), budgets=(12.0,)),
]  # fmt: skip


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_parameters_are_named_apart_and_share_no_feature(space):
    found = parameters(space)
    rows = space.sample(np.random.default_rng(0), 50)
    columns = [column for each in found for column in each.columns]
    assert len(columns) == len(set(columns)) > 0
    assert len({each.name for each in found}) == len(found)
    assert max(columns) < space.features(rows).shape[1]


def test_one_parameter_moves_its_own_features_only():
    space = SPACES[0]
    assert [each.name for each in parameters(space)] == ["kind 0", "kind 1", "depth", "inner rate 0", "inner rate 1"]
    values = {"kind": ("a", "b"), "depth": 3, "inner": {"rate": (0.5, 0.5)}}
    changed = [{**values, "kind": ("b", "b")}, {**values, "kind": ("a", "a")}, {**values, "depth": 7},
               {**values, "inner": {"rate": (0.1, 0.5)}}, {**values, "inner": {"rate": (0.5, 0.1)}}]  # fmt: skip
    before, *after = space.features(space.encode([values, *changed]))
    for each, row in zip(parameters(space), after, strict=True):
        assert set(np.flatnonzero(row != before)) == set(each.columns)
