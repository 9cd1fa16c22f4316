"""The simple strong rivals: loops of a few lines, written for one kind of candidate each, with plain numpy.

They know nothing of the library but the instance's parameters. Every loop ends by the meter's :class:`Spent`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine.allocations import BITS
from benchmarks.engine.instance import Meter
from searchlib.spaces import Allocation, Categorical, Integer, Product, Subset

__all__ = [
    "additive_program", "bit_flips", "distribution_of_bits", "heavy_tailed", "level_switch", "mixed_one_plus_one",
    "one_plus_one_strategy", "random_search", "single_drops_and_swaps", "subset_genetic", "swap",
]  # fmt: skip

Rng = np.random.Generator
Row = NDArray[Any]


def random_search(meter: Meter, rng: Rng) -> None:
    """Samples of the space."""
    while True:
        meter(meter.instance.space.sample(rng, min(64, max(1, meter.left))))


def _climb(meter: Meter, start: Row, child: Callable[[Row], Row]) -> None:
    """(1+1) with acceptance of equals; never evaluates what it has seen, unless a hundred draws find nothing else."""
    parent, value = start, float(meter(start[None, :])[0])
    seen = {start.tobytes()}
    while True:
        for _ in range(100):
            row = child(parent)
            if row.tobytes() not in seen:
                break
        seen.add(row.tobytes())
        new = float(meter(row[None, :])[0])
        if new <= value:
            parent, value = row, new


def _flip(rng: Rng, row: Row, count: int) -> Row:
    row = row.copy()
    places = rng.choice(len(row), size=count, replace=False)
    row[places] = 1 - row[places]
    return row


def bit_flips(meter: Meter, rng: Rng) -> None:
    """(1+1) EA with rate 1/n and without duplicates."""
    n = meter.instance.space.dimension
    start = rng.integers(2, size=n)
    _climb(meter, start, lambda row: _flip(rng, row, max(1, rng.binomial(n, 1 / n))))


def heavy_tailed(meter: Meter, rng: Rng) -> None:
    """(1+1) EA whose number of flips has a power law: "fast GA", Doerr et al., GECCO 2017, β = 1.5."""
    n = meter.instance.space.dimension
    odds = np.arange(1, n // 2 + 1) ** -1.5
    odds /= odds.sum()
    _climb(meter, rng.integers(2, size=n), lambda row: _flip(rng, row, 1 + int(rng.choice(len(odds), p=odds))))


def distribution_of_bits(meter: Meter, rng: Rng) -> None:
    """PBIL (Baluja, 1994): probabilities drawn towards the best of a generation; hands over the rounded mean."""
    n, generation = meter.instance.space.dimension, 20
    chances = np.full(n, 0.5)
    while True:
        meter.recommended = (chances > 0.5).astype(np.int64)
        rows = (rng.random((generation, n)) < chances).astype(np.int64)
        values = meter(rows)
        best = rows[np.argsort(values, kind="stable")[: generation // 4]]
        chances = (0.9 * chances + 0.1 * best.mean(axis=0)).clip(1 / n, 1 - 1 / n)


def _subset(meter: Meter) -> Subset:
    space = meter.instance.space
    assert isinstance(space, Subset)
    return space


def _swapped(rng: Rng, row: Row, n: int) -> Row:
    out = np.setdiff1d(np.arange(n), row)
    row = row.copy()
    row[rng.integers(len(row))] = rng.choice(out)
    return np.sort(row)


def swap(meter: Meter, rng: Rng) -> None:
    """(1+1) with one swap and without duplicates."""
    space = _subset(meter)
    _climb(meter, space.sample(rng, 1)[0], lambda row: _swapped(rng, row, space.n))


def single_drops_and_swaps(meter: Meter, rng: Rng) -> None:
    """What one swap per item is worth gives every item a score; the best k of them, then swaps."""
    space = _subset(meter)
    n, k = space.n, space.k
    base = np.sort(rng.permutation(n)[:k])
    inside = np.isin(np.arange(n), base)
    value = float(meter(base[None, :])[0])
    scores, tried = np.zeros(n), []
    for item in rng.permutation(n)[: max(1, meter.budget // 3)]:
        other = rng.choice(np.flatnonzero(~inside) if inside[item] else base)
        row = np.sort(np.append(base[base != (item if inside[item] else other)], other if inside[item] else item))
        change = float(meter(row[None, :])[0]) - value
        tried.append((change, row))
        # A swap speaks of both items.
        gone, come = (item, other) if inside[item] else (other, item)
        scores[gone] += change
        scores[come] -= change
    first = np.sort(np.argsort(-scores, kind="stable")[:k])
    best = min(tried, key=lambda pair: pair[0])
    start = first if float(meter(first[None, :])[0]) <= value + min(best[0], 0) else best[1] if best[0] < 0 else base
    _climb(meter, start, lambda row: _swapped(rng, row, n))


def subset_genetic(meter: Meter, rng: Rng) -> None:
    """A steady-state genetic algorithm: children keep what both parents share and fill up from either; one swap."""
    space = _subset(meter)
    rows = space.sample(rng, 20)
    values = meter(rows)
    while True:
        picks = rng.integers(20, size=(2, 2))
        mother, father = (rows[pair[np.argmin(values[pair])]] for pair in picks)
        shared = np.intersect1d(mother, father)
        either = rng.permutation(np.setxor1d(mother, father))[: space.k - len(shared)]
        child = np.sort(np.append(shared, either))
        if rng.random() < 0.8:
            child = _swapped(rng, child, space.n)
        if (rows == child).all(axis=1).any():
            child = _swapped(rng, child, space.n)
        value, worst = float(meter(child[None, :])[0]), int(np.argmax(values))
        if value <= values[worst]:
            rows[worst], values[worst] = child, value


def _costs(meter: Meter) -> tuple[Row, float]:
    space = meter.instance.space
    assert isinstance(space, Allocation)
    return np.array(space.costs[0]), space.budgets[0]


def _switched(rng: Rng, row: Row, costs: Row, budget: float) -> Row:
    """One layer up and others down until the budget holds, then up again where there is room."""
    row, n = row.copy(), len(row)
    up = rng.choice(np.flatnonzero(row < len(BITS) - 1))
    row[up] += 1
    for _ in range(10 * n):
        if costs[np.arange(n), row].sum() <= budget:
            break
        down = rng.integers(n)
        if down != up and row[down] > 0:
            row[down] -= 1
    for place in rng.permutation(n)[:3]:
        if row[place] < len(BITS) - 1:
            more = costs[place, row[place] + 1] - costs[place, row[place]]
            if costs[np.arange(n), row].sum() + more <= budget:
                row[place] += 1
    return row if costs[np.arange(n), row].sum() <= budget else np.zeros(n, np.int64)


def level_switch(meter: Meter, rng: Rng) -> None:
    """(1+1) level switches from four bits everywhere (EvoPress's move, arXiv 2410.14649, with one child)."""
    costs, budget = _costs(meter)
    _climb(meter, np.full(len(costs), BITS.index(4)), lambda row: _switched(rng, row, costs, budget))


def additive_program(meter: Meter, rng: Rng) -> None:
    """Probe every layer at every level, solve the sum exactly (integer program), then switch levels.

    The probe is as far as a third of the budget goes: two levels of every layer, interpolated in the logarithm of the
    loss, where it does not reach all.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    costs, budget = _costs(meter)
    n, m = costs.shape
    base = np.full(n, BITS.index(4))
    reference = float(meter(base[None, :])[0])
    levels = [level for level in range(m) if level != base[0]]
    if n * len(levels) > meter.budget / 3:
        levels = levels[:1] + levels[-1:]
    if n * len(levels) > meter.budget / 2:
        levels = levels[:1]
    changes = np.full((n, m), np.nan)
    changes[:, base[0]] = 0.0
    parts = rng.permutation(n)[: max(1, meter.budget // 2)]
    for level in levels:
        rows = np.repeat(base[None, :], len(parts), axis=0)
        rows[np.arange(len(parts)), parts] = level  # one layer over budget by itself is what a probe is
        changes[parts, level] = meter(rows) - reference
    worst = np.maximum(changes[:, levels[0]], 1e-12)
    worst[np.isnan(worst)] = np.nanmedian(worst)
    for level in range(m):  # a quarter per bit where nothing was measured
        gap = np.isnan(changes[:, level])
        guess = worst * (4.0 ** (BITS[0] - BITS[level]) - 4.0 ** (BITS[0] - 4))
        changes[gap, level] = guess[gap]
    found = milp(
        changes.ravel(), integrality=np.ones(n * m), bounds=Bounds(0, 1), options={"time_limit": 2.0},
        constraints=[
            LinearConstraint(np.kron(np.eye(n), np.ones(m)), 1, 1),
            LinearConstraint(costs.reshape(1, -1), -np.inf, budget),
        ],
    )  # fmt: skip
    start = base if found.x is None else found.x.reshape(n, m).argmax(axis=1)
    if costs[np.arange(n), start].sum() > budget:
        start = base
    _climb(meter, start, lambda row: _switched(rng, row, costs, budget))


def mixed_one_plus_one(meter: Meter, rng: Rng) -> None:
    """(1+1) EA on mixed genes: each changes with probability 1/n; reals by a normal step of a tenth of their range."""
    space = meter.instance.space
    assert isinstance(space, Product)
    kinds: list[Any] = [part for _, part in space.parts for _ in range(part.dimension)]
    d = len(kinds)

    def child(row: Row) -> Row:
        row = row.copy()
        hits = np.flatnonzero(rng.random(d) < 1 / d)
        for place in hits if len(hits) else rng.integers(d, size=1):
            part = kinds[place]
            if isinstance(part, Categorical):
                row[place] = (row[place] + rng.integers(1, len(part.choices))) % len(part.choices)
            elif isinstance(part, Integer):
                step = int(rng.choice([-2, -1, 1, 2]))
                row[place] = min(max(row[place] + step, part.low), part.high)
            else:
                row[place] = min(max(row[place] + rng.normal(0, 0.1 * (part.high - part.low)), part.low), part.high)
        return row

    _climb(meter, space.sample(rng, 1)[0], child)


def one_plus_one_strategy(meter: Meter, rng: Rng) -> None:
    """(1+1)-ES on reals with the one-fifth rule."""
    space = meter.instance.space
    n, sigma = space.dimension, 1.0
    parent: Row = np.zeros(n)
    value = float(meter(parent[None, :])[0])
    while True:
        row = parent + sigma * rng.standard_normal(n)
        row = row.clip(-5, 5)
        new = float(meter(row[None, :])[0])
        if new <= value:
            parent, value = row, new
            sigma *= np.exp(0.2)
        else:
            sigma *= np.exp(-0.05)
