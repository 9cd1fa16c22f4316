from __future__ import annotations

import re

import numpy as np
import pytest
from scipy import optimize, stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.spaces import Simplex


def test_samples_have_the_moments_and_marginals_of_a_flat_dirichlet():
    rows = Simplex(5).sample(np.random.default_rng(0), 20_000)
    law = stats.dirichlet([1] * 5)
    assert rows.mean(axis=0) == pytest.approx(law.mean(), abs=0.005)
    assert rows.var(axis=0) == pytest.approx(law.var(), rel=0.05)
    assert stats.kstest(rows[:, 2], stats.beta(1, 4).cdf).pvalue > 1e-3


def test_repair_is_the_nearest_point_of_the_simplex():
    space = Simplex(4)
    for point in np.random.default_rng(0).standard_normal((10, 4)) * 2:
        nearest = optimize.minimize(
            lambda x, point=point: ((x - point) ** 2).sum(),
            np.full(4, 0.25),
            jac=lambda x, point=point: 2 * (x - point),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda x: x.sum() - 1},
            tol=1e-12,
        )
        assert space.repair(point[None])[0] == pytest.approx(nearest.x, abs=1e-5)


def test_a_mutation_moves_a_share_from_one_gene_to_another():
    space = Simplex(6)
    parents = space.sample(np.random.default_rng(0), 2000)
    change = space.mutate(np.random.default_rng(1), parents) - parents
    assert ((change < 0).sum(axis=1) == 1).all()
    assert ((change > 0).sum(axis=1) == 1).all()


def test_a_corner_is_left_and_reached_again():
    space = Simplex(3, scale=1)
    corner = np.tile([0.0, 1.0, 0.0], (500, 1))
    moved = space.mutate(np.random.default_rng(0), corner)
    assert (moved[:, 1] < 1).all()
    assert (moved == 1).any()


def test_ten_thousand_mutations_in_a_row_stay_on_the_simplex():
    space = Simplex(5)
    rows = space.sample(np.random.default_rng(0), 2)
    rng = np.random.default_rng(1)
    for _ in range(10_000):
        rows = space.mutate(rng, rows)
    assert space.contains(rows).all()


@pytest.mark.parametrize(
    ("settings", "offender"), [({"n": 0}, "n=0"), ({"n": 3, "scale": 2}, "scale=2"), ({"n": True}, "n=True")]
)
def test_settings_that_cannot_be_meant_are_printed(settings, offender):
    with pytest.raises(InvalidSettings, match=offender):
        Simplex(**settings)


@pytest.mark.parametrize("value", [(0.5, 0.6), (1.5, -0.5), (1.0,), (float("nan"), 1.0), "ab"])
def test_a_value_that_is_no_share_is_named(value):
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[0] = {value!r} does not lie in Simplex(n=2")):
        Simplex(2).encode([value])
