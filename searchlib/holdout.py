"""Honest numbers at the end: pick the winner on SELECT, compare it with the references on HOLDOUT."""

from __future__ import annotations

import dataclasses
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
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Holdout:
        """Rebuild from :meth:`to_json`."""
        rows = tuple(
            Comparison(
                row["name"], row["value"], tuple(row["interval"]), row["difference"], tuple(row["difference_interval"])
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
    draws = {} if picks is None else {name: _value(objective, table[picks]) for name, table in scores.items()}
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


def _student(contributions: NDArray[np.float64]) -> tuple[float, float]:
    mean, n = float(contributions.mean()), len(contributions)
    spread = float(contributions.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    if spread == 0.0:
        return mean, mean
    from scipy import stats  # half a second that `import searchlib` should not cost

    low, high = stats.t.interval(LEVEL, n - 1, loc=mean, scale=spread)
    return float(low), float(high)


def _percentile(draws: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
