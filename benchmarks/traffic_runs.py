"""One run of the traffic benchmark: a policy trained on Cologne, or one that is tested on a network; both are kept."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np

from benchmarks.kept_runs import kept_run
from searchlib import Budget, EvolutionStrategy, Search, Split
from searchlib.objectives.traffic import Traffic
from searchlib.objectives.traffic_network import RESCO, resco
from searchlib.objectives.traffic_outcome import TrafficOutcome
from searchlib.objectives.traffic_policy import TrafficNetworkPolicy
from searchlib.objectives.traffic_rules import RULES
from searchlib.objectives.traffic_settings import TrafficSettings
from searchlib.objectives.traffic_tasks import FreshTraffic, TrafficTask, traffic_tasks
from searchlib.objectives.traffic_world import PROGRAMS

__all__ = [
    "ARMS",
    "LARGE",
    "NO_ALPHA",
    "NO_NEIGHBORS",
    "OURS",
    "PER_SIGNAL",
    "PRIOR",
    "TRAINED_ON",
    "UNTAUGHT",
    "Arm",
    "Driven",
    "Effort",
    "Hour",
    "Job",
    "Trained",
    "Trial",
    "holdout_tasks",
    "objective_of",
    "stored_test",
    "stored_training",
]  # fmt: skip

OURS, NO_ALPHA, NO_NEIGHBORS = "ours", "ours, α = 0", "ours without neighbors"
PER_SIGNAL, LARGE = "a policy per intersection", "ours, large, by PGPE"
#: The rule that policies begin with.
PRIOR = "the rule, nothing learned"
UNTAUGHT = (*PROGRAMS, *RULES, PRIOR)
TRAINED_ON = ("cologne3", "cologne8")
_LAYOUT = 4


@final
@dataclass(frozen=True)
class Arm:
    """What a training may differ in.

    Arguments:
        policy: the network.
        strategy: that learns.
        neighbor_weight: α.
        shared: whether all signals share their parameters.
        seeds: at most so many training seeds.
    """

    policy: TrafficNetworkPolicy
    strategy: EvolutionStrategy
    neighbor_weight: float = 0.2
    shared: bool = True
    seeds: int = 1


#: Small: wide steps make policies that are good on Cologne and lock the networks that they have not met.
_SIGMA = 0.1
_SMALL = TrafficNetworkPolicy()
_CMA = EvolutionStrategy(method="cma", population=14, sigma=_SIGMA)
ARMS: Mapping[str, Arm] = {
    OURS: Arm(_SMALL, _CMA, seeds=3),
    NO_ALPHA: Arm(_SMALL, _CMA, neighbor_weight=0.0),
    NO_NEIGHBORS: Arm(TrafficNetworkPolicy(embedding=0), _CMA),
    PER_SIGNAL: Arm(_SMALL, EvolutionStrategy(method="sep-cma", population=14, sigma=_SIGMA), shared=False),
    LARGE: Arm(TrafficNetworkPolicy((64, 48)), EvolutionStrategy(method="pgpe", population=14, sigma=_SIGMA)),
}


@final
@dataclass(frozen=True)
class Effort:
    """How much is run.

    Arguments:
        generations: of every training.
        arms: that learn.
        networks: that are tested on.
        tests: tasks of each network, of demand 0.9 to 1.1.
        seconds: of a test.
        training_seconds: of an episode that is learned from.
        stress: demands that are learned from.
        city: crossings of a side of a grid city; 0: none.
        city_vehicles, city_seconds: its demand in an hour, and how long it is simulated.
    """

    generations: int
    arms: tuple[str, ...] = tuple(ARMS)
    networks: tuple[str, ...] = RESCO
    tests: int = 5
    seconds: int = 3600
    training_seconds: int = 1800
    stress: tuple[float, float] = (0.9, 1.6)
    city: int = 14
    city_vehicles: int = 10_000
    city_seconds: int = 1200


class Job(NamedTuple):
    """A training: one arm with one seed."""

    arm: str
    seed: int


class Trained(NamedTuple):
    """What came of it.

    Arguments:
        row: parameters of the strategy's center.
        rollouts: of training.
        seconds: of processor time.
        medians: of every generation's members, log ratio to the fixed plan.
    """

    row: tuple[float, ...]
    rollouts: int
    seconds: float
    medians: tuple[float, ...]


class Trial(NamedTuple):
    """A test: one arm with one training seed (0 where nothing is learned) on one network."""

    arm: str
    seed: int
    network: str


class Hour(NamedTuple):
    """What came of one task.

    Arguments:
        delay: seconds lost per vehicle that should have departed, waiting for insertion included.
        arrived, due, never: vehicles: at their goal, that should have departed, that never got in.
        travel: mean seconds under way of those that departed.
        hours: vehicle hours in the network.
        peak: most vehicles inside or waiting to get in.
        simulating, deciding: processor seconds.
    """

    delay: float
    arrived: int
    due: int
    never: int
    travel: float
    hours: float
    peak: int
    simulating: float
    deciding: float


class Driven(NamedTuple):
    """What came of a trial.

    Arguments:
        hours: one per task.
        queues: standing vehicles at every decision of the first task.
    """

    hours: tuple[Hour, ...]
    queues: tuple[float, ...]


def objective_of(effort: Effort, arm: Arm, seed: int, seconds: int) -> Traffic:
    """What an arm is trained on: Cologne's 3 and 8 signals, other drivers and demands in every generation."""
    networks = [resco(name) for name in TRAINED_ON]
    return Traffic(
        networks, TrafficSettings(seconds=seconds), policy=arm.policy, shared=arm.shared,
        neighbor_weight=arm.neighbor_weight, search=traffic_tasks(networks, 64, scales=effort.stress, seed=seed),
        select=1, holdout=0,
    )  # fmt: skip


