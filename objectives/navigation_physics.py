"""How agents move: discs of the multi-agent particle environments, by ``jaxmarl``, or Crazyflies, by ``crazyflow``."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from searchlib.errors import MissingDependency
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.uav_flight import fleet, jax_modules
from searchlib.objectives.uav_heuristics import capped
from searchlib.objectives.uav_inner_loop import inner_command

__all__ = ["Motion", "Physics", "disc_environment", "physics_of"]


class Motion(NamedTuple):
    """The state of n worlds.

    Arguments:
        position: in m, shape ``(n, agents, dimension)``.
        velocity: in m/s, of the same shape.
        body: what else a flight remembers; None for discs.
    """

    position: Any
    velocity: Any
    body: Any = None


class Physics(NamedTuple):
    """Functions of JAX arrays.

    Arguments:
        start: positions and velocities ``(n, agents, dimension)`` to a state.
        step: a state, commands of length 1 at most ``(n, agents, dimension)``, pillars ``(n, pillars, dimension)`` and
            the law of an inner loop ``(40,)`` (:mod:`~searchlib.objectives.uav_inner_loop`) to the state a step later.
    """

    start: Callable[[Any, Any], Motion]
    step: Callable[[Motion, Any, Any, Any], Motion]


def disc_environment(settings: NavigationSettings, agents: int) -> Any:
    """JaxMARL's ``SimpleMPE`` with the agents, then the pillars, as its entities.

    Goals are no entities: they push nobody. Unlike MAGE-X's copy of these environments, JaxMARL (as PettingZoo) moves
    by the velocity of before the step.

    Raises:
        MissingDependency: jaxmarl is not installed.
    """
    try:
        with _quiet():
            simple = importlib.import_module("jaxmarl.environments.mpe.simple")
    except ImportError as error:
        raise MissingDependency("particle worlds need jaxmarl: pip install 'searchlib[rollout]'") from error
    jnp = importlib.import_module("jax.numpy")
    posts = settings.posts(agents)
    return simple.SimpleMPE(
        agents, agents=[f"agent_{i}" for i in range(agents)], num_landmarks=posts, action_type="Continuous",
        max_steps=settings.steps, dt=settings.dt, damping=settings.damping, contact_force=settings.contact_force,
        contact_margin=settings.contact_margin, accel=jnp.full(agents, settings.force),
        rad=jnp.concatenate([jnp.full(agents, settings.radius), jnp.full(posts, settings.pillar_radius)]),
        collide=jnp.full(agents + posts, True),
    )  # fmt: skip


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """JaxMARL tells which of its environments it has found, on the streams that Python began with."""
    kept = {name: getattr(sys, name) for name in ("stdout", "stderr", "__stdout__", "__stderr__")}
    try:
        for name in kept:
            setattr(sys, name, io.StringIO())
        yield
    finally:
        for name, stream in kept.items():
            setattr(sys, name, stream)


def physics_of(settings: NavigationSettings, agents: int) -> Physics:
    """Discs, or a fleet of quadrotors.

    Raises:
        MissingDependency: jaxmarl (discs), or crazyflow (flights), or jax is not installed.
    """
    return _discs(settings, agents) if settings.flight is None else _flight(settings, agents)


def _discs(settings: NavigationSettings, agents: int) -> Physics:
    env = disc_environment(settings, agents)
    jax = importlib.import_module("jax")
    jnp = jax.numpy
    state_type = importlib.import_module("jaxmarl.environments.mpe.simple").State
    key = jax.random.PRNGKey(0)  # scales noise of forces, of which there is none

    def one(position: Any, velocity: Any, command: Any, pillars: Any) -> tuple[Any, Any]:
        everything = jnp.concatenate([position, pillars])
        speeds = jnp.concatenate([velocity, jnp.zeros_like(pillars)])
        state = state_type(p_pos=everything, p_vel=speeds, c=jnp.zeros((agents, 0)), done=False, step=0)
        moved, turned = env._world_step(key, state, command * settings.force)
        return moved[:agents], turned[:agents]

    every = jax.vmap(one)

    def step(motion: Motion, command: Any, pillars: Any, inner_loop: Any) -> Motion:
        del inner_loop
        return Motion(*every(motion.position, motion.velocity, command, pillars))

    return Physics(Motion, step)


def _flight(settings: NavigationSettings, agents: int) -> Physics:
    flight = settings.flight
    assert flight is not None
    jax = jax_modules()
    jnp, scan = jax.numpy, jax.lax.scan
    drones = fleet(flight.drone, flight.physics_rate)

    def seen(body: Any, goal: Any) -> Motion:
        shape = (-1, agents, 3)
        return Motion(body.position.reshape(shape), body.velocity.reshape(shape), (body, goal))

    def start(positions: Any, velocities: Any) -> Motion:
        goal = velocities.reshape(-1, 3)
        body = drones.start(positions.reshape(-1, 3))._replace(velocity=goal)
        return seen(body, goal)

    def step(motion: Motion, command: Any, pillars: Any, inner_loop: Any) -> Motion:
        del pillars
        body, last = motion.body
        # What is flown follows the command no faster than drones can tilt.
        change = flight.speed * command.reshape(-1, 3) - last
        goal = last + capped(change, flight.acceleration * settings.dt, jnp)

        def control(state: Any, _: Any) -> tuple[Any, None]:
            ctbr = inner_command(inner_loop, state, goal, drones, jnp)
            return scan(lambda one, _: (drones.step(one, ctbr), None), state, length=flight.substeps)[0], None

        body, _ = scan(control, body, length=flight.decide_every)
        return seen(body, goal)

    return Physics(start, step)

