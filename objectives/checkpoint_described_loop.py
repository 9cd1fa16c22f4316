"""The evolutionary search of LCSC as its paper describes it: a baseline, kept faithful to that.

Source: arXiv 2404.02241, Algorithm 1. The repository, imagination-research/LCSC at 34ead5b, has samplers, metrics and
configurations, but **the search itself was never released**: there is no code to compare with. From the paper are the
archive of everything evaluated, the parents (its best members), the first candidates (exponential averages at several
rates), crossover of two parents, and Gaussian noise on coefficients that then sum to one again. Rates, sizes and the
number of parents are not in the paper; those here did well on a small diffusion model, where the loop was ahead of
every moving average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms import Algorithm
from searchlib.algorithms.algorithm import Batch, Evidence, Problem, Run
from searchlib.algorithms.archive import Archive
from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import Population, distinct
from searchlib.spaces import CheckpointCoefficients

__all__ = ["DescribedLoop"]

#: A sum of coefficients this close to zero is not divided by: coefficients would be thousands.
_LEAST_SUM = 0.1


@final
@dataclass(frozen=True, kw_only=True)
class DescribedLoop(Algorithm):
    """Evolution of checkpoint coefficients from exponential averages: the paper's own loop.

    Use it to compare with; :class:`~searchlib.GaussNewton` and :class:`~searchlib.CMAES` find better combinations with
    as many evaluations. It starts from its own exponential averages: seeds of the objective are not looked at.

    Arguments:
        parents: how many of the best candidates may become parents (the paper's M_CP).
        children: candidates of a generation (the paper's Iter).
        uniform_rate: probability of a child that takes every coefficient from either of two parents.
        average_rate: probability of a child that is the mean of two parents; any other child is a copy of one.
        element_rate: probability of a coefficient to move.
        scale: standard deviation of such a move. Afterwards coefficients are divided by their sum.
        decays: rates of the first candidates, per checkpoint: 0 is the last checkpoint, 1 the average of all.

    Raises:
        InvalidSettings: not such numbers.

    Example:
        >>> from searchlib import search
        >>> from searchlib.objectives import CheckpointCombination
        >>> result = search(CheckpointCombination.smoke(), DescribedLoop(), budget=60)
        >>> result.holdout.against("best EMA").difference < 0
        True
    """

    parents: int = 15
    children: int = 10
    uniform_rate: float = 0.3
    average_rate: float = 0.35
    element_rate: float = 0.15
    scale: float = 0.1
    decays: tuple[float, ...] = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0)

    def __post_init__(self) -> None:
        for name in ("parents", "children"):
            object.__setattr__(self, name, whole_number(f"DescribedLoop({name}=…)", getattr(self, name), 1))
        for name in ("uniform_rate", "average_rate", "element_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidSettings(f"DescribedLoop({name}=…) must be in [0, 1], but is {getattr(self, name)!r}")
        if self.uniform_rate + self.average_rate > 1:
            raise InvalidSettings(
                f"DescribedLoop: uniform_rate and average_rate are probabilities of one choice and must not exceed 1 "
                f"together, but are {self.uniform_rate!r} and {self.average_rate!r}"
            )
        if not 0 < self.scale < math.inf:
            raise InvalidSettings(f"DescribedLoop(scale=…) must be a positive number, but is {self.scale!r}")
        object.__setattr__(self, "decays", tuple(self.decays))
        if not self.decays or not all(0 <= decay <= 1 for decay in self.decays):
            raise InvalidSettings(f"DescribedLoop(decays=…) must be rates in [0, 1], but is {self.decays!r}")

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run.

        Raises:
            MissingOperator: the space is not one of checkpoint coefficients, or there are several objectives.
        """
        problem.require_one_objective(self)
        if not isinstance(problem.space, CheckpointCoefficients):
            raise MissingOperator(
                f"DescribedLoop starts from exponential averages of checkpoints, which {problem.space!r} does not "
                f"have; use it on CheckpointCoefficients, and Evolution() elsewhere"
            )
        return _DescribedRun(self, problem.space, rng)


@final
class _DescribedRun(Run):
    def __init__(self, settings: DescribedLoop, space: CheckpointCoefficients, rng: np.random.Generator) -> None:
        self._settings, self._space, self._rng = settings, space, rng
        self._archive = Archive(space, max(64, settings.parents))
        self._queue = distinct(space.canonical(np.stack([space.ema(decay) for decay in settings.decays])))
        self._asked = 0

    def ask(self, n: int) -> Batch:
        self._archive.settle()
        if not len(self._queue):
            self._queue = self._children()
        rows, self._queue = self._queue[:n], self._queue[n:]
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        self._archive.add(evidence)

    def recommend(self, n: int) -> Population:
        self._archive.settle()
        return self._archive.best(n)

    def _children(self) -> Population:
        settings, rng = self._settings, self._rng
        parents = self._archive.best(settings.parents)
        if not len(parents):  # nothing has succeeded yet
            return self._space.canonical(self._space.sample(rng, settings.children))
        first, second = parents[rng.integers(len(parents), size=(2, settings.children))]
        kind = rng.random((settings.children, 1))
        either = np.where(rng.random(first.shape) < 0.5, first, second)
        copied = np.where(kind < settings.uniform_rate + settings.average_rate, (first + second) / 2, first)
        crossed = np.where(kind < settings.uniform_rate, either, copied)
        moved = rng.random(crossed.shape) < settings.element_rate
        mutated = crossed + moved * rng.normal(0, settings.scale, crossed.shape)
        return self._space.canonical(self._space.repair(self._divided(mutated)))

    def _divided(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Every block divided by its sum; left as it is where that is nearly zero."""
        blocks = self._space.by_block(rows)
        sums = blocks.sum(axis=2, keepdims=True)
        return (blocks / np.where(np.abs(sums) < _LEAST_SUM, 1, sums)).reshape(rows.shape)
