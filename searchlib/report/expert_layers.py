"""Experts kept per layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchlib.report.convergence import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["expert_weights", "plot_experts"]


def expert_weights(space: Any, value: Any) -> NDArray[np.float64]:
    """What is left of every original expert in every layer, shape ``(layers, experts)``.

    Of :class:`~searchlib.spaces.ExpertSubsets` 1 for an expert that is kept; of
    :class:`~searchlib.spaces.ExpertMerges` the sum of its absolute weights over the merged experts.

    Example:
        >>> from searchlib.spaces import ExpertSubsets
        >>> expert_weights(ExpertSubsets(layers=3, experts=4, keep=2, groups=2), ((0, 3), (1, 2))).tolist()
        [[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0]]
    """
    if isinstance(value, tuple):
        groups = np.stack([np.isin(np.arange(space.experts), kept) for kept in value]).astype(np.float64)
    else:
        groups = np.abs(value.merging.astype(np.float64)).sum(axis=1)
    return np.asarray(groups[list(space.layer_groups)])


def plot_experts(space: Any, value: Any, *, axes: Axes | None = None) -> Axes:
    """Draw which experts every layer keeps, or how much of each is left where they are merged.

    Arguments:
        space: an :class:`~searchlib.spaces.ExpertSubsets` or :class:`~searchlib.spaces.ExpertMerges`.
        value: a candidate.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    axes = new_axes() if axes is None else axes
    weights = expert_weights(space, value)
    image = axes.imshow(weights.T, aspect="auto", interpolation="nearest", cmap="Blues", vmin=0,
                        vmax=max(1.0, float(weights.max())))  # fmt: skip
    starts = np.flatnonzero(np.diff(space.layer_groups)) + 0.5
    for start in starts if len(starts) + 1 < space.layers else ():
        axes.axvline(start, color="0.4", lw=0.8, ls=":")
    axes.set(xlabel="layer", ylabel="expert")
    axes.locator_params(integer=True)
    if isinstance(value, tuple):
        axes.set_title(f"{space.keep} of {space.experts} experts kept in each layer (dark)", fontsize=9)
    else:
        axes.figure.colorbar(image, ax=axes, label="sum of absolute weights in the merged experts")
    return axes
