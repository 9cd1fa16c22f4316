"""A short search for every algorithm on every kind of space, as a digest of its history.

``python -m tests.faults.every_search [part]`` prints them, so that processes that were started differently can be
compared.
"""

import json
import sys
import warnings

import numpy as np

from searchlib import (
    CMAES,
    NSGA2,
    NSGA3,
    Auto,
    BayesianOptimization,
    Beam,
    Cases,
    CatCMAwM,
    EstimationOfDistribution,
    Evolution,
    EvolutionStrategy,
    GaussianProcess,
    GaussNewton,
    HingeRanker,
    LocalSearch,
    Nevergrad,
    Objective,
    OnePlusOneES,
    Portfolio,
    PredictorGuided,
    ProbedAllocation,
    QuasiRandom,
    RandomSearch,
    ScikitPredictor,
    ShrinkingPool,
    Split,
    Stages,
    search,
)
from searchlib.errors import InvalidSettings, MissingOperator
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
    Monotone,
    Multiset,
    OneOf,
    Permutation,
    PolicyParameters,
    Product,
    Real,
    Simplex,
    SizedTensor,
    SolverSchedules,
    Subset,
)

__all__ = ["ALGORITHMS", "SPACES", "digest", "digests", "pairs"]

ALGORITHMS = {
    "Auto": Auto(),
    "BayesianOptimization": BayesianOptimization(initial=4, rounds=2, width=24),
    "Beam": Beam(width=3, expansion=2),
    "CMAES": CMAES(),
    "CMAES, separable": CMAES(population=4, covariance="separable"),
    "CatCMAwM": CatCMAwM(),
    "EstimationOfDistribution": EstimationOfDistribution(population=8),
    "EstimationOfDistribution, pairwise": EstimationOfDistribution(population=8, pairwise=True),
    "Evolution": Evolution(population=6, offspring=4),
    "Evolution, steady state": Evolution(population=5, offspring=1, crossover_rate=0.3),
    "EvolutionStrategy": EvolutionStrategy(population=6),
    "GaussNewton": GaussNewton(),
    "LocalSearch": LocalSearch(),
    "NSGA2": NSGA2(population=8),
    "NSGA3": NSGA3(population=8, divisions=3),
    "Nevergrad": Nevergrad("TwoPointsDE"),
    "OnePlusOneES": OnePlusOneES(),
    "Portfolio": Portfolio((RandomSearch(), Evolution(population=4))),
    "PredictorGuided": PredictorGuided(population=4, stage=4, predicted=40, significance=1.0),
    "PredictorGuided by a network": PredictorGuided(
        population=4, stage=4, predicted=30, predictor=HingeRanker(members=2, steps=5)
    ),
    "PredictorGuided by a process": PredictorGuided(population=4, stage=4, predicted=30, predictor=GaussianProcess()),
    "PredictorGuided by trees": PredictorGuided(population=4, stage=4, predicted=30, predictor=ScikitPredictor()),
    "ProbedAllocation": ProbedAllocation(),
    "QuasiRandom": QuasiRandom(),
    "RandomSearch": RandomSearch(),
    "ShrinkingPool": ShrinkingPool(schedule=(8, 6), samples=5, top=0.5),
    "Stages": Stages(Evolution(population=4), Evolution(population=6)),
}

TENSORS = tuple(SizedTensor(name, "weight", rows=4, columns=64) for name in "abcd")

