"""Pictures of a pursuit: an episode from above, the same as a moving one, and what a curriculum offered."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objectives.episode_pictures import draw_generations, film, frame_square, new_axes
from searchlib.objectives.pursuit_record import PursuitTrajectory
from searchlib.objectives.pursuit_tasks import TASK_AXES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["animate_pursuit", "draw_curriculum", "draw_pursuit"]

_PURSUERS, _EVADER, _OBSTACLES = "tab:blue", "tab:red", "0.6"
_UNITS = {"evader_speed": "m/s", "half_size": "m", "obstacle_speed": "m/s", "capture_radius": "m"}


def draw_pursuit(trajectory: PursuitTrajectory, *, until: int | None = None, axes: Axes | None = None) -> Axes:
    """Draw an episode from above: paths, where everything is in the end, and the capture radius around the evader.

    Arguments:
        trajectory: from :meth:`Pursuit.record <searchlib.objectives.Pursuit.record>`.
        until: the last state that is drawn; None: that of the first capture, or the last one.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig("episode.png")`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: there is no such state.
    """
    last = _last(trajectory) if until is None else until
    if not 0 <= last < len(trajectory.evader):
        raise InvalidSettings(f"until= must be a state from 0 to {len(trajectory.evader) - 1}, but is {until!r}")
    axes = new_axes(5, 5)[0] if axes is None else axes
    _arena(axes, trajectory)
    _state(axes, trajectory, last)
    return axes


def _last(trajectory: PursuitTrajectory) -> int:
    """The state of the first capture, or the last one."""
    return int(np.argmax(trajectory.captured)) if trajectory.captured.any() else len(trajectory.evader) - 1


def _arena(axes: Axes, trajectory: PursuitTrajectory) -> None:
    from matplotlib.patches import Circle, Rectangle

    settings, size = trajectory.settings, trajectory.task.half_size
    wall: Any = Circle((0, 0), size) if settings.arena == "cylinder" else Rectangle((-size, -size), 2 * size, 2 * size)
    wall.set(fill=False, edgecolor="black", linewidth=1.5)
    axes.add_patch(wall)
    if settings.arena == "cylinder":
        standing = trajectory.post_heights >= 0
        for x, y in trajectory.obstacles[0, standing, :2]:
            axes.add_patch(Circle((x, y), size / 3, color=_OBSTACLES))
    frame_square(axes, size)


def _state(axes: Axes, trajectory: PursuitTrajectory, now: int) -> list[Any]:
    """Draw a state and the way to it; what was drawn."""
    from matplotlib.patches import Circle

    settings, task = trajectory.settings, trajectory.task
    drawn: list[Any] = []
    until = slice(None, now + 1)
    for path in np.moveaxis(trajectory.pursuers[until], 1, 0):
        drawn += axes.plot(path[:, 0], path[:, 1], color=_PURSUERS, linewidth=1, alpha=0.5)
    evader = trajectory.evader[until]
    drawn += axes.plot(evader[:, 0], evader[:, 1], color=_EVADER, linewidth=1, alpha=0.5)
    if settings.arena == "box":
        for x, y in trajectory.obstacles[now, :, :2]:
            drawn.append(axes.add_patch(Circle((x, y), settings.obstacle_radius, color=_OBSTACLES)))
    drawn += axes.plot(*trajectory.pursuers[now, :, :2].T, "o", color=_PURSUERS, markersize=5)
    drawn += axes.plot(*evader[-1, :2], "o", color=_EVADER, markersize=5)
    reach = Circle((evader[-1, 0], evader[-1, 1]), task.capture_radius, fill=False, edgecolor=_EVADER, linestyle=":")
    drawn.append(axes.add_patch(reach))
    caught = ", caught" if trajectory.captured[until].any() else ""
    axes.set_title(f"evader at {task.evader_speed:.3g} m/s, {trajectory.times[now]:.2f} s{caught}")
    return drawn


def animate_pursuit(
    trajectory: PursuitTrajectory, path: str | os.PathLike[str], *, every: int = 2, until: int | None = None
) -> Path:
    """Write an episode as a GIF, seen from above, at the speed of life.

    Arguments:
        trajectory: from :meth:`Pursuit.record <searchlib.objectives.Pursuit.record>`.
        path: of the file; its folder must exist.
        every: states from one frame to the next.
        until: the last state; None: that of the first capture, or the last one.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: frames no states apart.
    """
    if every < 1:
        raise InvalidSettings(f"every= must be at least 1 state from frame to frame, but is {every!r}")
    axes = new_axes(4, 4)[0]
    last = _last(trajectory) if until is None else until
    _arena(axes, trajectory)
    states = sorted({*range(0, last, every), last})
    return film(axes, path, states, every * trajectory.settings.dt, lambda now: _state(axes, trajectory, now))


def draw_curriculum(
    tasks: Sequence[NDArray[np.floating[Any]]], success: Sequence[NDArray[np.floating[Any]]],
    names: Sequence[str] = TASK_AXES,
) -> Sequence[Axes]:
    """Draw the tasks of every generation, a coordinate below the other, colored by the success in them.

    Arguments:
        tasks: one array ``(n, 4)`` per generation, columns as in ``TASK_AXES``.
        success: the mean success in each, one array ``(n,)`` per generation; those of the last ones may be missing.
        names: coordinates to draw.

    Returns:
        the Axes, one per coordinate; ``axes[0].figure.savefig("curriculum.png")`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: no generation with its success, or a coordinate that tasks do not have.
    """
    if not names or not set(names) <= set(TASK_AXES):
        raise InvalidSettings(f"a picture needs coordinates out of {TASK_AXES}, but got {tuple(names)}")

    def shown(rows: NDArray[Any], success: NDArray[Any]) -> dict[str, NDArray[Any]]:
        del success
        return {f"{name.replace('_', ' ')} ({_UNITS[name]})": rows[:, TASK_AXES.index(name)] for name in names}

    return draw_generations(tasks, success, shown, lambda count: (7, 1 + 1.8 * count))
