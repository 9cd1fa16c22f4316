"""Which parameters a value depends on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from searchlib.report.convergence import new_axes
from searchlib.report.picture_text import label
from searchlib.report.variance_shares import VarianceShares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_importance"]


def plot_importance(shares: VarianceShares, *, most: int = 15, axes: Axes | None = None) -> Axes:
    """Draw the share of the variance that each parameter explains by itself, the largest on top.

    Arguments:
        shares: from :func:`searchlib.report.variance_shares.variance_shares`.
        most: parameters that are drawn.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    axes = new_axes() if axes is None else axes
    order = np.argsort(-shares.alone, kind="stable")[:most]
    places = np.arange(len(order))
    axes.barh(places, 100 * shares.alone[order], height=0.7)
    axes.set_yticks(places, [label(shares.names[place]) for place in order])
    axes.invert_yaxis()
    part = f", {len(order)} of {len(shares.names)} drawn" if len(order) < len(shares.names) else ""
    axes.set_xlabel(f"% of the variance (the forest explains {max(0, 100 * shares.fit):.0f} %){part}")
    axes.spines[["top", "right"]].set_visible(False)
    return axes
