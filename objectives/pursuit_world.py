"""The simulator: many worlds of pursuers and one faster evader, stepped together."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.objectives.pursuit_arena import BoxArena, CylinderArena, PursuitArena, over_agents, over_axes
from searchlib.objectives.pursuit_outcome import PursuitOutcome
from searchlib.objectives.pursuit_settings import PursuitSettings
from searchlib.objectives.pursuit_starts import PursuitStarts, pursuit_starts
from searchlib.objectives.pursuit_tasks import PursuitTasks

__all__ = ["Pursuers", "PursuitSight", "PursuitWorld", "rollout"]

Floats = NDArray[np.float32]

#: Worlds that are stepped together; more fill the cache, fewer pay for calls.
_BLOCK = 1024
#: Worlds leave a batch when this share of it is done.
_DONE_SHARE = 0.25
_NEAR = np.float32(1e-5)


@final
class PursuitSight:
    """What can be seen in a state of many worlds; computed once, when it is first used.

    Attributes:
        pursuers: positions, shape ``(dimension, pursuers, n)``.
        evader: position, shape ``(dimension, 1, n)``.
        evader_velocity: that of the step before, zero at first; in m/s, shape ``(dimension, 1, n)``.
        to_evader: evader minus pursuers, shape ``(dimension, pursuers, n)``.
        distance: shape ``(pursuers, n)``.
        arena: walls and obstacles.
    """

    def __init__(self, pursuers: Floats, evader: Floats, evader_velocity: Floats, arena: PursuitArena) -> None:
        self.pursuers = pursuers
        self.evader = evader
        self.evader_velocity = evader_velocity
        self.arena = arena
        self.to_evader = evader - pursuers
        self.distance = np.sqrt(over_axes(self.to_evader * self.to_evader))

    @cached_property
    def gaps(self) -> tuple[Floats, Floats]:
        """Unit vectors from obstacles to pursuers and the gaps between them (:meth:`PursuitArena.gaps`)."""
        return self.arena.gaps(self.pursuers)

    @cached_property
    def mates(self) -> tuple[Floats, Floats]:
        """Every pursuer minus every mate, ``(dimension, pursuers, pursuers − 1, n)``, and the distances."""
        count = self.pursuers.shape[1]
        others = [[j for j in range(count) if j != i] for i in range(count)]
        places = np.array(others, np.intp).reshape(count, count - 1)
        offsets = self.pursuers[:, :, None] - self.pursuers[:, places]
        return offsets, np.sqrt(over_axes(offsets * offsets))


class Pursuers(ABC):
    """A rule by which pursuers move, or one per world."""

    @abstractmethod
    def command(self, sight: PursuitSight) -> Floats:
        """Velocities as shares of the speed limit, shape ``(dimension, pursuers, n)``; longer ones than 1 are cut."""

    def take(self, worlds: NDArray[np.intp]) -> Self:
        """The rules of these worlds, in this order; the same where there is one rule for all."""
        del worlds
        return self


@final
class PursuitWorld:
    """The states of many worlds, the worlds along the last axis.

    Arguments:
        settings: of all worlds.
        tasks: of the worlds, or of fewer (``task``).
        starts: of ``tasks``.
        task: position in ``tasks`` of every world, shape ``(n,)``.
    """

    def __init__(
        self, settings: PursuitSettings, tasks: PursuitTasks, starts: PursuitStarts, task: NDArray[np.intp]
    ) -> None:
        self.settings = settings
        self._tasks, self._starts = tasks, starts
        agents, obstacles = starts.agents.take(task, axis=-1), starts.obstacles.take(task, axis=-1)
        self.pursuers, self.evader = agents[:, :-1].copy(), agents[:, -1:].copy()
        self.evader_velocity = np.zeros_like(self.evader)
        self.obstacle_velocity = np.zeros_like(obstacles)
        self.time = 0
        self._settle(task, obstacles)

    def _settle(self, task: NDArray[np.intp], obstacles: Floats) -> None:
        """What follows from the tasks of the worlds."""
        tasks, settings = self._tasks, self.settings
        self._task = task
        half_size = tasks.half_size[task].astype(np.float32)
        self._evader_step = (tasks.evader_speed[task] * settings.dt).astype(np.float32)
        self._obstacle_step = (tasks.obstacle_speed[task] * settings.dt).astype(np.float32)
        self.capture_radius = tasks.capture_radius[task].astype(np.float32)
        self.arena: PursuitArena
        if settings.arena == "box":
            self.arena = BoxArena(settings, half_size, obstacles)
        else:
            self.arena = CylinderArena(settings, half_size, obstacles, self._starts.tops.take(task, axis=-1))

    def __len__(self) -> int:
        return len(self._task)

    def keep(self, places: NDArray[np.intp]) -> None:
        """Drop all worlds but these."""
        for name in ("pursuers", "evader", "evader_velocity", "obstacle_velocity"):
            setattr(self, name, getattr(self, name).take(places, axis=-1))
        self._settle(self._task[places], self.arena.obstacles.take(places, axis=-1))

    def sight(self) -> PursuitSight:
        """The present state."""
        return PursuitSight(self.pursuers, self.evader, self.evader_velocity, self.arena)

    def step(self, command: Floats, sight: PursuitSight) -> NDArray[np.int64]:
        """Move everything by one step, all from where everything is now.

        Arguments:
            command: velocities as shares of the speed limit, shape ``(dimension, pursuers, n)``.
            sight: the present state.

        Returns:
            how many commands of each world were too fast and have been cut, shape ``(n,)``.
        """
        settings = self.settings
        speed = np.sqrt(over_axes(command * command))
        limit = np.float32(settings.pursuer_speed * settings.dt)
        moved = self.pursuers + command * (limit / np.maximum(speed, 1))
        self.evader_velocity, self.evader = self._flight(sight)
        if self.time % settings.turn_every == 0:
            turn = self._starts.turns[self.time // settings.turn_every]
            self.obstacle_velocity = turn.take(self._task, axis=-1) * self._obstacle_step
        self.arena.move(self.obstacle_velocity)
        self.arena.confine(moved)
        self.arena.confine(self.evader)
        self.pursuers = moved
        self.time += 1
        # A unit vector in float32 may be longer than 1 by a few roundings.
        return _count(speed > np.float32(1 + 1e-5))

    def _flight(self, sight: PursuitSight) -> tuple[Floats, Floats]:
        """Velocity of the evader and where it takes it: F = Σ d̂/|d| over pursuers and obstacles, and the walls."""
        away = sight.distance + _NEAR
        force = over_agents(sight.to_evader / (away * away))[:, None]
        force += self.arena.on_evader(self.evader)
        force += self.arena.walls(self.evader)
        step = force * (self._evader_step / (np.sqrt(over_axes(force * force)) + _NEAR))
        return np.asarray(step / np.float32(self.settings.dt), np.float32), self.evader + step


def _count(marks: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many of the first axis are marked; several times faster than numpy's sum over a short axis."""
    total = marks[0].astype(np.int64)
    for row in marks[1:]:
        total += row
    return total


