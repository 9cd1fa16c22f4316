"""The simulator: whole rollouts of a network in SUMO, its signals led by a controller of ours or by SUMO's programs.

SUMO runs inside this process (``libsumo``), one simulation at a time; workers are processes. Nobody is teleported out
of a jam, and vehicles that cannot be inserted keep waiting and are counted.
"""

from __future__ import annotations

import os
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.objectives.traffic_layout import TrafficLayout, laid_out
from searchlib.objectives.traffic_network import Signal, TrafficNetwork
from searchlib.objectives.traffic_outcome import TrafficOutcome, trip_totals
from searchlib.objectives.traffic_settings import TrafficSettings
from searchlib.objectives.traffic_sight import TrafficSight, TrafficWatch

__all__ = ["PROGRAMS", "SignalController", "rollout", "sumo_modules"]

#: Programs that SUMO runs itself: the network's own plan, and the same phases led by detectors.
PROGRAMS = {"fixed plan": None, "actuated": "actuated", "delay-based": "delay_based"}
#: Bounds of a green under SUMO's own detectors, in seconds: those that RESCO's networks name, and SUMO's defaults.
_SHORTEST, _LONGEST = 5, 50


class SignalController(ABC):
    """Leads all signals of a network."""

    @abstractmethod
    def decide(self, sight: TrafficSight) -> NDArray[np.intp]:
        """The phase that every signal wants, numbered among all phases, shape ``(I,)``.

        That of a signal that is not free to decide is not heeded.
        """


def sumo_modules() -> Any:
    """SUMO, imported now.

    Raises:
        MissingDependency: it is not installed.
    """
    # libsumo prints a warning about pyarrow, which it does not use here, unless this says "quiet".
    before = os.environ.get("LIBSUMO_AS_TRACI")
    os.environ["LIBSUMO_AS_TRACI"] = "quiet"
    try:
        import libsumo
    except ImportError as error:
        raise MissingDependency("traffic needs SUMO: pip install 'searchlib[traffic]'") from error
    finally:
        if before is None:
            del os.environ["LIBSUMO_AS_TRACI"]
        else:
            os.environ["LIBSUMO_AS_TRACI"] = before
    return libsumo


def rollout(
    network: TrafficNetwork, settings: TrafficSettings, controller: SignalController | str, *, seed: int,
    scale: float = 1.0, stop_above: int | None = None, records: Path | None = None,
) -> TrafficOutcome:  # fmt: skip
    """Simulate a network from its beginning.

    Arguments:
        network: which.
        settings: of all rollouts.
        controller: of all its signals, or one of :data:`PROGRAMS`.
        seed: SUMO's; decides how drivers differ.
        scale: of the demand, such as 0.9 to 1.1.
        stop_above: vehicles inside or waiting for insertion from which on it is given up as gridlock; None: never.
        records: a file for SUMO's trip records; None: they are not kept.

    Raises:
        InvalidSettings: a program that is none of :data:`PROGRAMS`.
        MissingDependency: SUMO is not installed.
    """
    if isinstance(controller, str) and controller not in PROGRAMS:
        raise InvalidSettings(f"SUMO's own programs are {', '.join(PROGRAMS)}, but {controller!r} was asked for")
    sumo = sumo_modules()
    layout = laid_out(network, settings.reach)
    with tempfile.TemporaryDirectory() as folder:
        trips = Path(folder) / "trips.xml" if records is None else records
        options = [*_options(network, seed, scale, trips)]
        kind = PROGRAMS[controller] if isinstance(controller, str) else None
        if kind is not None:
            own = Path(folder) / "programs.xml"
            own.write_text(_programs(layout, kind), encoding="utf-8")
            options += ["--additional-files", ",".join([*network.additional, str(own)])]
        with _running(sumo, options):
            run = _Rollout(sumo, network, settings, layout, None if isinstance(controller, str) else controller)
            run.play(stop_above)
        return run.outcome(trips)


def _options(network: TrafficNetwork, seed: int, scale: float, trips: Path) -> Iterator[str]:
    yield from ("-c", network.config, "--seed", str(int(seed)), "--scale", repr(float(scale)))
    yield from ("--time-to-teleport", "-1", "--collision.action", "warn", "--no-step-log", "true")
    yield from ("--no-warnings", "true", "--duration-log.disable", "true", "--tripinfo-output", str(trips))
    yield from ("--tripinfo-output.write-unfinished", "true", "--tripinfo-output.write-undeparted", "true")


def _programs(layout: TrafficLayout, kind: str) -> str:
    """The signals' own phases as programs of another kind."""
    lines = ["<additional>"]
    for signal in layout.signals:
        lines.append(f'<tlLogic id={quoteattr(signal.name)} type="{kind}" programID="{kind}" offset="0">')
        for seconds, state in signal.plan:
            green = state in signal.phases
            bounds = f' minDur="{_SHORTEST}" maxDur="{_LONGEST}"' if green else ""
            lines.append(f'<phase duration="{seconds:g}" state="{state}"{bounds}/>')
        lines.append("</tlLogic>")
    return "\n".join([*lines, "</additional>"])


