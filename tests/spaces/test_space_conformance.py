from __future__ import annotations

import numpy as np
import pytest

import searchlib.spaces
from searchlib.space import Space
from searchlib.spaces import (
    Affine,
    Allocation,
    AttentionConfigs,
    Binary,
    BitWidths,
    Categorical,
    CheckpointCoefficients,
    EvalSubsets,
    ExemplarSets,
    ExpertMerges,
    ExpertSubsets,
    Grouped,
    Integer,
    Permutation,
    Product,
    Real,
    Simplex,
    SizedTensor,
    SolverSchedules,
    Subset,
)
from searchlib.testing import check_space

SPACES = [
    Binary(1),
    Binary(6),
    Binary(256),
    Binary(15_000),
    Subset(1, 1),
    Subset(5, 0),
    Subset(5, 5),
    Subset(6, 5),
    Subset(8, 4),
    Subset(100, 70),
    Subset(5000, 50),
    EvalSubsets(1, 1),
    EvalSubsets(1, 3),
    EvalSubsets(3, 3),
    EvalSubsets(2, 5),
    EvalSubsets(5000, 50),
    ExemplarSets(1, 1),
    ExemplarSets(6, 3),
    ExemplarSets(4, 3, capacity=30),
    ExemplarSets(300, 8, capacity=1000),
    Categorical(("only",)),
    Categorical(("a", "b", None, 1.5)),
    Categorical((1, 2, 3), 3),
    Categorical((True, False), length=70),
    Integer(3, 3),
    Integer(-3, 9),
    Integer(1, 60, log=True),
    Integer(-(2**40), 2**40),
    Integer(1, 2**40, 3, log=True),
    Integer(0, 10**6, 4, scale=0.01),
    Real(2, 2),
    Real(0, 1),
    Real(-1e307, 1e307),
    Real(1.0, 1.0000000000000002),
    Real(1e-300, 1e300, log=True),
    Real(1e-8, 1, 5, log=True, scale=1),
    Simplex(1),
    Simplex(2),
    Simplex(50, scale=1),
    Affine(1),
    Affine(2),
    Affine(64, spread=2),
    CheckpointCoefficients(1),
    CheckpointCoefficients(1, 3),
    CheckpointCoefficients(2, scale=1),
    CheckpointCoefficients(41),
    CheckpointCoefficients(20, 4, smoothness=0, spread=0.5),
    CheckpointCoefficients(300, element_rate=1, mix_rate=1, smoothness=8),
    Permutation(1),
    Permutation(2),
    Permutation(4),
    Permutation(40),
    Product(a=Binary(3), b=Real(0.0, 1.0)),
    Product(a=Binary(2), b=Categorical(("x", "y")), c=Integer(0, 2)),
    Product({"learning rate": Real(1e-5, 1, log=True), "class": Subset(4, 2)}),
    Product(inner=Product(self=Binary(1), parts=Permutation(3))),
    Product(parts=Binary(2), fixed=Subset(3, 3)),
    Product(fixed=Subset(3, 3)),
    Product(model=ExpertMerges(4, 4, 2, 1), active=Integer(1, 2)),
    Product(depth=Integer(1, 4), layers=Grouped(Categorical(("a", "b")), 3)),
    Grouped(Binary(1), 1),
    Grouped(Binary(2), 3),
    Grouped(Subset(5, 0), 2),
    Grouped(Subset(3, 3), 4),
    Grouped(Subset(60, 4), 32),
    Grouped(Permutation(3), 2),
    Grouped(Integer(1, 2**40, log=True), 12),
    Grouped(Real(2, 2), 2),
    Grouped(Real(1e-8, 1, log=True), 3),
    Grouped(Simplex(4), 5),
    Grouped(Affine(3), 2),
    Grouped(Grouped(Binary(1), 2), 3),
    Grouped(Product(kept=Subset(4, 2), rate=Real(0, 1)), 3),
    Grouped(Product(a=Binary(2), b=Grouped(Categorical(("x", "y", "z")), 2)), 3),
    Grouped(EvalSubsets(3, 3), 2),
    Grouped(ExemplarSets(4, 3, capacity=30), 2),
    Grouped(ExpertSubsets(3, 3, 2, 2), 2),
    Grouped(ExpertMerges(4, 4, 2, 1), 2),
    ExpertSubsets(4, 4, 2, 1),
    ExpertSubsets(3, 3, 2, 2),
    ExpertSubsets(4, 4, 4, 2),
    ExpertSubsets(32, 8, 4, 4),
    ExpertSubsets(32, 8, 6, 32, row_rate=0.15),
    ExpertSubsets(24, 60, 15, 4, group_rate=1),
    ExpertMerges(4, 1, 1, 1),
    ExpertMerges(4, 2, 1, 2, normalize_rate=1),
    ExpertMerges(4, 4, 4, 2),
    ExpertMerges(32, 8, 4, 4),
    ExpertMerges(8, 8, 2, 8, element_rate=1, group_rate=1, parent_rate=0),
    SolverSchedules(5, 80.0, (0.002, 0.003)),
    AttentionConfigs(1, 1, ((8, 0),), lengths=(8,), density=1.0),
    AttentionConfigs(2, 4, ((0, 0.25), (8, 0), (0, 1)), lengths=(32, 64), sink=2, kv_groups=2),
    AttentionConfigs(3, 8, ((0, 0.25), (8, 0), (-8, 0.5), (0, 1)), lengths=(32, 64), max_rules_per_layer=2),
    AttentionConfigs(3, 8, ((0, 0.25), (8, 0), (0, 1)), lengths=(64,), density=None, same_per_layer=True),
    BitWidths((SizedTensor("a", "weight", rows=4, columns=64),), weight=(2, 4, 8), memory=300),
    Allocation(("only",), (None,)),
    Allocation(("a", "b"), (4, "full", True, 0.5), allowed=((True, False, True, True), (False, True, False, False))),
    Allocation(("q", "k", "v"), (2, 4, 8), (((2, 4, 8),) * 3,), (6.0,)),
    Allocation(("q", "k", "v"), (2, 4, 8), (((2, 4, 8),) * 3,), (14.0,)),
    Allocation(tuple("abcdefgh"), (1, 2, 3), (((1, 2, 3),) * 8, ((3, 2, 1),) * 8), (18.0, 15.0), None, (0, 1) * 4, 2),
    Allocation(tuple(map(str, range(60))), (2, 4, 8), (((2, 4, 8),) * 60, ((0.1, 0.3, 0.2),) * 60), (240, 12.0)),
]


@pytest.mark.parametrize("space", SPACES, ids=repr)
@pytest.mark.parametrize("seed", [0, 1])
def test_every_space_keeps_the_contract(space, seed):
    check_space(space, seed=seed)


def test_every_public_space_is_checked():
    public = {getattr(searchlib.spaces, name) for name in searchlib.spaces.__all__}
    spaces = {cls for cls in public if isinstance(cls, type) and issubclass(cls, Space)}
    assert {type(space) for space in SPACES} == spaces


def stale(self, rng, n):
    return np.random.default_rng().random((n, self.n)) < 0.5


def lazy(self, rng, population):
    return population.copy()


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
