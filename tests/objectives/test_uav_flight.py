"""Quadrotors by crazyflow: what physics says of hovering, falling and turning, and the inner loop that tracks."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest

pytest.importorskip("jax")
if importlib.util.find_spec("crazyflow") is None:  # it refuses to be imported here after scipy: see uav_flight
    pytest.skip("crazyflow is not installed", allow_module_level=True)

from searchlib.cases import Split
from searchlib.errors import MissingDependency
from searchlib.objectives import uav_flight
from searchlib.objectives.uav_flight import fleet
from searchlib.objectives.uav_inner_loop import INNER_LOOP_WEIGHTS, VelocityTracking, linearized
from searchlib.objectives.uav_settings import UavSettings
from searchlib.space import Candidates

DRONES = fleet("cf2x_L250", 500)
START = np.array([[0.0, 0.0, 1.0]] * 4, np.float32)


@pytest.fixture(scope="module")
def flown():
    """States after a tenth of a second of: hovering, falling, a nod to the front, and full thrust."""
    import jax
    import jax.numpy as jnp

    weight = DRONES.weight
    commands = jnp.array([[0, 0, 0, weight], [0, 0, 0, 0], [0, 1.0, 0, weight], [0, 0, 0, DRONES.most_thrust]])
    play = jax.jit(lambda state: jax.lax.scan(lambda s, _: (DRONES.step(s, commands), None), state, length=50)[0])
    return {name: np.asarray(part) for name, part in play(DRONES.start(jnp.array(START)))._asdict().items()}


def test_hovering_takes_the_weight_and_stays_where_it_is(flown):
    assert pytest.approx(0.0328 * 9.81, rel=0.01) == DRONES.weight
    np.testing.assert_allclose(flown["position"][0], START[0], atol=1e-3)
    np.testing.assert_allclose(flown["velocity"][0], 0, atol=0.02)


def test_rotors_that_spin_down_let_it_fall_no_faster_than_gravity(flown):
    assert -9.81 * 0.1 < flown["velocity"][1, 2] < -0.15
    assert flown["rotor"][1].max() < flown["rotor"][0].min()


def test_body_rates_are_followed_and_turn_the_thrust_forward(flown):
    assert flown["rate"][2, 1] == pytest.approx(1.0, abs=0.5)
    assert np.abs(flown["rate"][2, [0, 2]]).max() < 0.05
    assert flown["quaternion"][2, 1] > 0.01
    assert flown["velocity"][2, 0] > 0
    np.testing.assert_allclose(np.linalg.norm(flown["quaternion"], axis=1), 1, atol=1e-5)


def test_more_thrust_than_weight_climbs_no_faster_than_it_can(flown):
    most = (DRONES.most_thrust / DRONES.weight - 1) * 9.81
    assert 0.05 < flown["velocity"][3, 2] < most * 0.1


def test_commands_have_bounds():
    wild = np.array([[9.0, -9.0, 0.0, 99.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, -5.0]])
    command = DRONES.command(wild, np)
    np.testing.assert_allclose(command[0], [np.pi, -np.pi, 0, DRONES.most_thrust], rtol=1e-5)
    np.testing.assert_allclose(command[1:], [[0, 0, 0, DRONES.weight], [0, 0, 0, 0]])


def test_the_linear_law_tracks_about_as_well_as_the_geometric_one_and_zeros_do_not():
    objective = VelocityTracking(UavSettings(), holdout=8)
    cases = objective.cases(Split.HOLDOUT)
    rows = np.stack([np.zeros(INNER_LOOP_WEIGHTS, np.float32), linearized()])
    nothing, law = objective.evaluate(Candidates(objective.space, rows), cases).mean(axis=1)
    geometric = objective.evaluate_reference("geometric", cases).mean()
    assert law < 1.1 * geometric
    assert law < 0.9 * nothing


def test_without_crazyflow_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(MissingDependency, match=r"searchlib\[rollout\]"):
        uav_flight.jax_modules()
