"""Who goes where: classical assignments of agents to goals, and Sinkhorn's plan with a rounding that needs no center.

All of them take costs ``(n, agents, goals)`` and return the goal of every agent, ``(n, agents)``, each goal once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ASSIGNMENTS", "bottleneck", "greedy", "hungarian", "random_assignment", "round_greedily", "sinkhorn"]

Floats = NDArray[np.floating[Any]]
Places = NDArray[np.intp]


def hungarian(costs: Floats) -> Places:
    """The assignment of the least total cost (SciPy's ``linear_sum_assignment``).

    Example:
        >>> hungarian(np.array([[[1.0, 2.0], [2.0, 4.0]]])).tolist()
        [[1, 0]]
    """
    from scipy.optimize import linear_sum_assignment

    return np.array([linear_sum_assignment(one)[1] for one in costs], np.intp).reshape(costs.shape[:2])


def bottleneck(costs: Floats) -> Places:
    """The assignment whose largest cost is least; among those, the one of the least sum of squares.

    The threshold is found by bisection over the costs, each asked by a maximum matching (Hopcroft and Karp, 1973). Ties
    are most of the assignment: only one pair decides the largest cost.

    Example:
        >>> bottleneck(np.array([[[0.0, 3.0], [2.0, 4.0]]])).tolist()
        [[1, 0]]
    """
    return np.array([_bottleneck(one) for one in costs], np.intp).reshape(costs.shape[:2])


def _bottleneck(costs: Floats) -> Places:
    from scipy.optimize import linear_sum_assignment
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import maximum_bipartite_matching

    levels = np.unique(costs)
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        matched = maximum_bipartite_matching(csr_array(costs <= levels[middle]), perm_type="column")
        low, high = (low, middle) if (matched >= 0).all() else (middle + 1, high)
    scaled = (costs / max(float(levels[-1]), 1e-300)) ** 2
    # What is not allowed costs more than any allowed assignment as a whole.
    return np.asarray(linear_sum_assignment(np.where(costs <= levels[low], scaled, 2.0 * len(costs)))[1], np.intp)


def greedy(costs: Floats) -> Places:
    """The cheapest pair first, then the cheapest of those that are left, and so on.

    Example:
        >>> greedy(np.array([[[1.0, 2.0], [2.0, 9.0]]])).tolist()
        [[0, 1]]
    """
    left = np.array(costs, np.float64)
    worlds, agents = np.arange(len(left)), left.shape[1]
    found = np.zeros(left.shape[:2], np.intp)
    for _ in range(agents):
        agent, goal = np.divmod(left.reshape(len(left), -1).argmin(axis=1), agents)
        found[worlds, agent] = goal
        left[worlds, agent] = np.inf
        left[worlds, :, goal] = np.inf
    return found


def random_assignment(costs: Floats, seeds: NDArray[np.int64]) -> Places:
    """Any permutation, by the seed of the layout."""
    agents = costs.shape[1]
    drawn = [np.random.default_rng([seed, 17]).permutation(agents) for seed in seeds.tolist()]
    return np.array(drawn, np.intp).reshape(len(costs), agents)


def sinkhorn(scores: Floats, *, temperature: float = 0.1, rounds: int = 50) -> Floats:
    """The doubly stochastic plan of scores: rows and columns scaled in turn to sum to one (Sinkhorn, 1964).

    Adding a number to a row or a column of the scores does not change the plan; nor does it change which assignment has
    the largest total score. So a central rounding of the plan's logarithm finds what it would find without the plan:
    the plan matters where agents round it on their own (:func:`round_greedily`).

    Arguments:
        scores: larger is better, shape ``(n, agents, goals)``.
        temperature: near 0 the plan is nearly a permutation.
        rounds: of scaling both sides; columns come last and sum to one exactly.

    Example:
        >>> plan = sinkhorn(np.random.default_rng(0).random((1, 4, 4)))
        >>> bool(np.allclose(plan.sum(axis=1), 1)), bool(np.allclose(plan.sum(axis=2), 1, atol=1e-3))
        (True, True)
    """
    logs = np.asarray(scores, np.float64) / temperature
    for _ in range(rounds):
        logs = logs - _log_sum(logs, 2)
        logs = logs - _log_sum(logs, 1)
    return np.asarray(np.exp(logs))


def _log_sum(logs: Floats, axis: int) -> Floats:
    most = logs.max(axis=axis, keepdims=True)
    return np.asarray(most + np.log(np.exp(logs - most).sum(axis=axis, keepdims=True)))


def round_greedily(plan: Floats) -> Places:
    """A permutation of a plan: whoever is surest takes its goal first, as agents can agree on among themselves."""
    return greedy(-np.asarray(plan))


def _powered(power: int, distances: Floats) -> Places:
    return hungarian(np.asarray(distances) ** power)


#: Rivals of a learned matcher: of straight-line distances ``(n, agents, goals)`` the assignment.
ASSIGNMENTS: Mapping[str, Callable[[Floats], Places]] = {
    "hungarian": hungarian,
    "hungarian, squares": functools.partial(_powered, 2),
    "bottleneck": bottleneck,
    "greedy": greedy,
}
