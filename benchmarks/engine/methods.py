"""Who competes in which family: the strongest known rivals, the defaults of other libraries, and this library."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from benchmarks.engine import plain
from benchmarks.engine.instance import Meter
from benchmarks.engine.libraries import (
    cma_latent,
    cmaes_mixed,
    learning_rate_cma,
    mergekit_recipe,
    nevergrad_method,
    optuna_method,
    pymoo_genetic,
)
from benchmarks.engine.ours import searched
from searchlib import algorithms

__all__ = ["METHODS", "OURS", "Method", "available"]


class Method(NamedTuple):
    """One row of a family.

    Arguments:
        run: spends a meter.
        needs: packages that it imports.
        most: the largest budget that it is run at; slow ones stop earlier, and the table shows where.
        own: whether it is this library's, and so no rival.
    """

    run: Callable[[Meter, np.random.Generator], None]
    needs: tuple[str, ...] = ()
    most: int = 10**9
    own: bool = False


def _nevergrad(*names: str, encoding: str = "native", most: int = 10**9) -> dict[str, Method]:
    return {
        f"nevergrad {name}" + (", relaxed" if encoding == "latent" else ""):
            Method(nevergrad_method(name, encoding), ("nevergrad",), most)
        for name in names
    }  # fmt: skip


def _own(algorithm: Callable[[], algorithms.Algorithm], most: int = 10**9) -> Method:
    return Method(searched(algorithm), most=most, own=True)


OURS = "auto"
_OWN: Mapping[str, Method] = {
    OURS: _own(algorithms.Auto),
    "LocalSearch": _own(algorithms.LocalSearch),
    "Evolution": _own(algorithms.Evolution),
    "PredictorGuided": _own(algorithms.PredictorGuided, most=300),
}
_EDA = _own(algorithms.EstimationOfDistribution)
_RANDOM = {"random": Method(plain.random_search)}
_CMA = {"pycma, relaxed": Method(cma_latent(), ("cma",))}
_TPE = {"optuna TPE": Method(optuna_method("TPE"), ("optuna",), 100)}

METHODS: Mapping[str, Mapping[str, Method]] = {
    "a1": {
        **_OWN, "EstimationOfDistribution": _EDA, **_RANDOM, **_TPE,
        "(1+1) EA": Method(plain.bit_flips), "heavy-tailed (1+1) EA": Method(plain.heavy_tailed),
        "pymoo GA": Method(pymoo_genetic, ("pymoo",)), "cmaes CatCMAwM": Method(cmaes_mixed, ("cmaes",)),
        **_nevergrad(
            "NGOpt", "DiscreteLenglerOnePlusOne", "LognormalDiscreteOnePlusOne",
            "RecombiningPortfolioDiscreteOnePlusOne",
        ),
    },
    "a2": {
        **_OWN, "EstimationOfDistribution": _EDA, **_RANDOM, **_TPE, **_CMA,
        "swap (1+1)": Method(plain.swap), "single drops, then swaps": Method(plain.single_drops_and_swaps),
        "subset GA": Method(plain.subset_genetic), **_nevergrad("NGOpt", "CMA", encoding="latent"),
    },
    "b": {
        **_OWN, **_RANDOM, **_TPE, **_CMA,
        "additive program, then switches": Method(plain.additive_program),
        "level switch (1+1)": Method(plain.level_switch), **_nevergrad("NGOpt", "CMA", encoding="latent"),
    },
    "c": {
        **_OWN, **_RANDOM, **_TPE, **_CMA,
        "CMAES": _own(algorithms.CMAES),
        "pycma, mergekit's recipe": Method(mergekit_recipe, ("cma",)),
        **_nevergrad("NGOpt", "NgIohTuned", encoding="latent"),
    },
    "d": {
        **_OWN, **_RANDOM, **_TPE,
        "mixed (1+1) EA": Method(plain.mixed_one_plus_one), "cmaes CatCMAwM": Method(cmaes_mixed, ("cmaes",)),
        "optuna NSGA-II": Method(optuna_method("NSGA-II"), ("optuna",)),
        **_nevergrad("NGOpt", "RecombiningPortfolioDiscreteOnePlusOne"),
    },
    "e": {
        **_OWN, "EstimationOfDistribution": _EDA, **_RANDOM, "CMAES": _own(algorithms.CMAES),
        "PBIL": Method(plain.distribution_of_bits), "cmaes LRA-CMA": Method(learning_rate_cma, ("cmaes",)),
        "pycma, population 50, mean": Method(cma_latent(population=50, mean=True), ("cma",)),
        **_nevergrad("NGOpt", "TBPSA"),
    },
    "f": {
        **_OWN, **_RANDOM, "CMAES": _own(algorithms.CMAES),
        "(1+1)-ES": Method(plain.one_plus_one_strategy), "pycma, diagonal": Method(cma_latent(diagonal=True), ("cma",)),
        **_nevergrad("NGOpt", most=3000),
    },
}  # fmt: skip

#: Rows that suit some problems of a family only: where the space is of bits, and where it is of reals.
_BITS_ONLY, _NO_REALS = {"PBIL"}, {"EstimationOfDistribution"}
_REALS_ONLY = {"cmaes LRA-CMA", "pycma, population 50, mean"}


def available(family: str, kind: str) -> dict[str, Method]:
    """The methods of a family whose packages are here; ``kind`` is the name of the space's class."""
    fits = {
        name: method for name, method in METHODS[family].items()
        if not (name in _BITS_ONLY and kind != "Binary") and not (name in _REALS_ONLY and kind != "Real")
        and not (name in _NO_REALS and kind == "Real")
    }  # fmt: skip
    return {
        name: method for name, method in fits.items()
        if all(importlib.util.find_spec(package) is not None for package in method.needs)
    }  # fmt: skip
