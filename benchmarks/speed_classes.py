"""What asking and telling cost per candidate, algorithm by algorithm, against others' of the same class.

Bits, options of parts, and reals, in generations of the same size; the function takes next to nothing, so that what is
left is the proposing and the learning. A library that is not installed leaves its rows out.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed_clock import in_turn
from benchmarks.table import Table
from searchlib import algorithms
from searchlib.algorithms import Algorithm, Evidence, Problem, Status
from searchlib.space import Space
from searchlib.spaces import Allocation, Binary, Real

__all__ = ["CLASSES", "SPACES", "ClassSize", "Kind", "measure"]

#: Minimizes a function of the rows, ``(n, objectives)``, over a space in generations: of evaluations and a seed.
Work = Callable[[int, int], None]
Values = Callable[[NDArray[Any]], NDArray[np.float64]]


@dataclass(frozen=True)
class ClassSize:
    """How much is measured.

    Arguments:
        evaluations: of a run.
        slow: of algorithms that take milliseconds for a candidate, and of libraries that do.
        population: size of a generation.
        kinds: the classes, of :data:`CLASSES`; None: all.
    """

    evaluations: int = 5_000
    slow: int = 300
    population: int = 100
    kinds: tuple[str, ...] | None = None


class Kind(NamedTuple):
    """One class of algorithms.

    Arguments:
        ours: of the number of candidates in a generation.
        theirs: rivals by name, of a space, such a number and the values of rows.
        on: the spaces that all of them are for.
        objectives: how many values a candidate has.
        slow: whether ours takes milliseconds for a candidate, too.
    """

    ours: Callable[[int], Algorithm]
    theirs: Mapping[str, Callable[[Space, int, Values], Work]]
    on: tuple[str, ...]
    objectives: int = 1
    slow: bool = False


SPACES: Mapping[str, Space] = {
    "256 bits": Binary(256),
    "64 parts of 3 levels": Allocation(tuple(map(str, range(64))), (2, 4, 8), (((2, 4, 8),) * 64,), (256.0,)),
    "100 reals": Real(-1.0, 1.0, length=100),
}
_ALL = tuple(SPACES)
#: Libraries that take milliseconds for a candidate.
_SLOW = ("nevergrad", "optuna")


def _values(objectives: int) -> Values:
    """Sums of as many parts of a row; the first is of all of it where there is but one."""
    def of(rows: NDArray[Any]) -> NDArray[np.float64]:
        squares = np.square(np.asarray(rows, np.float64))
        return np.stack([part.sum(axis=1) for part in np.array_split(squares, objectives, axis=1)], axis=1)

    return of


def _ours(algorithm: Callable[[int], Algorithm], space: Space, population: int, objectives: int) -> Work:
    values = _values(objectives)

    def run(evaluations: int, seed: int) -> None:
        problem = Problem(space, objectives=objectives, evaluations=evaluations, batch_size=population)
        going, left = algorithm(population).start(problem, np.random.default_rng(seed)), evaluations
        while left:
            batch = going.ask(min(population, left))
            n = len(batch)
            if not n:
                raise RuntimeError(f"{algorithm(population)!r} proposed nothing after {evaluations - left} candidates")
            done, nothing = np.full(n, Status.DONE, np.int8), np.full((n, objectives), np.nan)
            found = values(batch.population)
            going.tell(Evidence(batch.ids, batch.population, found, done, nothing[:, 0], nothing))
            left -= n

    return run


def _pymoo(make: Callable[[dict[str, Any]], Any]) -> Callable[[Space, int, Values], Work]:
    """An algorithm of pymoo with its own operators for bits, integers and reals."""

    def work(space: Space, population: int, values: Values) -> Work:
        from pymoo.core.problem import Problem as Theirs
        from pymoo.operators.crossover.pntx import TwoPointCrossover
        from pymoo.operators.crossover.sbx import SBX
        from pymoo.operators.mutation.bitflip import BitflipMutation
        from pymoo.operators.mutation.pm import PM
        from pymoo.operators.repair.rounding import RoundingRepair
        from pymoo.operators.sampling.rnd import BinaryRandomSampling, FloatRandomSampling, IntegerRandomSampling
        from pymoo.optimize import minimize

        d = space.dimension
        objectives = values(np.zeros((1, d))).shape[1]
        if isinstance(space, Binary):
            operators = {"sampling": BinaryRandomSampling(), "crossover": TwoPointCrossover(),
                         "mutation": BitflipMutation()}  # fmt: skip
            bounds: dict[str, Any] = {"xl": 0, "xu": 1, "vtype": bool}
        elif isinstance(space, Real):
            operators = {"sampling": FloatRandomSampling(), "crossover": SBX(), "mutation": PM()}
            bounds = {"xl": space.low, "xu": space.high}
        else:
            rounded = {"vtype": float, "repair": RoundingRepair()}
            operators = {"sampling": IntegerRandomSampling(), "crossover": SBX(**rounded), "mutation": PM(**rounded)}
            bounds = {"xl": 0, "xu": 2, "vtype": int}

        class Rows(Theirs):  # type: ignore[misc]
            def __init__(self) -> None:
                super().__init__(n_var=d, n_obj=objectives, **bounds)

            def _evaluate(self, x: Any, out: Any, *arguments: Any, **keywords: Any) -> None:
                out["F"] = values(x)

        def run(evaluations: int, seed: int) -> None:
            algorithm = make({"pop_size": population, "objectives": objectives, **operators})
            minimize(Rows(), algorithm, ("n_eval", evaluations), seed=seed, verbose=False)

        return run

    return work


def _genetic(settings: dict[str, Any]) -> Any:
    from pymoo.algorithms.soo.nonconvex.ga import GA

    return GA(**{name: value for name, value in settings.items() if name != "objectives"})


def _second(settings: dict[str, Any]) -> Any:
    from pymoo.algorithms.moo.nsga2 import NSGA2

    return NSGA2(**{name: value for name, value in settings.items() if name != "objectives"})


def _third(settings: dict[str, Any]) -> Any:
    from pymoo.algorithms.moo.nsga3 import NSGA3
    from pymoo.util.ref_dirs import get_reference_directions

    objectives = settings.pop("objectives")
    return NSGA3(get_reference_directions("das-dennis", objectives, n_partitions=6), **settings)


def _nevergrad(name: str) -> Callable[[Space, int, Values], Work]:
    def work(space: Space, population: int, values: Values) -> Work:
        import nevergrad

        def run(evaluations: int, seed: int) -> None:
            if isinstance(space, Real):
                parameter: Any = nevergrad.p.Array(shape=(space.dimension,), lower=space.low, upper=space.high)
            else:
                options = 2 if isinstance(space, Binary) else 3
                parameter = nevergrad.p.TransitionChoice(list(range(options)), repetitions=space.dimension)
            parameter.random_state = np.random.RandomState(seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                optimizer = nevergrad.optimizers.registry[name](parameter, budget=evaluations, num_workers=population)
                left = evaluations
                while left:
                    asked = [optimizer.ask() for _ in range(min(population, left))]
                    found = values(np.array([candidate.value for candidate in asked]))
                    for candidate, value in zip(asked, found[:, 0].tolist(), strict=True):
                        optimizer.tell(candidate, value)
                    left -= len(asked)

        return run

    return work


def _pycma(space: Space, population: int, values: Values) -> Work:
    import cma

    def run(evaluations: int, seed: int) -> None:
        options = {"verbose": -9, "seed": seed + 1, "popsize": population, "bounds": [-1, 1]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            strategy, left = cma.CMAEvolutionStrategy(np.zeros(space.dimension), 0.3, options), evaluations
            while left >= population:
                points = strategy.ask()
                strategy.tell(points, values(np.array(points))[:, 0].tolist())
                left -= population

    return run


def _cmaes(space: Space, population: int, values: Values) -> Work:
    """The odds of every option, as CatCMA learns them where there is nothing but options."""
    import cmaes

    def run(evaluations: int, seed: int) -> None:
        strategy = cmaes.CatCMAwM(c_space=[2] * space.dimension, population_size=population, seed=seed)
        for _ in range(evaluations // population):
            asked = [strategy.ask() for _ in range(population)]
            found = values(np.array([solution.c[:, 1] for solution in asked]))[:, 0].tolist()
            strategy.tell(list(zip(asked, found, strict=True)))

    return run


def _optuna(sampler: str) -> Callable[[Space, int, Values], Work]:
    def work(space: Space, population: int, values: Values) -> Work:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)

        def suggested(trial: Any, gene: int) -> float:
            if isinstance(space, Real):
                return float(trial.suggest_float(f"x{gene}", space.low, space.high))
            return float(trial.suggest_int(f"x{gene}", 0, 1 if isinstance(space, Binary) else 2))

        def run(evaluations: int, seed: int) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                study, left = optuna.create_study(sampler=getattr(optuna.samplers, sampler)(seed=seed)), evaluations
                while left:
                    trials = [study.ask() for _ in range(min(population, left))]
                    rows = [[suggested(trial, gene) for gene in range(space.dimension)] for trial in trials]
                    for trial, value in zip(trials, values(np.array(rows))[:, 0].tolist(), strict=True):
                        study.tell(trial, value)
                    left -= len(trials)

        return run

    return work


CLASSES: Mapping[str, Kind] = {
    "random": Kind(
        lambda n: algorithms.RandomSearch(),
        {"nevergrad RandomSearch": _nevergrad("RandomSearch"), "optuna RandomSampler": _optuna("RandomSampler")}, _ALL,
    ),
    "genetic": Kind(
        lambda n: algorithms.Evolution(population=n, offspring=n),
        {"pymoo GA": _pymoo(_genetic), "nevergrad TwoPointsDE": _nevergrad("TwoPointsDE")}, _ALL,
    ),
    "two objectives": Kind(
        lambda n: algorithms.NSGA2(population=n), {"pymoo NSGA2": _pymoo(_second)}, _ALL, objectives=2
    ),
    "four objectives": Kind(
        lambda n: algorithms.NSGA3(population=n), {"pymoo NSGA3": _pymoo(_third)}, _ALL, objectives=4
    ),
    "local search": Kind(
        lambda n: algorithms.LocalSearch(),
        {"nevergrad DiscreteOnePlusOne": _nevergrad("DiscreteOnePlusOne")}, ("256 bits", "64 parts of 3 levels"),
    ),
    "one parent": Kind(
        lambda n: algorithms.OnePlusOneES(), {"nevergrad OnePlusOne": _nevergrad("OnePlusOne")}, ("100 reals",)
    ),
    "estimation of distribution": Kind(
        lambda n: algorithms.EstimationOfDistribution(population=n),
        {"nevergrad cGA": _nevergrad("cGA"), "cmaes CatCMAwM": _cmaes}, ("256 bits",),
    ),
    "covariance": Kind(
        lambda n: algorithms.CMAES(population=n),
        {"pycma": _pycma, "nevergrad CMA": _nevergrad("CMA"), "optuna CmaEsSampler": _optuna("CmaEsSampler")},
        ("100 reals",), slow=True,
    ),
    "predictor": Kind(
        lambda n: algorithms.PredictorGuided(population=n), {"optuna TPESampler": _optuna("TPESampler")}, _ALL,
        slow=True,
    ),
}  # fmt: skip


def measure(table: Table, size: ClassSize, repetitions: int) -> dict[tuple[str, str], dict[str, list[float]]]:
    """Add the rows of this part; returns CPU microseconds per candidate by class and space, ours first."""
    spent: dict[tuple[str, str], dict[str, list[float]]] = {}
    for (kind, space), works in _compared(size):
        slow = {name: CLASSES[kind].slow or name.startswith(_SLOW) for name in works}
        counts = {name: size.slow if slow[name] else size.evaluations for name in works}
        for work in works.values():
            work(2 * size.population, 0)  # imports and first calls are not counted
        found: dict[str, list[float]] = {name: [] for name in works}
        timed = {name: partial(work, counts[name]) for name, work in works.items()}
        for name, seconds in in_turn(timed, repetitions):
            found[name].append(1e6 * seconds.cpu_seconds / counts[name])
            table.add(f"asking and telling, {kind}, {space}", name, cpu_microseconds=found[name][-1])
        spent[kind, space] = found
    return spent


def _compared(size: ClassSize) -> Iterator[tuple[tuple[str, str], dict[str, Work]]]:
    """Every class on every space that it is for, where there is somebody to compare with."""
    for kind in CLASSES if size.kinds is None else size.kinds:
        ours, theirs, on, objectives, _ = CLASSES[kind]
        values = _values(objectives)
        present = {name: make for name, make in theirs.items() if importlib.util.find_spec(_package(name))}
        for space in on if present else ():
            works = {type(ours(size.population)).__name__: _ours(ours, SPACES[space], size.population, objectives)}
            yield (kind, space), works | {
                name: make(SPACES[space], size.population, values) for name, make in present.items()
            }


def _package(name: str) -> str:
    package = name.split()[0]
    return {"pycma": "cma"}.get(package, package)
