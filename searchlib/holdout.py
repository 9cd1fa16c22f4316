"""Honest numbers at the end: pick the winner on SELECT, compare it with the references on HOLDOUT."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
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
        rows: the winner first, then the references, compared in the first objective.
        cases: number of held-out cases.
        looks: how many winners this study has been shown these cases for; after more than one look the held-out
            value is itself selected, and the interval too narrow.
        others: the same rows for every further objective; NaN where a reference does not have that number.
    """

    rows: tuple[Comparison, ...]
    cases: int
    looks: int
    others: tuple[tuple[Comparison, ...], ...] = ()

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
        rows, *others = (_rows_to_json(rows) for rows in (self.rows, *self.others))
        return {"rows": rows, "cases": self.cases, "looks": self.looks, **({"others": others} if others else {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Holdout:
        """Rebuild from :meth:`to_json`."""
        others = tuple(_rows_from_json(rows) for rows in data.get("others", ()))
        return cls(_rows_from_json(data["rows"]), data["cases"], data["looks"], others)

    def __str__(self) -> str:
        return self.table()

    def table(self, names: Sequence[str] = ()) -> str:
        """The comparison for people: a line for the winner and for every reference, of each objective.

        Arguments:
            names: of the objectives; by default numbers.

        Example:
            >>> ours = Comparison("best", 0.9, (0.8, 1.0), 0.0, (0.0, 0.0))
            >>> print(Holdout((ours, Comparison("full model", 0.5, (0.4, 0.6), 0.4, (0.2, 0.6))), 40, 1))
            held-out   40 cases, look 1
              best               0.9  [0.8, 1]
              full model         0.5  [0.4, 0.6]   best is +0.4 [+0.2, +0.6]
        """
        lines = [f"held-out   {self.cases} cases, look {self.looks}", *_lines(self.rows)]
        for number, rows in enumerate(self.others, start=1):
            lines += [f"  {names[number] if names else f'value {number}'}", *_lines(rows)]
        return "\n".join(lines)

    def against(self, name: str) -> Comparison:
        """The comparison with one reference."""
        for row in self.rows[1:]:
            if row.name == name:
                return row
        raise KeyError(f"no reference is called {name!r}; there are {[row.name for row in self.rows[1:]]}")


def _lines(rows: tuple[Comparison, ...]) -> list[str]:
    """One line for the winner, one for each reference."""
    width, lines = max(len(row.name) for row in rows), []
    for row in rows:
        text = f"  {row.name:<{width}}  {row.value:10.4g}  [{row.interval[0]:.4g}, {row.interval[1]:.4g}]"
        if row is not rows[0] and not math.isnan(row.difference):
            low, high = row.difference_interval
            text += f"   best is {row.difference:+.4g} [{low:+.4g}, {high:+.4g}]"
        lines.append(text)
    return lines


def _rows_to_json(rows: tuple[Comparison, ...]) -> list[dict[str, Any]]:
    return [{name: _finite_or_none(value) for name, value in dataclasses.asdict(row).items()} for row in rows]


def _rows_from_json(rows: list[dict[str, Any]]) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(
            row["name"],
            _number(row["value"]),
            (_number(row["interval"][0]), _number(row["interval"][1])),
            _number(row["difference"]),
            (_number(row["difference_interval"][0]), _number(row["difference_interval"][1])),
        )
        for row in rows
    )


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
    (2000 resamples). Of several objectives each is compared by itself.
    """
    winner, *_ = scores
    c = len(scores[winner])
    values = {name: objective.aggregate(table[None])[0] for name, table in scores.items()}
    if objective.additive:  # every case alone is its own contribution to the mean
        draws = {name: np.asarray(objective.aggregate(table[:, None])) for name, table in scores.items()}
    else:
        picks = rng.integers(c, size=(_RESAMPLES, c))
        draws = {name: _resampled(objective, table, picks) for name, table in scores.items()}
    interval = _student if objective.additive else _percentile
    compared = [
        tuple(
            Comparison(
                name, float(values[name][number]), interval(draws[name][:, number]),
                float(values[winner][number] - values[name][number]),
                interval(draws[winner][:, number] - draws[name][:, number]),
            )
            for name in scores
        )
        for number in range(len(values[winner]))
    ]  # fmt: skip
    return Holdout(compared[0], c, looks, tuple(compared[1:]))


def _resampled(
    objective: Objective, table: NDArray[np.float64], picks: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Values ``(resamples, objectives)``, a few at a time: an observation may be thousands of numbers per case."""
    at_once = max(1, _NUMBERS_AT_ONCE // max(1, table.size))
    blocks = [picks[start : start + at_once] for start in range(0, len(picks), at_once)]
    return np.concatenate([objective.aggregate(table[block]) for block in blocks])


def _student(contributions: NDArray[np.float64]) -> tuple[float, float]:
    mean, n = float(contributions.mean()), len(contributions)
    spread = float(contributions.std(ddof=1) / np.sqrt(n)) if n > 1 else 0.0
    if n < 2 or math.isnan(mean):
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
