"""How much a winner's value flatters it: it was chosen for being good on the very cases that the value is about.

* :func:`optimism` compares the value that decided with the held-out value.
* :func:`corrected` needs no held-out cases: it repeats the choice on resampled cases and scores what was chosen on the
  cases left out. It is the bootstrap bias correction (BBC) of I. Tsamardinos, E. Greasidou and G. Borboudakis,
  "Bootstrapping the out-of-sample predictions for efficient and accurate cross-validation", Machine Learning 107
  (2018), section 3 (algorithm 2, and 3.2 for the interval), whose table of out-of-sample predictions is the score
  table of the short list on the SELECT cases here. It knows of no choice but that among these rows: whoever made the
  short list must not have seen the SELECT cases.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.holdout import LEVEL, Comparison
from searchlib.objective import Objective
from searchlib.scoretable import ScoreTable, signs

__all__ = ["Estimate", "Sample", "corrected", "optimism", "standard_error"]

#: Choices repeated on resampled cases; where every one costs calls of ``aggregate``, fewer.
_RESAMPLES, _COSTLY_RESAMPLES = 2000, 200
#: The most numbers per case of which values that are no means are resampled.
_WIDE = 16
_NUMBERS_AT_ONCE = 4_000_000


@final
@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval (NaN where there is none)."""

    value: float
    interval: tuple[float, float]

    def to_json(self) -> list[float | None]:
        """Value and interval as JSON values."""
        return [number if math.isfinite(number) else None for number in (self.value, *self.interval)]

    @classmethod
    def from_json(cls, data: list[float | None] | None) -> Estimate | None:
        """Rebuild from :meth:`to_json`; None of None."""
        if data is None:
            return None
        value, low, high = (math.nan if number is None else number for number in data)
        return cls(value, (low, high))


@final
@dataclass(frozen=True)
class Sample:
    """A value over some cases.

    Arguments:
        value: in the objective's own direction.
        standard_error: of the value, over the cases; NaN where nobody knows.
        cases: how many.
    """

    value: float
    standard_error: float
    cases: int

    @classmethod
    def of(cls, row: Comparison, cases: int, additive: bool) -> Sample:
        """What a held-out comparison says about the winner: its interval is Student's where values are means."""
        width = row.interval[1] - row.interval[0]
        return cls(row.value, width / 2 / _reach(cases - 1 if additive else math.inf), cases)


def optimism(sign: float, chosen: Sample, held: Sample) -> Estimate:
    """How much better a winner looked when it was chosen than it is on held-out cases; negative: it looked worse.

    The interval is Welch's for two independent means (on one and the same cases it would be meaningless).

    Arguments:
        sign: +1 where the value is minimized, -1 where it is maximized.
        chosen: the value that decided.
        held: the held-out value.

    Example:
        >>> print(*(f"{end:.3f}" for end in optimism(-1.0, Sample(0.75, 0.03, 100), Sample(0.5, 0.04, 50)).interval))
        0.151 0.349
    """
    difference = sign * (held.value - chosen.value)
    parts = (chosen.standard_error**2, held.standard_error**2)
    if min(chosen.cases, held.cases) < 2 or not math.isfinite(sum(parts)):
        return Estimate(difference, (math.nan, math.nan))
    if not sum(parts):
        return Estimate(difference, (difference, difference))
    # Welch–Satterthwaite
    freedom = sum(parts) ** 2 / (parts[0] ** 2 / (chosen.cases - 1) + parts[1] ** 2 / (held.cases - 1))
    reach = _reach(freedom) * math.sqrt(sum(parts))
    return Estimate(difference, (difference - reach, difference + reach))


