"""What each budget buys: the Pareto front of loss and one cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings
from searchlib.knapsack.problem import Allocated, Knapsack
from searchlib.knapsack.solve import Method, solve

__all__ = ["front"]


def front(
    problem: Knapsack,
    budget: int = 0,
    values: int | Sequence[float] | NDArray[np.float64] = 20,
    *,
    method: Method = "auto",
    time_limit: float | None = 20.0,
    gap: float = 1e-4,
) -> list[Allocated]:
    """Solve the problem again and again with other values of one budget, the others fixed (ε-constraint method).

    Arguments:
        problem: what is to be solved; its own value of the budget does not matter.
        budget: number of the budget.
        values: values of it, or how many: evenly spaced from the least with which there is an allocation to the least
            with which the budget no longer matters.
        method, time_limit, gap: of each solution, see :func:`solve`.

    Returns:
        allocations, none of which has both a loss and a cost at most another's, in order of rising cost.

    Raises:
        InvalidSettings: a value, or another budget, cannot be met.

    Example:
        >>> problem = Knapsack([[9, 4, 1], [5, 3, 2]], [[[2, 4, 8], [2, 4, 8]]], [12])
        >>> [(found.cost.tolist(), found.loss) for found in front(problem, values=[4, 6, 8, 16])]
        [([4.0], 14.0), ([6.0], 9.0), ([8.0], 7.0), ([16.0], 3.0)]
    """
    if not 0 <= whole_number("budget", budget, 0) < len(problem.budgets):
        raise InvalidSettings(f"budget must be the number of one of {len(problem.budgets)} budgets, but is {budget}")

    def at(value: float, loss: NDArray[np.float64] = problem.loss) -> Allocated:
        budgets = problem.budgets.copy()
        budgets[budget] = value
        changed = dataclasses.replace(problem, loss=loss, budgets=budgets)
        return solve(changed, method, time_limit=time_limit, gap=gap)

    if isinstance(values, int | np.integer):
        n = whole_number("values", values, 2)
        least = at(np.inf, np.where(problem.allowed, problem.cost[budget], np.inf)).cost[budget]
        values = np.linspace(least, at(np.inf).cost[budget], n)
    chosen = np.asarray(values, dtype=np.float64)
    if chosen.ndim != 1 or not len(chosen):
        raise InvalidSettings(f"values must be a list of budgets or their number, but are {values!r}")
    found = sorted((at(value) for value in chosen), key=lambda one: (one.cost[budget], one.loss))
    kept: list[Allocated] = []
    for one in found:
        if not kept or one.loss < kept[-1].loss:
            kept.append(one)
    return kept
