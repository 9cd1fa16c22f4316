"""Making the channels of a layer alike before it is quantized, without changing what the layer computes.

* A scale per input channel (SmoothQuant, arXiv 2211.10438, equation 4): ``s_j = max|x_j|^α / max|w_j|^(1-α)``; the
  input is divided by it, the weight multiplied.
* Static-dynamic balancing (ViDiT-Q, arXiv 2406.02540, section 4): the scale for what is the same at all timesteps, then
  a random Hadamard rotation (QuaRot, arXiv 2404.00456) for what changes with them.

Where the released code differs: it quantizes the weight twice, after the scale and after the rotation (ViDiT-Q issue
17), and draws the rotation again when the model is used (issue 22). Here the weight is quantized once, after both, and
the rotation has a seed. Scales that depend on the range of timesteps, of the first release, are left out: every range
would need a quantized weight of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from searchlib.errors import InvalidSettings
from searchlib.objectives.quantizable_layers import in_features, rows_of, weight_of
from searchlib.objectives.watched_layers import watch_inputs
from searchlib.spaces.arguments import flag, fraction, whole

__all__ = ["Balance", "ChannelBalancing", "InputRanges", "measure_inputs"]

#: The largest block that is rotated at once: the rotation is a product with a matrix of this size.
LARGEST_BLOCK = 4096


@final
@dataclass(frozen=True)
class InputRanges:
    """What went into layers while a model ran.

    Arguments:
        largest: of every layer the largest magnitude of every channel, shape ``(channels,)``.
        low, high: of every layer and range of timesteps the least and the greatest number.
    """

    largest: Mapping[str, Tensor]
    low: Mapping[str, Mapping[int, float]]
    high: Mapping[str, Mapping[int, float]]


@final
@dataclass(frozen=True)
class ChannelBalancing:
    """How channels are balanced.

    Arguments:
        alpha: how much of the imbalance goes from the input to the weight, in [0, 1]. Released: 0.99 for PixArt-Σ,
            0.57 for OpenSora with rotation; 0.5 for language models without.
        rotate: whether a rotation follows the scale.
        seed: of the rotation.

    Raises:
        InvalidSettings: an alpha outside of [0, 1].

    Example:
        >>> layer = nn.Linear(4, 3)
        >>> balance = ChannelBalancing(rotate=True).of(layer, torch.tensor([1.0, 100.0, 2.0, 0.5]))
        >>> x = torch.randn(2, 4)
        >>> bool(torch.allclose(balance.inputs(x) @ balance.rows(layer).T, x @ layer.weight.T, atol=1e-4))
        True
    """

    alpha: float = 0.5
    rotate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", fraction("alpha", self.alpha, zero=True))
        flag("rotate", self.rotate)
        whole("seed", self.seed, low=0)

    def of(self, layer: nn.Module, largest: Tensor) -> Balance:
        """The balance of one layer.

        Arguments:
            layer: linear or convolutional, not in groups.
            largest: the largest magnitude of every input channel, shape ``(channels,)``.
        """
        if getattr(layer, "groups", 1) != 1:
            raise InvalidSettings("a convolution in groups cannot be balanced; leave it in full precision by full=")
        channels = in_features(layer)
        weights = rows_of(layer).float().reshape(-1, channels, _area(layer)).abs().amax(dim=(0, 2))
        inputs = largest.to(weights)
        scale = inputs**self.alpha / weights ** (1 - self.alpha)
        # A channel that never was anything but 0, or has no weight, stays as it is.
        scale = torch.where((inputs > 0) & (weights > 0) & torch.isfinite(scale), scale, torch.ones_like(scale))
        return Balance(scale, _rotation(channels, self.seed).to(scale) if self.rotate else None, _area(layer))


@final
class Balance:
    """The scale and the rotation of one layer.

    Arguments:
        scale: shape ``(channels,)``, positive.
        rotation: orthogonal matrix ``(block, block)`` that rotates every block of neighboring channels; or None.
        area: of the kernel, for convolutions.
    """

    def __init__(self, scale: Tensor, rotation: Tensor | None, area: int = 1) -> None:
        self.scale, self.rotation, self._area = scale, rotation, area

    def inputs(self, x: Tensor, *, axis: int = -1) -> Tensor:
        """What goes into the layer: divided and rotated along the axis of channels."""
        if axis != -1:
            return self.inputs(x.movedim(axis, -1)).movedim(-1, axis)
        return self._rotated(x / self.scale.to(x))

    def rows(self, layer: nn.Module) -> Tensor:
        """The weight of the layer, a row per output channel: multiplied and rotated."""
        own = rows_of(layer)
        channels = own.reshape(len(own), -1, self._area).movedim(1, 2)  # (outputs, area, channels)
        turned = self._rotated(channels.float() * self.scale.to(own.device))
        return turned.movedim(2, 1).reshape(own.shape).to(own.dtype)

    def _rotated(self, x: Tensor) -> Tensor:
        if self.rotation is None:
            return x
        block = len(self.rotation)
        return (x.reshape(*x.shape[:-1], -1, block) @ self.rotation.to(x)).reshape(x.shape)


def measure_inputs(
    layers: Mapping[str, nn.Module], run: Callable[[], Any], *, in_range: Callable[[], int] = lambda: 0
) -> InputRanges:
    """Watch what goes into layers while ``run()`` runs.

    Arguments:
        layers: by name.
        run: makes the model work on calibration data.
        in_range: which range of timesteps the model is in.

    Raises:
        InvalidSettings: a layer that did not run.
    """
    largest: dict[str, Tensor] = {}
    low: dict[str, dict[int, float]] = {name: {} for name in layers}
    high: dict[str, dict[int, float]] = {name: {} for name in layers}

    def see(name: str, layer: nn.Module, x: Tensor) -> None:
        x = x.float().movedim(1, -1) if isinstance(layer, nn.Conv2d) else x.float()
        found = x.abs().flatten(0, -2).amax(dim=0)
        largest[name] = torch.maximum(largest[name], found) if name in largest else found
        now = in_range()
        low[name][now] = min(low[name].get(now, math.inf), float(x.min()))
        high[name][now] = max(high[name].get(now, -math.inf), float(x.max()))

    watch_inputs(layers, run, see)
    return InputRanges(largest, low, high)


def _area(layer: nn.Module) -> int:
    return weight_of(layer)[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1


def _rotation(channels: int, seed: int) -> Tensor:
    """Random signs, then a Hadamard matrix, of the largest power of two that divides the channels (at most 4096)."""
    block = min(channels & -channels, LARGEST_BLOCK)
    hadamard: Any = np.ones((1, 1))
    while len(hadamard) < block:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(block, 1))
    return torch.from_numpy(signs * hadamard / math.sqrt(block)).float()
