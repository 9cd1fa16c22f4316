"""Local search: small changes of the best candidate, now and then large ones, and restarts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, succeeded
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.level_switch import LevelSwitch
from searchlib.algorithms.proposed import Proposed
from searchlib.algorithms.screen import Screen
from searchlib.allocation_space import AllocationSpace
from searchlib.arguments import check_field, real_number, whole_number
from searchlib.space import Population, distinct

__all__ = ["LocalSearch"]

#: How often children that exist already are varied again; every second time by one more move.
_VARIATIONS = 8
#: More features than this are not learned from: an update costs their square.
_WIDEST = 1024
#: Of noisy values, so many candidates with the best expectations are remembered.
_MEMORY = 1024
_BLIND, _SCREENED, _NO_CHILD = 0, 1, 2


@final
@dataclass(frozen=True, kw_only=True)
class LocalSearch(Algorithm):
    """Children of the best candidate so far by a heavy-tailed number of moves; no candidate is proposed twice.

    A (1+λ) search on any space. A child is the incumbent after k of the space's own mutations, where k follows the
    power law P(k) ∝ k^-β up to half of the dimension (Doerr, Le, Makhmara and Nguyen, *Fast genetic algorithms*, GECCO
    2017): mostly one, now and then many. Under budgets (spaces of allocations) a move is a level switch
    (:class:`searchlib.algorithms.level_switch.LevelSwitch`). The best child told replaces the incumbent when it is not
    worse, by value and then by the secondary score, so that plateaus are crossed.

    Some children are the best of some possible ones in the eyes of a linear model of all values told so far
    (:class:`searchlib.algorithms.screen.Screen`); how many, is learned from their success. It is what makes a batch of
    n children nearly as good as n single ones: improvements that several children found are joined by the next.

    After ``patience`` × dimension candidates without improvement the search starts again from its best candidate after
    ``kick`` × dimension moves, as iterated local search does. Where values are noisy, the incumbent and what
    :meth:`Run.recommend` gives are the candidates with the best predicted values, not with the luckiest ones.

    Use :class:`searchlib.CMAES` on spaces of real genes alone, where steps must shrink.

    Arguments:
        tail: the exponent β, greater than 1; the larger, the fewer large steps. Doerr et al. recommend 1.5 for steps
            that must leave local optima; with at most a few thousand evaluations steeper is better.
        pool: possible children drawn for one that is screened, or a quarter of it, or four times as many, each as
            likely; 1: all are blind.
        patience: when to restart, positive; ``math.inf``: never.
        kick: length of the jump of a restart as a share of the dimension, in [0, 1]; 0: restart from a sample.
        archive: how many of the best candidates to remember for :meth:`Run.recommend`.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Subset
        >>> result = search(sum, LocalSearch(), space=Subset(40, k=4), budget=150, direction="maximize")
        >>> result.best
        (36, 37, 38, 39)
    """

    tail: float = 2.5
    pool: int = 16
    patience: float = 10.0
    kick: float = 0.1
    archive: int = 64

    def __post_init__(self) -> None:
        check_field(self, "pool", whole_number, 1)
        check_field(self, "archive", whole_number, 1)
        check_field(self, "tail", real_number, "(1, inf)")
        check_field(self, "patience", real_number, "(0, inf]")
        check_field(self, "kick", real_number, "[0, 1]")

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for one objective."""
        problem.require_one_objective(self)
        return _LocalRun(self, problem, rng)


