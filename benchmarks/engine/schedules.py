"""Mixed schedules (d): categories, levels and reals that work together."""

from __future__ import annotations

import numpy as np

from benchmarks.engine.instance import Instance, Values
from searchlib.space import Population
from searchlib.spaces import Categorical, Integer, Product, Real

__all__ = ["TEST", "TRAIN", "make"]

TRAIN = ("pairs", "steps, 6", "tables", "valley", "stages", "worst case", "waves")
TEST = ("chain", "switches", "steps, 10", "wide")
_METHODS = ("a", "b", "c", "d")
_LEVELS = 8


def make(problem: str, number: int) -> Instance:
    """An instance of a problem."""
    rng = np.random.default_rng([5, *problem.encode(), number])
    kind, _, steps = problem.partition(", ")
    if kind == "steps":
        return Instance(problem, number, *_steps(rng, int(steps)))
    if kind in _TRAINING:
        (categories, choices, levels, top, reals), energy = _TRAINING[kind]
        space = Product(
            method=Categorical(tuple("abcdefgh"[:choices]), length=categories), level=Integer(0, top, length=levels),
            rate=Real(0.0, 1.0, length=reals),
        )  # fmt: skip
        value = energy(rng, categories, choices, levels, top, reals)
        stops = (categories, categories + levels)
        return Instance(problem, number, space, lambda rows: value(*np.split(np.asarray(rows, float), stops, axis=1)))
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


def _tables(rng, categories, choices, levels, top, reals):  # type: ignore[no-untyped-def]
    """An NK landscape of the categories, three to a table; levels and reals have an optimum of their own."""
    places = np.array([[i, *rng.choice(np.delete(np.arange(categories), i), 2, False)] for i in range(categories)])
    tables = rng.random((categories, choices**3))
    level_at, rate_at = rng.uniform(0, top, levels), rng.random(reals)

    def value(method: Values, level: Values, rate: Values) -> Values:
        which = method.astype(np.int64)[:, places] @ np.array([choices**2, choices, 1])
        rugged = np.take_along_axis(tables[None], which[:, :, None], axis=2)[:, :, 0].sum(axis=1)
        near = np.abs(level - level_at).sum(axis=1) / top + ((rate - rate_at) ** 2).sum(axis=1)
        return np.asarray(rugged + near)

    return value


def _valley(rng, categories, choices, levels, top, reals):  # type: ignore[no-untyped-def]
    """Logarithm of a rotated, ill-conditioned bowl of levels and reals together, which the categories shift."""
    n = levels + reals
    turned, _ = np.linalg.qr(rng.normal(0, 1, (n, n)))
    stretched = turned * np.logspace(0, 1.5, n)[rng.permutation(n)]
    middle, shifts = rng.uniform(0.3, 0.7, n), rng.normal(0, 0.12, (categories, choices, n))
    price = rng.exponential(0.3, (categories, choices))

    def value(method: Values, level: Values, rate: Values) -> Values:
        where = method.astype(np.int64), np.arange(categories)
        centered = np.concatenate([level / top, rate], axis=1) - middle - shifts[where[1], where[0]].sum(axis=1)
        bowl = ((centered @ stretched) ** 2).sum(axis=1)
        return np.asarray(np.log(0.01 + bowl + price[where[1], where[0]].sum(axis=1)))

    return value


def _stages(rng, categories, choices, levels, top, reals):  # type: ignore[no-untyped-def]
    """Stages one after the other that multiply what the stage before has left, each with one level and two rates.

    The first choice skips a stage, whose level and rates then mean nothing; the others cost in proportion to their
    level, more where the neighbor's choice is the same.
    """
    gain, power = rng.uniform(0.5, 3, (categories, choices)), rng.uniform(0.5, 1.5, categories)
    wanted = rng.random((2, categories, choices))
    cost = rng.uniform(0.1, 0.6, (categories, choices))

    def value(method: Values, level: Values, rate: Values) -> Values:
        kind, stage = method.astype(np.int64), np.arange(categories)
        on, effort = kind > 0, (level + 1) / (top + 1)
        fit = np.exp(-8 * ((rate[:, :categories] - wanted[0, stage, kind]) ** 2
                           + (rate[:, categories:] - wanted[1, stage, kind]) ** 2))  # fmt: skip
        shrunk = (on * gain[stage, kind] * fit * effort**power).sum(axis=1)
        again = 1 + (kind == np.roll(kind, 1, axis=1))
        return np.asarray(10 * np.exp(-shrunk) + (on * cost[stage, kind] * effort * again).sum(axis=1))

    return value


def _worst(rng, categories, choices, levels, top, reals):  # type: ignore[no-untyped-def]
    """The largest of several losses, each with a table per category and an optimum of its own."""
    cases, n = 5, levels + reals
    tables, at = rng.normal(0, 1, (cases, categories, choices)), rng.uniform(0.2, 0.8, (cases, n))
    weights = rng.lognormal(1, 0.7, (cases, n))

    def value(method: Values, level: Values, rate: Values) -> Values:
        own = tables[:, np.arange(categories), method.astype(np.int64)].sum(axis=2)
        apart = np.abs(np.concatenate([level / top, rate], axis=1)[None] - at[:, None])
        return np.asarray((own + (weights[:, None] * apart).sum(axis=2)).max(axis=0))

    return value


def _waves(rng, categories, choices, levels, top, reals):  # type: ignore[no-untyped-def]
    """Few genes and many local optima: cosines whose phases the categories decide."""
    at, phase = rng.random((choices,) * categories + (levels + reals,)), rng.uniform(0, 6, (categories, choices))

    def value(method: Values, level: Values, rate: Values) -> Values:
        kind = method.astype(np.int64)
        apart = np.concatenate([level / top, rate], axis=1) - at[tuple(kind.T)]
        turn = phase[np.arange(categories), kind].sum(axis=1)
        return np.asarray((10 * apart**2 + 1 - np.cos(15 * apart)).sum(axis=1) + np.sin(turn))

    return value


#: Categories, their choices, levels, the highest one, and reals; and what they are worth.
_TRAINING = {
    "tables": ((10, 3, 2, 15, 3), _tables),
    "valley": ((3, 5, 2, 20, 8), _valley),
    "stages": ((5, 4, 5, 5, 10), _stages),
    "worst case": ((6, 3, 4, 9, 6), _worst),
    "waves": ((2, 8, 1, 31, 3), _waves),
}
