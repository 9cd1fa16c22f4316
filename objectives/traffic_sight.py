"""What signals see when they decide: queues, room, and how long everybody has waited, for all phases of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.objectives.traffic_layout import TrafficLayout

__all__ = ["VEHICLE", "TrafficSight", "TrafficWatch"]

Floats = NDArray[np.float64]

#: Meters of road that a standing car takes (SUMO's passenger car of 5 m and its gap of 2.5 m).
VEHICLE = 7.5


@final
@dataclass(frozen=True, eq=False)
class TrafficSight:
    """A network with I signals, P phases and C controlled lanes at a decision.

    Arguments:
        layout: of the network.
        second: since the beginning.
        current: the phase that is green, or will be after yellow, numbered among all P, shape ``(I,)``.
        green_for: seconds it has been green, 0 during yellow, shape ``(I,)``.
        free: whether a signal may decide, shape ``(I,)``.
        queue: standing vehicles before every lane's stop line, up to the reach, shape ``(C,)``.
        coming: moving ones there, shape ``(C,)``.
        fill: share of the last piece of a lane that is full of vehicles, shape ``(C,)``.
        room_taken: how full the lanes behind a phase are, from 0 to 1, shape ``(P,)``.
        red_for: seconds since a way was open, 0 while it is, shape ``(K,)``. Of a lane's ways each has its own: whoever
            is first in the lane may want the one that stays red.
        waited: vehicle seconds of the queue before a way since then, shape ``(K,)``; a queue counts for all ways of
            its lane in equal parts.
    """

    layout: TrafficLayout
    second: float
    current: NDArray[np.intp]
    green_for: Floats
    free: NDArray[np.bool_]
    queue: Floats
    coming: Floats
    fill: Floats
    room_taken: Floats
    red_for: Floats
    waited: Floats

    @property
    def starved_for(self) -> Floats:
        """Seconds of red of the way with a queue that has waited longest, for every phase, shape ``(P,)``."""
        return self.layout.most_way(self.red_for * (self.queue > 0)[self.layout.way_lane])

    @property
    def waited_for(self) -> Floats:
        """Vehicle seconds that have waited for a phase, shape ``(P,)``."""
        return np.asarray(self.layout.opens @ self.waited)

    @property
    def is_current(self) -> Floats:
        """1 for phases that are green, shape ``(P,)``."""
        found = np.zeros(len(self.layout.owner))
        found[self.current] = 1.0
        return found

    def best(self, scores: Floats) -> NDArray[np.intp]:
        """Every signal's phase of the highest score, numbered among all P; shape ``(I,)``.

        Of equals the one that is green, else the first.
        """
        first, owner = self.layout.first[:-1], self.layout.owner
        highest = scores == np.maximum.reduceat(scores, first)[owner]
        top = np.flatnonzero(highest)
        return np.where(highest[self.current], self.current, top[np.searchsorted(top, first)])


@final
class TrafficWatch:
    """Makes sights of what is measured on lanes, and remembers what they need of the past.

    Arguments:
        layout: of the network.
        interval: seconds between two decisions.
    """

    def __init__(self, layout: TrafficLayout, interval: float) -> None:
        self._layout, self._interval = layout, interval
        self._red = np.zeros(len(layout.way_lane))
        self._waited = np.zeros(len(layout.way_lane))

    def sight(
        self, second: float, current: NDArray[np.intp], green_for: Floats, free: NDArray[np.bool_], halting: Floats,
        vehicles: Floats,
    ) -> TrafficSight:  # fmt: skip
        """The sight of a decision; call it at every one.

        Arguments:
            second, current, green_for, free: see :class:`TrafficSight`.
            halting, vehicles: on the measured lanes, shape ``(L,)``.
        """
        layout = self._layout
        both = layout.reach @ np.stack([halting, vehicles], axis=1)
        queue, coming = both[:, 0], both[:, 1] - both[:, 0]
        taken: Any = np.minimum(vehicles * VEHICLE / np.maximum(layout.lengths, VEHICLE), 1.0)
        self._red += self._interval
        self._waited += self._interval * queue[layout.way_lane] / layout.lane_ways
        opened = layout.open_ways(current)
        self._red[opened] = 0.0
        self._waited[opened] = 0.0
        return TrafficSight(
            layout, second, current, green_for, free, queue, coming, taken[layout.own], layout.beyond @ taken,
            self._red.copy(), self._waited.copy(),
        )  # fmt: skip
