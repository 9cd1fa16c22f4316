"""The hypervolume of a front, exactly."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.errors import InvalidSettings
from searchlib.objective import Direction
from searchlib.pareto import minimized, nondominated

__all__ = ["hypervolume"]


def hypervolume(
    values: ArrayLike, reference: ArrayLike, direction: Direction | tuple[Direction, ...] = "minimize"
) -> float:
    """The volume of what some row dominates and that dominates the reference point.

    Zitzler and Thiele 1998. Two objectives are swept, three are swept with a staircase (Fonseca, Paquete and
    López-Ibáñez 2006), more are cut into slices of one objective less (HSO, While, Hingston, Barone and Huband 2006):
    exact for any number of objectives, quick up to four.

    Arguments:
        values: shape ``(n, m)``; rows with NaN, and rows no better than the reference somewhere, count nothing.
        reference: shape ``(m,)``, worse than everything that should count.
        direction: of every column, or of all of them.

    Raises:
        InvalidSettings: a reference of another shape, or one that is not finite.

    Example:
        >>> hypervolume([[1, 3], [2, 2], [3, 1]], [4, 4])
        6.0
        >>> hypervolume([[1, 2, 3]], [2, 4, 6])
        6.0
    """
    table = minimized(values, direction)
    corner = np.asarray(reference, np.float64)
    if corner.shape != (table.shape[1],) or not np.isfinite(corner).all():
        raise InvalidSettings(
            f"reference must be {table.shape[1]} finite numbers, one per objective, but is {reference!r:.200}"
        )
    corner = minimized(corner[None], direction)[0]
    with np.errstate(invalid="ignore"):
        table = table[(table < corner).all(axis=1)]
    return _volume(corner - np.unique(table[nondominated(table)], axis=0)) if len(table) else 0.0


def _volume(sides: NDArray[np.float64]) -> float:
    """The volume of the union of boxes with one corner at the origin; ``sides`` (n, m) are positive."""
    if not len(sides):
        return 0.0
    if sides.shape[1] == 1:
        return float(sides.max())
    if sides.shape[1] == 2:
        return _area(sides)
    if sides.shape[1] == 3:
        return _swept(sides)
    sides = sides[np.argsort(-sides[:, -1], kind="stable")]
    depth = sides[:, -1] - np.append(sides[1:, -1], 0.0)
    total, front = 0.0, sides[:0, :-1]
    for row, thick in zip(sides[:, :-1], depth, strict=True):
        if not (front >= row).all(axis=1).any():
            front = np.concatenate([front[~(front <= row).all(axis=1)], row[None]])
        if thick > 0:
            total += float(thick) * _volume(front)
    return total


def _area(sides: NDArray[np.float64]) -> float:
    ordered = sides[np.lexsort((-sides[:, 1], -sides[:, 0]))]
    heights = np.maximum.accumulate(ordered[:, 1])
    gained = np.diff(heights, prepend=0.0)
    return float((ordered[:, 0] * gained).sum())


def _swept(sides: NDArray[np.float64]) -> float:
    """From the tallest box to the lowest; the union of the boxes so far, seen from above, is a staircase."""
    ordered = sides[np.argsort(-sides[:, 2], kind="stable")].tolist()
    xs: list[float] = []  # steps of the staircase, ascending; their ys descend
    ys: list[float] = []
    area = total = 0.0
    heights = [row[2] for row in ordered[1:]] + [0.0]
    for (x, y, z), below in zip(ordered, heights, strict=True):
        start = bisect_left(xs, x)
        if start == len(xs) or ys[start] < y:
            # Steps before `start` that are not above y, and the one at x itself, disappear below the new one.
            end = start + (start < len(xs) and xs[start] == x)
            first = start
            while first and ys[first - 1] <= y:
                first -= 1
            left = xs[first - 1] if first else 0.0
            covered, edge = 0.0, left
            for step in range(first, end):
                covered += (xs[step] - edge) * ys[step]
                edge = xs[step]
            under = ys[end] if end < len(ys) else 0.0
            covered += (x - edge) * under
            area += (x - left) * y - covered
            xs[first:end], ys[first:end] = [x], [y]
        total += area * (z - below)
    return total
