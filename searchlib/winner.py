"""The end of a search: the winner of the short list, and what it is worth on held-out cases."""

from __future__ import annotations

import logging
import math

import numpy as np
from numpy.typing import NDArray

from searchlib.cases import Split
from searchlib.history import History
from searchlib.holdout import Holdout, compare
from searchlib.objective import Objective
from searchlib.scoring import Scorer
from searchlib.space import Population

__all__ = ["best_of", "held_out", "shortlist_values"]

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
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Values ``(m, objectives)`` and secondary scores ``(m,)`` that decide among recommended candidates.

    Arguments:
        rows: the short list, shape ``(m, d)``.
        positions: where each row is in the history, or -1.
        history: everything told.
        scorer: scores what is not known yet.
        select: whether to decide on the SELECT cases; else on the SEARCH cases, mostly known already.
    """
    if select:
        table = scorer.score_finalists(rows, Split.SELECT)
        return table.values, table.secondary
    # A recommendation that was never told (a distribution's mean), or asked for in a batch that was interrupted.
    unknown = (positions < 0) | (positions >= len(history))
    values, secondary = np.full((len(rows), history.objectives), np.nan), np.full(len(rows), np.nan)
    values[~unknown], secondary[~unknown] = history.values[positions[~unknown]], history.secondary[positions[~unknown]]
    if unknown.any():
        table = scorer.score_finalists(rows[unknown], Split.SEARCH)
        values[unknown], secondary[unknown] = table.values, table.secondary
    return values, secondary


def held_out(objective: Objective, scorer: Scorer, row: NDArray[np.generic], seed: int, looks: int) -> Holdout | None:
    """Open the held-out cases for the winner and every reference; this is the look number ``looks``."""
    table = scorer.score_finalists(row[None, :], Split.HOLDOUT)
    if not table.done.all():
        logger.warning("the winner failed on the held-out cases: %s", table.errors[0])
        return None
    named = {name: scorer.score_reference(name) for name in objective.references()}
    scores = {"best": table.scores[0], **{name: found for name, found in named.items() if found is not None}}
    return compare(objective, scores, np.random.default_rng([seed, 1]), looks)
