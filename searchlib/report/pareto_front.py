"""The front of a search with several objectives among everything that was evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objective import Direction
from searchlib.pareto import nondominated
from searchlib.report.convergence import new_axes
from searchlib.report.picture_text import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_front"]

#: Candidates that are drawn beside the front.
_MOST = 2000


def plot_front(
    values: NDArray[np.float64], direction: Sequence[Direction], *, names: Sequence[str] = (),
    front: NDArray[np.float64] | None = None, chosen: int | None = None, x: int = 0, y: int = 1,
    axes: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw two of several values of every candidate, and the front as steps.

    Of more than two values the front that is drawn is that of all of them, seen from one side: points without steps.

    Arguments:
        values: shape ``(n, objectives)``, on the SEARCH cases; NaN where a candidate failed.
        direction: of every value.
        names: of the values.
        front: values of the front, shape ``(m, objectives)``, which may be on other cases (SELECT); by default what no
            row of ``values`` dominates.
        chosen: position of the winner in ``front``.
        x, y: numbers of the values to draw.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: there are not two values, or no candidate has any.
    """
    m = len(direction)
    if values.ndim != 2 or values.shape[1] != m or m < 2 or x == y or not {x, y} <= set(range(m)):
        raise InvalidSettings(
            f"a front needs values (n, objectives) of two objectives or more, and x and y among them, but got shape "
            f"{values.shape}, {m} direction(s) and (x={x}, y={y})"
        )
    done = values[np.isfinite(values).all(axis=1)]
    if not len(done):
        raise InvalidSettings("a front needs a candidate that has values, but there is none yet")
    where = "on the search cases" if front is None else "on the cases the winner was picked on"
    best = done[nondominated(done, tuple(direction))] if front is None else front
    axes = new_axes() if axes is None else axes
    shown = done[np.linspace(0, len(done) - 1, min(_MOST, len(done))).astype(int)]
    part = f", {len(shown):,} of {len(done):,} drawn" if len(shown) < len(done) else ""
    axes.scatter(shown[:, x], shown[:, y], s=8, color="0.6", alpha=0.5, lw=0, label=f"candidates{part}")
    line = best[np.argsort(best[:, x], kind="stable")]
    if m == 2:
        # Between two points, what the front dominates begins at the worse of both values.
        step = "post" if direction[x] == "minimize" else "pre"
        axes.step(line[:, x], line[:, y], where=step, lw=1, color="C0")  # type: ignore[arg-type]
    axes.scatter(line[:, x], line[:, y], s=18, color="C0", zorder=3, label=f"front, {where}")
    if chosen is not None:
        axes.scatter(best[chosen, x], best[chosen, y], s=110, marker="*", color="C1", zorder=4, label="winner")
    titles = [label(name) for name in names] or [f"value {number}" for number in range(m)]
    arrows = {"minimize": "lower is better", "maximize": "higher is better"}
    axes.set(xlabel=f"{titles[x]} ({arrows[direction[x]]})", ylabel=f"{titles[y]} ({arrows[direction[y]]})")
    axes.legend(fontsize="small")
    return axes
