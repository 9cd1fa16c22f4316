"""Coefficients of checkpoints over training time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from searchlib.arguments import numbers
from searchlib.errors import InvalidSettings
from searchlib.report.convergence import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_coefficients"]


def plot_coefficients(
    space: Any, value: Any, *, steps: Sequence[float] | None = None, axes: Axes | None = None
) -> Axes:
    """Draw the coefficient of every checkpoint, a line per block of parameters.

    Arguments:
        space: a :class:`~searchlib.spaces.CheckpointCoefficients`.
        value: a candidate.
        steps: training steps of the checkpoints, oldest first; by default they are numbered.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: not one step per checkpoint.
    """
    table = np.asarray(value, np.float64).reshape(space.blocks, space.checkpoints)
    when = np.arange(space.checkpoints) if steps is None else numbers("steps", steps)
    if when.shape != (space.checkpoints,):
        raise InvalidSettings(
            f"steps must be {space.checkpoints} numbers, one per checkpoint, but have shape {when.shape}"
        )
    axes = new_axes() if axes is None else axes
    if space.blocks == 1:
        axes.vlines(when, 0, table[0], lw=1.5, color="C0")
        axes.plot(when, table[0], "o", ms=4, color="C0")
    else:
        for block, row in enumerate(table):
            axes.plot(when, row, "o-", ms=3, lw=1, label=f"block {block}")
        axes.legend(fontsize="small", ncols=2 if space.blocks > 6 else 1)
    axes.axhline(0, color="0.4", lw=0.8)
    negative = -table[table < 0].sum() / space.blocks
    title = f"coefficients sum to 1; the negative ones to \N{MINUS SIGN}{negative:.3g}" if negative else \
        "coefficients sum to 1; none is negative"
    axes.set_title(title, fontsize=9)
    axes.set(xlabel="checkpoint, oldest first" if steps is None else "training step", ylabel="coefficient")
    if steps is None:
        axes.locator_params(axis="x", integer=True)
    return axes
