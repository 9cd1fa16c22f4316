"""Covariance matrix adaptation (pycma) on any of our spaces."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status, in_order
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.quiet import quiet
from searchlib.arguments import check_field, one_of, real_number, whole_number
from searchlib.errors import MissingDependency
from searchlib.space import Population, Space, distinct, row_keys

__all__ = ["CMAES"]

_MEANS = ("best", "middle")
_COVARIANCES = ("auto", "full", "separable")
#: Latent coordinates beyond which "auto" adapts variances only: a full matrix then learns for thousands of evaluations.
_SEPARABLE_ABOVE = 200


@final
@dataclass(frozen=True)
class CMAES(Algorithm):
    """CMA-ES on the space's real relaxation; hands over the mean of its distribution, then the best seen.

    Hansen and Ostermeier, *Completely derandomized self-adaptation in evolution strategies*, Evolutionary Computation
    9(2), 2001, as implemented in pycma; separable where the relaxation is wide (Ros and Hansen, PPSN 2008). A descent
    that has converged is followed by another from a fresh sample with twice the population (Auger and Hansen,
    *A restart CMA evolution strategy with increasing population size*, CEC 2005).

    The seeds are evaluated first. :meth:`Run.recommend` puts the distribution's mean first: where values are noisy, or
    the SEARCH cases are few, the best candidate seen is the luckiest one, while the mean has averaged over many; the
    search compares both on the SELECT cases. Best for reals (checkpoint weights, coefficients); where genes are
    choices without an order, prefer :class:`Evolution`. Its state cannot be exported: a study resumes by replay.

    Arguments:
        sigma: first standard deviation, in units of the relaxation (``Space.from_latent``; 1 is a natural step).
        population: candidates of a generation, at least 4; pycma's default 4 + 3 ln(latent dimension) where None.
        mean: where the first descent starts: ``"best"``, at the best of the seeds and of what else it was told by
            then, or ``"middle"``, in the middle of the relaxation. Without seeds it starts there anyway.
        covariance: ``"full"``, ``"separable"`` (variances only), or ``"auto"``: separable above 200 latent dimensions.
        archive: how many of the best candidates to remember for :meth:`Run.recommend`.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Real
        >>> bowl = lambda x: sum((xi - 0.3) ** 2 for xi in x)
        >>> search(bowl, CMAES(), space=Real(-1, 1, length=5), budget=500).value < 1e-4
        True
    """

    compares_batches: ClassVar[bool] = False

    sigma: float = 0.5
    population: int | None = None
    mean: str = "best"
    covariance: str = "auto"
    archive: int = 64

    def __post_init__(self) -> None:
        check_field(self, "sigma", real_number, "(0, inf)")
        check_field(self, "population", whole_number, 4, 10**6, optional=True)
        check_field(self, "mean", one_of, _MEANS)
        check_field(self, "covariance", one_of, _COVARIANCES)
        check_field(self, "archive", whole_number, 1)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for one objective.

        Raises:
            MissingDependency: pycma is not installed.
        """
        problem.require_one_objective(self)
        try:
            with quiet():
                import cma
        except ImportError as error:
            raise MissingDependency("CMAES needs pycma: pip install 'searchlib[cma]'") from error
        return _CMAESRun(self, problem, rng, cma)


