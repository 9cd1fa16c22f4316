"""Algorithms: one file each, all with the same verbs (start, ask, tell, recommend)."""

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status
from searchlib.algorithms.archive import Archive, Pool
from searchlib.algorithms.beam import Beam
from searchlib.algorithms.evolution import Evolution
from searchlib.algorithms.nevergrad import Nevergrad
from searchlib.algorithms.random_search import RandomSearch
from searchlib.algorithms.shrinking_pool import ShrinkingPool, pool_schedule
from searchlib.algorithms.stages import Stages

__all__ = [
    "Algorithm",
    "Archive",
    "Batch",
    "Beam",
    "Evidence",
    "Evolution",
    "Nevergrad",
    "Pool",
    "Problem",
    "RandomSearch",
    "Run",
    "ShrinkingPool",
    "Stages",
    "Status",
    "pool_schedule",
]
