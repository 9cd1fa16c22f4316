from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys
from searchlib.spaces import Integer


def test_both_bounds_are_included_and_all_numbers_are_equally_likely():
    seen = np.bincount(Integer(2, 9).sample(np.random.default_rng(0), 8000)[:, 0])
    assert seen[:2].sum() == 0
    assert stats.chisquare(seen[2:]).pvalue > 1e-3


def test_a_logarithmic_sample_is_uniform_over_the_logarithm():
    seen = np.bincount(Integer(1, 8, log=True).sample(np.random.default_rng(0), 8000)[:, 0])[1:]
    edges = np.log(np.arange(1, 10) - 0.5)
    assert stats.chisquare(seen, 8000 * np.diff(edges) / (edges[-1] - edges[0])).pvalue > 1e-3


def test_size_is_the_number_of_values():
    space = Integer(-2, 3, length=2)
    values = [(i, j) for i in range(-2, 4) for j in range(-2, 4)]
    assert len(set(row_keys(space.encode(values)))) == space.size == 36


def test_a_step_is_two_sided_geometric_and_never_zero():
    space = Integer(-1000, 1000, scale=0.002)
    step = space.mutate(np.random.default_rng(0), np.zeros((20_000, 1), np.int64))[:, 0]
    assert (step != 0).all()
    assert stats.binomtest(int((step > 0).sum()), len(step)).pvalue > 1e-3
    far = np.abs(step)[np.abs(step) > 1]
    ratio = np.exp(-1 / (0.002 * 2001))  # of the tails of neighboring sizes, for an exponential step of that mean
    law = stats.geom(1 - ratio, loc=1)
    bins = np.bincount(np.minimum(far, 15))[2:]
    assert stats.chisquare(bins, len(far) * np.append(law.pmf(np.arange(2, 15)), law.sf(14))).pvalue > 1e-3


def test_steps_are_reflected_at_the_bounds():
    space = Integer(0, 10, scale=1)
    children = space.mutate(np.random.default_rng(0), np.full((5000, 1), 10, np.int64))
    assert children.min() >= 0
    assert children.max() == 9
    assert (children <= 5).mean() > 0.3


def test_a_logarithmic_step_is_relative():
    space = Integer(1, 10**6, log=True)
    small, large = (
        np.abs(space.mutate(np.random.default_rng(0), np.full((2000, 1), x, np.int64)) - x) for x in (100, 100_000)
    )
    assert np.median(large) / np.median(small) == pytest.approx(1000, rel=0.3)


def test_the_latent_line_covers_the_range_evenly():
    space = Integer(0, 3)
    seen = np.bincount(space.from_latent(np.arange(-2, 2, 0.001, dtype=np.float64)[:, None])[:, 0])
    assert seen.tolist() == pytest.approx([1000] * 4, abs=2)


@pytest.mark.parametrize(
    ("settings", "offender"),
    [
        ({"low": 3, "high": 2}, "`low <= high` must hold, but got (low=3, high=2)"),
        ({"low": 0, "high": 2, "log": True}, "`low >= 1` must hold with log=True, but got (low=0, high=2)"),
        ({"low": 0.5, "high": 2}, "low=0.5"),
        ({"low": False, "high": 2}, "low=False"),
        ({"low": 0, "high": float("nan")}, "high=nan"),
        ({"low": 0, "high": 2**60}, f"high={2**60}"),
        ({"low": 0, "high": 2, "length": 0}, "length=0"),
        ({"low": 0, "high": 2, "scale": 0}, "scale=0"),
        ({"low": 1, "high": 2, "log": 1}, "log=1"),
    ],
)
def test_settings_that_cannot_be_meant_are_printed(settings, offender):
    with pytest.raises(InvalidSettings, match=re.escape(offender)):
        Integer(**settings)


@pytest.mark.parametrize("value", [11, -1, 2.5, "3", (3,), None, float("nan")])
def test_a_value_out_of_range_is_named(value):
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[0] = {value!r} does not lie in Integer(low=0")):
        Integer(0, 10).encode([value])