@contextmanager
def _running(sumo: Any, options: list[str]) -> Iterator[None]:
    sumo.start(["sumo", *options])
    try:
        yield
    finally:
        sumo.close()


def _inside(signal: Signal, state: str) -> tuple[str, ...]:
    """Lanes inside the junction of ways that show yellow."""
    return tuple(dict.fromkeys(link.inside for link in signal.links if state[link.place] == "y" and link.inside))


@final
class _Rollout:
    """One simulation."""

    def __init__(
        self, sumo: Any, network: TrafficNetwork, settings: TrafficSettings, layout: TrafficLayout,
        controller: SignalController | None,
    ) -> None:  # fmt: skip
        self._sumo, self._settings, self._layout, self._controller = sumo, settings, layout, controller
        self._begin = network.begin
        count = len(layout.signals)
        self._names, self._states = [signal.name for signal in layout.signals], layout.states
        self._watch = TrafficWatch(layout, settings.decide_every)
        self._current = layout.first[:-1].copy()
        self._since = np.zeros(count)
        self._turning: dict[int, tuple[int, str, tuple[str, ...]]] = {}
        self._halting, self._vehicles = np.zeros(len(layout.lanes)), np.zeros(len(layout.lanes))
        self._waiting = np.zeros(count)
        self._queues: list[float] = []
        self._outside, self._peak, self._switches, self._stopped = 0.0, 0, 0, False
        self._clocks = [0.0, 0.0]
        self._second = 0

    def play(self, stop_above: int | None) -> None:
        """Simulate to the end, or until too many are inside."""
        settings = self._settings
        start = time.process_time()
        if self._controller is not None:
            for name, place in zip(self._names, self._current.tolist(), strict=True):
                self._sumo.trafficlight.setRedYellowGreenState(name, self._states[place])
        while self._second < settings.seconds:
            self._look()
            if stop_above is not None and self._inside > stop_above:
                self._stopped = True
                break
            self._clear()
            turning = False if self._controller is None else self._decide()
            now = time.process_time()
            self._clocks[1] += now - start
            if turning:
                self._go(min(self._second + settings.yellow, settings.seconds))
                self._clear()
            self._go(min(self._second - self._second % settings.decide_every + settings.decide_every, settings.seconds))
            start = time.process_time()
            self._clocks[0] += start - now

    def _go(self, second: int) -> None:
        self._sumo.simulationStep(self._begin + second)
        self._second = second

    def _look(self) -> None:
        count, halting = self._sumo.lane.getLastStepVehicleNumber, self._sumo.lane.getLastStepHaltingNumber
        vehicles = [count(lane) for lane in self._layout.lanes]
        self._vehicles[:] = vehicles
        self._halting[:] = [halting(lane) if n else 0 for lane, n in zip(self._layout.lanes, vehicles, strict=True)]
        pending = len(self._sumo.simulation.getPendingVehicles())
        self._inside = self._sumo.vehicle.getIDCount() + pending
        self._peak = max(self._peak, self._inside)
        self._outside += pending * self._settings.decide_every
        queue = self._layout.reach @ self._halting
        self._waiting += self._settings.decide_every * (self._layout.before @ queue)
        self._queues.append(float(queue.sum()) + pending)

    def _decide(self) -> bool:
        """Ask the controller; returns whether a signal shows yellow now."""
        assert self._controller is not None
        settings = self._settings
        green_for = np.maximum(self._second - self._since, 0.0)
        free = green_for >= settings.min_green
        sight = self._watch.sight(
            self._second, self._current.copy(), green_for, free, self._halting, self._vehicles
        )  # fmt: skip
        wanted = self._controller.decide(sight)
        turning = np.flatnonzero(free & (wanted != self._current)).tolist()
        for i in turning:
            signal, before, after = self._layout.signals[i], self._states[self._current[i]], int(wanted[i])
            state = signal.between(before, self._states[after])
            self._sumo.trafficlight.setRedYellowGreenState(signal.name, state)
            self._turning[i] = (self._second + settings.yellow, state, _inside(signal, state))
            self._current[i] = after
            self._since[i] = np.inf
        self._switches += len(turning)
        return bool(turning)

    def _clear(self) -> None:
        """Give green where yellow is over and nobody stands inside on a way that lost it, or has stood too long."""
        lights, standing = self._sumo.trafficlight, self._sumo.lane.getLastStepHaltingNumber
        for i, (over, state, inside) in list(self._turning.items()):
            if self._second < over:
                continue
            name = self._names[i]
            if self._second < over + self._settings.clearing and any(map(standing, inside)):
                lights.setRedYellowGreenState(name, state.replace("y", "r"))
                continue
            lights.setRedYellowGreenState(name, self._states[self._current[i]])
            self._since[i] = self._second
            del self._turning[i]

    def outcome(self, trips: Path) -> TrafficOutcome:
        """What happened, after SUMO has written its records."""
        return TrafficOutcome(
            trip_totals(trips), float(self._second), self._stopped, self._peak, self._waiting, self._outside,
            np.array(self._queues), self._switches, *self._clocks,
        )  # fmt: skip
