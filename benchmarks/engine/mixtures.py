"""Mixtures (c): weights that sum to one, of data sources, models or checkpoints."""

from __future__ import annotations

import numpy as np

from benchmarks.engine.instance import Instance, Values
from searchlib.space import Population
from searchlib.spaces import Simplex

__all__ = ["TEST", "TRAIN", "make"]

TRAIN = ("regression, 10", "regression, 50", "worst task, 20")
TEST = ("sparse, 20", "sparse, 100", "worst task, 50", "merged networks, 16", "merged networks, 40")


def make(problem: str, number: int) -> Instance:
    """An instance of a problem."""
    kind, _, size = problem.partition(", ")
    n = int(size)
    return Instance(problem, number, Simplex(n), _KINDS[kind](np.random.default_rng([4, *problem.encode(), number]), n))


def _regression(rng, n):  # type: ignore[no-untyped-def]
    """Least squares over sources that are alike, so that it is ill-conditioned; the best mixture is inside."""
    shared = rng.normal(0, 1, (2 * n, max(2, n // 4)))
    sources = shared @ rng.normal(0, 1, (shared.shape[1], n)) + 0.3 * rng.normal(0, 1, (2 * n, n))
    best = rng.dirichlet(np.ones(n))

    def truth(rows: Population) -> Values:
        rest = (np.asarray(rows) - best) @ sources.T
        return np.asarray((rest**2).mean(axis=1))

    return truth


def _sparse(rng, n):  # type: ignore[no-untyped-def]
    """The same with a tenth of the sources of any use: the best mixture lies on the boundary."""
    useful = np.zeros(n)
    useful[rng.permutation(n)[: max(2, n // 10)]] = rng.dirichlet(np.ones(max(2, n // 10)) * 3)
    sources = rng.normal(0, 1, (n, n)) + rng.normal(0, 1, (n, 1))

    def truth(rows: Population) -> Values:
        rest = (np.asarray(rows) - useful) @ sources.T
        return np.asarray((rest**2).mean(axis=1))

    return truth


def _worst(rng, n):  # type: ignore[no-untyped-def]
    """The worst of eight tasks, each of which wants another mixture: not smooth."""
    wants = rng.dirichlet(np.full(n, 0.3), 8)
    hard = rng.lognormal(0, 0.5, 8)

    def truth(rows: Population) -> Values:
        apart = np.abs(np.asarray(rows)[:, None, :] - wants).sum(axis=2)
        return np.asarray((hard * apart).max(axis=1))

    return truth


def _merged(rng, n):  # type: ignore[no-untyped-def]
    """Checkpoints of one small network, displaced from a good one in a few common directions; their merged loss."""
    width, inputs = 16, 8
    size = width * inputs + width
    good = rng.normal(0, 1, size) / np.sqrt(inputs)
    common = rng.normal(0, 1, (6, size)) / np.sqrt(size)
    checkpoints = good + rng.normal(0.4, 1, (n, 6)) @ common * 2 + rng.normal(0, 0.4, (n, size)) / np.sqrt(size) * 4
    x = rng.normal(0, 1, (64, inputs))

    def outputs(weights: Values) -> Values:
        first = weights[:, : width * inputs].reshape(-1, inputs, width)
        return np.asarray(np.einsum("niw,nw->ni", np.tanh(x @ first), weights[:, width * inputs :]))

    wanted = outputs(good[None, :])[0]

    def truth(rows: Population) -> Values:
        return np.asarray(((outputs(np.asarray(rows) @ checkpoints) - wanted) ** 2).mean(axis=1))

    return truth


_KINDS = {"regression": _regression, "sparse": _sparse, "worst task": _worst, "merged networks": _merged}
