"""The two arenas of a pursuit: how walls and obstacles push, stop and move."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.objectives.pursuit_settings import PursuitSettings

__all__ = ["BoxArena", "CylinderArena", "PursuitArena", "over_agents", "over_axes"]

Floats = NDArray[np.float32]

#: What the authors add to distances before they divide by them, and to gaps before they divide by those.
_NEAR = np.float32(1e-5)
_TOUCH = np.float32(1e-9)
#: Gap to an obstacle's surface at which the repulsion of the heuristics becomes infinite, in m.
_MARGIN = np.float32(0.05)


def over_axes(squares: Floats) -> Floats:
    """The sum over the first axis, in its order.

    Sums of numpy take another order for other shapes. A world must not depend on how many there are beside it, since
    pursuits are chaotic; everything here is therefore exact operations on single numbers.
    """
    total = squares[0] + squares[1]
    for part in squares[2:]:
        total += part
    return total


def over_agents(vectors: Floats) -> Floats:
    """The sum over the last axis but one, in its order; zero over no agents."""
    total = np.zeros(vectors.shape[:-2] + vectors.shape[-1:], np.float32)
    for agent in range(vectors.shape[-2]):
        total += vectors[..., agent, :]
    return total


class PursuitArena(ABC):
    """Walls and obstacles of many worlds. Positions have shape ``(dimension, agents, n)``, worlds last, in m."""

    #: Centers of balls or feet of posts, shape ``(dimension, obstacles, n)``.
    obstacles: Floats

    @abstractmethod
    def walls(self, places: Floats) -> Floats:
        """The force of the walls on the evader, shape of ``places``."""

    @abstractmethod
    def inward(self, places: Floats) -> Floats:
        """The repulsion of the walls on heuristic pursuers, shape of ``places``."""

    @abstractmethod
    def normalized(self, places: Floats) -> Floats:
        """Places as shares of the arena's size, within ±1, shape of ``places``."""

    @abstractmethod
    def confine(self, places: Floats) -> None:
        """Put what has left the arena back to its edge, and what is inside a solid obstacle to its surface."""

    @abstractmethod
    def gaps(self, places: Floats) -> tuple[Floats, Floats]:
        """Unit vectors away from every obstacle and the gaps to their surfaces, negative inside.

        Returns:
            shapes ``(dimension, agents, obstacles, n)`` and ``(agents, obstacles, n)``.
        """

    @abstractmethod
    def on_evader(self, place: Floats) -> Floats:
        """The force of the obstacles on the evader at ``place``, shape ``(dimension, 1, n)``."""

    @abstractmethod
    def move(self, velocity: Floats) -> None:
        """Move the obstacles by ``velocity`` (m per step, shape ``(dimension, obstacles, n)``)."""

    @final
    def repulsion(self, unit: Floats, gap: Floats, *, softness: float | None = None) -> Floats:
        """Σ p̂ / gap over obstacles, shape ``(dimension, agents, n)``.

        Arguments:
            unit: from :meth:`gaps`.
            gap: from :meth:`gaps`.
            softness: added to the gap, in m, so that a policy sees bounded numbers; None: the law of the authors'
                heuristics, which grows beyond all bounds 0.05 m before the surface.
        """
        if softness is None:
            strength = 1 / (np.maximum(gap - _MARGIN, 0) + _TOUCH)
        else:
            strength = 1 / (np.maximum(gap, 0) + np.float32(softness))
        return over_agents(unit * strength)


@final
class BoxArena(PursuitArena):
    """TaskFlex Solver's box with moving balls.

    Arguments:
        settings: of all worlds.
        half_size: s of every world, shape ``(n,)``.
        obstacles: centers of the balls, shape ``(dimension, obstacles, n)``; they move.
    """

    def __init__(self, settings: PursuitSettings, half_size: Floats, obstacles: Floats) -> None:
        self.obstacles = obstacles
        self._radius = np.float32(settings.obstacle_radius)
        self._low = np.repeat(-half_size[None, None], settings.dimension, axis=0)
        self._low[2:] = 0
        self._high = np.repeat(half_size[None, None], settings.dimension, axis=0)
        self._high[2:] *= 2
        self._middle = (self._low + self._high) / 2
        self._half = half_size

    def walls(self, places: Floats) -> Floats:
        """1 / (p − low) − 1 / (high − p) on every axis."""
        return np.asarray(1 / (places - self._low + _NEAR) - 1 / (self._high - places + _NEAR), np.float32)

    def inward(self, places: Floats) -> Floats:
        """That of the evader."""
        return self.walls(places)

    def normalized(self, places: Floats) -> Floats:
        """Measured from the middle of the box."""
        return np.asarray((places - self._middle) / self._half, np.float32)

    def confine(self, places: Floats) -> None:
        """Balls are not solid: they only count collisions."""
        np.maximum(places, self._low, out=places)
        np.minimum(places, self._high, out=places)

    def gaps(self, places: Floats) -> tuple[Floats, Floats]:
        """From the surfaces of the balls."""
        away = places[:, :, None] - self.obstacles[:, None]
        distance = np.sqrt(over_axes(away * away))
        return away / (distance + _NEAR), distance - self._radius

    def on_evader(self, place: Floats) -> Floats:
        """Σ d̂ / |d| from the centers."""
        away = place - self.obstacles
        distance = np.sqrt(over_axes(away * away)) + _NEAR
        return over_agents(away / (distance * distance))[:, None]

    def move(self, velocity: Floats) -> None:
        """Stopped by the walls."""
        self.obstacles += velocity
        self.confine(self.obstacles)


