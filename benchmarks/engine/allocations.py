"""Allocation under a budget (b): how many bits every layer gets."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp

from benchmarks.engine.instance import Instance, Values
from searchlib.space import Population
from searchlib.spaces import Allocation

__all__ = ["BITS", "TEST", "TRAIN", "make"]

BITS = (2, 3, 4, 5, 6, 8)
TRAIN = ("chain, 40 layers", "blocks, 40 layers")
TEST = ("chain, 96 layers", "products, 40 layers", "weakest part, 48 layers", "redundant, 60 layers")


def make(problem: str, number: int) -> Instance:
    """An instance: layers of unequal size, four bits on average."""
    kind, layers = problem.removesuffix(" layers").split(", ")
    rng, n = np.random.default_rng([3, *problem.encode(), number]), int(layers)
    sizes = np.round(rng.lognormal(0, 0.7, n) * 100).clip(1)
    costs = tuple(tuple(float(size * bits) for bits in BITS) for size in sizes)
    space = Allocation(tuple(map(str, range(n))), BITS, costs=(costs,), budgets=(float(4 * sizes.sum()),))
    sensitive = rng.lognormal(0, 1.2, n)
    # What a layer loses alone: about a quarter per bit, as rounding does, and not quite smooth.
    alone = sensitive[:, None] * 4.0 ** -(np.array(BITS) - 2) * rng.lognormal(0, 0.15, (n, len(BITS)))
    return Instance(problem, number, space, _KINDS[kind](rng, alone))


def _own(alone: Values, rows: Population) -> Values:
    return np.asarray(alone[np.arange(alone.shape[0]), np.asarray(rows, np.int64)])


def _chain(rng, alone):  # type: ignore[no-untyped-def]
    """Neighbors that are both coarse lose more, or less, than the sum."""
    n = len(alone)
    links = rng.normal(0.4, 0.6, n - 1)

    def truth(rows: Population) -> Values:
        own = _own(alone, rows)
        return np.asarray(own.sum(axis=1) + (np.sqrt(own[:, 1:] * own[:, :-1]) * links).sum(axis=1))

    return truth


def _blocks(rng, alone):  # type: ignore[no-untyped-def]
    """Four layers make a block; what a block loses grows faster than the sum of its layers."""
    powers = rng.uniform(0.7, 1.6, len(alone) // 4)

    def truth(rows: Population) -> Values:
        lost = _own(alone, rows).reshape(len(rows), -1, 4).sum(axis=2)
        return np.asarray((lost**powers).sum(axis=1))

    return truth


def _products(rng, alone):  # type: ignore[no-untyped-def]
    """Errors of early layers are multiplied by those of later ones."""
    gain = rng.uniform(0.2, 1.0)

    def truth(rows: Population) -> Values:
        grown = np.cumprod(1 + gain * _own(alone, rows) / np.sqrt(alone.shape[0]), axis=1)[:, -1]
        return np.asarray(np.log(grown))

    return truth


def _weakest(rng, alone):  # type: ignore[no-untyped-def]
    """The model is as good as its worst block of six: a soft maximum."""
    scale = rng.uniform(4, 12)

    def truth(rows: Population) -> Values:
        lost = _own(alone, rows).reshape(len(rows), -1, 6).sum(axis=2)
        return np.asarray((logsumexp(scale * lost / alone.mean(), axis=1) - np.log(lost.shape[1])) / scale)

    return truth


def _redundant(rng, alone):  # type: ignore[no-untyped-def]
    """Three layers do the same job: it is lost only as far as the best of them loses it. The profile shows nothing."""
    order = rng.permutation(len(alone))

    def truth(rows: Population) -> Values:
        own = _own(alone, rows)
        return np.asarray(own[:, order].reshape(len(rows), -1, 3).min(axis=2).sum(axis=1) * 3 + 0.05 * own.sum(axis=1))

    return truth


_KINDS = {"chain": _chain, "blocks": _blocks, "products": _products, "weakest part": _weakest, "redundant": _redundant}