SPACES = {
    type(space).__name__ + suffix: space
    for suffix, space in (
        ("", Affine(4)),
        ("", Allocation(tuple("abcdefgh"), (1, 2, 3), (((1, 2, 3),) * 8,), (18.0,))),
        ("", AttentionConfigs(2, 4, ((0, 0.25), (8, 0), (0, 1)), lengths=(32, 64), sink=2, kv_groups=2)),
        ("", Binary(12)),
        ("", BitWidths(TENSORS, weight=(2, 4, 8), memory=700)),
        ("", Categorical(("a", "b", "c"), length=5)),
        ("", CheckpointCoefficients(6)),
        ("", EvalSubsets(30, keep=5)),
        ("", ExemplarSets(8, k=3, capacity=40)),
        ("", ExpertMerges(layers=4, experts=6, keep=3, groups=2)),
        ("", ExpertSubsets(layers=4, experts=6, keep=3, groups=2)),
        ("", Grouped(Subset(6, k=3), groups=3)),
        (" of products", Grouped(Product(mask=Binary(3), rate=Real(0.0, 1.0)), groups=2)),
        ("", Integer(0, 20, length=3)),
        ("", Monotone(5, 0.0, 1.0)),
        ("", Multiset(Subset(20, 4), 3)),
        ("", OneOf(a=Real(0, 1, 3), b=Categorical(("x", "y")))),
        ("", Permutation(6)),
        ("", PolicyParameters(9)),
        ("", Product(mask=Binary(6), rate=Real(0.0, 1.0))),
        ("", Real(-1.0, 1.0, length=3)),
        ("", Simplex(4)),
        ("", SolverSchedules(5, 80.0, (0.002, 0.003))),
        ("", Subset(10, k=4)),
    )
}  # fmt: skip

#: Algorithms for several objectives, and for observations of which the slope is known.
SEVERAL, SLOPED = ("NSGA2", "NSGA3"), ("GaussNewton",)


#: Where an algorithm is not for all spaces, one that it is for.
CHOSEN = {
    "CatCMAwM": "Product", "EstimationOfDistribution": "Binary", "EstimationOfDistribution, pairwise": "Categorical",
    "ProbedAllocation": "Allocation", "ShrinkingPool": "Subset", "Stages": "ExpertMerges",
}  # fmt: skip


class Distance(Objective):
    """Squared distance of the features from a hidden target, by case; one candidate in eight raises."""

    chunk_rows = 2

    def __init__(self, space, kind):
        self.space, self.kind = space, kind
        self.direction = ("minimize", "maximize") if kind in SEVERAL else "minimize"
        self.differentiable = self.additive = kind in SLOPED

    def cases(self, split):
        return Cases.of([1.0, 2.0, 3.0]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates, cases):
        if any(row.tobytes()[0] % 8 == 5 for row in candidates.array) and self.kind not in SLOPED:
            raise ValueError("this candidate always fails")
        features = self.space.features(candidates.array)
        target = self.space.features(self.space.canonical(self.space.sample(np.random.default_rng(2), 1)))
        distances = ((features - target) ** 2 @ np.random.default_rng(3).random(features.shape[1]))[:, None]
        scores = distances * np.array(cases.payload)
        return np.stack([scores, np.sin(9 * scores)], axis=2) if self.kind in SEVERAL else scores

    def aggregate(self, scores):
        return scores.reshape(*scores.shape[:2], -1).mean(axis=1)

    def slope(self, scores):
        return float(scores.mean()), np.full(scores.shape, 1 / scores.size)

    def fingerprint(self):
        return {"objective": "distance", "kind": self.kind}


def digest(algorithm, space, workers=1, **settings):
    """Of one search; None where the algorithm is not for this space."""
    objective = Distance(SPACES[space], algorithm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that are asked for little
        try:
            result = search(
                objective, ALGORITHMS[algorithm], budget=20, seed=7, batch_size=5, max_failures=10**6, workers=workers,
                **settings,
            )  # fmt: skip
        except (InvalidSettings, MissingOperator):
            return None
    row = b"" if result.row is None else result.row.tobytes()
    return f"{result.history.digest} {len(result.history)} {row.hex()[:64]} {result.outcome.name}"


def pairs(part=""):
    """Every algorithm with every space; of the part ``"some"`` each at least once."""
    for number, algorithm in enumerate(ALGORITHMS):
        for space in SPACES:
            chosen = CHOSEN.get(algorithm, list(SPACES)[number % len(SPACES)])
            if part != "some" or space == chosen or algorithm == "RandomSearch":
                yield algorithm, space


def digests(part="", workers=1, **settings):
    """Digests by algorithm and space, as far as they fit together."""
    found = {f"{algorithm} on {space}": digest(algorithm, space, workers, **settings)
             for algorithm, space in pairs(part)}  # fmt: skip
    return {pair: told for pair, told in found.items() if told is not None}


if __name__ == "__main__":
    print(json.dumps(digests(*sys.argv[1:2])))