@final
class CylinderArena(PursuitArena):
    """DualCL's cylinder with standing posts, which are solid.

    Arguments:
        settings: of all worlds.
        radius: of every arena, shape ``(n,)``.
        obstacles: feet of the posts, shape ``(dimension, obstacles, n)``.
        tops: their heights, shape ``(obstacles, n)``; negative where none stands.
    """

    def __init__(self, settings: PursuitSettings, radius: Floats, obstacles: Floats, tops: Floats) -> None:
        self.obstacles = obstacles
        self._flat = settings.dimension == 2
        self._radius = radius
        self._height = np.float32(4 / 3) * radius
        self._post = radius / 3
        self._stands = tops >= 0
        self._tops = tops

    def walls(self, places: Floats) -> Floats:
        """−p / (R − r)² in the plane and 1 / z − 1 / (H − z) (``_get_dummy_policy_prey``)."""
        force = np.empty_like(places)
        from_wall = self._radius - np.sqrt(over_axes(places[:2] ** 2))
        force[:2] = -places[:2] / (from_wall * from_wall + _NEAR)
        if not self._flat:
            force[2] = 1 / (places[2] + _NEAR) - 1 / (self._height - places[2] + _NEAR)
        return force

    def inward(self, places: Floats) -> Floats:
        """1 / (R − r) towards the axis."""
        force = np.zeros_like(places)
        from_axis = np.sqrt(over_axes(places[:2] ** 2))
        force[:2] = -places[:2] / ((from_axis + _NEAR) * (np.maximum(self._radius - from_axis, 0) + _TOUCH))
        return force

    def normalized(self, places: Floats) -> Floats:
        """Measured from the middle of the axis."""
        shares = places / self._radius
        shares[2:] -= np.float32(2 / 3)
        return shares

    def confine(self, places: Floats) -> None:
        """Out of the posts first, so that nothing ends outside of the arena."""
        for post in range(self.obstacles.shape[1]):
            away = places[:2] - self.obstacles[:2, None, post]
            distance = np.sqrt(over_axes(away * away))
            inside = (distance < self._post) & self._stands[post]
            if not self._flat:
                inside &= places[2] < self._tops[post]
            pushed = self.obstacles[:2, None, post] + away * (self._post / (distance + _TOUCH))
            places[:2] = np.where(inside, pushed, places[:2])
        from_axis = np.sqrt(over_axes(places[:2] ** 2))
        places[:2] *= np.minimum(self._radius / (from_axis + _TOUCH), 1)
        if not self._flat:
            np.maximum(places[2], 0, out=places[2])
            np.minimum(places[2], self._height, out=places[2])

    def gaps(self, places: Floats) -> tuple[Floats, Floats]:
        """From the nearest points of the posts, beside or above; infinite where none stands."""
        away = places[:2, :, None] - self.obstacles[:2, None]
        distance = np.sqrt(over_axes(away * away))
        unit = np.zeros((len(places), *distance.shape), np.float32)
        unit[:2] = away / (distance + _TOUCH)
        gap = distance - self._post
        if not self._flat:
            above = np.maximum(places[2][:, None] - self._tops, 0)
            beside = np.maximum(gap, 0)
            near = np.sqrt(beside * beside + above * above)
            over = above > 0
            gap = np.where(over, near, gap)
            unit[:2] *= np.where(over, beside / (near + _TOUCH), 1)
            unit[2] = above / (near + _TOUCH)
        return unit, np.where(self._stands, gap, np.float32(np.inf))

    def on_evader(self, place: Floats) -> Floats:
        """The repulsion on the heuristics (``obs_repel`` of the authors' evaluation)."""
        return self.repulsion(*self.gaps(place))

    def move(self, velocity: Floats) -> None:
        """Posts stand."""
        del velocity
