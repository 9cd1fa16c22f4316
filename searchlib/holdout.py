"""Honest numbers at the end: pick the winner on SELECT, compare it with the references on HOLDOUT."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.objective import Objective

__all__ = ["Comparison", "Holdout", "compare"]

#: Confidence level of every interval.
LEVEL = 0.95
_RESAMPLES = 2000
_NUMBERS_AT_ONCE = 4_000_000


@final
@dataclass(frozen=True)
class Comparison:
    """One thing on the held-out cases, and the winner against it.

    Arguments:
        name: the winner, or a reference of the objective.
        value: its value on the held-out cases, in the objective's own direction.
        interval: 95 % confidence interval of the value.
        difference: winner's value minus this one's; 0 for the winner.
        difference_interval: 95 % interval of the difference, paired over cases.
    """

    name: str
    value: float
    interval: tuple[float, float]
    difference: float
    difference_interval: tuple[float, float]


@final
@dataclass(frozen=True)
class Holdout:
    """The winner and the references on cases that no algorithm has seen.

    Arguments:
        rows: the winner first, then the references.
        cases: number of held-out cases.
        looks: how many winners this study has been shown these cases for; after more than one look the held-out
            value is itself selected, and the interval too narrow.
    """

    rows: tuple[Comparison, ...]
    cases: int
    looks: int

    @property
    def value(self) -> float:
        """The winner's held-out value."""
        return self.rows[0].value

    @property
    def interval(self) -> tuple[float, float]:
        """The winner's 95 % interval."""
        return self.rows[0].interval

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        rows = [
            {name: _finite_or_none(value) for name, value in dataclasses.asdict(row).items()} for row in self.rows
        ]
        return {"rows": rows, "cases": self.cases, "looks": self.looks}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Holdout:
        """Rebuild from :meth:`to_json`."""
        rows = tuple(
            Comparison(
                row["name"],
                _number(row["value"]),
                (_number(row["interval"][0]), _number(row["interval"][1])),
                _number(row["difference"]),
                (_number(row["difference_interval"][0]), _number(row["difference_interval"][1])),
            )
            for row in data["rows"]
        )
        return cls(rows, data["cases"], data["looks"])

    def against(self, name: str) -> Comparison:
        """The comparison with one reference."""
        for row in self.rows[1:]:
            if row.name == name:
                return row
        raise KeyError(f"no reference is called {name!r}; there are {[row.name for row in self.rows[1:]]}")


def _finite_or_none(value: Any) -> Any:
    """JSON has no word for NaN."""
    if isinstance(value, tuple):
        return [_finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def compare(
    objective: Objective, scores: dict[str, NDArray[np.float64]], rng: np.random.Generator, looks: int
) -> Holdout:
    """Compare the first entry of ``scores`` (name to scores ``(c, k)``) with every other one.

    Intervals are Student's t over cases where the objective is additive, else a percentile bootstrap over cases
    (2000 resamples). Of several objectives the first number is compared.
    """
    winner, *_ = scores
    c = len(scores[winner])
    values = {name: _value(objective, table[None])[0] for name, table in scores.items()}
    picks = None if objective.additive else rng.integers(c, size=(_RESAMPLES, c))
    draws = {} if picks is None else {name: _resampled(objective, table, picks) for name, table in scores.items()}
    rows = []
    for name, table in scores.items():
        difference = values[winner] - values[name]
        if picks is None:
            first = objective.aggregate(table[:, None])[:, 0]  # every case alone: its own contribution to the mean
            won = objective.aggregate(scores[winner][:, None])[:, 0]
            interval, paired = _student(first), _student(won - first)
        else:
            interval, paired = _percentile(draws[name]), _percentile(draws[winner] - draws[name])
        rows.append(Comparison(name, float(values[name]), interval, float(difference), paired))
    return Holdout(tuple(rows), c, looks)


def _value(objective: Objective, tables: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(objective.aggregate(tables)[:, 0])


def _resampled(
    objective: Objective, table: NDArray[np.float64], picks: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Values of all resamples, a few at a time: an observation may be thousands of numbers per case."""
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, table.size))
    blocks = [picks[start : start + at_once] for start in range(0, len(picks), at_once)]
    return np.concatenate([_value(objective, table[block]) for block in blocks])


def _student(contributions: NDArray[np.float64]) -> tuple[float, float]:
    mean, n = float(contributions.mean()), len(contributions)
    spread = float(contributions.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    if n < 2:
        return math.nan, math.nan
    if spread == 0.0:
        return mean, mean
    from scipy import stats  # half a second that `import searchlib` should not cost

    low, high = stats.t.interval(LEVEL, n - 1, loc=mean, scale=spread)
    return float(low), float(high)


def _percentile(draws: NDArray[np.float64]) -> tuple[float, float]:
    draws = draws[np.isfinite(draws)]  # a resample may be degenerate: a correlation of equal cases
    if not len(draws):
        return math.nan, math.nan
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
