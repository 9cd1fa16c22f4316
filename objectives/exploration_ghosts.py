# mypy: allow-untyped-defs
# Compiled functions have no annotations: numba infers their types.
"""Ghost nodes at planning time: where they are, how far they are from agents and from each other, what they promise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from searchlib.objectives.exploration_nodes import follow_line
from searchlib.objectives.exploration_paths import find_pockets, group_frontiers, spread, step_toward
from searchlib.objectives.exploration_sight import unseen_from

__all__ = [
    "MAX_GHOSTS", "Ghosts", "Scratch", "drop_explored", "from_circles", "from_frontiers", "ghost_arrays", "measure",
    "scratch_arrays", "window_sum",
]  # fmt: skip

#: Most ghost nodes at a time.
MAX_GHOSTS = 96
#: How far steps between ghosts are counted, over known cells and over unknown ones too.
_NEAR, _BEYOND = 30, 20


class Ghosts(NamedTuple):
    """Arrays for up to :data:`MAX_GHOSTS` ghosts and ``n`` agents, filled at every plan.

    Arguments:
        places: flat cells, ``(g,)``.
        sizes: frontier cells of a ghost, ``(g,)``.
        parents: its main node, ``(g,)``.
        gains: unknown cells in its sight, ``(g,)``.
        apart: steps between ghosts, ``(g, g)``; −1 where more than are counted.
        cells: the cell by which an agent would go to it, flat, ``(n, g)``.
        path: steps there, ``(n, g)``.
        beside: unknown cells in a 7-window around that cell, ``(n, g)``.
        on_the_way: unknown cells in sight from a few steps ahead on the way there, ``(n, g)``.
        beyond: steps between ghosts where unknown cells are walked on as well, ``(g, g)``; −1 as above.
        ages: steps since its cell was first at the edge of the map, ``(g,)``.
        pockets: unknown cells that hang together behind it, ``(g,)``.
    """

    places: Any
    sizes: Any
    parents: Any
    gains: Any
    apart: Any
    cells: Any
    path: Any
    beside: Any
    on_the_way: Any
    beyond: Any
    ages: Any
    pockets: Any


class Scratch(NamedTuple):
    """Arrays as long as the map that functions write into, and numbers of groups.

    Two need words: ``pocket`` says of an unknown cell how many it hangs together with; ``since`` of a known one at what
    step it was first planned with as a frontier, −1 for never, and is kept from plan to plan.
    """

    found: Any
    queue: Any
    group: Any
    frontier: Any
    region: Any
    stamps: Any
    numbers: Any
    pocket: Any
    since: Any


def ghost_arrays(agents: int) -> Ghosts:
    """Empty arrays for so many agents."""
    return Ghosts(
        np.empty(MAX_GHOSTS, np.int32), np.empty(MAX_GHOSTS, np.int32), np.zeros(MAX_GHOSTS, np.int64),
        np.empty(MAX_GHOSTS), np.empty((MAX_GHOSTS, MAX_GHOSTS)), np.empty((agents, MAX_GHOSTS), np.int64),
        np.empty((agents, MAX_GHOSTS)), np.empty((agents, MAX_GHOSTS)), np.empty((agents, MAX_GHOSTS)),
        np.empty((MAX_GHOSTS, MAX_GHOSTS)), np.empty(MAX_GHOSTS), np.empty(MAX_GHOSTS),
    )  # fmt: skip


def scratch_arrays(size: int) -> Scratch:
    """Arrays for a map of so many cells."""
    return Scratch(
        np.empty(size, np.int32), np.empty(size, np.int32), np.full(size, -2, np.int32), np.empty(size, np.int32),
        np.full(size, -1, np.int32), np.zeros(size + 1, np.int32), np.empty(MAX_GHOSTS, np.int64),
        np.zeros(size, np.int32), np.full(size, -1, np.int32),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def window_sum(sums, width, height, place, half):
    """Unknown cells in the square around a cell, as far as it is on the grid, by a table of sums."""
    row, column = place // width, place % width
    top, bottom = max(0, row - half), min(height, row + half + 1)
    left, right = max(0, column - half), min(width, column + half + 1)
    return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]


@njit(cache=True, nogil=True)
def from_frontiers(field, count, width, span, ghosts, scratch):
    """Ghosts that are groups of frontier cells with a path to them; returns how many.

    Arguments:
        field: steps from the agents to all cells, ``(n, cells)``.
        count: frontier cells in ``scratch.frontier``.
        width: of the grid.
        span: of a group, in cells.
        ghosts, scratch: written; ``scratch.numbers`` says which ghost a group became, −1 for none.
    """
    for g in range(MAX_GHOSTS):
        scratch.numbers[g] = -1
    groups = group_frontiers(
        scratch.frontier, count, width, span, MAX_GHOSTS, scratch.group, scratch.queue, ghosts.places, ghosts.sizes
    )
    kept = 0
    for g in range(groups):
        if field[0, ghosts.places[g]] >= 0:
            ghosts.places[kept], ghosts.sizes[kept] = ghosts.places[g], ghosts.sizes[g]
            scratch.numbers[g] = kept
            kept += 1
    return kept


@njit(cache=True, nogil=True)
def from_circles(known, field, walked, net, width, height, ghosts):
    """Ghosts that are points of circles around main nodes: agents go to the last free cell on the line to them.

    A point is dropped for good where an agent has been in that cell: from there it cannot be seen.

    Arguments:
        known: the team's map, flat.
        field: steps from the agents to all cells, ``(n, cells)``.
        walked: how often agents were at a cell, flat.
        net: the topological map, written.
        width, height: of the grid.
        ghosts: written.

    Returns:
        how many there are.
    """
    kept, left = 0, 0
    for g in range(net.counts[1]):
        parent = net.parents[g]
        where, _, _ = follow_line(known, net.nodes[parent], net.rows[g], net.columns[g], width, height)
        if walked[where] > 0:
            continue
        net.rows[left], net.columns[left], net.parents[left] = net.rows[g], net.columns[g], parent
        left += 1
        if kept < MAX_GHOSTS and field[0, where] >= 0:
            ghosts.places[kept], ghosts.sizes[kept] = where, 1
            kept += 1
    net.counts[1] = left
    return kept


@njit(cache=True, nogil=True)
def drop_explored(known, width, tree, least, agents, ghosts, kept, scratch, stamp):
    """Estimate gains, and drop ghosts around which (nearly) all is explored, where enough others are left.

    Arguments:
        known: the team's map, flat.
        width: of the grid.
        tree: rays by which gains are estimated.
        least: unknown cells in sight, below which the surroundings of a ghost count as explored.
        agents: ghosts that must be left.
        ghosts, kept: moved to the front, and how many there are.
        scratch: groups get their new numbers.
        stamp: the last one that was used.

    Returns:
        how many are left, and the last stamp that was used.
    """
    enough = 0
    keep = np.zeros(kept, np.bool_)
    for g in range(kept):
        stamp += 1
        ghosts.gains[g] = unseen_from(known, ghosts.places[g], width, tree, scratch.stamps, stamp)
        keep[g] = ghosts.gains[g] >= least
        enough += keep[g]
    if enough < agents or enough == kept:
        return kept, stamp
    left = 0
    for g in range(kept):
        number = -1
        if keep[g]:
            number = left
            ghosts.places[left], ghosts.sizes[left], ghosts.gains[left] = (
                ghosts.places[g], ghosts.sizes[g], ghosts.gains[g]
            )  # fmt: skip
            left += 1
        for group in range(MAX_GHOSTS):
            if scratch.numbers[group] == g:
                scratch.numbers[group] = number
                break
    return left, stamp


@njit(cache=True, nogil=True)
def measure(
    known, field, count, width, sums, tree, ahead, pull, grouped, ghosts, kept, scratch, stamp, step
):  # fmt: skip
    """Fill everything but places, sizes and gains of the ghosts; returns the last stamp that was used.

    Arguments:
        known: the team's map, flat.
        field: steps from the agents to all cells, ``(n, cells)``.
        count: frontier cells in ``scratch.frontier``.
        width: of the grid.
        sums: table of sums of the unknown cells.
        tree: rays by which gains are estimated.
        ahead: steps to where the agents look next.
        pull: steps that an unknown cell beside a frontier cell is worth, where an agent goes to one of a group.
        grouped: whether ghosts are groups of frontier cells.
        ghosts, kept: written, and how many there are.
        scratch: with the groups and ``scratch.region``.
        stamp: the last one that was used.
        step: of the episode.
    """
    agents, height = len(field), len(sums) - 1
    best = np.empty((agents, kept))
    find_pockets(known, width, scratch.pocket, scratch.queue)
    scratch.found[:] = -1
    for i in range(count):
        if scratch.since[scratch.frontier[i]] < 0:
            scratch.since[scratch.frontier[i]] = step
    for g in range(kept):
        _note_neighbors(known, width, ghosts, kept, g, scratch)
        ghosts.ages[g] = step - max(0, scratch.since[ghosts.places[g]])
        ghosts.parents[g] = max(0, scratch.region[ghosts.places[g]])
        for a in range(agents):
            ghosts.cells[a, g], best[a, g] = ghosts.places[g], np.inf
    if grouped:
        for i in range(count):
            cell = scratch.frontier[i]
            if scratch.group[cell] < 0 or field[0, cell] < 0 or scratch.numbers[scratch.group[cell]] < 0:
                continue
            g = scratch.numbers[scratch.group[cell]]
            worth = pull * window_sum(sums, width, height, cell, 3)
            for a in range(agents):
                if field[a, cell] - worth < best[a, g]:
                    best[a, g], ghosts.cells[a, g] = field[a, cell] - worth, cell
    for a in range(agents):
        stamp = _look_ahead(known, field[a], width, sums, tree, ahead, ghosts, kept, a, scratch.stamps, stamp)
    return stamp


@njit(cache=True, nogil=True)
def _note_neighbors(known, width, ghosts, kept, g, scratch):
    """Steps from a ghost to all others, over what is known to be free and over what may be; and its pocket."""
    place = ghosts.places[g]
    for through, reach, apart in ((False, _NEAR, ghosts.apart), (True, _BEYOND, ghosts.beyond)):
        reached = spread(known, place, width, reach, through, scratch.found, scratch.queue)
        for other in range(kept):
            apart[g, other] = scratch.found[ghosts.places[other]]
        for k in range(reached):
            scratch.found[scratch.queue[k]] = -1
    ghosts.pockets[g] = 0
    for near in (place + 1, place + width, place - 1, place - width):
        ghosts.pockets[g] = max(ghosts.pockets[g], scratch.pocket[near])


@njit(cache=True, nogil=True)
def _look_ahead(
    known, path, width, sums, tree, ahead, ghosts, kept, agent, stamps, stamp
):  # fmt: skip
    """Paths of one agent to all ghosts, and what it would see a few steps ahead on the ways there."""
    seen_from, seen_gain, seen = np.empty(kept, np.int64), np.empty(kept), 0
    for g in range(kept):
        cell = ghosts.cells[agent, g]
        ghosts.path[agent, g] = path[cell]
        ghosts.beside[agent, g] = window_sum(sums, width, len(sums) - 1, cell, 3)
        while path[cell] > ahead:
            cell = step_toward(cell, path, width)
        at = 0
        while at < seen and seen_from[at] != cell:
            at += 1
        if at == seen:
            stamp += 1
            seen_from[at] = cell
            seen_gain[at] = unseen_from(known, cell, width, tree, stamps, stamp)
            seen += 1
        ghosts.on_the_way[agent, g] = seen_gain[at]
    return stamp
