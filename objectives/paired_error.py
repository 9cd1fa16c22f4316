"""The squared error of every image against the one that a reference makes of the same noise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from searchlib.objectives.image_scores import ImageScore, PairedDistance

__all__ = ["PairedError"]


@final
class PairedError(ImageScore):
    """The mean squared difference: :class:`~searchlib.objectives.PairedDistance`, squared.

    Errors of layers that have nothing to do with each other add up in squares. What is allocated part by part, as if
    losses were added, should therefore be measured by this one; roots of sums are smaller than sums of roots.

    Arguments:
        sample: of (noise, conditions) to images: the reference.
        features: compares features instead of pixels.

    Example:
        >>> import torch
        >>> error = PairedError(lambda noise, conditions: 0 * noise)
        >>> error.observe(torch.full((1, 1, 2, 2), 3.0), torch.zeros(1, 1, 2, 2), [None]).tolist()
        [[9.0]]
    """

    additive = True

    def __init__(
        self,
        sample: Callable[[Tensor, Sequence[Any]], Tensor],
        *,
        features: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._distance = PairedDistance(sample, features=features)

    def observe(self, images: Tensor, noise: Tensor | None, conditions: Sequence[Any]) -> NDArray[np.float64]:
        """The squared error of every image, shape ``(images, 1)``."""
        return np.square(self._distance.observe(images, noise, conditions))

    def aggregate(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over images."""
        return np.asarray(observations[..., 0].mean(axis=1))

    def fingerprint(self) -> Mapping[str, Any]:
        """Kind."""
        return {"score": "PairedError"}
