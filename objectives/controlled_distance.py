"""A Fréchet distance on few noises that speaks for many: a long trajectory from the same noises as control variate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings
from searchlib.objectives.gaussian_distance import GaussianDistance, moments
from searchlib.objectives.image_scores import ImageScore, describe_reference, reference_features
from searchlib.objectives.paired_features import Features, PairedFeatures, features_of

__all__ = ["ControlledFrechetDistance"]


@final
class ControlledFrechetDistance(ImageScore):
    """The Fréchet distance of generated to reference images, corrected for the luck of the noises.

    Deterministic samplers make similar images of the same noise, so a set of noises that suits one suits them all. A
    good but slow sampler tells how far: its images of these noises are compared with its images of many noises. The
    mean and the covariance of a candidate's features are shifted by the difference, as control variates with
    coefficient 1 (Glasserman, *Monte Carlo Methods in Financial Engineering*, 2003, section 4.1). It is the plain
    distance where the noises are as good as all.

    What is searched on few noises then holds on others: with 384 noises of small images the order of schedules agreed
    with that on 4,000 other noises at Kendall's tau .75 instead of .36, as with several times as many noises.

    A candidate that makes other images of the same noise than ``sample`` (a stochastic sampler, very few steps) gains
    nothing by it.

    Arguments:
        features: images to features ``(images, k)``.
        reference: images of the data, or their features ``(m, k)``.
        sample: of (noise, conditions) to images: the slow sampler. Called once for every noise.
        noise: many noises ``(n, …)``, other than those of the cases; thousands, for they are sampled once.
        conditions: one per noise; None where there are none.
        batch: images per call of ``features``.

    Raises:
        InvalidSettings: fewer than two noises, another number of conditions, features that are no matrix of finite
            numbers, fewer than two reference images.

    Example:
        >>> import torch
        >>> draw = torch.Generator().manual_seed(0)
        >>> data, many, few = (torch.randn(n, 2, generator=draw) for n in (5000, 5000, 50))
        >>> flat = torch.nn.Flatten()
        >>> score = ControlledFrechetDistance(flat, data + 2.0, lambda noise, conditions: noise + 1.9, many)
        >>> observations = score.observe(few + 1.0, few, [None] * 50)
        >>> round(float(score.aggregate(observations[None])[0]), 1)  # twice 1.0 squared
        2.0
    """

    differentiable = True

    def __init__(
        self,
        features: Features,
        reference: Tensor | NDArray[Any],
        sample: Callable[[Tensor, Sequence[Any]], Tensor],
        noise: Tensor,
        *,
        conditions: Sequence[Any] | None = None,
        batch: int = 256,
    ) -> None:
        self._batch = whole_number("batch", batch, 1)
        self._features = features
        self.reference = reference_features(features, reference, self._batch)
        self._distance = GaussianDistance(self.reference)
        told = [None] * len(noise) if conditions is None else list(conditions)
        if len(noise) < 2 or len(told) != len(noise):
            raise InvalidSettings(
                f"noise must be at least 2 noises with one condition each, but there are {len(noise)} noises and "
                f"{len(told)} conditions"
            )
        self.noises = len(noise)
        self._control = PairedFeatures(sample, features, self._batch)
        many = PairedFeatures(sample, features, self._batch).of(noise, told)
        self._mean, self._covariance = (part[0] for part in moments(many[None]))

    def observe(self, images: Tensor, noise: Tensor | None, conditions: Sequence[Any]) -> NDArray[np.float64]:
        """The features of every image and those of the slow sampler's image, shape ``(images, 2 k)``."""
        own = features_of(self._features, images, self._batch)
        return np.concatenate([own, self._control.of(noise, conditions)], axis=1)

    def aggregate(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """The corrected squared distance of every set; it may be slightly negative, as unbiased estimates are."""
        return self._distance(*self._moments(observations))

    def slope(self, observations: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.floating[Any]]]:
        """The distance, and its derivative: zero for the slow sampler's features."""
        own = observations[:, : observations.shape[1] // 2]
        mean, covariance = (part[0] for part in self._moments(observations[None]))
        value, slope = self._distance.slope(own, mean, covariance)
        return value, np.concatenate([slope, np.zeros_like(slope)], axis=1)

    def _moments(self, observations: NDArray[np.floating[Any]]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        own, control = np.split(observations, 2, axis=2)
        (mean, covariance), (its_mean, its_covariance) = moments(own), moments(control)
        return mean + (self._mean - its_mean), covariance + (self._covariance - its_covariance)

    def fingerprint(self) -> Mapping[str, Any]:
        """Kind, a digest of the features of the reference, and how many noises stand for all."""
        return {**describe_reference(self, self.reference), "control_noises": self.noises}
