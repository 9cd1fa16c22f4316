"""Every algorithm × every space it claims to work on."""

import pytest

from searchlib import (
    CMAES,
    Beam,
    Evolution,
    HingeRanker,
    Nevergrad,
    Pool,
    PredictorGuided,
    RandomSearch,
    ShrinkingPool,
    Stages,
)
from searchlib.spaces import (
    Affine,
    Binary,
    Categorical,
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
    Grouped(Subset(6, k=3), groups=3),
    Grouped(Product(mask=Binary(3), rate=Real(0.0, 1.0)), groups=2),
    ExpertSubsets(layers=4, experts=6, keep=3, groups=2),
    ExemplarSets(8, k=3, capacity=40),
]
MERGES = ExpertMerges(layers=4, experts=6, keep=3, groups=2)


@pytest.mark.parametrize("space", [*SPACES, MERGES], ids=repr)
@pytest.mark.parametrize(
    "algorithm",
    [
        RandomSearch(),
        Beam(width=3, expansion=2),
        Evolution(population=6, offspring=4),
        Evolution(population=5, offspring=1, crossover_rate=0.3, mutation_pool=Pool(margin=0.1)),
        PredictorGuided(population=4, stage=4, predicted=40, significance=1.0),
    ],
    ids=["random", "beam", "generational", "steady state", "guided"],
)
def test_the_contract_holds(algorithm, space):
    check_algorithm(algorithm, space)


@pytest.mark.parametrize("space", [Subset(10, k=4), Subset(40, k=1), EvalSubsets(30, keep=5)], ids=repr)
@pytest.mark.parametrize("samples", [5, 9])
def test_the_contract_holds_on_spaces_of_items(space, samples):
    schedule = (8, 6) if space.item_count == 10 else (20, 9)
    check_algorithm(ShrinkingPool(schedule=schedule, samples=samples, top=0.5), space)


@pytest.mark.parametrize("stages", [Stages(Evolution(population=4), Evolution(population=6)),
                                    Stages(RandomSearch(), Evolution(), first_evaluations=7)])  # fmt: skip
def test_the_contract_holds_across_a_hand_over(stages):
    check_algorithm(stages, MERGES, rounds=12)


@pytest.mark.parametrize("space", [Binary(12), Subset(10, k=4), Real(-1.0, 1.0, length=3), Simplex(4)], ids=repr)
@pytest.mark.parametrize("name", ["OnePlusOne", "CMA", "TwoPointsDE", "DiscreteOnePlusOne"])
def test_the_contract_holds_for_nevergrad(name, space):
    pytest.importorskip("nevergrad")
    check_algorithm(Nevergrad(name), space)


@pytest.mark.parametrize("space", [*SPACES, MERGES], ids=repr)
@pytest.mark.parametrize("algorithm", [CMAES(), CMAES(population=4, covariance="separable")], ids=["full", "separable"])
def test_the_contract_holds_for_cma_es(algorithm, space):
    pytest.importorskip("cma")
    check_algorithm(algorithm, space, rounds=12)


@pytest.mark.parametrize("space", [MERGES, Product(mask=Binary(6), rate=Real(0.0, 1.0))], ids=repr)
def test_the_contract_holds_for_neural_rankers(space):
    predictor = HingeRanker(members=2, steps=5)
    check_algorithm(PredictorGuided(population=4, stage=4, predicted=30, predictor=predictor), space, rounds=9)
