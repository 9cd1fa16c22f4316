"""A road network as arrays: which lanes a phase serves, how far their queues reach, who feeds whom.

CityLight (arXiv 2406.02126) turns every intersection into the same few slots, its phases re-indexed by axis and its
upstream neighbors by the axis they feed. Here a phase is told by the lanes it serves, so that phases need no order and
may be any number, and a neighbor by how much of a phase it feeds.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from searchlib.errors import InvalidSettings
from searchlib.objectives.traffic_network import Link, Signal, TrafficNetwork
from searchlib.objectives.traffic_settings import NEIGHBORS

__all__ = ["TrafficLayout", "laid_out"]

#: How far upstream a neighbor may be, and how far downstream it matters whether there is room, in m.
_FARTHEST, _ROOM = 800.0, 60.0
#: Matrices up to so many numbers are faster as arrays than sparse.
_DENSE = 30_000


@final
@dataclass(frozen=True, eq=False)
class TrafficLayout:
    """Arrays of a network with I signals, P phases, C lanes that end at a signal, K ways across, and L measured lanes.

    Arguments:
        signals: in order.
        lanes: names of all that is measured.
        lengths: of them in m, shape ``(L,)``.
        owner: signal of a phase, shape ``(P,)``.
        first: a signal's first phase, shape ``(I + 1,)``, P at the end.
        reach: share of what is on a measured lane that stands before a controlled one, ``(C, L)``; sparse where large.
        own: the controlled lanes among the measured ones, shape ``(C,)``.
        green: share of a lane's ways that a phase opens, ``(P, C)``; sparse where large.
        way_lane: the controlled lane that a way across a junction leaves, shape ``(K,)``.
        opens: whether a phase opens a way, ``(P, K)``, 0 or 1; sparse where large.
        protected: the same of ways that need not yield.
        beyond: mean over the lanes a phase leads to, ``(P, L)``; rows add up to 1.
        before: lanes of a signal, ``(I, C)``, 0 or 1.
        neighbors: up to four upstream signals, nearest first, −1 where there is none, shape ``(I, 4)``.
        distance: of the road between, in m, shape ``(I, 4)``.
        width: lanes by which a neighbor's road arrives, shape ``(I, 4)``.
        feeds: share of a phase's lanes that a neighbor feeds, shape ``(P, 4)``.
        sends: whether a phase sends to the signal that has its signal in a slot, shape ``(I, 4, most phases)``.
        queues: neighbors' lanes from which one gets to a signal, ``(4 I, C)``, 0 or 1.
    """

    signals: tuple[Signal, ...]
    lanes: tuple[str, ...]
    lengths: NDArray[np.float64]
    owner: NDArray[np.intp]
    first: NDArray[np.intp]
    reach: Any
    own: NDArray[np.intp]
    green: Any
    way_lane: NDArray[np.intp]
    opens: Any
    protected: Any
    beyond: Any
    before: Any
    neighbors: NDArray[np.intp]
    distance: NDArray[np.float64]
    width: NDArray[np.float64]
    feeds: NDArray[np.float64]
    sends: NDArray[np.float64]
    queues: Any

    @cached_property
    def _served(self) -> NDArray[np.intp]:
        return _table(self.green, len(self.own))

    @cached_property
    def _opened(self) -> NDArray[np.intp]:
        return _table(self.opens, len(self.way_lane))

    @cached_property
    def lane_ways(self) -> NDArray[np.intp]:
        """Ways that leave the lane of a way, shape ``(K,)``."""
        return np.bincount(self.way_lane)[self.way_lane]

    def most(self, lanes: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest of numbers from 0 ``(C,)`` over the lanes of every phase, shape ``(P,)``."""
        return np.asarray(np.append(lanes, 0.0)[self._served].max(axis=1))

    def most_way(self, ways: NDArray[np.float64]) -> NDArray[np.float64]:
        """The largest of numbers from 0 ``(K,)`` over the ways that every phase opens, shape ``(P,)``."""
        return np.asarray(np.append(ways, 0.0)[self._opened].max(axis=1))

    def open_ways(self, phases: NDArray[np.intp]) -> NDArray[np.intp]:
        """Ways that these phases open."""
        found = self._opened[phases].ravel()
        return np.asarray(found[found < len(self.way_lane)])

    @cached_property
    def ways(self) -> NDArray[np.float64]:
        """Lanes that a phase opens, those opened in part in proportion, shape ``(P,)``."""
        return np.asarray(self.green.sum(axis=1), np.float64).ravel()

    @cached_property
    def before_lanes(self) -> NDArray[np.float64]:
        """Meters over which the queue of a lane is measured, shape ``(C,)``."""
        return np.asarray(self.reach @ self.lengths)

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """Whether a neighbor feeds a phase, and whether it does not, shape ``(P, 2, 4)``."""
        feeds = self.feeds > 0
        return np.stack([feeds, ~feeds], axis=1).astype(np.float64)

    @cached_property
    def edges(self) -> NDArray[np.float64]:
        """Length of a neighbor's road in units of 500 m and its lanes in units of 3, shape ``(I, 4, 2)``."""
        return np.stack([np.minimum(self.distance, 500) / 500, self.width / 3], axis=2)

    @property
    def states(self) -> tuple[str, ...]:
        """Of all P phases."""
        return tuple(state for signal in self.signals for state in signal.phases)