@final
class _CMAESRun(Run):
    def __init__(self, settings: CMAES, problem: Problem, rng: np.random.Generator, cma: Any) -> None:
        self._settings, self._space, self._rng, self._cma = settings, problem.space, rng, cma
        self._changing = problem.changing
        self._archive = Archive(problem.space, settings.archive)
        self._seeds = distinct(problem.space.canonical(problem.first_rows))
        self._descent: _Descent | None = None
        self._ended: list[_Descent] = []
        self._waiting: list[Evidence] = []
        self._failed: set[bytes] = set()
        self._asked = 0

    def ask(self, n: int) -> Batch:
        self._settle()
        if len(self._seeds):
            rows, self._seeds = self._seeds[:n], self._seeds[n:]
        else:
            rows = self._drawn(n)
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    @property
    def generation(self) -> int:
        """The seeds are one, and every generation of every descent is one."""
        open_now = 0 if self._descent is None else 1 + self._descent.generations
        return open_now + sum(1 + one.generations for one in self._ended)

    def tell(self, evidence: Evidence) -> None:
        self._archive.add(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        best = self._archive.best(n)
        descents = [one for one in (*self._ended, self._descent) if one is not None and one.generations]
        if not len(best) or not descents:
            return best
        if self._changing:  # whoever has met the easiest cases seems best
            return _rows(self._space, np.stack([one.mean for one in descents[::-1]]))[:n]
        # min takes the first of equals: a later descent must be better to replace an earlier one.
        mean = _rows(self._space, min(descents, key=lambda one: one.level).mean[None])
        if row_keys(mean)[0] in self._failed:
            return best
        return distinct(np.concatenate([mean, best]))[:n]

    def _drawn(self, n: int) -> Population:
        if self._descent is None:
            self._descent = self._begin(self._first_mean(), self._settings.population)
        elif self._descent.converged:
            self._ended.append(self._descent)
            fresh = self._space.canonical(self._space.sample(self._rng, 1))
            self._descent = self._begin(self._space.to_latent(fresh)[0], 2 * self._descent.population)
        return _rows(self._space, self._descent.draw(n, self._asked))

    def _first_mean(self) -> NDArray[np.float64]:
        if self._settings.mean == "best" and len(self._archive):
            return np.asarray(self._space.to_latent(self._archive.best(1))[0])
        return np.zeros(self._space.latent_dimension)

    def _begin(self, mean: NDArray[np.float64], population: int | None) -> _Descent:
        kind, width = self._settings.covariance, len(mean)
        separable = kind == "separable" or (kind == "auto" and width > _SEPARABLE_ABOVE)
        return _Descent(self._cma, self._rng, mean, self._settings.sigma, population, separable)

    def _settle(self) -> None:
        """Learn from what was told, in the order of ids, whatever order it came in."""
        self._archive.settle()
        told, self._waiting = in_order(self._waiting), []
        strangers = []
        for evidence, place in told:
            index, row = int(evidence.ids[place]), evidence.population[place]
            done = evidence.status[place] == Status.DONE
            value = float(evidence.values[place, 0]) if done else math.inf
            if not done:
                self._failed.update(row_keys(self._space.canonical(row[None])))
            own = self._descent is not None and self._descent.tell(index, value)
            if not own and index < 0 and math.isfinite(value):
                strangers.append((value, row))
        if self._descent is not None:
            strangers = sorted(strangers, key=lambda item: item[0])[: self._descent.population // 2]
            latents = [(value, self._space.to_latent(self._space.canonical(row[None]))[0]) for value, row in strangers]
            self._descent.update(latents)


@final
class _Descent:
    """One pycma strategy, from its start until it has converged."""

    def __init__(
        self, cma: Any, rng: np.random.Generator, mean: NDArray[np.float64], sigma: float, population: int | None,
        separable: bool,
    ) -> None:  # fmt: skip
        self._width = len(mean)
        options = {
            "randn": lambda *shape: rng.standard_normal(shape),
            "seed": math.nan,  # leave numpy's global generator alone
            "CMA_diagonal": separable,
            # Its choice for wide spaces compares two points of every generation and cannot be asked for a part of one.
            "AdaptSigma": cma.sigma_adaptation.CMAAdaptSigmaCSA,
            "verbose": -10,
            "verb_log": 0,
            "verb_disp": 0,
            "signals_filename": None,  # by default pycma reads options from a file in the working directory
        }
        if population is not None:
            options["popsize"] = population
        # pycma's equations want two coordinates at least; the others are ignored by everyone.
        start = np.concatenate([mean, np.zeros(max(0, 2 - len(mean)))])
        with quiet():
            self._strategy = cma.CMAEvolutionStrategy(start, sigma, options)
        self.population: int = self._strategy.popsize
        self.generations = 0
        self.level = math.inf  # median value of the last generation
        self._open: dict[int, NDArray[np.float64]] = {}
        self._told: list[tuple[float, NDArray[np.float64]]] = []
        self._strangers: list[tuple[float, NDArray[np.float64]]] = []
        self._left = self.population  # candidates of this generation still to be drawn

    @property
    def mean(self) -> NDArray[np.float64]:
        return np.array(self._strategy.mean[: self._width])

    @property
    def converged(self) -> bool:
        if not self.generations:
            return False
        with quiet():
            return bool(self._strategy.stop())

    def draw(self, n: int, first_id: int) -> NDArray[np.float64]:
        """Up to ``n`` points, shape ``(m, latent dimension)``; beyond the generation only while answers are missing."""
        n = min(n, self._left or n)
        self._left = max(0, self._left - n)
        with quiet():
            points = self._strategy.ask(n)
        self._open.update(zip(range(first_id, first_id + n), points, strict=True))
        return np.stack(points)[:, : self._width]

    def tell(self, index: int, value: float) -> bool:
        """Note the value of a point, infinite for a failure; False where this descent did not draw it."""
        point = self._open.pop(index, None)
        if point is not None:
            self._told.append((value, point))
        return point is not None

    def update(self, strangers: list[tuple[float, NDArray[np.float64]]]) -> None:
        """Move the distribution once a whole generation has been told, whichever of its points those are."""
        self._strangers += [(value, self._padded(latent)) for value, latent in strangers]
        if len(self._told) < self.population:
            return
        told, self._told, self._left = self._told + self._strangers, [], self.population
        self._strangers = []
        values = np.array([value for value, _ in told])
        done = values[np.isfinite(values)]
        if not len(done):  # nothing to rank: draw again from the same distribution
            return
        # Only ranks matter to the update: a failure is worse than everything that succeeded.
        values[~np.isfinite(values)] = done.max() + max(1.0, float(done.max() - done.min()))
        # Directions to try that nobody asked for, where candidates are asked for one by one; pycma refuses to go on.
        self._strategy.pop_injection_directions, self._strategy.pop_injection_solutions = [], []
        with quiet():
            self._strategy.tell([point for _, point in told], values.tolist())
        self.level = float(np.median(done))
        self.generations += 1

    def _padded(self, latent: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([latent, np.asarray(self._strategy.mean[self._width :])])


def _rows(space: Space, latent: NDArray[np.float64]) -> Population:
    return space.canonical(space.from_latent(latent))
