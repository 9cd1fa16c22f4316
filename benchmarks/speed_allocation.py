"""Allocating options to the heads of a large language model: searchlib's knapsack solver against HiGHS alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.speed_clock import timed
from benchmarks.table import Table
from searchlib.knapsack import Allocated, Knapsack, solve

__all__ = ["AllocationSize", "Allocations", "attention_rules", "measure"]


@dataclass(frozen=True)
class AllocationSize:
    """Heads and layers of the instance, and seconds that HiGHS gets for it."""

    heads: int = 1024
    layers: int = 32
    limit: float = 20.0


#: CPU seconds and gap by method and repetition; HiGHS' gap is None where it has found nothing in time.
Allocations = dict[str, list[tuple[float, float | None]]]


def attention_rules(heads: int, seed: int, **limits: Any) -> Knapsack:
    """48 elastic rules α + β·length, losses that fall exponentially with the span, density budgets at four lengths."""
    rng = np.random.default_rng(seed)
    lengths = np.array([2048.0, 4096, 8192, 16384])
    alpha, beta = (grid.ravel() for grid in np.meshgrid(np.linspace(-2048, 8192, 8), np.linspace(0, 1, 6)))
    density = np.clip(alpha + beta * lengths[:, None], 64, lengths[:, None]) / lengths[:, None]
    reach = rng.uniform(0.03, 0.6, (heads, 4, 1))
    loss = rng.lognormal(0, 1.2, (heads, 1)) * np.exp(-density[None] / reach).mean(axis=1)
    loss *= rng.uniform(0.97, 1.03, loss.shape)
    cost = np.broadcast_to(density[:, None], (4, *loss.shape))
    return Knapsack(loss, cost, np.array([0.5, 0.48, 0.47, 0.45]) * heads, **limits)


def _highs(problem: Knapsack, limit: float) -> float | None:
    """The gap that ``scipy.optimize.milp`` reaches on the plain program; None: nothing found."""
    from scipy.optimize import LinearConstraint, milp
    from scipy.sparse import csr_array

    n = problem.loss.size
    each = csr_array((np.ones(n), (np.arange(n) // problem.options, np.arange(n))))
    rows = [LinearConstraint(each, 1, 1), LinearConstraint(problem.cost.reshape(-1, n), -np.inf, problem.budgets)]
    done = milp(problem.loss.ravel(), integrality=np.ones(n), bounds=(0, 1), constraints=rows,
                options={"time_limit": limit})  # fmt: skip
    return None if done.x is None else float(done.mip_gap)


def measure(table: Table, size: AllocationSize, repetitions: int) -> Allocations:
    """Add the rows of this part; every repetition is another instance."""
    solve(attention_rules(8, 0))  # imports are not counted
    layers = np.arange(size.heads) * size.layers // size.heads
    spent: Allocations = {"searchlib": [], "searchlib, two rules per layer": [], "HiGHS alone": []}
    for seed in range(repetitions):
        problem = attention_rules(size.heads, seed)
        for method, one in (
            ("searchlib", problem),
            ("searchlib, two rules per layer", attention_rules(size.heads, seed, groups=layers, max_distinct=2)),
        ):
            found: list[Allocated] = []
            seconds = timed(lambda one=one, found=found: found.append(solve(one))).cpu_seconds  # type: ignore[misc]
            spent[method].append((seconds, found[0].gap))
        gaps: list[float | None] = []
        seconds = timed(lambda: gaps.append(_highs(problem, size.limit))).cpu_seconds  # noqa: B023
        spent["HiGHS alone"].append((seconds, gaps[0]))
    for method, runs in spent.items():
        for seconds, gap in runs:
            table.add(f"allocate 48 rules to {size.heads} heads, 4 budgets", method, cpu_seconds=seconds,
                      **({} if gap is None else {"gap": gap}))  # fmt: skip
    return spent
