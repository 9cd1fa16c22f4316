"""Few different options per group: the Lagrangian dual over sets of options, and an allocation close to it.

A kernel that runs one group of parts together (the heads of a layer) takes only a few different rules, two in MoA
(arXiv 2406.14909). As an integer program with indicators this is hard; but only the budgets connect the groups, so that
at given prices every group can try all its pairs by itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.knapsack.dual import Dual, Unbounded, maximize_dual
from searchlib.knapsack.integer_program import integer_program
from searchlib.knapsack.local_search import improve
from searchlib.knapsack.option_sets import OptionSets
from searchlib.knapsack.problem import Allocated, Knapsack
from searchlib.knapsack.relaxation import Relaxed, infeasible, relax, round_relaxed, unmet

__all__ = ["relax_distinct"]

#: Sets of a group that are offered beside those of the dual; each number starts a rounding of its own.
_OFFERED = (1, 8, 24)
#: Other sets of one group that are tried at the end: so many numbers of the problem, and trials at most.
_NUMBERS, _TRIALS = 150_000, 12


def relax_distinct(problem: Knapsack, gap: float) -> Relaxed:
    """Solve the Lagrangian dual and round it.

    Arguments:
        problem: with ``max_distinct``.
        gap: relative gap at which rounding may stop.

    Raises:
        InvalidSettings: nothing is within all limits.
    """
    sets = OptionSets(problem)
    if (number := sets.uncovered(problem)) is not None:
        members = problem.members()[number]
        raise InvalidSettings(
            f"no {problem.max_distinct} options are allowed for all {len(members)} parts of the group of part "
            f"{members[0]} between them; raise max_distinct or allow more options"
        )
    dual = _dual(problem, sets, gap)
    choice = _rounded(problem, sets, dual, gap)
    loss = float(problem.loss_of(choice))
    found = Allocated(choice, loss, min(dual.bound, loss), problem.cost_of(choice), "lagrangian")
    return Relaxed(found, dual.multipliers)


def _dual(problem: Knapsack, sets: OptionSets, gap: float) -> Dual:
    dual = maximize_dual(problem, sets.cheapest, sets.blocks)
    if sets.exact:
        if isinstance(dual, Unbounded):
            raise infeasible(problem, dual)
        return dual
    # What greedy sets reach proves nothing; the bound of the problem without the limit holds for this one.
    relaxed = relax(problem.unlimited(), gap)
    if isinstance(dual, Unbounded):
        dual = Dual(relaxed.multipliers, 0.0, np.empty((0, problem.parts), np.intp))
    return dual._replace(bound=relaxed.allocated.bound)


def _rounded(problem: Knapsack, sets: OptionSets, dual: Dual, gap: float) -> NDArray[np.int64]:
    prices = problem.loss + np.tensordot(dual.multipliers, problem.cost, 1)
    found = []
    for offered in _OFFERED:
        start = _mixed(problem, sets, dual, prices, offered, gap)
        if start is not None:
            found.append(improve(problem, start, dual.multipliers))
    if not found:
        program = integer_program(problem, problem.allowed, losses=False)
        if program.choice is None:
            raise unmet(problem)
        found.append(program.choice)
    best = _within_sets(problem, sets, min(found, key=problem.loss_of), prices, dual.multipliers, gap)
    return _other_sets(problem, sets, best, prices, dual, gap)


def _mixed(
    problem: Knapsack, sets: OptionSets, dual: Dual, prices: NDArray[np.float64], offered: int, gap: float
) -> NDArray[np.int64] | None:
    """The best of the dual's columns, group by group: a knapsack whose parts are groups and whose options columns."""
    members = problem.members()
    columns = [
        np.unique(np.concatenate([dual.columns[:, inside], sets.best(number, prices, offered)]), axis=0)
        for number, inside in enumerate(members)
    ]
    loss = np.full((len(members), max(len(column) for column in columns)), np.inf)
    cost = np.zeros((len(problem.budgets), *loss.shape))
    for number, (inside, column) in enumerate(zip(members, columns, strict=True)):
        loss[number, : len(column)] = problem.loss[inside, column].sum(axis=1)
        cost[:, number, : len(column)] = problem.cost[:, inside, column].sum(axis=2)
    try:
        of_groups = Knapsack(loss, cost, problem.limits)
    except InvalidSettings:  # none of these columns
        return None
    picked = round_relaxed(of_groups, dual, gap)
    if picked is None:
        return None
    choice = np.empty(problem.parts, np.int64)
    for number, inside in enumerate(members):
        choice[inside] = columns[number][picked[number]]
    return choice if problem.fits(choice) else None


def _within_sets(
    problem: Knapsack,
    sets: OptionSets,
    choice: NDArray[np.int64],
    prices: NDArray[np.float64],
    multipliers: NDArray[np.float64],
    gap: float,
) -> NDArray[np.int64]:
    """The best allocation of the options that the choice's groups have already."""
    inside = problem.only(sets.around(choice, prices) & problem.allowed).unlimited()
    better = relax(inside, gap).allocated.choice
    return improve(problem, min(better, choice, key=problem.loss_of), multipliers)


def _other_sets(
    problem: Knapsack,
    sets: OptionSets,
    choice: NDArray[np.int64],
    prices: NDArray[np.float64],
    dual: Dual,
    gap: float,
) -> NDArray[np.int64]:
    """Give one group another set while the dual's prices allow that to be better."""
    trials = min(_TRIALS, _NUMBERS // problem.cost.size if problem.cost.size else _TRIALS)
    if not trials or not sets.exact:
        return choice
    tried = []
    for number, inside in enumerate(problem.members()):
        rows = sets.best(number, prices, trials)
        totals = prices[inside, rows].sum(axis=1)
        tried += [(total, number, row) for total, row in zip(totals - totals[0], rows, strict=True)]
    tried.sort(key=lambda trial: (trial[0], trial[1]))
    for extra, number, row in tried[:trials]:
        loss = float(problem.loss_of(choice))
        if loss - (dual.bound + extra) <= gap * abs(loss):
            break
        other = choice.copy()
        other[problem.members()[number]] = row
        try:
            changed = _within_sets(problem, sets, other, prices, dual.multipliers, gap)
        except InvalidSettings:  # these sets are too dear
            continue
        if problem.fits(changed) and problem.loss_of(changed) < loss:
            choice = changed
    return choice
