"""One parent, normal steps, and a step size that follows success: for many reals and few evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status, in_order
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.proposed import Proposed
from searchlib.arguments import check_field, real_number, whole_number
from searchlib.space import Population

__all__ = ["OnePlusOneES"]

#: How often children that are known already are drawn again.
_DRAWS = 8
#: The step size stays within these bounds, in units of the relaxation.
_SMALLEST, _LARGEST = 1e-12, 1e3


@final
@dataclass(frozen=True, kw_only=True)
class OnePlusOneES(Algorithm):
    """The (1+1) evolution strategy with the one-fifth success rule, on the space's real relaxation.

    Rechenberg 1973, in the form of Kern et al., *Learning probability distributions in continuous evolutionary
    algorithms*, Natural Computing 3(1), 2004: a child that is not worse becomes the parent and lengthens the steps, any
    other one shortens them by a quarter of that, so that one success in five keeps them. Where noise-free functions
    have thousands of genes and there are no more evaluations than genes, nothing learns a covariance, and this is hard
    to beat. A batch of n children has one parent; the best of them that is not worse follows it.

    Memory: a few vectors of the relaxation's length beside the batch and the archive.

    Arguments:
        sigma: first standard deviation of a step, in units of the relaxation (``Space.from_latent``).
        rate: logarithm of the growth of a step on success, positive.
        archive: how many of the best candidates to remember for :meth:`Run.recommend`.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Real
        >>> bowl = lambda x: sum((xi - 0.3) ** 2 for xi in x)
        >>> search(bowl, OnePlusOneES(), space=Real(-1, 1, length=50), budget=2000, batch_size=1).value < 1e-3
        True
    """

    sigma: float = 0.3
    rate: float = 0.2
    archive: int = 16

    def __post_init__(self) -> None:
        check_field(self, "sigma", real_number, "(0, inf)")
        check_field(self, "rate", real_number, "(0, inf)")
        check_field(self, "archive", whole_number, 1)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for one objective."""
        problem.require_one_objective(self)
        return _OnePlusOneRun(self, problem, rng)


@final
class _OnePlusOneRun(Run):
    def __init__(self, settings: OnePlusOneES, problem: Problem, rng: np.random.Generator) -> None:
        self._settings, self._space, self._rng = settings, problem.space, rng
        self._archive, self._proposed = Archive(problem.space, settings.archive), Proposed(problem.space)
        self._first = self._proposed.claim(problem.space.canonical(problem.first_rows))
        self._sigma = settings.sigma
        self._parent: NDArray[np.float64] = np.zeros(problem.space.latent_dimension)
        self._value = math.inf  # of the parent; the middle of the relaxation is one before it is evaluated
        if not len(self._first):
            middle = problem.space.canonical(problem.space.from_latent(self._parent[None]))
            self._first = self._proposed.claim(middle)
        self._children: dict[int, NDArray[np.float64]] = {}  # latent points whose values are to come
        self._waiting: list[Evidence] = []
        self._asked = 0

    def ask(self, n: int) -> Batch:
        self._settle()
        rows, self._first = self._first[:n], self._first[n:]
        start = self._asked
        self._asked += len(rows)
        if not len(rows):
            rows = self._bred(n)
        return Batch(np.arange(start, start + len(rows)), rows)

    def tell(self, evidence: Evidence) -> None:
        self._proposed.note_strangers(evidence)
        self._archive.add(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        return self._archive.best(n)

    def _bred(self, n: int) -> Population:
        rows = [self._first[:0]]
        missing = n
        for _ in range(_DRAWS):
            steps = self._rng.standard_normal((missing, len(self._parent)))
            latent = self._parent + self._sigma * steps
            found = self._space.canonical(self._space.from_latent(latent))
            places = self._proposed.claim_places(found)
            for place in places.tolist():
                self._children[self._asked] = latent[place]
                self._asked += 1
            rows.append(found[places])
            missing -= len(places)
            if not missing:
                break
            self._sigma = min(2 * self._sigma, _LARGEST)  # where genes are choices, small steps lead nowhere
        if missing == n:
            rows.append(self._proposed.samples(self._rng, n))
            self._asked += len(rows[-1])
        return np.concatenate(rows)

    def _settle(self) -> None:
        """Learn in the order of ids, whatever order it came in."""
        self._archive.settle()
        told, self._waiting = in_order(self._waiting), []
        before, best = self._value, None
        for evidence, place in told:
            index = int(evidence.ids[place])
            latent = self._children.pop(index, None)
            done = evidence.status[place] == Status.DONE
            value = float(evidence.values[place, 0]) if done else math.inf
            if latent is not None and math.isfinite(before):
                grown = self._settings.rate if value <= before else -self._settings.rate / 4
                self._sigma = float(np.clip(self._sigma * math.exp(grown), _SMALLEST, _LARGEST))
            if value <= self._value and done:
                self._value, best = value, (latent, evidence.population[place])
        if best is not None:
            latent, row = best
            self._parent = latent if latent is not None else self._space.to_latent(self._space.canonical(row[None]))[0]
