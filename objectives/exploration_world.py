# mypy: allow-untyped-defs
# Compiled functions have no annotations: numba infers their types.
"""Whole episodes of a team that explores a building, compiled: sense, plan every few steps, walk."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from searchlib.objectives.exploration_features import GHOST_FEATURES, MAIN_FEATURES, ghost_features, main_features
from searchlib.objectives.exploration_ghosts import (
    MAX_GHOSTS,
    Ghosts,
    Scratch,
    drop_explored,
    from_circles,
    from_frontiers,
    ghost_arrays,
    measure,
    scratch_arrays,
)
from searchlib.objectives.exploration_nodes import Net, divide_into_regions, grow, prune_circle, topology_arrays
from searchlib.objectives.exploration_paths import distances_from, find_frontiers, step_toward
from searchlib.objectives.exploration_planner import choose_pairs
from searchlib.objectives.exploration_rules import choose_by_distance, choose_by_field, choose_by_tree
from searchlib.objectives.exploration_sight import UNKNOWN, WALL, reveal
from searchlib.objectives.exploration_waypoints import choose_waypoint

__all__ = ["REACHED", "Lidar", "Record", "Team", "explore", "team_arrays"]

# Functions that are called once are inlined before they are compiled: LLVM would optimize them twice otherwise.

#: Shares of coverage whose steps are noted.
REACHED = (0.3, 0.5, 0.7, 0.9, 0.95)
_SHARES = np.array(REACHED)
_GHOST, _MAIN = len(GHOST_FEATURES), len(MAIN_FEATURES)
#: Past steps that say where an agent is heading, goals that are remembered, cells within which agents repel each other.
_BACK, _PAST, _REPEL = 8, 512, 9.0


class Lidar(NamedTuple):
    """What all episodes share: rays, fewer rays to estimate by, steps between plans and of the episode, samples."""

    tree: Any
    glance: Any
    replan: int
    limit: int
    samples: int


class Record(NamedTuple):
    """Arrays that an episode writes into.

    Arguments:
        steps: until every share of :data:`REACHED` was covered, ``(5,)``; the limit where it was not.
        overlap: share of the covered cells that several agents had seen by then, ``(5,)``.
        paths, goals: cells and goals of all agents after every step, ``(limit + 1, n)``; or no rows: not written.
        first_seen: the step at which a cell was first known, flat, −1 where never; or empty: not written.
    """

    steps: Any
    overlap: Any
    paths: Any
    goals: Any
    first_seen: Any


class Team(NamedTuple):
    """Arrays that an episode works in; :func:`team_arrays` makes them.

    Arguments:
        known: the map, flat: unknown, free, wall.
        seen: which agents have seen a cell, as bits, flat.
        position, goals: of the agents, flat cells; −1 where there is no goal yet.
        aims: cells of the ghosts that the learned planner gave them; goals are waypoints on the ways there.
        field, to_goal: steps from the agents, and from their goals, to all cells, ``(n, cells)``.
        sums: table of sums of the unknown cells.
        walked: how often agents were at a cell, flat.
        trail: cells of all agents after every step.
        past: cells of goals that were chosen.
        counters: how many these are, and the last stamp that was used.
        state: of the generator of random trees.
        heading, here, to_node: how far agents came lately, their main nodes, and steps to all main nodes.
        ghost_table, main_table: features.
        chosen: ghosts of the agents.
        scratch, ghosts, net: what their own modules describe.
    """

    known: Any
    seen: Any
    position: Any
    goals: Any
    aims: Any
    field: Any
    to_goal: Any
    sums: Any
    walked: Any
    trail: Any
    past: Any
    counters: Any
    state: Any
    heading: Any
    here: Any
    to_node: Any
    ghost_table: Any
    main_table: Any
    chosen: Any
    scratch: Scratch
    ghosts: Ghosts
    net: Net


def team_arrays(height: int, width: int, starts: NDArray[np.int64], limit: int, seed: int) -> Team:
    """The arrays of an episode that begins on the flat cells ``starts`` ``(n,)``; the map knows its border only."""
    size, agents = height * width, len(starts)
    known = np.full((height, width), WALL, np.uint8)
    known[1:-1, 1:-1] = UNKNOWN
    net = topology_arrays()
    mains = len(net.nodes)
    return Team(
        known.ravel(), np.zeros(size, np.uint8), starts.astype(np.int64), np.full(agents, -1, np.int64),
        np.full(agents, -1, np.int64),
        np.full((agents, size), -1, np.int32), np.full((agents, size), -1, np.int32),
        np.zeros((height + 1, width + 1), np.int32), np.zeros(size), np.zeros((limit + 1, agents), np.int64),
        np.zeros(_PAST, np.int64), np.zeros(2, np.int64), np.array([2 * seed + 1], np.uint64), np.zeros((agents, 2)),
        np.zeros(agents, np.int64), np.zeros((agents, mains)), np.zeros((agents, MAX_GHOSTS, _GHOST)),
        np.zeros((agents, mains, _MAIN)), np.zeros(agents, np.int64), scratch_arrays(size), ghost_arrays(agents), net,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def explore(walls, width, lidar, rule, planner, topology, team, record):
    """Play an episode until the last share of :data:`REACHED` is covered or the time is over.

    Arguments:
        walls: flat, uint8; the border is wall.
        width: of the grid.
        lidar: a :class:`Lidar`.
        rule: (way, utility, exclusion, voronoi) of a planner without learning; way −1: the learned one.
        planner: a :class:`~searchlib.objectives.exploration_planner.Planner`.
        topology: a :class:`~searchlib.objectives.exploration_nodes.Topology`.
        team: as of :func:`team_arrays`, written.
        record: a :class:`Record`, written.

    Returns:
        how many steps were made.
    """
    size, agents = len(walls), len(team.position)
    total, covered, share = 0, 0, 0
    for cell in range(size):
        total += walls[cell] == 0
    for step in range(lidar.limit + 1):
        for a in range(agents):
            place = team.position[a]
            covered += reveal(walls, team.known, team.seen, a, place, width, lidar.tree)
            team.walked[place] += 1
            team.trail[step, a] = place
            if rule[0] < 0:
                grow(topology, team.net, place, width, team.scratch.region)
        while share < len(_SHARES) and covered >= _SHARES[share] * total:
            record.steps[share] = step
            record.overlap[share] = _seen_by_several(team.seen) / covered
            share += 1
        _note(record, step, team)
        if share == len(_SHARES) or step == lidar.limit:
            return step
        due = step % lidar.replan == 0
        for a in range(agents):
            due = due or team.position[a] == team.goals[a]
        if due:
            _plan(width, lidar, rule, planner, topology, team, step)
        for a in range(agents):
            if team.goals[a] >= 0:
                team.position[a] = step_toward(team.position[a], team.to_goal[a], width)
    return lidar.limit


@njit(inline="always")
def _plan(width, lidar, rule, planner, topology, team, step):
    """New goals, and the ways there."""
    queue, size = team.scratch.queue, len(team.known)
    count = find_frontiers(team.known, width, team.scratch.frontier)
    _add_up(team.known, width, team.sums)
    for a in range(len(team.position)):
        distances_from(team.known, team.position[a], width, size, team.field[a], queue)
    if rule[0] < 0:
        _choose_learned(count, width, lidar, planner, topology, team, step)
    else:
        _choose_by_rule(count, width, lidar, rule, team)
    for a in range(len(team.position)):
        if team.goals[a] >= 0:
            reach = team.field[a, team.goals[a]]
            distances_from(team.known, team.goals[a], width, reach, team.to_goal[a], queue)


@njit(cache=True, nogil=True)
def _seen_by_several(seen):
    """How many cells have more than one bit."""
    count = 0
    for cell in range(len(seen)):
        count += (seen[cell] & (seen[cell] - 1)) != 0
    return count


@njit(cache=True, nogil=True)
def _add_up(known, width, sums):
    """The table of sums of the unknown cells (Crow, *Summed-area tables for texture mapping*, 1984)."""
    for row in range(len(sums) - 1):
        line = 0
        for column in range(width):
            line += known[row * width + column] == UNKNOWN
            sums[row + 1, column + 1] = sums[row, column + 1] + line


@njit(inline="always")
def _note(record, step, team):
    """Write down a state, where somebody wants to see it."""
    if len(record.paths) > 0:
        for a in range(len(team.position)):
            record.paths[step, a] = team.position[a]
            record.goals[step, a] = team.goals[a]
    for cell in range(len(record.first_seen)):
        if record.first_seen[cell] < 0 and team.known[cell] != UNKNOWN:
            record.first_seen[cell] = step


@njit(inline="always")
def _choose_by_rule(count, width, lidar, rule, team):
    """Goals by a planner without learning."""
    cells, height, ghosts, scratch = team.scratch.frontier, len(team.sums) - 1, team.ghosts, team.scratch
    if rule[0] == 0:
        choose_by_distance(
            cells, count, team.field, team.sums, width, height, rule[1], rule[2], rule[3] > 0, team.goals
        )  # fmt: skip
    elif rule[0] == 1:
        attraction = np.zeros(len(team.known))
        for g in range(from_frontiers(team.field, count, width, 5, ghosts, scratch)):
            distances_from(team.known, ghosts.places[g], width, len(team.known), scratch.found, scratch.queue)
            for cell in range(len(team.known)):
                if scratch.found[cell] >= 0:
                    attraction[cell] += ghosts.sizes[g] / (1.0 + scratch.found[cell])
        choose_by_field(
            team.known, cells, count, team.field, attraction, team.position, team.walked, scratch.group, width, _REPEL,
            team.goals,
        )  # fmt: skip
    else:
        choose_by_tree(
            team.known, cells, count, team.field, team.position, team.sums, width, height, lidar.samples, team.state,
            team.goals,
        )  # fmt: skip


@njit(inline="always")
def _choose_learned(count, width, lidar, planner, topology, team, step):
    """Goals by the learned planner; nobody gets another one where there is no ghost."""
    agents, height, mains, kept = len(team.position), len(team.sums) - 1, team.net.counts[0], 0
    known, net, ghosts, scratch, counters = team.known, team.net, team.ghosts, team.scratch, team.counters
    if topology.spokes > 0:
        net.counts[1] = prune_circle(topology, net, known, width, height)
        kept = from_circles(known, team.field, team.walked, net, width, height, ghosts)
    grouped = kept < agents
    if grouped:
        kept = from_frontiers(team.field, count, width, topology.span, ghosts, scratch)
    if kept == 0:
        return
    kept, counters[1] = drop_explored(
        known, width, lidar.glance, planner.least, agents, ghosts, kept, scratch, counters[1]
    )  # fmt: skip
    divide_into_regions(known, net.nodes, mains, width, scratch.region, scratch.queue)
    counters[1] = measure(
        known, team.field, count, width, team.sums, lidar.glance, planner.ahead, planner.pull, grouped, ghosts, kept,
        scratch, counters[1], step,
    )  # fmt: skip
    for a in range(agents):
        place, before = team.position[a], team.trail[max(0, step - _BACK), a]
        team.heading[a, 0] = place // width - before // width
        team.heading[a, 1] = place % width - before % width
        team.here[a] = max(0, scratch.region[place])
        for m in range(mains):
            team.to_node[a, m] = max(0, team.field[a, net.nodes[m]])
    ghost_features(
        ghosts, kept, team.sums, width, team.position, team.aims, team.heading, team.past, counters[0],
        team.ghost_table,
    )  # fmt: skip
    if len(planner.main_weights) > 0:
        main_features(
            ghosts, kept, net.nodes, mains, net.visits, team.to_node, team.here, team.sums, width, team.main_table
        )  # fmt: skip
    choose_pairs(
        planner, team.ghost_table, kept, team.main_table, mains, net.nodes, ghosts, team.aims, width, team.chosen
    )  # fmt: skip
    for a in range(agents):
        if team.chosen[a] >= 0:
            goal = ghosts.cells[a, team.chosen[a]]
            if goal != team.aims[a] and counters[0] < len(team.past):
                team.past[counters[0]] = goal
                counters[0] += 1
            team.aims[a] = goal
            team.goals[a], counters[1] = choose_waypoint(
                known, team.field[a], team.position[a], goal, planner.ahead, width, lidar.glance,
                planner.look, scratch, counters[1],
            )  # fmt: skip
