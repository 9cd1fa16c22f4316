"""The Fréchet distance between Gaussians, and how it changes with the samples that one of them was fitted to.

Dowson and Landau, Journal of Multivariate Analysis 12, 1982: ‖m − m'‖² + tr(C + C' − 2 (C C')^½).
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["GaussianDistance", "moments"]


@final
class GaussianDistance:
    """Distances to the Gaussian of a reference sample ``(m, k)``."""

    def __init__(self, reference: NDArray[np.float64]) -> None:
        self._mean, covariance = (part[0] for part in moments(reference[None]))
        values, vectors = np.linalg.eigh(covariance)
        self._root = (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
        self._trace = float(np.trace(covariance))

    def __call__(self, mean: NDArray[np.floating[Any]], covariance: NDArray[np.float64]) -> NDArray[np.float64]:
        """Of means ``(n, k)`` and covariances ``(n, k, k)``: squared distances ``(n,)``."""
        # tr √(C R²) = Σ √λ(R C R): a symmetric matrix, and no matrix square root.
        spectrum = np.linalg.eigvalsh(self._root @ covariance @ self._root)
        cross = np.sqrt(np.maximum(spectrum, 0)).sum(axis=1)
        traces = np.trace(covariance, axis1=1, axis2=2) + self._trace
        return np.asarray(((mean - self._mean) ** 2).sum(axis=1) + traces - 2 * cross)

    def slope(
        self, sample: NDArray[np.floating[Any]], mean: NDArray[Any], covariance: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.floating[Any]]]:
        """The distance of ``mean`` and ``covariance``, and its derivative with respect to a sample ``(n, k)``.

        The moments are the sample's own, or differ from them by constants; single precision where the sample is.
        """
        n = len(sample)
        centered = sample - sample.mean(axis=0)
        values, vectors = np.linalg.eigh(self._root @ covariance @ self._root)
        roots = np.sqrt(np.maximum(values, 0))
        # d tr √(R C R) / dC = R (R C R)^(-1/2) R / 2, within the directions R v in which C is more than rounding.
        turned = self._root @ vectors
        rounding = len(values) * np.finfo(centered.dtype).eps * float(np.trace(covariance)) * (turned**2).sum(axis=0)
        kept = values > np.maximum(rounding, len(values) * np.finfo(np.float64).eps * values[-1])
        by_covariance = np.eye(len(mean)) - (turned[:, kept] / roots[kept]) @ turned[:, kept].T
        apart = mean - self._mean
        value = float(apart @ apart) + float(np.trace(covariance)) + self._trace - 2 * float(roots.sum())
        pull = centered @ (2 / max(n - 1, 1) * by_covariance).astype(sample.dtype)
        return value, pull + (2 / n * apart).astype(sample.dtype)


def moments(samples: NDArray[np.floating[Any]]) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
    """Means ``(n, k)`` and covariances ``(n, k, k)`` of samples ``(n, images, k)``."""
    mean = samples.mean(axis=1)
    centered = samples - mean[:, None]
    covariance = centered.transpose(0, 2, 1) @ centered / max(samples.shape[1] - 1, 1)
    return mean, covariance.astype(np.float64)
