"""Crazyflies in flight: rotors, rigid body and the firmware's rate controller, by the ``crazyflow`` package on JAX."""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, final

from searchlib.errors import MissingDependency

__all__ = ["Fleet", "FlightState", "fleet", "jax_modules"]

#: Share of the rotors' thrust that a command may ask for, and the largest body rate in rad/s (OPEN: 180 °/s).
_MOST_THRUST, _MOST_RATE = 0.9, 3.14159265


class FlightState(NamedTuple):
    """Of many drones, in front: positions (m), quaternions (x, y, z, w), velocities, body rates, rotors in rpm.

    ``last_rate`` and ``last_command`` are what the rate controller differentiates.
    """

    position: Any
    quaternion: Any
    velocity: Any
    rate: Any
    rotor: Any
    last_rate: Any
    last_command: Any


@final
@dataclass(frozen=True, eq=False)
class Fleet:
    """One model of drone at one rate.

    Arguments:
        weight: in N, what hovering takes.
        most_thrust: that a command may ask for, in N.
        start: positions ``(n, 3)`` to drones that hover level there.
        step: state and command ``(n, 4)`` (body rates in rad/s and thrust in N) to the state a physics step later.
        body: quaternions ``(n, 4)`` and vectors ``(n, 3)`` to these vectors in the frames of the bodies.
    """

    weight: float
    most_thrust: float
    start: Callable[[Any], FlightState]
    step: Callable[[FlightState, Any], FlightState]
    body: Callable[[Any, Any], Any]

    def command(self, raw: Any, xp: Any) -> Any:
        """Collective thrust and body rates of numbers ``(n, 4)`` without bounds: tanh for rates, shares of the weight.

        Zeros hover.
        """
        rates = _MOST_RATE * xp.tanh(raw[..., :3])
        thrust = (self.weight * (1 + raw[..., 3:])).clip(0.0, self.most_thrust)
        return xp.concatenate([rates, thrust], axis=-1)


def jax_modules() -> Any:
    """``jax``, which this module needs, and only when something flies.

    Raises:
        MissingDependency: jax or crazyflow is not installed.
    """
    try:
        jax = importlib.import_module("jax")
        _crazyflow()
    except ImportError as error:
        raise MissingDependency("flying needs crazyflow and jax: pip install 'searchlib[rollout]'") from error
    return jax


@functools.cache
def _crazyflow() -> Mapping[str, Any]:
    """Its functions, with jax's rotations in the place of scipy's.

    They are the same class. But scipy's take arrays of jax only where ``SCIPY_ARRAY_API`` was set before scipy was
    first imported, which this library does on its way; without it crazyflow refuses to be imported.
    """
    before = os.environ.get("SCIPY_ARRAY_API")
    os.environ["SCIPY_ARRAY_API"] = "1"
    try:
        names = ("dynamics.first_principles", "dynamics.core", "control.mellinger", "control.core")
        found = [importlib.import_module(f"crazyflow.{name}") for name in names]
    finally:
        if before is None:
            del os.environ["SCIPY_ARRAY_API"]
        else:
            os.environ["SCIPY_ARRAY_API"] = before
    rotations = importlib.import_module("jax.scipy.spatial.transform").Rotation
    for name in ("dynamics.first_principles.dynamics", "control.mellinger.control"):
        sys.modules[f"crazyflow.{name}"].R = rotations  # type: ignore[attr-defined]
    physics, physics_numbers, control, control_numbers = found
    return {
        "rotation": rotations, "dynamics": physics.dynamics, "dynamics_of": physics_numbers.load_fn_params,
        "rates": control.body_rate2force_torque, "rotors": control.force_torque2rotor_vel,
        "control_of": control_numbers.load_fn_params,
    }  # fmt: skip


@functools.cache
def fleet(drone: str, physics_rate: int) -> Fleet:
    """A model of drone, ``cf2x_L250`` being the Crazyflie 2.x, stepped at ``physics_rate`` Hz.

    The rate controller is the firmware's, without its terms that level the drone: pure body rates, as in OPEN.

    Raises:
        MissingDependency: jax or crazyflow is not installed.
    """
    jnp = jax_modules().numpy
    parts = _crazyflow()
    rotation, dynamics = parts["rotation"], parts["dynamics"]
    physics = parts["dynamics_of"](dynamics, drone, xp=jnp)
    control = parts["control_of"](parts["rates"], drone, xp=jnp)
    control = {**control, "kR": 0.0 * control["kR"], "ki_m": 0.0 * control["ki_m"]}
    mixing = parts["control_of"](parts["rotors"], drone, xp=jnp)
    weight = float(physics["mass"]) * -float(physics["gravity_vec"][2])
    dt = 1 / physics_rate

    def step(state: FlightState, command: Any) -> FlightState:
        force, torque, _ = parts["rates"](
            state.quaternion, state.rate, command, state.last_rate, state.last_command, None, physics_rate, **control
        )
        rotors = parts["rotors"](force, torque, **mixing)
        moved, _, acceleration, turn, spin = dynamics(
            state.position, state.quaternion, state.velocity, state.rate, rotors, state.rotor, **physics
        )
        turned = rotation.from_quat(state.quaternion) * rotation.from_rotvec(state.rate * dt)
        return FlightState(
            state.position + moved * dt, turned.as_quat(), state.velocity + acceleration * dt, state.rate + turn * dt,
            state.rotor + spin * dt, state.rate, command,
        )  # fmt: skip

    def start(position: Any) -> FlightState:
        n = len(position)
        level = jnp.zeros((n, 4)).at[:, 3].set(1.0)
        hover = jnp.zeros((n, 4)).at[:, 3].set(weight)
        rotor = parts["rotors"](hover[:, 3:], jnp.zeros((n, 3)), **mixing)
        still = jnp.zeros((n, 3))
        return FlightState(position, level, still, still, rotor, still, hover)

    def body(quaternion: Any, vectors: Any) -> Any:
        return rotation.from_quat(quaternion).inv().apply(vectors)

    return Fleet(weight, 4 * _MOST_THRUST * float(mixing["thrust_max"]), start, step, body)
