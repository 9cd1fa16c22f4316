"""How far goals are: straight lines, and what someone who knows the physics makes of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.objectives.navigation_layouts import NavigationLayouts
from searchlib.objectives.navigation_settings import NavigationSettings

__all__ = ["crossed", "distances", "informed_distances"]

Floats = NDArray[np.floating[Any]]


def distances(position: Floats, goals: Floats) -> Floats:
    """Straight lines from agents to goals, shape ``(n, agents, goals)``, in m."""
    return np.asarray(np.linalg.norm(position[:, :, None] - goals[:, None], axis=-1))


def informed_distances(
    position: Floats, velocity: Floats, layouts: NavigationLayouts, settings: NavigationSettings
) -> Floats:  # fmt: skip
    """Ways from where agents would coast to, around the pillars, shape ``(n, agents, goals)``, in m.

    An agent without a command coasts ``velocity · dt / damping`` (flights: not at all, the inner loop brakes). A way
    around a pillar is the shortest: two tangents and an arc; several pillars add up.

    Arguments:
        position: of the agents, in m, shape ``(n, agents, dimension)``.
        velocity: in m/s, of the same shape.
        layouts: of the worlds, which know goals and pillars.
        settings: of the worlds.
    """
    coasts = settings.dt / settings.damping if settings.flight is None and settings.damping else 0.0
    start = position + coasts * velocity
    total = distances(start, layouts.goals)
    reach = settings.radius + settings.pillar_radius
    for post in np.moveaxis(layouts.pillars, 1, 0):
        from_start, from_goal = start - post[:, None], layouts.goals - post[:, None]
        # An agent that would coast into a pillar is taken to be at its edge.
        near, far = (np.maximum(np.linalg.norm(one, axis=-1), reach) for one in (from_start, from_goal))
        straight = distances(start, layouts.goals)
        cosine = (from_start[:, :, None] * from_goal[:, None]).sum(axis=-1) / (near[:, :, None] * far[:, None])
        arc = np.arccos(cosine.clip(-1, 1)) - np.arccos(reach / near)[:, :, None] - np.arccos(reach / far)[:, None]
        legs = np.sqrt(near**2 - reach**2)[:, :, None] + np.sqrt(far**2 - reach**2)[:, None]
        around = legs + reach * arc.clip(0)
        total += np.where(arc > 0, (around - straight).clip(0), 0.0)
    return total


def crossed(position: Floats, goals: Floats, pillars: Floats, settings: NavigationSettings) -> Floats:
    """How much of pillars straight lines cross, shape ``(n, agents, goals)``: 1 through the middle of one."""
    total = np.zeros((len(goals), position.shape[1], goals.shape[1]), np.float32)
    wide = settings.radius + settings.pillar_radius
    way = goals[:, None] - position[:, :, None]
    square = (way * way).sum(axis=-1) + 1e-9
    for post in np.moveaxis(np.asarray(pillars, np.float32), 1, 0):
        offset = post[:, None] - position
        share = ((offset[:, :, None] * way).sum(axis=-1) / square).clip(0.0, 1.0)
        miss = offset[:, :, None] - share[..., None] * way
        total += (1 - np.sqrt((miss * miss).sum(axis=-1)) / wide).clip(0.0)
    return total
