"""The searches of three papers, as their code has them where it was released: what a user of theirs would run.

- EEP (arXiv 2407.00945; imagination-research/EEP at 39df572): the discrete phase of its search, on exact-k subsets.
- LCSC (arXiv 2404.02241; the search was never released): its Algorithm 1, on weights that sum to one.
- USF/S³ (arXiv 2312.07243): the evolution that was released, on mixed schedules. Its predictor was not released.

Every deviation is said where it is. None of them avoids what it has evaluated already.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine.encodings import codec
from benchmarks.engine.instance import Meter
from searchlib.spaces import Product, Simplex, Subset

__all__ = ["eep", "lcsc", "s3"]

Rng = np.random.Generator
Rows = NDArray[np.float64]


class _Archive:
    """All that was evaluated, and its order: equals are shuffled whenever it is read, as EEP does."""

    def __init__(self, meter: Meter, rng: Rng, rows: Rows) -> None:
        self._meter, self._rng = meter, rng
        self.rows: Rows = rows[:0]
        self.values: Rows = np.zeros(0)
        self.add(rows)

    def add(self, rows: Rows) -> None:
        shown = self._meter(rows)
        self.rows = np.concatenate([self.rows, rows[: len(shown)]])
        self.values = np.concatenate([self.values, shown])

    def order(self) -> NDArray[np.int64]:
        mixed = self._rng.permutation(len(self.values))
        return np.asarray(mixed[np.argsort(self.values[mixed], kind="stable")])


def eep(meter: Meter, rng: Rng) -> None:
    """EEP's pruning phase with one group: 31 random subsets, then one mutant at a time for as long as the budget lasts.

    A parent is any candidate within three points of the best, or the next one behind (the code draws one too many);
    every member changes with probability .15, to anything that is not a member, itself included. Deviations: the
    released search goes on to real coefficients after 101 evaluations, which a subset does not have; a point of
    accuracy is a hundredth of the range of the values so far.
    """
    space = meter.instance.space
    assert isinstance(space, Subset)
    archive = _Archive(meter, rng, space.sample(rng, 31))
    while True:
        order = archive.order()
        gaps = archive.values[order] - archive.values[order[0]]
        pool = int((gaps <= 0.03 * max(gaps[-1], 1e-300)).sum())
        child = archive.rows[order[rng.integers(min(pool + 1, len(order)))]].copy()
        for place in np.flatnonzero(rng.random(space.k) < 0.15):
            others = np.delete(child, place)
            child[place] = rng.choice(np.setdiff1d(np.arange(space.n), others))
        archive.add(np.sort(child)[None, :])


def lcsc(meter: Meter, rng: Rng) -> None:
    """LCSC's evolution: exponential averages at ten rates, then generations of ten from the fifteen best.

    A child mixes two parents' weights (.3), averages them (.35) or copies one; .15 of its weights move by N(0, .1), and
    it is divided by its sum. Rates and sizes are not in the paper; these did well on a small diffusion model.
    Deviations: the sources of a mixture have no order in time, so that an exponential average is one of many starts;
    where weights must not be negative, they are cut at zero.
    """
    space = meter.instance.space
    n, positive = space.dimension, isinstance(space, Simplex)
    ages: Rows = np.arange(n, dtype=np.float64)[::-1]
    decays = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 1.0)
    archive = _Archive(meter, rng, np.array([_to_sum(decay**ages, positive) for decay in decays]))
    while True:
        best = archive.rows[archive.order()[:15]]
        archive.add(np.array([_to_sum(_combined(rng, best), positive) for _ in range(10)]))


def _combined(rng: Rng, parents: Rows) -> Rows:
    first, second = parents[rng.choice(len(parents), size=2, replace=False)]
    chance = rng.random()
    if chance < 0.3:
        child = np.where(rng.random(len(first)) < 0.5, first, second)
    else:
        child = (first + second) / 2 if chance < 0.65 else first.copy()
    return np.asarray(child + 0.1 * rng.standard_normal(len(child)) * (rng.random(len(child)) < 0.15))


def _to_sum(weights: Rows, positive: bool) -> Rows:
    weights = weights.clip(0) if positive else weights
    total = weights.sum()
    return weights / total if abs(total) > 0.1 else np.full(len(weights), 1 / len(weights))


def s3(meter: Meter, rng: Rng) -> None:
    """The evolution that was released with USF: parents uniform from the fifteen best, one child at a time.

    With probability .3 a child takes whole components from either of two parents, at least one from each, and with
    probability .5 then mixes them gene by gene; every gene changes with probability .3: choices and levels are drawn
    anew, reals move by N(0, .06) of their range. Deviations: it starts from 40 random schedules (at most a third of the
    budget) where the paper has known solvers; all choices are as likely; the number of steps is fixed.
    """
    space = meter.instance.space
    assert isinstance(space, Product)
    variables = codec(space, "native").variables
    component = np.repeat(np.arange(len(space.parts)), [part.dimension for _, part in space.parts])
    low, high = np.array([(variable.low, variable.high) for variable in variables]).T
    real = np.array([variable.kind == "real" for variable in variables])
    archive = _Archive(meter, rng, space.sample(rng, max(2, min(40, meter.budget // 3))))
    while True:
        best = archive.rows[archive.order()[:15]]
        child, other = best[rng.choice(len(best), size=2, replace=False)]
        if rng.random() < 0.3:
            child = _crossed(rng, child, other, component)
        near = child + rng.normal(0, 0.06, len(child)) * (high - low)
        moved = np.where(real, near, np.floor(rng.uniform(low, high + 1)))
        child = np.where(rng.random(len(child)) < 0.3, moved, child).clip(low, high)
        archive.add(child[None, :].astype(space.dtype))


def _crossed(rng: Rng, first: Rows, second: Rows, component: NDArray[np.int64]) -> Rows:
    if rng.random() < 0.5:
        return np.where(rng.random(len(first)) < 0.5, first, second)
    parts = component.max() + 1
    mask = rng.random(parts) < 0.5
    if parts > 1 and mask.all() == mask.any():  # all from one parent
        mask[rng.integers(parts)] ^= True
    return np.where(mask[component], first, second)
