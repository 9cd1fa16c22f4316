"""The rules of a multi-UAV pursuit: who sees whom, how the evader flees, what counts as capture and collision.

Pure functions of arrays, with the worlds in front; ``xp`` is :mod:`numpy` or ``jax.numpy``.
"""

from __future__ import annotations

from typing import Any

from searchlib.objectives.uav_settings import UavSettings

__all__ = ["collided", "confined", "cylinder_gaps", "evader_force", "length", "mate_offsets", "sees"]

#: Gaps on which forces are divided are at least so large, in m.
_LEAST = 0.01
#: How near to walls, floor and ceiling the evader comes, in m.
_EDGE = 0.02


def length(vectors: Any, xp: Any) -> Any:
    """Euclidean lengths along the last axis, which is kept; a little above 0, so that one may divide by them."""
    return xp.sqrt((vectors * vectors).sum(axis=-1, keepdims=True) + 1e-12)


def sees(drones: Any, evader: Any, cylinders: Any, settings: UavSettings, xp: Any) -> Any:
    """Whether the straight line from each drone to the evader passes no cylinder, shape ``(…, drones)``.

    A cylinder blocks where its axis is no further from the line than its radius and the foot of the perpendicular lies
    on the segment (``hideandseek.py``), seen from above.

    Arguments:
        drones: shape ``(…, drones, 3)``.
        evader: shape ``(…, 3)``.
        cylinders: shape ``(…, cylinders, 2)``.
        settings: the radius.
        xp: array module.
    """
    way = (evader[..., None, :2] - drones[..., :2])[..., None, :]
    to_axis = cylinders[..., None, :, :] - drones[..., None, :2]
    share = (way * to_axis).sum(axis=-1) / ((way * way).sum(axis=-1) + 1e-12)
    beside = to_axis - share[..., None] * way
    blocks = ((beside * beside).sum(axis=-1) <= settings.cylinder_radius**2) & (share >= 0) & (share <= 1)
    return ~blocks.any(axis=-1)


def evader_force(
    evader: Any, drones: Any, seen: Any, cylinders: Any, gains: Any, settings: UavSettings, xp: Any
) -> Any:  # fmt: skip
    """What drives the evader, shape ``(…, 3)``: Σ d̂/|d| over drones that see it, walls, floor, ceiling, cylinders.

    It is the gradient of the gains' sum of log |d|, log(R − r), log z + log(H − z) and log(d − radius).

    Arguments:
        evader: shape ``(…, 3)``.
        drones: shape ``(…, drones, 3)``.
        seen: by which drones, shape ``(…, drones)``.
        cylinders: shape ``(…, cylinders, 2)``.
        gains: of drones, wall, floor and ceiling, cylinders; shape ``(…, 4)``.
        settings: of the arena.
        xp: array module.
    """
    away = evader[..., None, :] - drones
    from_drones = (away / (away * away).sum(axis=-1, keepdims=True).clip(_LEAST**2) * seen[..., None]).sum(axis=-2)
    flat = evader[..., :2]
    from_axis = length(flat, xp)
    wall = -flat / (from_axis * (settings.radius - from_axis).clip(_LEAST))
    beside = flat[..., None, :] - cylinders
    apart = length(beside, xp)
    posts = (beside / (apart * (apart - settings.cylinder_radius).clip(_LEAST))).sum(axis=-2)
    z = evader[..., 2:]
    vertical = 1 / z.clip(_LEAST) - 1 / (settings.height - z).clip(_LEAST)
    across = gains[..., 1:2] * wall + gains[..., 3:4] * posts
    return gains[..., :1] * from_drones + xp.concatenate([across, gains[..., 2:3] * vertical], axis=-1)


def confined(evader: Any, settings: UavSettings, xp: Any) -> Any:
    """The evader's position, back at the edge of the arena where it has left it."""
    flat = evader[..., :2]
    shrunk = flat * xp.minimum((settings.radius - _EDGE) / length(flat, xp), 1.0)
    return xp.concatenate([shrunk, evader[..., 2:].clip(_EDGE, settings.height - _EDGE)], axis=-1)


def cylinder_gaps(drones: Any, cylinders: Any, settings: UavSettings, xp: Any) -> tuple[Any, Any]:
    """Unit vectors from the cylinders to the drones ``(…, drones, cylinders, 2)``, and the gaps between them.

    Gaps are measured to the surfaces, in m, shape ``(…, drones, cylinders)``.
    """
    beside = drones[..., :, None, :2] - cylinders[..., None, :, :]
    apart = length(beside, xp)
    return beside / apart, apart[..., 0] - settings.cylinder_radius


def mate_offsets(drones: Any, xp: Any) -> Any:
    """Each drone minus the next ones, in a circle: shape ``(…, drones, drones − 1, 3)``."""
    count = drones.shape[-2]
    others = [[(i + j) % count for j in range(1, count)] for i in range(count)]
    return drones[..., :, None, :] - drones[..., xp.asarray(others), :]


def collided(drones: Any, cylinders: Any, settings: UavSettings, xp: Any) -> Any:
    """Whether any drone is too near to a cylinder or a mate, or outside, shape ``(…)``.

    On the floor counts as outside, too.
    """
    near_post = (cylinder_gaps(drones, cylinders, settings, xp)[1] < settings.clearance).any(axis=-1)
    near_mate = (length(mate_offsets(drones, xp), xp)[..., 0] < settings.spacing).any(axis=-1)
    outside = (length(drones[..., :2], xp)[..., 0] > settings.radius) | (drones[..., 2] > settings.height)
    return (near_post | near_mate | outside | (drones[..., 2] < _EDGE)).any(axis=-1)
