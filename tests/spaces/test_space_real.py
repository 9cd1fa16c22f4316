from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import Real


def test_samples_are_uniform_between_the_bounds():
    rows = Real(-1, 3, length=4).sample(np.random.default_rng(0), 2000)
    assert stats.kstest(rows.ravel(), stats.uniform(-1, 4).cdf).pvalue > 1e-3


def test_logarithmic_samples_are_log_uniform():
    rows = Real(1e-5, 10, log=True).sample(np.random.default_rng(0), 5000)
    assert stats.kstest(rows.ravel(), stats.loguniform(1e-5, 10).cdf).pvalue > 1e-3


def test_a_step_is_gaussian_with_the_given_scale():
    children = Real(-10, 10, scale=0.05).mutate(np.random.default_rng(0), np.zeros((5000, 1)))
    assert stats.kstest(children.ravel(), stats.norm(0, 1).cdf).pvalue > 1e-3


def test_steps_are_reflected_at_the_bounds():
    children = Real(0, 1, scale=0.1).mutate(np.random.default_rng(0), np.zeros((5000, 1)))
    assert stats.kstest(children.ravel(), stats.halfnorm(0, 0.1).cdf).pvalue > 1e-3
    assert (children > 0).all()


def test_only_the_genes_that_were_hit_change_and_the_others_not_by_a_bit():
    space = Real(1e-3, 1e3, length=10, log=True)
    parents = space.sample(np.random.default_rng(0), 5000)
    changed = space.mutate(np.random.default_rng(1), parents) != parents
    assert changed.mean() == pytest.approx(0.1 / (1 - 0.9**10), rel=0.03)


def test_a_step_below_the_resolution_of_floats_still_changes_the_candidate():
    space = Real(1.0, 1.0 + 2**-52)
    parents = np.array([[1.0], [1.0 + 2**-52]])
    assert space.mutate(np.random.default_rng(0), parents).tolist() == parents[::-1].tolist()


def test_negative_zero_is_zero():
    space = Real(-1, 1)
    assert not np.signbit(space.canonical(np.array([[-0.0]]))).any()


def test_zero_is_the_middle_of_the_relaxation():
    assert Real(0, 10).from_latent(np.array([[0.0], [1.0], [-50.0]])).ravel().tolist() == [5, 7.5, 0]
    assert Real(1, 100, log=True).from_latent(np.zeros((1, 1)))[0, 0] == pytest.approx(10)


@pytest.mark.parametrize(
    ("settings", "offender"),
    [
        ({"low": 3, "high": 2}, "but got (low=3.0, high=2.0)"),
        ({"low": -1.5e308, "high": 1.5e308}, "but got (low=-1.5e+308, high=1.5e+308)"),
        ({"low": 0, "high": 2, "log": True}, "`low > 0` must hold with log=True, but got (low=0.0, high=2.0)"),
        ({"low": float("nan"), "high": 2}, "low=nan"),
        ({"low": 0, "high": float("inf")}, "high=inf"),
        ({"low": "0", "high": 1}, "low='0'"),
        ({"low": True, "high": 1}, "low=True"),
        ({"low": None, "high": 1}, "low=None"),
        ({"low": 0, "high": 1, "scale": 1.5}, "scale=1.5"),
        ({"low": 0, "high": 1, "scale": -0.5}, "scale=-0.5"),
    ],
)
def test_settings_that_cannot_be_meant_are_printed(settings, offender):
    with pytest.raises(InvalidSettings, match=re.escape(offender)):
        Real(**settings)


@pytest.mark.parametrize("value", [1.5, float("nan"), "0.5", (0.5,), None])
def test_a_value_out_of_range_is_named(value):
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[0] = {value!r} does not lie in Real(low=0.0")):
        Real(0, 1).encode([value])
