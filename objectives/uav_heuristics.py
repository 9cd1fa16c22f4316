"""Teams that need no learning: Janosov, Angelani and a potential field, in OPEN's arena; and a layer for safety.

The laws and constants are those of :mod:`searchlib.objectives.pursuit_heuristics`, as functions of arrays with worlds
in front, so that they can be compiled (``xp`` is :mod:`numpy` or ``jax.numpy``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from searchlib.objectives.pursuit_heuristics import Angelani, Janosov, PotentialField
from searchlib.objectives.uav_rules import cylinder_gaps, length, mate_offsets
from searchlib.objectives.uav_settings import UavSettings
from searchlib.objectives.uav_sight import UavSight

__all__ = ["HEURISTICS", "capped", "heuristic_command", "safe_command"]

_NEAR, _TOUCH, _MARGIN = 1e-5, 1e-9, 0.05
#: The layer for safety: how fast a gap may close, as a share of it per second; how far ahead gaps are measured, in s;
#: what is kept beyond the distances that count as collisions, in m (cylinders; wall and ceiling; mates), and the least
#: height, in m.
_CLOSING, _AHEAD, _KEEP, _KEEP_WALL, _KEEP_MATES, _FLOOR = 2.0, 0.15, 0.075, 0.1, 0.08, 0.25
#: Gaps that leave less than this beyond twice the distance to keep are closed, in m.
_NARROW = 0.1
#: How often the command is bent, each time by what it breaks most.
_SWEEPS = 4


def capped(command: Any, most: float, xp: Any) -> Any:
    """Vectors no longer than ``most``."""
    return command * xp.minimum(most / length(command, xp), 1.0)


def _unit(vectors: Any, xp: Any) -> Any:
    return vectors / (xp.sqrt((vectors * vectors).sum(axis=-1, keepdims=True)) + _TOUCH)


def _janosov(chase: Any, offsets: Any, apart: Any, xp: Any) -> Any:
    law = Janosov()
    towards = (offsets * (law.spacing / (apart + _NEAR) - 1)).sum(axis=-2)
    return law.gain * (chase + law.weight * _unit(towards, xp))


def _angelani(chase: Any, offsets: Any, apart: Any, xp: Any) -> Any:
    law = Angelani()
    decline = 1 + xp.exp((apart - law.reach) / law.width)
    return law.gain * (chase + law.weight * (offsets / ((apart + _NEAR) * decline)).sum(axis=-2))


def _potential(chase: Any, offsets: Any, apart: Any, xp: Any) -> Any:
    law = PotentialField()
    near = apart + _NEAR
    return law.gain * (chase + (offsets * ((law.lam / near - 0.5) / near)).sum(axis=-2))


_Law = Callable[[Any, Any, Any, Any], Any]
#: By name: unit vectors to the evader, offsets from the mates and their lengths become forces.
HEURISTICS: Mapping[str, _Law] = {"janosov": _janosov, "angelani": _angelani, "potential field": _potential}


def heuristic_command(law: _Law, sight: UavSight, settings: UavSettings, xp: Any) -> Any:
    """A heuristic's velocity commands, always at full speed, shape ``(…, drones, 3)``.

    Arguments:
        law: one of :data:`HEURISTICS`.
        sight: what the team knows.
        settings: of the arena.
        xp: array module.
    """
    to_evader = sight.evader[..., None, :] - sight.drones
    offsets = mate_offsets(sight.drones, xp)
    apart = xp.sqrt((offsets * offsets).sum(axis=-1, keepdims=True))
    chase = to_evader / (xp.sqrt((to_evader * to_evader).sum(axis=-1, keepdims=True)) + _NEAR)
    force = law(chase, offsets, apart, xp) + away_from_everything(sight, settings, xp)
    return settings.speed * _unit(force, xp)


def away_from_everything(sight: UavSight, settings: UavSettings, xp: Any) -> Any:
    """What pushes drones off cylinders and the wall, as in the authors' heuristics: 1 / gap."""
    unit, gap = cylinder_gaps(sight.drones, sight.cylinders, settings, xp)
    posts = (unit / ((gap - _MARGIN).clip(0.0) + _TOUCH)[..., None]).sum(axis=-2)
    flat = sight.drones[..., :2]
    from_axis = xp.sqrt((flat * flat).sum(axis=-1, keepdims=True))
    wall = -flat / ((from_axis + _NEAR) * ((settings.radius - from_axis).clip(0.0) + _TOUCH))
    return xp.concatenate([posts + wall, xp.zeros_like(flat[..., :1])], axis=-1)


