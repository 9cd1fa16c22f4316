"""What generated images are worth: distances between sets of images, to a reference image, or a score for each.

* :class:`FrechetDistance`: Heusel et al., NeurIPS 2017, arXiv 1706.08500, equation 6 (FID with Inception's features).
  Biased: the fewer images, the larger.
* :class:`KernelDistance`: the squared maximum mean discrepancy of Bińkowski et al., ICLR 2018, arXiv 1801.01401,
  equation 4 and section 4 (KID with Inception's features). Unbiased for any number of images.
* :class:`PairedDistance`: the distance of every image to the one that a finer sampler makes of the same noise. It needs
  no reference set, and no feature network.
* :class:`ImageReward`: a number per image: PickScore, CLIP, an aesthetic score, any function of one's own.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from searchlib.arguments import instance
from searchlib.errors import InvalidSettings
from searchlib.objectives.gaussian_distance import GaussianDistance, moments
from searchlib.objectives.paired_features import Features, PairedFeatures, features_of

__all__ = [
    "FrechetDistance",
    "ImageReward",
    "ImageScore",
    "KernelDistance",
    "PairedDistance",
    "describe_reference",
    "reference_features",
]


class ImageScore(ABC):
    """Scores images that were generated for cases: an observation per image, and what a set of them is worth."""

    #: Which way is better.
    direction: str = "minimize"
    #: Whether a set is worth the mean of its images.
    additive: bool = False
    #: Whether :meth:`slope` is known.
    differentiable: bool = False

    @abstractmethod
    def observe(self, images: Tensor, noise: Tensor | None, conditions: Sequence[Any]) -> NDArray[np.float64]:
        """An observation for every image, shape ``(images, k)``.

        Arguments:
            images: as the sampler returns them.
            noise: that they were made of, one per image; None where a pipeline drew it itself.
            conditions: one per image.
        """

    @abstractmethod
    def aggregate(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """What sets of images are worth: observations ``(n, images, k)`` to values ``(n,)``."""

    def slope(self, observations: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.floating[Any]]]:
        """The value of one set of observations ``(images, k)`` and its derivative ``(images, k)``."""
        raise NotImplementedError(f"{type(self).__name__} does not know the slope of its value")

    @abstractmethod
    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that say which score this is."""


class _FeatureDistance(ImageScore):
    """Compares features of generated images with those of a reference set."""

    def __init__(self, features: Features, reference: Tensor | NDArray[Any], *, batch: int = 256) -> None:
        self._extract, self._batch = features, batch
        self.reference = reference_features(features, reference, batch)

    def observe(self, images: Tensor, noise: Tensor | None, conditions: Sequence[Any]) -> NDArray[np.float64]:
        """The features of every image."""
        del noise, conditions
        return features_of(self._extract, images, self._batch)

    def fingerprint(self) -> Mapping[str, Any]:
        """Kind, and a digest of the features of the reference."""
        return describe_reference(self, self.reference)


@final
class FrechetDistance(_FeatureDistance):
    """The Fréchet distance between Gaussians fitted to features of generated and of reference images.

    Compare values on equal numbers of images only; where the numbers differ, take :class:`KernelDistance`.

    Arguments:
        features: images to features ``(images, k)``: a module or any function of a tensor.
        reference: images of the data (a tensor), or their features (an array ``(m, k)``), m greater than k.
        batch: images per call of ``features``.

    Raises:
        InvalidSettings: features that are no matrix of finite numbers, or fewer than two reference images.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> distance = FrechetDistance(torch.nn.Flatten(), rng.normal(size=(5000, 3)))
        >>> shifted = rng.normal(size=(1, 5000, 3)) + np.array([2.0, 0.0, 0.0])
        >>> round(float(distance.aggregate(shifted)[0]), 1)
        4.0
    """

    differentiable = True

    def __init__(self, features: Features, reference: Tensor | NDArray[Any], *, batch: int = 256) -> None:
        super().__init__(features, reference, batch=batch)
        self._distance = GaussianDistance(self.reference)

    def aggregate(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """The squared Fréchet distance of every set."""
        return self._distance(*moments(observations))

    def slope(self, observations: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.floating[Any]]]:
        """The distance and its derivative; single precision where the observations are."""
        mean, covariance = (part[0] for part in moments(observations[None]))
        return self._distance.slope(observations, mean, covariance)


