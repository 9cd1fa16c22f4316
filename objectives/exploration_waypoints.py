# mypy: allow-untyped-defs
# Compiled functions have no annotations: numba infers their types.
"""Where an agent goes next, on its way to a ghost node: a few steps to where it sees most, for a short detour."""

from __future__ import annotations

import numpy as np
from numba import njit

from searchlib.objectives.exploration_paths import distances_from
from searchlib.objectives.exploration_sight import unseen_from

__all__ = ["choose_waypoint"]

#: Steps that a detour may cost.
_DETOUR = 4


@njit(cache=True, nogil=True)
def choose_waypoint(known, path, place, goal, ahead, width, tree, look, scratch, stamp):
    """The cell to walk to, of all that are ``ahead`` steps away and no more than a short detour; a nearer goal is kept.

    There are many shortest paths on a grid, and some pass doors and corners from which more is seen.

    Arguments:
        known: the team's map, flat.
        path: steps from the agent to every cell.
        place, goal: flat cells.
        ahead: steps to the waypoint.
        width: of the grid.
        tree: rays by which gains are estimated.
        look: steps of detour that an unknown cell in sight of the waypoint is worth; 0: there are no waypoints.
        scratch: a :class:`~searchlib.objectives.exploration_ghosts.Scratch`, written.
        stamp: the last one that was used.

    Returns:
        the waypoint, and the last stamp that was used.
    """
    if path[goal] <= ahead or look <= 0:
        return goal, stamp
    to_goal = scratch.found
    distances_from(known, goal, width, path[goal] - ahead + _DETOUR, to_goal, scratch.queue)
    best, where = -np.inf, goal
    for down in range(-ahead, ahead + 1):
        for right in range(abs(down) - ahead, ahead - abs(down) + 1):
            cell = place + down * width + right
            if not 0 <= cell < len(known) or path[cell] != ahead or to_goal[cell] < 0:
                continue
            stamp += 1
            value = look * unseen_from(known, cell, width, tree, scratch.stamps, stamp) - to_goal[cell]
            if value > best:
                best, where = value, cell
    return where, stamp