@lru_cache(maxsize=32)
def laid_out(network: TrafficNetwork, reach: float) -> TrafficLayout:
    """The arrays of a network, made once.

    Arguments:
        network: with at least one signal of two phases.
        reach: meters over which queues are measured, upstream.

    Raises:
        InvalidSettings: no signal has two phases.
    """
    signals = network.signals
    if not signals:
        raise InvalidSettings(f"{network.name} has no signal with two phases; there is nothing to control")
    arriving: dict[str, list[Link]] = {}
    leaving: dict[str, list[Link]] = {}
    for link in network.links:
        if link.source in network.lengths and link.target in network.lengths:
            arriving.setdefault(link.target, []).append(link)
            leaving.setdefault(link.source, []).append(link)
    controlled = tuple(dict.fromkeys(link.source for signal in signals for link in signal.links))
    back = [_upstream(lane, arriving, leaving, network.lengths, reach) for lane in controlled]
    places = _Places()
    for lane in controlled:
        places.of(lane)
    rows = [{places.of(lane): share for lane, share in shares.items()} for shares, _ in back]
    c_of = {lane: i for i, lane in enumerate(controlled)}
    owner = np.repeat(np.arange(len(signals)), [len(signal.phases) for signal in signals])
    first_way = np.cumsum([0, *(len(signal.links) for signal in signals)]).tolist()
    green, opens, protected, beyond = [], [], [], []
    for signal, begin in zip(signals, first_way, strict=False):
        for state in signal.phases:
            opens.append({begin + k: 1.0 for k, link in enumerate(signal.links) if state[link.place] in "Gg"})
            green.append(_shares(signal, state, "Gg", c_of))
            protected.append(_shares(signal, state, "G", c_of))
            beyond.append(_ahead(signal, state, leaving, network.lengths, places))
    c, size = len(controlled), len(places.names)
    opened = _matrix(green, c)
    return TrafficLayout(
        signals, tuple(places.names), np.array([network.lengths[lane] for lane in places.names]), owner,
        np.searchsorted(owner, np.arange(len(signals) + 1)), _matrix(rows, size), np.arange(c),
        opened, np.array([c_of[link.source] for signal in signals for link in signal.links]),
        _matrix(opens, first_way[-1]), _matrix(protected, c), _matrix(beyond, size),
        _matrix([{c_of[link.source]: 1.0 for link in signal.links} for signal in signals], c),
        *_neighbors(signals, owner, opened, c_of, [found for _, found in back]),
    )  # fmt: skip


class _Places:
    """Numbers of lanes, in the order in which they are asked for."""

    def __init__(self) -> None:
        self.names: dict[str, int] = {}

    def of(self, lane: str) -> int:
        return self.names.setdefault(lane, len(self.names))


def _table(matrix: Any, missing: int) -> NDArray[np.intp]:
    """Columns of every row that are not 0, filled up with a number that is none."""
    rows, columns = matrix.nonzero()
    count = np.bincount(rows, minlength=matrix.shape[0])
    table = np.full((len(count), max(1, int(count.max()))), missing, np.intp)
    for row, found in enumerate(np.split(columns, np.cumsum(count)[:-1])):
        table[row, : len(found)] = found
    return table


def _matrix(rows: Sequence[Mapping[int, float]], width: int) -> Any:
    if len(rows) * width <= _DENSE:
        dense = np.zeros((len(rows), width))
        for row, entries in zip(dense, rows, strict=True):
            row[list(entries)] = list(entries.values())
        return dense
    counts = np.cumsum([0, *map(len, rows)])
    columns = [column for row in rows for column in row]
    values = [value for row in rows for value in row.values()]
    return sparse.csr_matrix((np.array(values, float), np.array(columns, int), counts), (len(rows), width))


