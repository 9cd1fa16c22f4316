"""Many reals (f): a thousand and more, the weights of a small network among them."""

from __future__ import annotations

import numpy as np

from benchmarks.engine.instance import Instance, Values
from searchlib.space import Population
from searchlib.spaces import Real

__all__ = ["TEST", "TRAIN", "make"]

TRAIN = ("ellipsoid, 1000", "network, 1000")
TEST = ("valley, 1000", "logistic, 2000", "network, 2000", "rotated blocks, 1000")


def make(problem: str, number: int) -> Instance:
    """An instance of a problem."""
    kind, _, size = problem.partition(", ")
    n = int(size)
    truth = _KINDS[kind](np.random.default_rng([7, *problem.encode(), number]), n)
    return Instance(problem, number, Real(-5.0, 5.0, length=n), truth)


def _ellipsoid(rng, n):  # type: ignore[no-untyped-def]
    scales, center = 10.0 ** (3 * rng.random(n)), rng.uniform(-2, 2, n)

    def truth(rows: Population) -> Values:
        return np.asarray((scales * (np.asarray(rows) - center) ** 2).sum(axis=1) / scales.sum())

    return truth


def _valley(rng, n):  # type: ignore[no-untyped-def]
    """Rosenbrock's function in blocks of four, displaced."""
    center = rng.uniform(-1, 1, n)

    def truth(rows: Population) -> Values:
        x = (np.asarray(rows) - center + 1).reshape(len(rows), -1, 4)
        inner = 100 * (x[:, :, 1:] - x[:, :, :-1] ** 2) ** 2 + (1 - x[:, :, :-1]) ** 2
        return np.asarray(inner.sum(axis=(1, 2)) / n)

    return truth


def _rotated(rng, n):  # type: ignore[no-untyped-def]
    """An ellipsoid whose axes are turned within blocks of ten."""
    turns = np.stack([np.linalg.qr(rng.normal(0, 1, (10, 10)))[0] for _ in range(n // 10)])
    scales, center = 10.0 ** (3 * rng.random((n // 10, 10))), rng.uniform(-2, 2, n)

    def truth(rows: Population) -> Values:
        x = (np.asarray(rows) - center).reshape(len(rows), -1, 10)
        return np.asarray((scales * np.einsum("nbi,bij->nbj", x, turns) ** 2).sum(axis=(1, 2)) / scales.sum())

    return truth


def _network(rng, n):  # type: ignore[no-untyped-def]
    """Regression with a network of one hidden layer, from the weights' point of view."""
    width = n // 10
    x = rng.normal(0, 1, (32, 9))
    wanted = np.tanh(x @ rng.normal(0, 1, (9, 3))) @ rng.normal(0, 1, 3)

    def truth(rows: Population) -> Values:
        weights = np.asarray(rows)[:, : width * 10].reshape(len(rows), 10, width)
        outputs = np.einsum("niw,nw->ni", np.tanh(x @ weights[:, :9]), weights[:, 9]) / np.sqrt(width)
        return np.asarray(((outputs - wanted) ** 2).mean(axis=1))

    return truth


def _logistic(rng, n):  # type: ignore[no-untyped-def]
    """Logistic regression on 400 examples whose features differ in scale."""
    x = rng.normal(0, 1, (400, n)) * rng.lognormal(0, 1, n) / np.sqrt(n)
    sign = np.sign(x @ rng.normal(0, 1, n) + 0.3 * rng.normal(0, 1, 400))

    def truth(rows: Population) -> Values:
        return np.asarray(np.logaddexp(0, -sign * (np.asarray(rows) @ x.T)).mean(axis=1))

    return truth


_KINDS = {
    "ellipsoid": _ellipsoid, "valley": _valley, "rotated blocks": _rotated, "network": _network, "logistic": _logistic,
}  # fmt: skip
