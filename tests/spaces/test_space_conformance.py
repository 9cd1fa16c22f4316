from __future__ import annotations

import importlib

import numpy as np
import pytest

import searchlib.spaces
from searchlib.space import Space
from searchlib.spaces import Binary
from searchlib.testing import check_space

# Not by an import statement: the type checker knows the files of tests by their names alone.
SPACES = importlib.import_module("tests.spaces.every_space").SPACES


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_space_keeps_the_contract(space, seed):
    check_space(space, seed=seed, symmetric="OneOf" not in repr(space))


def test_every_public_space_is_checked():
    public = {getattr(searchlib.spaces, name) for name in searchlib.spaces.__all__}
    spaces = {cls for cls in public if isinstance(cls, type) and issubclass(cls, Space)}
    assert {type(space) for space in SPACES} == spaces


def stale(self, rng, n):
    return np.random.default_rng().random((n, self.n)) < 0.5


def lazy(self, rng, population):
    return population.copy()


def next_number(self, row):
    number = row @ [8, 4, 2, 1] + 1
    return (number >> np.arange(3, -1, -1))[None] % 2 == 1


BREAKAGES = {
    "must depend on nothing but its arguments": ("sample", stale),
    "reach only 1 candidates": ("sample", lambda self, rng, n: np.zeros((n, self.n), np.bool_)),
    "left a row as it was": ("mutate", lazy),
    "must return shape": ("mutate", lambda self, rng, x: x[:-1].copy()),
    "mutate .* must return bool": ("mutate", lambda self, rng, x: x.astype(np.int8)),
    "must return a new array": ("canonical", lambda self, x: x),
    "child of twins": ("crossover", lambda self, rng, a, b: ~b),
    "repair .* must leave its own rows": ("repair", lambda self, x: np.zeros(x.shape, np.bool_)),
    "for NaN": ("contains", lambda self, x: np.ones(len(x), np.bool_)),
    "refuse an object": ("encode", lambda self, values: np.array([v for v in values if v != 0], bool).reshape(-1, 4)),
    "encode of decoded rows": ("decode", lambda self, row: tuple(1 - row.astype(int))),
    "features .* finite": ("features", lambda self, x: np.full((len(x), 2), np.inf)),
    "zero exactly between": ("distance", lambda self, a, b: np.zeros(len(a))),
    "symmetric": ("distance", lambda self, a, b: (a.sum(1) > b.sum(1)) + (a != b).sum(1).astype(float)),
    "must list all of it, but lists 2": ("_every_row", lambda self, limit: np.eye(4, dtype=bool)[:2]),
    "enumerate.* must be distinct": ("_every_row", lambda self, limit: np.zeros((16, 4), bool)),
    "neighbors .* must be bool rows": ("_near", lambda self, row: row[None].astype(int)),
    "is its own neighbor": ("_near", lambda self, row: row[None].copy()),
    "must be neighbors both ways": ("_near", next_number),
    "reach 2 of 16 candidates": ("_near", lambda self, row: ~row[None]),
    "back to the same candidates": ("to_latent", lambda self, x: np.zeros(x.shape)),
}


@pytest.mark.parametrize("sentence", BREAKAGES)
def test_a_broken_operator_is_told_in_a_sentence(sentence, monkeypatch):
    name, broken = BREAKAGES[sentence]
    monkeypatch.setattr(Binary, name, broken)
    with pytest.raises(AssertionError, match=sentence):
        check_space(Binary(4))


def test_an_operator_that_writes_into_its_input_is_noticed(monkeypatch):
    def mutate(self, rng, population):
        population[:] = ~population
        return population.copy()

    monkeypatch.setattr(Binary, "mutate", mutate)
    with pytest.raises(AssertionError, match=r"mutate of .* must not write into the arrays it is given"):
        check_space(Binary(4))


def test_a_part_that_is_fixed_is_seen_but_not_searched():
    from searchlib import search
    from searchlib.errors import InvalidCandidate
    from searchlib.spaces import Categorical, Fixed, Integer, Product

    space = Product(kind=Fixed.at(Categorical(("a", "b")), "b"), number=Integer(0, 30))
    seen = []
    result = search(lambda v: seen.append(v["kind"]) or (v["number"] - 7) ** 2, space=space, budget=31)
    assert result.best == {"kind": "b", "number": 7}
    assert set(seen) == {"b"}
    with pytest.raises(InvalidCandidate, match=r"'kind': 'a', 'number': 3} does not lie in Product\(kind=Fixed"):
        space.encode([{"kind": "a", "number": 3}])
