# mypy: allow-untyped-defs
# Compiled functions have no annotations: numba infers their types.
"""What MANTM's planner knows of a pair: an agent and a ghost node, or an agent and a main node."""

from __future__ import annotations

import numpy as np
from numba import njit

from searchlib.objectives.exploration_ghosts import window_sum

__all__ = ["GHOST_FEATURES", "HISTORY", "LATE", "MAIN_FEATURES", "ghost_features", "late_features", "main_features"]

#: What the score of a ghost node for an agent is made of.
GHOST_FEATURES = (
    "log path", "path", "near", "log gain", "gain", "log size", "unknown around", "unknown far around",
    "log path of others", "later than others", "share", "log path to next ghost", "potential, near", "potential, far",
    "own goal", "goals chosen here", "straight on", "unknown beside", "log gain on the way", "gain on the way",
    "log path, by what is left", "log gain, by what is left",
    "log path to next ghost, by what is left", "log age", "log pocket", "small pocket", "taken, near", "taken, far",
    "goals of others", "taken, beyond",
)  # fmt: skip
#: What the score of a main node for an agent is made of.
MAIN_FEATURES = (
    "log path", "log gain", "ghosts", "visits", "own region", "log path of others", "later than others",
    "unknown around", "share of gain", "unknown far around", "others around", "goals here", "goals around",
    "goals around, by unknown",
)  # fmt: skip
#: How many of the last ghost features, and of the last main features, change while goals are given out.
LATE = (4, 3)
#: Features of where agents have been and what their goals were.
HISTORY = ("own goal", "goals chosen here", "straight on", "goals of others", "visits", "log age")
#: How much another ghost counts by the steps to it.
_BY_STEPS_NEAR, _BY_STEPS_FAR = np.exp(-np.arange(64) / 6), np.exp(-np.arange(64) / 16)
#: "No other agent", in steps.
_NOBODY = 1e6


