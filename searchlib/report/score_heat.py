"""The score table as a heat map: candidates × cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from searchlib.objective import Direction
from searchlib.report.convergence import new_axes
from searchlib.report.stored_scores import StoredScores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_scores"]


def plot_scores(table: StoredScores, direction: Direction = "minimize", *, axes: Axes | None = None) -> Axes:
    """Draw scores as colors: a row per candidate in the order asked for, a column per case, the easiest case left.

    Failed candidates stay blank. Colors reach from the 2nd to the 98th percentile of the scores.

    Arguments:
        table: from :func:`searchlib.report.stored_scores.stored_scores`; of a large one a part, and the labels say so.
        direction: which scores are good ones; better is darker.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    axes = new_axes() if axes is None else axes
    scores, sign = table.scores, -1 if direction == "maximize" else 1
    known = ~np.isnan(scores)
    ease = np.where(known, scores, 0).sum(axis=0) / np.maximum(1, known.sum(axis=0))
    order = np.argsort(sign * ease, kind="stable")
    low, high = np.percentile(scores[known], [2, 98]) if known.any() else (0.0, 1.0)
    colors = "viridis_r" if direction == "maximize" else "viridis"
    image = axes.imshow(scores[:, order], aspect="auto", interpolation="nearest", cmap=colors, vmin=low, vmax=high,
                        extent=(0, scores.shape[1], table.candidates, 0))  # fmt: skip
    n, c = scores.shape
    fewer = [f" ({drawn} of {there:,} drawn)" if drawn < there else ""
             for drawn, there in ((n, table.candidates), (c, table.cases))]  # fmt: skip
    axes.set(xlabel=f"cases, the easiest left{fewer[1]}", ylabel=f"candidates, in the order asked for{fewer[0]}")
    axes.figure.colorbar(image, ax=axes, label="score on the case")
    return axes
