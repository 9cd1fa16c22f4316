"""Evolution strategies for rollouts: a center that follows ranks, from a few weights to millions."""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status, in_order
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.cma_es import CMAES
from searchlib.algorithms.strategy_noise import DenseNoise, GenerationNoise, SeededNoise
from searchlib.algorithms.strategy_rules import PGPE, SNES, OpenAIES, Rule
from searchlib.arguments import check_field, flag, one_of, real_number, whole_number
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import Population, Space, WeightSpace, distinct, row_keys

__all__ = ["EvolutionStrategy"]

logger = logging.getLogger("searchlib")

_RULES: Mapping[str, type[OpenAIES | PGPE | SNES]] = {"openai": OpenAIES, "pgpe": PGPE, "snes": SNES}
_METHODS = ("auto", *_RULES, "sep-cma", "cma")
#: Up to so many coordinates a full covariance matrix pays (policy-search notes of EvoJAX and pgpelib).
_FULL_UP_TO = 100
#: From so many on, generations are kept as seeds where the space allows it.
_SEEDED_FROM = 20_000
#: Former centers that compete with the last one.
_CENTERS = 4


@final
@dataclass(frozen=True, kw_only=True)
class EvolutionStrategy(Algorithm):
    """Searches by the ranks of a generation around a center, and hands over the center.

    For objectives with noise, such as rollouts: the best member of a generation is the luckiest, the center has
    averaged over all of them. Values that are equal share their rank, so a generation in which nobody succeeds moves
    nothing. Failed members count as worse than all others.

    ``"openai"`` keeps its spread and moves by Adam (Salimans et al., arXiv 1703.03864); ``"pgpe"`` adapts the spread of
    every coordinate and moves by ClipUp (Toklu et al., arXiv 2008.02387); both draw pairs ±noise. ``"snes"`` is the
    separable natural strategy (Schaul et al., GECCO 2011). ``"sep-cma"`` and ``"cma"`` are :class:`CMAES` with a
    diagonal and a full covariance matrix. ``"auto"`` takes the full matrix up to 100 coordinates where pycma is
    installed, and PGPE for more.

    Answers that come after their generation has learned (a generation learns once as many members are told as it has)
    are not used. Works on the real relaxation of every space. On :class:`~searchlib.spaces.PolicyParameters` of 20,000
    weights and more, generations are kept as seeds of their noise (:class:`~searchlib.SeededPopulation`).

    Arguments:
        method: one of the above.
        sigma: first standard deviation, in units of the relaxation (``Space.from_latent``; 1 is a natural step). Where
            None, 0.3, and 1 for the weights of a policy that begin at zero: then the first members are what the network
            would be at random (a small one that hardly moves has nothing to learn from).
        population: members of a generation, at least 4, even where they come in pairs; 8 + 3 ln d where None (pycma's
            own for "cma" and "sep-cma").
        rate: of the center: Adam's in units of sigma (0.25), ClipUp's in units of its largest speed (0.5), SNES' own
            (1); not for "cma" and "sep-cma".
        seeded: whether generations are kept as seeds; where None, for 20,000 coordinates and more.
        secondary: whether an objective's secondary scores order members of equal value. Without them, a generation in
            which nobody succeeds moves nothing, however near some came.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Real
        >>> bowl = lambda x: sum((xi - 0.3) ** 2 for xi in x)
        >>> search(bowl, EvolutionStrategy(method="snes"), space=Real(-1, 1, length=20), budget=4000).value < 1e-3
        True
    """

    compares_batches: ClassVar[bool] = False

    method: str = "auto"
    sigma: float | None = None
    population: int | None = None
    rate: float | None = None
    seeded: bool | None = None
    secondary: bool = True

    def __post_init__(self) -> None:
        check_field(self, "method", one_of, _METHODS)
        for name in ("sigma", "rate"):
            check_field(self, name, real_number, "(0, inf)", optional=True)
        check_field(self, "population", whole_number, 4, 10**6, optional=True)
        check_field(self, "seeded", flag, optional=True)
        check_field(self, "secondary", flag)
        if self.population is not None and self.population % 2 and self.method in ("auto", "openai", "pgpe"):
            raise InvalidSettings(
                f"EvolutionStrategy(method={self.method!r}) draws pairs, so population must be even, but is "
                f"{self.population}"
            )
        if self.method in ("cma", "sep-cma") and (self.rate is not None or self.seeded):
            raise InvalidSettings(
                f"rate and seeded are not for EvolutionStrategy(method={self.method!r}), but are {self.rate!r} and "
                f"{self.seeded!r}"
            )

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for one objective.

        Raises:
            MissingDependency: pycma is not installed, for "cma" and "sep-cma".
            MissingOperator: ``seeded=True`` on another space than a :class:`~searchlib.WeightSpace`.
        """
        problem.require_one_objective(self)
        width, method = problem.space.latent_dimension, self.method
        if method == "auto":
            plain = self.rate is None and not self.seeded  # these are no settings of CMA-ES
            full = plain and width <= _FULL_UP_TO and importlib.util.find_spec("cma") is not None
            method = "cma" if full else "pgpe"
        if method not in _RULES:
            covariance = "full" if method == "cma" else "separable"
            return CMAES(self._first_sigma(problem), self.population, covariance=covariance).start(problem, rng)
        run = _StrategyRun(self, method, self._first_sigma(problem), problem, self._noise(problem.space, rng))
        if problem.evaluations is not None and problem.evaluations < run.population:
            logger.warning(
                "%d evaluations are less than one generation of %d members, so nothing is learned; take a larger "
                "budget, or EvolutionStrategy(population=…)", problem.evaluations, run.population,
            )  # fmt: skip
        return run

    def _noise(self, space: Space, rng: np.random.Generator) -> GenerationNoise:
        if not isinstance(space, WeightSpace):
            if self.seeded:
                raise MissingOperator(
                    f"generations can be kept as seeds on a WeightSpace (searchlib.spaces.PolicyParameters), but the "
                    f"space is {space!r:.200}"
                )
            return DenseNoise(space, rng)
        seeded = space.dimension >= _SEEDED_FROM if self.seeded is None else self.seeded
        return SeededNoise(space, rng) if seeded else DenseNoise(space, rng)

    def _first_sigma(self, problem: Problem) -> float:
        if self.sigma is not None:
            return self.sigma
        return 1.0 if isinstance(problem.space, WeightSpace) and not len(problem.first_rows) else 0.3


@final
class _StrategyRun(Run):
    def __init__(
        self, settings: EvolutionStrategy, method: str, sigma: float, problem: Problem, source: GenerationNoise
    ) -> None:
        self._settings, self._method, self._problem, self._noise = settings, method, problem, source
        self._sigma = sigma
        self._space = problem.space
        self._first = distinct(self._space.canonical(problem.first_rows))
        self._seeded = isinstance(source, SeededNoise)
        # Rows of a generation that is kept as seeds are not to be had, and noise makes the best member a lucky one.
        self._archive = None if self._seeded or problem.noisy else Archive(self._space, 16)
        self._rule: Rule | None = None
        self.population = settings.population or 2 * (4 + int(1.5 * math.log(max(1, self._space.latent_dimension))))
        self._asked = self._generations = self._round = 0
        self._drawn = False  # whether this generation's members are
        self._queue: list[tuple[int, int]] = []  # handle and sign of members that are still to be asked for
        self._open: dict[int, tuple[int, int]] = {}  # of those that are not told yet
        self._told: list[tuple[float, float, int, int]] = []  # value, secondary score, handle and sign
        self._outside: tuple[float, NDArray[Any]] | None = None  # the best of what is no member, before the first one
        self._centers: list[tuple[float, Population]] = []  # level of a generation, and its center
        self._failed: set[bytes] = set()
        self._waiting: list[Evidence] = []

    def ask(self, n: int) -> Batch:
        self._settle()
        if len(self._first):
            rows, self._first = self._first[:n], self._first[n:]
        else:
            rows = self._members(n)
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def _members(self, n: int) -> Population:
        if self._rule is None:
            center = self._noise.start(None if self._outside is None else self._outside[1])
            rate = {} if self._settings.rate is None else {"rate": self._settings.rate}
            self._rule = _RULES[self._method](center, self._sigma * self._noise.unit(), **rate)
            self._round += 1  # the seeds were one of their own
        if not self._queue:  # beyond the generation only while answers are missing
            wanted = max(2, n) if self._drawn else self.population
            handles, signs = self._noise.draw(wanted, self._rule.mirrored)
            self._queue = list(zip(handles.tolist(), signs.tolist(), strict=True))
            self._drawn = True
        members, self._queue = self._queue[:n], self._queue[n:]
        self._open.update(zip(range(self._asked, self._asked + len(members)), members, strict=True))
        handles, signs = np.array(members, np.int64).T
        return self._noise.rows(self._rule.center, self._rule.sigma, handles, signs)

    @property
    def generation(self) -> int:
        """Counts the updates of the center; members of one generation are ranked together."""
        return self._round

    def tell(self, evidence: Evidence) -> None:
        if self._archive is not None:
            self._archive.add(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        """The center, former centers of good generations, and (of noise-free values only) the best members."""
        self._settle()
        none = np.empty((0, self._space.dimension), self._space.dtype)
        if self._rule is None:
            seen = none if self._outside is None else self._outside[1][None]
        else:
            seen = np.concatenate([self._center(), *(rows for _, rows in self._centers)])
            seen = seen[[key not in self._failed for key in row_keys(seen)]]
        best = none if self._archive is None else self._archive.best(n)
        return distinct(np.concatenate([seen, best]))[:n]

    def notes(self) -> Mapping[str, Any]:
        """Method, size of a generation, how many there were, and the spread's mean in units of the first one."""
        self._settle()
        notes: dict[str, Any] = {
            "method": self._method, "population": self.population, "generations": self._generations,
            "seeded": self._seeded,
        }  # fmt: skip
        if self._rule is not None:
            first = self._sigma * self._noise.unit()
            notes["spread"] = float(np.mean(self._rule.sigma / first))
        return notes

    def _center(self) -> Population:
        assert self._rule is not None
        return self._noise.candidate(self._rule.center)

    def _settle(self) -> None:
        """Learn from what was told, in the order of ids, whatever order it came in."""
        if self._archive is not None:
            self._archive.settle()
        told, self._waiting = in_order(self._waiting), []
        for evidence, place in told:
            done = evidence.status[place] == Status.DONE
            value = float(evidence.values[place, 0]) if done else math.inf
            member = self._open.pop(int(evidence.ids[place]), None)
            if member is not None:
                breaks = float(evidence.secondary[place]) if done and self._settings.secondary else math.nan
                self._told.append((value, 0.0 if math.isnan(breaks) else breaks, *member))
            elif self._rule is None and done and (self._outside is None or value < self._outside[0]):
                self._outside = value, np.array(self._space.canonical(evidence.population[place : place + 1])[0])
            if not done and not self._seeded:
                self._failed.update(row_keys(self._space.canonical(evidence.population[place : place + 1])))
        if len(self._told) >= self.population:
            self._learn()

    def _learn(self) -> None:
        assert self._rule is not None
        values = np.array([one[0] for one in self._told])
        handles, signs = (np.array([one[place] for one in self._told]) for place in (2, 3))
        if np.isfinite(values).any():
            _, ranks = np.unique([one[:2] for one in self._told], axis=0, return_inverse=True)
            weights = self._rule.weights(ranks.ravel().astype(np.float64))
            total, squares = self._noise.sums(handles, signs, weights, self._rule.adapts_sigma)
            self._remember(float(np.median(values)))
            self._rule.update(total, squares, len(values))
            self._generations += 1
        self._told, self._open, self._queue, self._drawn = [], {}, [], False
        self._round += 1
        self._noise.forget()

    def _remember(self, level: float) -> None:
        """Keep the centers of the best generations, the later one of equals; the last ones where cases change."""
        if self._problem.changing:
            self._centers = [(level, self._center()), *self._centers][:_CENTERS]
        elif len(self._centers) < _CENTERS or level <= self._centers[-1][0]:
            self._centers = sorted([(level, self._center()), *self._centers], key=lambda one: one[0])[:_CENTERS]
