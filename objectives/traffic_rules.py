"""Rules that lead signals without learning: max-queue, max-pressure, SOTL, and what they share.

Every rule runs on the same clock as a policy of ours, with the same yellow and least green.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.objectives.traffic_sight import VEHICLE, TrafficSight
from searchlib.objectives.traffic_world import SignalController

__all__ = ["RULES", "MaxPressure", "MaxQueue", "MaxWave", "SelfOrganizing"]


@final
@dataclass(frozen=True)
class MaxQueue(SignalController):
    """Green for the phase with the longest queues."""

    def decide(self, sight: TrafficSight) -> NDArray[np.intp]:
        """The phase with most standing vehicles."""
        return sight.best(sight.layout.green @ sight.queue)


@final
@dataclass(frozen=True)
class MaxWave(SignalController):
    """Green for the phase with most vehicles before it, standing or coming: RESCO's MaxWave."""

    def decide(self, sight: TrafficSight) -> NDArray[np.intp]:
        """The phase with most vehicles."""
        return sight.best(sight.layout.green @ (sight.queue + sight.coming))


@final
@dataclass(frozen=True)
class MaxPressure(SignalController):
    """Green for the phase with most pressure: how full its lanes are, less how full those behind it are.

    Varaiya, *Max pressure control of a network of signalized intersections*, Transportation Research C 36, 2013, with
    densities, so that lanes of different lengths compare.
    """

    def decide(self, sight: TrafficSight) -> NDArray[np.intp]:
        """The phase with most pressure."""
        layout = sight.layout
        density = (sight.queue + sight.coming) * VEHICLE / np.maximum(layout.before_lanes, VEHICLE)
        return sight.best(layout.green @ density - layout.ways * sight.room_taken)


@final
@dataclass(frozen=True)
class SelfOrganizing(SignalController):
    """SOTL: red phases count the vehicle seconds that wait; the one past a threshold with most gets its turn.

    Cools, Gershenson and D'Hooghe, *Self-organizing traffic lights: a realistic simulation*, 2007. The defaults are the
    best of eight pairs on Cologne (thresholds of 10 to 80, platoons of 0 and 2): there the platoon rule, with vehicles
    seen over 200 m, never helped.

    Arguments:
        threshold: vehicle seconds.
        platoon: vehicles that come to a green stop line and are let through first, if there are no more than these.
    """

    threshold: float = 10.0
    platoon: float = 0.0

    def decide(self, sight: TrafficSight) -> NDArray[np.intp]:
        """The phase whose count is past the threshold and largest, unless few are about to cross."""
        waited = sight.waited_for
        waits = np.where(waited >= self.threshold, waited, -1.0)
        waits[sight.current] = 0.0
        crossing = (sight.layout.green @ sight.coming)[sight.current]
        held = (crossing > 0) & (crossing <= self.platoon)
        return np.where(held, sight.current, sight.best(waits))


RULES: Mapping[str, SignalController] = {
    "max-queue": MaxQueue(), "max-wave": MaxWave(), "max-pressure": MaxPressure(), "SOTL": SelfOrganizing(),
}  # fmt: skip