def _upstream(
    lane: str, arriving: Mapping[str, list[Link]], leaving: Mapping[str, list[Link]], lengths: Mapping[str, float],
    reach: float,
) -> tuple[dict[str, float], dict[tuple[str, int], float]]:  # fmt: skip
    """Shares of lanes whose traffic comes to a lane, and ways across signals by which it comes, with their distance."""
    shares: dict[str, float] = {}
    found: dict[tuple[str, int], float] = {}
    best: dict[str, float] = {}
    heap = [(0.0, lane, 1.0)]
    while heap:
        near, here, share = heapq.heappop(heap)
        if here in best:
            continue
        best[here] = near
        if near < reach:
            shares[here] = share
        far = near + lengths[here]
        for link in arriving.get(here, ()):
            if link.signal:
                found.setdefault((link.signal, link.place), far)
            elif far < _FARTHEST:
                heapq.heappush(heap, (far, link.source, share / len(leaving[link.source])))
    return shares, found


def _shares(signal: Signal, state: str, letters: str, places: Mapping[str, int]) -> dict[int, float]:
    """Of every lane of a signal: the share of its ways whose letter in the state is one of these, if any."""
    ways: dict[str, list[bool]] = {}
    for link in signal.links:
        ways.setdefault(link.source, []).append(state[link.place] in letters)
    return {places[lane]: float(np.mean(opened)) for lane, opened in ways.items() if any(opened)}


def _ahead(
    signal: Signal, state: str, leaving: Mapping[str, list[Link]], lengths: Mapping[str, float], places: _Places
) -> dict[int, float]:
    """The lanes a phase leads to, and those after them where they are short, with weights that add up to 1."""
    targets = dict.fromkeys(link.target for link in signal.links if state[link.place] in "Gg")
    weights: dict[int, float] = {}

    def follow(lane: str, weight: float, room: float) -> None:
        onward = [link.target for link in leaving.get(lane, ()) if not link.signal and link.target in lengths]
        share = weight if room <= lengths[lane] or not onward else weight * lengths[lane] / room
        place = places.of(lane)
        weights[place] = weights.get(place, 0.0) + share
        if share < weight:
            for target in onward:
                follow(target, (weight - share) / len(onward), room - lengths[lane])

    for target in targets:
        follow(target, 1 / len(targets), _ROOM)
    return weights


def _neighbors(
    signals: Sequence[Signal], owner: NDArray[np.intp], opened: Any, c_of: Mapping[str, int],
    found: Sequence[Mapping[tuple[str, int], float]],
) -> tuple[Any, ...]:  # fmt: skip
    """The last six fields of :class:`TrafficLayout`."""
    number = {signal.name: i for i, signal in enumerate(signals)}
    source = {(signal.name, link.place): link.source for signal in signals for link in signal.links}
    most = int(np.bincount(owner).max())
    slots = (len(signals), NEIGHBORS)
    neighbors, distance, width = np.full(slots, -1, np.intp), np.zeros(slots), np.zeros(slots)
    feeds, sends = np.zeros((len(owner), NEIGHBORS)), np.zeros((*slots, most))
    queues: list[dict[int, float]] = [{} for _ in range(len(signals) * NEIGHBORS)]
    served = np.zeros(opened.shape, bool)
    served[opened.nonzero()] = True
    for i, signal in enumerate(signals):
        for k, (length, j, fed) in enumerate(_nearest(i, signal, number, c_of, found)):
            neighbors[i, k], distance[i, k], width[i, k] = j, length, len(fed)
            mine = np.flatnonzero(owner == i)
            feeds[mine, k] = served[mine][:, list(fed)].sum(axis=1) / np.maximum(served[mine].sum(axis=1), 1)
            ways = set().union(*fed.values())
            for p, state in enumerate(signals[j].phases):
                sends[i, k, p] = any(state[place] in "Gg" for place in ways)
            queues[i * NEIGHBORS + k] = {c_of[source[signals[j].name, place]]: 1.0 for place in sorted(ways)}
    return neighbors, distance, width, feeds, sends, _matrix(queues, len(c_of))


def _nearest(
    i: int, signal: Signal, number: Mapping[str, int], c_of: Mapping[str, int],
    found: Sequence[Mapping[tuple[str, int], float]],
) -> Iterable[tuple[float, int, dict[int, set[int]]]]:  # fmt: skip
    """The nearest upstream signals of one: distance, number, and by which of their ways each of its lanes is fed."""
    roads: dict[int, tuple[float, dict[int, set[int]]]] = {}
    for lane in dict.fromkeys(link.source for link in signal.links):
        for (name, place), length in found[c_of[lane]].items():
            j = number.get(name, i)
            if j != i:
                shortest, fed = roads.setdefault(j, (length, {}))
                roads[j] = (min(shortest, length), fed)
                fed.setdefault(c_of[lane], set()).add(place)
    ranked = sorted((length, j, fed) for j, (length, fed) in roads.items())
    return ranked[:NEIGHBORS]
