"""The linear relaxation, rounded: its bound, and an allocation whose loss is close to it.

The relaxed optimum gives all but a few parts one option each (at most as many fractional parts as budgets), so that
rounding is a small problem: the parts with the closest second choice are decided exactly by an integer program, the
others keep the option that is cheapest at the dual's prices.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.knapsack.dual import Dual, Unbounded, maximize_dual
from searchlib.knapsack.integer_program import integer_program
from searchlib.knapsack.local_search import improve
from searchlib.knapsack.problem import Allocated, Knapsack

__all__ = ["Relaxed", "infeasible", "relax", "round_relaxed", "unmet"]

#: Blocks of parts in the dual's program: more make it larger, fewer need more steps.
_BLOCKS = 16
#: Options beside the cheapest that the integer program decides on, more while it finds nothing; at last all of them.
_CORES = (40, 160, 640)
#: Nodes that it may look at: unlike a limit of time this gives the same result each time, and the root does most.
_NODES = 1


class Relaxed(NamedTuple):
    """The rounded relaxation and what :mod:`searchlib.knapsack.exact` goes on from.

    Arguments:
        allocated: what was found.
        multipliers: shape ``(budgets,)``, prices of the budgets.
    """

    allocated: Allocated
    multipliers: NDArray[np.float64]


def relax(problem: Knapsack, gap: float) -> Relaxed:
    """Solve the linear relaxation by its dual and round it.

    Arguments:
        problem: without a limit of distinct options.
        gap: relative gap at which rounding may stop.

    Raises:
        InvalidSettings: nothing is within all budgets.
    """
    blocks = np.arange(problem.parts) * min(_BLOCKS, problem.parts) // problem.parts
    dual = maximize_dual(problem, lambda prices: prices.argmin(axis=1), blocks)
    if isinstance(dual, Unbounded):
        raise infeasible(problem, dual)
    choice = round_relaxed(problem, dual, gap)
    if choice is None:
        raise unmet(problem)
    loss = float(problem.loss_of(choice))
    found = Allocated(choice, loss, min(dual.bound, loss), problem.cost_of(choice), "lp")
    return Relaxed(found, dual.multipliers)


def round_relaxed(problem: Knapsack, dual: Dual, gap: float) -> NDArray[np.int64] | None:
    """A choice within all budgets, close to the dual's bound; None: there is none."""
    prices = problem.loss + np.tensordot(dual.multipliers, problem.cost, 1)
    cheapest: NDArray[np.intp] = prices.argmin(axis=1)
    if problem.fits(cheapest) and problem.loss_of(cheapest) - dual.bound <= 0.1 * gap * abs(dual.bound):
        return cheapest.astype(np.int64)
    dearer = prices - prices.min(axis=1, keepdims=True)
    dearer[np.arange(problem.parts), cheapest] = 0.0
    steps = np.sort(dearer, axis=None)
    for core in (*(size for size in _CORES if size < np.isfinite(steps).sum() - problem.parts), None):
        allowed = problem.allowed if core is None else dearer <= steps[problem.parts + core - 1]
        program = integer_program(problem, allowed, gap=0.5 * gap, nodes=_NODES)
        if program.choice is not None:
            return improve(problem, program.choice, dual.multipliers)
    program = integer_program(problem, problem.allowed, losses=False)
    return None if program.choice is None else improve(problem, program.choice, dual.multipliers)


def unmet(problem: Knapsack) -> InvalidSettings:
    """What to raise where mixtures of options would be within the budgets, but no choice is."""
    return InvalidSettings(
        f"no allocation is within all of the budgets {problem.budgets.tolist()}, although mixtures of options would "
        "be: the steps between options are too large; raise the budgets"
    )


def infeasible(problem: Knapsack, proof: Unbounded) -> InvalidSettings:
    """What to raise where even mixtures of options exceed the budgets."""
    priced = np.flatnonzero(proof.multipliers)
    if len(priced) == 1:
        number = int(priced[0])
        least = proof.least / proof.multipliers[number]
        return InvalidSettings(
            f"budget {number} is {problem.budgets[number]:.12g}, but the smallest possible cost is {least:.12g}; raise "
            "the budget or allow cheaper options"
        )
    scale = 1 / proof.multipliers[priced[0]]
    allowed = float(proof.multipliers[priced] @ problem.budgets[priced]) * scale
    weighted = " + ".join(
        f"{proof.multipliers[number] * scale:.6g} · cost {number}" if number != priced[0] else f"cost {number}"
        for number in priced
    )
    return InvalidSettings(
        f"budgets {priced.tolist()} cannot be met together: they allow {weighted} of {allowed:.12g}, but "
        f"the smallest possible is {proof.least * scale:.12g}; raise one of them or allow cheaper options"
    )
