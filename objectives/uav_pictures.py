"""Pictures of a multi-UAV pursuit: an episode from above, the same as a moving one, and the tasks of a training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objectives.episode_pictures import draw_generations, film, frame_square, new_axes
from searchlib.objectives.uav_settings import UavSettings
from searchlib.objectives.uav_tasks import UavTask, UavTasks
from searchlib.objectives.uav_world import UavPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["UavEpisode", "animate_uav_pursuit", "draw_uav_curriculum", "draw_uav_pursuit"]

_DRONES, _EVADER, _POSTS = ("tab:blue", "tab:cyan", "tab:purple"), "tab:red", "0.6"


@final
@dataclass(frozen=True, eq=False)
class UavEpisode:
    """One world of :meth:`UavPursuit.paths <searchlib.objectives.uav_pursuit.UavPursuit.paths>`.

    Arguments:
        settings: of the world.
        task: of the world.
        paths: of many worlds.
        world: which of them.
    """

    settings: UavSettings
    task: UavTask
    paths: UavPaths
    world: int = 0

    @property
    def drones(self) -> NDArray[np.float32]:
        """Positions at every decision, shape ``(decisions, drones, 3)``."""
        return self.paths.drones[:, self.world]

    @property
    def evader(self) -> NDArray[np.float32]:
        """Positions at every decision, shape ``(decisions, 3)``."""
        return self.paths.evader[:, self.world]

    @property
    def times(self) -> NDArray[np.float64]:
        """Of the decisions, in s."""
        return np.arange(len(self.evader), dtype=np.float64) * (self.settings.dt * self.settings.decide_every)

    @property
    def last(self) -> int:
        """The decision before the first capture, or the last one."""
        caught = self.paths.captured[:, self.world]
        return int(np.argmax(caught)) if caught.any() else len(caught) - 1


def draw_uav_pursuit(episode: UavEpisode, *, until: int | None = None, axes: Axes | None = None) -> Axes:
    """Draw an episode from above: paths, cylinders, and the capture radius around the evader.

    Arguments:
        episode: what to draw.
        until: the last decision that is drawn; None: that of the first capture, or the last one.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig("episode.png")`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: there is no such decision.
    """
    last = episode.last if until is None else until
    if not 0 <= last < len(episode.evader):
        raise InvalidSettings(f"until= must be a decision from 0 to {len(episode.evader) - 1}, but is {until!r}")
    axes = new_axes(5, 5)[0] if axes is None else axes
    _arena(axes, episode)
    _state(axes, episode, last)
    return axes


def _arena(axes: Axes, episode: UavEpisode) -> None:
    from matplotlib.patches import Circle

    size = episode.settings.radius
    axes.add_patch(Circle((0, 0), size, fill=False, edgecolor="black", linewidth=1.5))
    tasks = UavTasks.of([episode.task])
    for x, y in tasks.cylinders[0][tasks.stands[0]]:
        axes.add_patch(Circle((x, y), episode.settings.cylinder_radius, color=_POSTS))
    frame_square(axes, size)


def _state(axes: Axes, episode: UavEpisode, now: int) -> list[Any]:
    """Draw a state and the way to it; what was drawn."""
    from matplotlib.patches import Circle

    drawn: list[Any] = []
    for number, path in enumerate(np.moveaxis(episode.drones[: now + 1], 1, 0)):
        color = _DRONES[number % len(_DRONES)]
        drawn += axes.plot(path[:, 0], path[:, 1], color=color, linewidth=1, alpha=0.6)
        drawn += axes.plot(*path[-1, :2], "o", color=color, markersize=5)
    evader = episode.evader[: now + 1]
    drawn += axes.plot(evader[:, 0], evader[:, 1], color=_EVADER, linewidth=1, alpha=0.6)
    drawn += axes.plot(*evader[-1, :2], "o", color=_EVADER, markersize=5)
    seen = bool(episode.paths.seen[now, episode.world])
    style = ":" if seen else "--"
    center = (float(evader[-1, 0]), float(evader[-1, 1]))
    reach = Circle(center, episode.settings.capture_radius, fill=False, edgecolor=_EVADER, linestyle=style)
    drawn.append(axes.add_patch(reach))
    caught = episode.paths.captured[: now + 1, episode.world].any()
    said = "caught" if caught else "seen" if seen else "hidden"
    axes.set_title(f"{episode.times[now]:.2f} s, the evader is {said}")
    return drawn


def animate_uav_pursuit(
    episode: UavEpisode, path: str | os.PathLike[str], *, every: int = 2, until: int | None = None
) -> Path:
    """Write an episode as a GIF, seen from above, at the speed of life.

    Arguments:
        episode: what to draw.
        path: of the file; its folder must exist.
        every: decisions from one frame to the next.
        until: the last decision; None: that of the first capture, or the last one.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: frames no decisions apart.
    """
    if every < 1:
        raise InvalidSettings(f"every= must be at least 1 decision from frame to frame, but is {every!r}")
    axes = new_axes(4, 4)[0]
    last = episode.last if until is None else until
    _arena(axes, episode)
    seconds = every * episode.settings.dt * episode.settings.decide_every
    return film(
        axes, path, sorted({*range(0, last, every), last}), seconds, lambda now: _state(axes, episode, now)
    )  # fmt: skip


def draw_uav_curriculum(
    tasks: Sequence[NDArray[np.floating[Any]]], success: Sequence[NDArray[np.floating[Any]]]
) -> Sequence[Axes]:
    """Draw the tasks of every generation, colored by the success in them.

    One below the other: the success itself, the distance from the evader to the nearest drone at the start, the
    evader's and the first drone's place across the arena.

    Arguments:
        tasks: one array ``(n, 24)`` per generation, columns as in ``UAV_AXES``.
        success: the mean success in each, one array ``(n,)`` per generation; those of the last ones may be missing.

    Returns:
        the Axes; ``axes[0].figure.savefig("curriculum.png")`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: no generation with its success.
    """

    def shown(rows: NDArray[Any], success: NDArray[Any]) -> dict[str, NDArray[Any]]:
        every = UavTasks(rows, np.zeros(len(rows), np.int64))
        away = np.linalg.norm(every.drones - every.evader[:, None], axis=-1).min(axis=1)
        return {
            "success": success, "nearest drone (m)": away, "evader y (m)": every.evader[:, 1],
            "drone y (m)": every.drones[:, 0, 1],
        }  # fmt: skip

    return draw_generations(tasks, success, shown, lambda count: (7, 7))
