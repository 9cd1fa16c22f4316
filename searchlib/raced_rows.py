"""Racing inside a search: rows of the score table that fall behind are not filled to the end.

A new candidate meets the SEARCH cases in stages, twice as many after each one. Between two stages its value on all
cases is estimated from those it has met, and where that is surely behind the leaders of the search, it is stopped. Any
algorithm can search this way: it is told an estimate for a stopped candidate, the true value for all others.

**The estimate** is a paired one. What the leaders usually score on each case is known, and so is their mean over all
cases; the candidate is compared with them on the cases that it has met, and their mean is corrected by the average
difference (difference estimator; Cochran, *Sampling Techniques*, 1977, §7). Cases are drawn as in
:mod:`searchlib.case_order`, anew for every batch, and differences are weighted by one over the case's chance.

**The error.** A candidate is stopped when a one-sided t-test (level ``error`` / number of looks, Bonferroni) says that
its value on all SEARCH cases lies below the bar: the ``keep``-th best complete row. So a candidate that belongs at or
above the bar is stopped with probability ``error`` at most, over the draw of the cases; it is a bound for each
candidate, not for the whole search. Bars are true values, and it takes too low an upper bound of its own value to stop
a candidate wrongly; so it does no harm that the bar rises within a batch, whose most promising candidates are completed
first. The test takes averages over the first stage's cases as normal. On 0/1 scores, also of candidates that differ
from each other in a few cases only, the measured rate keeps the bound; where a few huge scores make the value, it is up
to twice ``error`` (log-normal scores; tests/test_raced_rows.py).

**What the algorithm must bear.** Before the decision the estimate is nearly unbiased. Given that a candidate was
stopped it is too low on average: the unlucky are stopped. An algorithm that models values (a predictor) sees bad
candidates worse than they are; none sees one better than the bar. Standard errors tell how much less is known. An
algorithm that learns from differences among bad candidates as much as from the good ones (a measured profile) should
not be raced.

The order of cases and who is stopped follow from the seed and the history alone, so a study resumes bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import check_field, flag, instance, real_number, whole_number
from searchlib.case_order import chances, drawn_order, spread
from searchlib.cases import Cases
from searchlib.chunks import ChunkScores
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.scoretable import ScoreTable, signs
from searchlib.scoring import Scorer
from searchlib.space import Population

__all__ = ["CaseRacing", "RacedRows"]

#: The mean of so many best rows is what leaders usually score; so many are complete before anybody is stopped.
_LEADERS = 8
#: No stage has fewer cases: with less, a t-test on 0/1 scores means nothing.
_FEWEST = 8
#: Of complete rows, so many of the best are remembered.
_REMEMBERED = 256
#: A candidate that happens to differ from the leaders in one way only seems less uncertain than it is. So many of its
#: cases count twice, with what the complete rows lead to expect.
_PRIOR = 4.0


@final
@dataclass(frozen=True, kw_only=True)
class CaseRacing:
    """How candidates are raced against the leaders of the search; see :mod:`searchlib.raced_rows`.

    With at most eight SEARCH cases nobody is stopped. An objective must be the mean of one score per case.

    Arguments:
        error: largest probability with which a candidate is stopped though its value on all SEARCH cases is as good as
            that of the ``keep``-th best at that time; in (0, 0.5).
        keep: how many leaders a candidate must be able to join, so as not to be stopped.
        first: share of the cases that every candidate meets, in (0, 1]; each stage has twice as many as the one before.
        margin: in units of the value, at least 0: how much better than that a candidate must be for the error to count.
            With 0.01 on accuracies, one that would improve on the leaders by less than a point may be stopped, too.
        informed: whether cases on which candidates differ come first, rather than all alike.

    Raises:
        InvalidSettings: a setting out of its range.

    Example:
        >>> CaseRacing(first=0.25).stages(100)
        (25, 50, 100)
    """

    error: float = 0.1
    keep: int = 1
    first: float = 0.125
    informed: bool = True
    margin: float = 0.0

    def __post_init__(self) -> None:
        check_field(self, "error", real_number, "(0, 0.5)")
        check_field(self, "keep", whole_number, 1)
        check_field(self, "first", real_number, "(0, 1]")
        check_field(self, "informed", flag)
        check_field(self, "margin", real_number, "[0, inf)")

    def stages(self, cases: int) -> tuple[int, ...]:
        """How many of so many cases a candidate has met after each stage."""
        ends, end = [], max(_FEWEST, int(np.ceil(self.first * cases)))
        while end < cases:
            ends.append(end)
            end *= 2
        return (*ends, cases)


@final
@dataclass(frozen=True, eq=False)
class _Course:
    """What a batch is raced on: leaders' usual scores ``(c,)``, the sizes ``(c,)`` of the cases, and their order."""

    usual: NDArray[np.float64]
    sizes: NDArray[np.float64]
    order: NDArray[np.intp]

    def met(self, end: int) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """The first ``end`` cases, their chances, and their weights in an average."""
        met = self.order[:end]
        chance = chances(self.sizes, end)[met]
        return met, chance, 1 / chance / (1 / chance).sum()


