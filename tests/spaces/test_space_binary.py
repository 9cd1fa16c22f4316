from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys
from searchlib.spaces import Binary


def test_size_is_the_number_of_masks():
    space = Binary(7)
    masks = list(itertools.product([0, 1], repeat=7))
    assert len(set(row_keys(space.encode(masks)))) == space.size == 128


def test_a_mutation_flips_each_bit_with_probability_one_over_n_and_at_least_one():
    n, rows = 20, 20_000
    parents = Binary(n).sample(np.random.default_rng(0), rows)
    flips = Binary(n).mutate(np.random.default_rng(1), parents) ^ parents
    law = stats.binom(n, 1 / n)
    count = np.bincount(np.minimum(flips.sum(axis=1), 5), minlength=6)
    expected = rows * np.array([*law.pmf([1, 2, 3, 4]), law.sf(4)]) / law.sf(0)
    assert count[0] == 0
    assert stats.chisquare(count[1:], expected).pvalue > 1e-3
    assert stats.chisquare(flips.sum(axis=0)).pvalue > 1e-3


def test_a_child_takes_each_bit_from_either_parent_equally_often():
    rng = np.random.default_rng(0)
    first, second = np.zeros((500, 64), np.bool_), np.ones((500, 64), np.bool_)
    child = Binary(64).crossover(rng, first, second)
    assert stats.binomtest(int(child.sum()), child.size).pvalue > 1e-3


@pytest.mark.parametrize("n", [0, -1, 2.0, True, "8", None])
def test_a_number_of_bits_that_cannot_be_meant_is_printed(n):
    with pytest.raises(InvalidSettings, match=f"n={n!r}"):
        Binary(n)


def test_numpy_integers_become_plain_ones():
    four: Any = np.int64(4)
    assert repr(Binary(four)) == "Binary(n=4)"


@pytest.mark.parametrize("value", [(0, 1), (0, 1, 2), "010", (0, 1, None), 7, (0.5, 1, 0), ((0, 1), 1, 1)])
def test_a_value_that_is_no_mask_is_named(value):
    with pytest.raises(InvalidCandidate) as error:
        Binary(3).encode([(0, 0, 0), value])
    assert f"values[1] = {value!r} does not lie in Binary(n=3)" in str(error.value)
