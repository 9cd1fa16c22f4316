"""Exact-k subsets (a2): which k of n to keep."""

from __future__ import annotations

import numpy as np

from benchmarks.engine.instance import Instance, Values
from searchlib.space import Population
from searchlib.spaces import Subset

__all__ = ["TEST", "TRAIN", "make"]

TRAIN = ("pairs, 48 of 64", "pairs, 32 of 128", "planted, 48 of 64")
TEST = ("outputs, 48 of 64", "outputs, 64 of 256", "items, 24 of 96", "coverage, 16 of 128", "planted, 32 of 128")


def make(problem: str, number: int) -> Instance:
    """An instance of a problem."""
    kind, _, sizes = problem.partition(", ")
    k, n = (int(word) for word in sizes.split(" of "))
    code = [2, *problem.encode(), number]
    return Instance(problem, number, Subset(n, k=k), _KINDS[kind](np.random.default_rng(code), n, k))


def _pairs(rng, n, k):  # type: ignore[no-untyped-def]
    """Experts with a worth of their own and sparse interactions of pairs."""
    worth = rng.normal(0, 1, n)
    pairs = np.triu(rng.normal(0, 1, (n, n)) * (rng.random((n, n)) < 4 / n), 1)

    def truth(rows: Population) -> Values:
        x = _mask(rows, n)
        return np.asarray(-(x @ worth) / np.sqrt(n) - ((x @ pairs) * x).sum(axis=1) / np.sqrt(n))

    return truth


def _planted(rng, n, k):  # type: ignore[no-untyped-def]
    """A hidden good set: errors fall faster than linearly with its share that is kept; the others mislead a little."""
    good = np.zeros(n)
    good[rng.permutation(n)[:k]] = 1
    bait = rng.normal(0, 0.5, n) * (1 - good)

    def truth(rows: Population) -> Values:
        x = _mask(rows, n)
        missed = 1 - (x @ good) / k
        return np.asarray(missed**1.5 - (x @ bait) / k * 0.2)

    return truth


def _outputs(rng, n, k):  # type: ignore[no-untyped-def]
    """The output of a layer of n correlated experts, rebuilt from k of them: relative squared error."""
    width, rank = 2 * n, n // 4
    experts = rng.normal(0, 1, (n, rank)) @ rng.normal(0, 1, (rank, width)) / np.sqrt(rank)
    experts += 0.7 * rng.normal(0, 1, (n, width))
    experts *= rng.lognormal(0, 0.6, n)[:, None]
    target = experts.sum(axis=0)

    def truth(rows: Population) -> Values:
        rest = target - _mask(rows, n) @ experts * (n / k)
        return np.asarray((rest**2).sum(axis=1) / (target**2).sum())

    return truth


def _items(rng, n, k):  # type: ignore[no-untyped-def]
    """Which test items rank 40 models as all items do: 1 minus Kendall's tau, on a two-parameter response model."""
    models = 40
    ability, difficulty, sharp = rng.normal(0, 0.7, models), rng.normal(0, 1.5, n), rng.lognormal(0, 0.5, n)
    chance = 1 / (1 + np.exp(-sharp * (ability[:, None] - difficulty)))
    solved = (rng.random((models, n)) < chance).astype(np.float64)
    upper = np.triu_indices(models, 1)
    full = np.sign(solved.mean(axis=1)[upper[0]] - solved.mean(axis=1)[upper[1]])

    def truth(rows: Population) -> Values:
        scores = _mask(rows, n) @ solved.T
        order = np.sign(scores[:, upper[0]] - scores[:, upper[1]])
        return np.asarray(1 - (order * full).sum(axis=1) / len(full))

    return truth


def _coverage(rng, n, k):  # type: ignore[no-untyped-def]
    """What share of 1,000 weighted elements k sets leave uncovered."""
    sizes = rng.lognormal(0, 0.5, n)
    covers = rng.random((n, 1000)) < 0.03 * sizes[:, None]
    weights = rng.lognormal(0, 1, 1000)

    def truth(rows: Population) -> Values:
        reached = _mask(rows, n) @ covers.astype(np.float64) > 0
        return np.asarray(1 - reached @ weights / weights.sum())

    return truth


_KINDS = {"pairs": _pairs, "planted": _planted, "outputs": _outputs, "items": _items, "coverage": _coverage}


def _mask(rows: Population, n: int) -> Values:
    """Rows of kept numbers ``(m, k)`` as masks ``(m, n)``."""
    mask = np.zeros((len(rows), n))
    np.put_along_axis(mask, np.asarray(rows, np.int64), 1, axis=1)
    return mask
