"""Estimation of distribution: learn how often each option is among the best, and sample from that."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.dependency_tree import DependencyTree
from searchlib.algorithms.linear_model import LinearModel
from searchlib.algorithms.on_off_scores import OnOffScores
from searchlib.algorithms.proposed import Proposed
from searchlib.arguments import check_field, flag, real_number, whole_number
from searchlib.space import Population, distinct, row_keys

__all__ = ["EstimationOfDistribution"]

#: Slopes are drawn with this many times their posterior standard deviation: what is uncertain is tried.
_DOUBT = 2.0
#: How often samples that exist already are drawn again before the distribution counts as used up.
_DRAWS = 8


@final
@dataclass(frozen=True, kw_only=True)
class EstimationOfDistribution(Algorithm):
    """Marginals of the best candidates, or a tree of pairs of them, sampled anew; no candidate is proposed twice.

    UMDA (Mühlenbein and Paaß, PPSN 1996) with the learning rate of PBIL (Baluja, 1994): the probability of every option
    moves toward its share among the ``parents`` best of all told so far, and stays off the borders by 1 / variables.
    Samples are the candidates with the highest sums of log-odds and noise. That is exact for bits (logistic noise) and
    for options (Gumbel noise); for exactly k of n it is Rosén's Pareto sampling (*J. Statistical Planning and
    Inference* 62, 1997), whose inclusion probabilities are the marginals up to a small error; under budgets the space
    repairs by the same scores. With ``pairwise`` each variable may depend on one other
    (:class:`searchlib.algorithms.dependency_tree.DependencyTree`), which wants more parents.

    When nothing improved for ``patience`` × variables candidates, or only known candidates are drawn, the distribution
    starts again from the space's own.

    Where values are noisy, the best told are mostly the luckiest. Then the marginals are those of a Bayesian linear
    model of all values told: a sample has the options whose slopes, drawn from their posterior at twice its spread, are
    best (Thompson sampling, independently by slope), and :meth:`Run.recommend` puts the candidate first whose expected
    value is best, whether it was evaluated or not. Of the settings only ``archive`` counts there.

    Works where the relaxation holds on-off scores (:class:`searchlib.algorithms.on_off_scores.OnOffScores`):
    ``Binary``, ``Subset``, ``Categorical``, ``Allocation`` and what is built of them; numbers and orders have no such
    marginals.

    Arguments:
        population: candidates told between two looks at the best.
        parents: how many of the best the distribution is estimated from.
        rate: share of the new estimate, in (0, 1]; the rest stays as it was.
        pairwise: whether variables may depend on each other.
        patience: when to start again, positive; ``math.inf``: never.
        archive: how many of the best candidates to remember for :meth:`Run.recommend`.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Binary
        >>> search(sum, EstimationOfDistribution(), space=Binary(20), budget=300, direction="maximize").value
        20.0
    """

    population: int = 8
    parents: int = 8
    rate: float = 1.0
    pairwise: bool = False
    patience: float = 10.0
    archive: int = 64

    def __post_init__(self) -> None:
        for name, least in (("population", 1), ("parents", 2), ("archive", 1)):
            check_field(self, name, whole_number, least)
        check_field(self, "rate", real_number, "(0, 1]")
        check_field(self, "pairwise", flag)
        check_field(self, "patience", real_number, "(0, inf]")

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run, for one objective.

        Raises:
            MissingOperator: the relaxation of the space holds numbers other than on-off scores.
        """
        problem.require_one_objective(self)
        return _EstimationRun(self, problem, rng, OnOffScores(problem.space, type(self).__name__))


