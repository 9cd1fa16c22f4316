"""Mixed schedules (d): categories, levels and reals that work together."""

from __future__ import annotations

import numpy as np

from benchmarks.engine.instance import Instance, Values
from searchlib.space import Population
from searchlib.spaces import Categorical, Integer, Product, Real

__all__ = ["TEST", "TRAIN", "make"]

TRAIN = ("pairs", "steps, 6")
TEST = ("chain", "switches", "steps, 10", "wide")
_METHODS = ("a", "b", "c", "d")
_LEVELS = 8


def make(problem: str, number: int) -> Instance:
    """An instance of a problem."""
    rng = np.random.default_rng([5, *problem.encode(), number])
    kind, _, steps = problem.partition(", ")
    if kind == "steps":
        return Instance(problem, number, *_steps(rng, int(steps)))
    categories, levels, reals = (12, 8, 12) if kind == "wide" else (6, 6, 4)
    space = Product(
        method=Categorical(_METHODS, length=categories), level=Integer(0, _LEVELS - 1, length=levels),
        rate=Real(0.0, 1.0, length=reals),
    )  # fmt: skip
    return Instance(problem, number, space, _energy(rng, kind, categories, levels, reals))


def _energy(rng, kind, categories, levels, reals):  # type: ignore[no-untyped-def]
    """Tables over pairs of categories, and for every level and rate an optimum that a category moves."""
    far = [(i, j) for i in range(categories) for j in range(i + 1, categories)]
    near = [(i, i + 1) for i in range(categories - 1)]
    pairs = near if kind == "chain" else [far[i] for i in rng.permutation(len(far))[: 2 * categories]]
    tables = rng.normal(0, 1, (len(pairs), 4, 4))
    own = rng.normal(0, 0.5, (categories, 4))
    best_level, best_rate = rng.uniform(0, _LEVELS - 1, (levels, 4)), rng.uniform(0, 1, (reals, 4))
    weights = rng.lognormal(0, 0.5, levels + reals)

    def truth(rows: Population) -> Values:
        rows = np.asarray(rows, np.float64)
        method = rows[:, :categories].astype(np.int64)
        level, rate = rows[:, categories : categories + levels], rows[:, categories + levels :]
        value = np.take_along_axis(own[None], method[:, :, None], axis=2)[:, :, 0].sum(axis=1)
        for (i, j), table in zip(pairs, tables, strict=True):
            value += table[method[:, i], method[:, j]]
        for place in range(levels):
            wanted = best_level[place, method[:, place % categories]]
            value += weights[place] * ((level[:, place] - wanted) / 3) ** 2
        for place in range(reals):
            wanted = best_rate[place, method[:, (place + 1) % categories]]
            term = 6 * weights[levels + place] * (rate[:, place] - wanted) ** 2
            # A switch: where the method before it is the first one, this rate does nothing.
            value += term * (method[:, place % categories] != 0) if kind == "switches" else term
        return np.asarray(value)

    return truth


def _steps(rng, n):  # type: ignore[no-untyped-def]
    """Integrate a stiff two-dimensional flow in n steps: a method and a share of the time for every step.

    The methods are Euler's, the midpoint's, one half of an exponential step and none (a step that does nothing); the
    value is the logarithm of the error at the end, over 32 starts.
    """
    space = Product(
        method=Categorical(("euler", "midpoint", "exponential", "skip"), length=n),
        share=Real(0.05, 1.0, length=n), damping=Real(0.0, 1.0, length=n),
    )  # fmt: skip
    stiff, turn = rng.uniform(2, 6), rng.uniform(1, 3)
    starts = rng.normal(0, 1, (32, 2))

    def flow(x: Values, t: Values) -> Values:
        rate = stiff * (0.3 + t**2)
        return np.stack([-rate * x[..., 0] + turn * x[..., 1], -turn * x[..., 0] - np.tanh(x[..., 1])], axis=-1)

    exact, fine = starts[None].copy(), 2000
    for i in range(fine):
        t = np.array(i / fine)
        exact = exact + flow(exact + flow(exact, t) / (2 * fine), t + 0.5 / fine) / fine

    def truth(rows: Population) -> Values:
        rows = np.asarray(rows, np.float64)
        method, share, damping = rows[:, :n].astype(np.int64), rows[:, n : 2 * n], rows[:, 2 * n :]
        share = share * (method != 3)
        share = share / np.maximum(share.sum(axis=1, keepdims=True), 1e-9)
        x = np.broadcast_to(starts, (len(rows), *starts.shape)).copy()
        t = np.zeros(len(rows))
        for step in range(n):
            h, now = share[:, step, None, None], t[:, None]
            slope = flow(x, now)
            middle = flow(x + slope * h / 2, now + h[:, :, 0] / 2)
            decay = stiff * (0.3 + (now + h[:, :, 0] / 2) ** 2)[..., None] * damping[:, step, None, None]
            exponential = (slope + decay * x) * -np.expm1(-decay * h) / np.maximum(decay, 1e-9)
            exponential = exponential + x * np.expm1(-decay * h)
            kind = method[:, step, None, None]
            x = x + np.where(kind == 0, slope * h, np.where(kind == 1, middle * h, np.where(kind == 2, exponential, 0)))
            t = t + share[:, step]
        error = np.sqrt(np.clip(np.nan_to_num(((x - exact) ** 2).mean(axis=(1, 2)), nan=1e6), 1e-16, 1e6))
        return np.asarray(np.log10(error))

    return space, truth
