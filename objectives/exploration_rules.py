# mypy: allow-untyped-defs
# Compiled functions have no annotations: numba infers their types.
"""Planners without parameters to learn: nearest frontier, utility, Voronoi, potential fields, random trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numba import njit

from searchlib.objectives.exploration_ghosts import window_sum

__all__ = ["COORDINATED", "PLAIN", "RULES", "Rule", "choose_by_distance", "choose_by_field", "choose_by_tree"]


@final
@dataclass(frozen=True)
class Rule:
    """How a planner without learning chooses.

    Arguments:
        way: 0: the best frontier cell of all; 1: potential field; 2: random tree.
        utility: steps that an unknown cell in a 7-window is worth.
        exclusion: distance to goals of others within which cells are left to them, in cells; 0: nobody looks.
        voronoi: whether agents keep to cells that nobody is nearer to, where there are some.
    """

    way: int = 0
    utility: float = 0.0
    exclusion: float = 0.0
    voronoi: bool = False


#: Planners in which nobody knows the goals of others, and those in which they share the work.
PLAIN: Mapping[str, Rule] = {
    "nearest": Rule(), "utility": Rule(utility=1000.0), "potential field": Rule(way=1), "random tree": Rule(way=2),
}  # fmt: skip
COORDINATED: Mapping[str, Rule] = {
    "nearest with goal exclusion": Rule(exclusion=9.0), "utility with goal exclusion": Rule(utility=0.5, exclusion=9.0),
    "voronoi": Rule(utility=0.5, voronoi=True),
}  # fmt: skip
RULES: Mapping[str, Rule] = {**PLAIN, **COORDINATED}


@njit(cache=True, nogil=True)
def choose_by_distance(
    cells, count, paths, sums, width, height, utility, exclusion, voronoi, goals
):  # fmt: skip
    """The frontier cell with the least path minus utility, pair after pair where goals exclude each other.

    Arguments:
        cells, count: frontier cells.
        paths: steps from every agent to every cell of the grid, ``(n, cells)``; −1 where nothing leads.
        sums: table of sums of the unknown cells.
        width, height: of the grid.
        utility, exclusion, voronoi: as of :class:`Rule`.
        goals: flat cells, ``(n,)``, written.
    """
    agents = len(paths)
    worth = np.zeros(count)
    if utility > 0:
        for i in range(count):
            worth[i] = utility * window_sum(sums, width, height, cells[i], 3)
    done, given = np.zeros(agents, np.int64), np.zeros(agents, np.int64)
    for a in range(agents):
        given[a] = goals[a]
    for _ in range(agents):
        best, best_agent, best_cell = np.inf, -1, -1
        # Where all cells are another's, everybody may have them after all.
        for strict in (True, False):
            for a in range(agents):
                if done[a] > 0:
                    continue
                for i in range(count):
                    steps = paths[a, cells[i]]
                    if steps < 0 or steps - worth[i] >= best:
                        continue
                    if strict and not _free_for(a, cells[i], paths, given, done, width, exclusion, voronoi):
                        continue
                    best, best_agent, best_cell = steps - worth[i], a, cells[i]
            if best_agent >= 0:
                break
        if best_agent < 0:
            break
        done[best_agent] = 1
        given[best_agent] = best_cell
    for a in range(agents):
        goals[a] = given[a]


@njit(cache=True, nogil=True)
def _free_for(agent, cell, paths, given, done, width, exclusion, voronoi):
    """Whether a cell is not another agent's."""
    for b in range(len(paths)):
        if b == agent:
            continue
        if voronoi and 0 <= paths[b, cell] < paths[agent, cell]:
            return False
        if exclusion > 0 and done[b] > 0:
            down, right = given[b] // width - cell // width, given[b] % width - cell % width
            if down * down + right * right <= exclusion * exclusion:
                return False
    return True


