"""What pictures of episodes share: axes of a figure of their own, films, and tasks of a training by their success."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings, MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_generations", "film", "frame_square", "new_axes"]

_Arrays = Sequence[NDArray[np.floating[Any]]]


def new_axes(width: float, height: float, count: int = 1) -> list[Axes]:
    """Axes below each other, in a new figure that no window knows of.

    Arguments:
        width, height: of the figure, in inches.
        count: how many.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("pictures need matplotlib: pip install 'searchlib[report]'") from error
    found = Figure(figsize=(width, height), layout="constrained").subplots(count, 1, sharex=True, squeeze=False)
    return list(found[:, 0])


def frame_square(axes: Axes, size: float) -> None:
    """Show an arena from above that reaches from −``size`` to ``size``, in m."""
    axes.set(xlim=(-1.05 * size, 1.05 * size), ylim=(-1.05 * size, 1.05 * size), aspect="equal", xlabel="x (m)",
             ylabel="y (m)")  # fmt: skip


def film(
    axes: Axes, path: str | os.PathLike[str], states: Sequence[int], seconds: float, draw: Callable[[int], list[Any]]
) -> Path:
    """Write a GIF, at the speed of life; returns where.

    Arguments:
        axes: of the figure that is filmed, with all that does not move.
        path: of the file; its folder must exist.
        states: one per frame.
        seconds: from one frame to the next.
        draw: draws a state and says what was drawn, which is removed after its frame.
    """
    from matplotlib.animation import PillowWriter

    figure: Any = axes.figure
    writer = PillowWriter(fps=max(1, round(1 / seconds)))
    with writer.saving(figure, str(path), dpi=80):
        for state in states:
            drawn = draw(state)
            writer.grab_frame()
            for one in drawn:
                one.remove()
    return Path(path)


def draw_generations(
    tasks: _Arrays, success: _Arrays, shown: Callable[[NDArray[Any], NDArray[Any]], Mapping[str, NDArray[Any]]],
    size: Callable[[int], tuple[float, float]],
) -> Sequence[Axes]:  # fmt: skip
    """Draw the tasks of every generation, a number below the other, colored by the success in them.

    Arguments:
        tasks: one array ``(n, axes)`` per generation.
        success: the mean success in each, one array ``(n,)`` per generation; those of the last ones may be missing.
        shown: of all tasks ``(m, axes)`` and their success ``(m,)`` the numbers to draw, ``(m,)`` by label.
        size: width and height of so many pictures, in inches.

    Returns:
        the Axes, one per number.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: no generation with its success.
    """
    told = min(len(tasks), len(success))
    if not told:
        raise InvalidSettings(
            f"a picture needs a generation with its success, but got {len(tasks)} generations and the success of "
            f"{len(success)}"
        )
    from searchlib.report.task_history import plot_tasks  # pages of reports come with it

    ends = np.cumsum([len(part) for part in tasks[:told]])[:-1]
    numbers = shown(np.concatenate(tasks[:told]), np.concatenate(success[:told]))
    panels = new_axes(*size(len(numbers)), len(numbers))
    for axes, (name, values) in zip(panels, numbers.items(), strict=True):
        column = [part[:, None] for part in np.split(values, ends)]
        plot_tasks(column, success[:told], name=name, scale=False, axes=axes).label_outer()
    panels[0].figure.colorbar(panels[0].collections[0], ax=panels, label="success in the task")
    return panels
