"""What no team of quadrotors can beat: each alone in the world, at full speed, towards the least longest way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.objectives.navigation_assignment import bottleneck
from searchlib.objectives.navigation_layouts import NavigationLayouts
from searchlib.objectives.navigation_physics import physics_of
from searchlib.objectives.navigation_settings import NavigationSettings

__all__ = ["AT_FULL_SPEED", "progress", "steps_at_full_speed"]

#: The name of its row.
AT_FULL_SPEED = "at full speed, nobody in the way"

_DIRECTIONS = 64


def progress(settings: NavigationSettings, inner_loop: NDArray[Any], steps: int) -> NDArray[np.float64]:
    """How far the fastest of 64 drones gets from rest that are told to fly straight at full speed, in m, ``(steps,)``.

    Arguments:
        settings: of a flight.
        inner_loop: law of its inner loop.
        steps: how many.
    """
    import jax
    import jax.numpy as jnp

    physics, law = physics_of(settings, 1), jnp.asarray(inner_loop)
    ways = np.random.default_rng(0).normal(size=(_DIRECTIONS, 1, 3))
    ways /= np.linalg.norm(ways, axis=-1, keepdims=True)
    nothing = jnp.zeros((_DIRECTIONS, 0, 3))
    step = jax.jit(lambda motion, command: physics.step(motion, command, nothing, law))
    motion, found = physics.start(jnp.zeros_like(ways), jnp.zeros_like(ways)), []
    for _ in range(steps):
        motion = step(motion, jnp.asarray(ways))
        found.append((np.asarray(motion.position) * ways).sum(axis=-1).max())
    return np.maximum.accumulate(found)


def steps_at_full_speed(
    settings: NavigationSettings, inner_loop: NDArray[Any], layouts: NavigationLayouts
) -> NDArray[np.int64]:  # fmt: skip
    """Steps after which every goal could be occupied at the earliest, shape ``(layouts,)``.

    Somebody has to fly at least as far as the longest way of the assignment whose longest way is least. Mates are no
    obstacles and nobody brakes.
    """
    ways = np.linalg.norm(layouts.goals[:, None] - layouts.starts[:, :, None], axis=-1)
    longest = np.take_along_axis(ways, bottleneck(ways)[..., None], axis=2).max(axis=(1, 2))
    reached = progress(settings, inner_loop, settings.steps)
    return 1 + np.searchsorted(reached, longest - settings.reached)
