"""Every algorithm × every space it claims to work on."""

import pytest

from searchlib import Evolution, Nevergrad, Pool, RandomSearch, Stages
from searchlib.spaces import (
    Affine,
    Binary,
    Categorical,
    ExpertMerges,
    ExpertSubsets,
    Integer,
    Permutation,
    Product,
    Real,
    Simplex,
    Subset,
)
from searchlib.testing import check_algorithm

SPACES = [
    Binary(12),
    Subset(10, k=4),
    Categorical(("a", "b", "c"), length=5),
    Integer(0, 20, length=3),
    Real(-1.0, 1.0, length=3),
    Simplex(4),
    Affine(4),
    Permutation(6),
    Product(mask=Binary(6), rate=Real(0.0, 1.0)),
    ExpertSubsets(layers=4, experts=6, keep=3, groups=2),
]
MERGES = ExpertMerges(layers=4, experts=6, keep=3, groups=2)


@pytest.mark.parametrize("space", [*SPACES, MERGES], ids=repr)
@pytest.mark.parametrize(
    "algorithm",
    [
        RandomSearch(),
        Evolution(population=6, offspring=4),
        Evolution(population=5, offspring=1, crossover_rate=0.3, mutation_pool=Pool(margin=0.1)),
    ],
    ids=["random", "generational", "steady state"],
)
def test_the_contract_holds(algorithm, space):
    check_algorithm(algorithm, space)


@pytest.mark.parametrize("stages", [Stages(Evolution(population=4), Evolution(population=6)),
                                    Stages(RandomSearch(), Evolution(), first_evaluations=7)])  # fmt: skip
def test_the_contract_holds_across_a_hand_over(stages):
    check_algorithm(stages, MERGES, rounds=12)


@pytest.mark.parametrize("space", [Binary(12), Subset(10, k=4), Real(-1.0, 1.0, length=3), Simplex(4)], ids=repr)
@pytest.mark.parametrize("name", ["OnePlusOne", "CMA", "TwoPointsDE", "DiscreteOnePlusOne"])
def test_the_contract_holds_for_nevergrad(name, space):
    pytest.importorskip("nevergrad")
    check_algorithm(Nevergrad(name), space)
