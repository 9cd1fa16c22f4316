"""The algorithm that chooses an algorithm, and says why."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run
from searchlib.algorithms.cma_es import CMAES
from searchlib.algorithms.estimation_of_distribution import EstimationOfDistribution
from searchlib.algorithms.evolution import Evolution
from searchlib.algorithms.evolution_strategy import EvolutionStrategy
from searchlib.algorithms.local_search import LocalSearch
from searchlib.algorithms.mixed_cma import CatCMAwM
from searchlib.algorithms.mixed_genes import MixedGenes
from searchlib.algorithms.one_plus_one_es import OnePlusOneES
from searchlib.algorithms.portfolio import Portfolio
from searchlib.algorithms.predictor_guided import PredictorGuided
from searchlib.algorithms.probed_allocation import ProbedAllocation
from searchlib.allocation_space import AllocationSpace
from searchlib.errors import MissingOperator
from searchlib.space import Population, Space, WeightSpace

__all__ = ["Auto", "Chosen"]

#: More evaluations than this, and a predictor that is trained at every stage takes longer than it is worth.
_MANY = 1500
#: As many evaluations as cheap objectives have, where the search itself must be cheap.
_CHEAP = 20_000
#: So few evaluations of real genes that a predictor must be asked often, and that only a large generation beats noise.
_FEW = 150
#: Batches larger than this are most of so few evaluations, unless the algorithm asks for less.
_SMALL = 12
#: From so many on, noise is averaged by generations better than by a predictor.
_AVERAGED = 600
#: More features than this, and a Gaussian process of so few evaluations learns nothing.
_WIDE = 512
#: Reals of the relaxation above which no covariance can be learned from so few evaluations.
_TALL = 200
#: Algorithms that take turns learn from every answer: they should be asked so often at least.
_ROUNDS = 25
#: Evaluations assumed where another limit stops the search.
_UNKNOWN = 300


class Chosen(NamedTuple):
    """An algorithm, and the sentence that says why."""

    algorithm: Algorithm
    because: str


@final
@dataclass(frozen=True)
class Auto(Algorithm):
    """Chooses by the space, the number of evaluations, the noise and the number of objectives.

    The default of a search whose objective recommends nothing. Its rules come from the training problems of
    ``python -m benchmarks engine`` (docs/engine.md); ``result.notes`` says which was taken: ``chosen``, the algorithm,
    and ``because``, the rule. Where the search has no ``batch_size=…``, algorithms that take turns are asked for a
    twenty-fifth of the evaluations at once.

    =============================================== =============================================================
    problem                                         algorithm
    =============================================== =============================================================
    several objectives                              :class:`~searchlib.NSGA2`; from four on :class:`~searchlib.NSGA3`
    options of parts under budgets                  :class:`~searchlib.ProbedAllocation`
    noise, and genes that are on or off, or options :class:`~searchlib.EstimationOfDistribution` (its linear model)
    the weights of a policy (``WeightSpace``)       :class:`~searchlib.EvolutionStrategy`
    very many reals                                 :class:`~searchlib.OnePlusOneES`
    reals                                           :class:`~searchlib.CMAES` and
                                                    :class:`~searchlib.PredictorGuided`, taking turns; where there are
                                                    very few evaluations :class:`~searchlib.BayesianOptimization` in
                                                    its place (the predictor alone, in short stages, where batches
                                                    are large); CMAES alone where there are many, and, in
                                                    large generations, where they are noisy and either very few or
                                                    more than some hundreds
    reals among choices                             both of these and :class:`~searchlib.LocalSearch`, taking turns;
                                                    :class:`~searchlib.CatCMAwM` alone where there are many evaluations
    choices, and tens of thousands of evaluations   :class:`~searchlib.Evolution`
    anything else                                   :class:`~searchlib.LocalSearch` and
                                                    :class:`~searchlib.PredictorGuided`, taking turns; without the
                                                    predictor where there are many evaluations or features
    =============================================== =============================================================

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Subset
        >>> result = search(sum, Auto(), space=Subset(40, k=4), budget=120, direction="maximize")
        >>> result.best, result.notes["because"]
        ((36, 37, 38, 39), 'choices without reals: local moves and a predictor learn from each other')
    """

    def choose(self, problem: Problem) -> Chosen:
        """What would search this problem, and why."""
        space, evaluations = problem.space, problem.evaluations or _UNKNOWN
        if not problem.batch_given:
            problem = replace(problem, batch_size=min(problem.batch_size, _at_once(evaluations)))
        if problem.objectives > 1:
            return _for_several(problem.objectives)
        if isinstance(space, AllocationSpace) and len(space.budgets_array):
            return Chosen(
                ProbedAllocation(),
                "options under budgets: probe the parts, solve the sum exactly, search what it misses",
            )
        if isinstance(space, WeightSpace):
            return Chosen(EvolutionStrategy(), "the weights of a policy: a center follows the ranks of its members")
        if problem.noisy and (learned := _learns_marginals(problem)):
            return Chosen(learned, "noise on choices: a linear model of all values averages over it")
        if evaluations > _CHEAP and not math.isinf(space.size):
            return Chosen(Evolution(), "so many evaluations of choices: an evolution costs next to nothing for each")
        if math.isinf(space.size):
            return _with_reals(space, evaluations, problem)
        return _without_reals(space, evaluations)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run of the chosen algorithm; works on every space."""
        chosen = self.choose(problem)
        taking_turns = isinstance(chosen.algorithm, Portfolio)
        at_once = _at_once(problem.evaluations or _UNKNOWN) if taking_turns else None
        return _AutoRun(chosen, chosen.algorithm.start(problem, rng), at_once)


