"""Algorithms: one file each, all with the same verbs (start, ask, tell, recommend)."""

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status
from searchlib.algorithms.archive import Archive, Pool
from searchlib.algorithms.beam import Beam
from searchlib.algorithms.cma_es import CMAES
from searchlib.algorithms.evolution import Evolution
from searchlib.algorithms.gauss_newton import GaussNewton
from searchlib.algorithms.gaussian_process import GaussianProcess
from searchlib.algorithms.nevergrad import Nevergrad
from searchlib.algorithms.predictor import FittedPredictor, Predictor
from searchlib.algorithms.predictor_guided import PredictorGuided
from searchlib.algorithms.random_search import RandomSearch
from searchlib.algorithms.ranking import HingeRanker
from searchlib.algorithms.scikit_predictor import ScikitPredictor
from searchlib.algorithms.shrinking_pool import ShrinkingPool, pool_schedule
from searchlib.algorithms.stages import Stages

__all__ = [
    "CMAES",
    "Algorithm",
    "Archive",
    "Batch",
    "Beam",
    "Evidence",
    "Evolution",
    "FittedPredictor",
    "GaussNewton",
    "GaussianProcess",
    "HingeRanker",
    "Nevergrad",
    "Pool",
    "Predictor",
    "PredictorGuided",
    "Problem",
    "RandomSearch",
    "Run",
    "ScikitPredictor",
    "ShrinkingPool",
    "Stages",
    "Status",
    "pool_schedule",
]
