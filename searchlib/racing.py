"""Races on the score table: stop filling the rows that cannot win.

A decision over a table of candidates × cases needs few of its cells. A race visits the columns one after the other, in
the same order for every candidate (so that candidates are compared on the same cases), and asks for no more cells of
candidates that cannot win. It knows two decisions:

* ``"max"``: the row with the best mean wins. The candidates of the race are the rows.
* ``"sum"``: the group of rows with the largest sum of means wins. The candidates of the race are the groups.

A group is what its rows argue for; a race ends as soon as all that may still win belong to one group.

**Who is out.** Scores are mapped to [0, 1], 1 the best. A candidate is out for certain if its total would not reach the
leader's even if all its open cells were 1 and all the leader's 0 (Hoeffding races, Maron and Moore, 1994, with the
bounds of a table that ends). With ``error=0`` there is no other reason, and the race decides what the whole table
decides. With ``error > 0`` a candidate is also out if the probability that its final total exceeds the leader's is no
larger than that. The final totals are forecast as :mod:`searchlib.forecast` says, and their difference is taken to be
normal, after half a cell in favor of the one that is behind.

**What the error is.** It is the probability of one comparison under the forecast, no bound for the race. On tables of
independent 0/1 scores with uniform success rates and up to 30 columns, races with ``error=0.05`` decide otherwise than
the whole table in fewer than 5 of 100 cases. With 100 columns the best of 8 or 16 rows has closer rivals and fewer
equals, and it is 6 of 100; what is lost, averaged over all races, is below 0.01 of the range (tests/test_racing.py).
Where many candidates are nearly the best, another one of them wins more often. Where columns come in clusters (repeats
of one exam), the forecast is too sure of itself as long as it has seen one cluster only.

**Failures** count once they were seen: a row that would fail in a cell that nobody asked for may win.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.arguments import whole_number
from searchlib.cases import Split
from searchlib.chunks import plan_chunks, score_chunk
from searchlib.decision import DIGITS, Contest, Decision, best, decide
from searchlib.errors import EvaluationFailed, InvalidSettings
from searchlib.forecast import Forecast
from searchlib.objective import Objective
from searchlib.space import Population

__all__ = ["RaceResult", "Racing", "race"]


@final
@dataclass(frozen=True, kw_only=True)
class Racing:
    """How a race eliminates.

    Arguments:
        error: largest probability, by the forecast, with which a candidate that is dropped would have overtaken the
            leader of that moment; in [0, 0.5), where 0 drops only what cannot win for certain.
        first: looks at every candidate before the first one is dropped.
        step: looks between two eliminations.
        voices: for ``"sum"``, how many rows of a group are scored on a column in one look; the others have their say
            only if the decision is still open after all columns. None: all rows at once.
        low, high: the range of the scores.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> Racing(error=0).voices
        4
    """

    error: float = 0.05
    first: int = 1
    step: int = 1
    voices: int | None = 4
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.error < 0.5:
            raise InvalidSettings(f"error must be a probability in [0, 0.5), but is {self.error!r}")
        whole_number("first", self.first, 1)
        whole_number("step", self.step, 1)
        if self.voices is not None:
            whole_number("voices", self.voices, 1)
        if not -np.inf < self.low < self.high < np.inf:
            raise InvalidSettings(f"`low < high` must hold, both finite, but got (low={self.low}, high={self.high})")


@final
@dataclass(frozen=True, eq=False)
class RaceResult:
    """Who won, and what it took.

    Arguments:
        winner: the winning row; with ``groups``, the best row of the winning group, as far as its rows were scored.
        group: what it argues for, as given in ``groups`` (the row itself where there are none).
        scores: shape ``(n, c)``, columns in the order of the cases; NaN where a cell was never evaluated.
        mask: shape ``(n, c)``; True where a cell was evaluated.
        failed: shape ``(n,)``; True for rows whose evaluation failed. They cannot win, and count for nothing in a sum.
        rounds: how often the candidates were looked at and judged.
    """

    winner: int
    group: int
    scores: NDArray[np.float64]
    mask: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    rounds: int

    @property
    def cells(self) -> int:
        """How many cells were evaluated."""
        return int(self.mask.sum())


def race(
    objective: Objective,
    population: Population,
    *,
    racing: Racing | None = None,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    prefer: ArrayLike | None = None,
    decision: Decision = "max",
    seed: int = 0,
    split: Split = Split.SEARCH,
) -> RaceResult:
    """Find the winner among the rows of a population without filling their whole score table.

    Arguments:
        objective: opened already, where it needs to be; its value must be the mean of one score per case.
        population: ``n`` candidates, shape ``(n, d)``.
        racing: settings; None for the defaults.
        groups, weights, prefer, decision: as for :func:`searchlib.decision.decide`.
        seed: shuffles the columns, and the rows of a group.
        split: which cases.

    Returns:
        the result. Where all rows belong to one group, nothing is evaluated.

    Raises:
        InvalidSettings: arguments that do not fit together, an objective that cannot be raced, a score out of range.
        EvaluationFailed: no row could be evaluated; the message ends with the first traceback.

    Example:
        >>> from searchlib import FunctionObjective
        >>> from searchlib.spaces import Integer
        >>> objective = FunctionObjective(lambda value: value / 9, Integer(0, 9), direction="maximize")
        >>> result = race(objective, np.array([[3], [8], [5]]), racing=Racing(error=0))
        >>> result.winner, result.cells
        (1, 3)
    """
    if objective.direction not in ("minimize", "maximize") or not objective.additive:
        raise InvalidSettings(
            f"only an objective whose one value is the mean over its cases can be raced, but "
            f"{type(objective).__name__} has direction={objective.direction!r} and additive={objective.additive}"
        )
    population = objective.space.check(population)
    contest = Contest(len(population), groups, weights, prefer, decision)
    return _Race(objective, population, contest, racing or Racing(), seed, split).run()


class _Race:
    """The table as far as it is filled, and who is still in."""

    def __init__(
        self, objective: Objective, population: Population, contest: Contest, racing: Racing, seed: int, split: Split
    ) -> None:
        self.objective, self.population, self.contest, self.racing = objective, population, contest, racing
        self.cases = objective.cases(split)
        n, c = shape = len(population), len(self.cases)
        if not c:
            raise InvalidSettings(f"{type(objective).__name__} has no {split} cases to race on")
        self.visits, passes = _order(contest, c, racing.voices, np.random.default_rng(seed))
        weights = contest.weights
        self.forecast = Forecast(passes * c, contest.sums(weights) ** 2 / contest.sums(weights**2) / passes)
        self.scores: NDArray[np.float64] = np.full(shape, np.nan)
        self.mask = np.zeros(shape, np.bool_)
        self.failed = np.zeros(n, np.bool_)
        self.failures, self.first_error = 0, ""
        self.heard = np.zeros(n)  # per row, the sum of its scores as parts of the range
        self.alive = np.ones(contest.size, np.bool_)

    def run(self) -> RaceResult:
        limit, rounds = self.racing.first, 0
        while not self._decided():
            self._look(limit)
            self._judge()
            limit, rounds = limit + self.racing.step, rounds + 1
        winner = self._winner()
        return RaceResult(winner, int(self.contest.names[winner]), self.scores, self.mask, self.failed, rounds)

    def _winner(self) -> int:
        contest, rows = self.contest, np.flatnonzero(self._running())
        seen = self.mask[rows].sum(axis=1)
        if seen.any():
            rows, seen = rows[seen > 0], seen[seen > 0]
        winner = decide(
            self.heard[rows] / np.maximum(seen, 1),
            groups=contest.group[rows],
            weights=contest.weights[rows],
            prefer=-contest.row_rank[rows],
            decision=contest.decision,
        )
        return int(rows[winner])

    def _running(self) -> NDArray[np.bool_]:
        running: NDArray[np.bool_] = self.alive[self.contest.owner] & ~self.failed
        return running

    def _decided(self) -> bool:
        running = self._running()
        return len(np.unique(self.contest.group[running])) <= 1 or bool(self.mask[running].all())

    def _look(self, limit: int) -> None:
        """Evaluate what the candidates that are still in have not shown of their first ``limit`` looks."""
        wanted = self._running()[:, None] & (self.visits < limit) & ~self.mask
        rows = np.flatnonzero(wanted.any(axis=1))
        patterns, which = np.unique(wanted[rows], axis=0, return_inverse=True)
        for i, pattern in enumerate(patterns):
            self._evaluate(rows[which.reshape(-1) == i], np.flatnonzero(pattern))
        rows, columns = np.nonzero(wanted & self.mask)
        x = self._parts(self.scores[rows, columns])
        self.heard += np.bincount(rows, x, len(self.heard))
        self.forecast.add(self.contest.owner[rows], self.visits[rows, columns], self.contest.weights[rows], x)

    def _evaluate(self, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> None:
        chunks = plan_chunks(len(rows), len(columns), self.objective.chunk_rows, self.objective.chunk_cases)
        for chunk in chunks:
            mine, theirs = rows[chunk.row : chunk.row_end], columns[chunk.case : chunk.case_end]
            done = score_chunk(self.objective, self.population[mine], self.cases.take(theirs), chunk)
            good = done.status == Status.DONE
            if good.any() and done.values.shape[2] != 1:
                raise InvalidSettings(f"a race needs one score per cell, but there are {done.values.shape[2]}")
            cells = np.ix_(mine[good], theirs)
            self.scores[cells], self.mask[cells] = done.values[good, :, 0], True
            self.failed[mine[~good]] = True
            self.first_error = self.first_error or next(filter(None, done.errors), "")

    def _parts(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores as parts of the range, 1 the best."""
        low, high = self.racing.low, self.racing.high
        outside = (scores < low) | (scores > high)
        if outside.any():
            raise InvalidSettings(
                f"the scores of this race must lie in [{low}, {high}], but one is {scores[outside][0]}; "
                "say what their range is: Racing(low=…, high=…)"
            )
        parts: NDArray[np.float64] = (scores - low) / (high - low)
        return parts if self.objective.direction == "maximize" else 1 - parts

    def _judge(self) -> None:
        """Drop who cannot win any more."""
        weights = np.where(self.failed, 0.0, self.contest.weights)
        self._bury(self.contest.sums(weights) > 0)
        total = self.contest.sums(weights * self.heard)
        left = self.contest.sums(weights * (~self.mask).sum(axis=1))
        out = self._certainly_behind(total, total + left)
        if self.racing.error:
            out |= self._probably_behind(total, left)
        self.alive &= ~out

    def _bury(self, sound: NDArray[np.bool_]) -> None:
        """Candidates without a sound row are out; those that were only behind one of them are in again."""
        if not sound.any():
            raise EvaluationFailed(
                f"no candidate of the race could be evaluated; the first failure:\n{self.first_error}"
            )
        if self.failed.sum() > self.failures:
            self.failures = int(self.failed.sum())
            self.alive[:] = sound

    def _certainly_behind(self, least: NDArray[np.float64], most: NDArray[np.float64]) -> NDArray[np.bool_]:
        rank = self.contest.rank
        leader = best(np.where(self.alive, least, -1.0), rank)
        bar, most = np.round(least[leader], DIGITS), np.round(most, DIGITS)
        return np.asarray((most < bar) | ((most == bar) & (rank > rank[leader])))

    def _probably_behind(self, total: NDArray[np.float64], left: NDArray[np.float64]) -> NDArray[np.bool_]:
        rest, variance = self.forecast.rest(left)
        final = total + rest
        leader = best(np.where(self.alive, final, -1.0), self.contest.rank)
        half = self.contest.sums(self.contest.weights) / np.bincount(self.contest.owner) / 2
        limit = NormalDist().inv_cdf(self.racing.error)
        behind = np.asarray(final + half - final[leader] <= limit * np.sqrt(variance + variance[leader]))
        behind[leader] = False
        return behind


def _order(
    contest: Contest, columns: int, voices: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """At which look each cell is visited, ``(n, c)``, and how many times each candidate passes over the columns.

    In every pass a candidate visits all columns, in the same order. A row of a group that needs several passes is
    heard in one of them on each column, in another one from column to column.
    """
    place = rng.permutation(columns)
    sizes = np.bincount(contest.owner)
    passes = np.ones(contest.size, np.int64) if voices is None else -(-sizes // voices)
    shuffled = np.lexsort((rng.random(len(contest.owner)), contest.owner))
    number = np.empty_like(shuffled)  # of a row within its candidate
    number[shuffled] = np.arange(len(shuffled)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    visits: NDArray[np.int64] = (number[:, None] - place) % passes[contest.owner][:, None] * columns + place
    return visits, passes
