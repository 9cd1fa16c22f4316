"""What NSGA-II and NSGA-III share: breeding, and the front of everything told. They differ in who survives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Batch, Evidence, Problem, Run
from searchlib.algorithms.front import Front, Told, merged, told
from searchlib.algorithms.proposed import Proposed
from searchlib.pareto import dominance_ranks
from searchlib.space import Population, distinct

__all__ = ["FrontRun", "Survival", "default_population"]

#: How often a child that already exists is varied again before it is replaced by a fresh sample.
_VARIATIONS = 8


class Survival(ABC):
    """Who of parents and children goes on; one object per run."""

    @abstractmethod
    def survive(
        self, values: NDArray[np.float64], ranks: NDArray[np.int64], n: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float64] | None]:
        """Positions of the ``n`` survivors (all, where there are no more), and how far apart their neighbors are.

        Arguments:
            values: shape ``(m, objectives)``, minimized, without NaN; of equal rows the first is the best.
            ranks: of their fronts, shape ``(m,)``.
            n: how many survive.

        Returns:
            positions ``(k,)``, and distances ``(k,)`` that decide tournaments where nobody dominates; None: there are
            no tournaments.
        """


def default_population(problem: Problem) -> int:
    """A tenth of the budget, from 20 to 100: fewer than 10 generations learn little."""
    return 100 if problem.evaluations is None else min(100, max(20, problem.evaluations // 10))


@final
class FrontRun(Run):
    """Children of the survivors, bred by the space's own operators; remembers every nondominated candidate told.

    Parents are chosen by binary tournaments, or by chance; children are crossed with probability ``crossover_rate`` and
    always mutated where they are not, else with probability ``mutation_rate``. No candidate is proposed twice.
    Survivors are chosen when the next candidates are asked for, among the survivors so far and all that was told since,
    so that batches may have any size. Among equal values the lower secondary score comes first.

    Arguments:
        problem: what is searched.
        rng: decides everything.
        survival: who goes on.
        population: how many survive; so many are evaluated (seeds, then samples) before breeding starts.
        crossover_rate, mutation_rate: in [0, 1].
    """

    def __init__(
        self, problem: Problem, rng: np.random.Generator, survival: Survival, population: int, crossover_rate: float,
        mutation_rate: float,
    ) -> None:  # fmt: skip
        self._space, self._rng, self._survival = problem.space, rng, survival
        self._size, self._crossover_rate, self._mutation_rate = population, crossover_rate, mutation_rate
        self._proposed = Proposed(problem.space)
        self._seeds = self._proposed.claim(self._space.canonical(problem.first_rows))
        self._asked = 0
        self._waiting: list[Evidence] = []
        self._survivors = Told(
            np.empty((0, self._space.dimension), self._space.dtype), np.empty((0, problem.objectives)),
            np.empty((0, 2)),
        )  # fmt: skip
        self._distance: NDArray[np.float64] | None = None
        self._front = Front(self._space, problem.objectives)

    def ask(self, n: int) -> Batch:
        """Seeds, samples, then children; at most a population at once."""
        self._settle()
        rows = self._initial(n)
        if not len(rows):
            rows = self._bred(min(n, self._size))
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        """Note evidence; it counts from the next ask on."""
        self._proposed.note_strangers(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        """The front of everything told, spread out; where it has fewer than ``n``, the survivors behind it too."""
        self._settle()
        self._front.settle()
        rows = self._front.best(n)
        if len(rows) < n:
            values = self._survivors.values
            behind = np.lexsort((np.arange(len(values)), values.sum(axis=1), dominance_ranks(values)))
            rows = distinct(np.concatenate([rows, self._survivors.rows[behind]]))[:n]
        return rows

    def _settle(self) -> None:
        """Choose survivors, in the order of ids, whatever order the evidence came in."""
        if not self._waiting:
            return
        fresh, self._waiting = told(self._waiting), []
        if not len(fresh.rows):
            return
        both, order = merged([self._survivors, fresh])
        ranks = dominance_ranks(both.values, enough=self._size)
        self._front.consider(both.take((ranks == 0) & (order >= len(self._survivors.rows))))  # others are on no front
        chosen, self._distance = self._survival.survive(both.values, ranks, self._size)
        self._survivors = both.take(chosen)

    def _initial(self, n: int) -> Population:
        seeds, self._seeds = self._seeds[:n], self._seeds[n:]
        missing = min(n - len(seeds), self._size - len(self._proposed))
        return seeds if missing <= 0 else np.concatenate([seeds, self._proposed.samples(self._rng, missing)])

    def _bred(self, n: int) -> Population:
        if not len(self._survivors.rows):  # nothing has succeeded yet
            return self._proposed.samples(self._rng, n)
        children = self._proposed.claim(self._children(n))
        for _ in range(_VARIATIONS):
            if len(children) == n:
                return children
            varied = self._space.mutate(self._rng, self._children(n - len(children)))
            children = np.concatenate([children, self._proposed.claim(self._space.canonical(varied))])
        return np.concatenate([children, self._proposed.samples(self._rng, n - len(children))])

    def _children(self, n: int) -> Population:
        space, rng = self._space, self._rng
        mothers, fathers = self._parents(n), self._parents(n)
        crossed = (rng.random(n) < self._crossover_rate) & (mothers != fathers)
        mutated = ~crossed | (rng.random(n) < self._mutation_rate)
        children = self._survivors.rows[mothers]
        if crossed.any():
            children[crossed] = space.crossover(rng, children[crossed], self._survivors.rows[fathers[crossed]])
        if mutated.any():
            children[mutated] = space.mutate(rng, children[mutated])
        return space.canonical(children)

    def _parents(self, n: int) -> NDArray[np.intp]:
        """Positions of the winners of ``n`` binary tournaments, or of any."""
        if self._distance is None:
            return self._rng.integers(len(self._survivors.rows), size=n)
        one, other = self._rng.integers(len(self._survivors.rows), size=(2, n))
        first, second = self._survivors.values[one], self._survivors.values[other]
        better, worse = second <= first, second >= first
        # Of equal values neither dominates: `better` and `worse` are then both true everywhere.
        wins, loses = better.all(axis=1) & ~worse.all(axis=1), worse.all(axis=1) & ~better.all(axis=1)
        return np.where(wins | (~loses & (self._distance[other] > self._distance[one])), other, one)

