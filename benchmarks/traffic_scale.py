"""What simulated traffic costs: by size of the network, by workers, and in a grid city of 196 signals."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import numpy as np

from benchmarks.kept_runs import kept_run
from benchmarks.traffic_grid import grid_city
from benchmarks.traffic_runs import ARMS, OURS, Effort, Hour, measured, objective_of
from searchlib import Split
from searchlib.objectives.traffic_rules import RULES
from searchlib.objectives.traffic_settings import TrafficSettings
from searchlib.objectives.traffic_world import rollout

__all__ = ["CITY_ARMS", "CityRun", "WorkersRun", "by_workers", "city"]

#: Who leads the grid city.
CITY_ARMS = ("fixed plan", "max-queue", "max-wave", "max-pressure", OURS)
_SEED = 11


class _Job(NamedTuple):
    name: str
    arm: str


class CityRun(NamedTuple):
    """What came of the grid city under one leader.

    Arguments:
        signals: how many.
        hour: of the part of an hour that was simulated.
    """

    signals: int
    hour: Hour


class WorkersRun(NamedTuple):
    """How fast rollouts are with so many worker processes.

    Arguments:
        workers: processes.
        rollouts: that were made.
        seconds: on the clock.
        hours: vehicle hours simulated.
    """

    workers: int
    rollouts: int
    seconds: float
    hours: float


def city(folder: Path | None, effort: Effort, arm: str, row: tuple[float, ...]) -> CityRun:
    """The grid city under one leader; what is learned was learned on Cologne.

    Arguments:
        folder: where runs are kept.
        effort: how large, how long.
        arm: one of :data:`CITY_ARMS`.
        row: of our policy.
    """

    def run() -> CityRun:
        settings = TrafficSettings(seconds=effort.city_seconds)
        with tempfile.TemporaryDirectory() as place:
            network = grid_city(Path(place), effort.city, vehicles=effort.city_vehicles)
            leader: Any = RULES.get(arm, arm)
            if arm == OURS:
                leader = ARMS[OURS].policy.controller(np.array(row), settings.longest_red)
            return CityRun(len(network.signals), measured(rollout(network, settings, leader, seed=_SEED)))

    made_by = repr((effort.city, effort.city_vehicles, effort.city_seconds, row if arm == OURS else ()))
    return kept_run(folder, _Job("city", arm), made_by, run, _city)


def _city(document: Mapping[str, Any]) -> CityRun:
    return CityRun(document["signals"], Hour(*document["hour"]))


def by_workers(effort: Effort, row: tuple[float, ...], counts: Sequence[int] = (1, 2)) -> Iterable[WorkersRun]:
    """Rollouts of Cologne's eight signals by worker processes, each of which has its own SUMO."""
    objective = objective_of(effort, ARMS[OURS], 0, effort.training_seconds)
    tasks = [task for task in objective.cases(Split.SEARCH).payload or () if task.network.name == "cologne8"][:12]
    for workers in counts:
        with joblib.Parallel(workers) as parallel:
            parallel(joblib.delayed(time.sleep)(0.1) for _ in range(workers))  # processes are there before the clock
            start = time.perf_counter()
            made = parallel(joblib.delayed(objective.outcome)(np.array(row), task) for task in tasks)
        seconds = time.perf_counter() - start
        yield WorkersRun(workers, len(tasks), round(seconds, 2), sum(one.trips.travel for one in made) / 3600)