@final
class KernelDistance(_FeatureDistance):
    """The unbiased squared maximum mean discrepancy of features, with the kernel (x·y / k + 1)³.

    Arguments:
        features, reference, batch: as for :class:`FrechetDistance`.
    """

    def __init__(self, features: Features, reference: Tensor | NDArray[Any], *, batch: int = 256) -> None:
        super().__init__(features, reference, batch=batch)
        self._within = _mean_without_diagonal(_kernel(self.reference, self.reference))

    def aggregate(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """The discrepancy of every set of at least two images; it may be negative."""
        if observations.shape[1] < 2:
            raise InvalidSettings("a kernel distance needs at least 2 images, but got 1")
        return np.array([
            self._within + _mean_without_diagonal(_kernel(own, own)) - 2 * _kernel(own, self.reference).mean()
            for own in observations
        ])  # fmt: skip


@final
class PairedDistance(ImageScore):
    """The root mean squared difference between every image and the one a finer sampler makes of the same noise.

    Arguments:
        sample: of (noise, conditions) to images: the long reference trajectory. Called once for every noise.
        features: compares features instead of pixels.

    Raises:
        InvalidSettings: a sampler that gives no noise away.
    """

    additive = True

    def __init__(self, sample: Callable[[Tensor, Sequence[Any]], Tensor], *, features: Features | None = None) -> None:
        self._extract = _pixels if features is None else features
        self._finer = PairedFeatures(sample, self._extract, 256)

    def observe(self, images: Tensor, noise: Tensor | None, conditions: Sequence[Any]) -> NDArray[np.float64]:
        """The distance of every image, shape ``(images, 1)``."""
        apart = features_of(self._extract, images, len(images)) - self._finer.of(noise, conditions)
        return np.sqrt((apart**2).mean(axis=1, keepdims=True))

    def aggregate(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over images."""
        return np.asarray(observations[..., 0].mean(axis=1))

    def fingerprint(self) -> Mapping[str, Any]:
        """Kind."""
        return {"score": "PairedDistance"}


@final
class ImageReward(ImageScore):
    """A number per image, higher is better: PickScore, CLIP, ImageReward, or a function of one's own.

    Arguments:
        reward: of (images, conditions) to numbers ``(images,)``.
        name: what to call it where results are compared.
    """

    direction = "maximize"
    additive = True

    def __init__(self, reward: Callable[[Tensor, Sequence[Any]], Any], *, name: str | None = None) -> None:
        self._reward = reward
        usual = getattr(reward, "__qualname__", type(reward).__name__)
        self.name = instance("name", usual if name is None else name, str, "a text")

    def observe(self, images: Tensor, noise: Tensor | None, conditions: Sequence[Any]) -> NDArray[np.float64]:
        """The reward of every image, shape ``(images, 1)``."""
        del noise
        with torch.inference_mode():
            rewards = torch.as_tensor(self._reward(images, conditions)).double().cpu().numpy()
        if rewards.shape != (len(images),):
            raise InvalidSettings(f"a reward must give {len(images)} numbers, but gave shape {rewards.shape}")
        return np.asarray(rewards[:, None])

    def aggregate(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over images."""
        return np.asarray(observations[..., 0].mean(axis=1))

    def fingerprint(self) -> Mapping[str, Any]:
        """Kind and name."""
        return {"score": "ImageReward", "name": self.name}


def _pixels(images: Tensor) -> Tensor:
    return images.flatten(1)


def reference_features(features: Features, reference: Tensor | NDArray[Any], batch: int) -> NDArray[np.float64]:
    """Features ``(m, k)`` of a reference set: of its images, or as they are given.

    Raises:
        InvalidSettings: no matrix of finite numbers, or fewer than two images.
    """
    if isinstance(reference, Tensor):
        reference = features_of(features, reference, batch)
    known = np.asarray(reference, np.float64)
    if known.ndim != 2 or len(known) < 2 or not np.isfinite(known).all():
        raise InvalidSettings(
            f"reference must be images (a tensor) or finite features of shape (m, k) with m ≥ 2, but has "
            f"shape {known.shape}"
        )
    return known


def describe_reference(score: ImageScore, reference: NDArray[np.float64]) -> dict[str, Any]:
    """What a fingerprint says of a score that compares features with those of a reference set."""
    # Rounded, for processors differ in the last bits.
    rounded = reference.mean(axis=0).astype(np.float16) + np.float16(0)
    digest = hashlib.blake2b(rounded.tobytes(), digest_size=8).hexdigest()
    return {"score": type(score).__name__, "reference": digest, "images": len(reference)}


def _kernel(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray((first @ second.T / first.shape[1] + 1) ** 3)


def _mean_without_diagonal(kernel: NDArray[np.float64]) -> float:
    n = len(kernel)
    return float((kernel.sum() - np.trace(kernel)) / (n * (n - 1)))