def corrected(
    objective: Objective, scores: NDArray[np.float64], secondary: NDArray[np.float64], rng: np.random.Generator
) -> Estimate | None:
    """What the best of some candidates is worth on other cases than those that it was chosen on.

    The estimate is a little pessimistic: every repeated choice has met only 63 % of the cases. The interval (the 2.5th
    and 97.5th percentile of what the repeated choices are worth on the cases left out) is wide for the same reason.

    Arguments:
        objective: how scores make values; it must have one.
        scores: of the m candidates that competed on c cases, shape ``(m, c, k)``.
        secondary: what breaks ties, shape ``(m,)``; NaN where there is none.
        rng: draws the resamples.

    Returns:
        None where there are fewer than two cases, or no candidate, and where observations are so wide that to reduce
        them hundreds of times takes longer than a search (a Fréchet distance on thousands of features).
    """
    sign = float(signs(objective)[0])
    scores = scores[np.argsort(secondary, kind="stable")]  # of equals the first wins
    m, c = scores.shape[:2]
    if c < 2 or not m:
        return None
    if not objective.additive and scores.shape[2] > _WIDE:
        return None
    resample = _means if objective.additive else _aggregates
    values = resample(objective, scores, sign, rng)
    values = values[np.isfinite(values)]  # a resample may have every case, or be degenerate
    if not len(values):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(values.mean()), (float(low), float(high)))


def standard_error(objective: Objective, table: ScoreTable, row: int, rng: np.random.Generator) -> float:
    """Standard error, over the cases, of the first value of a table's ``row``; a bootstrap where it is no mean."""
    if objective.additive or table.scores.shape[1] < 2:
        return float(table.standard_error[row, 0])
    scores = table.scores[row]
    if scores.shape[1] > _WIDE:
        return math.nan
    draws = rng.integers(len(scores), size=(_COSTLY_RESAMPLES, len(scores)))
    values = _resampled(objective, scores[None], draws)[:, 0]
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else math.nan


def _means(
    objective: Objective, scores: NDArray[np.float64], sign: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """For values that are means over the cases: products of the table with the numbers of draws."""
    m, c = scores.shape[:2]
    each = np.asarray(objective.aggregate(scores.reshape(m * c, 1, -1))).reshape(m, c)
    parts, left, at_once = [], _RESAMPLES, max(1, _NUMBERS_AT_ONCE // c)
    while left > 0:
        b = min(left, at_once)
        picks = rng.integers(c, size=(b, c)) + c * np.arange(b)[:, None]
        draws = np.bincount(picks.ravel(), minlength=b * c).reshape(b, c).astype(np.float64)
        chosen = np.argmin(sign * (draws @ each.T), axis=1)
        out = (draws == 0).astype(np.float64)
        with np.errstate(invalid="ignore"):
            worth = (out @ each.T) / out.sum(axis=1, keepdims=True)
        parts.append(worth[np.arange(b), chosen])
        left -= b
    return np.concatenate(parts)


def _aggregates(
    objective: Objective, scores: NDArray[np.float64], sign: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """For any other values."""
    c, values = scores.shape[1], np.full(_COSTLY_RESAMPLES, np.nan)
    draws = rng.integers(c, size=(len(values), c))
    for number, inside in enumerate(sign * _resampled(objective, scores, draws)):
        out = np.bincount(draws[number], minlength=c) == 0
        if out.any() and not np.isnan(inside).all():
            best = int(np.nanargmin(inside))
            values[number] = _reduced(objective, scores[best : best + 1, out])[0]
    return values


def _resampled(
    objective: Objective, scores: NDArray[np.float64], draws: NDArray[np.int64]
) -> NDArray[np.float64]:
    """First values ``(b, m)`` of all rows of a table on the cases of every draw ``(b, c)``, many draws at a time."""
    m, values = len(scores), []
    at_once = max(1, _NUMBERS_AT_ONCE // scores.size)
    for start in range(0, len(draws), at_once):
        some = draws[start : start + at_once]
        block = scores[:, some].swapaxes(0, 1).reshape(len(some) * m, *scores.shape[1:])
        found = _reduced(objective, block)
        if np.isnan(found).all():  # one draw that cannot be reduced spoils the others
            found = np.concatenate([_reduced(objective, scores[:, picks]) for picks in some])
        values.append(found.reshape(len(some), m))
    return np.concatenate(values)


def _reduced(objective: Objective, scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """First values of a table; NaN where the objective makes nothing of so few distinct cases."""
    try:
        return np.asarray(objective.aggregate(scores)[:, 0], np.float64)
    except Exception:  # whatever it raises about a resample, the search itself has succeeded
        return np.full(len(scores), np.nan)


def _reach(freedom: float) -> float:
    """How many standard errors a 95 % interval reaches to either side."""
    from scipy.special import ndtri, stdtrit

    side = (1 + LEVEL) / 2
    return float(ndtri(side) if math.isinf(freedom) else stdtrit(freedom, side))
