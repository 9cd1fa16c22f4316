"""The product of FlashEval: a few items of a benchmark that stand for all of it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import listed, numbers, real_number, shown
from searchlib.errors import InvalidSettings
from searchlib.json_data import json_object, read_json

__all__ = ["Estimate", "ItemSubset", "choice_effects", "left_out_noise"]


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
        items: ids of the chosen items, as in the score table; one that was drawn twice is there twice and counts twice.
        models: names of the models that it is calibrated with.
        subset_scores: their means over the chosen items, shape ``(models,)``; of models on which the items were chosen,
            without the differences that are due to the choice (:func:`choice_effects`).
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
        for name in ("items", "models"):
            object.__setattr__(self, name, listed(name, getattr(self, name)))
        for name in ("subset_scores", "full_scores"):
            object.__setattr__(self, name, numbers(name, getattr(self, name)))
        if len(self.models) < 3:
            raise InvalidSettings(f"a subset needs at least 3 models to be calibrated, but has {len(self.models)}")
        for name, column in (("subset_scores", self.subset_scores), ("full_scores", self.full_scores)):
            if column.shape != (len(self.models),) or not np.isfinite(column).all():
                raise InvalidSettings(
                    f"{name} must hold one finite score for each of the {len(self.models)} models, but is {column!r}"
                )
        if not self.items:
            raise InvalidSettings("a subset needs at least one item, but has none")
        real_number("noise, a standard deviation,", self.noise, "[0, inf)")

    def score(self, scores: Mapping[Any, float] | Sequence[float] | NDArray[Any]) -> Estimate:
        """Estimate the full score of a new model from its scores on the chosen items.

        A straight line through the known models translates; its prediction interval uses Student's t with the larger
        of two errors: that of the line's leave-one-out predictions, which is too small because the items were chosen
        to fit these models, and :attr:`noise`.

        Arguments:
            scores: by item id (a dict or a Series; 17 and "17" are one id, as JSON and CSV know text only), or in the
                order of :attr:`items`. Scores of other items are ignored.

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
        try:
            data = json_object("it", read_json(path))
            subset, full = (np.asarray(data[name], np.float64) for name in ("subset_scores", "full_scores"))
            return cls(tuple(data["items"]), tuple(data["models"]), subset, full, float(data["noise"]))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InvalidSettings(f"{shown(path)} does not hold a subset written by save ({error!r})") from error

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.items[:4])) + (", …" if len(self.items) > 4 else "")
        return f"ItemSubset({len(self.items)} items: {shown}; calibrated with {len(self.models)} models)"

    def _values(self, scores: Mapping[Any, float] | Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
        if hasattr(scores, "to_dict"):  # a Series knows its items, whatever their order
            scores = scores.to_dict()
        if isinstance(scores, Mapping):
            named = {str(item): score for item, score in scores.items()}
            missing = [item for item in self.items if item not in scores and str(item) not in named]
            if missing:
                raise InvalidSettings(f"scores of {len(missing)} chosen items are missing, the first is {missing[0]!r}")
            scores = [scores[item] if item in scores else named[str(item)] for item in self.items]
        try:
            values = np.asarray(scores, np.float64)
        except (TypeError, ValueError) as error:
            raise InvalidSettings(f"scores must be numbers, but are {scores!r:.120} ({error})") from error
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


def choice_effects(scores: NDArray[np.float64], kept: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """What choosing items on some models does to how far those models are apart on them, and how noisy the items are.

    Items that are chosen because they rank these models well exaggerate the differences between them: part of what
    recommended them is noise. An item's slope is that of its scores over the models' full means; slopes average to one.
    What their variance over all items exceeds that of their errors by is real, and the mean slope of the chosen items
    is shrunk towards one accordingly (empirical Bayes, which no choice made on the same scores can bias).

    Arguments:
        scores: of the models that items were chosen on, shape ``(models, items)``, complete.
        kept: positions of the chosen items; one that is there twice counts twice.

    Returns:
        the factor by which to stretch the subset means of these models about their mean, and the standard deviation of
        the subset mean of one other model about the line, in units of the scores.

    Example:
        >>> scores = np.random.default_rng(0).normal(size=(12, 300)) + np.arange(12)[:, None] / 6
        >>> best = np.argsort(scores[0] - scores[-1])[:10]
        >>> stretch, noise = choice_effects(scores, best)  # slopes differ by noise only, which is 1 per item
        >>> round(stretch, 1), round(noise, 1)
        (0.6, 0.3)
    """
    centered = scores - scores.mean(axis=0)
    full = centered.mean(axis=1)
    square, models = float(full @ full), len(scores)
    slopes = full @ centered / square if square > 0 else np.zeros(scores.shape[1])
    variances = ((centered - np.outer(full, slopes)) ** 2).sum(axis=0) / (models - 2)
    counts = np.bincount(kept, minlength=scores.shape[1])
    noise = float(np.sqrt((counts**2 * variances).sum())) / len(kept)
    spread, slope = float(slopes.var()), float(slopes[kept].mean())
    if square == 0 or spread == 0:
        return 1.0, noise
    real = max(0.0, 1 - float(variances.mean()) / square / spread)
    shrunk = 1 + real * (slope - 1)
    return (shrunk / slope if slope > 0 and shrunk > 0 else 1.0), noise


def left_out_noise(
    scores: NDArray[np.float64], choose: Callable[[NDArray[np.float64]], NDArray[np.integer[Any]]], folds: int = 4
) -> float:
    """How noisy the subset mean of a model is that had no part in the choice, by choosing anew without it.

    Where a choice makes the errors of its items cancel on the models at hand, the errors of single items say too little
    about the next model. Here the items are chosen without every fourth model in turn, and those models' full scores
    are predicted by the straight line through the others.

    Arguments:
        scores: of the models that items are chosen on, shape ``(models, items)``, complete.
        choose: the positions of the items that are chosen on some rows of ``scores``.
        folds: how many parts the models are dealt into, every so-manieth into one.

    Returns:
        the root mean square of the errors, in units of a subset mean; 0 for fewer than 3 models besides a fold.

    Example:
        >>> scores = np.random.default_rng(0).normal(size=(12, 300)) + np.arange(12)[:, None]
        >>> round(left_out_noise(scores, lambda some: np.arange(25)), 1)  # 1 / √25
        0.2
    """
    models, full = len(scores), scores.mean(axis=1)
    if models < 2 * folds:
        return 0.0
    errors = []
    for fold in range(folds):
        out = np.arange(models) % folds == fold
        means = scores[:, choose(scores[~out])].mean(axis=1)
        slope, intercept = np.polyfit(means[~out], full[~out], 1) if np.ptp(means[~out]) > 0 else (0.0, 0.0)
        errors.append((full[out] - intercept) / slope - means[out] if slope else full[out] - full[~out].mean())
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))
