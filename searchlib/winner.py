"""The end of a search: the winner of the short list, and what it is worth on held-out cases."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Run
from searchlib.cases import Split
from searchlib.duplicates import Known
from searchlib.front import Choice, Front, choose_row
from searchlib.history import History
from searchlib.holdout import Holdout, compare
from searchlib.objective import Objective
from searchlib.pareto import nondominated, repeated
from searchlib.scoretable import ScoreTable, signs
from searchlib.scoring import Scorer
from searchlib.selection_bias import Estimate, Sample, corrected, optimism, standard_error
from searchlib.space import Population

__all__ = ["Finals", "Picked", "Winner", "best_of", "shortlist_values"]

logger = logging.getLogger("searchlib")


def best_of(
    values: NDArray[np.float64], secondary: NDArray[np.float64], signs: NDArray[np.float64]
) -> tuple[int, float] | None:
    """Position and value of the best candidate: by value, then secondary, then order; None where all failed."""
    ranked = np.where(np.isnan(values[:, 0]), math.inf, values[:, 0] * signs[0])
    if not len(ranked) or math.isinf(ranked.min()):
        return None
    first = int(np.lexsort((np.arange(len(ranked)), secondary, ranked))[0])
    return first, float(values[first, 0])


def shortlist_values(
    rows: Population, positions: NDArray[np.int64], history: History, scorer: Scorer, select: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], ScoreTable | None]:
    """Values ``(m, objectives)`` and secondary scores ``(m,)`` that decide among recommended candidates.

    With them comes the table of the SELECT cases, where these decide.

    Arguments:
        rows: the short list, shape ``(m, d)``.
        positions: where each row is in the history, or -1.
        history: everything told.
        scorer: scores what is not known yet.
        select: whether to decide on the SELECT cases; else on the SEARCH cases, mostly known already.
    """
    if select:
        table = scorer.score_finalists(rows, Split.SELECT)
        return table.values, table.secondary, table
    # A recommendation that was never told (a distribution's mean), or asked for in a batch that was interrupted.
    unknown = (positions < 0) | (positions >= len(history))
    unknown[~unknown] = history.at("stopped", positions[~unknown])  # of these only an estimate is known
    values, secondary = np.full((len(rows), history.objectives), np.nan), np.full(len(rows), np.nan)
    values[~unknown], secondary[~unknown] = (history.at(name, positions[~unknown]) for name in ("values", "secondary"))
    if unknown.any():
        table = scorer.score_finalists(rows[unknown], Split.SEARCH)
        values[unknown], secondary[unknown] = table.values, table.secondary
    return values, secondary, None


@final
@dataclass(frozen=True, eq=False)
class Picked:
    """A short list and how it did: values and secondary scores that decide, and the best one's place and value.

    ``table`` is that of the SELECT cases, where these decide.
    """

    rows: Population
    values: NDArray[np.float64]
    secondary: NDArray[np.float64]
    table: ScoreTable | None
    place: int
    value: float


@final
@dataclass(frozen=True, eq=False)
class Winner:
    """How a search ends: the winner's genes, the value that decided, the held-out comparison, the front.

    And how much the value flatters: against the held-out one, and what is left of it without (:mod:`selection_bias`).
    """

    row: NDArray[Any] | None
    value: float
    holdout: Holdout | None
    front: Front | None
    optimism: Estimate | None = None
    corrected: Estimate | None = None


@final
class Finals:
    """Lets the recommended candidates compete, and opens the held-out cases for the one that wins.

    Arguments:
        objective: what is searched.
        scorer: scores finalists.
        history: everything told.
        cases: how many cases each split has.
        choose: how the winner is picked of a front; None for one objective.
        shortlist: how many candidates compete on the SELECT cases.
        seed: of the intervals.
        on_file: whether looks at the held-out cases are on file.
    """

    def __init__(
        self, objective: Objective, scorer: Scorer, history: History, cases: Mapping[Split, int], *,
        choose: Choice | None, shortlist: int, seed: int, on_file: bool,
    ) -> None:  # fmt: skip
        self._objective, self._scorer, self._history, self._cases = objective, scorer, history, cases
        self._choose, self._shortlist, self._seed, self._on_file = choose, shortlist, seed, on_file
        self._signs = signs(objective)
        self._picked: tuple[int, Picked | None] | None = None
        self._shown: dict[bytes, tuple[Holdout | None, NDArray[np.float64]]] = {}

    def pick(self, run: Run, known: Known) -> Picked | None:
        """Let what the run recommends compete; None where nobody was evaluated, or nobody has succeeded.

        Until more is told, they compete once, whoever asks how often.
        """
        told = len(self._history)
        if self._picked is None or self._picked[0] != told:
            self._picked = (told, self._competed(self._recommended(run, known), known))
        return self._picked[1]

    def decide(self, run: Run, known: Known) -> Winner:
        """Pick the winner among what the run recommends, and open the held-out cases for it."""
        picked = self.pick(run, known)
        if picked is None:
            return Winner(self._unevaluated(run, known), math.nan, None, None)
        won = self._alone(picked) if self._choose is None else self._of_front(picked)
        return self._doubted(won, picked.rows, known, picked.table)

    @property
    def selected(self) -> float | None:
        """The best value on the SELECT cases; NaN as long as nobody has met them, None where there are none."""
        if not self._cases[Split.SELECT]:
            return None
        picked = None if self._picked is None else self._picked[1]
        return math.nan if picked is None or picked.table is None else picked.value

    def _recommended(self, run: Run, known: Known) -> Population:
        # Without SELECT cases nobody has to be scored again, so the whole front competes.
        free = self._choose is not None and not self._cases[Split.SELECT]
        rows = run.recommend(max(self._shortlist, len(self._history)) if free else self._shortlist)
        # Evaluated outside, a distribution's mean, say, can be handed over only.
        return rows if self._cases[Split.SEARCH] else rows[known.find(rows) >= 0]

    def _unevaluated(self, run: Run, known: Known) -> NDArray[Any] | None:
        """What can be handed over of a search that evaluates outside and knows no value of what it recommends."""
        if self._cases[Split.SEARCH]:
            return None
        rows = run.recommend(self._shortlist)
        return rows[0] if len(rows) and not (known.find(rows) >= 0).any() else None

    def _competed(self, rows: Population, known: Known) -> Picked | None:
        if not len(rows):
            return None
        for on_select in (True, False) if self._cases[Split.SELECT] else (False,):
            values, secondary, table = shortlist_values(
                rows, known.find(rows), self._history, self._scorer, on_select
            )
            best = best_of(values, secondary, self._signs)
            if best is not None:
                return Picked(rows, values, secondary, table, *best)
            if on_select:
                logger.warning("no finalist succeeded on the SELECT cases; the winner is the best on the SEARCH cases")
        return None

    def _alone(self, picked: Picked) -> Winner:
        row = picked.rows[picked.place : picked.place + 1]
        return Winner(row[0], picked.value, self._held_out(row)[0], None)

    def _of_front(self, picked: Picked) -> Winner:
        assert self._choose is not None
        rows, values, secondary = picked.rows, picked.values, picked.secondary
        least = values * self._signs
        places = np.flatnonzero(nondominated(least))
        places = places[np.lexsort((secondary[places], *least[places].T[::-1]))]
        places = places[~repeated(values[places])]  # of equal values the best by the secondary score
        rows, values = rows[places], values[places]
        objective = self._objective
        direction: Any = tuple(objective.direction)
        chosen = choose_row(values, direction, self._choose)
        order = np.concatenate([[chosen], np.delete(np.arange(len(rows)), chosen)])
        holdout, held = self._held_out(rows[order])
        if held is not None:
            held = held[np.argsort(order)]
        names, make = objective.value_names, objective.artifact
        front = Front(objective.space, rows, values, direction, chosen, held, names, make)
        return Winner(rows[chosen], float(values[chosen, 0]), holdout, front)

    def _doubted(self, won: Winner, rows: Population, known: Known, table: ScoreTable | None) -> Winner:
        """The winner with what is known about how much its value flatters."""
        assert won.row is not None
        objective, place = self._objective, int(np.flatnonzero((rows == won.row).all(axis=1))[0])
        position = int(known.find(rows[place : place + 1])[0])
        better, left, error = None, None, math.nan
        if table is not None:
            error = standard_error(objective, table, place, np.random.default_rng([self._seed, 2]))
            if len(self._signs) == 1:
                rng = np.random.default_rng([self._seed, 3])
                left = corrected(objective, table.scores[table.done], table.secondary[table.done], rng)
        elif 0 <= position < len(self._history):
            error = float(self._history.at("standard_error", np.array([position]))[0, 0])
        if won.holdout is not None:
            cases = self._cases[Split.SEARCH if table is None else Split.SELECT]
            held = Sample.of(won.holdout.rows[0], won.holdout.cases, objective.additive)
            better = optimism(float(self._signs[0]), Sample(won.value, error, cases), held)
        return replace(won, optimism=better, corrected=left)

    def _held_out(self, rows: Population) -> tuple[Holdout | None, NDArray[np.float64] | None]:
        """The first row against every reference on the held-out cases, and the values of all rows there."""
        if not self._cases[Split.HOLDOUT]:
            return None, None
        key = rows.tobytes()
        if key not in self._shown:
            first = {shown[: rows[0].nbytes] for shown in self._shown} - {rows[0].tobytes()}
            before = self._scorer.looks(except_row=rows[0]) if self._on_file else 0
            table = self._scorer.score_finalists(rows, Split.HOLDOUT)
            self._shown[key] = (self._compared(table, 1 + max(before, len(first))), table.values)
        return self._shown[key]

    def _compared(self, table: ScoreTable, looks: int) -> Holdout | None:
        """The winner and every reference on the held-out cases; this is the look number ``looks``."""
        if not table.done[0]:
            logger.warning("the winner failed on the held-out cases: %s", table.errors[0])
            return None
        named = {name: self._scorer.score_reference(name) for name in self._objective.references()}
        scores = {"best": table.scores[0], **{name: found for name, found in named.items() if found is not None}}
        return compare(self._objective, scores, np.random.default_rng([self._seed, 1]), looks)