@final
class _LocalRun(Run):
    def __init__(self, settings: LocalSearch, problem: Problem, rng: np.random.Generator) -> None:
        self._settings, self._space, self._rng = settings, problem.space, rng
        space = problem.space
        self._move: Callable[[np.random.Generator, Population], Population] = space.mutate
        if isinstance(space, AllocationSpace) and len(space.budgets_array):
            self._move = LevelSwitch(space)
        self._archive, self._proposed = Archive(space, settings.archive), Proposed(space)
        self._first = self._proposed.claim(space.canonical(problem.first_rows))
        self._waiting: list[Evidence] = []
        self._incumbent = self._told = problem.first_rows[:0]  # at most one row; and what noisy values were told of
        self._value = (math.inf, math.inf)
        self._asked = self._stalled = self._restarts = 0
        self._descent = 0  # id of the first candidate of this descent
        weights = np.arange(1.0, 2 + space.dimension // 2) ** -settings.tail
        self._law = np.cumsum(weights / weights.sum())[:-1]  # the last step is certain
        width = space.features(space.sample(np.random.default_rng(0), 1)).shape[1]
        self._screen = Screen(space, width, problem.noisy) if settings.pool > 1 and 0 < width <= _WIDEST else None
        self._smooth = problem.noisy and self._screen is not None

    def ask(self, n: int) -> Batch:
        self._settle()
        rows, self._first = self._first[:n], self._first[n:]
        kinds: NDArray[Any] = np.full(len(rows), _NO_CHILD)
        if not len(rows):
            rows, kinds = self._children(n)
        if self._screen is not None:
            self._screen.mark(kinds)
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        self._proposed.note_strangers(evidence)
        self._archive.add(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        return distinct(self._told)[:n].copy() if self._smooth else self._archive.best(n)

    def notes(self) -> Mapping[str, Any]:
        """How often the search started again, and the share of screened children at the end."""
        share = 0.0 if self._screen is None else self._screen.share
        return {"restarts": self._restarts, "screened": round(share, 3)}

    def _settle(self) -> None:
        """Learn from what was told, in the order of ids, whatever order it came in."""
        self._archive.settle()
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        count = sum(len(evidence) for evidence in waiting)
        ids, rows, values, ties = succeeded(waiting)
        before = self._value
        if len(ids):
            self._learn(ids, self._space.canonical(rows), values, np.where(np.isnan(ties), math.inf, ties))
        self._stalled = 0 if self._value < before else self._stalled + count
        if self._stalled > self._settings.patience * self._space.dimension:
            self._descent, self._incumbent, self._value = self._asked, self._incumbent[:0], (math.inf, math.inf)
            self._stalled, self._restarts = 0, self._restarts + 1

    def _learn(self, ids: NDArray[np.int64], rows: Population, values: NDArray[Any], ties: NDArray[Any]) -> None:
        won = (values < self._value[0]) | ((values == self._value[0]) & (ties < self._value[1]))
        if self._screen is not None:
            self._screen.learn(ids, rows, values, won)
        own = (ids < 0) | (ids >= self._descent)
        if self._smooth:
            self._told = self._by_expectation(np.concatenate([self._told, rows]))[:_MEMORY]
            self._incumbent, self._value = self._told[:1], (float(values.min(initial=self._value[0])), 0.0)
        elif own.any():
            ids, rows, values, ties = ids[own], rows[own], values[own], ties[own]
            best = int(np.lexsort((-ids, ties, values))[0])  # of equals the last: plateaus are crossed
            value = (float(values[best]), float(ties[best]))
            if value <= self._value:
                self._incumbent, self._value = rows[best : best + 1], value

    def _by_expectation(self, rows: Population) -> Population:
        """Rows in the order of what the model expects of them."""
        assert self._screen is not None  # whoever smooths has a model
        return rows[np.argsort(self._screen.predict(rows), kind="stable")]

    def _children(self, n: int) -> tuple[Population, NDArray[Any]]:
        """New rows, fewer than ``n`` only where the space has no more, and what kind each is."""
        parent, jump = self._incumbent, 0
        kinds: NDArray[Any] = np.full(n, _NO_CHILD)
        if len(parent) and self._screen is not None:
            kinds = np.where(self._rng.random(n) < self._screen.share, _SCREENED, _BLIND)
        elif not len(parent) and self._settings.kick > 0:
            parent, jump = self._archive.best(1), max(1, round(self._settings.kick * self._space.dimension) - 1)
        rows, made = [self._incumbent[:0]], [kinds[:0]]
        for attempt in range(_VARIATIONS if len(parent) else 0):
            moves = self._moves(len(kinds)) + jump + attempt // 2
            children = self._walked(np.repeat(parent, len(kinds), axis=0), moves, kinds == _SCREENED)
            places = self._proposed.claim_places(children)
            rows.append(children[places])
            made.append(kinds[places])
            kinds = np.delete(kinds, places)
            if not len(kinds):
                break
        fresh = self._proposed.samples(self._rng, len(kinds))
        made.append(np.full(len(fresh), _NO_CHILD))
        return np.concatenate([*rows, fresh]), np.concatenate(made)

    def _moves(self, n: int) -> NDArray[np.intp]:
        """Numbers of moves, by the power law."""
        return np.searchsorted(self._law, self._rng.random(n)) + 1

    def _walked(self, rows: Population, moves: NDArray[np.intp], screened: NDArray[np.bool_]) -> Population:
        """A child of every row by so many moves; where it is to be screened, the best on one or more looks around.

        A batch of n stands for n steps one after the other, so that walks are up to √n looks long in the mind of the
        model.
        """
        if self._screen is None or not screened.any():
            return self._moved(rows, moves)
        rows = rows.copy()
        rows[~screened] = self._moved(rows[~screened], moves[~screened])
        look = np.flatnonzero(screened)
        length = 1 << self._rng.integers(1 + int(math.log2(len(rows)) / 2), size=len(look))
        expected = np.full(len(rows), math.inf)
        for turn in range(int(length.max())):
            walkers = look[length > turn]
            if turn:
                moves[walkers] = self._moves(len(walkers))
            owner = np.repeat(walkers, self._pools(len(walkers)))
            options = self._moved(rows[owner], moves[owner])
            score = self._screen.predict(options)
            best = np.lexsort((score, owner))[np.searchsorted(owner, walkers)]
            best = best[score[best] < expected[walkers]]
            rows[owner[best]], expected[owner[best]] = options[best], score[best]
        return rows

    def _moved(self, rows: Population, moves: NDArray[np.intp]) -> Population:
        """Canonical rows, each after so many moves."""
        rows, left = rows.copy(), moves.copy()
        while len(moving := np.flatnonzero(left > 0)):
            rows[moving] = self._move(self._rng, rows[moving])
            left[moving] -= 1
        return self._space.canonical(rows)

    def _pools(self, n: int) -> NDArray[np.intp]:
        """How many possible children to draw for each of ``n``: how far to trust the model is left to chance."""
        pool = self._settings.pool
        return np.array([max(1, pool // 4), pool, 4 * pool])[self._rng.integers(3, size=n)]
