"""CityLight: one policy for all traffic signals, learned on Cologne's, against plans, detectors and rules.

Policies are trained on two networks (3 and 8 signals) and tested there, with other drivers and demands, and on six
networks they have never met. A test is a whole hour without teleports; the delay of a vehicle holds its wait for
insertion, also of those that never get in. What is told of a policy is told of the strategy's center. Every learned
arm has as many rollouts.

A long run can be stopped and resumed, or made in parts::

    python -m benchmarks traffic --preset paper --store runs --arm ours
    python -m benchmarks traffic --preset paper --store runs --out benchmarks/results
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.table import Table, paired_bootstrap, paired_lower_bound
from benchmarks.traffic_runs import (
    ARMS,
    NO_NEIGHBORS,
    OURS,
    PER_SIGNAL,
    TRAINED_ON,
    UNTAUGHT,
    Driven,
    Effort,
    Hour,
    Job,
    Trained,
    Trial,
    stored_test,
    stored_training,
)
from benchmarks.traffic_scale import CITY_ARMS, by_workers, city
from searchlib.objectives.traffic_network import resco
from searchlib.objectives.traffic_settings import TrafficSettings
from searchlib.objectives.traffic_world import PROGRAMS, sumo_modules

__all__ = ["DESCRIPTION", "MARGIN", "PRESETS", "SEEDS", "add_arguments", "log_ratios", "run"]

DESCRIPTION = "CityLight: one policy for every traffic signal, trained on Cologne, transferred to other cities"

PRESETS: Mapping[str, Effort] = {
    "smoke": Effort(
        1, arms=(OURS,), networks=("cologne3", "cologne8", "ingolstadt1"), tests=1, seconds=240, training_seconds=120,
        city=3, city_vehicles=400, city_seconds=120,
    ),
    "small": Effort(
        4, arms=(OURS, NO_NEIGHBORS), tests=1, city_seconds=400,
        networks=("cologne1", "cologne3", "cologne8", "ingolstadt1", "ingolstadt7", "grid4x4"),
    ),
    "paper": Effort(14),
    "full": Effort(60, tests=10, city_seconds=3600, city_vehicles=16_317),
}  # fmt: skip
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 1, "paper": 3, "full": 5}
#: "At least as good" tolerates so much, as a share of delay or of throughput.
MARGIN = 0.01
_TOGETHER = "all networks"
#: Networks in the picture, and who is in it.
_SHOWN = ("cologne8", "ingolstadt7", "ingolstadt21", "arterial4x4")
_LEADERS = (*PROGRAMS, "max-queue", "max-wave", "max-pressure", OURS)

Tests = Mapping[Trial, Driven]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--store", type=Path, metavar="FOLDER", help="keep every run there, and go on from what is")
    parser.add_argument("--arm", choices=(*ARMS, *UNTAUGHT), action="append", help="only this one (may be repeated)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw queues over time into it")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    sumo_modules()  # says what to install before anything is run
    effort, store = PRESETS[arguments.preset], arguments.store
    wanted = arguments.arm or (*UNTAUGHT, *effort.arms)
    table = Table("traffic", arguments.preset, arguments.seeds)
    trained: dict[Job, Trained] = {}
    for arm in (name for name in ARMS if name in wanted):
        for seed in range(min(arguments.seeds, ARMS[arm].seeds)):
            trained[Job(arm, seed)] = stored_training(store, effort, Job(arm, seed))
            table.progress(f"{arm}, seed {seed}: trained")
    tests: dict[Trial, Driven] = {}
    learners = [*((Job(arm, 0), None) for arm in UNTAUGHT if arm in wanted), *((j, t.row) for j, t in trained.items())]
    for network in effort.networks:
        for job, row in learners:
            if job.arm == PER_SIGNAL and network not in TRAINED_ON:
                continue
            trial = Trial(*job, network)
            tests[trial] = stored_test(store, effort, trial, row)
            table.add(network, job.arm, **_metrics(tests[trial].hours))
    _tell_together(table, effort, tests)
    _claim_alike(table, effort, trained, tests)
    if any(trial.arm == OURS for trial in tests):
        _claim_together(table, effort, tests)
        _claim_never_worse(table, effort, tests)
    if Job(OURS, 0) in trained:
        _tell_scale(table, effort, store, trained[Job(OURS, 0)].row)
    if arguments.pictures:
        _draw(effort, tests, arguments.pictures)
    return table


def _metrics(hours: Sequence[Hour]) -> dict[str, float | None]:
    delays = [hour.delay for hour in hours]
    spent = sum(hour.simulating + hour.deciding for hour in hours)
    return {
        "delay": float(np.mean(delays)), "median": float(np.median(delays)), "worst": max(delays),
        "throughput": float(np.mean([hour.arrived for hour in hours])),
        "never inserted": float(np.mean([hour.never for hour in hours])),
        "travel time": float(np.mean([hour.travel for hour in hours])),
        "CPU s per vehicle hour": spent / max(1e-9, sum(hour.hours for hour in hours)),
    }  # fmt: skip


def log_ratios(effort: Effort, tests: Tests, first: str, second: str, field: str) -> NDArray[np.float64]:
    """Logarithms of first by second, one per network and task that both have met; of several policies, means.

    Arguments:
        effort: whose networks.
        tests: of both arms.
        first, second: arms.
        field: ``"delay"`` or ``"arrived"``.
    """
    found = []
    for network in effort.networks:
        sides = [_logs(tests, arm, network, field) for arm in (first, second)]
        if all(map(len, sides)):
            found.append(sides[0].mean(axis=0) - sides[1].mean(axis=0))
    return np.concatenate(found)


def _logs(tests: Tests, arm: str, network: str, field: str) -> NDArray[np.float64]:
    """Logarithms of a number, shape ``(policies, tasks)``."""
    runs = [run for trial, run in sorted(tests.items()) if (trial.arm, trial.network) == (arm, network)]
    return np.log([[max(1e-3, getattr(hour, field)) for hour in run.hours] for run in runs])


def _tell_together(table: Table, effort: Effort, tests: Tests) -> None:
    """Every arm against the fixed plan, a geometric mean over all networks it has met."""
    plan = next(iter(PROGRAMS))
    arms = dict.fromkeys(trial.arm for trial in tests)
    for arm in arms if plan in arms else ():
        delay, arrived = (log_ratios(effort, tests, arm, plan, field).mean() for field in ("delay", "arrived"))
        table.add(
            _TOGETHER, arm, **{"delay to the plan's": float(np.exp(delay)), "throughput to": float(np.exp(arrived))}
        )


def _claim_alike(table: Table, effort: Effort, trained: Mapping[Job, Trained], tests: Tests) -> None:
    """What any run must show."""
    spent = {one.rollouts for one in trained.values()}
    if spent:
        table.claim(
            "all arms that learn had the same rollouts", value=float(max(spent)), n=len(trained),
            test="largest number of rollouts, over trainings", holds=len(spent) == 1,
        )  # fmt: skip
    for network in dict.fromkeys(trial.network for trial in tests):
        due = {tuple(hour.due for hour in one.hours) for trial, one in tests.items() if trial.network == network}
        table.claim(
            f"{network}: every controller was given the same vehicles, none is left out of the count",
            value=float(np.mean([max(few) - min(few) for few in zip(*due, strict=True)])), bound=0.0, n=len(due),
            test="mean over tasks of most less fewest vehicles due, over controllers", holds=len(due) == 1,
        )  # fmt: skip


def _claim_together(table: Table, effort: Effort, tests: Tests) -> None:
    """Ours against every row, over all networks that the row has met."""
    for rival in dict.fromkeys(trial.arm for trial in tests if trial.arm != OURS):
        met = sorted({trial.network for trial in tests if trial.arm == rival})
        where = f"{len(met)} networks taken together" if len(met) > 2 else " and ".join(met)
        for field, what, sign in (("delay", "delay", -1.0), ("arrived", "throughput", 1.0)):
            gain = sign * log_ratios(effort, tests, OURS, rival, field)
            low = paired_bootstrap(gain, np.zeros_like(gain), level=0.9)[0] if len(gain) > 1 else None
            table.claim(
                f"{OURS} is at least as good as {rival} in {what} (margin {MARGIN:.0%}), {where}",
                value=float(gain.mean()), bound=-MARGIN, interval=(low, None), n=len(gain), preset="paper",
                test="mean log ratio, better is positive; one-sided 95 % by paired bootstrap over (network, task)",
                holds=low is not None and low >= -MARGIN,
            )  # fmt: skip


def _claim_never_worse(table: Table, effort: Effort, tests: Tests) -> None:
    """On every single network the worst policy of ours against the network's own plan."""
    plan = next(iter(PROGRAMS))
    for network in effort.networks:
        fixed = _logs(tests, plan, network, "delay")
        if not len(fixed):
            continue
        gains = fixed[0] - _logs(tests, OURS, network, "delay")
        worst = gains[gains.mean(axis=1).argmin()]
        low = paired_lower_bound(worst) if len(worst) > 1 else None
        table.claim(
            f"{network}: no policy of ours has more delay than the network's own plan",
            value=float(worst.mean()), bound=0.0, interval=(low, None), n=len(worst), preset="paper",
            test="mean log ratio of the worst training seed, better is positive; one-sided 95 % by paired t over tasks",
            holds=low is not None and low > 0,
        )  # fmt: skip


def _tell_scale(table: Table, effort: Effort, store: Path | None, row: tuple[float, ...]) -> None:
    """The grid city, and workers."""
    for arm in CITY_ARMS if effort.city else ():
        found = city(store, effort, arm, row)
        table.add(f"a grid of {found.signals} signals", arm, **_metrics([found.hour]))
    for workers in by_workers(effort, row):
        table.add(
            f"cologne8 by {workers.workers} worker(s)", OURS,
            **{"seconds per vehicle hour": workers.seconds / workers.hours},
        )  # fmt: skip


def _draw(effort: Effort, tests: Tests, folder: Path) -> None:
    """Queues over time of the first task."""
    from searchlib.objectives.traffic_pictures import draw_queues

    folder.mkdir(parents=True, exist_ok=True)
    shown: dict[str, Any] = {}
    for network in (name for name in effort.networks if name in _SHOWN):
        label = f"{network} ({len(resco(network).signals)} signals)"
        shown[label] = {
            arm: tests[Trial(arm, 0, network)].queues for arm in _LEADERS if Trial(arm, 0, network) in tests
        }
    axes: Any = draw_queues(shown, TrafficSettings().decide_every, highlight=OURS)
    axes[0].figure.savefig(folder / "traffic-queues.png")
