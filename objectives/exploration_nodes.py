# mypy: allow-untyped-defs
# Compiled functions have no annotations: numba infers their types.
"""The topological map: main nodes where agents have been, ghost nodes where they might go, and what prunes them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from searchlib.objectives.exploration_sight import FREE, UNKNOWN, WALL

__all__ = [
    "Net", "Topology", "add_circle", "divide_into_regions", "far_from_all", "follow_line", "grow", "prune_circle",
    "topology_arrays",
]  # fmt: skip

#: Room for main nodes (authors: 100 in a home), and for ghosts on circles.
_MAINS, _POINTS = 400, 4000


@njit(cache=True, nogil=True)
def far_from_all(place, nodes, count, width, spacing):
    """Whether no node lies within ``spacing`` cells (Euclid) of a place: there a new main node is made."""
    for k in range(count):
        down, right = nodes[k] // width - place // width, nodes[k] % width - place % width
        if down * down + right * right <= spacing * spacing:
            return False
    return True


@njit(cache=True, nogil=True)
def divide_into_regions(known, nodes, count, width, region, queue):
    """Which main node every known free cell is nearest to, by path; −1 for what no path leads to.

    Arguments:
        known: the team's map, flat.
        nodes, count: flat cells of the main nodes; of equally near ones the first.
        width: of the grid.
        region, queue: int32, as long as the map, written.
    """
    for cell in range(len(region)):
        region[cell] = -1
    first, last = 0, 0
    for k in range(count):
        if region[nodes[k]] < 0:
            region[nodes[k]] = k
            queue[last] = nodes[k]
            last += 1
    while first < last:
        cell = queue[first]
        first += 1
        for near in (cell + 1, cell + width, cell - 1, cell - width):
            if region[near] < 0 and known[near] == FREE:
                region[near] = region[cell]
                queue[last] = near
                last += 1


@njit(cache=True, nogil=True)
def follow_line(known, place, row, column, width, height):
    """Along the line from a cell to a point: the last known free cell, and the share explored behind an obstacle.

    Returns:
        (cell, blocked, share): the last free cell before anything else; whether a wall lies on the line; and, where it
        does, which share of the cells behind it is known.
    """
    top, left = float(place // width), float(place % width)
    count = int(max(abs(row - top), abs(column - left)) * 2) + 1
    last, blocked, open_line = place, False, True
    behind, explored = 0, 0
    for k in range(1, count + 1):
        r = int(top + (row - top) * k / count + 0.5)
        c = int(left + (column - left) * k / count + 0.5)
        if not (0 <= r < height and 0 <= c < width):
            break
        cell = r * width + c
        if blocked:
            behind += 1
            explored += known[cell] != UNKNOWN
        elif known[cell] == WALL:
            blocked, open_line = True, False
        elif known[cell] == FREE and open_line:
            last = cell
        else:
            open_line = False
    return last, blocked, explored / behind if behind else 0.0


class Topology(NamedTuple):
    """How a topological map is made; lengths in cells.

    Arguments:
        spacing: a main node is made where none lies within it (authors: 2 m).
        span: of a group of frontier cells that is a ghost node.
        spokes: ghosts on a circle around a main node (authors: 24); 0: ghosts are groups of frontier cells.
        radius: of that circle (authors: 3 m).
        creation: from a node, within which no ghost is made (authors: 0.8 m).
        apart: from another ghost, within which one is dropped (authors: 0.5 m).
        explored: share of cells behind a wall above which a ghost is dropped (authors: 0.6).
        around: from an unknown cell, beyond which a ghost is dropped.
    """

    spacing: float = 5.7
    span: int = 5
    spokes: int = 0
    radius: float = 8.6
    creation: float = 2.3
    apart: float = 1.4
    explored: float = 0.6
    around: float = 3.0


class Net(NamedTuple):
    """A topological map: main nodes, their visits, points of circles, and how many of either there are."""

    nodes: Any
    visits: Any
    rows: Any
    columns: Any
    parents: Any
    counts: Any


def topology_arrays() -> Net:
    """A topological map with nothing in it."""
    return Net(
        np.full(_MAINS, -1, np.int64), np.zeros(_MAINS), np.empty(_POINTS), np.empty(_POINTS),
        np.empty(_POINTS, np.int64), np.zeros(2, np.int64),
    )  # fmt: skip


@njit(cache=True, nogil=True)
def grow(topology, net, place, width, region):
    """An agent is at a place: it is visited, and may become a main node, with ghosts around it.

    Arguments:
        topology, net: settings, and the map, written.
        place: a flat cell.
        width: of the grid.
        region: main node to which cells belong, flat, −1 for none.
    """
    if region[place] >= 0:
        net.visits[region[place]] += 1
    if net.counts[0] < len(net.nodes) and far_from_all(place, net.nodes, net.counts[0], width, topology.spacing):
        net.nodes[net.counts[0]] = place
        net.counts[0] += 1
        if topology.spokes > 0:
            add_circle(topology, net, width)


@njit(cache=True, nogil=True)
def add_circle(topology, net, width):
    """Ghosts on a circle around the newest main node, none within ``creation`` of a node that is there."""
    node = net.counts[0] - 1
    row, column = net.nodes[node] // width, net.nodes[node] % width
    for k in range(topology.spokes):
        if net.counts[1] == len(net.rows):
            break
        r = row + topology.radius * np.sin(2 * np.pi * k / topology.spokes)
        c = column + topology.radius * np.cos(2 * np.pi * k / topology.spokes)
        if _nearest(net, r, c, width, net.counts[1]) >= topology.creation:
            net.rows[net.counts[1]], net.columns[net.counts[1]], net.parents[net.counts[1]] = r, c, node
            net.counts[1] += 1


@njit(cache=True, nogil=True)
def _nearest(net, row, column, width, ghosts):
    """Distance of a point to the nearest main node, or to one of the first ghosts."""
    least = np.inf
    for m in range(net.counts[0]):
        least = min(least, (net.nodes[m] // width - row) ** 2 + (net.nodes[m] % width - column) ** 2)
    for g in range(ghosts):
        least = min(least, (net.rows[g] - row) ** 2 + (net.columns[g] - column) ** 2)
    return np.sqrt(least)


@njit(cache=True, nogil=True)
def prune_circle(topology, net, known, width, height):
    """Drop ghosts that promise nothing; returns how many are left, moved to the front of their arrays.

    A ghost is dropped where a main node lies within ``spacing``; where another ghost lies within ``apart``; where the
    line from its main node hits a wall behind which more than the share ``explored`` of the cells is known; where no
    cell within ``around`` is unknown; and outside of the grid.
    """
    left = 0
    for g in range(net.counts[1]):
        r, c, parent = net.rows[g], net.columns[g], net.parents[g]
        keep = 0 <= r < height and 0 <= c < width and _nearest(net, r, c, width, 0) > topology.spacing
        for other in range(left):
            keep = keep and (net.rows[other] - r) ** 2 + (net.columns[other] - c) ** 2 > topology.apart**2
        if keep:
            _, blocked, share = follow_line(known, net.nodes[parent], r, c, width, height)
            keep = not (blocked and share > topology.explored)
        if keep and _unknown_within(known, r, c, width, height, topology.around):
            net.rows[left], net.columns[left], net.parents[left] = r, c, parent
            left += 1
    return left


@njit(cache=True, nogil=True)
def _unknown_within(known, row, column, width, height, around):
    reach = int(around) + 1
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            r, c = int(row + 0.5) + down, int(column + 0.5) + right
            near = 0 <= r < height and 0 <= c < width and down * down + right * right <= around * around
            if near and known[r * width + c] == UNKNOWN:
                return True
    return False
