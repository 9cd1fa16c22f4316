"""Bayesian optimization: a Gaussian process says where an improvement is to be expected, candidate by candidate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import threadpoolctl
from numpy.typing import NDArray
from scipy.special import ndtr

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, succeeded
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.matern_process import MaternProcess
from searchlib.algorithms.proposed import Proposed
from searchlib.arguments import check_field, whole_number
from searchlib.space import Population, distinct, row_keys

__all__ = ["BayesianOptimization"]

#: Rows that the search for the greatest expected improvement keeps between its rounds.
_KEPT = 20
#: Powers of ten of the steps in the relaxation, of which one is its natural step.
_STEPS = (-2.5, -0.2)


@final
@dataclass(frozen=True, kw_only=True)
class BayesianOptimization(Algorithm):
    """Evaluate where a Gaussian process expects the greatest improvement, and tell it what came out.

    For some dozens to about 150 evaluations that cost seconds or more, on any space: every candidate takes some 10 to
    30 ms of thinking, more the more there are. The process (:mod:`searchlib.algorithms.matern_process`) has a length
    for every feature of the space and is fitted anew for each candidate. The expected improvement (Jones, Schonlau and
    Welch, *Efficient global optimization of expensive black-box functions*, 1998, equation 15) is searched by an
    evolution with the space's own moves and with steps of all sizes in its relaxation. Without ``batch_size=…`` a
    search asks for one candidate at a time; of several, each counts for the next as if its expected value had come out.

    Where values are noisy, improvement is measured from the best mean, and candidates are recommended by their means.

    Arguments:
        initial: candidates of the first sample.
        rounds: generations of the search for the greatest expected improvement.
        width: candidates of each.
        most: candidates that the process learns from; beyond it the worst are left out.
        archive: how many of the best candidates to remember for :meth:`Run.recommend`.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Real
        >>> found = search(lambda x: (x - 0.3) ** 2, BayesianOptimization(), space=Real(-1.0, 1.0), budget=20)
        >>> round(found.best, 2)
        0.3
    """

    initial: int = 10
    rounds: int = 30
    width: int = 200
    most: int = 200
    archive: int = 64

    def __post_init__(self) -> None:
        for name, least in (("initial", 2), ("rounds", 0), ("width", 3), ("most", 2), ("archive", 1)):
            check_field(self, name, whole_number, least)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for one objective."""
        problem.require_one_objective(self)
        return _BayesianRun(self, problem, rng)


