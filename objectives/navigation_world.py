"""Whole episodes of many worlds: who decides on goals, who steers, and a compiled loop in between.

A call of the compiled loop always takes the same number of worlds, in groups that share an executor: what is missing is
filled up. So it is compiled once for a team size, and a world does not depend on its company.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objectives.navigation_controller import ProportionalSteering
from searchlib.objectives.navigation_executor import NavigationExecutor
from searchlib.objectives.navigation_layouts import NavigationLayouts
from searchlib.objectives.navigation_orca import OrcaSteering
from searchlib.objectives.navigation_outcome import NavigationOutcome
from searchlib.objectives.navigation_physics import Motion, physics_of
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_sight import NavigationSight

__all__ = ["Decide", "NavigationPaths", "Steering", "SteeringLaw", "navigate"]

#: How agents go to their goals: learned, or by a rule with two gains.
SteeringLaw = NavigationExecutor | OrcaSteering | ProportionalSteering
#: Worlds of a group.
_WIDTH = 16
#: Of positions ``(n, agents, dimension)``, velocities and layouts of n worlds, the goal of every agent ``(n, agents)``.
Decide = Callable[[NDArray[np.float32], NDArray[np.float32], NavigationLayouts, NDArray[np.intp]], NDArray[np.intp]]


@final
@dataclass(frozen=True, eq=False)
class Steering:
    """How agents go to their goals.

    Arguments:
        law: a network, or a rule.
        rows: parameters of n teams, shape ``(n, parameters)``.
        inner_loop: of flights: numbers of the law that turns velocities to thrust and body rates, shape ``(40,)``.
    """

    law: SteeringLaw
    rows: NDArray[np.float32]
    inner_loop: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.rows)


class NavigationPaths(NamedTuple):
    """Where everything was at every step of n worlds; a world rests once all its goals are occupied.

    Arguments:
        agents: shape ``(steps + 1, n, agents, dimension)``, in m.
        goals: of every agent, the number of its goal, shape ``(steps + 1, n, agents)``.
        done: until which step, shape ``(n,)``.
    """

    agents: NDArray[np.float32]
    goals: NDArray[np.intp]
    done: NDArray[np.int64]


def navigate(
    settings: NavigationSettings, layouts: NavigationLayouts, steering: Steering, decide: Decide, *,
    every: int | None = None, record: bool = False,
) -> tuple[NavigationOutcome, NavigationPaths | None]:  # fmt: skip
    """Play whole episodes: every team in every layout.

    Arguments:
        settings: of all worlds.
        layouts: ``c`` layouts.
        steering: ``n`` teams.
        decide: says who goes where; it is told the team of every world.
        every: steps after which goals are decided on again; None: never.
        record: whether paths are kept.

    Returns:
        what happened, and where everything was, worlds in the order team by team.

    Raises:
        MissingDependency: jaxmarl (discs), or crazyflow (flights), or jax is not installed.
        InvalidSettings: nothing to play, or layouts of another dimension.
    """
    if not len(steering) or not len(layouts):
        raise InvalidSettings(f"there is nothing to play: {len(steering)} teams and {len(layouts)} layouts")
    if layouts.starts.shape[2] != settings.dimension:
        given = layouts.starts.shape[2]
        raise InvalidSettings(f"worlds have {settings.dimension} dimensions, but layouts have {given}")
    groups = [
        (team, np.arange(first, min(first + _WIDTH, len(layouts))))
        for team in range(len(steering)) for first in range(0, len(layouts), _WIDTH)
    ]  # fmt: skip
    width = _groups(layouts.agents)
    parts = [
        _played(settings, layouts, steering, decide, groups[first : first + width], every, record)
        for first in range(0, len(groups), width)
    ]  # fmt: skip
    steps, collisions, covered = (np.concatenate([part[0][i] for part in parts]) for i in range(3))
    outcome = NavigationOutcome(steps.astype(np.int64), collisions.astype(np.int64), covered, settings.steps)
    if not record:
        return outcome, None
    agents, goals = (np.concatenate([part[1][i] for part in parts], axis=1) for i in range(2))
    return outcome, NavigationPaths(agents, goals, outcome.steps)


def _groups(agents: int) -> int:
    """Groups of a call: fewer where worlds are larger."""
    return 32 if agents <= 10 else 8 if agents <= 20 else 4


def _played(
    settings: NavigationSettings, layouts: NavigationLayouts, steering: Steering, decide: Decide,
    groups: Sequence[tuple[int, NDArray[Any]]], every: int | None, record: bool,
) -> tuple[Any, Any]:  # fmt: skip
    """One call's worth of worlds: what happened in them and, if wanted, where everything was."""
    count = _groups(layouts.agents)
    which, team = np.zeros((count, _WIDTH), np.intp), np.zeros(count, np.intp)
    for i, (one, places) in enumerate(groups):
        team[i], which[i] = one, places[0]
        which[i, : len(places)] = places
    real = np.concatenate([np.arange(len(places)) + _WIDTH * i for i, (_, places) in enumerate(groups)])
    advance, start = _compiled(_at_work(settings), steering.law, layouts.agents, count)
    law = np.zeros(40, np.float32) if steering.inner_loop is None else np.asarray(steering.inner_loop, np.float32)
    flat = layouts.take(which.ravel())
    some, teams = layouts.take(which.ravel()[real]), np.repeat(team, _WIDTH)[real]
    goals, posts = (np.asarray(part, np.float32) for part in (flat.goals, flat.pillars))
    chosen = np.tile(np.arange(layouts.agents), (len(flat), 1))
    state = start(*(np.asarray(part, np.float32) for part in (flat.starts, flat.velocities)))
    walked: list[tuple[Any, Any]] = []
    last, next_decision = 0, 0
    while last < settings.steps and not bool(np.asarray(state[1].done)[real].all()):
        if last == next_decision:
            motion: Motion = state[0]
            decided = decide(np.asarray(motion.position)[real], np.asarray(motion.velocity)[real], some, teams)
            chosen[real] = decided
            next_decision = settings.steps if every is None else last + every
            aims = np.take_along_axis(goals, chosen[..., None], axis=1)
        if record:
            walked.append((np.asarray(state[0].position)[real], chosen[real]))
        last = last + 1 if record else min(next_decision, settings.steps)
        state = advance(steering.rows[team], law, state, aims, goals, posts, np.int32(last))
    noted = state[1]
    told = [np.asarray(part)[real] for part in (noted.steps, noted.collisions, noted.covered)]
    if not record:
        return told, None
    walked.append((np.asarray(state[0].position)[real], chosen[real]))
    walked += [walked[-1]] * (settings.steps + 1 - len(walked))
    return told, tuple(np.stack(part) for part in zip(*walked, strict=True))


