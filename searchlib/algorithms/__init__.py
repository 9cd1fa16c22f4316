"""Algorithms: one file each, all with the same verbs (start, ask, tell, recommend); each is loaded when first used."""

from typing import TYPE_CHECKING

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status
from searchlib.lazy import lazy_names

if TYPE_CHECKING:
    from searchlib.algorithms.archive import Archive, Pool
    from searchlib.algorithms.auto import Auto
    from searchlib.algorithms.bayesian_optimization import BayesianOptimization
    from searchlib.algorithms.beam import Beam
    from searchlib.algorithms.cma_es import CMAES
    from searchlib.algorithms.estimation_of_distribution import EstimationOfDistribution
    from searchlib.algorithms.evolution import Evolution
    from searchlib.algorithms.evolution_strategy import EvolutionStrategy
    from searchlib.algorithms.exact_allocation import ExactAllocation
    from searchlib.algorithms.gauss_newton import GaussNewton
    from searchlib.algorithms.gaussian_process import GaussianProcess
    from searchlib.algorithms.local_search import LocalSearch
    from searchlib.algorithms.mixed_cma import CatCMAwM
    from searchlib.algorithms.nevergrad import Nevergrad
    from searchlib.algorithms.nsga2 import NSGA2
    from searchlib.algorithms.nsga3 import NSGA3
    from searchlib.algorithms.one_at_a_time import OneAtATime
    from searchlib.algorithms.one_plus_one_es import OnePlusOneES
    from searchlib.algorithms.portfolio import Portfolio
    from searchlib.algorithms.predictor import FittedPredictor, Predictor
    from searchlib.algorithms.predictor_guided import PredictorGuided
    from searchlib.algorithms.probed_allocation import ProbedAllocation
    from searchlib.algorithms.quasi_random import QuasiRandom
    from searchlib.algorithms.random_search import RandomSearch
    from searchlib.algorithms.ranking import HingeRanker
    from searchlib.algorithms.scikit_predictor import ScikitPredictor
    from searchlib.algorithms.shrinking_pool import ShrinkingPool, pool_schedule
    from searchlib.algorithms.stages import Stages

__all__ = [
    "CMAES",
    "NSGA2",
    "NSGA3",
    "Algorithm",
    "Archive",
    "Auto",
    "Batch",
    "BayesianOptimization",
    "Beam",
    "CatCMAwM",
    "EstimationOfDistribution",
    "Evidence",
    "Evolution",
    "EvolutionStrategy",
    "ExactAllocation",
    "FittedPredictor",
    "GaussNewton",
    "GaussianProcess",
    "HingeRanker",
    "LocalSearch",
    "Nevergrad",
    "OneAtATime",
    "OnePlusOneES",
    "Pool",
    "Portfolio",
    "Predictor",
    "PredictorGuided",
    "ProbedAllocation",
    "Problem",
    "QuasiRandom",
    "RandomSearch",
    "Run",
    "ScikitPredictor",
    "ShrinkingPool",
    "Stages",
    "Status",
    "pool_schedule",
]

#: Where each name lives, in this package.
_HOMES = {
    "Archive": "archive",
    "Auto": "auto",
    "BayesianOptimization": "bayesian_optimization",
    "Beam": "beam",
    "CMAES": "cma_es",
    "CatCMAwM": "mixed_cma",
    "EstimationOfDistribution": "estimation_of_distribution",
    "Evolution": "evolution",
    "EvolutionStrategy": "evolution_strategy",
    "ExactAllocation": "exact_allocation",
    "FittedPredictor": "predictor",
    "GaussNewton": "gauss_newton",
    "GaussianProcess": "gaussian_process",
    "HingeRanker": "ranking",
    "LocalSearch": "local_search",
    "NSGA2": "nsga2",
    "NSGA3": "nsga3",
    "Nevergrad": "nevergrad",
    "OneAtATime": "one_at_a_time",
    "OnePlusOneES": "one_plus_one_es",
    "Pool": "archive",
    "Portfolio": "portfolio",
    "Predictor": "predictor",
    "PredictorGuided": "predictor_guided",
    "ProbedAllocation": "probed_allocation",
    "QuasiRandom": "quasi_random",
    "RandomSearch": "random_search",
    "ScikitPredictor": "scikit_predictor",
    "ShrinkingPool": "shrinking_pool",
    "Stages": "stages",
    "pool_schedule": "shrinking_pool",
}

__getattr__ = lazy_names(__name__, {name: f"{__name__}.{module}" for name, module in _HOMES.items()})


def __dir__() -> list[str]:
    return __all__
