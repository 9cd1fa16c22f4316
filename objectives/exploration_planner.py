# mypy: allow-untyped-defs
# Compiled functions have no annotations: numba infers their types.
"""MANTM's planner, coarse to fine: the score of a main node times that of a ghost node, pair after pair."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from searchlib.objectives.exploration_features import LATE, late_features

__all__ = ["Planner", "choose_pairs"]


class Planner(NamedTuple):
    """Two small networks, one per level.

    Arguments:
        ghost_weights: linear weights, then those of every hidden unit, then biases and outputs of the units.
        main_weights: the same of the main level; empty: there is none.
        hidden: units of either network, ``(2,)``.
        pull: steps that an unknown cell beside a frontier cell is worth where an agent goes to one of a group.
        look: steps of detour that an unknown cell in sight is worth on the way.
        least: unknown cells in its sight, below which a ghost is left alone.
        ahead: steps to a waypoint.
    """

    ghost_weights: Any
    main_weights: Any
    hidden: Any
    pull: float
    look: float
    least: float
    ahead: int


@njit(cache=True, nogil=True)
def _begun(table, count, weights, late, hidden):
    """What the features that do not change add to every unit, the linear one first: ``(n, k, 1 + hidden)``."""
    agents, features = len(table), table.shape[2]
    begun = np.zeros((agents, count, 1 + hidden))
    for a in range(agents):
        for k in range(count):
            for unit in range(1 + hidden):
                for f in range(features - late):
                    begun[a, k, unit] += table[a, k, f] * weights[unit * features + f]
    return begun


@njit(cache=True, nogil=True)
def _finished(begun, late, weights, features, hidden):
    """The score of a network of units x / (1 + |x|), beside a linear one."""
    first = features - len(late)
    score = begun[0]
    for f in range(len(late)):
        score += late[f] * weights[first + f]
    at = (1 + hidden) * features
    for unit in range(hidden):
        x = begun[1 + unit] + weights[at + unit]
        for f in range(len(late)):
            x += late[f] * weights[(1 + unit) * features + first + f]
        score += weights[at + hidden + unit] * x / (1 + abs(x))
    return score


@njit(cache=True, nogil=True)
def choose_pairs(
    planner, ghost_table, kept, main_table, mains, nodes, ghosts, goals, width, chosen
):  # fmt: skip
    """Give ghosts to agents: again and again the pair with the best score, late features renewed after every pair.

    The score is (in logarithms) that of the ghost times the sigmoid of that of its main node: the authors multiply
    the logits of the two levels, which would turn the order around where both are negative.

    Arguments:
        planner: the networks.
        ghost_table, kept: features of ghosts, and how many there are.
        main_table, mains, nodes: features of main nodes, how many there are, and their flat cells.
        ghosts: that were measured.
        goals: of the agents until now, −1 for none.
        width: of the grid.
        chosen: ghost of every agent, ``(n,)``, written; −1 for none.
    """
    agents, features, coarse = len(ghost_table), ghost_table.shape[2], len(planner.main_weights) > 0
    hidden, main_hidden = planner.hidden[0], planner.hidden[1]
    begun = _begun(ghost_table, kept, planner.ghost_weights, LATE[0], hidden)
    begun_main = np.zeros((agents, mains, 1 + main_hidden))
    if coarse:
        begun_main = _begun(main_table, mains, planner.main_weights, LATE[1], main_hidden)
    late, here = np.empty(LATE[0]), np.zeros((mains, LATE[1]))
    used = np.zeros(kept, np.int64)
    for a in range(agents):
        chosen[a] = -1
    main_score = np.zeros((agents, mains))
    parent = np.zeros(mains, np.int64)
    for g in range(kept):
        parent[ghosts.parents[g]] = 1
    for _ in range(agents):
        if coarse:
            for a in range(agents):
                for m in range(mains):
                    if parent[m] == 0 or chosen[a] >= 0:
                        continue
                    x = _finished(
                        begun_main[a, m], here[m], planner.main_weights, main_table.shape[2], main_hidden
                    )  # fmt: skip
                    main_score[a, m] = -np.log1p(np.exp(-x)) if x > -30 else x
        best, best_agent, best_ghost = -np.inf, -1, -1
        for g in range(kept):
            if used[g] > 0 and kept > agents:
                continue
            for a in range(agents):
                if chosen[a] >= 0:
                    continue
                late_features(ghosts, g, a, chosen, goals, width, late)
                score = _finished(begun[a, g], late, planner.ghost_weights, features, hidden)
                if coarse:
                    score += main_score[a, ghosts.parents[g]]
                if score > best:
                    best, best_agent, best_ghost = score, a, g
        if best_agent < 0:
            break
        chosen[best_agent] = best_ghost
        used[best_ghost] = 1
        if coarse:
            _note_goal(ghosts.parents[best_ghost], parent, nodes, mains, width, main_table, here)
    _exchange(planner, begun, begun_main, ghosts, features, main_table.shape[2], coarse, chosen)


@njit(cache=True, nogil=True)
def _note_goal(m, parent, nodes, mains, width, main_table, here):
    """Renew the late features of main nodes with ghosts after a goal was given out at node ``m``."""
    here[m, 0] += 1
    for other in range(mains):
        if parent[other] > 0:
            down, right = nodes[m] // width - nodes[other] // width, nodes[m] % width - nodes[other] % width
            here[other, 1] += np.exp(-np.sqrt(down * down + right * right) / 15)
            here[other, 2] = here[other, 1] * main_table[0, other, 9]


@njit(cache=True, nogil=True)
def _exchange(planner, begun, begun_main, ghosts, features, main_features, coarse, chosen):
    """Let two agents exchange their ghosts where both together like that better, by the features that do not change."""
    agents = len(chosen)
    score = np.zeros((agents, agents))
    none, none_main = np.zeros(LATE[0]), np.zeros(LATE[1])
    for a in range(agents):
        for b in range(agents):
            if chosen[b] >= 0:
                score[a, b] = _finished(begun[a, chosen[b]], none, planner.ghost_weights, features, planner.hidden[0])
                if coarse:
                    x = _finished(
                        begun_main[a, ghosts.parents[chosen[b]]], none_main, planner.main_weights, main_features,
                        planner.hidden[1],
                    )  # fmt: skip
                    score[a, b] += -np.log1p(np.exp(-x)) if x > -30 else x
    place = np.zeros(agents, np.int64)
    for a in range(agents):
        place[a] = a
    for _ in range(agents):
        for a in range(agents):
            for b in range(a):
                if chosen[a] < 0 or chosen[b] < 0:
                    continue
                now = score[a, place[a]] + score[b, place[b]]
                if score[a, place[b]] + score[b, place[a]] > now + 1e-9:
                    place[a], place[b] = place[b], place[a]
                    chosen[a], chosen[b] = chosen[b], chosen[a]
