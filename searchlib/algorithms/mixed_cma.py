"""Covariance matrix adaptation for reals, whole numbers and categories together (cmaes' CatCMAwM)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status, in_order
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.mixed_genes import MixedGenes
from searchlib.algorithms.proposed import Proposed
from searchlib.algorithms.quiet import quiet
from searchlib.arguments import check_field, one_of, real_number, whole_number
from searchlib.errors import MissingDependency
from searchlib.space import Population, distinct, row_keys

__all__ = ["CatCMAwM"]

_MEANS = ("best", "middle")
#: As many generations drawn in a row without a candidate that is new, and the descent counts as converged.
_IDLE = 8
#: How much a category of the best seed weighs beside all of them together, where a descent starts at it.
_TRUST = 0.5


@final
@dataclass(frozen=True, kw_only=True)
class CatCMAwM(Algorithm):
    """CatCMA with margin: a normal distribution of reals and whole numbers, and one of categories, adapted together.

    Hamano, Saito, Nomura, Uchida and Shirakawa, *CatCMA with Margin for Single- and Multi-Objective Mixed-Variable
    Black-Box Optimization*, arXiv 2504.07884, as implemented in the package cmaes. The margin keeps the chance of every
    other level and option above a floor, so that no gene freezes. Its units are set so that ranges and not scales
    matter: every real moves in [0, 1] on its own scale.

    The seeds are evaluated first. What the run is told of strangers takes the place of the worst of a generation, its
    steps shortened as Hansen does (*Injecting external solutions into CMA-ES*, arXiv 1110.4181). No candidate is
    proposed twice: where the distribution draws one whose value is known, that value counts at once. A descent that has
    converged (by the package's own tests, by draws that are all known, or by as many generations without improvement as
    ``patience`` says) is followed by another from a fresh sample with twice the population.

    :meth:`Run.recommend` gives the best candidates seen and the distribution's mean; where values are noisy, the mean
    comes first. Use :class:`searchlib.CMAES` where all genes are reals, and :class:`searchlib.LocalSearch` where none
    is. Its state cannot be exported: a study resumes by replay.

    Arguments:
        sigma: first step size, positive; at 1 the standard deviation of a real is a twelfth of its range and that of a
            whole number a tenth, as in the package.
        population: candidates of a generation, at least 4; the package's 4 + 3 ln(genes) where None.
        mean: where the first descent starts: ``"best"``, at the best of the seeds and of what else it was told by
            then, or ``"middle"``, in the middle with all options alike. Without seeds it starts there anyway.
        patience: how many evaluations per gene a descent may go without improvement, positive; ``math.inf``: any.
        archive: how many of the best candidates to remember for :meth:`Run.recommend`.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Categorical, Product, Real
        >>> space = Product(kind=Categorical(("sun", "moon", "star"), length=4), x=Real(-1, 1, length=3))
        >>> def cost(value):
        ...     return sum((x - 0.3) ** 2 for x in value["x"]) + sum(kind != "moon" for kind in value["kind"])
        >>> result = search(cost, CatCMAwM(), space=space, budget=600)
        >>> result.best["kind"], result.value < 1e-3
        (('moon', 'moon', 'moon', 'moon'), True)
    """

    sigma: float = 1.0
    population: int | None = None
    mean: str = "best"
    patience: float = 30.0
    archive: int = 64

    def __post_init__(self) -> None:
        check_field(self, "sigma", real_number, "(0, inf)")
        check_field(self, "patience", real_number, "(0, inf]")
        check_field(self, "population", whole_number, 4, 10**6, optional=True)
        check_field(self, "mean", one_of, _MEANS)
        check_field(self, "archive", whole_number, 1)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run, for one objective.

        Raises:
            MissingDependency: the package cmaes is not installed.
            MissingOperator: the space has parts other than reals, whole numbers, categories and bits.
        """
        problem.require_one_objective(self)
        genes = MixedGenes(problem.space, type(self).__name__)
        try:
            import cmaes
        except ImportError as error:
            raise MissingDependency("CatCMAwM needs cmaes: pip install 'searchlib[cma]'") from error
        return _CatCMAwMRun(self, problem, rng, genes, cmaes)