def _at_work(settings: NavigationSettings) -> NavigationSettings:
    """The settings without what a step does not depend on, so that fewer loops are compiled."""
    flight = settings.flight and replace(settings.flight, steps=settings.flight.decide_every)
    return replace(settings, steps=1, start_speed=0.0, flight=flight)


class _Noted(NamedTuple):
    """Of every world: steps until all goals are occupied, whether they are, overlapping pairs, most goals occupied."""

    steps: Any
    done: Any
    collisions: Any
    covered: Any


@functools.lru_cache(maxsize=32)
def _compiled(
    settings: NavigationSettings, law: SteeringLaw, agents: int, count: int
) -> tuple[Any, Any]:
    """Functions that begin ``count`` groups of worlds and that go on with them until a step, or until all are done."""
    physics = physics_of(settings, agents)
    jax = importlib.import_module("jax")
    jnp = jax.numpy
    worlds = count * _WIDTH
    lead = (count, _WIDTH)
    pairs = jnp.triu(jnp.ones((agents, agents), bool), 1)

    def start(starts: Any, velocities: Any) -> Any:
        motion = physics.start(starts, velocities)
        noted = _Noted(
            jnp.zeros(worlds, int), jnp.zeros(worlds, bool), jnp.zeros(worlds, int), jnp.zeros(worlds)
        )  # fmt: skip
        return motion, noted, jnp.int32(0)

    def advance(rows: Any, inner: Any, state: Any, aims: Any, goals: Any, posts: Any, until: Any) -> Any:
        def step(state: Any) -> Any:
            motion, noted, now = state
            seen = NavigationSight(*(
                part.reshape(*lead, -1, settings.dimension) for part in (motion.position, motion.velocity, aims, posts)
            ))  # fmt: skip
            command = law.command(rows, seen, settings, jnp).reshape(worlds, agents, settings.dimension)
            moved = physics.step(motion, command, posts, inner)
            # A world that is done rests, so that its last state is the one that counted.
            still = noted.done[:, None, None]
            shown = Motion(
                jnp.where(still, motion.position, moved.position), jnp.where(still, motion.velocity, moved.velocity),
                moved.body,
            )  # fmt: skip
            apart = _apart(shown.position, shown.position, jnp)
            overlaps = ((apart < settings.touch) & pairs).sum(axis=(1, 2))
            occupied = (_apart(shown.position, goals, jnp) <= settings.reached).any(axis=1).mean(axis=-1)
            going = ~noted.done
            return shown, _Noted(
                noted.steps + going, noted.done | (occupied >= 1), noted.collisions + going * overlaps,
                jnp.maximum(noted.covered, occupied),
            ), now + 1  # fmt: skip

        return jax.lax.while_loop(lambda state: (state[2] < until) & ~state[1].done.all(), step, state)

    return jax.jit(advance), jax.jit(start)


def _apart(first: Any, second: Any, xp: Any) -> Any:
    offset = first[:, :, None] - second[:, None]
    return xp.sqrt((offset * offset).sum(axis=-1))
