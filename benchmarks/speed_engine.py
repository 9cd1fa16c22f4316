"""What the engine costs beside the objective: searchlib's loop against pymoo's and nevergrad's on a trivial function.

All minimize the number of ones in 256 bits, a function that takes nothing, so that what is left is the engine.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed_clock import in_turn
from benchmarks.table import Table
from searchlib import Evolution, search
from searchlib.spaces import Binary

__all__ = ["ENGINES", "EngineSize", "import_seconds", "measure"]

_BITS, _POPULATION = 256, 100


@dataclass(frozen=True)
class EngineSize:
    """Evaluations per run, and for nevergrad, which is far slower."""

    evaluations: int = 20_000
    nevergrad: int = 2_000


def _searchlib(evaluations: int, seed: int, study: Path | None = None) -> tuple[int, float]:
    algorithm = Evolution(population=_POPULATION, offspring=_POPULATION)
    result = search(
        lambda rows: rows.sum(axis=1), space=Binary(_BITS), algorithm=algorithm, batched=True,
        batch_size=_POPULATION, budget=evaluations, seed=seed, study=study,
    )  # fmt: skip
    return result.history.evaluations, result.value


def _journaled(evaluations: int, seed: int) -> tuple[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        return _searchlib(evaluations, seed, Path(folder) / "study.db")


def _pymoo(evaluations: int, seed: int) -> tuple[int, float]:
    """The genetic algorithm with pymoo's own operators for bits; it removes duplicates unless told otherwise."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.core.problem import Problem
    from pymoo.operators.crossover.pntx import TwoPointCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation
    from pymoo.operators.sampling.rnd import BinaryRandomSampling
    from pymoo.optimize import minimize

    class Ones(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=_BITS, n_obj=1, xl=0, xu=1, vtype=bool)

        def _evaluate(self, x: Any, out: Any, *arguments: Any, **keywords: Any) -> None:
            out["F"] = x.sum(axis=1)

    algorithm = GA(
        pop_size=_POPULATION, sampling=BinaryRandomSampling(), crossover=TwoPointCrossover(), mutation=BitflipMutation()
    )
    result = minimize(Ones(), algorithm, ("n_eval", evaluations), seed=seed)
    return int(result.algorithm.evaluator.n_eval), float(result.F[0])


def _nevergrad(evaluations: int, seed: int) -> tuple[int, float]:
    import nevergrad

    bits = nevergrad.p.Choice([0, 1], repetitions=_BITS)
    bits.random_state.seed(seed)
    optimizer = nevergrad.optimizers.registry["DiscreteOnePlusOne"](bits, budget=evaluations)
    found = optimizer.minimize(lambda chosen: float(sum(chosen)))
    return int(optimizer.num_tell), float(sum(found.value))


#: Functions of (evaluations, seed) that run one engine and return its evaluations and the best value.
ENGINES: Mapping[str, Callable[[int, int], tuple[int, float]]] = {
    "searchlib": _searchlib,
    "searchlib, journal": _journaled,
    "pymoo GA": _pymoo,
    "nevergrad DiscreteOnePlusOne": _nevergrad,
}


def measure(table: Table, size: EngineSize, repetitions: int) -> dict[str, dict[str, list[float]]]:
    """Add the rows of this part; returns microseconds per candidate by method, as "wall" and as "cpu"."""
    counts = {name: size.nevergrad if name.startswith("nevergrad") else size.evaluations for name in ENGINES}
    best: dict[str, float] = {}

    def work(name: str) -> Callable[[int], None]:
        def run(seed: int) -> None:
            evaluations, best[name] = ENGINES[name](counts[name], seed)
            if evaluations != counts[name]:
                raise RuntimeError(f"{name} made {evaluations} evaluations instead of {counts[name]}")

        return run

    for name in ENGINES:
        ENGINES[name](2 * _POPULATION, 0)  # imports and first calls are not counted
    spent: dict[str, dict[str, list[float]]] = {name: {"wall": [], "cpu": []} for name in ENGINES}
    for name, seconds in in_turn({name: work(name) for name in ENGINES}, repetitions):
        wall, cpu = (1e6 * value for value in seconds.per(counts[name]))
        spent[name]["wall"].append(wall)
        spent[name]["cpu"].append(cpu)
        table.add("engine alone, 256 bits", name, microseconds_per_candidate=wall, cpu_microseconds=cpu,
                  best=best[name])  # fmt: skip
    for theirs, ours in zip(spent["pymoo GA"]["cpu"], spent["searchlib"]["cpu"], strict=True):
        table.add("engine alone, 256 bits", "ratio, pymoo GA", ratio=theirs / ours)
    return spent


def import_seconds(table: Table, repetitions: int = 5) -> list[float]:
    """CPU seconds that importing searchlib takes once numpy is there, each in a process of its own."""
    code = "import time, numpy; start = time.process_time(); import searchlib; print(time.process_time() - start)"
    seconds = []
    for _ in range(repetitions):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        seconds.append(float(done.stdout))
        table.add("import, beyond numpy", "searchlib", cpu_seconds=seconds[-1])
    return seconds
