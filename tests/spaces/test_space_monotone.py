import itertools
import json
import math
import re

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys, space_from_json
from searchlib.spaces import Monotone

STEPS = Monotone(3, 0, 5, whole=True, gap=2)


def test_whole_numbers_are_counted_as_combinations():
    assert Monotone(8, 1, 32, whole=True, gap=1).size == math.comb(32, 8)
    assert Monotone(8, 1, 32, whole=True).size == math.comb(32 + 7, 8)
    assert STEPS.size == sum(
        b - a >= 2 and c - b >= 2 for a, b, c in itertools.product(range(6), repeat=3)
    )  # fmt: skip
    assert Monotone(2, 0.0, 1.0).size == math.inf


@pytest.mark.parametrize("gap", [0, 1])
def test_samples_of_whole_numbers_are_uniform_over_the_space(gap):
    space = Monotone(3, 0, 4, whole=True, gap=gap)
    rows = space.sample(np.random.default_rng(0), 7000)
    counts = np.unique(row_keys(rows), return_counts=True)[1]
    assert len(counts) == space.size
    assert stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("gap", [0.0, 0.2])
def test_samples_of_real_numbers_are_ordered_uniform_ones_a_gap_apart(gap):
    rows = Monotone(4, 0, 1, gap=gap).sample(np.random.default_rng(0), 3000)
    room = 1 - 3 * gap
    for place in range(4):
        # The order statistics of uniform numbers have beta distributions.
        points = (rows[:, place] - place * gap) / room
        assert stats.kstest(points, stats.beta(place + 1, 4 - place).cdf).pvalue > 0.001


def test_gaps_are_kept_by_every_operator_and_on_a_logarithmic_scale_they_are_ratios():
    space = Monotone(18, 0.002, 80.0, gap=math.log(1.2), log=True, descending=True)
    rng = np.random.default_rng(0)
    rows = space.sample(rng, 2000)
    crossed = space.crossover(rng, rows, rows[::-1])
    for made in (rows, space.mutate(rng, rows), crossed, space.from_latent(rng.standard_normal((2000, 18)))):
        assert (made[:, :-1] / made[:, 1:] >= 1.2 - 1e-6).all()
        assert (made <= 80).all()
        assert (made >= 0.002).all()


def test_a_thousand_mutations_in_a_row_do_not_wear_the_gaps_down():
    space = Monotone(6, 0.0, 1.0, gap=0.19, scale=1)
    rng = np.random.default_rng(0)
    rows = space.sample(rng, 50)
    for _ in range(1000):
        rows = space.mutate(rng, rows)
    assert np.diff(rows, axis=1).min() >= 0.19 - 1e-9
    assert rows.std() > 0.1


def test_a_mutation_moves_one_point_on_average_and_leaves_the_others():
    space = Monotone(50, 0.0, 1.0, scale=1e-4)
    rng = np.random.default_rng(0)
    rows = space.sample(rng, 4000)
    changed = (space.mutate(rng, rows) != rows).sum(axis=1)
    assert changed.min() == 1
    assert changed.mean() == pytest.approx(1 / (1 - (1 - 1 / 50) ** 50), abs=0.05)


def test_a_child_has_at_every_place_a_number_between_those_of_its_parents():
    space = Monotone(12, 0.0, 1.0)
    rng = np.random.default_rng(0)
    first, second = space.sample(rng, 500), space.sample(rng, 500)
    child = space.crossover(rng, first, second)
    assert (child >= np.minimum(first, second)).all()
    assert (child <= np.maximum(first, second)).all()
    assert ((child != first).any(axis=1) & (child != second).any(axis=1)).mean() > 0.9


def test_repair_sorts_and_spreads():
    assert STEPS.repair(np.array([[5, 5, 5], [9, -3, 0.4], [1, 2, 3]])).tolist() == [[1, 3, 5], [0, 2, 5], [1, 3, 5]]
    down = Monotone(3, 0, 5, whole=True, gap=2, descending=True)
    assert down.repair(np.array([[0, 0, 0]])).tolist() == [[4, 2, 0]]


def test_latent_zero_is_an_even_schedule():
    assert Monotone(4, 0.0, 1.0).from_latent(np.zeros((1, 4))).tolist() == [[0.125, 0.375, 0.625, 0.875]]
    log = Monotone(3, 1.0, 1000.0, log=True, descending=True).from_latent(np.zeros((1, 3)))[0]
    assert log[:-1] / log[1:] == pytest.approx([10, 10])


def test_a_value_is_a_tuple_of_numbers_in_their_order():
    assert STEPS.decode(STEPS.encode([(0, 2, 5)])[0]) == (0, 2, 5)
    with pytest.raises(InvalidCandidate, match=re.escape("(0, 1, 5) does not lie in Monotone(")):
        STEPS.encode([(0, 1, 5)])
    with pytest.raises(InvalidCandidate):
        Monotone(2, 0.0, 1.0, descending=True).encode([(0.1, 0.2)])


def test_json_rebuilds_the_space():
    for space in (STEPS, Monotone(4, 0.1, 3.0, gap=0.01, log=True, descending=True)):
        assert space_from_json(json.loads(json.dumps(space.to_json()))) == space


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"length": 0}, "length"),
        ({"low": 2.0}, "`low <= high`"),
        ({"gap": 0.6}, "apart take 1.2"),
        ({"gap": 1e-9}, "gap must be 0, or at least"),
        ({"gap": -0.1}, "gap must be 0"),
        ({"log": True}, "`low > 0`"),
        ({"low": 1, "high": 9, "whole": True, "log": True}, "real numbers"),
        ({"whole": True, "high": 1.5}, "high must be a whole number"),
        ({"whole": True, "high": 2, "gap": 2}, "apart take 4"),
        ({"scale": 0}, "scale"),
        ({"descending": 1}, "descending"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, says):
    with pytest.raises(InvalidSettings, match=re.escape(says)):
        Monotone(**{"length": 3, "low": 0, "high": 1} | settings)
