"""A Gaussian process in numpy: the predictor for few candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.predictor import FittedPredictor, Predictor, Standardized
from searchlib.arguments import check_field, whole_number

__all__ = ["GaussianProcess"]

#: Squared length scales tried, in units of the median squared distance between candidates.
_LENGTHS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
#: Variances of the noise tried, in units of the signal's.
_NOISES = (1e-4, 1e-3, 1e-2, 1e-1, 0.5)
#: Values farther above the median than this many times the best one is below it count as that far: one schedule that
#: diverges must not decide the scale on which good ones are told apart.
_TAIL = 3.0


@final
@dataclass(frozen=True, kw_only=True)
class GaussianProcess(Predictor):
    """Posterior mean of a Gaussian process with a squared exponential kernel and noise (Rasmussen and Williams, 2006).

    One length scale for all standardized features, chosen with the noise by the marginal likelihood (their equation
    5.8, the signal's variance in closed form) from a fixed grid, so that nothing can fail to converge. Of the
    predictors here it orders new candidates best from some dozens to some hundreds of evaluated ones, unless it takes
    steps to describe what matters; it needs no library and a tenth of a second.

    Arguments:
        most: candidates it learns from; beyond it the worst are left out, because the cost grows with its cube.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.uniform(-1, 1, (60, 2))
        >>> fitted = GaussianProcess().fit(x, (x**2).sum(axis=1), rng)
        >>> near, far = fitted.predict(np.array([[0.1, 0.0], [0.7, 0.7]]))
        >>> bool(near < far)
        True
    """

    most: int = 400

    def __post_init__(self) -> None:
        check_field(self, "most", whole_number, 2)

    def fit(
        self, features: NDArray[np.float64], values: NDArray[np.float64], rng: np.random.Generator
    ) -> FittedPredictor:
        """Learn to rank candidates; nothing is random here."""
        del rng
        best = np.argsort(values, kind="stable")[: self.most]
        return _Process(features[np.sort(best)], values[np.sort(best)])


@final
class _Process:
    def __init__(self, features: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        self._standardized = Standardized(features)
        self._x = self._standardized(features)
        squared = self._distances(self._x)
        apart = squared[squared > 1e-12 * squared.max()]  # equal candidates are zero apart but for rounding
        self._unit = 2 * float(np.median(apart)) if len(apart) else 1.0
        middle = float(np.median(values))
        y = np.minimum(values, middle + _TAIL * (middle - values.min()) if middle > values.min() else math.inf)
        self._mean = float(y.mean())
        #: The chosen squared length scale, in units of ``_unit``, and variance of the noise.
        self.length, self.noise, self._weights = self._most_likely(squared, y - self._mean)

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        kernel = np.exp(-self._distances(self._standardized(features)) / (self.length * self._unit))
        return np.asarray(self._mean + kernel @ self._weights)

    def _distances(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared distances ``(m, n)`` from the candidates learned from."""
        products = x @ self._x.T
        squared = (x**2).sum(axis=1)[:, None] + (self._x**2).sum(axis=1) - 2 * products
        return np.asarray(np.maximum(squared, 0.0))

    def _most_likely(
        self, squared: NDArray[np.float64], y: NDArray[np.float64]
    ) -> tuple[float, float, NDArray[np.float64]]:
        n, best = len(y), (-math.inf, 1.0, 1.0, np.zeros(len(y)))
        for length in _LENGTHS:
            values, vectors = np.linalg.eigh(np.exp(-squared / (length * self._unit)))
            projected = vectors.T @ y
            for noise in _NOISES:
                spectrum = np.maximum(values, 0.0) + noise
                # Equation 5.8 at the most likely variance of the signal.
                variance = max(float((projected**2 / spectrum).mean()), np.finfo(float).tiny)
                likelihood = -0.5 * (n * math.log(variance) + float(np.log(spectrum).sum()))
                if likelihood > best[0]:
                    best = (likelihood, length, noise, vectors @ (projected / spectrum))
        return best[1:]
