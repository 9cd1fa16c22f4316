"""Navigation by quadrotors beside the drones themselves, stepped one by one."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest

pytest.importorskip("jax")
if importlib.util.find_spec("crazyflow") is None:  # it refuses to be imported here after scipy: see uav_flight
    pytest.skip("crazyflow is not installed", allow_module_level=True)

from searchlib.objectives.navigation import Navigation
from searchlib.objectives.navigation_controller import ProportionalSteering
from searchlib.objectives.navigation_layouts import NavigationLayouts, random_layouts
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_sight import NavigationSight
from searchlib.objectives.uav_flight import fleet, jax_modules
from searchlib.objectives.uav_heuristics import capped
from searchlib.objectives.uav_inner_loop import inner_command, linearized

SETTINGS = NavigationSettings.flying(steps=40)
AGENTS = 3
RULE = ProportionalSteering()
OBJECTIVE = Navigation(SETTINGS, AGENTS, executor=RULE, inner_loop=linearized(), search=1, holdout=0)


def test_a_step_is_a_velocity_command_flown_by_the_inner_loop():
    jax = jax_modules()
    jnp = jax.numpy
    layouts = random_layouts(SETTINGS, AGENTS, 1, np.random.default_rng(0))
    _, paths = OBJECTIVE.play(layouts, record=True)
    drones = fleet(SETTINGS.flight.drone, SETTINGS.flight.physics_rate)
    goals = layouts.goals[0][paths.goals[0, 0]]

    @jax.jit
    def control(state, goal):
        command = inner_command(jnp.asarray(linearized()), state, goal, drones, jnp)
        return jax.lax.scan(lambda one, _: (drones.step(one, command), None), state, length=5)[0]

    state, last = drones.start(jnp.asarray(layouts.starts[0], jnp.float32)), jnp.zeros((AGENTS, 3))
    for now in range(3):
        np.testing.assert_allclose(paths.agents[now, 0], state.position, atol=1e-4)
        sight = NavigationSight(
            *(jnp.asarray(part)[None, None] for part in (state.position, state.velocity, goals)),
            jnp.zeros((1, 1, 0, 3)),
        )  # fmt: skip
        wanted = RULE.command(jnp.zeros((1, 2)), sight, SETTINGS, jnp)[0, 0] * SETTINGS.flight.speed
        last = last + capped(wanted - last, SETTINGS.flight.acceleration * SETTINGS.dt, jnp)
        for _ in range(SETTINGS.flight.decide_every):
            state = control(state, last)
    assert np.abs(paths.agents[3, 0] - layouts.starts[0]).max() > 0.03


def test_drones_occupy_goals_in_three_dimensions_and_near_ones_collide():
    layouts = random_layouts(SETTINGS, AGENTS, 8, np.random.default_rng(1))
    outcome, paths = OBJECTIVE.play(layouts, matcher="bottleneck", record=True)
    assert outcome.success.all()
    assert (outcome.collisions == 0).any()
    assert np.ptp(paths.agents[..., 2]) > 0.5
    ends = paths.agents[outcome.steps, np.arange(8)]
    apart = np.linalg.norm(ends[:, :, None] - layouts.goals[:, None], axis=-1)
    assert (apart.min(axis=1) <= 0.15).all()
    near = layouts.take([0])
    starts = near.starts.copy()
    starts[0, 1] = starts[0, 0] + [0.1, 0, 0]
    close = NavigationLayouts(starts, near.velocities, near.goals, near.pillars, near.seeds)
    assert OBJECTIVE.play(close, matcher="bottleneck")[0].collisions[0] > 0
