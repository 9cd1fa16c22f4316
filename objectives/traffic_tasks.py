"""Tasks of traffic: a network, how much demand, and a seed that decides how drivers differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.case_source import CaseRun, CaseSource
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.objectives.traffic_network import TrafficNetwork

__all__ = ["FreshTraffic", "TrafficTask", "task_cases", "traffic_tasks"]

#: Seeds of a split; SUMO takes 31 bits.
_SEEDS = 2**28


class TrafficTask(NamedTuple):
    """One task, as the payload of a case.

    Arguments:
        network: which.
        seed: SUMO's.
        scale: of the demand.
    """

    network: TrafficNetwork
    seed: int
    scale: float


def traffic_tasks(
    networks: Sequence[TrafficNetwork], per_network: int, *, scales: tuple[float, float] = (0.9, 1.1), seed: int = 0,
    split: Split = Split.SEARCH,
) -> tuple[TrafficTask, ...]:  # fmt: skip
    """Tasks whose demand is drawn evenly from a range, as many for every network, one network after the other.

    Arguments:
        networks: which.
        per_network: tasks of each, the same seeds and demands for all.
        scales: least and largest demand; equal ones are no chance.
        seed: another seed is other tasks.
        split: tasks of two splits never share a seed of SUMO's.

    Raises:
        InvalidSettings: demands that are not positive or out of order.
    """
    count, low, high = whole_number("per_network", per_network, 0), *map(float, scales)
    if not 0 < low <= high < 10:
        raise InvalidSettings(f"scales must be a range of positive factors such as (0.9, 1.1), but are {scales!r}")
    rng = np.random.default_rng([whole_number("seed", seed, 0), list(Split).index(split)])
    seeds = list(Split).index(split) * _SEEDS + rng.choice(_SEEDS, count, replace=False)
    demands = np.round(rng.uniform(low, high, count), 3)
    pairs = list(zip(seeds.tolist(), demands.tolist(), strict=True))
    return tuple(TrafficTask(network, *pair) for network in networks for pair in pairs)


def task_cases(tasks: Sequence[TrafficTask]) -> Cases:
    """Tasks as cases, whose ids say all that tells them apart."""
    return Cases(tuple(f"{task.network.name}:{task.seed}:{task.scale:g}" for task in tasks), tuple(tasks))


@final
@dataclass(frozen=True)
class FreshTraffic(CaseSource):
    """Every generation meets other SEARCH tasks, as many of every network, all its members the same.

    Arguments:
        per_generation: tasks of a generation, a multiple of the number of networks.
    """

    per_generation: int

    def __post_init__(self) -> None:
        whole_number("per_generation", self.per_generation, 1)

    def start(self, objective: Objective, rng: np.random.Generator) -> CaseRun:
        """Begin on an objective whose cases are traffic tasks.

        Raises:
            InvalidSettings: networks cannot have as many each, or one has fewer SEARCH tasks.
        """
        cases = objective.cases(Split.SEARCH)
        groups: dict[str, list[int]] = {}
        for place, task in enumerate(cases.payload or ()):
            groups.setdefault(task.network.name, []).append(place)
        least = min(map(len, groups.values()))
        if self.per_generation % len(groups) or self.per_generation > least * len(groups):
            raise InvalidSettings(
                f"FreshTraffic(per_generation={self.per_generation}) takes as many tasks of each of {len(groups)} "
                f"network(s), one of which has {least} SEARCH task(s); choose a multiple of {len(groups)} up to "
                f"{least * len(groups)}"
            )
        return _Fresh(cases, list(groups.values()), self.per_generation // len(groups), rng)


@final
class _Fresh(CaseRun):
    def __init__(self, cases: Cases, groups: list[list[int]], count: int, rng: np.random.Generator) -> None:
        self._cases, self._groups, self._count, self._rng = cases, groups, count, rng
        self._left: list[list[int]] = [[] for _ in groups]

    def ask(self, progress: float) -> Cases:
        del progress
        chosen: list[int] = []
        for group, left in zip(self._groups, self._left, strict=True):
            if len(left) < self._count:
                again: Any = self._rng.permutation([place for place in group if place not in left])
                left.extend(again.tolist())
            chosen += left[: self._count]
            del left[: self._count]
        return self._cases.take(chosen)

    def tell(self, scores: NDArray[np.float64]) -> None:
        del scores

    def notes(self) -> Mapping[str, Any]:
        return {}
