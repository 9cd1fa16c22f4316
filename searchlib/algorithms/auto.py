"""The algorithm that chooses an algorithm, and says why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run
from searchlib.algorithms.local_search import LocalSearch
from searchlib.space import Population

__all__ = ["Auto", "Chosen"]


class Chosen(NamedTuple):
    """An algorithm, and the sentence that says why."""

    algorithm: Algorithm
    because: str


@final
@dataclass(frozen=True)
class Auto(Algorithm):
    """stub"""

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        return LocalSearch().start(problem, rng)