def rollout(
    settings: PursuitSettings,
    tasks: PursuitTasks,
    pursuers: Pursuers,
    *,
    worlds: NDArray[np.intp] | None = None,
    stop_at_capture: bool = False,
    block: int = _BLOCK,
) -> PursuitOutcome:
    """Run an episode in every world.

    A world is a pure function of its task and its pursuers, to the last bit: it does not depend on its company.

    Arguments:
        settings: of all worlds.
        tasks: ``t`` tasks.
        pursuers: how they move; where every world has a rule of its own, in the order of ``worlds``.
        worlds: the position of each world's task, shape ``(n,)``; None: one world per task.
        stop_at_capture: whether a world is over when its evader is caught, which is all that matters to whether it is.
        block: worlds stepped together; decides the time it takes and nothing else.

    Example:
        >>> from searchlib.objectives.pursuit_heuristics import PotentialField
        >>> tasks = PursuitTasks([[0.5, 0.5, 1.0, 0.15]] * 8, range(8))
        >>> outcome = rollout(PursuitSettings(), tasks, PotentialField())  # an evader that is slower than they are
        >>> int(outcome.captured.sum())
        8
    """
    task = np.arange(len(tasks)) if worlds is None else np.asarray(worlds, np.intp)
    starts = pursuit_starts(settings, tasks)
    outcome = PursuitOutcome.none(len(task), settings.steps)
    for first in range(0, len(task), block):
        rows = np.arange(first, min(first + block, len(task)))
        world = PursuitWorld(settings, tasks, starts, task[rows])
        _run(world, pursuers.take(rows), outcome, rows, stop_at_capture)
    return outcome


def _run(world: PursuitWorld, pursuers: Pursuers, outcome: PursuitOutcome, rows: NDArray[np.intp], stop: bool) -> None:
    """Write what happens in ``world`` into ``rows`` of the outcome."""
    settings = world.settings
    seen = PursuitOutcome.none(len(world), settings.steps)
    running: NDArray[np.bool_] = np.ones(len(world), bool)
    for time in range(settings.steps + 1):
        sight = world.sight()
        _measure(world, sight, seen, running, time)
        if stop:
            running &= ~seen.captured
            if np.count_nonzero(running) <= (1 - _DONE_SHARE) * len(running):
                outcome.put(rows[~running], seen, ~running)
                places = np.flatnonzero(running)
                world.keep(places)
                rows, seen, pursuers, running = rows[places], seen.take(places), pursuers.take(places), running[places]
                if not len(rows):
                    return
                sight = world.sight()
        if time < settings.steps:
            fast = world.step(pursuers.command(sight), sight) * running
            seen.over_speed[:] += fast
            seen.reward[:] -= (100 / settings.pursuers) * fast
    outcome.put(rows, seen, np.arange(len(rows)))


def _measure(
    world: PursuitWorld, sight: PursuitSight, seen: PursuitOutcome, running: NDArray[np.bool_], time: int
) -> None:
    """Add a state to what was seen of the running worlds."""
    settings = world.settings
    nearest = sight.distance[0]
    for distance in sight.distance[1:]:
        nearest = np.minimum(nearest, distance)
    inside = _count(sight.distance < world.capture_radius)
    caught = (inside > 0) & running
    seen.first_capture_step[caught & ~seen.captured] = time
    seen.captured[:] |= caught
    seen.capture_steps[:] += caught
    np.minimum(seen.min_distance, nearest, out=seen.min_distance, where=running)
    reward = np.where(inside > 0, 10 * inside, -nearest).astype(np.float32)
    if settings.obstacles:
        gaps = sight.gaps[1].reshape(-1, len(world))
        touches = _count(gaps < np.float32(settings.collision_radius)) * running
        seen.collisions[:] += touches
        reward -= (5 / settings.pursuers) * touches
    np.add(seen.reward, reward, out=seen.reward, where=running)
