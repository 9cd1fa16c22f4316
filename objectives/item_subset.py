"""The product of FlashEval: a few items of a benchmark that stand for all of it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings

__all__ = ["Estimate", "ItemSubset"]


@final
@dataclass(frozen=True)
class Estimate:
    """What a subset says about a model that was scored on it alone.

    Arguments:
        score: estimated score on the whole benchmark.
        interval: 95 % prediction interval of the score.
        rank: rank that the score would take among the known models, 1 the best.
        rank_interval: best and worst rank within the interval.
        models: number of known models ranked against.
    """

    score: float
    interval: tuple[float, float]
    rank: int
    rank_interval: tuple[int, int]
    models: int


@final
@dataclass(frozen=True, eq=False)
class ItemSubset:
    """Chosen items, and how the mean over them translates into the score on the whole benchmark.

    Arguments:
        items: ids of the chosen items, as in the score table.
        models: names of the models that it is calibrated with.
        subset_scores: their means over the chosen items, shape ``(models,)``.
        full_scores: their scores on the whole benchmark, shape ``(models,)``.
        noise: standard deviation of a subset mean for a model that was not searched on, in units of the scores.

    Example:
        >>> means, full = np.array([0.1, 0.5, 0.9]), np.array([0.2, 0.5, 0.8])
        >>> subset = ItemSubset(("q3", "q7"), ("a", "b", "c"), means, full, noise=0.01)
        >>> estimate = subset.score({"q3": 0.6, "q7": 0.8})
        >>> round(estimate.score, 3), estimate.rank
        (0.65, 2)
    """

    items: tuple[str | int, ...]
    models: tuple[str, ...]
    subset_scores: NDArray[np.float64]
    full_scores: NDArray[np.float64]
    noise: float

    def __post_init__(self) -> None:
        if len(self.models) < 3:
            raise InvalidSettings(f"a subset needs at least 3 models to be calibrated, but has {len(self.models)}")

    def score(self, scores: Mapping[Any, float] | Sequence[float] | NDArray[Any]) -> Estimate:
        """Estimate the full score of a new model from its scores on the chosen items.

        A straight line through the known models translates; its prediction interval uses Student's t with the larger
        of two errors: that of the line's leave-one-out predictions, which is too small because the items were chosen
        to fit these models, and :attr:`noise`.

        Arguments:
            scores: by item id, or in the order of :attr:`items`.

        Raises:
            InvalidSettings: an item is missing, or a score is not finite.
        """
        mean = float(np.mean(self._values(scores)))
        from scipy import stats

        slope, intercept, leverage, error = self._line(mean)
        value = intercept + slope * mean
        reach = float(stats.t.ppf(0.975, len(self.models) - 2)) * math.hypot(error, error * math.sqrt(leverage))
        low, high = value - reach, value + reach
        ranks = [1 + int((self.full_scores > bound).sum()) for bound in (value, high, low)]
        return Estimate(value, (low, high), ranks[0], (ranks[1], ranks[2]), len(self.models))

    def save(self, path: str | Path) -> None:
        """Write the subset down: ``.json`` can be read by :meth:`load`; ``.csv`` lists the item ids only."""
        path = Path(path)
        if path.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([["item"], *([item] for item in self.items)])
        elif path.suffix == ".json":
            columns = {"subset_scores": self.subset_scores.tolist(), "full_scores": self.full_scores.tolist()}
            data = {"items": list(self.items), "models": list(self.models), **columns, "noise": self.noise}
            path.write_text(json.dumps(data, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        else:
            raise InvalidSettings(f"a subset is written as .json or .csv, but the path is {str(path)!r}")

    @classmethod
    def load(cls, path: str | Path) -> ItemSubset:
        """Read what :meth:`save` wrote as JSON."""
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        try:
            subset, full = (np.asarray(data[name], np.float64) for name in ("subset_scores", "full_scores"))
            return cls(tuple(data["items"]), tuple(data["models"]), subset, full, float(data["noise"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidSettings(f"{str(path)!r} does not hold a subset written by save ({error!r})") from error

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.items[:4])) + (", …" if len(self.items) > 4 else "")
        return f"ItemSubset({len(self.items)} items: {shown}; calibrated with {len(self.models)} models)"

    def _values(self, scores: Mapping[Any, float] | Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
        if isinstance(scores, Mapping):
            missing = [item for item in self.items if item not in scores]
            if missing:
                raise InvalidSettings(f"scores of {len(missing)} chosen items are missing, the first is {missing[0]!r}")
            scores = [scores[item] for item in self.items]
        values = np.asarray(scores, np.float64)
        if values.shape != (len(self.items),) or not np.isfinite(values).all():
            raise InvalidSettings(
                f"one finite score for each of the {len(self.items)} chosen items is needed, "
                f"but got {values.size} of which {int(np.isfinite(values).sum())} are finite"
            )
        return values

    def _line(self, at: float) -> tuple[float, float, float, float]:
        """Slope, intercept, leverage of a new model at ``at``, and standard error of a prediction."""
        x, y, n = self.subset_scores, self.full_scores, len(self.models)
        spread = float(((x - x.mean()) ** 2).sum())
        slope = 0.0 if spread == 0 else float(((x - x.mean()) * (y - y.mean())).sum()) / spread
        intercept = float(y.mean() - slope * x.mean())
        hat = 1 / n + (0.0 if spread == 0 else (x - x.mean()) ** 2 / spread)
        left_out = (y - intercept - slope * x) / np.maximum(1 - hat, 1e-9)
        error = max(float(np.sqrt((left_out**2).mean())), abs(slope) * self.noise)
        return slope, intercept, 1 / n + (0.0 if spread == 0 else (at - float(x.mean())) ** 2 / spread), error
