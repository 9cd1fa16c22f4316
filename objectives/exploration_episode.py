"""Single episodes of an exploration from Python: what happened, and where everybody was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.objectives.exploration_maps import FloorPlan
from searchlib.objectives.exploration_nodes import Topology
from searchlib.objectives.exploration_planner import Planner
from searchlib.objectives.exploration_rules import Rule
from searchlib.objectives.exploration_settings import ExplorationSettings
from searchlib.objectives.exploration_world import REACHED, Record, explore, team_arrays

__all__ = ["ExplorationEpisode", "play", "record_episode"]

_NOTHING = Planner(np.zeros(0), np.zeros(0), np.zeros(2, np.int64), 0.0, 0.0, 0.0, 5)


@final
@dataclass(frozen=True, eq=False)
class ExplorationEpisode:
    """Everything in every state of one episode, for pictures.

    Arguments:
        plan: the building.
        paths: cells (row, column) of all agents, ``(steps + 1, n, 2)``.
        goals: cells of their goals, ``(steps + 1, n, 2)``; −1 where there is none yet.
        first_seen: the step at which a cell was first known, shaped as the plan; −1 where it never was.
        mains: main nodes in the order in which they were made, ``(m, 2)``.
        reached: steps to every share of :data:`~searchlib.objectives.exploration_world.REACHED`, ``(5,)``.
    """

    plan: FloorPlan
    paths: NDArray[np.int64]
    goals: NDArray[np.int64]
    first_seen: NDArray[np.int32]
    mains: NDArray[np.int64]
    reached: NDArray[np.float64]

    @property
    def steps(self) -> int:
        """How many were made."""
        return len(self.paths) - 1

    def covered(self, step: int) -> float:
        """Share of the free cells that were known after a step."""
        free = ~self.plan.walls
        return float((free & (self.first_seen >= 0) & (self.first_seen <= step)).sum() / free.sum())


def play(
    settings: ExplorationSettings, plan: FloorPlan, seed: int, agents: int, how: Planner | Rule
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps to every share of coverage and the overlap there, ``(5,)`` each.

    Arguments:
        settings: of the episode.
        plan: where.
        seed: of the starts (and of random trees).
        agents: how many.
        how: a planner, or one of the rules.
    """
    nothing = np.empty((0, agents), np.int64)
    record = Record(
        *_unreached(settings), nothing, nothing, np.empty(0, np.int32)
    )
    _explore(settings, plan, seed, agents, how, record)
    return record.steps, record.overlap


def record_episode(
    settings: ExplorationSettings, plan: FloorPlan, seed: int, agents: int, how: Planner | Rule
) -> ExplorationEpisode:
    """The same episode with all its states."""
    shape = (settings.steps + 1, agents)
    record = Record(
        *_unreached(settings), np.zeros(shape, np.int64), np.zeros(shape, np.int64),
        np.full(plan.walls.size, -1, np.int32),
    )  # fmt: skip
    steps, nodes = _explore(settings, plan, seed, agents, how, record)
    width = plan.walls.shape[1]

    def places(cells: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(cells[..., None] < 0, -1, np.stack([cells // width, cells % width], -1))

    return ExplorationEpisode(
        plan, places(record.paths[: steps + 1]), places(record.goals[: steps + 1]),
        record.first_seen.reshape(plan.walls.shape), places(nodes), record.steps,
    )  # fmt: skip


def _explore(
    settings: ExplorationSettings, plan: FloorPlan, seed: int, agents: int, how: Planner | Rule, record: Record
) -> tuple[int, NDArray[np.int64]]:
    """How many steps were made, and the cells of the main nodes."""
    height, width = plan.walls.shape
    starts = plan.starts(seed, agents).astype(np.int64)
    if isinstance(how, Rule):
        rule = np.array([how.way, how.utility, how.exclusion, how.voronoi], np.float64)
    else:
        rule = np.array([-1.0, 0.0, 0.0, 0.0])
    planner: Any = _NOTHING if isinstance(how, Rule) else how
    topology: Topology = settings.topology
    flat = starts[:, 0] * width + starts[:, 1]
    walls = plan.walls.ravel().astype(np.uint8)
    team = team_arrays(height, width, flat, settings.steps, seed % 2**31)
    steps = explore(walls, width, settings.lidar, rule, planner, topology, team, record)
    return int(steps), team.net.nodes[: team.net.counts[0]]


def _unreached(settings: ExplorationSettings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps and overlaps as long as nothing has been covered."""
    return np.full(len(REACHED), float(settings.steps)), np.full(len(REACHED), np.nan)