def safe_command(command: Any, sight: UavSight, settings: UavSettings, xp: Any) -> Any:
    """The nearest command, or almost, by which no gap closes too fast: to cylinders, mates, wall, floor and ceiling.

    A control barrier: towards whatever is h metres beyond the distance that must be kept, no faster than 2 h per
    second; from what is too near, away. Each of two mates keeps to half of it. Gaps are those that the present
    velocity would lead to soon, because a drone needs time to stop.

    Arguments:
        command: velocities in m/s, shape ``(…, drones, 3)``.
        sight: what the team knows.
        settings: of the arena.
        xp: array module.
    """
    away, room = _barriers(sight.drones + _AHEAD * sight.velocity, sight.cylinders, settings, xp)
    out = capped(command, settings.speed, xp)
    for _ in range(_SWEEPS):
        lacking = -_CLOSING * room - (out[..., None, :] * away).sum(axis=-1)
        worst = lacking.max(axis=-1, keepdims=True)
        chosen = lacking >= worst  # a cylinder at the end of a closed gap is the same barrier twice
        share = chosen * worst.clip(0.0) / chosen.sum(axis=-1, keepdims=True)
        out = out + (away * share[..., None]).sum(axis=-2)
    return capped(out, settings.speed, xp)


def _barriers(soon: Any, cylinders: Any, settings: UavSettings, xp: Any) -> tuple[Any, Any]:
    """Unit vectors away from all that must not be touched ``(…, drones, k, 3)``, and the room before it, in m."""
    unit, gap = cylinder_gaps(soon, cylinders, settings, xp)
    closed_unit, closed = _closed_gaps(soon, cylinders, settings, xp)
    unit, gap = xp.concatenate([unit, closed_unit], axis=-2), xp.concatenate([gap, closed], axis=-1)
    offsets = mate_offsets(soon, xp)
    apart = length(offsets, xp)
    flat = soon[..., :2]
    from_axis = length(flat, xp)
    z = soon[..., 2:]
    level = xp.concatenate([xp.zeros_like(flat), xp.ones_like(z)], axis=-1)
    beside = xp.concatenate([unit, -(flat / from_axis)[..., None, :]], axis=-2)
    away = xp.concatenate(
        [
            xp.concatenate([beside, xp.zeros_like(beside[..., :1])], axis=-1), offsets / apart, level[..., None, :],
            -level[..., None, :],
        ], axis=-2,
    )  # fmt: skip
    room = xp.concatenate(
        [
            gap - settings.clearance - _KEEP, settings.radius - from_axis - _KEEP_WALL,
            0.5 * (apart[..., 0] - settings.spacing - _KEEP_MATES), z - _FLOOR, settings.height - z - _KEEP_WALL,
        ], axis=-1,
    )  # fmt: skip
    return away, room


def _closed_gaps(soon: Any, cylinders: Any, settings: UavSettings, xp: Any) -> tuple[Any, Any]:
    """The nearest of the gaps that are too narrow to fly through, as a wall: unit vectors ``(…, drones, 1, 2)``, gaps.

    Between two cylinders, and between a cylinder and the wall of the arena. In the middle of a narrow gap no cylinder
    pushes back where one came from.
    """
    first, second = (xp.asarray(part) for part in np.triu_indices(cylinders.shape[-2], 1))
    from_axis = length(cylinders, xp)
    ends = xp.concatenate([cylinders[..., second, :], cylinders * (settings.radius / from_axis)], axis=-2)
    begins = xp.concatenate([cylinders[..., first, :], cylinders], axis=-2)
    way = ends - begins
    long = (way * way).sum(axis=-1)
    posts = xp.asarray([2.0] * len(first) + [1.0] * cylinders.shape[-2]) * settings.cylinder_radius
    narrow = (long < (posts + 2 * settings.clearance + _NARROW) ** 2)
    narrow = narrow & (length(begins, xp)[..., 0] < settings.radius)
    beside = soon[..., :, None, :2] - begins[..., None, :, :]
    share = ((beside * way[..., None, :, :]).sum(axis=-1) / (long[..., None, :] + 1e-12)).clip(0.0, 1.0)
    beside = beside - share[..., None] * way[..., None, :, :]
    apart = length(beside, xp)
    gap = xp.where(narrow[..., None, :], apart[..., 0] - settings.cylinder_radius, 1e3)
    nearest = gap.min(axis=-1, keepdims=True)
    unit = beside / apart
    # Two segments that share a cylinder are as near as each other at its end, with the same direction there.
    chosen = gap <= nearest
    unit = (unit * chosen[..., None]).sum(axis=-2, keepdims=True) / chosen.sum(axis=-1)[..., None, None]
    return unit, nearest
