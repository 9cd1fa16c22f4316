"""A Gaussian process with a length for every feature, which also says how sure it is."""

from __future__ import annotations

import math
from typing import final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from searchlib.algorithms.predictor import Standardized

__all__ = ["MaternProcess"]

#: Features are scaled to this standard deviation, which numbers drawn evenly from an interval of length 1 have.
_SPREAD = 0.3
#: Values farther above the median than this many times the best one is below it count as that far.
_TAIL = 3.0
#: Bounds of the logarithms of inverse squared lengths, of the signal's variance and of the noise's.
_INVERSE, _SIGNAL, _NOISE = (-7.0, 7.0), (-5.0, 5.0), (math.log(1e-6), 1.0)
#: Steps of the climb to the most likely parameters.
_STEPS = 40
_ROOT = math.sqrt(5.0)


@final
class MaternProcess:
    """The posterior of a Gaussian process with a Matérn kernel of smoothness 5/2 and a length for every feature.

    Lengths, the variance of the signal and that of the noise are the most likely ones a posteriori: with priors that
    keep lengths near the width of the space and noise near none, those of optuna's ``GPSampler``. Gradients of the
    likelihood: Rasmussen and Williams, *Gaussian processes for machine learning* (2006), equation 5.9.

    Arguments:
        features: of the evaluated candidates, shape ``(n, p)``, n at least 2.
        values: shape ``(n,)``, minimized; at least two of them differ.
        start: :attr:`parameters` of an earlier process on fewer candidates, from which the climb begins.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> x = rng.uniform(-1, 1, (30, 2))
        >>> process = MaternProcess(x, (x[:, 0] - 0.5) ** 2)
        >>> mean, deviation = process.predict(np.array([[0.5, 0.0], [-1.0, 0.0]]))
        >>> bool(mean[0] < mean[1]), bool(process.best < mean[1])
        (True, True)
    """

    def __init__(
        self, features: NDArray[np.float64], values: NDArray[np.float64], start: NDArray[np.float64] | None = None
    ) -> None:
        self._standardized = Standardized(features)
        self._x = self._scaled(features)
        middle = float(np.median(values))
        clipped = np.minimum(values, middle + _TAIL * (middle - values.min()) if middle > values.min() else math.inf)
        self._mean, self._deviation = float(clipped.mean()), float(clipped.std()) or 1.0
        self._y = (clipped - self._mean) / self._deviation
        width = self._x.shape[1]
        first = np.append(np.zeros(width), [0.0, math.log(1e-3)])
        if start is not None and len(start) == len(first):
            first = start
        bounds = [_INVERSE] * width + [_SIGNAL, _NOISE]
        found = optimize.minimize(
            self._loss, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": _STEPS}
        )
        #: Logarithms of the inverse squared lengths of the features that differ, then of signal and noise.
        self.parameters: NDArray[np.float64] = np.asarray(found.x, np.float64)
        signal, noise = np.exp(self.parameters[-2:])
        covariance = signal * _matern(self._squared(self._x, self.parameters))[0]
        self._factor = _factor(covariance, float(noise))
        self._weights = linalg.cho_solve((self._factor, True), self._y)

    @property
    def best(self) -> float:
        """The least value, on the scale of :meth:`predict`."""
        return float(self._y.min())

    def value(self, mean: float) -> float:
        """A predicted mean on the scale of the values."""
        return self._mean + self._deviation * mean

    def predict(self, features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of the function at these features, standardized, each of shape ``(m,)``."""
        signal = float(np.exp(self.parameters[-2]))
        kernel = signal * _matern(self._squared(self._scaled(features), self.parameters))[0]
        explained = linalg.solve_triangular(self._factor, kernel.T, lower=True, check_finite=False)
        variance = np.maximum(signal - (explained**2).sum(axis=0), 1e-12)
        return kernel @ self._weights, np.sqrt(variance)

    def _scaled(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        return _SPREAD * self._standardized(features)

    def _squared(self, x: NDArray[np.float64], parameters: NDArray[np.float64]) -> NDArray[np.float64]:
        """Squared distances ``(m, n)`` from the candidates learned from, in lengths."""
        root = np.exp(0.5 * parameters[:-2])
        x, known = x * root, self._x * root
        squared = (x**2).sum(axis=1)[:, None] + (known**2).sum(axis=1) - 2 * x @ known.T
        return np.asarray(np.maximum(squared, 0.0))

    def _loss(self, parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """The negative logarithm of the posterior density of the parameters, and its gradient."""
        inverse, (signal, noise) = np.exp(parameters[:-2]), np.exp(parameters[-2:]).tolist()
        kernel, slope = _matern(self._squared(self._x, parameters))
        try:
            factor = linalg.cholesky(signal * kernel + noise * np.eye(len(kernel)), lower=True, check_finite=False)
        except linalg.LinAlgError:
            return 1e10, np.zeros_like(parameters)
        precision = linalg.cho_solve((factor, True), np.eye(len(kernel)), check_finite=False)
        weights = precision @ self._y
        inner = 0.5 * (precision - np.outer(weights, weights))
        # The kernel falls by 5/6 of the slope for every unit of a squared difference; differences are never all kept.
        pull = (-5 / 6) * signal * inner * slope
        apart = 2 * (pull.sum(axis=1) @ self._x**2 - (self._x * (pull @ self._x)).sum(axis=0))
        loss = 0.5 * self._y @ weights + np.log(np.diag(factor)).sum()
        gradient = np.append(apart * inverse, [(inner * kernel).sum() * signal, np.trace(inner) * noise])
        loss += 0.1 * (1 / inverse + inverse).sum() + signal - math.log(signal) + 30 * noise - 0.1 * math.log(noise)
        gradient += np.append(0.1 * (inverse - 1 / inverse), [signal - 1, 30 * noise - 0.1])
        return float(loss), gradient


def _factor(covariance: NDArray[np.float64], noise: float) -> NDArray[np.float64]:
    """The lower Cholesky factor of the covariance with noise, or with as much more as rounding asks for."""
    for more in (1e-8, 1e-6, 1e-4):
        try:
            return np.asarray(linalg.cholesky(covariance + (noise + more) * np.eye(len(covariance)), lower=True))
        except linalg.LinAlgError:
            continue
    return np.asarray(linalg.cholesky(covariance + covariance.max() * np.eye(len(covariance)), lower=True))


def _matern(squared: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The kernel of smoothness 5/2, and -6/5 of its derivative by the squared distance."""
    distance = np.sqrt(squared)
    slope = (1 + _ROOT * distance) * np.exp(-_ROOT * distance)
    return slope + 5 / 3 * squared * np.exp(-_ROOT * distance), slope
