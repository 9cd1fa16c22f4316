"""NSGA-II: survival by rank, then by crowding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Problem, Run
from searchlib.algorithms.front_evolution import FrontRun, Survival, default_population
from searchlib.arguments import check_field, real_number, whole_number
from searchlib.pareto import crowding

__all__ = ["NSGA2"]


@final
@dataclass(frozen=True, kw_only=True)
class NSGA2(Algorithm):
    """A front of two or three objectives by nondominated sorting and crowding.

    Deb, Pratap, Agarwal and Meyarivan, *A fast and elitist multiobjective genetic algorithm: NSGA-II*, IEEE
    Transactions on Evolutionary Computation 6(2), 2002: parents and children compete; whole fronts survive as long as
    they fit, of the last one those with the most distant neighbors. A tournament is won by the candidate that dominates
    the other, else by the one with more distant neighbors (as in pymoo; the paper compares ranks first, which reaches
    the ends of a front later). The operators are the space's own, so it works on every space; survivors are chosen
    after every batch, of whatever size; the front that it recommends is that of everything told. For four objectives
    and more, prefer :class:`NSGA3`.

    Arguments:
        population: how many survive; by default a tenth of the budget, from 20 to 100.
        crossover_rate: share of children that are crossed, in [0, 1].
        mutation_rate: share of crossed children that are also mutated; the others always are. The default is how many
            change where every gene does with probability 1/n, as usual: 1 - 1/e.

    Example:
        >>> from searchlib import NSGA2, search
        >>> from searchlib.spaces import Subset
        >>> two = lambda kept: (sum(kept), -min(kept))
        >>> result = search(two, NSGA2(), space=Subset(8, k=2), direction=("minimize", "minimize"), budget=28)
        >>> len(result.front), result.front[0].artifact
        (7, (0, 1))
    """

    population: int | None = None
    crossover_rate: float = 0.9
    mutation_rate: float = 0.63

    def __post_init__(self) -> None:
        check_field(self, "population", whole_number, 2, 10**6, optional=True)
        check_field(self, "crossover_rate", real_number, "[0, 1]")
        check_field(self, "mutation_rate", real_number, "[0, 1]")

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for any number of objectives."""
        size = self.population or default_population(problem)
        return FrontRun(problem, rng, _RankAndCrowding(), size, self.crossover_rate, self.mutation_rate)


@final
class _RankAndCrowding(Survival):
    def survive(
        self, values: NDArray[np.float64], ranks: NDArray[np.int64], n: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        distance = crowding(values, ranks)
        order = np.lexsort((np.arange(len(values)), -distance, ranks))[:n]
        return order, distance[order]
