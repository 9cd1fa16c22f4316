"""Random search: the baseline to beat, and the template to copy for an algorithm of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, set_generator
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.front import Front
from searchlib.arguments import check_field, whole_number
from searchlib.space import Population

__all__ = ["RandomSearch"]


@final
@dataclass(frozen=True)
class RandomSearch(Algorithm):
    """Draw candidates independently from the space's own distribution, after the objective's seeds.

    Bergstra and Bengio, *Random search for hyper-parameter optimization*, JMLR 13 (2012). Use it as a baseline;
    any algorithm that does not beat it has learned nothing.

    Arguments:
        archive: how many of the best candidates to remember for :meth:`Run.recommend`; with several objectives all
            that nothing dominates are.
    """

    archive: int = 64

    def __post_init__(self) -> None:
        check_field(self, "archive", whole_number, 1)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space."""
        several = problem.objectives > 1
        kept = Front(problem.space, problem.objectives) if several else Archive(problem.space, self.archive)
        return _RandomRun(problem, rng, kept)


@final
class _RandomRun(Run):
    def __init__(self, problem: Problem, rng: np.random.Generator, kept: Archive | Front) -> None:
        self._space, self._rng, self._kept = problem.space, rng, kept
        self._seeds, self._asked = problem.first_rows, 0

    def ask(self, n: int) -> Batch:
        self._kept.settle()  # else it would hold all that was ever told
        seeds = self._seeds[self._asked : self._asked + n]
        fresh = self._space.sample(self._rng, n - len(seeds))
        ids = np.arange(self._asked, self._asked + n)
        self._asked += n
        return Batch(ids, self._space.canonical(np.concatenate([seeds, fresh])))

    def tell(self, evidence: Evidence) -> None:
        self._kept.add(evidence)

    def state(self) -> Mapping[str, Any] | None:
        return {"generator": self._rng.bit_generator.state} if isinstance(self._kept, Archive) else None

    def restore(self, state: Mapping[str, Any], told: Evidence) -> None:
        set_generator(self._rng, state["generator"])
        self._kept.add(told)
        self._kept.settle()
        self._asked = len(told)

    def recommend(self, n: int) -> Population:
        self._kept.settle()
        return self._kept.best(n)
