"""Solving a knapsack by the method that fits it."""

from __future__ import annotations

import math
from typing import Literal

from searchlib.errors import InvalidSettings
from searchlib.knapsack.distinct import relax_distinct
from searchlib.knapsack.exact import solve_exactly
from searchlib.knapsack.problem import Allocated, Knapsack
from searchlib.knapsack.relaxation import relax

__all__ = ["Method", "solve"]

Method = Literal["auto", "lp", "milp", "lagrangian"]

#: Allowed options of all parts up to which "auto" goes on to the integer program, without and with ``max_distinct``.
_SMALL, _SMALL_DISTINCT = 3000, 300


def solve(
    problem: Knapsack, method: Method = "auto", *, time_limit: float | None = 20.0, gap: float = 1e-4
) -> Allocated:
    """Find an allocation within all budgets, and say how far from the best possible it is at most.

    Deterministic, unless ``time_limit`` ends the integer program.

    Arguments:
        problem: what is to be solved.
        method: ``"lp"``: the linear relaxation, rounded. ``"lagrangian"``: with ``max_distinct``, where a linear
            relaxation says little, the Lagrangian dual over sets of options, rounded; without, the same as ``"lp"``.
            ``"milp"``: go on from either with HiGHS' integer program until the gap is closed. ``"auto"``: the first
            or the second, and the third after it where the problem is small.
        time_limit: seconds for the integer program; None: none. When they are over, the best known is the answer.
        gap: relative gap at which to stop; 0 asks for the optimum itself.

    Raises:
        InvalidSettings: no allocation is within all budgets, or arguments that cannot be meant.

    Example:
        >>> problem = Knapsack([[9, 4, 1], [5, 3, 2]], [[[2, 4, 8], [2, 4, 8]]], [12])
        >>> found = solve(problem)
        >>> found.choice.tolist(), found.loss, found.cost.tolist(), found.optimal
        ([2, 1], 4.0, [12.0], True)
    """
    if method not in ("auto", "lp", "milp", "lagrangian"):
        raise InvalidSettings(f'method must be "auto", "lp", "milp" or "lagrangian", but is {method!r}')
    if not (isinstance(gap, int | float) and 0 <= gap < math.inf):
        raise InvalidSettings(f"gap must be a number of at least 0, but is {gap!r}")
    if time_limit is not None and not (isinstance(time_limit, int | float) and time_limit >= 0):
        raise InvalidSettings(f"time_limit must be seconds, at least 0, or None, but is {time_limit!r}")
    limited = problem.max_distinct is not None
    if method == "lp" and limited:
        raise InvalidSettings(
            f'method "lp" knows no max_distinct, which is {problem.max_distinct}; use "lagrangian", "milp" or "auto"'
        )
    start = relax_distinct(problem, gap) if limited else relax(problem, gap)
    small = problem.allowed.sum() <= (_SMALL_DISTINCT if limited else _SMALL)
    if start.allocated.gap <= gap or not (method == "milp" or (method == "auto" and small)):
        return start.allocated
    return solve_exactly(problem, start, gap, time_limit)
