"""The simulator: whole episodes of many worlds in one compiled loop, drones flown by ``crazyflow``.

A call always takes the same number of worlds, in groups that share a policy: what is missing is filled up. So it is
compiled once, and a world does not depend on its company.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objectives.uav_flight import fleet, jax_modules
from searchlib.objectives.uav_heuristics import HEURISTICS, capped, heuristic_command, safe_command
from searchlib.objectives.uav_inner_loop import inner_command
from searchlib.objectives.uav_outcome import UavOutcome
from searchlib.objectives.uav_policy import UavNetwork
from searchlib.objectives.uav_predictor import FRAME_SIZE, FRAMES, MOMENTS, UavPredictor, frame, predicted
from searchlib.objectives.uav_rules import collided, confined, evader_force, length, sees
from searchlib.objectives.uav_settings import DRONES, UavSettings
from searchlib.objectives.uav_sight import UavSight
from searchlib.objectives.uav_tasks import UavTasks

__all__ = ["GROUPS", "WIDTH", "UavPaths", "UavTeams", "rollout"]

#: Worlds of a call: so many groups with a policy each, of so many worlds.
GROUPS = 32
WIDTH = 32
#: Where an axis that does not stand is put, in m.
_GONE = 1e3


@final
@dataclass(frozen=True, eq=False)
class UavTeams:
    """Who flies.

    Arguments:
        network: the policy, or None for heuristics.
        rows: parameters of each team's policy, shape ``(n, parameters)``; for heuristics n names.
        inner_loop: numbers of the law that turns velocity commands to thrust and body rates, shape ``(40,)``.
        predictor: None: nobody predicts.
        safe: whether commands pass the layer for safety.
    """

    network: UavNetwork
    rows: Any
    inner_loop: NDArray[np.float32]
    predictor: UavPredictor | None = None
    safe: bool = True

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def modes(self) -> NDArray[np.int32]:
        """0 for a policy, else the number of the heuristic, from 1; shape ``(n,)``."""
        if isinstance(self.rows, np.ndarray):
            return np.zeros(len(self.rows), np.int32)
        known = list(HEURISTICS)
        if not set(self.rows) <= set(known):
            raise InvalidSettings(f"the heuristics are {', '.join(known)}, but {self.rows!r} were asked for")
        return np.array([known.index(name) + 1 for name in self.rows], np.int32)


class UavPaths(NamedTuple):
    """Where everything was at every decision of n worlds.

    Arguments:
        drones: shape ``(decisions, n, drones, 3)``.
        evader: shape ``(decisions, n, 3)``.
        believed: where it was last seen, shape ``(decisions, n, 3)``.
        seen: shape ``(decisions, n)``.
        captured: whether there was a capture until the next decision, shape ``(decisions, n)``.
    """

    drones: NDArray[np.float32]
    evader: NDArray[np.float32]
    believed: NDArray[np.float32]
    seen: NDArray[np.bool_]
    captured: NDArray[np.bool_]


def rollout(
    settings: UavSettings, tasks: UavTasks, teams: UavTeams, pairs: NDArray[np.intp] | None = None
) -> tuple[UavOutcome, UavPaths]:
    """Play whole episodes.

    Arguments:
        settings: of all worlds.
        tasks: ``c`` tasks.
        teams: ``n`` teams; every one meets every task.
        pairs: None, or some of all n · c worlds instead, as numbers (team · c + task), in any order.

    Returns:
        what happened, and where everything was, worlds in the order team by team (or that of ``pairs``).

    Raises:
        MissingDependency: jax or crazyflow is not installed.
    """
    wanted = np.arange(len(teams) * len(tasks)) if pairs is None else np.asarray(pairs, np.intp)
    team, task = np.divmod(wanted, max(1, len(tasks)))
    groups = _groups(team)
    play = _compiled(settings, teams.network)
    outcomes, paths = [], []
    order = np.concatenate([places for _, places in groups]) if groups else np.empty(0, np.intp)
    for first in range(0, len(groups), GROUPS):
        some = groups[first : first + GROUPS]
        places = np.concatenate([np.arange(len(part)) + WIDTH * i for i, (_, part) in enumerate(some)])
        outcome, path = play(*_filled(settings, tasks, teams, some, task))
        outcomes.append([np.asarray(part).reshape(-1)[places] for part in outcome])
        paths.append([_flat(part)[:, places] for part in path])
    back = np.argsort(order)
    if not outcomes:
        raise InvalidSettings("there is nothing to play: no teams or no tasks")
    told = [np.concatenate(parts)[back] for parts in zip(*outcomes, strict=True)]
    walked = [np.concatenate(parts, axis=1)[:, back] for parts in zip(*paths, strict=True)]
    capture, collision, distance, held, fastest = told
    return UavOutcome(
        capture.astype(np.int64), collision < settings.steps, collision.astype(np.int64), distance,
        held.astype(np.int64), fastest, settings.steps,
    ), UavPaths(*walked)  # fmt: skip


def _flat(part: Any) -> NDArray[Any]:
    array = np.asarray(part)
    return array.reshape(len(array), GROUPS * WIDTH, *array.shape[3:])


def _groups(team: NDArray[np.intp]) -> list[tuple[int, NDArray[np.intp]]]:
    """Positions of worlds in groups of one team each, at most :data:`WIDTH` of them."""
    found = []
    for one in np.unique(team).tolist():
        places = np.flatnonzero(team == one)
        found += [(one, places[first : first + WIDTH]) for first in range(0, len(places), WIDTH)]
    return found


def _filled(
    settings: UavSettings, tasks: UavTasks, teams: UavTeams, groups: list[tuple[int, NDArray[np.intp]]],
    task: NDArray[np.intp],
) -> tuple[Any, ...]:  # fmt: skip
    """The arrays of a call; worlds that are missing repeat the first one."""
    which = np.zeros((GROUPS, WIDTH), np.intp)
    team = np.zeros(GROUPS, np.intp)
    for i, (one, places) in enumerate(groups):
        team[i], which[i] = one, task[places[0]]
        which[i, : len(places)] = task[places]
    modes = teams.modes
    rows = np.zeros((GROUPS, teams.network.parameters), np.float32)
    if isinstance(teams.rows, np.ndarray):
        rows[:] = teams.network.rows(teams.rows)[team]
    posts = np.where(tasks.stands[..., None], tasks.cylinders, _GONE)[which]
    predictor = teams.predictor or _nobody()
    starts = (tasks.drones[which], tasks.evader[which], posts, tasks.gains(settings.gain_spread)[which])
    flags = np.array([teams.safe, teams.predictor is not None])
    return (rows, modes[team], flags, np.asarray(teams.inner_loop, np.float32), predictor.weights,
            *(np.asarray(part, np.float32) for part in starts))  # fmt: skip


@functools.cache
def _nobody() -> UavPredictor:
    """Weights of the usual shapes that predict nothing."""
    frames = np.zeros((1, FRAMES, FRAME_SIZE), np.float32)
    return UavPredictor.fit(frames, np.zeros((1, len(MOMENTS), 3), np.float32), epochs=1)


@functools.lru_cache(maxsize=4)
def _compiled(settings: UavSettings, network: UavNetwork) -> Any:
    """The episodes of ``GROUPS × WIDTH`` worlds as one function."""
    jax = jax_modules()
    jnp, scan = jax.numpy, jax.lax.scan
    fliers = fleet(settings.drone, settings.physics_rate)
    shape = (GROUPS, WIDTH)

    def play(rows, modes, flags, law, predictor, drones, evader, posts, gains):  # type: ignore[no-untyped-def]
        def where(flight: Any) -> Any:
            return flight.position.reshape(*shape, DRONES, 3)

        def command(flight: Any, believed: Any, seen: Any, frames: Any) -> Any:
            future = jnp.where(flags[1], predicted(predictor, frames, jnp), believed[..., None, :])
            up = jnp.zeros((GROUPS * WIDTH * DRONES, 3)).at[:, 2].set(1.0)
            # A rotation's inverse turns the other way: here, from the body to the world.
            back = flight.quaternion * jnp.array([-1.0, -1.0, -1.0, 1.0])
            sight = UavSight(
                where(flight), flight.velocity.reshape(*shape, DRONES, 3),
                fliers.body(back, up).reshape(*shape, DRONES, 3), believed, seen * 1.0, future, posts,
            )  # fmt: skip
            wanted = network.command(rows, sight, settings, jnp)
            for number, rule in enumerate(HEURISTICS.values(), 1):
                chosen = (modes == number)[:, None, None, None]
                wanted = jnp.where(chosen, heuristic_command(rule, sight, settings, jnp), wanted)
            return jnp.where(flags[0], safe_command(wanted, sight, settings, jnp), wanted).reshape(-1, 3)

        def control(carry: Any, step: Any, goal: Any) -> Any:
            flight, prey, visible, noted = carry
            ctbr = inner_command(law, flight, goal, fliers, jnp)
            flight, _ = scan(lambda one, _: (fliers.step(one, ctbr), None), flight, length=settings.substeps)
            force = evader_force(prey, where(carry[0]), visible, posts, gains, settings, jnp)
            prey = confined(prey + settings.evader_speed * settings.dt * force / length(force, jnp), settings, jnp)
            apart = length(where(flight) - prey[..., None, :], jnp)[..., 0]
            visible = sees(where(flight), prey, posts, settings, jnp)
            caught = ((apart < settings.capture_radius) & visible).any(axis=-1)
            crash = collided(where(flight), posts, settings, jnp)
            speed = length(flight.velocity, jnp).reshape(*shape, DRONES).max(axis=-1)
            capture, collision, nearest, held, fastest = noted
            noted = (
                jnp.minimum(capture, jnp.where(caught, step, settings.steps)),
                jnp.minimum(collision, jnp.where(crash, step, settings.steps)),
                jnp.minimum(nearest, apart.min(axis=-1)), held + caught, jnp.maximum(fastest, speed),
            )  # fmt: skip
            return (flight, prey, visible, noted), caught

        def decide(carry: Any, first: Any) -> Any:
            flight, prey, visible, noted, believed, frames, last = carry
            seen = visible.any(axis=-1)
            believed = jnp.where(seen[..., None], prey, believed)
            now = frame(believed, seen * 1.0, where(flight), jnp)[..., None, :]
            later = jnp.concatenate([frames[..., 1:, :], now], axis=-2)
            frames = jnp.where(first == 0, jnp.repeat(now, FRAMES, axis=-2), later)
            change = command(flight, believed, seen, frames) - last
            goal = last + capped(change, settings.acceleration * settings.dt * settings.decide_every, jnp)
            start = (where(flight), prey, believed, seen)
            steps = first + jnp.arange(settings.decide_every)
            moving, caught = scan(lambda c, s: control(c, s, goal), (flight, prey, visible, noted), steps)
            return (*moving, believed, frames, goal), (*start, caught.any(axis=0))

        nothing = jnp.zeros(shape)
        never = jnp.full(shape, settings.steps)
        noted = (never, never, nothing + jnp.inf, jnp.zeros(shape, int), nothing)
        carry = (
            fliers.start(drones.reshape(-1, 3)), evader, sees(drones, evader, posts, settings, jnp), noted,
            jnp.broadcast_to(jnp.array([0.0, 0.0, settings.height / 2]), (*shape, 3)),
            jnp.zeros((*shape, FRAMES, FRAME_SIZE)), jnp.zeros((GROUPS * WIDTH * DRONES, 3)),
        )  # fmt: skip
        (*_, noted, _, _, _), path = scan(decide, carry, settings.decide_every * jnp.arange(settings.decisions))
        return noted, path

    return jax.jit(play)
