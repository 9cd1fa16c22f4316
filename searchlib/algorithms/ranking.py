"""A small ensemble of neural rankers in numpy, trained with the pairwise hinge loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.predictor import FittedPredictor, Predictor, Standardized
from searchlib.arguments import check_field, real_number, whole_number

__all__ = ["HingeRanker"]

Weights = tuple[NDArray[np.float64], ...]

#: Adam's decay rates (Kingma and Ba, 2015); the second is faster than theirs because there are few steps.
_FIRST, _SECOND = 0.9, 0.99
#: Candidates per step, and how many others each of them is compared with (in OMS-DPM two).
_BATCH, _COMPARED = 128, 4


@final
@dataclass(frozen=True, kw_only=True)
class HingeRanker(Predictor):
    """The mean score of a few small networks, each a linear and a one-layer part, trained to order pairs.

    The loss is that of S³'s predictor (OMS-DPM, arXiv 2306.08860): mean max(0, m − y (s_i − s_j)) over pairs of
    scores s, where y = ±1 is the sign of the difference of their values. It is minimized by Adam on standardized
    features; every network sees its own random part of the candidates. Only the order of values counts, so that no
    scale of theirs can mislead it. For features that are a sequence of steps there is
    :class:`searchlib.objectives.SequencePredictor`.

    Arguments:
        members: networks in the ensemble.
        hidden: units of the nonlinear part of each.
        steps: gradient steps.
        rate: step size of Adam, falling linearly to zero.
        decay: weight decay, as a share of the step size.
        margin: by how much the scores of a pair should differ.
        quantile: pairs whose values differ by less than this quantile of all differences do not count, in [0, 1).
        part: share of the candidates that each network sees, in (0, 1].

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.uniform(-1, 1, (60, 2))
        >>> fitted = HingeRanker().fit(x, np.exp(9 * x[:, 0]), rng)
        >>> bool(np.diff(fitted.predict(np.array([[-0.5, 0.0], [0.5, 0.0]])))[0] > 0)
        True
    """

    members: int = 4
    hidden: int = 32
    steps: int = 200
    rate: float = 0.02
    decay: float = 0.01
    margin: float = 1.0
    quantile: float = 0.1
    part: float = 0.8

    def __post_init__(self) -> None:
        for name in ("members", "hidden", "steps"):
            check_field(self, name, whole_number, 1)
        check_field(self, "rate", real_number, "(0, inf)")
        check_field(self, "decay", real_number, "[0, inf)")
        check_field(self, "margin", real_number, "(0, inf)")
        check_field(self, "quantile", real_number, "[0, 1)")
        check_field(self, "part", real_number, "(0, 1]")

    def fit(
        self, features: NDArray[np.float64], values: NDArray[np.float64], rng: np.random.Generator
    ) -> FittedPredictor:
        """Learn to rank candidates."""
        return _Ensemble(self, features, values, rng)


@final
class _Ensemble:
    """Weights have a leading axis of networks: (E, p, h), (E, 1, h), (E, h, 1) and, of the linear part, (E, p, 1)."""

    def __init__(
        self, settings: HingeRanker, features: NDArray[np.float64], values: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._settings = settings
        self._standardized = Standardized(features)
        x = self._standardized(features)
        first, count, hidden = x.shape[1], settings.members, settings.hidden
        self._weights: Weights = (
            rng.standard_normal((count, first, hidden)) / math.sqrt(max(1, first)),
            np.zeros((count, 1, hidden)),
            rng.standard_normal((count, hidden, 1)) * 0.3 / math.sqrt(hidden),
            np.zeros((count, first, 1)),
        )
        self._train(x, values, _threshold(values, settings.quantile, rng), rng)
        # One unit of every network's score is its spread over the candidates, so that all have the same say.
        self._unit = np.maximum(self._scores(x).std(axis=1, keepdims=True), 1e-12)

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((self._scores(self._standardized(features)) / self._unit).mean(axis=0))

    def _scores(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        inner, offset, outer, linear = self._weights
        return np.asarray((np.maximum(x @ inner + offset, 0) @ outer + x @ linear)[:, :, 0])

    def _train(
        self, x: NDArray[np.float64], values: NDArray[np.float64], threshold: float, rng: np.random.Generator
    ) -> None:
        settings, n = self._settings, len(values)
        seen = max(2, round(settings.part * n))
        parts = np.stack([rng.permutation(n)[:seen] for _ in range(settings.members)])
        first: Weights = tuple(np.zeros_like(each) for each in self._weights)
        second: Weights = tuple(np.zeros_like(each) for each in self._weights)
        for step in range(1, settings.steps + 1):
            drawn = rng.permuted(parts, axis=1)[:, :_BATCH]
            rate = settings.rate * (1 - (step - 1) / settings.steps)
            gradients = self._gradients(x[drawn], values[drawn], threshold, rng)
            for weight, gradient, m, v in zip(self._weights, gradients, first, second, strict=True):
                m += (1 - _FIRST) * (gradient - m)
                v += (1 - _SECOND) * (gradient**2 - v)
                adam = m / (1 - _FIRST**step) / (np.sqrt(v / (1 - _SECOND**step)) + 1e-8)
                weight -= rate * (adam + settings.decay * weight)

    def _gradients(
        self, x: NDArray[np.float64], values: NDArray[np.float64], threshold: float, rng: np.random.Generator
    ) -> Weights:
        """Of the hinge loss, every candidate of ``x (E, m, p)`` being compared with a few that follow it."""
        inner, offset, outer, linear = self._weights
        raw = x @ inner + offset
        active = np.maximum(raw, 0)
        scores = (active @ outer + x @ linear)[:, :, 0]
        pull, pairs = np.zeros_like(scores), np.zeros((len(scores), 1))
        m = scores.shape[1]
        for shift in rng.permutation(np.arange(1, m))[:_COMPARED].tolist():
            apart = values - np.roll(values, -shift, axis=1)
            y = np.where(np.abs(apart) >= threshold, np.sign(apart), 0.0)
            short = self._settings.margin - y * (scores - np.roll(scores, -shift, axis=1)) > 0
            own = -y * short
            pull += own - np.roll(own, shift, axis=1)
            pairs += (y != 0).sum(axis=1, keepdims=True)
        pull = (pull / np.maximum(pairs, 1))[:, :, None]
        back = pull @ outer.transpose(0, 2, 1) * (raw > 0)
        flat = x.transpose(0, 2, 1)
        return flat @ back, back.sum(axis=1, keepdims=True), active.transpose(0, 2, 1) @ pull, flat @ pull


def _threshold(values: NDArray[np.float64], quantile: float, rng: np.random.Generator) -> float:
    """The quantile of the differences between values that differ, from a sample of pairs."""
    first, second = rng.integers(len(values), size=(2, 4096))
    apart = np.abs(values[first] - values[second])
    apart = apart[apart > 0]
    return float(np.quantile(apart, quantile)) if quantile and len(apart) else 0.0
