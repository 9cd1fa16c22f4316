"""An episode of a pursuit, written down for pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.objectives.pursuit_settings import PursuitSettings
from searchlib.objectives.pursuit_starts import pursuit_starts
from searchlib.objectives.pursuit_tasks import PursuitTask, PursuitTasks
from searchlib.objectives.pursuit_world import Pursuers, PursuitWorld

__all__ = ["PursuitTrajectory", "record_pursuit"]

Floats = NDArray[np.float32]


@final
@dataclass(frozen=True, eq=False)
class PursuitTrajectory:
    """Where everything was in every state, in m; ``steps + 1`` states.

    Arguments:
        settings: of the world.
        task: of the world.
        pursuers: shape ``(steps + 1, pursuers, dimension)``.
        evader: shape ``(steps + 1, dimension)``.
        obstacles: centers of balls, or feet of posts, shape ``(steps + 1, obstacles, dimension)``.
        post_heights: in m, shape ``(obstacles,)``; negative where none stands; zeros in a box.
        captured: whether a pursuer was within the capture radius, shape ``(steps + 1,)``.
    """

    settings: PursuitSettings
    task: PursuitTask
    pursuers: Floats
    evader: Floats
    obstacles: Floats
    post_heights: Floats
    captured: NDArray[np.bool_]

    @property
    def times(self) -> NDArray[np.float64]:
        """In s, shape ``(steps + 1,)``."""
        return np.arange(len(self.evader), dtype=np.float64) * self.settings.dt


def record_pursuit(settings: PursuitSettings, task: PursuitTask, pursuers: Pursuers) -> PursuitTrajectory:
    """Run one world and write it down; it is the world that a rollout runs.

    Example:
        >>> from searchlib.objectives.pursuit_heuristics import Janosov
        >>> trajectory = record_pursuit(PursuitSettings(steps=50), PursuitTask(2.0, 1.0, 1.0, 0.15, seed=3), Janosov())
        >>> trajectory.pursuers.shape, trajectory.evader.shape
        ((51, 3, 2), (51, 2))
    """
    tasks = PursuitTasks.of([task])
    starts, only = pursuit_starts(settings, tasks), np.zeros(1, np.intp)
    world, team = PursuitWorld(settings, tasks, starts, only), pursuers.take(only)
    states: list[tuple[Any, ...]] = []
    for time in range(settings.steps + 1):
        sight = world.sight()
        caught = bool((sight.distance < world.capture_radius).any())
        places = (world.pursuers[..., 0].T, world.evader[:, 0, 0], world.arena.obstacles[..., 0].T)
        states.append((*(place.copy() for place in places), caught))
        if time < settings.steps:
            world.step(team.command(sight), sight)
    chase, evader, obstacles, captured = (np.array(part) for part in zip(*states, strict=True))
    return PursuitTrajectory(settings, task, chase, evader, obstacles, starts.tops[:, 0], captured)
