"""The (1+1) evolution strategy."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib import OnePlusOneES, search
from searchlib.errors import InvalidSettings
from searchlib.spaces import Binary, Product, Real, Simplex, Subset
from searchlib.testing import check_algorithm


@pytest.mark.parametrize(
    "space",
    [Real(-1, 1, length=4), Simplex(5), Binary(8), Subset(8, k=3), Product(a=Real(0, 1), b=Binary(3))],
    ids=repr,
)
def test_the_contract_holds(space):
    check_algorithm(OnePlusOneES(), space)


def sphere(center):
    return lambda x: float(np.square(np.asarray(x) - center).sum())


def test_it_converges_as_fast_as_theory_says():
    """On a sphere the logarithm of the distance falls by about 0.2 / d per evaluation (Beyer, 2001, section 3.3)."""
    d, evaluations = 30, 3000
    center = np.linspace(-0.5, 0.5, d)
    start = sphere(center)(np.zeros(d))
    rates = []
    for seed in range(3):
        found = search(
            sphere(center), OnePlusOneES(), space=Real(-2, 2, length=d), budget=evaluations, batch_size=1, seed=seed
        )
        rates.append(-0.5 * np.log(found.value / start) * d / evaluations)
    assert 0.12 < np.mean(rates) < 0.25


def test_it_starts_at_the_middle_or_at_the_best_seed():
    space = Real(-1, 1, length=3)
    middle = search(sphere(0.0), OnePlusOneES(), space=space, budget=1)
    assert middle.best == (0.0, 0.0, 0.0)
    near = (0.9, 0.9, 0.9)
    seeded = search(sphere(0.9), OnePlusOneES(sigma=1e-3), space=space, budget=40, seeds=[(-0.9, 0.0, 0.0), near])
    assert seeded.best == near


def test_failures_are_no_parents():
    def fragile(x):
        if x[0] > 0.05:
            raise ValueError("outside")
        return -x[0]

    result = search(fragile, OnePlusOneES(), space=Real(-1, 1, length=2), budget=120, max_failures=100)
    assert 0 < result.history.failures < 100
    assert 0.0 < result.best[0] <= 0.05


@pytest.mark.parametrize("settings", [{"sigma": 0.0}, {"rate": -1.0}, {"archive": 0}])
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(InvalidSettings, match=next(iter(settings))):
        OnePlusOneES(**settings)
