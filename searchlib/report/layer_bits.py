"""Bits per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchlib.report.convergence import new_axes
from searchlib.report.picture_text import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["bit_table", "plot_bits"]

#: Layers that have room for their names.
_NAMED = 40


def bit_table(space: Any, plan: Any) -> tuple[list[str], list[str], NDArray[np.float64]]:
    """Names of the layers, names of what has bits in them, and the bits, shape ``(kinds, layers)``; NaN for nothing.

    Arguments:
        space: a :class:`~searchlib.spaces.BitWidths`.
        plan: a :class:`~searchlib.spaces.BitPlan`.
    """
    layers = list(dict.fromkeys(tensor.name for tensor in space.sized))
    rows: dict[str, NDArray[np.float64]] = {}
    for tensor in space.sized:
        for kind, bits in _bits(space, plan, tensor):
            rows.setdefault(kind, np.full(len(layers), np.nan))[layers.index(tensor.name)] = bits
    order = sorted(rows, key=lambda kind: ("wic".index(kind[0]), kind))  # weights, inputs, caches
    return layers, order, np.stack([rows[kind] for kind in order])


def _bits(space: Any, plan: Any, tensor: Any) -> list[tuple[str, float]]:
    if tensor.kind == "weight":
        return [("weight", plan.weight_bits(tensor.name).bits)]
    if tensor.kind == "kv":
        return [("cache", plan.stored_bits(tensor).bits)]
    if not space.ranges:
        return [("input", plan.activation_bits(tensor.name).bits)]
    count = len(space.ranges) + 1
    return [(f"input, steps {number + 1}/{count}", plan.activation_bits(tensor.name, number).bits)
            for number in range(count)]  # fmt: skip


def plot_bits(space: Any, plan: Any, *, axes: Axes | None = None) -> Axes:
    """Draw the bits of every layer's weight, input and cache; 16 is full precision.

    Arguments:
        space: a :class:`~searchlib.spaces.BitWidths`.
        plan: a :class:`~searchlib.spaces.BitPlan`.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    axes = new_axes() if axes is None else axes
    layers, kinds, table = bit_table(space, plan)
    image = axes.imshow(table, aspect="auto", interpolation="nearest", cmap="viridis_r", vmin=2, vmax=16)
    if len(layers) <= _NAMED:
        size = 8 if len(layers) <= 16 else 6
        axes.set_xticks(range(len(layers)), [label(name, 24) for name in layers], rotation=60, ha="right",
                        rotation_mode="anchor", fontsize=size)  # fmt: skip
        for (row, column), bits in np.ndenumerate(table):
            if np.isfinite(bits):
                axes.text(column, row, f"{bits:.0f}", ha="center", va="center", fontsize=7,
                          color="#fffffe" if bits > 8 else "#1c1d20")  # fmt: skip
    else:
        axes.set_xlabel("layer, in the order of the model")
    axes.set_yticks(range(len(kinds)), kinds)
    axes.figure.colorbar(image, ax=axes, label="bits", ticks=[2, 4, 8, 16])
    return axes
