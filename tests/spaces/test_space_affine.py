from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import Affine


def test_samples_are_a_gaussian_on_the_plane_around_equal_weights():
    rows = Affine(8, spread=0.5).sample(np.random.default_rng(0), 5000)
    sd = 0.5 * np.sqrt(1 - 1 / 8)  # of one coordinate after projection
    assert stats.kstest(rows[:, 3], stats.norm(1 / 8, sd).cdf).pvalue > 1e-3
    assert (rows < 0).any()


def test_the_default_spread_is_an_equal_weight():
    assert Affine(50).sample(np.random.default_rng(0), 5000).std() == pytest.approx(1 / 50, rel=0.03)


def test_repair_is_the_orthogonal_projection():
    points = np.random.default_rng(0).standard_normal((20, 6))
    normal = points - Affine(6).repair(points)
    assert normal == pytest.approx(np.repeat(normal[:, :1], 6, axis=1))


def test_ten_thousand_mutations_in_a_row_still_sum_to_one():
    space = Affine(5, spread=1)
    rows = space.sample(np.random.default_rng(0), 2)
    rng = np.random.default_rng(1)
    for _ in range(10_000):
        rows = space.mutate(rng, rows)
    assert rows.sum(axis=1) == pytest.approx(1, abs=1e-12)


def test_huge_numbers_are_shrunk_towards_equal_weights():
    repaired = Affine(3).repair(np.array([[1e300, 0.0, -1e300]]))
    assert repaired.sum() == pytest.approx(1, abs=1e-9)
    assert repaired[0, 0] > 100 > repaired[0, 1] > -100 > repaired[0, 2]


@pytest.mark.parametrize(
    ("settings", "offender"),
    [({"n": 0}, "n=0"), ({"n": 3, "spread": 0}, "spread=0"), ({"n": 3, "spread": float("nan")}, "spread=nan")],
)
def test_settings_that_cannot_be_meant_are_printed(settings, offender):
    with pytest.raises(InvalidSettings, match=offender):
        Affine(**settings)


@pytest.mark.parametrize("value", [(0.5, 0.6), (1.0,), (float("inf"), -float("inf")), (1e6, 1 - 1e6)])
def test_a_value_that_does_not_sum_to_one_or_is_out_of_bounds_is_named(value):
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[0] = {value!r} does not lie in Affine(n=2")):
        Affine(2).encode([value])