@njit(cache=True, nogil=True)
def choose_by_field(
    known, cells, count, paths, attraction, positions, visits, frontier, width, reach, goals
):  # fmt: skip
    """Where a walk down a potential ends: frontiers attract, other agents and cells walked on before repel.

    Arguments:
        known: the team's map, flat.
        attraction: of the frontiers at every cell, flat, above 0.
        positions: of the agents, flat cells.
        visits: how often agents were at a cell, flat.
        frontier: groups of frontier cells, flat; negative where there is none.
        width: of the grid.
        reach: distance within which agents repel each other, in cells.
        goals: ``(n,)``, written.
    """
    for a in range(len(positions)):
        place = positions[a]
        walked = np.zeros(60, np.int64)
        length = 0
        while length < len(walked):
            walked[length] = place
            length += 1
            if frontier[place] >= 0 and length > 1:
                break
            best, where = np.inf, place
            for near in (place + 1, place + width, place - 1, place - width):
                if known[near] != 1:
                    continue
                before = False
                for k in range(length):
                    before = before or walked[k] == near
                if before:
                    continue
                value = -attraction[near] + 0.02 * visits[near]
                for b in range(len(positions)):
                    if b != a:
                        down, right = positions[b] // width - near // width, positions[b] % width - near % width
                        value += 0.1 * max(0.0, reach - np.sqrt(down * down + right * right))
                if value < best:
                    best, where = value, near
            if where == place:
                break
            place = where
        # A walk that ends elsewhere has met a local minimum, where nobody would ever leave.
        goals[a] = place if frontier[place] >= 0 else nearest_of(cells, count, paths[a])


@njit(cache=True, nogil=True)
def nearest_of(cells, count, path):
    """The frontier cell with the shortest path from an agent, −1 for none."""
    best, where = np.inf, -1
    for i in range(count):
        if 0 <= path[cells[i]] < best:
            best, where = path[cells[i]], cells[i]
    return where


@njit(cache=True, nogil=True)
def choose_by_tree(
    known, cells, count, paths, positions, sums, width, height, samples, state, goals
):  # fmt: skip
    """The best of the places where a random tree, grown from the agent, meets the unknown: gain minus path.

    Arguments:
        known: the team's map, flat.
        paths: steps from every agent to every cell, ``(n, cells)``.
        positions: of the agents, flat cells.
        sums: table of sums of the unknown cells.
        width, height: of the grid.
        samples: how often a tree is extended.
        state: of the generator, ``(1,)`` uint64, written.
        goals: ``(n,)``, written; what finds nothing keeps its goal.
    """
    rows, columns = np.empty(samples + 1), np.empty(samples + 1)
    for a in range(len(positions)):
        rows[0], columns[0] = positions[a] // width, positions[a] % width
        nodes, found = 1, False
        best = -np.inf
        for _ in range(samples):
            row, column = _random(state) * (height - 1), _random(state) * (width - 1)
            near, least = 0, np.inf
            for k in range(nodes):
                off = (rows[k] - row) ** 2 + (columns[k] - column) ** 2
                if off < least:
                    near, least = k, off
            share = min(1.0, 3.0 / max(1e-9, np.sqrt(least)))
            last = positions[a]
            end = -1
            free = True
            for part in range(1, 7):
                r = rows[near] + (row - rows[near]) * share * part / 6
                c = columns[near] + (column - columns[near]) * share * part / 6
                cell = int(r + 0.5) * width + int(c + 0.5)
                if part == 1:
                    last = int(rows[near] + 0.5) * width + int(columns[near] + 0.5)
                if known[cell] == 2:
                    free = False
                    break
                if known[cell] == 0:
                    end, free = last, False
                    break
                last = cell
            if free:
                rows[nodes] = rows[near] + (row - rows[near]) * share
                columns[nodes] = columns[near] + (column - columns[near]) * share
                nodes += 1
            elif end >= 0 and paths[a, end] >= 0 and _is_frontier(known, end, width):
                value = window_sum(sums, width, height, end, 3) - paths[a, end]
                if value > best:
                    best, found = value, True
                    goals[a] = end
        if not found:
            goals[a] = nearest_of(cells, count, paths[a])


@njit(cache=True, nogil=True)
def _is_frontier(known, cell, width):
    """Whether an unknown cell is one of the four neighbors."""
    return known[cell + 1] == 0 or known[cell - 1] == 0 or known[cell + width] == 0 or known[cell - width] == 0


@njit(cache=True, nogil=True)
def _random(state):
    """A number in [0, 1) (xorshift64*, Vigna 2016)."""
    x = state[0]
    x ^= x >> np.uint64(12)
    x ^= x << np.uint64(25)
    x ^= x >> np.uint64(27)
    state[0] = x
    return float((x * np.uint64(2685821657736338717)) >> np.uint64(11)) / 9007199254740992.0
