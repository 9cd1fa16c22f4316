"""Optimal reciprocal collision avoidance for discs (van den Berg et al., ISRR 2011): the planners' way to a goal.

Lines and their order are those of the RVO2 library. Where no velocity satisfies all lines, the library solves another
program for the one that breaks them least; here it is approached by twelve ever shorter steps off the worst line.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, final

from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_sight import NavigationSight, nearest
from searchlib.objectives.uav_heuristics import capped
from searchlib.spaces import PolicyParameters

__all__ = ["HalfPlanes", "OrcaSteering", "half_planes", "nearest_velocity", "permitted_command", "wanted_velocity"]

#: What the gains scale: speed per m of distance, in 1/s, and the time for which collisions are excluded, in s.
_PULL, _HORIZON = 3.0, 0.5
_MATES, _POSTS, _STEPS = 6, 2, 12
_EPS = 1e-5


class HalfPlanes(NamedTuple):
    """Velocities to the left of lines, shape ``(…, lines, 2)`` each.

    Arguments:
        point: on the line, in m/s.
        direction: of length 1.
    """

    point: Any
    direction: Any


@final
@dataclass(frozen=True)
class OrcaSteering:
    """Discs that choose the permitted velocity nearest to the one towards their goal. Rows hold two gains.

    The velocity is then reached as fast as the force allows; the method itself knows no inertia.

    Example:
        >>> OrcaSteering().parameters
        2
    """

    @property
    def parameters(self) -> int:
        """Length of a row: pull and horizon, as logarithms of factors."""
        return 2

    def space(self) -> PolicyParameters:
        """The gains as a space."""
        return PolicyParameters((("gains", (2,)),), 0.3)

    def command(self, rows: Any, sight: NavigationSight, settings: NavigationSettings, xp: Any) -> Any:
        """Commands of length 1 at most, shape ``(n, t, agents, 2)``; arguments as those of an executor."""
        pull, horizon = (rows[:, i, None, None, None] for i in range(2))
        return permitted_command(wanted_velocity(pull, sight, settings, xp), horizon, sight, settings, xp)


def wanted_velocity(pull: Any, sight: NavigationSight, settings: NavigationSettings, xp: Any) -> Any:
    """Towards the goal, slower where it is near, in m/s; the gain is the logarithm of a factor."""
    return capped(_PULL * xp.exp(pull) * (sight.goal - sight.position), settings.top_speed, xp)


def permitted_command(wanted: Any, horizon: Any, sight: NavigationSight, settings: NavigationSettings, xp: Any) -> Any:
    """The command that comes nearest to wanted velocities among those that ORCA permits beside mates and pillars.

    Arguments:
        wanted: velocities, in m/s, shape ``(n, t, agents, 2)``.
        horizon: for which there is to be no collision, the logarithm of a factor, shape ``(n, 1, 1, 1)``.
        sight: of t worlds of n teams.
        settings: of the worlds.
        xp: array module.
    """
    agents = sight.position.shape[-2]
    time = _HORIZON * xp.exp(horizon)[..., None]
    offsets = sight.offsets()
    apart = (offsets * offsets).sum(axis=-1) + 1e6 * xp.eye(agents)
    near = nearest(apart, min(_MATES, agents - 1), xp)
    offset = xp.take_along_axis(offsets, near[..., None], axis=-2)
    flat = near.reshape(*near.shape[:-2], -1)[..., None]
    theirs = xp.take_along_axis(sight.velocity, flat, axis=-2).reshape(offset.shape)
    own = sight.velocity[..., None, :]
    lines = half_planes(offset, own, theirs, 2 * settings.radius, 0.5, time, settings.dt, xp)
    if sight.pillars.shape[-2]:
        posts = sight.posts()
        near = nearest((posts * posts).sum(axis=-1), min(_POSTS, posts.shape[-2]), xp)
        post = xp.take_along_axis(posts, near[..., None], axis=-2)
        reach = settings.radius + settings.pillar_radius
        more = half_planes(post, own, xp.zeros_like(post), reach, 1.0, time, settings.dt, xp)
        lines = HalfPlanes(*(xp.concatenate(pair, axis=-2) for pair in zip(more, lines, strict=True)))
    velocity = nearest_velocity(lines, wanted, settings.top_speed, xp)
    kept = (1 - settings.damping) * sight.velocity
    return capped((velocity - kept) / (settings.force * settings.dt), 1.0, xp)


def half_planes(
    offset: Any, own: Any, theirs: Any, reach: float, share: float, horizon: Any, dt: float, xp: Any
) -> HalfPlanes:  # fmt: skip
    """The permitted velocities of discs beside others (section 4 of the paper).

    Arguments:
        offset: to the others, in m, shape ``(…, others, 2)``.
        own: velocity, in m/s, shape ``(…, 1, 2)``.
        theirs: velocities, shape ``(…, others, 2)``.
        reach: sum of the radii, in m.
        share: of the change of velocity that falls to this disc; 1 beside what does not give way.
        horizon: for so many seconds there is to be no collision.
        dt: in which discs that overlap are to be apart, in s.
        xp: array module.
    """
    relative = own - theirs
    square = (offset * offset).sum(axis=-1, keepdims=True)
    overlap = square <= reach * reach
    time = xp.where(overlap, dt, horizon)
    cut = relative - offset / time
    size = xp.sqrt((cut * cut).sum(axis=-1, keepdims=True) + 1e-12)
    along = (cut * offset).sum(axis=-1, keepdims=True)
    round_ = overlap | ((along < 0) & (along * along > reach * reach * size * size))
    unit = cut / size
    by_circle = xp.stack([unit[..., 1], -unit[..., 0]], axis=-1)
    leg = xp.sqrt((square - reach * reach).clip(1e-12))
    x, y = offset[..., :1], offset[..., 1:]
    left = xp.concatenate([x * leg - y * reach, x * reach + y * leg], axis=-1) / square
    right = -xp.concatenate([x * leg + y * reach, -x * reach + y * leg], axis=-1) / square
    by_leg = xp.where((x * cut[..., 1:] - y * cut[..., :1]) > 0, left, right)
    change = xp.where(
        round_, (reach / time - size) * unit, (relative * by_leg).sum(axis=-1, keepdims=True) * by_leg - relative
    )
    return HalfPlanes(own + share * change, xp.where(round_, by_circle, by_leg))


def nearest_velocity(lines: HalfPlanes, wanted: Any, most: float, xp: Any) -> Any:
    """The velocity nearest to ``wanted`` that is left of all lines and no faster than ``most``, shape ``(…, 2)``.

    An incremental linear program (section 5.1). Where there is none, one that is hardly farther right of any line than
    it needs to be.
    """
    found, fine = _program(lines, wanted, most, xp)
    normal = xp.stack([-lines.direction[..., 1], lines.direction[..., 0]], axis=-1)
    least = found
    for step in range(_STEPS):
        broken = _right_of(lines, least[..., None, :])
        worst = broken.argmax(axis=-1)[..., None, None]
        way = xp.take_along_axis(normal, worst, axis=-2)[..., 0, :]
        least = capped(least + broken.max(axis=-1)[..., None].clip(0.0) / (1 + 0.5 * step) * way, most, xp)
    return xp.where(fine[..., None], found, least)


def _right_of(lines: HalfPlanes, velocity: Any) -> Any:
    """How far velocities are on the wrong side of the lines, in m/s."""
    return _det(lines.direction, lines.point - velocity)


def _program(lines: HalfPlanes, wanted: Any, most: float, xp: Any) -> tuple[Any, Any]:
    """The nearest permitted velocity, and whether there is one; ``wanted`` where not."""
    result, fine = wanted, xp.ones(wanted.shape[:-1], bool)
    for i in range(lines.point.shape[-2]):
        point, way = lines.point[..., i, :], lines.direction[..., i, :]
        broken = _det(way, point - result) > _EPS
        at = (point * way).sum(axis=-1)
        room = at * at + most * most - (point * point).sum(axis=-1)
        half = xp.sqrt(room.clip(0.0))
        low, high, open_ = -at - half, -at + half, room >= 0
        if i:
            before = HalfPlanes(lines.point[..., :i, :], lines.direction[..., :i, :])
            slope = _det(way[..., None, :], before.direction)
            ahead = _det(before.direction, point[..., None, :] - before.point)
            parallel = xp.abs(slope) <= _EPS
            place = ahead / xp.where(parallel, 1.0, slope)
            high = xp.minimum(high, xp.where(~parallel & (slope > 0), place, xp.inf).min(axis=-1))
            low = xp.maximum(low, xp.where(~parallel & (slope <= 0), place, -xp.inf).max(axis=-1))
            open_ = open_ & ~(parallel & (ahead < -_EPS)).any(axis=-1)
        open_ = open_ & (low <= high + _EPS)
        along = xp.minimum(xp.maximum((way * (wanted - point)).sum(axis=-1), low), high)
        result = xp.where((broken & open_)[..., None], point + along[..., None] * way, result)
        fine = fine & (open_ | ~broken)
    return xp.where(fine[..., None], result, wanted), fine


def _det(first: Any, second: Any) -> Any:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]

