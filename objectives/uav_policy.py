"""The policy of a team of drones: a chase with a few gains, and a small network that corrects it.

With all parameters at zero it is Angelani's chase, going around cylinders instead of shying away from them, so that an
evolution strategy begins with something that flies; what it learns is where to aim ahead of the evader, how far mates
spread, and the rest.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.objectives.pursuit_policy import parameter_parts, parameter_rows
from searchlib.objectives.uav_heuristics import capped
from searchlib.objectives.uav_predictor import MOMENTS
from searchlib.objectives.uav_rules import cylinder_gaps, length, mate_offsets
from searchlib.objectives.uav_settings import DRONES, UavSettings
from searchlib.objectives.uav_sight import UavSight
from searchlib.spaces import PolicyParameters

__all__ = ["UavNetwork", "observe"]

_NEAREST = 3
_INPUTS = 3 + 3 + 1 + 3 * len(MOMENTS) + 3 + 3 + 3 * (DRONES - 1) + 2 * _NEAREST + 3 + 1
#: Gains of the chase: aim at each predicted moment; spread of the mates, circling them, approach from all sides; how
#: much and which way around cylinders (the way of the chase, or that of the own side of the team).
_GAINS = len(MOMENTS) + 6
#: Spread without learning, its range in m, the distance at which a side is taken, and the gap that halves a danger.
_SPREAD, _REACH, _SIDE, _GAP = 0.25, 0.4, 0.3, 0.1
#: Detours: how large, and the gap at which a cylinder matters e times less, in m.
_DETOUR, _AROUND = 1.0, 0.15


def observe(sight: UavSight, settings: UavSettings, xp: Any) -> Any:
    """What every drone sees, shape ``(…, drones, 44)``.

    The evader where it was last seen (relative, and its direction and distance), where it is expected, the own
    velocity and tilt, the mates, the three nearest cylinders (direction, scaled by nearness), the place in the arena,
    and whether the evader is seen.
    """
    to_evader = sight.evader[..., None, :] - sight.drones
    distance = length(to_evader, xp)
    future = sight.future[..., None, :, :] - sight.drones[..., :, None, :]
    lead = sight.drones.shape[:-1]
    unit, gap = cylinder_gaps(sight.drones, sight.cylinders, settings, xp)
    order = xp.argsort(gap, axis=-1)[..., :_NEAREST]
    near = xp.take_along_axis(gap, order, axis=-1)[..., None]
    danger = xp.take_along_axis(unit, order[..., None], axis=-2) * (_GAP / (near.clip(0.0) + _GAP))
    place = sight.drones / settings.radius - xp.asarray([0.0, 0.0, 0.5 * settings.height / settings.radius])
    seen = xp.broadcast_to(sight.seen[..., None, None], (*lead, 1))
    parts = (
        to_evader, to_evader / distance, distance, future.reshape(*lead, -1), sight.velocity, sight.up,
        mate_offsets(sight.drones, xp).reshape(*lead, -1), danger.reshape(*lead, -1), place, seen,
    )  # fmt: skip
    return xp.concatenate(parts, axis=-1)


@final
@dataclass(frozen=True)
class UavNetwork:
    """The shared policy of a team; gains first, then layers with tanh between them.

    Arguments:
        hidden: widths of the hidden layers.

    Example:
        >>> UavNetwork().parameters, UavNetwork((4,)).shapes
        (782, ((11,), (4, 44), (4,), (3, 4), (3,)))
    """

    hidden: tuple[int, ...] = (16,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden", tuple(whole_number("hidden", width, 1) for width in self.hidden))

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of gains, weights and biases, in the order in which a row of parameters holds them."""
        layers = (((after, before), (after,)) for before, after in itertools.pairwise((_INPUTS, *self.hidden, 3)))
        return ((_GAINS,), *itertools.chain.from_iterable(layers))

    @property
    def parameters(self) -> int:
        """Length of a row."""
        return sum(map(math.prod, self.shapes))

    def space(self) -> PolicyParameters:
        """Its parameters as a space; a gain's spread is 1, that of weights 0.3/√inputs, of biases 0.03.

        Gains matter first: a network that is random at its usual spread flies into everything.
        """
        names = ("gains", *(f"{kind} {i}" for i in range(len(self.hidden) + 1) for kind in ("weight", "bias")))
        spreads = (1.0, *(0.3 * shape[1] ** -0.5 if len(shape) == 2 else 0.03 for shape in self.shapes[1:]))
        return PolicyParameters(tuple(zip(names, self.shapes, strict=True)), spreads)

    def rows(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        """Rows of parameters ``(n, parameters)`` as float32.

        Raises:
            InvalidCandidate: rows of another length.
        """
        return parameter_rows(rows, self.parameters, f"a policy with hidden layers {self.hidden}")

    def command(self, rows: Any, sight: UavSight, settings: UavSettings, xp: Any) -> Any:
        """Velocity commands in m/s, shape ``(n, t, drones, 3)``.

        Arguments:
            rows: parameters of n teams, shape ``(n, parameters)``.
            sight: of t worlds of each, worlds' axes ``(n, t)``.
            settings: of the arena.
            xp: array module.
        """
        parts = parameter_parts(rows, self.shapes)
        signal = observe(sight, settings, xp)
        lead = signal.shape
        signal = signal.reshape(lead[0], -1, lead[-1])
        for layer, (weight, bias) in enumerate(zip(parts[1::2], parts[2::2], strict=True)):
            signal = xp.matmul(signal, weight.swapaxes(-1, -2)) + bias[:, None]
            if layer < len(self.hidden):
                signal = xp.tanh(signal)
        chase = _chase(parts[0][:, None], sight, settings, xp)
        return settings.speed * capped(chase + signal.reshape(*lead[:-1], 3), 1.0, xp)


def _chase(gains: Any, sight: UavSight, settings: UavSettings, xp: Any) -> Any:
    """Towards a point ahead of the evader, off the mates, around them, and each from its own side.

    Arguments:
        gains: shape ``(n, 1, 11)``.
        sight: worlds' axes ``(n, t)``.
        settings: of the arena.
        xp: array module.
    """
    ahead = (sight.future - sight.evader[..., None, :]) * gains[..., : len(MOMENTS), None]
    middle = sight.drones.mean(axis=-2, keepdims=True)
    side = (sight.drones - middle) / length(sight.drones - middle, xp)
    spread, circle, sides, detour, by_chase, by_side = (gains[..., len(MOMENTS) + i, None, None] for i in range(6))
    towards = (sight.evader + ahead.sum(axis=-2))[..., None, :] + sides * _SIDE * side - sight.drones
    towards = towards / length(towards, xp)
    offsets = mate_offsets(sight.drones, xp)
    apart = length(offsets, xp)
    avoid = (offsets / (apart * (1 + xp.exp((apart - _REACH) / 0.5)))).sum(axis=-2)
    around = xp.stack([-avoid[..., 1], avoid[..., 0], xp.zeros_like(avoid[..., 0])], axis=-1)
    unit, gap = cylinder_gaps(sight.drones, sight.cylinders, settings, xp)
    along = xp.stack([-unit[..., 1], unit[..., 0]], axis=-1)
    ahead_of = (-(unit * towards[..., None, :2]).sum(axis=-1)).clip(0.0) * xp.exp(-gap / _AROUND)
    way = ((1 + by_chase)[..., None] * towards[..., None, :2] + (1 + by_side)[..., None] * side[..., None, :2]) * along
    turn = (along * (ahead_of * xp.tanh(4 * way.sum(axis=-1)))[..., None]).sum(axis=-2)
    turned = (_DETOUR + detour) * xp.concatenate([turn, xp.zeros_like(turn[..., :1])], axis=-1)
    return towards + (_SPREAD + spread) * avoid + circle * around + turned
