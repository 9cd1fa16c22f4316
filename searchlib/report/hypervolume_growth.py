"""The volume that a front dominates, against evaluations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import numbers
from searchlib.errors import InvalidSettings
from searchlib.hypervolume import hypervolume
from searchlib.objective import Direction
from searchlib.pareto import minimized, nondominated
from searchlib.report.convergence import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["hypervolume_growth", "plot_hypervolume"]

#: How far behind the front's worst values the reference lies, as a share of their range.
_MARGIN = 0.1
#: After how many evaluations the volume is computed, evenly spaced.
_POINTS = 80


def hypervolume_growth(
    values: NDArray[np.float64], direction: Sequence[Direction], reference: Sequence[float] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Evaluations, and the hypervolume of what was known by then; both shape ``(points,)``.

    Arguments:
        values: shape ``(n, objectives)``, in the order told; NaN where a candidate failed.
        direction: of every value.
        reference: what must be beaten, in the objective's own units; by default 10 % of the last front's range behind
            its worst values, as ``result.front.hypervolume()`` has it.

    Raises:
        InvalidSettings: one objective, or no candidate has values.

    Example:
        >>> points, volumes = hypervolume_growth(np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]]), ("minimize",) * 2,
        ...                                      reference=(4, 4))
        >>> points.tolist(), volumes.tolist()
        ([1, 2, 3], [3.0, 5.0, 6.0])
    """
    if values.ndim != 2 or values.shape[1] != len(direction) or len(direction) < 2:
        raise InvalidSettings(
            f"a hypervolume needs values (n, objectives) of two objectives or more, but got shape {values.shape} and "
            f"{len(direction)} direction(s)"
        )
    table = minimized(values, tuple(direction))
    done = np.isfinite(table).all(axis=1)
    if not done.any():
        raise InvalidSettings("a hypervolume needs a candidate that has values, but there is none yet")
    if reference is None:
        last = table[done][nondominated(table[done])]
        low, high = last.min(axis=0), last.max(axis=0)
        corner = high + _MARGIN * np.where(high > low, high - low, 1.0)
    else:
        corner = minimized(numbers("reference", reference)[None], tuple(direction))[0]
    points = np.unique(np.linspace(1, len(table), min(_POINTS, len(table))).round().astype(np.int64))
    front: NDArray[np.float64] = table[:0]
    volumes, before = [], 0
    for point in points.tolist():
        news = table[before:point]
        front = np.concatenate([front, news[np.isfinite(news).all(axis=1)]])
        front, before = np.asarray(front[nondominated(front)]), point
        volumes.append(hypervolume(front, corner) if len(front) else 0.0)
    return points, np.array(volumes)


def plot_hypervolume(
    values: NDArray[np.float64], direction: Sequence[Direction], *, reference: Sequence[float] | None = None,
    axes: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw :func:`hypervolume_growth`.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: one objective, or no candidate has values.
    """
    points, volumes = hypervolume_growth(values, direction, reference)
    axes = new_axes() if axes is None else axes
    axes.plot(points, volumes)
    given = "behind the last front" if reference is None else "as given"
    axes.set(xlabel="evaluations", ylabel=f"hypervolume (reference {given})", ylim=(0, None))
    return axes
