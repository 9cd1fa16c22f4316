"""Evaluations per second against workers: searchlib beside plain joblib and optuna, and uneven evaluation times.

The objective waits for a given time, as one does that waits for a GPU or a server, so that four workers are busy at
once on any computer. All evaluate random candidates, so that what is left is what it costs to keep workers busy. Their
processes have started before anything is timed.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from benchmarks.speed_clock import claim_at_least
from benchmarks.table import Table
from searchlib import RandomSearch, search
from searchlib.spaces import Integer

__all__ = ["DESCRIPTION", "PRESETS", "SEEDS", "add_arguments", "run"]

DESCRIPTION = "evaluations per second against workers, beside plain joblib and optuna; uneven times, asynchronously"

JOBLIB, OURS, JOURNALED = "joblib", "searchlib", "searchlib, study"
ASYNCHRONOUS, JOURNALED_ASYNCHRONOUS, OPTUNA = "asynchronous", "asynchronous, study", "optuna, threads"
#: Shares of plain joblib's evaluations per second, and how much more an asynchronous search does.
OF_JOBLIB, MORE = 0.9, 1.5
_CANDIDATES = Integer(0, 2**31)


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Arguments:
        evaluations: by the milliseconds that each takes.
        workers: how many side by side.
        uneven: evaluations whose times differ.
    """

    evaluations: Mapping[int, int]
    workers: tuple[int, ...] = (1, 2, 4)
    uneven: int = 400


PRESETS: Mapping[str, Effort] = {
    "smoke": Effort({10: 30}, (1, 2), uneven=40),
    "small": Effort({1: 600, 10: 200, 100: 24}),
    "paper": Effort({1: 1000, 10: 300, 100: 40}, uneven=600),
    "full": Effort({1: 10_000, 10: 2000, 100: 400}, uneven=4000),
}
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 3, "paper": 5, "full": 5}


@dataclass(frozen=True)
class _Waits:
    """An objective that takes its time: the same for all candidates, or log-normal with the same mean.

    Arguments:
        seconds: mean.
        sigma: of the logarithm.
    """

    seconds: float
    sigma: float = 0.0

    def __call__(self, candidate: int) -> float:
        spread = self.sigma * np.random.default_rng(candidate).normal() - self.sigma**2 / 2
        time.sleep(self.seconds * math.exp(spread))
        return float(candidate)


Work = Callable[[_Waits, int, int, int], float]


def _ours(*, study: bool = False, asynchronous: bool = False, at_once: int | None = 64) -> Work:
    """Seconds of a search of so many evaluations by so many workers."""

    def work(objective: _Waits, evaluations: int, workers: int, seed: int) -> float:
        settings: dict[str, Any] = {"workers": workers, "space": _CANDIDATES, "seed": seed}
        settings |= {"asynchronous": True} if asynchronous else {"batch_size": workers if at_once is None else at_once}
        search(_Waits(0.01), RandomSearch(), budget=4 * workers, **settings)
        with tempfile.TemporaryDirectory() if study else contextlib.nullcontext() as folder:
            path = None if folder is None else Path(folder) / "study.db"
            start = time.perf_counter()
            result = search(objective, RandomSearch(), budget=evaluations, study=path, **settings)
            seconds = time.perf_counter() - start
        assert result.history.evaluations == evaluations
        return seconds

    return work


def _joblib(objective: _Waits, evaluations: int, workers: int, seed: int) -> float:
    candidates = np.random.default_rng(seed).integers(0, 2**31, evaluations).tolist()
    with joblib.Parallel(workers) as parallel:
        parallel(joblib.delayed(_Waits(0.01))(candidate) for candidate in candidates[: 4 * workers])
        start = time.perf_counter()
        parallel(joblib.delayed(objective)(candidate) for candidate in candidates)
        return time.perf_counter() - start


def _optuna(objective: _Waits, evaluations: int, workers: int, seed: int) -> float:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    start = time.perf_counter()
    study.optimize(lambda trial: objective(trial.suggest_int("x", 0, 2**31)), evaluations, n_jobs=workers)
    return time.perf_counter() - start


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No options of its own."""
    del parser


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    effort, table = PRESETS[arguments.preset], Table("scaling", arguments.preset, arguments.seeds)
    works: dict[str, Work] = {
        JOBLIB: _joblib, OURS: _ours(), JOURNALED: _ours(study=True), ASYNCHRONOUS: _ours(asynchronous=True),
        JOURNALED_ASYNCHRONOUS: _ours(study=True, asynchronous=True),
    }  # fmt: skip
    with contextlib.suppress(ImportError):
        import optuna  # noqa: F401

        works[OPTUNA] = _optuna
    for milliseconds, evaluations in effort.evaluations.items():
        for workers in effort.workers:
            task = f"{milliseconds} ms, {workers} worker{'s' * (workers > 1)}"
            rates = _measured(table, task, works, _Waits(milliseconds / 1000), evaluations, workers)
            if milliseconds == 10:
                for method in (OURS, JOURNALED, ASYNCHRONOUS):
                    claim_at_least(
                        table, f"{task}: {method} does at least {OF_JOBLIB:.0%} of plain joblib's evaluations",
                        rates[method], rates[JOBLIB], OF_JOBLIB, "evaluations per second",
                    )  # fmt: skip
    workers = max(effort.workers)
    uneven = {
        JOBLIB: _joblib, f"{workers} at once": _ours(at_once=None), "64 at once": _ours(),
        ASYNCHRONOUS: _ours(asynchronous=True), JOURNALED_ASYNCHRONOUS: _ours(study=True, asynchronous=True),
    }  # fmt: skip
    task = f"log-normal, σ = 1, mean 20 ms, {workers} workers"
    rates = _measured(table, task, uneven, _Waits(0.02, 1.0), effort.uneven, workers)
    claim_at_least(
        table, f"{task}: an asynchronous search does at least {MORE} times the evaluations of batches of {workers}",
        rates[JOURNALED_ASYNCHRONOUS], rates[f"{workers} at once"], MORE, "evaluations per second",
    )  # fmt: skip
    return table


def _measured(
    table: Table, task: str, works: Mapping[str, Work], objective: _Waits, evaluations: int, workers: int
) -> dict[str, list[float]]:
    """Evaluations per second by method, one for every repetition; methods take turns in being first."""
    rates: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for repetition in range(table.seeds):
        first = repetition % len(names)
        for name in names[first:] + names[:first]:
            rates[name].append(evaluations / works[name](objective, evaluations, workers, repetition))
    for name, values in rates.items():
        for rate in values:
            table.add(task, name, evaluations_per_second=rate, efficiency=rate * objective.seconds / workers)
    return rates
