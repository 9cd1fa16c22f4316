"""Tasks that a curriculum offered, over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.report.convergence import new_axes
from searchlib.report.picture_text import label

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_tasks"]

_Arrays = Sequence[NDArray[np.floating[Any]]]


def plot_tasks(
    tasks: _Arrays, success: _Arrays | None = None, *, name: str = "task", coordinate: int = 0,
    scale: bool = True, axes: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw one coordinate of the tasks of every generation, colored by the success in them.

    Arguments:
        tasks: one array ``(n, coordinates)`` per generation, such as ``CurriculumBatch.tasks``.
        success: the mean success in each, one array ``(n,)`` per generation; those of the last ones may be missing.
        name: of the coordinate, such as one of ``CurriculumTasks.names``.
        coordinate: which one.
        scale: whether the picture says which color means which success.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: no generation, no such coordinate, or not one success per task.
    """
    told = len(tasks) if success is None else min(len(tasks), len(success))
    if not told or any(part.ndim != 2 or not 0 <= coordinate < part.shape[1] for part in tasks[:told]):
        raise InvalidSettings(
            f"tasks must hold an array (n, coordinates) per generation with coordinate {coordinate}, but hold "
            f"{[part.shape for part in tasks[:3]]}"
        )
    sizes = [len(part) for part in tasks[:told]]
    if success is not None and [len(part) for part in success[:told]] != sizes:
        counts = [len(part) for part in success[:told]]
        raise InvalidSettings(f"success must hold one number per task, but holds {counts[:9]} for {sizes[:9]} tasks")
    axes = new_axes() if axes is None else axes
    generation = np.repeat(np.arange(told), sizes)
    values = np.concatenate([part[:, coordinate] for part in tasks[:told]])
    if success is None:
        axes.scatter(generation, values, s=8, lw=0)
    else:
        dots = axes.scatter(generation, values, c=np.concatenate(list(success[:told])), s=8, lw=0, vmin=0, vmax=1,
                            cmap="viridis")  # fmt: skip
        if scale:
            axes.figure.colorbar(dots, ax=axes, label="success in the task")
    axes.set(xlabel="generation", ylabel=label(name))
    axes.locator_params(axis="x", integer=True)
    return axes