def train(effort: Effort, job: Job) -> Trained:
    """Train a policy; what counts is the strategy's center, whatever luck members had."""
    start, arm = time.process_time(), ARMS[job.arm]
    objective, members = objective_of(effort, arm, job.seed, effort.training_seconds), arm.strategy.population or 0
    cases = FreshTraffic(len(TRAINED_ON))
    run = Search(
        objective, arm.strategy, seed=job.seed, batch_size=members, shortlist=1,
        budget=Budget(evaluations=effort.generations * members + 1), cases=cases,
    )  # fmt: skip
    medians, rollouts = [], 0
    with run:
        for record in run:
            medians.append(round(float(np.median(record.values)), 4))
            rollouts += len(record.ids) * cases.per_generation
        row = run.result().row
    assert row is not None
    return Trained(tuple(row.tolist()), rollouts, round(time.process_time() - start, 1), tuple(medians))


def stored_training(folder: Path | None, effort: Effort, job: Job) -> Trained:
    """A training, kept for the settings that it was made with."""
    made_by = repr((
        _LAYOUT, ARMS[job.arm], effort.generations, effort.training_seconds, effort.stress,
        TrafficSettings(seconds=effort.training_seconds),
    ))  # fmt: skip
    return kept_run(folder, job, made_by, lambda: train(effort, job), _trained)


def _trained(document: Mapping[str, Any]) -> Trained:
    return Trained(**{**document, "row": tuple(document["row"]), "medians": tuple(document["medians"])})


@cache
def holdout_tasks(effort: Effort, network: str) -> tuple[TrafficTask, ...]:
    """The tasks of a test: the same drivers and demands for every arm and network, met by no training."""
    return traffic_tasks([resco(network)], effort.tests, split=Split.HOLDOUT, seed=2)


def measured(outcome: TrafficOutcome) -> Hour:
    """What the table is made of."""
    trips = outcome.trips
    return Hour(
        round(outcome.delay, 3), trips.arrived, trips.due, outcome.never_inserted, round(outcome.travel_time, 3),
        round(trips.travel / 3600, 3), outcome.peak, round(outcome.simulating, 3), round(outcome.deciding, 3),
    )  # fmt: skip


def tested(effort: Effort, trial: Trial, row: tuple[float, ...] | None) -> Driven:
    """Test an arm on a network, in whole hours that nobody gives up.

    Arguments:
        effort, trial: which.
        row: what was learned; None where nothing is.
    """
    objective = objective_of(effort, ARMS.get(trial.arm, ARMS[OURS]), 0, effort.seconds)
    who: Any = trial.arm if row is None else np.array(row)
    if trial.arm == PRIOR:
        who = np.zeros(objective.policy.parameters)
    outcomes = [objective.outcome(who, task) for task in holdout_tasks(effort, trial.network)]
    return Driven(tuple(map(measured, outcomes)), tuple(outcomes[0].queues.round(1).tolist()))


def stored_test(folder: Path | None, effort: Effort, trial: Trial, row: tuple[float, ...] | None) -> Driven:
    """A trial, kept for the settings and the policy that it was made with."""
    made_by = repr((_LAYOUT, effort.seconds, effort.tests, TrafficSettings(seconds=effort.seconds), row))
    return kept_run(folder, trial, made_by, lambda: tested(effort, trial, row), _tested)


def _tested(document: Mapping[str, Any]) -> Driven:
    return Driven(tuple(Hour(*hour) for hour in document["hours"]), tuple(document["queues"]))
