"""Noisy evaluations (e): a second look gives another value. What counts is the true value of what is recommended."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.engine import subsets
from benchmarks.engine.instance import Instance, Values
from searchlib.space import Population
from searchlib.spaces import Binary, Real

__all__ = ["TEST", "TRAIN", "make"]

TRAIN = ("bits, 60", "bowl, 12", "valley, 8", "cone, 16", "waves, 10")
TEST = ("bits, 100", "subset", "ellipsoid, 10", "bowl, heavy tails", "bowl, louder far away")


def make(problem: str, number: int) -> Instance:
    """An instance of a problem."""
    rng = np.random.default_rng([6, *problem.encode(), number])
    kind, _, what = problem.partition(", ")
    if kind == "bits":
        return _bits(problem, number, rng, int(what))
    if kind == "subset":
        quiet = subsets.make("planted, 48 of 64", number)
        loud = lambda rng, true: true + rng.normal(0, 0.1, len(true))  # noqa: E731
        return Instance(problem, number, quiet.space, quiet.truth, loud)
    n = int(what) if what.isdigit() else 12
    if kind in _SHAPES:
        return _shaped(problem, number, rng, n)
    center, scales = rng.uniform(-2, 2, n), 10.0 ** (np.arange(n) / (n - 1) * (3 if kind == "ellipsoid" else 0))

    def truth(rows: Population) -> Values:
        return np.asarray((scales * (np.asarray(rows) - center) ** 2).sum(axis=1) / scales.mean())

    noise = {
        "heavy tails": lambda rng, true: true + 0.2 * rng.standard_cauchy(len(true)),
        "louder far away": lambda rng, true: true * np.exp(0.5 * rng.standard_normal(len(true)))
        + rng.normal(0, 0.2, len(true)),
    }.get(what, lambda rng, true: true + rng.normal(0, 0.5, len(true)))
    return Instance(problem, number, Real(-5.0, 5.0, length=n), truth, noise)


def _valley(x: NDArray[np.float64]) -> Values:
    return np.asarray((10 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).mean(axis=1))


def _cone(x: NDArray[np.float64]) -> Values:
    return np.asarray(np.sqrt((x**2).sum(axis=1)))


def _waves(x: NDArray[np.float64]) -> Values:
    return np.asarray((x**2 + 3 * (1 - np.cos(2 * np.pi * x))).mean(axis=1))


_SHAPES = {"valley": _valley, "cone": _cone, "waves": _waves}


def _shaped(problem: str, number: int, rng: np.random.Generator, n: int) -> Instance:
    """A shape around a hidden center; noise is half as large as the spread of the best tenth of random values."""
    shape, center = _SHAPES[problem.partition(", ")[0]], rng.uniform(-2, 2, n)

    def truth(rows: Population) -> Values:
        return shape(np.asarray(rows, np.float64) - center)

    low, high = np.quantile(truth(rng.uniform(-5, 5, (512, n))), (0.0, 0.1))
    loud = 0.5 * float(high - low)
    return Instance(
        problem, number, Real(-5.0, 5.0, length=n), truth, lambda rng, true: true + rng.normal(0, loud, len(true))
    )


def _bits(problem, number, rng, n):  # type: ignore[no-untyped-def]
    """The share of wrong bits, under noise as large as twelve (of 60) of them."""
    hidden = rng.integers(2, size=n)

    def truth(rows: Population) -> Values:
        return np.asarray((np.asarray(rows) != hidden).mean(axis=1))

    return Instance(problem, number, Binary(n), truth, lambda rng, true: true + rng.normal(0, 0.2, len(true)))