@final
class RacedRows:
    """Fills the score tables of batches as far as their candidates deserve.

    Arguments:
        settings: how.
        objective: whose SEARCH cases; its value must be the mean of one score per case.
        scorer: evaluates and journals.
        cases: the SEARCH cases.
        seed: of the draw of the cases.

    Raises:
        InvalidSettings: the objective cannot be raced.
    """

    def __init__(self, settings: CaseRacing, objective: Objective, scorer: Scorer, cases: Cases, seed: int) -> None:
        instance("racing", settings, CaseRacing, "a CaseRacing(…)")
        if objective.direction not in ("minimize", "maximize") or not objective.additive:
            raise InvalidSettings(
                f"only an objective whose one value is the mean over its cases can be raced, but "
                f"{type(objective).__name__} has direction={objective.direction!r} and additive={objective.additive}; "
                f"leave racing out"
            )
        if objective.recomputable or objective.differentiable:
            what = "recomputable" if objective.recomputable else "differentiable"
            raise InvalidSettings(
                f"{type(objective).__name__} is {what}, so its rows are needed whole or cost nothing; leave racing out"
            )
        self._settings, self._objective, self._scorer, self._cases = settings, objective, scorer, cases
        self._sign, self._seed = float(signs(objective)[0]), seed
        self._batches, self._leaders = 0, max(_LEADERS, settings.keep)
        self._scores: NDArray[np.float64] = np.empty((0, len(cases)))  # of the best complete rows, best first
        self._secondary: NDArray[np.float64] = np.empty((0, len(cases)))
        #: What the last batch evaluated: rows and cases that met.
        self.parts: list[tuple[Population, Cases]] = []
        #: Cells evaluated so far, cells of full rows, candidates raced and stopped.
        self.cells = self.whole = self.raced = self.stopped = 0

    def score(self, rows: Population, number: int) -> ScoreTable:
        """The table of the new candidates ``(n, d)`` of the batch ``number``; what is on file is read."""
        n, c = len(rows), len(self._cases)
        self.parts, self._batches = [], self._batches + 1
        table = ScoreTable(self._objective, n, c)
        on_file = self._scorer.on_file(number)
        pilots = np.arange(min(n, max(0, self._leaders - len(self._scores))))
        self._fill(table, rows, pilots, np.arange(c), (0, 0), number, on_file)
        self._admit(table, pilots)
        alive, place, begin = np.arange(len(pilots), n), len(pilots), 0
        course = self._course()
        for end in (c,) if course is None else self._settings.stages(c):
            order = np.arange(c) if course is None else course.order
            self._fill(table, rows, alive, order[begin:end], (place, begin), number, on_file)
            alive, begin = alive[table.done[alive]], end
            if course is not None and end < c and len(alive):
                value, error = self._estimated(table, alive, course, end)
                first = self._first(value)
                # On file they get rows of their own, which nobody takes later on.
                self._fill(table, rows, alive[first], order[end:], (place, end), number, on_file)
                self._admit(table, alive[first])
                place += len(first)
                rest = np.delete(np.arange(len(alive)), first)
                out = rest[self._behind(value[rest], error[rest], end)]
                self._stop(table, alive[out], value[out], error[out], course, end)
                alive = alive[np.setdiff1d(rest, out)]
        self._admit(table, alive)
        self.whole, self.raced = self.whole + n * c, self.raced + n
        self.stopped += int(table.stopped.sum())
        table.reduce()
        return table

    def notes(self) -> dict[str, Any]:
        """What the race saved and what its error means, as JSON values."""
        return {
            "cells": self.cells, "cells_of_full_rows": self.whole, "candidates": self.raced, "stopped": self.stopped,
            "error": self._settings.error, "keep": self._settings.keep, "margin": self._settings.margin,
        }  # fmt: skip

    def _fill(
        self, table: ScoreTable, rows: Population, mine: NDArray[np.intp], columns: NDArray[np.intp],
        at: tuple[int, int], number: int, on_file: dict[tuple[int, int], ChunkScores],
    ) -> None:  # fmt: skip
        """Meet some rows with some cases; on file the first of them stands at row and case ``at`` of the batch."""
        if not len(mine):
            return
        for scores in self._scorer.cells(rows[mine], columns, at, number, on_file):
            chunk = scores.chunk
            table.fill(scores, mine[chunk.row : chunk.row_end], columns[chunk.case : chunk.case_end])
        if table.scores.shape[2] != 1:
            raise InvalidSettings(
                f"racing needs one score per case, but {type(self._objective).__name__} gives "
                f"{table.scores.shape[2]} numbers; leave racing out"
            )
        self.parts.append((rows[mine], self._cases.take(columns)))
        self.cells += len(mine) * len(columns)

    def _admit(self, table: ScoreTable, places: NDArray[np.intp]) -> None:
        """Remember complete rows, of equals the earlier ones first."""
        places = places[table.done[places]]
        if not len(places):
            return
        self._scores = np.concatenate([self._scores, table.scores[places, :, 0]])
        self._secondary = np.concatenate([self._secondary, table.secondary_scores[places]])
        best = np.argsort(self._sign * self._scores.mean(axis=1), kind="stable")[:_REMEMBERED]
        self._scores, self._secondary = self._scores[best], self._secondary[best]

    def _course(self) -> _Course | None:
        """None where too few rows are complete (because they failed)."""
        settings, scores = self._settings, self._scores
        if len(scores) < max(2, settings.keep):
            return None
        usual = scores[: self._leaders].mean(axis=0)
        sizes = spread(scores, usual)
        if not settings.informed:
            sizes = np.full(len(sizes), np.sqrt((sizes**2).mean()))
        rng = np.random.default_rng([self._seed, 2, self._batches])
        return _Course(usual, sizes, drawn_order(sizes, rng))

    @property
    def _bar(self) -> float:
        """What a value must reach."""
        return float(self._scores[self._settings.keep - 1].mean())

    def _estimated(
        self, table: ScoreTable, alive: NDArray[np.intp], course: _Course, end: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Values and their standard errors after ``end`` cases.

        The variance is that of a ratio estimator under sequential Poisson sampling (Ohlsson, 1998), where the square of
        a residual also counts what the complete rows lead to expect on the case.
        """
        met, chance, weights = course.met(end)
        difference = table.scores[alive[:, None], met, 0] - course.usual[met]
        mean = difference @ weights
        squares = (difference - mean[:, None]) ** 2 + _PRIOR / end * course.sizes[met] ** 2
        variance = squares @ ((1 - chance) * weights**2) * end / (end - 1)
        return course.usual.mean() + mean, np.sqrt(variance)

    def _first(self, value: NDArray[np.float64]) -> NDArray[np.intp]:
        """Who is completed at once: the ``keep`` most promising, where they seem to raise the bar for the others."""
        best = np.argsort(self._sign * value, kind="stable")[: self._settings.keep]
        return best[self._sign * (value[best] - self._bar) < 0]

    def _behind(self, value: NDArray[np.float64], error: NDArray[np.float64], end: int) -> NDArray[np.bool_]:
        from scipy.special import stdtrit

        looks = len(self._settings.stages(len(self._cases))) - 1
        reach = float(stdtrit(end - 1, 1 - self._settings.error / looks))
        return np.asarray(self._sign * (value - self._bar) + self._settings.margin - reach * error > 0)

    def _stop(
        self, table: ScoreTable, out: NDArray[np.intp], value: NDArray[np.float64], error: NDArray[np.float64],
        course: _Course, end: int,
    ) -> None:  # fmt: skip
        met, _, weights = course.met(end)
        scores, seen = table.scores[out[:, None], met, 0], table.secondary_scores[out[:, None], met]
        usual = self._secondary[: self._leaders].mean(axis=0)  # NaN, like all of them, where there are none
        within = (scores - scores @ weights[:, None]) ** 2 @ weights / len(self._cases)
        table.stop(out, value, np.sqrt(error**2 + within), (seen - usual[met]) @ weights + usual.mean())
