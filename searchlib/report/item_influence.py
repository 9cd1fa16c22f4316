"""What each chosen item (a prompt, an exemplar) did for the candidates that had it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objective import Direction
from searchlib.report.convergence import new_axes
from searchlib.report.picture_text import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["item_influence", "plot_influence"]


def item_influence(
    chosen: Sequence[int], population: NDArray[np.integer], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean value of candidates with an item minus that of candidates without, and its standard error; shape ``(k,)``.

    The candidates are those that a search met, which prefers good company for good items: influence says what went
    along with an item, not what it causes. NaN where no candidate, or every candidate, has the item.

    Arguments:
        chosen: the k items.
        population: items of every candidate, shape ``(n, places)``.
        values: shape ``(n,)``, finite.

    Example:
        >>> rows, values = np.array([[0, 1], [0, 2], [1, 2], [1, 3]]), np.array([3.0, 3.0, 1.0, 1.0])
        >>> item_influence([0, 2], rows, values)[0].tolist()
        [2.0, 0.0]
    """
    influence, error = np.full(len(chosen), np.nan), np.full(len(chosen), np.nan)
    for place, item in enumerate(chosen):
        has = (population == item).any(axis=1)
        groups = values[has], values[~has]
        if all(len(group) for group in groups):
            influence[place] = groups[0].mean() - groups[1].mean()
        if all(len(group) > 1 for group in groups):
            error[place] = np.sqrt(sum(group.var(ddof=1) / len(group) for group in groups))
    return influence, error


def plot_influence(
    chosen: Sequence[int], population: NDArray[np.integer], values: NDArray[np.float64],
    direction: Direction = "minimize", *, names: Sequence[str] | None = None, most: int = 30, axes: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw :func:`item_influence` with 95 % intervals, the most helpful item on top.

    Arguments:
        chosen: the winner's items; one that it has several times counts once.
        population: items of every candidate, shape ``(n, places)``.
        values: shape ``(n,)``, finite.
        direction: which values are good ones.
        names: of all items, by their number.
        most: items that are drawn: those with the largest influence.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: no item is in some candidates and not in others.
    """
    items = np.unique(chosen)
    influence, error = item_influence(items.tolist(), population, values)
    known = np.flatnonzero(np.isfinite(influence))
    if not len(known):
        raise InvalidSettings(f"influence needs candidates with and without an item, but all {len(values)} are alike")
    sign = 1 if direction == "maximize" else -1
    largest = known[np.argsort(-np.abs(influence[known]), kind="stable")[:most]]
    order = largest[np.argsort(sign * influence[largest], kind="stable")]
    axes = new_axes() if axes is None else axes
    places, reach = np.arange(len(order)), 1.96 * np.nan_to_num(error[order])
    axes.errorbar(influence[order], places, xerr=reach, fmt="o", ms=4, lw=1.2, color="C0")
    shown = [f"item {item}" if names is None else label(names[item]) for item in items[order].tolist()]
    axes.set_yticks(places, shown, fontsize=8 if len(order) <= 20 else 6)
    axes.axvline(0, color="0.4", lw=0.8)
    part = f", {len(order)} of {len(items)} chosen items drawn" if len(order) < len(items) else ""
    better = "right" if direction == "maximize" else "left"
    axes.set_xlabel(f"mean value with the item minus without (better: {better}){part}")
    return axes