@njit(cache=True, nogil=True)
def ghost_features(
    ghosts, kept, sums, width, positions, goals, headings, past, pasts, table
):  # fmt: skip
    """The features of all pairs of an agent and a ghost, but for the late ones.

    Arguments:
        ghosts, kept: that were measured, and how many.
        sums: table of sums of the unknown cells, ``(height + 1, width + 1)``.
        width: of the grid.
        positions, goals: of the agents, flat cells ``(n,)``; −1 where there is no goal yet.
        headings: how far they came in their last steps, ``(n, 2)``.
        past, pasts: cells of goals that were chosen before, and how many.
        table: ``(n, g, features)``, written.
    """
    agents, height = len(positions), len(sums) - 1
    left = 0.0
    for g in range(kept):
        left += ghosts.gains[g]
    left = np.log1p(left / agents / 100)
    for g in range(kept):
        place = ghosts.places[g]
        row, column = place // width, place % width
        around = window_sum(sums, width, height, place, 9) / 19**2
        far_around = window_sum(sums, width, height, place, 20) / 41**2
        next_ghost, chosen = 40.0, 0
        for other in range(kept):
            if other != g and 0 <= ghosts.apart[g, other] < next_ghost:
                next_ghost = ghosts.apart[g, other]
        for k in range(pasts):
            chosen += abs(past[k] // width - row) + abs(past[k] % width - column) <= 6
        for a in range(agents):
            steps, cell = ghosts.path[a, g], ghosts.cells[a, g]
            others, total = _others(ghosts.path, a, g)
            line = table[a, g]
            line[0] = np.log1p(steps) / 3
            line[1] = steps / 30
            line[2] = np.exp(-steps / 6)
            line[3] = np.log1p(ghosts.gains[g]) / 4
            line[4] = ghosts.gains[g] / 60
            line[5] = np.log1p(ghosts.sizes[g]) / 2
            line[6] = around
            line[7] = far_around
            line[8] = np.log1p(others) / 3 if others < _NOBODY else 1.5
            line[9] = np.tanh((steps - others) / 10)
            line[10] = 1 / total
            line[11] = np.log1p(next_ghost) / 3
            line[14] = 0.0
            if goals[a] >= 0:
                line[14] = np.exp(-(abs(goals[a] // width - cell // width) + abs(goals[a] % width - cell % width)) / 5)
            line[15] = np.log1p(chosen)
            down, right = cell // width - positions[a] // width, cell % width - positions[a] % width
            size = np.sqrt((down * down + right * right) * (headings[a, 0] ** 2 + headings[a, 1] ** 2))
            line[16] = (down * headings[a, 0] + right * headings[a, 1]) / size if size > 0 else 0.0
            line[17] = ghosts.beside[a, g] / 25
            line[18] = np.log1p(ghosts.on_the_way[a, g]) / 4
            line[19] = ghosts.on_the_way[a, g] / 60
            line[20] = left * line[0]
            line[21] = left * line[3]
            line[22] = left * line[11]
            line[23] = np.log1p(ghosts.ages[g]) / 4
            line[24] = np.log1p(ghosts.pockets[g]) / 6
            line[25] = np.exp(-ghosts.pockets[g] / 60)
    for a in range(agents):
        for g in range(kept):
            near, far = 0.0, 0.0
            for other in range(kept):
                steps = int(ghosts.apart[g, other])
                if steps >= 0:
                    value = table[a, other, 10] * ghosts.gains[other]
                    near += value * _BY_STEPS_NEAR[steps]
                    far += value * _BY_STEPS_FAR[steps]
            table[a, g, 12] = np.log1p(near) / 5
            table[a, g, 13] = np.log1p(far) / 6


@njit(cache=True, nogil=True)
def _others(path, agent, place):
    """The shortest path of another agent, and the sum of which an agent's share is the reciprocal."""
    others, total = _NOBODY, 0.0
    for b in range(len(path)):
        if b != agent and path[b, place] < others:
            others = path[b, place]
        later = path[b, place] - path[agent, place]
        total += np.exp(-0.1 * later) if later > -60 else 400.0
    return others, total


@njit(cache=True, nogil=True)
def late_features(ghosts, g, agent, chosen, goals, width, late):
    """The features of a pair that change while goals are given out.

    Arguments:
        ghosts: that were measured.
        g, agent: the pair.
        chosen: ghosts of the agents, −1 for those that have none yet.
        goals: of the agents until now, −1 for none.
        width: of the grid.
        late: ``(4,)``, written.
    """
    taken, off, beyond = _NOBODY, _NOBODY, _NOBODY
    row, column = ghosts.places[g] // width, ghosts.places[g] % width
    for b in range(len(chosen)):
        if chosen[b] >= 0:
            steps = ghosts.apart[g, chosen[b]]
            if 0 <= steps < taken:
                taken = steps
            steps = ghosts.beyond[g, chosen[b]]
            if 0 <= steps < beyond:
                beyond = steps
        elif b != agent and goals[b] >= 0:
            off = min(off, abs(goals[b] // width - row) + abs(goals[b] % width - column))
    late[0], late[1], late[2] = np.exp(-taken / 6), np.exp(-taken / 16), np.exp(-off / 9)
    late[3] = np.exp(-beyond / 6)


@njit(cache=True, nogil=True)
def main_features(
    ghosts, kept, nodes, mains, visits, to_node, regions, sums, width, table
):  # fmt: skip
    """The features of all pairs of an agent and a main node, but for the last ones, on the goals given out there.

    Arguments:
        ghosts, kept: that were measured, and how many.
        nodes, mains: flat cells of the main nodes, and how many there are.
        visits: agents' steps that were spent nearest to a node, ``(m,)``.
        to_node: steps from every agent to every node, ``(n, m)``.
        regions: node that an agent is nearest to, ``(n,)``.
        sums, width: as for :func:`ghost_features`.
        table: ``(n, m, features)``, written.
    """
    agents, total = len(regions), 1.0
    gain, count = np.zeros(mains), np.zeros(mains)
    for g in range(kept):
        gain[ghosts.parents[g]] += ghosts.gains[g]
        count[ghosts.parents[g]] += 1
        total += ghosts.gains[g]
    for m in range(mains):
        if count[m] == 0:
            continue
        around = window_sum(sums, width, len(sums) - 1, nodes[m], 12) / 25**2
        for a in range(agents):
            others, _ = _others(to_node, a, m)
            line = table[a, m]
            line[0] = np.log1p(to_node[a, m]) / 3
            line[1] = np.log1p(gain[m]) / 5
            line[2] = np.log1p(count[m])
            line[3] = np.log1p(visits[m]) / 4
            line[4] = 1.0 if regions[a] == m else 0.0
            line[5] = np.log1p(others) / 3 if others < _NOBODY else 1.5
            line[6] = np.tanh((to_node[a, m] - others) / 10)
            line[7] = around
            line[8] = gain[m] / total
            line[9] = window_sum(sums, width, len(sums) - 1, nodes[m], 25) / 51**2
            near = 0.0
            for b in range(agents):
                if b != a:
                    near += np.exp(-to_node[b, m] / 20)
            line[10] = near
