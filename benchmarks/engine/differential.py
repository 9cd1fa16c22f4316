"""scipy's differential evolution (Storn and Price, 1997), in generations that are evaluated together."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engine.encodings import codec
from benchmarks.engine.instance import Meter, Spent

__all__ = ["differential_evolution"]


def differential_evolution(
    encoding: str = "native", *, population: int | None = 15
) -> Callable[[Meter, np.random.Generator], None]:
    """``scipy.optimize.differential_evolution`` with ``vectorized`` and ``integrality``; it starts again where its
    population has become one point.

    Arguments:
        encoding: of :mod:`benchmarks.engine.encodings`. Choices are integers to it: it knows no others.
        population: how many; None is scipy's default, fifteen times the number of variables, with which small budgets
            end before the first generation does.
    """

    def run(meter: Meter, rng: np.random.Generator) -> None:
        from scipy.optimize import differential_evolution as evolve

        seen = codec(meter.instance.space, encoding)
        bounds = [(variable.low, variable.high) for variable in seen.variables]
        whole = np.array([variable.kind != "real" for variable in seen.variables])

        def values(points: Any) -> Any:  # (variables, members)
            if not meter.left:
                raise Spent
            shown = meter(seen.decode(points.T))
            return np.append(shown, np.full(points.shape[1] - len(shown), np.inf))

        start: Any = "latinhypercube"
        while meter.left:
            if population is not None:
                start = _hypercube(rng, population, bounds)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                evolve(
                    values, bounds, init=start, maxiter=10**9, tol=0.0, polish=False, updating="deferred",
                    vectorized=True, integrality=whole, rng=rng,
                )  # fmt: skip

    return run


def _hypercube(rng: np.random.Generator, members: int, bounds: list[tuple[float, float]]) -> Any:
    """A Latin hypercube: every variable's range in as many slices as there are members."""
    low, high = np.array(bounds).T
    places = np.argsort(rng.random((len(bounds), members)), axis=1).T
    return low + (places + rng.random(places.shape)) / members * (high - low)