@final
class _AutoRun(Run):
    """The chosen run, which also says that it was chosen."""

    def __init__(self, chosen: Chosen, run: Run, at_once: int | None) -> None:
        self._chosen, self._run, self.at_once = chosen, run, at_once if at_once is not None else run.at_once

    def ask(self, n: int) -> Batch:
        return self._run.ask(n)

    def tell(self, evidence: Evidence) -> None:
        self._run.tell(evidence)

    def recommend(self, n: int) -> Population:
        return self._run.recommend(n)

    def state(self) -> Mapping[str, Any] | None:
        return self._run.state()

    def restore(self, state: Mapping[str, Any], told: Evidence) -> None:
        self._run.restore(state, told)

    def notes(self) -> Mapping[str, Any]:
        return {"chosen": repr(self._chosen.algorithm), "because": self._chosen.because, **self._run.notes()}


def _at_once(evaluations: int) -> int:
    return max(1, evaluations // _ROUNDS)


def _for_several(objectives: int) -> Chosen:
    from searchlib.algorithms.nsga2 import NSGA2
    from searchlib.algorithms.nsga3 import NSGA3

    if objectives <= 3:
        return Chosen(NSGA2(), "two or three objectives: nondominated sorting and crowding")
    return Chosen(NSGA3(), "four objectives or more: nondominated sorting and reference directions")


def _learns_marginals(problem: Problem) -> Algorithm | None:
    """The estimation of distribution, where the space suits it."""
    algorithm = EstimationOfDistribution()
    try:
        algorithm.start(problem, np.random.default_rng(0))
    except MissingOperator:
        return None
    return algorithm


def _with_reals(space: Space, evaluations: int, problem: Problem) -> Chosen:
    if space.latent_dimension > _TALL and evaluations < 20 * space.latent_dimension:
        return Chosen(OnePlusOneES(), "more reals than a covariance can be learned for: one parent, steps by success")
    if importlib.util.find_spec("cma") is None:
        return _without_reals(space, evaluations, "reals, but pycma is not installed (pip install 'searchlib[cma]')")
    if not _only_reals(space):
        return _mixed(space, evaluations, problem.noisy)
    if problem.noisy and not _FEW < evaluations <= _AVERAGED:
        population = 24 if evaluations <= _FEW else 64
        return Chosen(CMAES(population=population), "noisy reals: the mean of large generations averages over it")
    if evaluations > _MANY:
        return Chosen(CMAES(), "reals and many evaluations: a covariance is learned")
    if evaluations <= _FEW and problem.batch_size > _SMALL:
        return Chosen(
            PredictorGuided(stage=6, significance=1.0),
            "reals, very few evaluations, large batches: a predictor that is trusted at once asks for small ones",
        )
    if evaluations <= _FEW:
        return Chosen(
            Portfolio((CMAES(), _bayesian())),
            "reals and very few evaluations: a covariance and a Gaussian process learn from each other",
        )
    return Chosen(
        Portfolio((CMAES(), PredictorGuided(population=12))),
        "reals and few evaluations: a covariance and a predictor learn from each other",
    )


def _mixed(space: Space, evaluations: int, noisy: bool) -> Chosen:
    """Reals among choices."""
    if evaluations > _MANY:
        return _mixed_and_many(space)
    if evaluations <= _FEW and not noisy:
        return Chosen(
            Portfolio((CMAES(), _bayesian(), LocalSearch())),
            "reals among choices, very few evaluations: a covariance, a Gaussian process and local moves learn from "
            "each other",
        )
    return Chosen(
        Portfolio((CMAES(), PredictorGuided(population=12), LocalSearch())),
        "reals among choices: a covariance, a predictor and local moves learn from each other",
    )


def _bayesian() -> Algorithm:
    from searchlib.algorithms.bayesian_optimization import BayesianOptimization  # scipy takes a tenth of a second

    return BayesianOptimization()


def _mixed_and_many(space: Space) -> Chosen:
    reason = "reals among choices and many evaluations"
    try:
        MixedGenes(space, "Auto")
    except MissingOperator:
        return Chosen(LocalSearch(), f"{reason}: local moves, screened by a linear model")
    if importlib.util.find_spec("cmaes") is None:
        return Chosen(
            LocalSearch(), f"{reason}, but cmaes is not installed (pip install 'searchlib[cma]'): local moves"
        )
    return Chosen(CatCMAwM(), f"{reason}: a covariance with margin and the odds of the options are learned")


def _only_reals(space: Space) -> bool:
    """Whether every gene is real, as far as samples show: hardly any two of them share a value."""
    rows = space.sample(np.random.default_rng(0), 64)
    return bool((np.array([len(np.unique(column)) for column in rows.T]) > 32).all())


def _without_reals(space: Space, evaluations: int, because: str = "choices without reals") -> Chosen:
    width = space.features(space.sample(np.random.default_rng(0), 1)).shape[1]
    if evaluations > _MANY or width > _WIDE:
        reason = "many evaluations" if evaluations > _MANY else "very many features"
        return Chosen(LocalSearch(), f"{because}, {reason}: local moves, screened by a linear model")
    return Chosen(
        Portfolio((LocalSearch(), PredictorGuided(population=12))),
        f"{because}: local moves and a predictor learn from each other",
    )
