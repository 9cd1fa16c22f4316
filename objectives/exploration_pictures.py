"""Pictures of an exploration: the map, the topological map and the agents, still and moving."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objectives.episode_pictures import film, new_axes
from searchlib.objectives.exploration_episode import ExplorationEpisode

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["animate_exploration", "draw_exploration", "map_colors"]

#: What nobody has seen, free cells, walls, and free cells that are not seen in the end.
_UNKNOWN, _FREE, _WALL, _MISSED = (0.75, 0.75, 0.75), (1.0, 1.0, 1.0), (0.1, 0.1, 0.1), (0.95, 0.85, 0.7)
_AGENTS = ("tab:blue", "tab:orange", "tab:green", "tab:red", "tab:purple", "tab:brown", "tab:pink", "tab:cyan")


def map_colors(episode: ExplorationEpisode, step: int) -> NDArray[np.float64]:
    """The team's map after a step as an image, shape ``(height, width, 3)``: what is known, and what is there beside.

    Walls that are not known look like anything else that is not; free cells that are not are tinted.
    """
    known = (episode.first_seen >= 0) & (episode.first_seen <= step)
    image = np.empty((*known.shape, 3))
    image[:] = _UNKNOWN
    image[~known & ~episode.plan.walls] = _MISSED
    image[known & ~episode.plan.walls] = _FREE
    image[known & episode.plan.walls] = _WALL
    return image


def draw_exploration(episode: ExplorationEpisode, *, until: int | None = None, axes: Axes | None = None) -> Axes:
    """Draw the map after a step, the paths until then, main nodes, and where everybody wants to go.

    Arguments:
        episode: of :meth:`Exploration.record <searchlib.objectives.exploration.Exploration.record>`.
        until: the step; None: the last one.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig("episode.png")`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: there is no such step.
    """
    last = episode.steps if until is None else until
    if not 0 <= last <= episode.steps:
        raise InvalidSettings(f"until= must be a step from 0 to {episode.steps}, but is {until!r}")
    if axes is None:
        height, width = episode.plan.walls.shape
        scale = 8 / max(height, width)
        axes = new_axes(width * scale, height * scale + 0.4)[0]
    axes.set_axis_off()
    _state(axes, episode, last)
    return axes


def _state(axes: Axes, episode: ExplorationEpisode, step: int) -> list[Any]:
    drawn: list[Any] = [axes.imshow(map_colors(episode, step), interpolation="nearest")]
    mains = [place for place in episode.mains if (episode.paths[: step + 1] == place).all(axis=-1).any()]
    if mains:
        rows, columns = np.array(mains).T
        drawn += axes.plot(columns, rows, "o", color="0.6", markersize=4, zorder=2)
    for a in range(episode.paths.shape[1]):
        color = _AGENTS[a % len(_AGENTS)]
        rows, columns = episode.paths[: step + 1, a].T
        drawn += axes.plot(columns, rows, color=color, linewidth=1.2, zorder=3)
        drawn += axes.plot(columns[-1:], rows[-1:], "o", color=color, markersize=7, zorder=5)
        row, column = episode.goals[step, a]
        if row >= 0:
            drawn += axes.plot([column], [row], "x", color=color, markersize=7, zorder=4)
    title = f"{episode.plan.name}: step {step}, {episode.covered(step):.0%} covered"
    axes.set_title(title, fontsize=10)
    return drawn


def animate_exploration(
    episode: ExplorationEpisode, path: str | os.PathLike[str], *, every: int = 4, seconds: float = 0.1
) -> Path:
    """Write the episode as a GIF; returns where.

    Arguments:
        episode: what to draw.
        path: of the file; its folder must exist.
        every: draw every so many steps, and the last one.
        seconds: from one picture to the next.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: ``every`` below 1.
    """
    if every < 1:
        raise InvalidSettings(f"every= must be at least 1, but is {every!r}")
    height, width = episode.plan.walls.shape
    scale = 6 / max(height, width)
    axes = new_axes(width * scale, height * scale + 0.4)[0]
    axes.set_axis_off()
    states = sorted({*range(0, episode.steps, every), episode.steps})
    return film(axes, path, states, seconds, lambda step: _state(axes, episode, step))
