"""Rivals from other libraries, at the encodings that their documentation recommends, or that did best in trials.

A library that is not installed leaves its rows out, and the table says so: ``pip install 'searchlib[peers]'`` has all
of them; nevergrad 1.0.12 needs numpy below 2.3.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engine.encodings import Variable, codec
from benchmarks.engine.instance import Meter
from searchlib.spaces import Binary, Categorical, Integer, Product, Real, Simplex

__all__ = [
    "cma_latent", "cmaes_mixed", "learning_rate_cma", "mergekit_recipe", "nevergrad_method", "optuna_method",
    "pymoo_genetic", "pymoo_mixed",
]  # fmt: skip

Rng = np.random.Generator
Run = Callable[[Meter, Rng], None]


def nevergrad_method(name: str, encoding: str = "native") -> Run:
    """An optimizer of nevergrad by name.

    Arguments:
        name: as in its registry.
        encoding: ``"native"`` (bits and categories as ``TransitionChoice``, reals as bounded arrays) or ``"latent"``
            (unbounded reals through the space's relaxation).
    """

    def run(meter: Meter, rng: Rng) -> None:
        import nevergrad as ng

        space = meter.instance.space
        if encoding == "latent" or not isinstance(space, Binary | Product | Real):
            parameter: Any = ng.p.Array(shape=(space.latent_dimension,))
            decode: Callable[[Any], Any] = lambda value: space.from_latent(np.asarray(value)[None, :])[0]  # noqa: E731
        else:
            parameter, decode = _native(ng, space)
        parameter.random_state = np.random.RandomState(int(rng.integers(2**31)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = ng.optimizers.registry[name](parameter, budget=meter.budget, num_workers=1)
            noisy = meter.instance.noise is not None
            while meter.left:
                asked = optimizer.ask()
                value = float(meter(decode(asked.value)[None, :])[0])
                optimizer.tell(asked, value)
            if noisy:
                meter.recommended = decode(optimizer.provide_recommendation().value)

    return run


def _native(ng: Any, space: Any) -> tuple[Any, Callable[[Any], Any]]:
    if isinstance(space, Real):
        middle = np.full(space.dimension, (space.low + space.high) / 2)
        return ng.p.Array(init=middle, lower=space.low, upper=space.high), np.asarray
    if isinstance(space, Binary):
        return ng.p.TransitionChoice([0, 1], repetitions=space.n), lambda value: np.array(value)
    parts: dict[str, Any] = {}
    for name, part in space.parts:
        if isinstance(part, Categorical):
            parts[name] = ng.p.TransitionChoice(list(range(len(part.choices))), repetitions=part.length, ordered=False)
        elif isinstance(part, Integer):
            parts[name] = ng.p.TransitionChoice(list(range(part.low, part.high + 1)), repetitions=part.length)
        else:
            start = np.full(part.length, (part.low + part.high) / 2)
            parts[name] = ng.p.Array(init=start, lower=part.low, upper=part.high)
    order = [name for name, _ in space.parts]

    def genes(value: Any) -> Any:
        return np.concatenate([np.atleast_1d(value[name]) for name in order]).astype(float)

    return ng.p.Dict(**parts), genes


def cma_latent(*, sigma: float = 0.5, diagonal: bool = False, population: int | None = None, mean: bool = False) -> Run:
    """pycma on the relaxation of the space, from its middle, restarted with twice the population."""

    def run(meter: Meter, rng: Rng) -> None:
        space = meter.instance.space

        def decode(points: list[Any]) -> Any:
            return space.from_latent(np.asarray(points))

        scale = 1.0
        if isinstance(space, Real):  # its own unit instead of the relaxation's
            scale = (space.high - space.low) / 5 / max(sigma, 1e-9)

            def decode(points: list[Any]) -> Any:
                return np.clip(np.asarray(points), space.low, space.high)

        _pycma(meter, rng, np.zeros(space.latent_dimension), sigma * scale, decode, diagonal, population, mean)

    return run


def mergekit_recipe(meter: Meter, rng: Rng) -> None:
    """pycma on weights that are made positive and divided by their sum, from 1/n, as mergekit-evolve does."""
    space = meter.instance.space
    assert isinstance(space, Simplex)
    decode: Callable[[Any], Any] = codec(space, "divided").decode
    sigma = 1 / 6 if space.n <= 10 else 1 / space.n
    _pycma(meter, rng, np.full(space.n, 1 / space.n), sigma, decode, False, None, False)


def _pycma(
    meter: Meter, rng: Rng, start: Any, sigma: float, decode: Callable[[list[Any]], Any], diagonal: bool,
    population: int | None, mean: bool,
) -> None:  # fmt: skip
    import cma

    size, popsize = len(start), population
    while meter.left:
        options = {"verbose": -9, "seed": int(rng.integers(1, 2**31)), "CMA_diagonal": diagonal}
        if popsize is not None:
            options["popsize"] = popsize
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            strategy = cma.CMAEvolutionStrategy(start if size > 1 else np.append(start, 0.0), sigma, options)
            while meter.left and not strategy.stop():
                if mean:
                    meter.recommended = decode([strategy.mean])[0]
                points = strategy.ask()[: meter.left]
                values = meter(decode(points)).tolist()
                if len(points) == strategy.popsize:
                    strategy.tell(points, values)
                if mean:
                    meter.recommended = decode([strategy.mean])[0]
        popsize = 2 * strategy.popsize


def learning_rate_cma(meter: Meter, rng: Rng) -> None:
    """CMA-ES that adapts its learning rate to noise (Nomura et al., GECCO 2023), of ``cmaes``; hands over the mean."""
    import cmaes

    space = meter.instance.space
    bounds = np.stack([np.full(space.dimension, space.low), np.full(space.dimension, space.high)], axis=1)  # type: ignore[attr-defined]
    strategy = cmaes.CMA(np.zeros(space.dimension), 2.0, bounds=bounds, seed=int(rng.integers(2**31)), lr_adapt=True)
    while meter.left:
        points = np.array([strategy.ask() for _ in range(strategy.population_size)])
        values = meter(points).tolist()
        if len(values) == len(points):  # a last generation may not be whole
            strategy.tell(list(zip(points, values, strict=True)))
        meter.recommended = strategy.mean


def cmaes_mixed(meter: Meter, rng: Rng) -> None:
    """CatCMA with margin (Hamano et al., 2024), of ``cmaes``: categories, integers and reals together."""
    import cmaes

    seen = codec(meter.instance.space, "native")
    kinds = np.array([variable.kind for variable in seen.variables])
    choices, integers, reals = (
        [variable for variable in seen.variables if variable.kind == kind] for kind in ("choice", "integer", "real")
    )
    strategy = cmaes.CatCMAwM(
        x_space=[[variable.low, variable.high] for variable in reals] or None,
        z_space=[np.arange(variable.low, variable.high + 1) for variable in integers] or None,
        c_space=[int(variable.high) + 1 for variable in choices] or None,
        seed=int(rng.integers(2**31)),
    )

    def row(solution: Any) -> Any:
        numbers = np.empty(len(kinds))
        if choices:
            # a choice with fewer options than the longest is padded with zeros
            numbers[kinds == "choice"] = np.asarray(solution.c).argmax(axis=1)
        if integers:
            numbers[kinds == "integer"] = solution.z
        if reals:
            numbers[kinds == "real"] = solution.x
        return numbers

    while meter.left:
        solutions = [strategy.ask() for _ in range(strategy.population_size)]
        values = meter(seen.decode(np.array([row(solution) for solution in solutions]))).tolist()
        if len(values) == len(solutions):  # a last generation may not be whole
            strategy.tell(list(zip(solutions, values, strict=True)))


def optuna_method(sampler: str, encoding: str | None = None) -> Run:
    """Optuna 5: ``"TPE"`` (its default), ``"GP"``, ``"CMA-ES"`` (with a diagonal covariance from 100 numbers on) or
    ``"NSGA-II"``.

    Arguments:
        sampler: which.
        encoding: of :mod:`benchmarks.engine.encodings`; None: native categories, integers and reals where the space is
            of those, and its relaxation elsewhere.
    """

    def run(meter: Meter, rng: Rng) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        space, seed = meter.instance.space, int(rng.integers(2**31))
        seen = codec(space, encoding or ("native" if isinstance(space, Binary | Product | Real) else "latent"))
        samplers: dict[str, Callable[[], Any]] = {
            "TPE": lambda: optuna.samplers.TPESampler(seed=seed),
            "GP": lambda: optuna.samplers.GPSampler(seed=seed, deterministic_objective=meter.instance.noise is None),
            "CMA-ES": lambda: optuna.samplers.CmaEsSampler(seed=seed, use_separable_cma=len(seen.variables) >= 100),
            "NSGA-II": lambda: optuna.samplers.NSGAIISampler(population_size=20, seed=seed),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(sampler=samplers[sampler]())
            while meter.left:
                trial = study.ask()
                point = np.array([_suggested(trial, variable) for variable in seen.variables])
                study.tell(trial, float(meter(seen.decode(point[None, :]))[0]))

    return run


def _suggested(trial: Any, variable: Variable) -> float:
    if variable.kind == "choice":
        return float(trial.suggest_categorical(variable.name, list(range(int(variable.high) + 1))))
    if variable.kind == "integer":
        return float(trial.suggest_int(variable.name, int(variable.low), int(variable.high)))
    return float(trial.suggest_float(variable.name, variable.low, variable.high))


def pymoo_genetic(meter: Meter, rng: Rng) -> None:
    """pymoo's genetic algorithm with 20 parents, uniform crossover and bit flips, without duplicates."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation
    from pymoo.operators.sampling.rnd import BinaryRandomSampling
    from pymoo.optimize import minimize

    class Bits(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=meter.instance.space.dimension, n_obj=1, xl=0, xu=1, vtype=bool)

        def _evaluate(self, x: Any, out: Any, *args: Any, **kwargs: Any) -> None:
            values = meter(x.astype(np.int64))
            out["F"] = np.append(values, np.full(len(x) - len(values), np.inf))

    genetic = GA(
        pop_size=20, sampling=BinaryRandomSampling(), crossover=UniformCrossover(), mutation=BitflipMutation(),
        eliminate_duplicates=True,
    )  # fmt: skip
    minimize(Bits(), genetic, ("n_eval", 10 * meter.budget), seed=int(rng.integers(2**31)), verbose=False)


def pymoo_mixed(meter: Meter, rng: Rng) -> None:
    """pymoo's MixedVariableGA at its defaults: choices, integers and reals with operators of their own."""
    from pymoo.core.mixed import MixedVariableGA
    from pymoo.core.problem import ElementwiseProblem
    from pymoo.core.variable import Choice
    from pymoo.core.variable import Integer as Whole
    from pymoo.core.variable import Real as Continuous
    from pymoo.optimize import minimize

    seen = codec(meter.instance.space, "divided" if isinstance(meter.instance.space, Simplex) else "native")
    kinds: dict[str, Callable[[Variable], Any]] = {
        "choice": lambda variable: Choice(options=list(range(int(variable.high) + 1))),
        "integer": lambda variable: Whole(bounds=(int(variable.low), int(variable.high))),
        "real": lambda variable: Continuous(bounds=(variable.low, variable.high)),
    }

    class Mixed(ElementwiseProblem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(vars={variable.name: kinds[variable.kind](variable) for variable in seen.variables})

        def _evaluate(self, values: Any, out: Any, *args: Any, **kwargs: Any) -> None:
            point = np.array([values[variable.name] for variable in seen.variables], np.float64)
            out["F"] = meter(seen.decode(point[None, :]))[0]

    minimize(
        Mixed(), MixedVariableGA(pop_size=20), ("n_eval", 10 * meter.budget), seed=int(rng.integers(2**31)),
        verbose=False,
    )  # fmt: skip
