"""The inner loop of a multi-UAV pursuit: velocity commands become collective thrust and body rates (CTBR).

A linear law with 40 numbers, in the drone's own frame, which an evolution strategy finds on random commands; and the
geometric law that a control engineer would write down, beside which it is measured.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.objective import Objective
from searchlib.objectives.uav_flight import Fleet, FlightState, fleet, jax_modules
from searchlib.objectives.uav_settings import UavSettings
from searchlib.space import Candidates
from searchlib.spaces import PolicyParameters

__all__ = ["INNER_LOOP_WEIGHTS", "VelocityTracking", "geometric_command", "inner_command", "linearized"]

_INPUTS, _OUTPUTS = 10, 4
#: Numbers of the linear law.
INNER_LOOP_WEIGHTS = _INPUTS * _OUTPUTS
#: Rates of the geometric law, in 1/s: of the velocity's error, and of the tilt's.
_PUSH, _TURN = 4.0, 8.0
_GRAVITY = 9.81


def inner_command(weights: Any, state: FlightState, wanted: Any, drones: Fleet, xp: Any) -> Any:
    """The linear law's command ``(n, 4)``.

    What it sees is turned into the drone's frame, so that it does not matter where the drone looks: the error of the
    velocity, where up is, the body rates, and 1.

    Arguments:
        weights: of one law, shape ``(40,)``; or of one per drone, ``(n, 40)``.
        state: of n drones.
        wanted: velocities, in m/s, shape ``(n, 3)``.
        drones: the model.
        xp: array module.
    """
    up = xp.zeros_like(wanted).at[:, 2].set(1.0)
    error = drones.body(state.quaternion, wanted - state.velocity)
    tilt = drones.body(state.quaternion, up)
    one = xp.ones_like(up[:, :1])
    seen = xp.concatenate([error, tilt - up, 0.1 * state.rate, one], axis=-1)
    law = weights.reshape(-1, _OUTPUTS, _INPUTS)
    return drones.command((law * seen[:, None, :]).sum(axis=-1), xp)


def geometric_command(state: FlightState, wanted: Any, drones: Fleet, xp: Any) -> Any:
    """The command ``(n, 4)`` that tilts the thrust towards the wanted force (Lee et al., CDC 2010, with rates)."""
    up = xp.zeros_like(wanted).at[:, 2].set(1.0)
    force = drones.body(state.quaternion, _PUSH * (wanted - state.velocity) + _GRAVITY * up) / _GRAVITY
    size = xp.sqrt((force * force).sum(axis=-1, keepdims=True) + 1e-12)
    rates = _TURN * xp.stack([-force[:, 1], force[:, 0], xp.zeros_like(force[:, 0])], axis=-1) / size
    return drones.command(xp.concatenate([xp.arctanh((rates / np.pi).clip(-0.999, 0.999)), force[:, 2:] - 1], -1), xp)


def linearized() -> NDArray[np.float32]:
    """The geometric law for small errors and tilts as a row ``(40,)``: what a search begins with."""
    law = np.zeros((_OUTPUTS, _INPUTS), np.float32)
    push, turn = _PUSH / _GRAVITY, _TURN / np.pi
    law[0, [1, 4]] = -turn * push, -turn
    law[1, [0, 3]] = turn * push, turn
    law[2, 8] = -1.0
    law[3, [2, 5]] = push, 1.0
    return law.ravel()


@final
class VelocityTracking(Objective):
    """How far the flight of a drone is from random velocity commands, in m/s; smaller is better.

    Candidates are the 40 numbers of :func:`inner_command`; a case is a seed of commands that change twice a second for
    three seconds, no longer than 1 m/s. The value is the root of the mean squared error, over cases on average.

    Arguments:
        settings: drone and rates.
        search, select, holdout: cases of the splits.
        seed: another one is other commands.

    Raises:
        MissingDependency: jax or crazyflow is not installed (when it is evaluated).
    """

    direction: Literal["minimize"] = "minimize"
    value_names = ("velocity error",)
    chunk_rows = 32
    chunk_cases = 32
    _CHANGES, _HOLD = 6, 50

    def __init__(
        self, settings: UavSettings | None = None, *, search: int = 32, select: int = 32, holdout: int = 32,
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.settings = UavSettings() if settings is None else settings
        self.space = PolicyParameters((("law", (_OUTPUTS, _INPUTS)),), 0.3)
        self._amounts = {Split.SEARCH: search, Split.SELECT: select, Split.HOLDOUT: holdout}
        self._seed = whole_number("seed", seed, 0)

    def cases(self, split: Split) -> Cases:
        """Seeds of commands."""
        place = list(Split).index(split)
        seeds = [[self._seed, place, number] for number in range(self._amounts[split])]
        return Cases(tuple(f"commands {'/'.join(map(str, one))}" for one in seeds), seeds)

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Errors, shape ``(n, c)``."""
        return self._errors(np.asarray(candidates.array, np.float32), cases, geometric=False)

    def references(self) -> tuple[str, ...]:
        """The geometric law."""
        return ("geometric",)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Its errors, shape ``(c,)``."""
        del name
        return self._errors(np.zeros((1, INNER_LOOP_WEIGHTS), np.float32), cases, geometric=True)[0]

    def _errors(self, rows: NDArray[np.float32], cases: Cases, geometric: bool) -> NDArray[np.float64]:
        wanted = np.stack([self._commands(seed) for seed in cases.payload or ()])
        fly = _flown(self.settings, self.chunk_rows, self._HOLD, geometric)
        errors = np.empty((len(rows), len(wanted)))
        for first in range(0, len(rows), self.chunk_rows):
            part = rows[first : first + self.chunk_rows]
            padded = np.zeros((self.chunk_rows, INNER_LOOP_WEIGHTS), np.float32)
            padded[: len(part)] = part
            for case in range(0, len(wanted), self.chunk_cases):
                some = wanted[case : case + self.chunk_cases]
                filled = np.zeros((self.chunk_cases, *wanted.shape[1:]), np.float32)
                filled[: len(some)] = some
                flown = np.asarray(fly(padded, filled))
                errors[first : first + len(part), case : case + len(some)] = flown[: len(part), : len(some)]
        return np.nan_to_num(errors, nan=100.0, posinf=100.0).clip(0, 100)

    def _commands(self, seed: list[int]) -> NDArray[np.float32]:
        rng = np.random.default_rng(seed)
        ways = rng.standard_normal((self._CHANGES, 3))
        ways /= np.linalg.norm(ways, axis=1, keepdims=True)
        return np.asarray(ways * rng.random((self._CHANGES, 1)) ** 0.5, np.float32)

    def fingerprint(self) -> Mapping[str, Any]:
        """Settings and the seed."""
        return {"objective": "VelocityTracking", "settings": json.loads(json.dumps(asdict(self.settings)))}


@functools.lru_cache(maxsize=8)
def _flown(settings: UavSettings, rows: int, hold: int, geometric: bool) -> Any:
    """A compiled function from laws ``(rows, 40)`` and commands ``(c, changes, 3)`` to errors ``(rows, c)``."""
    jax = jax_modules()
    jnp, scan = jax.numpy, jax.lax.scan
    drones = fleet(settings.drone, settings.physics_rate)

    def fly(laws: Any, wanted: Any) -> Any:
        count, changes = wanted.shape[:2]
        each = jnp.repeat(laws, count, axis=0)
        goals = jnp.tile(wanted, (rows, 1, 1)).swapaxes(0, 1)

        def control(carry: Any, goal: Any) -> Any:
            state, total = carry
            if geometric:
                command = geometric_command(state, goal, drones, jnp)
            else:
                command = inner_command(each, state, goal, drones, jnp)
            state, _ = scan(lambda one, _: (drones.step(one, command), None), state, length=settings.substeps)
            miss = state.velocity - goal
            return (state, total + (miss * miss).sum(axis=-1)), None

        state = drones.start(jnp.zeros((rows * count, 3)))
        steps = jnp.repeat(goals, hold, axis=0)
        (_, total), _ = scan(control, (state, jnp.zeros(rows * count)), steps)
        return jnp.sqrt(total / (changes * hold)).reshape(rows, count)

    return jax.jit(fly)
