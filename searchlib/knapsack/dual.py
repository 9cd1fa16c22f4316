"""The Lagrangian dual: prices of the budgets under which choosing block by block gives the best lower bound.

Dantzig and Wolfe's decomposition (Operations Research 8, 1960). An *oracle* finds the cheapest choice at given prices;
its parts come in blocks that only the budgets connect. A linear program mixes the choices seen so far, block by block,
such that budgets hold on average; its duals are the next prices. With blocks of single parts this would be column
generation for the linear relaxation; larger blocks reach the same bound with a far smaller program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from searchlib.knapsack.problem import Knapsack

__all__ = ["Dual", "Oracle", "Unbounded", "maximize_dual"]

#: Prices of options, shape ``(parts, options)``, ``+inf`` where not allowed, to the choice ``(parts,)`` of least price.
Oracle = Callable[[NDArray[np.float64]], NDArray[np.intp]]

#: New prices lie between the best ones so far and the program's (Wentges' smoothing): fewer swings, half the steps.
_SMOOTHING = 0.5
_STEPS = 300
#: An excess over the budgets, in units of a mean range of costs, that is none.
_ZERO = 1e-9


class Dual(NamedTuple):
    """What the dual says.

    Arguments:
        multipliers: shape ``(budgets,)``, the price of a unit of each budget.
        bound: no choice within the budgets has a smaller loss.
        columns: choices that the oracle made, shape ``(n, parts)``; mixed block by block they are the relaxed optimum.
    """

    multipliers: NDArray[np.float64]
    bound: float
    columns: NDArray[np.intp]


class Unbounded(NamedTuple):
    """No mixture of choices is within all budgets, hence no choice.

    Arguments:
        multipliers: shape ``(budgets,)``; the sum of costs at these weights exceeds that of the budgets for any choice.
        least: the least possible weighted cost.
    """

    multipliers: NDArray[np.float64]
    least: float


def maximize_dual(
    problem: Knapsack, oracle: Oracle, blocks: NDArray[np.intp], *, tolerance: float = 1e-7
) -> Dual | Unbounded:
    """Maximize min over choices x of loss(x) + λ · (cost(x) − limits) over multipliers λ ≥ 0.

    Arguments:
        problem: losses, costs and budgets; what else a choice must satisfy is the oracle's business.
        oracle: an exact minimizer; with a heuristic one ``bound`` is none.
        blocks: shape ``(parts,)``, numbers from 0 without a hole; the oracle decides each block by itself.
        tolerance: stop when the bound is so close to the mixture's loss, in units of the parts' mean range per
            part.
    """
    return _Decomposition(problem, oracle, blocks).run(tolerance)


@final
class _Decomposition:
    """Columns and the program over them, in units in which costs and losses are of the order of one per part."""

    def __init__(self, problem: Knapsack, oracle: Oracle, blocks: NDArray[np.intp]) -> None:
        self.problem, self.oracle, self.blocks = problem, oracle, blocks
        allowed = problem.allowed
        self.finite = np.isfinite(problem.budgets)
        high = np.where(allowed, problem.loss, -np.inf).max(axis=1)
        low = problem.loss.min(axis=1)
        self.loss_scale = float((high - low).mean()) or 1.0
        cost = problem.cost[self.finite]
        spread = np.where(allowed, cost, -np.inf).max(axis=2) - np.where(allowed, cost, np.inf).min(axis=2)
        self.cost_scale = spread.mean(axis=1)
        self.cost_scale[self.cost_scale == 0] = 1.0
        self.cost = cost / self.cost_scale[:, None, None]
        self.limits = problem.limits[self.finite] / self.cost_scale
        self.loss = problem.loss / self.loss_scale
        self.excess = 0.0
        self.choices: list[NDArray[np.intp]] = []
        self.n_blocks = int(blocks.max()) + 1
        self.losses: NDArray[np.float64] = np.empty(0)  # of the columns, all blocks of one choice after the other
        self.costs: NDArray[np.float64] = np.empty((len(self.cost), 0))

    def run(self, tolerance: float) -> Dual | Unbounded:
        none = np.zeros(len(self.cost))
        self.ask(none, 1.0)
        # First phase: the least excess over the budgets, as if losses did not matter.
        multipliers, excess = self.climb(0.0, tolerance)
        value = self.ask(multipliers, 0.0)
        if value > 1e-9 * max(1.0, float(np.abs(multipliers @ self.limits))):
            prices = self.prices(multipliers)
            limit = float(prices @ np.where(self.finite, self.problem.limits, 0.0))
            return Unbounded(prices, limit + value)
        # Without an allowance, rounding could leave the second phase without any mixture.
        self.excess = max(excess, 0.0) * (1 + 1e-6) + 1e-9
        multipliers, _ = self.climb(1.0, tolerance)
        bound = self.ask(multipliers, 1.0)
        return Dual(self.prices(multipliers) * self.loss_scale, bound * self.loss_scale, np.array(self.choices))

    def prices(self, multipliers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Multipliers in the problem's units of cost; no limit has no price."""
        prices = np.zeros(len(self.problem.budgets))
        prices[self.finite] = multipliers / self.cost_scale
        return prices

    def climb(self, weight: float, tolerance: float) -> tuple[NDArray[np.float64], float]:
        """Multipliers of a value close to the largest, and the mixture's value; losses count or not."""
        best: NDArray[np.float64] = np.zeros(len(self.cost))
        best_value, mixture = -np.inf, 0.0
        if not len(self.cost):
            return best, mixture
        for step in range(_STEPS):
            mixture, program = self.mix(weight)
            target = tolerance * self.problem.parts + 1e-10 * abs(mixture)
            if mixture - best_value <= target or (not weight and mixture <= _ZERO):
                break
            for multipliers in (program + _SMOOTHING * (best - program), program) if step else (program,):
                value = self.ask(multipliers, weight)
                if value > best_value:
                    best, best_value = multipliers, value
                if value < mixture - target:  # the choice is news to the program
                    break
        return best, mixture

    def ask(self, multipliers: NDArray[np.float64], weight: float) -> float:
        """The dual's value at these multipliers; the oracle's choice becomes a new column of every block."""
        prices = np.tensordot(multipliers, self.cost, 1)
        choice = self.oracle(np.where(self.problem.allowed, prices + self.loss if weight else prices, np.inf))
        rows = np.arange(len(choice))
        loss = np.bincount(self.blocks, self.loss[rows, choice], self.n_blocks)
        cost = np.array([np.bincount(self.blocks, c[rows, choice], self.n_blocks) for c in self.cost])
        cost = cost.reshape(len(self.cost), self.n_blocks)
        self.choices.append(choice)
        self.losses = np.append(self.losses, loss)
        self.costs = np.append(self.costs, cost, axis=1)
        return float(weight * loss.sum() + multipliers @ (cost.sum(axis=1) - self.limits))

    def mix(self, weight: float) -> tuple[float, NDArray[np.float64]]:
        """The best mixture of columns block by block: its loss, or its excess, and the duals of the budgets."""
        from scipy.optimize import linprog
        from scipy.sparse import csr_array

        n = len(self.losses)
        owner = np.tile(np.arange(self.n_blocks), len(self.choices))
        blocks = csr_array((np.ones(n), (owner, np.arange(n))), shape=(self.n_blocks, n + 1))
        excess = np.full((len(self.costs), 1), 0.0 if weight else -1.0)  # the last variable
        objective = np.append(self.losses, 0.0) if weight else np.append(np.zeros(n), 1.0)
        done = linprog(
            objective, A_ub=np.hstack([self.costs, excess]), b_ub=self.limits + (self.excess if weight else 0.0),
            A_eq=blocks, b_eq=np.ones(self.n_blocks), bounds=(0, None), method="highs-ds",
        )  # fmt: skip
        return float(done.fun), np.maximum(-done.ineqlin.marginals, 0.0)