@final
class _BayesianRun(Run):
    at_once = 1

    def __init__(self, settings: BayesianOptimization, problem: Problem, rng: np.random.Generator) -> None:
        self._settings, self._space, self._rng = settings, problem.space, rng
        self._archive, self._proposed = Archive(problem.space, settings.archive), Proposed(problem.space)
        self._first = self._proposed.claim(problem.space.canonical(problem.first_rows))
        self._noisy = problem.noisy
        self._waiting: list[Evidence] = []
        self._rows: Population = problem.first_rows[:0]
        self._values: NDArray[np.float64] = np.empty(0)
        self._parameters: NDArray[np.float64] | None = None  # of the process before
        self._asked = 0

    def ask(self, n: int) -> Batch:
        self._settle()
        rows, self._first = self._first[:n], self._first[n:]
        if not len(rows) and self._enough():
            rows = self._improving(n)
        elif not len(rows):
            missing = max(1, self._settings.initial - self._asked)
            rows = self._proposed.samples(self._rng, min(n, missing))
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        self._proposed.note_strangers(evidence)
        self._archive.add(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        if not self._noisy or not self._enough():
            return self._archive.best(n)
        with threadpoolctl.threadpool_limits(1):
            means, _ = self._process(*self._learned()).predict(self._space.features(self._rows))
        return distinct(self._rows[np.argsort(means, kind="stable")])[:n]

    def _enough(self) -> bool:
        return len(self._values) >= self._settings.initial and bool(self._values.min() < self._values.max())

    def _settle(self) -> None:
        """Learn from what was told, in the order of ids, whatever order it came in."""
        self._archive.settle()
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        _, rows, values, _ = succeeded(waiting)
        self._rows = np.concatenate([self._rows, self._space.canonical(rows)])
        self._values = np.append(self._values, values)

    def _learned(self) -> tuple[Population, NDArray[np.float64]]:
        """The candidates that the process learns from."""
        best = np.sort(np.argsort(self._values, kind="stable")[: self._settings.most])
        return self._rows[best], self._values[best]

    def _process(self, rows: Population, values: NDArray[np.float64]) -> MaternProcess:
        return MaternProcess(self._space.features(rows), values, self._parameters)

    def _improving(self, n: int) -> Population:
        """Up to ``n`` new rows; fewer only where the space has no more."""
        (rows, values), found = self._learned(), self._rows[:0]
        with threadpoolctl.threadpool_limits(1):  # sums must not depend on the number of cores
            for _ in range(n):
                process = self._process(rows, values)
                self._parameters = process.parameters
                pick = self._proposed.claim(self._promising(process), 1)
                if not len(pick):
                    pick = self._proposed.samples(self._rng, 1)
                if not len(pick):
                    break
                found = np.concatenate([found, pick])
                if len(found) == n:
                    break
                expected = process.value(float(process.predict(self._space.features(pick))[0][0]))
                rows, values = np.concatenate([rows, pick]), np.append(values, expected)
        return found

    def _promising(self, process: MaternProcess) -> Population:
        """Rows that may improve most, best first, by an evolution of the expected improvement."""
        order = np.argsort(self._values, kind="stable")[:_KEPT]
        best = process.best
        if self._noisy:
            best = float(process.predict(self._space.features(self._rows[order]))[0].min())
        samples = self._space.canonical(self._space.sample(self._rng, self._settings.width))
        pool = distinct(np.concatenate([samples, self._rows[order]]))
        scores = self._improvement(process, best, pool)
        for _ in range(self._settings.rounds):
            kept = np.argsort(-scores, kind="stable")[:_KEPT]
            pool, scores = pool[kept], scores[kept]
            children = self._children(pool)
            known = set(row_keys(pool))
            children = children[[key not in known for key in row_keys(children)]]
            pool = np.concatenate([pool, children])
            scores = np.append(scores, self._improvement(process, best, children))
        return pool[np.argsort(-scores, kind="stable")]

    def _children(self, pool: Population) -> Population:
        """A third by mutation, a third by crossover, a third by steps of all sizes in the relaxation."""
        rng, space, third = self._rng, self._space, self._settings.width // 3
        parents = pool[rng.integers(len(pool), size=3 * third)]
        mutated = space.mutate(rng, parents[:third])
        crossed = space.crossover(rng, parents[third : 2 * third], pool[rng.integers(len(pool), size=third)])
        latent = space.to_latent(parents[2 * third :])
        size = 10.0 ** rng.uniform(*_STEPS, size=(third, 1))
        share = rng.choice([1.0, 0.3, 1 / max(1, space.latent_dimension)], size=(third, 1))
        steps = size * (rng.random(latent.shape) < share) * rng.standard_normal(latent.shape)
        return distinct(space.canonical(np.concatenate([mutated, crossed, space.from_latent(latent + steps)])))

    def _improvement(self, process: MaternProcess, best: float, rows: Population) -> NDArray[np.float64]:
        """The logarithm of the expected improvement over ``best``."""
        if not len(rows):
            return np.empty(0)
        mean, deviation = process.predict(self._space.features(rows))
        return np.log(deviation) + _log_improvement((best - mean) / deviation)


def _log_improvement(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of φ(z) + zΦ(z), also where that is too small a number: there it falls as φ(z) / z²."""
    near = np.maximum(z, -6.0)
    density = np.exp(-0.5 * near**2) / math.sqrt(2 * math.pi)
    far = np.minimum(z, -6.0)
    # Continued from the last number that is exact.
    tail = -0.5 * (far**2 - 36.0) - 2 * np.log(-far / 6.0)
    return np.asarray(np.log(density + near * ndtr(near)) + tail)
