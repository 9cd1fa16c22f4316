"""The exact optimum by an integer program, over the options that can be part of one."""

from __future__ import annotations

import numpy as np

from searchlib.knapsack.integer_program import integer_program
from searchlib.knapsack.problem import Allocated, Knapsack
from searchlib.knapsack.relaxation import Relaxed

__all__ = ["solve_exactly"]


def solve_exactly(problem: Knapsack, start: Relaxed, gap: float, seconds: float | None) -> Allocated:
    """Go on from a rounded relaxation until the gap is closed or time is over.

    An option that costs more at the dual's prices, compared with its part's cheapest one, than the gap that is left
    belongs to nothing better than what is known (reduced-cost fixing): the program rarely needs more than a few
    options of each part. What was known is the answer where the program finds nothing better in time.

    Arguments:
        problem: what is to be solved.
        start: a feasible allocation, and the prices.
        gap: relative gap at which to stop.
        seconds: limit of the search; None: none.
    """
    known = start.allocated
    prices = problem.loss + np.tensordot(start.multipliers, problem.cost, 1)
    least = prices.min(axis=1, keepdims=True)
    priced = start.multipliers > 0
    bound = float(least.sum() - start.multipliers[priced] @ problem.limits[priced])
    left = (known.loss - bound) * (1 + 1e-9) + 1e-12 * float(np.abs(least).sum())
    useful = problem.allowed & (prices - least <= left)
    useful[np.arange(problem.parts), known.choice] = True
    program = integer_program(problem, useful, gap=gap, seconds=seconds)
    choice, loss = known.choice, known.loss
    if program.choice is not None and problem.loss_of(program.choice) < loss:
        choice, loss = program.choice, float(problem.loss_of(program.choice))
    best_bound = min(max(known.bound, program.bound), loss)
    return Allocated(choice, loss, best_bound, problem.cost_of(choice), "milp")
