"""What a diffusion model does in each range of timesteps, watched while it samples in full precision."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from torch import nn

from searchlib.errors import InvalidSettings
from searchlib.objectives.channel_balancing import InputRanges, measure_inputs
from searchlib.objectives.fake_quantization import FakeQuantization
from searchlib.spaces import BitPlan

__all__ = ["inputs_in_ranges", "range_shares"]


def range_shares(
    model: nn.Module, layers: Mapping[str, nn.Module], ranges: tuple[float, ...], run: Callable[[], Any]
) -> tuple[float, ...]:
    """Which share of the model's calls each range of timesteps has.

    Arguments:
        model, layers: as for :class:`~searchlib.objectives.fake_quantization.FakeQuantization`.
        ranges: where ranges begin, without the first.
        run: samples an image.

    Raises:
        InvalidSettings: a range that is never met.
    """
    if not ranges:
        return (1.0,)
    calls = np.zeros(len(ranges) + 1)
    with _watched(model, layers, ranges) as watched:

        def count(*_: Any) -> None:
            calls[watched.range] += 1

        handle = next(iter(layers.values())).register_forward_pre_hook(count)
        try:
            run()
        finally:
            handle.remove()
    if not calls.all():
        raise InvalidSettings(
            f"every range of timesteps must be met when an image is sampled, but ranges={ranges} are met "
            f"{calls.astype(int).tolist()} times; choose boundaries between the sampler's timesteps"
        )
    return tuple((calls / calls.sum()).tolist())


def inputs_in_ranges(
    model: nn.Module, layers: Mapping[str, nn.Module], ranges: tuple[float, ...], run: Callable[[], Any]
) -> InputRanges:
    """What goes into layers in each range of timesteps while ``run()`` samples."""
    with _watched(model, layers, ranges) as watched:
        return measure_inputs(layers, run, in_range=lambda: watched.range)


@contextmanager
def _watched(
    model: nn.Module, layers: Mapping[str, nn.Module], ranges: tuple[float, ...]
) -> Iterator[FakeQuantization]:
    with FakeQuantization(model, layers) as quantization:
        quantization.set(BitPlan(ranges=ranges))
        yield quantization
