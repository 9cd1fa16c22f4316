"""One generation of an evolution strategy over a million weights: ours, kept as seeds, against evotorch's and memory.

A generation is asked for, made (in chunks, as an evaluation would) and told; nothing is evaluated.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.speed_clock import in_turn
from benchmarks.table import Table
from searchlib import EvolutionStrategy
from searchlib.algorithms import Evidence, Problem, Status
from searchlib.spaces import PolicyParameters

__all__ = ["COPY", "EVOTORCH", "OURS", "StrategySize", "measure"]

OURS: Mapping[str, str] = {"openai": "EvolutionStrategy openai", "pgpe": "EvolutionStrategy pgpe",
                           "snes": "EvolutionStrategy snes"}  # fmt: skip
EVOTORCH, COPY = "evotorch SNES", "copying the generation once"
#: Members that are made at once.
_CHUNK = 8


@dataclass(frozen=True)
class StrategySize:
    """Weights of a policy and members of a generation."""

    weights: int = 10**6
    members: int = 256


def measure(table: Table, size: StrategySize, repetitions: int) -> dict[str, list[float]]:
    """Add the rows of this part; returns CPU seconds per generation by method."""
    works = {name: _ours(method, size) for method, name in OURS.items()} | {COPY: _copy(size)}
    if importlib.util.find_spec("evotorch") is not None:
        works[EVOTORCH] = _evotorch(size)
    for work in works.values():
        work(-1)  # the noise table and first allocations are not counted
    spent: dict[str, list[float]] = {name: [] for name in works}
    task = f"a generation of {size.members} policies of {size.weights:,} weights"
    for name, seconds in in_turn(works, repetitions):
        spent[name].append(seconds.cpu_seconds)
        table.add(task, name, seconds=seconds.seconds, cpu_seconds=seconds.cpu_seconds)
    return spent


def _ours(method: str, size: StrategySize) -> Callable[[int], None]:
    algorithm = EvolutionStrategy(method=method, population=size.members, seeded=True)
    space = PolicyParameters(size.weights, spread=0.1)
    run = algorithm.start(Problem(space, noisy=True, batch_size=size.members), np.random.default_rng(0))
    out, nothing = np.empty((_CHUNK, size.weights), np.float32), np.full(size.members, np.nan)
    done = np.full(size.members, Status.DONE, np.int8)

    def generation(seed: int) -> None:
        batch: Any = run.ask(size.members)
        for start in range(0, size.members, _CHUNK):
            part = batch.population[start : start + _CHUNK]
            part.rows(out[: len(part)])
        values = np.random.default_rng([1, seed + 1]).normal(size=(size.members, 1))
        run.tell(Evidence(batch.ids, batch.population, values, done, nothing, nothing[:, None]))
        run.notes()  # it learns before it says anything

    return generation


def _copy(size: StrategySize) -> Callable[[int], None]:
    source, target = (np.ones((size.members, size.weights), np.float32) for _ in range(2))
    return lambda seed: np.copyto(target, source)


def _evotorch(size: StrategySize) -> Callable[[int], None]:
    import logging

    import torch
    from evotorch import Problem as EvotorchProblem
    from evotorch.algorithms import SNES

    logging.getLogger("evotorch").setLevel(logging.WARNING)
    problem = EvotorchProblem(
        "min", lambda rows: torch.randn(len(rows)), solution_length=size.weights, initial_bounds=(0, 0),
        vectorized=True, seed=1,
    )  # fmt: skip
    searcher = SNES(problem, stdev_init=0.1, popsize=size.members)
    return lambda seed: searcher.step()
