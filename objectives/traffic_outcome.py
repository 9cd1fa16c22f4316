"""What happened in a rollout of a traffic network, counted so that nobody who waits is forgotten."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["TrafficOutcome", "TripTotals", "trip_totals"]


class TripTotals(NamedTuple):
    """Sums over SUMO's trip records, those of vehicles that are still driving or never got in included.

    Arguments:
        due: vehicles that should have departed.
        inserted: those that did.
        arrived: those that reached their goal.
        delay: seconds lost in traffic (``timeLoss``) and waiting for insertion (``departDelay``).
        travel: seconds under way of those inserted.
        arrived_travel: of those that arrived.
    """

    due: int
    inserted: int
    arrived: int
    delay: float
    travel: float
    arrived_travel: float


class TrafficOutcome(NamedTuple):
    """What happened.

    Arguments:
        trips: sums over all vehicles.
        seconds: simulated; fewer than asked for where the rollout was stopped.
        stopped: whether it was stopped because too many vehicles were inside.
        peak: most vehicles inside or waiting for insertion.
        waiting: vehicle seconds in queues before each signal, shape ``(I,)``.
        outside: vehicle seconds waiting for insertion.
        queues: standing vehicles and those waiting for insertion at every decision, shape ``(decisions,)``.
        switches: changes of phase, of all signals.
        simulating: processor seconds in SUMO.
        deciding: processor seconds in looking and deciding.
    """

    trips: TripTotals
    seconds: float
    stopped: bool
    peak: int
    waiting: NDArray[np.float64]
    outside: float
    queues: NDArray[np.float64]
    switches: int
    simulating: float
    deciding: float

    @property
    def delay(self) -> float:
        """Seconds per vehicle that should have departed."""
        return self.trips.delay / max(1, self.trips.due)

    @property
    def never_inserted(self) -> int:
        """Vehicles that waited for insertion until the end."""
        return self.trips.due - self.trips.inserted

    @property
    def travel_time(self) -> float:
        """Mean seconds under way of the vehicles that departed (CityLight's ATT)."""
        return self.trips.travel / max(1, self.trips.inserted)


def trip_totals(file: Path) -> TripTotals:
    """Sums over a file of SUMO's trip records, written with ``write-unfinished`` and ``write-undeparted``."""
    due = inserted = arrived = 0
    delay = travel = arrived_travel = 0.0
    for _, trip in ElementTree.iterparse(file):
        if trip.tag != "tripinfo":
            continue
        due += 1
        departed, ended = float(trip.get("depart", -1)) >= 0, float(trip.get("arrival", -1)) >= 0
        duration = float(trip.get("duration", 0))
        delay += float(trip.get("departDelay", 0)) + (float(trip.get("timeLoss", 0)) if departed else 0.0)
        if departed:
            inserted += 1
            travel += duration
        if ended:
            arrived += 1
            arrived_travel += duration
        trip.clear()
    return TripTotals(due, inserted, arrived, delay, travel, arrived_travel)
