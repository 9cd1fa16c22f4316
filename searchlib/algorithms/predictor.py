"""The contract of a predictor: what guesses a candidate's rank from its features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["FittedPredictor", "Predictor", "Standardized"]

#: Standard deviations beyond which a feature counts as that far out.
_FARTHEST = 5.0


class FittedPredictor(Protocol):
    """A predictor that has been fitted."""

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Scores ``(m,)`` of the candidates with features ``(m, p)``; lower is better, and only their order counts."""


class Predictor(ABC):
    """Settings of a predictor: a frozen dataclass whose :meth:`fit` learns from evaluated candidates.

    A search calls it a few times with tens to thousands of candidates, and then asks for thousands of predictions, so
    both should take seconds at most. The features are those of ``Space.features``, not scaled.
    """

    def check(self, features: int) -> None:
        """Say, before anything is evaluated, that candidates with this many features cannot be predicted.

        By default any number can.

        Raises:
            MissingDependency: a library is not installed.
            InvalidSettings: the settings are meant for another number of features.
        """
        del features

    @abstractmethod
    def fit(
        self, features: NDArray[np.float64], values: NDArray[np.float64], rng: np.random.Generator
    ) -> FittedPredictor:
        """Learn to rank candidates; deterministic given ``rng``, and changes nothing it is given.

        Arguments:
            features: shape ``(n, p)``, finite; ``n >= 2``.
            values: shape ``(n,)``, finite, minimized; at least two of them differ.
            rng: all randomness comes from it.
        """


@final
class Standardized:
    """Features as those of some candidates are: mean 0 and variance 1, without the features that never differ there."""

    def __init__(self, features: NDArray[np.float64]) -> None:
        spread = features.std(axis=0)
        self._kept = spread > 1e-12 * np.maximum(1.0, np.abs(features).max(axis=0, initial=0.0))
        self._mean, self._spread = features.mean(axis=0)[self._kept], spread[self._kept]

    def __call__(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Shape ``(m, q)`` with the ``q`` features that differ, clipped."""
        scaled = (features[:, self._kept] - self._mean) / self._spread
        return np.asarray(np.clip(scaled, -_FARTHEST, _FARTHEST))
