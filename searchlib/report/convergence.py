"""Best value so far against evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import MissingDependency
from searchlib.history import History
from searchlib.objective import Direction

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["best_so_far", "new_axes", "plot_convergence"]


def best_so_far(history: History, direction: Direction = "minimize") -> NDArray[np.float64]:
    """Best first value after every distinct evaluation, shape ``(evaluations,)``; NaN before the first success."""
    values = history.values[history.fresh, 0]
    best = np.fmax.accumulate(values) if direction == "maximize" else np.fmin.accumulate(values)
    return np.asarray(best)


def new_axes() -> Axes:
    """The axes of a new figure.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependency("pictures need matplotlib: pip install 'searchlib[report]'") from error
    axes: Axes = plt.figure(figsize=(7, 4.5), layout="constrained").subplots()
    return axes


def plot_convergence(
    curves: Mapping[str, Sequence[NDArray[np.float64]]],
    *,
    levels: Mapping[str, float] | None = None,
    ylabel: str = "best value so far",
    axes: Axes | None = None,
) -> Axes:
    """Draw convergence curves: a line for the mean over repetitions, a band from the worst to the best.

    Arguments:
        curves: for every name one array of :func:`best_so_far` per repetition (lengths may differ).
        levels: named horizontal lines, for baselines that need no search.
        ylabel: label of the vertical axis.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    axes = new_axes() if axes is None else axes
    for name, repetitions in curves.items():
        length = min(len(curve) for curve in repetitions)
        table = np.stack([curve[:length] for curve in repetitions])
        steps = np.arange(1, length + 1)
        (line,) = axes.plot(steps, table.mean(axis=0), label=name)
        if len(table) > 1:
            axes.fill_between(steps, table.min(axis=0), table.max(axis=0), color=line.get_color(), alpha=0.2, lw=0)
    for index, (name, level) in enumerate((levels or {}).items()):
        axes.axhline(level, label=name, color="0.4", lw=1, ls=[":", "--", "-.", (0, (1, 3))][index % 4])
    axes.set_xlabel("evaluations")
    axes.set_ylabel(ylabel)
    axes.legend(fontsize="small")
    return axes