@final
class _CatCMAwMRun(Run):
    def __init__(
        self, settings: CatCMAwM, problem: Problem, rng: np.random.Generator, genes: MixedGenes, cmaes: Any
    ) -> None:
        self._settings, self._space, self._rng = settings, problem.space, rng
        self._genes, self._cmaes, self._noisy = genes, cmaes, problem.noisy
        self._archive, self._proposed = Archive(problem.space, settings.archive), Proposed(problem.space)
        self._first = self._proposed.claim(problem.space.canonical(problem.first_rows))
        self._values: dict[bytes, float] = {}  # of all that was told, infinite for failures
        self._descent: _Descent | None = None
        self._ended: list[_Descent] = []
        self._waiting: list[Evidence] = []
        self._asked = 0

    def ask(self, n: int) -> Batch:
        self._settle()
        rows, self._first = self._first[:n], self._first[n:]
        start = self._asked
        if not len(rows) and len(self._genes):
            rows = self._drawn(n)
        if not len(rows):
            rows = self._proposed.samples(self._rng, n)
        self._asked = start + len(rows)
        return Batch(np.arange(start, self._asked), rows)

    def tell(self, evidence: Evidence) -> None:
        self._proposed.note_strangers(evidence)
        self._archive.add(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        best = self._archive.best(n)
        descents = [one for one in (*self._ended, self._descent) if one is not None and one.generations]
        if not len(best) or not descents:
            return best
        # min takes the first of equals: a later descent must be better to replace an earlier one.
        mean = min(descents, key=lambda one: one.level).mean
        if math.isinf(self._values.get(row_keys(mean)[0], 0.0)):
            return best
        return distinct(np.concatenate([mean, best] if self._noisy else [best[:1], mean, best[1:]]))[:n]

    def notes(self) -> dict[str, Any]:
        """How often the search started again."""
        return {"restarts": len(self._ended)}

    def _drawn(self, n: int) -> Population:
        """New candidates of the distribution; none where it has nothing new, and then it starts again."""
        if self._descent is None:
            self._descent = self._begin(self._first_mean(), self._settings.population)
        elif self._descent.converged(self._settings.patience):
            self._restart()
        descent, rows, idle = self._descent, self._first, 0
        while len(rows) < n and idle < _IDLE * descent.population:
            if len(rows) and not descent.left:
                break  # the rest would be of a distribution that the answers to this batch will move
            drawn, solutions = descent.draw(min(n - len(rows), descent.left or n))
            places = self._proposed.claim_places(drawn)
            known = np.setdiff1d(np.arange(len(drawn)), places)
            for place, key in zip(known.tolist(), row_keys(drawn[known]), strict=True):
                if key in self._values:
                    descent.told.append((self._values[key], solutions[place]))
            first = self._asked + len(rows)
            descent.asked.update((first + i, solutions[place]) for i, place in enumerate(places.tolist()))
            rows = np.concatenate([rows, drawn[places]])
            idle = 0 if len(places) else idle + len(drawn)
            descent.update()
        if not len(rows):
            self._restart()
        return rows

    def _first_mean(self) -> Population:
        return self._archive.best(1) if self._settings.mean == "best" else self._first[:0]

    def _restart(self) -> None:
        assert self._descent is not None  # only a descent ends
        self._ended.append(self._descent)
        fresh = self._space.canonical(self._space.sample(self._rng, 1))
        self._descent = self._begin(fresh, 2 * self._descent.population)

    def _begin(self, mean: Population, population: int | None) -> _Descent:
        seed = int(self._rng.integers(2**31))
        return _Descent(self._cmaes, self._genes, mean, self._settings.sigma, population, seed)

    def _settle(self) -> None:
        """Learn from what was told, in the order of ids, whatever order it came in."""
        self._archive.settle()
        waiting, self._waiting = self._waiting, []
        rows = {id(evidence): self._space.canonical(evidence.population) for evidence in waiting}
        keys = {id(evidence): row_keys(rows[id(evidence)]) for evidence in waiting}
        for evidence, place in in_order(waiting):
            index, done = int(evidence.ids[place]), evidence.status[place] == Status.DONE
            value = float(evidence.values[place, 0]) if done else math.inf
            self._values[keys[id(evidence)][place]] = value
            if self._descent is None:
                continue
            solution = self._descent.asked.pop(index, None)
            if solution is not None:
                self._descent.told.append((value, solution))
            elif index < 0 and done:
                self._descent.strangers.append((value, rows[id(evidence)][place : place + 1]))
        if self._descent is not None:
            self._descent.update()


@final
class _Descent:
    """One strategy of the package, from its start until it has converged."""

    def __init__(
        self, cmaes: Any, genes: MixedGenes, mean: Population, sigma: float, population: int | None, seed: int
    ) -> None:
        self._genes = genes
        self._reals = len(genes.reals)
        settings: dict[str, Any] = {"population_size": population, "seed": seed}
        if self._reals:
            settings["x_space"] = np.tile([0.0, 1.0], (self._reals, 1))
        if len(genes.levels):
            settings["z_space"] = genes.values
        if len(genes.options):
            settings["c_space"] = genes.counts
        if self._reals or len(genes.levels):
            ranges = np.array([values[-1] - values[0] for values in genes.values])
            settings["cov"] = np.diag(np.append(np.full(self._reals, 1 / 12), ranges / 10) ** 2)
            settings["sigma"] = sigma
        if len(mean):
            x, z, c = genes.of(mean)
            if "cov" in settings:
                settings["mean"] = np.append(x[0], z[0])
            if len(genes.options):
                alike = np.arange(genes.counts.max()) < genes.counts[:, None]
                settings["cat_param"] = (1 - _TRUST) * alike / genes.counts[:, None] + _TRUST * genes.one_hot(c)[0]
        self._strategy = cmaes.CatCMAwM(**settings)
        self._solution = cmaes.CatCMAwM.Solution
        self.population: int = self._strategy.population_size
        self.left = self.population  # candidates of this generation still to be drawn
        self.generations = 0
        self.level = math.inf  # median value of the last generation
        self.asked: dict[int, Any] = {}  # solutions whose values are to come, by id
        self.told: list[tuple[float, Any]] = []  # of this generation
        self.strangers: list[tuple[float, Population]] = []
        self._best, self._stalled = math.inf, 0

    @property
    def mean(self) -> Population:
        """The middle of the distribution, shape ``(1, d)``."""
        reals, strategy = self._reals, self._strategy
        middle = strategy._mean if self._gaussian else np.empty(0)
        wanted = zip(self._genes.values, middle[reals:], strict=True)
        levels = [values[np.abs(values - level).argmin()] for values, level in wanted]
        options = strategy._q.argmax(axis=1) if len(self._genes.options) else np.empty(0)
        return self._genes.rows(middle[None, :reals], np.array(levels)[None], options[None])

    @property
    def _gaussian(self) -> bool:
        return self._reals + len(self._genes.levels) > 0

    def converged(self, patience: float) -> bool:
        """Whether no more is to be expected of this descent."""
        if self._stalled * self.population > patience * len(self._genes):
            return True
        if not self._gaussian or not self.generations:
            return False
        with quiet():
            return bool(self._strategy.should_stop())

    def draw(self, n: int) -> tuple[Population, list[Any]]:
        """``n`` canonical rows and the package's solutions that they come from."""
        self.left = max(0, self.left - n)
        solutions = [self._strategy.ask() for _ in range(n)]
        nothing = np.empty((n, 0))
        reals = np.stack([solution.x for solution in solutions]) if self._reals else nothing
        levels = np.stack([solution.z for solution in solutions]) if len(self._genes.levels) else nothing
        options = nothing
        if len(self._genes.options):
            options = np.stack([solution.c for solution in solutions]).argmax(axis=2)
        return self._genes.rows(reals, levels, options), solutions

    def update(self) -> None:
        """Move the distribution once a whole generation has been told, whichever of its candidates those are."""
        if len(self.told) < self.population:
            return
        told = sorted(self.told, key=lambda pair: pair[0])[: self.population]
        done = np.array([value for value, _ in told if math.isfinite(value)])
        self.told, self.left = [], self.population
        if not len(done):  # nothing to rank: draw again from the same distribution
            return
        best = sorted(self.strangers, key=lambda pair: pair[0])[: self.population // 2]
        injected = [(value, self._injected(row)) for value, row in best if value <= np.median(done)]
        self.strangers = []
        # Only ranks matter to the update: a failure is worse than everything that succeeded.
        worst = done.max() + max(1.0, float(done.max() - done.min()))
        told = [(value if math.isfinite(value) else worst, solution) for value, solution in told]
        told = told[: self.population - len(injected)] + injected
        with quiet():
            self._strategy.tell([(solution, value) for value, solution in told])
        self.level = float(np.median(done))
        self.generations += 1
        improved = done.min() < self._best
        self._best, self._stalled = (float(done.min()), 0) if improved else (self._best, self._stalled + 1)

    def _injected(self, row: Population) -> Any:
        """A stranger as if it had been drawn: no further from the mean than draws are (Hansen 2011, Eq. 3)."""
        x, z, c = self._genes.of(row)
        raw = None
        if self._gaussian:
            strategy, n = self._strategy, self._reals + len(self._genes.levels)
            axes, lengths = strategy._eigen_decomposition()
            step = (np.append(x[0], z[0]) - strategy._mean) / strategy._A
            length = float(np.linalg.norm(axes.T @ step / lengths)) / strategy._sigma
            most = math.sqrt(n) + 2 * n / (n + 2)
            raw = strategy._mean + strategy._A * step * min(1.0, most / max(length, 1e-300))
        return self._solution(x[0], z[0], self._genes.one_hot(c)[0] > 0, raw)