@final
class _EstimationRun(Run):
    def __init__(
        self, settings: EstimationOfDistribution, problem: Problem, rng: np.random.Generator, structure: OnOffScores
    ) -> None:
        self._settings, self._space, self._rng, self._structure = settings, problem.space, rng, structure
        self._archive, self._proposed = Archive(problem.space, settings.archive), Proposed(problem.space)
        self._first = self._proposed.claim(problem.space.canonical(problem.first_rows))
        self._waiting: list[Evidence] = []
        width = len(structure.variable)
        self._model = LinearModel(width, float(width)) if problem.noisy else None
        self._failed: set[bytes] = set()
        self._asked = self._restarts = 0
        self._learned = False
        self._margin = _margin(structure)
        self._begin()

    def _begin(self) -> None:
        """Forget what was selected, and start from the space's own distribution."""
        self._on: NDArray[np.bool_] = np.empty((0, len(self._margin)), np.bool_)  # what may become a parent
        self._values: NDArray[np.float64] = np.empty(0)
        self._ties: NDArray[np.float64] = np.empty(0)
        self._marginals = self._structure.marginals
        self._tree: DependencyTree | None = None
        self._fresh = self._stalled = 0
        self._best = math.inf
        self._descent = self._asked

    def ask(self, n: int) -> Batch:
        self._settle()
        rows, self._first = self._first[:n], self._first[n:]
        if not len(rows):
            rows = self._drawn(n)
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        self._proposed.note_strangers(evidence)
        self._archive.add(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        best = self._archive.best(n)
        if self._model is None or not len(best):
            return best
        likeliest = self._structure.rows(-self._model.slopes[None])
        if row_keys(likeliest)[0] in self._failed:
            return best
        return distinct(np.concatenate([likeliest, best]))[:n]

    def notes(self) -> Mapping[str, Any]:
        """How often the distribution started again, and how many pairs of variables it links at the end."""
        return {"restarts": self._restarts, "pairs": 0 if self._tree is None else int((self._tree.parents >= 0).sum())}

    def _drawn(self, n: int) -> Population:
        """New samples; fewer than ``n`` only where the space has no more."""
        rows = self._first
        for _ in range(_DRAWS):
            rows = np.concatenate([rows, self._proposed.claim(self._structure.rows(self._drawn_scores(n - len(rows))))])
            if len(rows) == n:
                return rows
        if self._model is None:
            self._restart()
        return np.concatenate([rows, self._proposed.samples(self._rng, n - len(rows))])

    def _drawn_scores(self, n: int) -> NDArray[np.float64]:
        if self._model is not None and self._learned:
            return self._rng.normal(-self._model.slopes, _DOUBT * self._model.spread, (n, len(self._marginals)))
        if self._tree is not None:
            return self._tree.draw(self._rng, n)
        shape, single = (n, len(self._marginals)), self._structure.single
        noise = np.empty(shape)
        noise[:, single] = self._rng.logistic(size=(n, int(single.sum())))  # on or off: the difference of two
        noise[:, ~single] = self._rng.gumbel(size=(n, int((~single).sum())))
        return np.asarray(self._log_odds() + noise)

    def _log_odds(self) -> NDArray[np.float64]:
        p = self._marginals
        return np.asarray(np.log(p) - np.where(self._structure.single, np.log1p(-p), 0.0))

    def _restart(self) -> None:
        self._restarts += 1
        self._begin()

    def _settle(self) -> None:
        """Learn from what was told, in the order of ids, whatever order it came in."""
        self._archive.settle()
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        ids = np.concatenate([evidence.ids for evidence in waiting])
        population = np.concatenate([evidence.population for evidence in waiting])
        order = np.argsort(ids, kind="stable")
        done = np.concatenate([evidence.status for evidence in waiting]) == Status.DONE
        self._failed.update(row_keys(self._space.canonical(population[~done])))
        order = order[done[order] & ((ids[order] < 0) | (ids[order] >= self._descent))]
        self._fresh += len(ids)
        self._stalled += len(ids)
        if len(order):
            values = np.concatenate([evidence.values[:, 0] for evidence in waiting])[order]
            ties = np.concatenate([evidence.secondary for evidence in waiting])[order]
            self._learn(self._structure.of(population[order]), values, ties)
        if self._fresh >= self._settings.population and len(self._values) > 1:
            self._fresh = 0
            self._estimate()
        if self._model is None and self._stalled > self._settings.patience * (1 + int(self._structure.variable[-1])):
            self._restart()

    def _learn(self, on: NDArray[np.bool_], values: NDArray[Any], ties: NDArray[Any]) -> None:
        if self._model is not None:
            self._model.add(on.astype(np.float64), values)
            self._learned = True
            return
        if values.min() < self._best:
            self._best, self._stalled = float(values.min()), 0
        self._on = np.concatenate([self._on, on])
        self._values = np.concatenate([self._values, values])
        self._ties = np.concatenate([self._ties, ties])
        kept = np.lexsort((self._ties, self._values))[: self._settings.parents]
        self._on, self._values, self._ties = self._on[kept], self._values[kept], self._ties[kept]

    def _estimate(self) -> None:
        rate = self._settings.rate
        moved = (1 - rate) * self._marginals + rate * self._on.mean(axis=0)
        self._marginals = np.clip(moved, self._margin, 1 - self._margin)
        if self._settings.pairwise:
            self._tree = DependencyTree(self._structure, self._on, self._marginals)


def _margin(structure: OnOffScores) -> NDArray[np.float64]:
    """How far each probability stays from 0 and 1: another option per variable and 1 / variables samples or so."""
    options = np.bincount(structure.variable)
    others = np.where(structure.single, 1, options[structure.variable] - 1)
    margin = 1.0 / (max(2, len(options)) * np.maximum(others, 1))
    return np.asarray(np.minimum(margin, np.minimum(structure.marginals, 1 - structure.marginals)))
