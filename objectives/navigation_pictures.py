"""Pictures of a many-agent navigation: an episode from above, and the same as a moving one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objectives.episode_pictures import film, frame_square, new_axes
from searchlib.objectives.navigation_layouts import NavigationLayouts
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_world import NavigationPaths

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["NavigationEpisode", "animate_navigation", "draw_navigation"]

_GOAL, _COVERED, _POST, _TRAIL = "0.6", "tab:green", "0.75", 12


@final
@dataclass(frozen=True, eq=False)
class NavigationEpisode:
    """One world of :meth:`Navigation.play <searchlib.objectives.navigation.Navigation.play>` with ``record=True``.

    Arguments:
        settings: of the world.
        layouts: that were played, by one team.
        paths: of all of them.
        world: which of them.
    """

    settings: NavigationSettings
    layouts: NavigationLayouts
    paths: NavigationPaths
    world: int = 0

    @property
    def agents(self) -> NDArray[np.float32]:
        """Positions at every step, shape ``(steps + 1, agents, dimension)``."""
        return self.paths.agents[:, self.world]

    @property
    def goals(self) -> NDArray[np.float64]:
        """Shape ``(goals, dimension)``."""
        return self.layouts.goals[self.world]

    @property
    def last(self) -> int:
        """The step after which all goals were occupied, or the last one."""
        return int(self.paths.done[self.world])

    def covered(self, now: int) -> NDArray[np.bool_]:
        """Which goals are occupied at a step, shape ``(goals,)``."""
        apart = np.linalg.norm(self.agents[now][:, None] - self.goals[None], axis=-1)
        return np.asarray((apart <= self.settings.reached).any(axis=0))


def draw_navigation(episode: NavigationEpisode, *, until: int | None = None, axes: Axes | None = None) -> Axes:
    """Draw an episode from above: whole paths, goals (filled where occupied), pillars.

    Arguments:
        episode: what to draw.
        until: the last step that is drawn; None: that at which all goals were occupied, or the last one.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig("episode.png")`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: there is no such step.
    """
    last = episode.last if until is None else until
    if not 0 <= last < len(episode.agents):
        raise InvalidSettings(f"until= must be a step from 0 to {len(episode.agents) - 1}, but is {until!r}")
    axes = new_axes(5, 5)[0] if axes is None else axes
    _arena(axes, episode)
    _state(axes, episode, last, last)
    return axes


def animate_navigation(episode: NavigationEpisode, path: str | os.PathLike[str], *, every: int = 1) -> Path:
    """Write an episode as a GIF, seen from above, at half the speed of life, until all goals are occupied.

    Arguments:
        episode: what to draw.
        path: of the file; its folder must exist.
        every: steps from one frame to the next.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: frames no steps apart.
    """
    if every < 1:
        raise InvalidSettings(f"every= must be at least 1 step from frame to frame, but is {every!r}")
    axes = new_axes(4, 4)[0]
    _arena(axes, episode)
    states = sorted({*range(0, episode.last, every), episode.last})
    return film(
        axes, path, states, 2 * every * episode.settings.dt, lambda now: _state(axes, episode, now, _TRAIL)
    )  # fmt: skip


def _arena(axes: Axes, episode: NavigationEpisode) -> None:
    from matplotlib.patches import Circle

    for x, y in episode.layouts.pillars[episode.world][:, :2]:
        axes.add_patch(Circle((x, y), episode.settings.pillar_radius, color=_POST))
    places = np.concatenate([episode.agents[: episode.last + 1].reshape(-1, episode.agents.shape[-1]), episode.goals])
    frame_square(axes, float(np.abs(places[:, :2]).max()))


def _state(axes: Axes, episode: NavigationEpisode, now: int, trail: int) -> list[Any]:
    """Draw a state and the way to it; what was drawn."""
    from matplotlib.patches import Circle

    drawn: list[Any] = []
    covered = episode.covered(now)
    for (x, y), there in zip(episode.goals[:, :2].tolist(), covered, strict=True):
        goal = Circle((x, y), episode.settings.reached, fill=bool(there), alpha=0.5, color=_COVERED if there else _GOAL)
        drawn.append(axes.add_patch(goal))
    for path in np.moveaxis(episode.agents[max(0, now - trail) : now + 1], 1, 0):
        drawn += axes.plot(path[:, 0], path[:, 1], color="tab:blue", linewidth=0.8, alpha=0.6)
        agent = Circle((float(path[-1, 0]), float(path[-1, 1])), episode.settings.touch / 2, color="tab:blue")
        drawn.append(axes.add_patch(agent))
    axes.set_title(f"{now * episode.settings.dt:.1f} s, {int(covered.sum())} of {len(covered)} goals occupied")
    return drawn
