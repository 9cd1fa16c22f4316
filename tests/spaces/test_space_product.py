from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import row_keys, space_from_json
from searchlib.spaces import Binary, Categorical, Integer, Permutation, Product, Real, Subset

MIXED = Product(mask=Binary(3), steps=Integer(5, 50), solver=Categorical(("euler", "heun")))


def test_repr_reads_like_the_constructor():
    assert repr(Product(a=Binary(3), b=Binary(2))) == "Product(a=Binary(n=3), b=Binary(n=2))"
    assert repr(Product({"learning rate": Binary(3)})) == "Product({'learning rate': Binary(n=3)})"


def test_a_value_is_a_dict_of_values_in_any_order():
    rows = MIXED.encode([{"solver": "heun", "mask": (1, 0, 0), "steps": 7}])
    assert rows.tolist() == [[1, 0, 0, 7, 1]]
    assert MIXED.decode(rows[0]) == {"mask": (1, 0, 0), "steps": 7, "solver": "heun"}


def test_one_real_part_makes_the_array_real():
    assert MIXED.dtype == np.int64
    assert Product(mask=Binary(3), rate=Real(0, 1)).dtype == np.float64


def test_size_is_the_number_of_combinations():
    space = Product(a=Binary(2), b=Permutation(3), c=Subset(4, 2))
    parts = (itertools.product([0, 1], repeat=2), itertools.permutations(range(3)), itertools.combinations(range(4), 2))
    values = [dict(zip("abc", value, strict=True)) for value in itertools.product(*parts)]
    assert len(set(row_keys(space.encode(values)))) == space.size == 144


def test_size_is_infinite_where_a_part_is_however_large_the_others_are():
    assert Product(a=Binary(5000), b=Real(0, 1)).size == np.inf


def test_each_part_that_can_change_mutates_with_probability_one_over_their_number():
    space = Product(a=Binary(4), fixed=Subset(3, 3), b=Real(0, 1), c=Permutation(5))
    parents = space.sample(np.random.default_rng(0), 6000)
    changed = space.mutate(np.random.default_rng(1), parents) != parents
    parts = np.array([changed[:, :4].any(1), changed[:, 4:7].any(1), changed[:, 7:8].any(1), changed[:, 8:].any(1)])
    expected = (1 / 3) / (1 - (2 / 3) ** 3)
    assert parts.mean(axis=1) == pytest.approx([expected, 0, expected, expected], abs=0.02)
    assert parts.any(axis=0).all()


def test_json_keeps_the_order_of_the_parts():
    space = Product(z=Binary(1), a=Binary(2))
    assert space_from_json(space.to_json()) == space != Product(a=Binary(2), z=Binary(1))


def test_a_space_is_a_key():
    assert {MIXED: 1}[Product(mask=Binary(3), steps=Integer(5, 50), solver=Categorical(("euler", "heun")))] == 1


@pytest.mark.parametrize(
    ("parts", "offender"),
    [
        ((), "but got ()"),
        ((("a", 3),), "'a': 3"),
        (((1, Binary(2)),), "1: Binary(n=2)"),
        ((("a", Binary(1)), ("a", Binary(2))), "['a', 'a']"),
        (7, "7"),
        ((Binary(2),), "(Binary(n=2),)"),
    ],
)
def test_parts_that_cannot_be_meant_are_printed(parts, offender):
    with pytest.raises(InvalidSettings, match=re.escape(offender)):
        Product(parts)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"mask": (1, 0, 0)}, "exactly the names ['mask', 'steps', 'solver']"),
        ({"mask": (1, 0, 0), "steps": 4, "solver": "heun"}, "values[0] = 4 does not lie in Integer(low=5"),
        (7, "exactly the names"),
    ],
)
def test_a_value_that_does_not_belong_is_named_with_the_part_that_refuses_it(value, reason):
    with pytest.raises(InvalidCandidate, match=re.escape(f"values[0] = {value!r} does not lie in Product(")) as error:
        MIXED.encode([value])
    assert reason in str(error.value.__cause__)
