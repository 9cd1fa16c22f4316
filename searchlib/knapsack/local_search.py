"""Improving an allocation by changing one or two parts at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from searchlib.knapsack.problem import Knapsack

__all__ = ["improve"]

#: Changes of a part, those of least price, of which pairs are tried.
_MOVES = 400


def improve(
    problem: Knapsack, choice: NDArray[np.int64], multipliers: NDArray[np.float64], *, moves: int = _MOVES
) -> NDArray[np.int64]:
    """Change one part, or two at once, whichever lowers the loss most, for as long as that keeps all limits.

    Pairs are needed because budgets are spent: one part gains what another one gives up.

    Arguments:
        problem: what is to be solved.
        choice: shape ``(parts,)``, within all limits.
        multipliers: shape ``(budgets,)``, prices of the budgets; pairs are formed of the changes that cost least, loss
            and budgets together.
        moves: how many changes that are.

    Example:
        >>> problem = Knapsack([[9, 4, 1], [5, 3, 2]], [[[2, 4, 8], [2, 4, 8]]], [12])
        >>> improve(problem, np.array([1, 2]), np.array([0.7])).tolist()
        [2, 1]
    """
    prices = problem.loss + np.tensordot(multipliers, problem.cost, 1)
    while True:
        changed = _best_change(problem, choice, prices, moves)
        if changed is None or not problem.fits(changed) or not problem.loss_of(changed) < problem.loss_of(choice):
            return choice
        choice = changed


def _best_change(
    problem: Knapsack, choice: NDArray[np.int64], prices: NDArray[np.float64], moves: int
) -> NDArray[np.int64] | None:
    rows = np.arange(problem.parts)
    dearer = np.where(_within_groups(problem, choice), prices - prices[rows, choice][:, None], np.inf)
    dearer[rows, choice] = np.inf
    moves = min(moves, int(np.isfinite(dearer).sum()))
    if not moves:
        return None
    part, option = np.unravel_index(np.argpartition(dearer, moves - 1, axis=None)[:moves], dearer.shape)
    loss = problem.loss[part, option] - problem.loss[part, choice[part]]
    cost = problem.cost[:, part, option] - problem.cost[:, part, choice[part]]
    slack = problem.limits - problem.cost_of(choice)
    fits = part[:, None] != part
    for spent, left in zip(cost, slack, strict=True):
        fits &= spent[:, None] + spent <= left
    pairs = np.where(fits, loss[:, None] + loss, np.inf)
    single = np.where((cost <= slack[:, None]).all(axis=0), loss, np.inf)
    first, second = np.unravel_index(np.argmin(pairs), pairs.shape)
    if single.min() <= pairs[first, second]:
        first = second = np.argmin(single)
    if not min(pairs[first, second], single.min()) < 0:
        return None
    changed = choice.copy()
    changed[part[[first, second]]] = option[[first, second]]
    return changed


def _within_groups(problem: Knapsack, choice: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Options that occur in the part's group already; any allowed one without ``max_distinct``."""
    if problem.max_distinct is None:
        return problem.allowed
    occurs = np.zeros(problem.loss.shape, bool)
    for inside in problem.members():
        occurs[np.ix_(inside, np.unique(choice[inside]))] = True
    return occurs & problem.allowed
