from __future__ import annotations

import itertools
import re

import numpy as np
import pytest
from scipy import stats

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys
from searchlib.spaces import Categorical


def test_a_single_choice_is_its_own_value_and_several_are_a_tuple():
    assert Categorical(("a", "b")).decode(np.array([1])) == "b"
    assert Categorical(("a", "b"), 2).decode(np.array([1, 0])) == ("b", "a")


def test_size_is_the_number_of_words():
    space = Categorical(("a", "b", "c"), 4)
    assert len(set(row_keys(space.encode(list(itertools.product("abc", repeat=4)))))) == space.size == 81


def test_a_mutated_gene_takes_every_other_choice_equally_often():
    space = Categorical(tuple("abcde"))
    children = space.mutate(np.random.default_rng(0), np.full((8000, 1), 2, np.int16))
    seen = np.bincount(children[:, 0], minlength=5)
    assert seen[2] == 0
    assert stats.chisquare(seen[[0, 1, 3, 4]]).pvalue > 1e-3


def test_many_choices_fit_the_array_type():
    space = Categorical(tuple(range(40_000)))
    assert space.dtype == np.int32
    assert space.decode(space.encode([39_999])[0]) == 39_999


def test_features_are_one_hot_and_the_largest_score_wins():
    space = Categorical(("a", "b", "c"))
    assert space.features(space.encode(["b"])).tolist() == [[0, 1, 0]]
    assert space.from_latent(np.array([[0.0, -1.0, 0.5]])).tolist() == [[2]]


@pytest.mark.parametrize(
    ("choices", "offender"),
    [
        ("euler", "choices='euler'"),
        (5, "choices=5"),
        (None, "choices=None"),
        ({"a"}, "choices={'a'}"),
        ((), "choices=()"),
        (("a", "a"), "choices=('a', 'a')"),
        ((1, True), "choices=(1, True)"),
        ((1, [2]), "one is [2]"),
        ((1, float("nan")), "one is nan"),
    ],
)
def test_choices_that_cannot_be_meant_are_printed(choices, offender):
    with pytest.raises(InvalidSettings, match=re.escape(offender)):
        Categorical(choices)


@pytest.mark.parametrize("value", ["c", None, ("a",), ["a"], 0])
def test_a_value_that_is_no_choice_is_named(value):
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[0] = {value!r} does not lie in Categorical(")):
        Categorical(("a", "b")).encode([value])
