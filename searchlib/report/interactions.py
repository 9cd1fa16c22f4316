"""Which parameters matter together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from searchlib.errors import InvalidSettings
from searchlib.report.convergence import new_axes
from searchlib.report.picture_text import label
from searchlib.report.variance_shares import VarianceShares

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_interactions"]


def plot_interactions(shares: VarianceShares, *, axes: Axes | None = None) -> Axes:
    """Draw what pairs of the most important parameters explain beyond each of them; on the diagonal, each by itself.

    Arguments:
        shares: from :func:`searchlib.report.variance_shares.variance_shares`.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: there is only one parameter.
    """
    if not shares.pairs:
        raise InvalidSettings(f"interactions need two parameters or more, but the space has {list(shares.names)!r:.80}")
    axes = new_axes() if axes is None else axes
    shown = sorted({place for pair in shares.pairs for place in pair})
    table = np.full((len(shown), len(shown)), np.nan)
    for number, place in enumerate(shown):
        table[number, number] = 100 * shares.alone[place]
    for (first, second), share in zip(shares.pairs, shares.together, strict=True):
        table[shown.index(second), shown.index(first)] = 100 * share
    image = axes.imshow(table, cmap="Blues", vmin=0, vmax=max(1.0, float(np.nanmax(table))))
    for (row, column), share in np.ndenumerate(table):
        if row >= column:
            dark = share > 0.55 * float(np.nanmax(table))
            axes.text(column, row, f"{share:.1f}", ha="center", va="center", fontsize=8,
                      color="#fffffe" if dark else "#1c1d20")  # fmt: skip
    names = [label(shares.names[place], 20) for place in shown]
    axes.set_xticks(range(len(shown)), names, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(shown)), names)
    axes.spines[["top", "right"]].set_visible(False)
    axes.figure.colorbar(image, ax=axes, label="% of the variance")
    return axes
