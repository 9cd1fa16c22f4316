"""MASP's Coordinated Action Executor: how an agent goes to its goal among others, for any number of agents.

A proportional controller or ORCA with a few gains, and a small network that corrects it; with all parameters at zero it
is what it corrects. Every agent looks at its own group, the nearest mates, by attention, and at all others fused to
four numbers. What the network sees are scalars (distances, speeds along and across), what it gives are lengths along
vectors (towards the goal, away from a mate, across), so that a turned world is answered by turned commands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.objectives.navigation_controller import pull_of_goal
from searchlib.objectives.navigation_orca import permitted_command, wanted_velocity
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_sight import NavigationSight, across, dot, length, nearest
from searchlib.objectives.pursuit_policy import parameter_parts, parameter_rows
from searchlib.objectives.uav_heuristics import capped
from searchlib.spaces import PolicyParameters

__all__ = ["GAINS", "GROUP", "NavigationExecutor"]

#: Mates of an agent's own group, and pillars that it looks at.
GROUP = 3
_POSTS = 2
#: Gains: pull of the goal, damping, push and turn off mates that come nearer, range of both; detour around pillars;
#: horizon of the layer for safety. The damping of one that has the layer is the layer's.
GAINS = 7
#: How far gaps to mates and pillars matter, in m; a force of 1 at the gain of 1 and half the top speed is a full one.
_RANGE, _DETOUR_RANGE, _PUSH = 0.15, 0.2, 4.0
_MATE, _OWN, _POST = (11, 12, 5), (11, 8, 3), (6, 6, 2)


@final
@dataclass(frozen=True)
class NavigationExecutor:
    """The policy that all agents share: gains, then the layers for mates, for the agent itself, and for pillars.

    Arguments:
        pillars: whether there are layers for pillars.
        safe: whether what it gives are velocities, of which a layer for safety takes the nearest that ORCA permits;
            with zeros it is ORCA then. For discs.

    Example:
        >>> NavigationExecutor().parameters, NavigationExecutor(pillars=True).parameters
        (339, 395)
    """

    pillars: bool = False
    safe: bool = False

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of gains, weights and biases, in the order in which a row of parameters holds them."""
        layers = [_MATE, _OWN, *([_POST] if self.pillars else [])]
        found: list[tuple[int, ...]] = [(GAINS,)]
        for inputs, hidden, outputs in layers:
            found += [(hidden, inputs), (hidden,), (outputs, hidden), (outputs,)]
        return tuple(found)

    @property
    def parameters(self) -> int:
        """Length of a row."""
        return sum(map(math.prod, self.shapes))

    def space(self) -> PolicyParameters:
        """Its parameters as a space; a gain's spread is .5, that of weights 0.5/√inputs, of biases 0.05."""
        names = ("gains", *(f"{kind} {i}" for i in range(len(self.shapes) // 2) for kind in ("weight", "bias")))
        spreads = (0.5, *(0.5 * shape[1] ** -0.5 if len(shape) == 2 else 0.05 for shape in self.shapes[1:]))
        return PolicyParameters(tuple(zip(names, self.shapes, strict=True)), spreads)

    def rows(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Rows of parameters ``(n, parameters)`` as float32.

        Raises:
            InvalidCandidate: rows of another length.
        """
        return parameter_rows(rows, self.parameters, f"an executor {self!r}")

    def command(self, rows: Any, sight: NavigationSight, settings: NavigationSettings, xp: Any) -> Any:
        """Commands of length 1 at most, shape ``(n, t, agents, dimension)``.

        Arguments:
            rows: parameters of n teams, shape ``(n, parameters)``.
            sight: of t worlds of each, worlds' axes ``(n, t)``.
            settings: of the worlds.
            xp: array module.
        """
        parts = parameter_parts(rows, self.shapes)
        gains = [parts[0][:, i, None, None, None] for i in range(GAINS)]
        towards = sight.goal - sight.position
        distance = length(towards, xp)
        ahead = towards / (distance + 0.05)
        if self.safe:
            total = wanted_velocity(gains[0], sight, settings, xp) / settings.top_speed
        else:
            total = pull_of_goal(gains[0], gains[1], sight, settings, xp)
        seen = _Seen(sight, distance, ahead, settings, xp)
        signal, values = seen.mates(parts[1:5], gains)
        total = total + signal
        own = xp.concatenate([values, seen.others(), seen.itself()], axis=-1)
        lengths = _layers(parts[5:9], own, xp)
        total = total + lengths[..., :1] * ahead + lengths[..., 1:2] * across(ahead, xp)
        total = total + lengths[..., 2:] * sight.velocity / settings.top_speed
        if self.pillars:
            total = total + seen.posts(parts[9:13], gains[5])
        given = capped(total, 1.0, xp)
        if not self.safe:
            return given
        return permitted_command(settings.top_speed * given, gains[6], sight, settings, xp)


class _Seen:
    """Scalars and directions that commands are made of; ``n`` below are directions to mates or pillars."""

    def __init__(
        self, sight: NavigationSight, distance: Any, ahead: Any, settings: NavigationSettings, xp: Any
    ) -> None:  # fmt: skip
        self.sight, self.distance, self.ahead, self.settings, self.xp = sight, distance, ahead, settings, xp
        agents = sight.position.shape[-2]
        offsets = sight.offsets()
        alone = xp.eye(agents)
        self._apart = length(offsets, xp)[..., 0] + 1e3 * alone
        self._near = nearest(self._apart, min(GROUP, agents - 1), xp)
        self._offsets = offsets

    def _of_mates(self, what: Any) -> Any:
        """What the mates of the own group have, shape ``(…, agents, group, dimension)``."""
        flat = self._near.reshape(*self._near.shape[:-2], -1)
        found = self.xp.take_along_axis(what, flat[..., None], axis=-2)
        return found.reshape(*self._near.shape, what.shape[-1])

    def mates(self, layers: Any, gains: Any) -> tuple[Any, Any]:
        """What the own group adds to the command, and what attention pools of it."""
        xp, settings = self.xp, self.settings
        offset = self._of_mates(self.sight.position) - self.sight.position[..., None, :]
        apart = length(offset, xp)
        way = offset / apart
        side = across(way, xp)
        speed = (self._of_mates(self.sight.velocity) - self.sight.velocity[..., None, :]) / settings.top_speed
        own = self.sight.velocity[..., None, :] / settings.top_speed
        ahead = self.ahead[..., None, :]
        theirs = self._of_mates(self.ahead)
        gap = (apart - settings.touch) / settings.spacing
        closing = -dot(speed, way)
        scalars = xp.concatenate([
            xp.exp(-gap.clip(0.0) / 0.2), gap.clip(0.0, 2.0), closing, dot(speed, side), dot(own, way), dot(own, side),
            dot(ahead, way), dot(ahead, side), dot(theirs, way), dot(theirs, side),
            (self._of_mates(self.distance) - self.distance[..., None, :]).clip(-1.0, 1.0),
        ], axis=-1)  # fmt: skip
        given = _layers(layers, scalars, xp)
        reach = xp.exp(-(apart - settings.touch).clip(0.0) / (_RANGE * xp.exp(gains[4][..., None])))
        danger = reach * closing.clip(0.0)
        turn = side * xp.tanh(4 * (dot(own, side) - 0.1))
        prior = _PUSH * danger * (gains[3][..., None] * turn - gains[2][..., None] * way)
        wide = xp.exp(-gap.clip(0.0) / 0.4)
        added = prior + wide * (given[..., :1] * way + given[..., 1:2] * side)
        sure = xp.exp((given[..., 2:3]).clip(-8.0, 8.0)) * wide
        pooled = (sure * given[..., 3:]).sum(axis=-2) / (sure.sum(axis=-2) + 0.05)
        return added.sum(axis=-2), pooled

    def others(self) -> Any:
        """All agents beyond the own group, fused by nearness: how crowded, and where along and across the way."""
        xp, settings = self.xp, self.settings
        farthest = xp.take_along_axis(self._apart, self._near[..., -1:], axis=-1)
        weight = xp.exp(-((self._apart / settings.spacing) ** 2)) * (self._apart > farthest)
        where = (weight[..., None] * self._offsets).sum(axis=-2) / settings.spacing
        speed = (weight[..., None] * self.sight.velocity[..., None, :, :]).sum(axis=-2) / settings.top_speed
        side = across(self.ahead, xp)
        return xp.concatenate([
            weight.sum(axis=-1, keepdims=True), dot(where, self.ahead), dot(where, side), dot(speed, self.ahead),
        ], axis=-1)  # fmt: skip

    def itself(self) -> Any:
        """Distance, speed, and speed along and across the way to the goal."""
        xp, own = self.xp, self.sight.velocity / self.settings.top_speed
        near = self.distance / self.settings.spacing
        side = across(self.ahead, xp)
        return xp.concatenate([
            near.clip(0.0, 2.0), xp.exp(-near / 0.2), length(own, xp), dot(own, self.ahead), dot(own, side),
        ], axis=-1)  # fmt: skip

    def posts(self, layers: Any, detour: Any) -> Any:
        """What the nearest pillars add to the command."""
        xp, settings = self.xp, self.settings
        offsets = self.sight.posts()
        apart = length(offsets, xp)[..., 0]
        near = nearest(apart, min(_POSTS, apart.shape[-1]), xp)
        offset = xp.take_along_axis(offsets, near[..., None], axis=-2)
        apart = length(offset, xp)
        way = offset / apart
        side = across(way, xp)
        gap = (apart - settings.radius - settings.pillar_radius).clip(0.0)
        own, ahead = self.sight.velocity[..., None, :] / settings.top_speed, self.ahead[..., None, :]
        scalars = xp.concatenate([
            xp.exp(-gap / 0.2), gap.clip(0.0, 2.0), dot(own, way), dot(own, side), dot(ahead, way), dot(ahead, side),
        ], axis=-1)  # fmt: skip
        given = _layers(layers, scalars, xp)
        reach = xp.exp(-gap / _DETOUR_RANGE)
        turn = side * xp.tanh(4 * dot(ahead + own, side)) * dot(ahead, way).clip(0.0)
        wide = xp.exp(-gap / 0.4)
        added = detour[..., None] * reach * turn + wide * (given[..., :1] * way + given[..., 1:] * side)
        return added.sum(axis=-2)


def _layers(parts: Any, signal: Any, xp: Any) -> Any:
    """A hidden layer with tanh and a linear one, of n networks on signals ``(n, …, inputs)``."""
    lead = signal.shape
    flat = signal.reshape(lead[0], -1, lead[-1])
    hidden = xp.tanh(xp.matmul(flat, parts[0].swapaxes(-1, -2)) + parts[1][:, None])
    given = xp.matmul(hidden, parts[2].swapaxes(-1, -2)) + parts[3][:, None]
    return given.reshape(*lead[:-1], given.shape[-1])

