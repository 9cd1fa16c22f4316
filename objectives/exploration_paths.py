# mypy: allow-untyped-defs
# Compiled functions have no annotations: numba infers their types.
"""Paths on the map that a team has made: distances, steps toward a goal, and where the map ends."""

from __future__ import annotations

import numpy as np
from numba import njit

from searchlib.objectives.exploration_sight import FREE, UNKNOWN

__all__ = ["distances_from", "find_frontiers", "find_pockets", "group_frontiers", "spread", "step_toward"]


@njit(cache=True, nogil=True)
def distances_from(known, source, width, reach, found, queue):
    """Steps (four neighbors) from a cell to all that known free cells lead to; −1 where nothing does.

    Arguments:
        known: the team's map, flat.
        source: a flat index.
        width: of the grid.
        reach: the most steps that are looked for.
        found: as long as the map, int32, written.
        queue: as long as the map, int32, written: the cells that were reached, in order.

    Returns:
        how many cells were reached.
    """
    found[:] = -1
    return spread(known, source, width, reach, False, found, queue)


@njit(cache=True, nogil=True)
def spread(known, source, width, reach, through, found, queue):
    """The same where ``found`` is −1 everywhere already; with ``through`` unknown cells are walked on as well."""
    found[source] = 0
    queue[0] = source
    first, last = 0, 1
    while first < last:
        cell = queue[first]
        first += 1
        steps = found[cell] + 1
        if steps > reach:
            break
        for near in (cell + 1, cell + width, cell - 1, cell - width):
            if found[near] < 0 and (known[near] == FREE or (through and known[near] == UNKNOWN)):
                found[near] = steps
                queue[last] = near
                last += 1
    return last


@njit(cache=True, nogil=True)
def step_toward(place, to_goal, width):
    """The neighbor from which a goal is nearer, by the distances from the goal; the place where there is none."""
    best, where = to_goal[place], place
    if best < 0:
        return place
    for near in (place + 1, place + width, place - 1, place - width):
        if 0 <= to_goal[near] < best:
            best, where = to_goal[near], near
    return where


@njit(cache=True, nogil=True)
def find_frontiers(known, width, cells):
    """Known free cells beside an unknown one, in reading order; returns how many.

    Arguments:
        known: the team's map, flat; its border is known.
        width: of the grid.
        cells: int32, as long as the map, written.
    """
    count = 0
    for cell in range(width, len(known) - width):
        if known[cell] == FREE and (
            known[cell + 1] == UNKNOWN or known[cell - 1] == UNKNOWN
            or known[cell + width] == UNKNOWN or known[cell - width] == UNKNOWN
        ):  # fmt: skip
            cells[count] = cell
            count += 1
    return count


@njit(cache=True, nogil=True)
def find_pockets(known, width, pocket, queue):
    """How many unknown cells every unknown cell hangs together with (four neighbors), itself among them.

    Arguments:
        known: the team's map, flat; its border is known.
        width: of the grid.
        pocket, queue: int32, as long as the map, written; 0 for what is known.
    """
    pocket[:] = 0
    for start in range(width, len(known) - width):
        if known[start] != UNKNOWN or pocket[start] != 0:
            continue
        pocket[start] = 1
        queue[0] = start
        first, last = 0, 1
        while first < last:
            cell = queue[first]
            first += 1
            for near in (cell + 1, cell + width, cell - 1, cell - width):
                if known[near] == UNKNOWN and pocket[near] == 0:
                    pocket[near] = 1
                    queue[last] = near
                    last += 1
        for k in range(last):
            pocket[queue[k]] = last


@njit(cache=True, nogil=True)
def group_frontiers(cells, count, width, span, most, group, queue, middles, sizes):
    """Gather frontier cells that touch (eight neighbors), none further than ``span`` from the first of its group.

    Arguments:
        cells, count: as of :func:`find_frontiers`.
        width: of the grid.
        span: in cells, along either axis.
        most: groups that are made at most; what is left belongs to none.
        group: int32, as long as the map, written: which group a cell belongs to, −1 for none, −2 for no frontier.
        queue: int32, as long as the map, written.
        middles: int32 ``(most,)``, written: the cell of the group that is nearest to its middle.
        sizes: int32 ``(most,)``, written: cells of the group.

    Returns:
        how many groups.
    """
    for cell in range(len(group)):
        group[cell] = -2
    for i in range(count):
        group[cells[i]] = -1
    groups = 0
    for i in range(count):
        if group[cells[i]] != -1:
            continue
        if groups == most:
            break
        top, left = cells[i] // width, cells[i] % width
        group[cells[i]] = groups
        queue[0] = cells[i]
        first, last = 0, 1
        rows, columns = 0.0, 0.0
        while first < last:
            cell = queue[first]
            first += 1
            rows += cell // width
            columns += cell % width
            for down in range(-1, 2):
                for right in range(-1, 2):
                    near = cell + down * width + right
                    if (
                        group[near] == -1 and abs(near // width - top) <= span and abs(near % width - left) <= span
                    ):  # fmt: skip
                        group[near] = groups
                        queue[last] = near
                        last += 1
        rows /= last
        columns /= last
        best = np.inf
        for k in range(last):
            off = (queue[k] // width - rows) ** 2 + (queue[k] % width - columns) ** 2
            if off < best:
                best, middles[groups] = off, queue[k]
        sizes[groups] = last
        groups += 1
    return groups
