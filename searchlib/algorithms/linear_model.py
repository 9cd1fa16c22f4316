"""Ridge regression that learns batch by batch."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = ["LinearModel"]

#: How much weaker the intercept is held than the slopes.
_FREEDOM = 1e4


@final
class LinearModel:
    """Values as a linear function of features, by recursive least squares.

    The posterior mean of a Bayesian linear regression whose slopes are independent a priori and as large as the noise
    divided by √``ridge``; every batch updates it exactly (Woodbury's identity) in p² operations per row. It is the same
    as fitting ridge regression to all rows anew, up to rounding.

    Arguments:
        width: number of features p.
        ridge: weight of the squared slopes beside the squared errors, positive.

    Example:
        >>> model = LinearModel(2, ridge=1e-6)
        >>> model.add(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([5.0, 6.0, 3.0]))
        >>> model.predict(np.array([[1.0, 1.0]])).round(3).tolist()
        [4.0]
    """

    def __init__(self, width: int, ridge: float) -> None:
        self._covariance = np.eye(width + 1) / ridge
        self._covariance[-1, -1] *= _FREEDOM
        self._weights: NDArray[np.float64] = np.zeros(width + 1)
        self._count, self._squares = 0, 0.0
        self._offset: float | None = None  # the first value, so that the intercept starts where values are

    @property
    def slopes(self) -> NDArray[np.float64]:
        """What a unit of each feature adds to the value, shape ``(p,)``."""
        return self._weights[:-1]

    @property
    def spread(self) -> NDArray[np.float64]:
        """Standard deviation of each slope, shape ``(p,)``, at the noise that explains the values told best."""
        noise = self._squares / max(1, self._count)
        return np.sqrt(noise * np.maximum(np.diagonal(self._covariance)[:-1], 0.0))

    def add(self, features: NDArray[np.float64], values: NDArray[np.float64]) -> None:
        """Learn from rows of shape ``(m, p)`` and their finite values ``(m,)``."""
        if not len(values):
            return
        if self._offset is None:
            self._offset = float(values[0])
        x = np.concatenate([features, np.ones((len(features), 1))], axis=1)
        gain = self._covariance @ x.T
        inner = x @ gain
        inner[np.diag_indices(len(x))] += 1
        step = np.linalg.solve(inner, gain.T)
        error = values - self._offset - x @ self._weights
        self._count += len(error)
        self._squares += float(error @ np.linalg.solve(inner, error))
        self._weights = self._weights + error @ step
        self._covariance -= gain @ step

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Expected values of rows ``(n, p)``, shape ``(n,)``."""
        return np.asarray(features @ self._weights[:-1] + (self._weights[-1] + (self._offset or 0.0)))
