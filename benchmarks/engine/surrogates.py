"""SMAC3: Bayesian optimization with a random forest (Lindauer et al., JMLR 2022), through its ask and tell."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engine.encodings import Variable, codec
from benchmarks.engine.instance import Meter

__all__ = ["smac_method"]


def smac_method(encoding: str = "native") -> Callable[[Meter, np.random.Generator], None]:
    """Its facade for hyperparameters, at its defaults: a quarter of the budget (at most ten per variable) from Sobol's
    sequence, then expected improvement on a forest of ten trees.

    Arguments:
        encoding: of :mod:`benchmarks.engine.encodings`.
    """

    def run(meter: Meter, rng: np.random.Generator) -> None:
        from ConfigSpace import ConfigurationSpace
        from smac import HyperparameterOptimizationFacade, Scenario
        from smac.runhistory.dataclasses import TrialValue

        seen, seed = codec(meter.instance.space, encoding), int(rng.integers(2**31))
        variables = ConfigurationSpace(seed=seed)
        variables.add([_hyperparameter(variable) for variable in seen.variables])
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():  # it writes its history
            warnings.simplefilter("ignore")
            scenario = Scenario(
                variables, deterministic=meter.instance.noise is None, n_trials=meter.budget, seed=seed,
                output_directory=folder,
            )  # fmt: skip
            facade: Any = HyperparameterOptimizationFacade(scenario, _never, logging_level=False, overwrite=True)
            while meter.left:
                asked = facade.ask()
                point = np.array([asked.config[variable.name] for variable in seen.variables], np.float64)
                value = float(meter(seen.decode(point[None, :]))[0])
                facade.tell(asked, TrialValue(cost=value), save=False)

    return run


def _never(config: Any, seed: int = 0) -> float:
    raise NotImplementedError("candidates are asked for, and evaluated here")


def _hyperparameter(variable: Variable) -> Any:
    from ConfigSpace import Categorical, Float, Integer

    if variable.kind == "choice":
        return Categorical(variable.name, list(range(int(variable.high) + 1)))
    if variable.kind == "integer":
        return Integer(variable.name, (int(variable.low), int(variable.high)))
    return Float(variable.name, (variable.low, variable.high))
