"""Who competes in which family: the strongest known rivals, the defaults of other libraries, and this library."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from benchmarks.engine import papers, plain
from benchmarks.engine.differential import differential_evolution
from benchmarks.engine.gradients import pgpe_clipup, snes
from benchmarks.engine.instance import Meter
from benchmarks.engine.libraries import (
    cma_latent,
    cmaes_mixed,
    learning_rate_cma,
    mergekit_recipe,
    nevergrad_method,
    optuna_method,
    pymoo_genetic,
    pymoo_mixed,
)
from benchmarks.engine.ours import searched
from benchmarks.engine.surrogates import smac_method
from searchlib import algorithms

__all__ = ["METHODS", "OURS", "Method", "available"]


class Method(NamedTuple):
    """One row of a family.

    Arguments:
        run: spends a meter.
        needs: packages that it imports.
        most: the largest budget that it is run at; slow ones stop earlier, and the table shows where.
        own: whether it is this library's, and so no rival.
        widest: the largest space, in coordinates of its relaxation, that it is run on; on wider ones it is too slow.
        slow: whether a candidate takes it a tenth of a second and more; the smoke preset leaves it out.
    """

    run: Callable[[Meter, np.random.Generator], None]
    needs: tuple[str, ...] = ()
    most: int = 10**9
    own: bool = False
    widest: int = 10**9
    slow: bool = False


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


def _smac(most: int = 100, encoding: str = "native", widest: int = 256) -> Method:
    return Method(smac_method(encoding), ("smac", "ConfigSpace"), most, widest=widest, slow=True)


def _evolve(encoding: str = "native", population: int | None = 15) -> Method:
    return Method(differential_evolution(encoding, population=population), ("scipy",))


def _gaussian_process(encoding: str | None = None) -> Method:
    return Method(optuna_method("GP", encoding), ("optuna", "torch"), 100, slow=True)


_DE, _DE_DEFAULTS = "scipy DE", "scipy DE, its defaults"
_CMA_ES = {
    name: Method(optuna_method("CMA-ES", encoding), ("optuna", "cmaes"))
    for name, encoding in (("optuna CMA-ES", "divided"), ("optuna CMA-ES, its FAQ's encoding", "exponential"))
}

METHODS: Mapping[str, Mapping[str, Method]] = {
    "a1": {
        **_OWN, "EstimationOfDistribution": _EDA, **_RANDOM, **_TPE,
        "(1+1) EA": Method(plain.bit_flips), "heavy-tailed (1+1) EA": Method(plain.heavy_tailed),
        "pymoo GA": Method(pymoo_genetic, ("pymoo",)), "cmaes CatCMAwM": Method(cmaes_mixed, ("cmaes",)),
        "SMAC3": _smac(),
        **_nevergrad(
            "NGOpt", "DiscreteLenglerOnePlusOne", "LognormalDiscreteOnePlusOne",
            "RecombiningPortfolioDiscreteOnePlusOne",
        ),
    },
    "a2": {
        **_OWN, "EstimationOfDistribution": _EDA, **_RANDOM, **_TPE, **_CMA,
        "swap (1+1)": Method(plain.swap), "single drops, then swaps": Method(plain.single_drops_and_swaps),
        "subset GA": Method(plain.subset_genetic), "EEP's evolution": Method(papers.eep),
        "SMAC3, scores": _smac(encoding="latent", widest=128), "SMAC3, bits repaired": _smac(),
        **_nevergrad("NGOpt", "CMA", encoding="latent"),
    },
    "b": {
        **_OWN, **_RANDOM, **_TPE, **_CMA,
        "additive program, then switches": Method(plain.additive_program),
        "level switch (1+1)": Method(plain.level_switch), "SMAC3, levels repaired": _smac(widest=600),
        **_nevergrad("NGOpt", "CMA", encoding="latent"),
    },
    "c": {
        **_OWN, **_RANDOM, **_TPE, **_CMA,
        "CMAES": _own(algorithms.CMAES),
        "pycma, mergekit's recipe": Method(mergekit_recipe, ("cma",)), **_CMA_ES,
        "optuna GP": _gaussian_process("divided"), "pymoo GA": Method(pymoo_mixed, ("pymoo",)),
        _DE: _evolve("exponential"), _DE_DEFAULTS: _evolve("divided", None), "LCSC's evolution": Method(papers.lcsc),
        **_nevergrad("NGOpt", "NgIohTuned", encoding="latent"),
    },
    "d": {
        **_OWN, **_RANDOM, **_TPE,
        "mixed (1+1) EA": Method(plain.mixed_one_plus_one), "cmaes CatCMAwM": Method(cmaes_mixed, ("cmaes",)),
        "optuna NSGA-II": Method(optuna_method("NSGA-II"), ("optuna",)), "optuna GP": _gaussian_process(),
        "SMAC3": _smac(300), "pymoo MixedVariableGA": Method(pymoo_mixed, ("pymoo",)),
        "S³'s evolution": Method(papers.s3), _DE: _evolve(), _DE_DEFAULTS: _evolve(population=None),
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
        "(1+1)-ES": Method(plain.one_plus_one_strategy),
        "pycma, diagonal": Method(cma_latent(diagonal=True), ("cma",)),
        "evotorch PGPE, ClipUp": Method(pgpe_clipup(), ("evotorch",)), "evotorch SNES": Method(snes(), ("evotorch",)),
        "optuna CMA-ES": Method(optuna_method("CMA-ES"), ("optuna", "cmaes"), 1000, slow=True),
        # At its defaults scipy's DE would have a first generation of 15,000 candidates here, more than any budget.
        _DE: _evolve(), **_nevergrad("NGOpt", most=3000),
    },
}  # fmt: skip

#: Rows that suit some problems of a family only: where the space is of bits, and where it is of reals.
_BITS_ONLY, _NO_REALS = {"PBIL"}, {"EstimationOfDistribution"}
_REALS_ONLY = {"cmaes LRA-CMA", "pycma, population 50, mean"}


def available(family: str, kind: str, width: int = 0) -> dict[str, Method]:
    """The methods of a family whose packages are here.

    Arguments:
        family: which.
        kind: name of the space's class.
        width: coordinates of the space's relaxation.
    """
    fits = {
        name: method for name, method in METHODS[family].items()
        if width <= method.widest and not (name in _BITS_ONLY and kind != "Binary")
        and not (name in _REALS_ONLY and kind != "Real") and not (name in _NO_REALS and kind == "Real")
    }  # fmt: skip
    return {
        name: method for name, method in fits.items()
        if all(importlib.util.find_spec(package) is not None for package in method.needs)
    }  # fmt: skip
