"""Features of the images that another sampler makes of the same noises."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from searchlib.errors import InvalidSettings

__all__ = ["Features", "PairedFeatures", "features_of"]

#: From images to features ``(images, k)``.
Features = Callable[[Tensor], Tensor]


@final
class PairedFeatures:
    """Samples once from every noise, and remembers the features.

    Arguments:
        sample: of (noise, conditions) to images.
        features: of images.
        batch: images per call of ``features``.
    """

    def __init__(self, sample: Callable[[Tensor, Sequence[Any]], Tensor], features: Features, batch: int) -> None:
        self._sample, self._features, self._batch = sample, features, batch
        self._known: dict[bytes, NDArray[np.float64]] = {}

    def of(self, noise: Tensor | None, conditions: Sequence[Any]) -> NDArray[np.float64]:
        """Features ``(images, k)`` of the images of these noises.

        Raises:
            InvalidSettings: a sampler that gives no noise away.
        """
        if noise is None:
            raise InvalidSettings(
                "a score that compares noise by noise needs the noise of every image; sample with your own function"
            )
        keys = [
            hashlib.blake2b(row.tobytes() + repr(condition).encode(), digest_size=16).digest()
            for row, condition in zip(noise.cpu().numpy(), conditions, strict=True)
        ]
        new = [i for i, key in enumerate(keys) if key not in self._known]
        if new:
            made = self._sample(noise[new], [conditions[i] for i in new])
            self._known.update(zip([keys[i] for i in new], features_of(self._features, made, self._batch), strict=True))
        return np.stack([self._known[key] for key in keys])


def features_of(features: Features, images: Tensor, batch: int) -> NDArray[np.float64]:
    """Features ``(images, k)``, in batches.

    Raises:
        InvalidSettings: features of another shape.
    """
    with torch.inference_mode():
        parts = [torch.as_tensor(features(part)).double().cpu().numpy() for part in images.split(max(batch, 1))]
    found = np.concatenate(parts)
    if found.ndim != 2 or len(found) != len(images):
        raise InvalidSettings(f"features must have shape ({len(images)}, k), but have shape {found.shape}")
    return found
