"""The knapsack as an integer program for HiGHS, over the options that are left."""

from __future__ import annotations

from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from searchlib.knapsack.problem import Knapsack

__all__ = ["Program", "integer_program"]

#: How often the program is solved again with smaller budgets, where HiGHS' tolerance let it exceed them.
_TRIES = 6


class Program(NamedTuple):
    """What an integer program found.

    Arguments:
        choice: shape ``(parts,)``; None where there is none, or none was found within the limits.
        bound: no choice of the allowed options has a smaller loss; ``inf`` where there is no choice at all.
    """

    choice: NDArray[np.int64] | None
    bound: float


def integer_program(
    problem: Knapsack,
    allowed: NDArray[np.bool_],
    *,
    gap: float = 0.0,
    nodes: int | None = None,
    seconds: float | None = None,
    losses: bool = True,
) -> Program:
    """Decide exactly between the allowed options.

    Arguments:
        problem: what is to be solved.
        allowed: shape ``(parts, options)``, a subset of the problem's; every part has one.
        gap: relative gap at which to stop.
        nodes, seconds: limits of the search; None: none. A limit of seconds makes the result depend on the computer.
        losses: False: any choice within the budgets will do, and the bound says nothing.
    """
    model = _Model(problem, allowed, losses)
    settings: dict[str, Any] = {"mip_rel_gap": gap}
    if nodes is not None:
        settings["node_limit"] = nodes
    if seconds is not None:
        settings["time_limit"] = max(seconds, 0.0)
    bound = None
    for attempt in range(_TRIES):
        found = model.solve(dict(settings))
        bound = found.bound if bound is None else bound  # that of the true budgets
        if found.choice is None or problem.fits(found.choice):
            return Program(found.choice, bound)
        model.tighten(found.choice, 1e-10 * 10**attempt)
    return Program(None, -np.inf if bound is None else bound)


@final
class _Model:
    """Variables, one per allowed option of a part, then one per option of a group, then one that is always one.

    Parts with a single option are constants, so that a core of a few parts is a small program; the last variable
    carries their loss, so that the relative gap is that of the whole. HiGHS' tolerances are absolute, hence losses and
    costs are scaled to at most about one.
    """

    def __init__(self, problem: Knapsack, allowed: NDArray[np.bool_], losses: bool) -> None:
        from scipy.sparse import csr_array, hstack

        self.problem = problem
        self.choice = allowed.argmax(axis=1).astype(np.int64)
        free = allowed.sum(axis=1) > 1 if problem.max_distinct is None else np.ones(problem.parts, bool)
        self.parts, self.options = np.nonzero(allowed & free[:, None])
        n = len(self.parts)
        least = np.where(allowed, problem.loss, np.inf).min(axis=1)
        above = problem.loss[self.parts, self.options] - least[self.parts]
        self.scale = float(above.max(initial=0.0)) or 1.0
        self.finite = np.isfinite(problem.budgets)
        fixed = problem.cost[:, np.arange(problem.parts), self.choice][:, ~free].sum(axis=1)
        cost = problem.cost[:, self.parts, self.options][self.finite]
        self.units = np.maximum(np.abs(cost).max(axis=1, initial=0.0), 1e-300)
        self.limits = (problem.limits - fixed)[self.finite] / self.units
        number = np.cumsum(free) - 1
        one_each = csr_array((np.ones(n), (number[self.parts], np.arange(n))), shape=(int(free.sum()), n))
        distinct, self.at_most = _distinct_rows(problem, self.parts, self.options)
        more = distinct.shape[1] - n
        costs = csr_array(cost / self.units[:, None])
        self.rows = [*(hstack([block, csr_array((block.shape[0], more))]) for block in (one_each, costs)), distinct]
        self.objective = np.zeros(n + more + 1)
        if losses:
            self.objective[:n], self.objective[-1] = above / self.scale, least.sum() / self.scale

    def solve(self, settings: dict[str, Any]) -> Program:
        """One run of HiGHS."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import csr_array, hstack, vstack

        if not len(self.parts):
            if (self.limits < 0).any():
                return Program(None, np.inf)
            return Program(self.choice, float(self.objective[-1] * self.scale))
        one_each, costs, distinct = self.rows
        matrix = vstack([one_each, costs, distinct])
        matrix = hstack([matrix, csr_array((matrix.shape[0], 1))], format="csr")
        highest = np.concatenate([np.ones(one_each.shape[0]), self.limits, self.at_most])
        lowest = np.concatenate([np.ones(one_each.shape[0]), np.full(len(highest) - one_each.shape[0], -np.inf)])
        floor = np.zeros(len(self.objective))
        floor[-1] = 1.0
        done = milp(
            self.objective, integrality=np.ones(len(self.objective)), bounds=Bounds(floor, np.ones(len(floor))),
            constraints=LinearConstraint(matrix, lowest, highest), options=settings,
        )  # fmt: skip
        if done.status == 2:
            return Program(None, np.inf)
        bound = -np.inf if done.mip_dual_bound is None else float(done.mip_dual_bound) * self.scale
        if done.x is None:
            return Program(None, bound)
        choice = self.choice.copy()
        chosen = done.x[: len(self.parts)] > 0.5
        choice[self.parts[chosen]] = self.options[chosen]
        return Program(choice, bound)

    def tighten(self, choice: NDArray[np.int64], least: float) -> None:
        """Lower the budgets that this choice exceeds, by twice as much and at least so much of the largest cost."""
        excess = (self.problem.cost_of(choice) - self.problem.limits)[self.finite] / self.units
        self.limits = self.limits - np.where(excess > 0, np.maximum(2 * excess, least), 0.0)


def _distinct_rows(
    problem: Knapsack, parts: NDArray[np.intp], options: NDArray[np.intp]
) -> tuple[Any, NDArray[np.float64]]:
    """Rows ``x - y <= 0`` and ``sum of y <= max_distinct``, and their limits; y: an option occurs in a group."""
    from scipy.sparse import csr_array, hstack, vstack

    n = len(parts)
    if problem.max_distinct is None:
        return csr_array((0, n)), np.empty(0)
    group = np.empty(problem.parts, np.intp)
    members = problem.members()
    for number, rows in enumerate(members):
        group[rows] = number
    occurring, inverse = np.unique(group[parts] * problem.options + options, return_inverse=True)
    m = len(occurring)
    used = hstack([_incidence(np.arange(n), np.arange(n), (n, n)), -_incidence(np.arange(n), inverse, (n, m))])
    counted = _incidence(occurring // problem.options, np.arange(m), (len(members), m))
    counted = hstack([csr_array((len(members), n)), counted])
    return vstack([used, counted], format="csr"), np.append(np.zeros(n), np.full(len(members), problem.max_distinct))


def _incidence(rows: NDArray[np.intp], columns: NDArray[np.intp], shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_array

    return csr_array((np.ones(len(rows)), (rows, columns)), shape=shape)
