"""The policy of a pursuit: a small network that all pursuers of a team share, batched over teams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.errors import InvalidCandidate
from searchlib.objectives.pursuit_arena import over_agents, over_axes
from searchlib.objectives.pursuit_world import Pursuers, PursuitSight
from searchlib.spaces import PolicyParameters

__all__ = ["NetworkPursuers", "PursuitNetwork", "observe", "parameter_parts", "parameter_rows"]

Floats = NDArray[np.float32]

#: Physical scales of the observation: a speed (m/s), and lengths (m) that keep what is divided by a gap bounded.
_SPEED = np.float32(2.4)
_LENGTH = np.float32(0.5)
_MATE = np.float32(0.2)
_GAP = 0.1
_LONGEST = np.float32(1e9)


def observe(sight: PursuitSight) -> Floats:
    """What every pursuer sees, shape ``(6 · dimension + 1, pursuers, n)``.

    Direction of the evader, its distance, its velocity, the mean offset of the mates, how near they are on which side,
    the same of the obstacles, and where in the arena the pursuer is. Mates and obstacles enter by sums, so that their
    order and number do not matter. Scales are fixed lengths and speeds: nothing is estimated on the way.
    """
    dimension, count, n = sight.pursuers.shape
    seen = np.empty((6 * dimension + 1, count, n), np.float32)
    parts = np.split(seen, range(dimension, 6 * dimension, dimension))
    direction, velocity, offset, crowd, danger, rest = parts
    np.divide(sight.to_evader, sight.distance + np.float32(1e-5), out=direction)
    velocity[:] = sight.evader_velocity / _SPEED
    if count > 1:
        away, apart = sight.mates
        share = np.float32(1 / (count - 1))
        np.multiply(over_agents(away), -share / _LENGTH, out=offset)
        np.multiply(over_agents(away / (apart * apart + _MATE * _MATE)), share * _MATE, out=crowd)
    else:
        offset[:], crowd[:] = 0, 0
    if sight.gaps[1].shape[1]:
        np.multiply(sight.arena.repulsion(*sight.gaps, softness=_GAP), np.float32(_GAP), out=danger)
    else:
        danger[:] = 0
    rest[:-1] = sight.arena.normalized(sight.pursuers)
    np.divide(sight.distance, sight.distance + _LENGTH, out=rest[-1])
    return seen


def parameter_parts(rows: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    """Rows of parameters ``(n, d)``, of numpy or JAX, as arrays ``(n, *shape)``, one of every shape."""
    ends = np.cumsum([math.prod(shape) for shape in shapes]).tolist()
    return [
        rows[:, end - math.prod(shape) : end].reshape(len(rows), *shape)
        for end, shape in zip(ends, shapes, strict=True)
    ]


def parameter_rows(rows: NDArray[Any], parameters: int, policy: str) -> NDArray[np.float32]:
    """Rows of parameters ``(n, parameters)`` as float32.

    Arguments:
        rows: what was given.
        parameters: how many a row must have.
        policy: whose they are, for the message.

    Raises:
        InvalidCandidate: rows of another length.

    Example:
        >>> parameter_rows(np.zeros((2, 3)), 3, "a policy").dtype
        dtype('float32')
    """
    if rows.ndim != 2 or rows.shape[1] != parameters:
        raise InvalidCandidate(f"{policy} has {parameters} parameters, but the rows have shape {rows.shape}")
    return np.asarray(rows, np.float32)


@final
@dataclass(frozen=True)
class PursuitNetwork:
    """A perceptron from what a pursuer sees to its velocity, tanh between layers.

    Arguments:
        dimension: 2 or 3.
        hidden: widths of the hidden layers. The default has 530 parameters in two dimensions.

    Example:
        >>> PursuitNetwork().parameters, PursuitNetwork(3, (32,)).shapes
        (530, ((32, 19), (32,), (3, 32), (3,)))
    """

    dimension: int = 2
    hidden: tuple[int, ...] = (16, 16)

    def __post_init__(self) -> None:
        for width in self.hidden:
            whole_number("hidden", width, 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Of all layers, from what is seen to the velocity."""
        return (6 * self.dimension + 1, *self.hidden, self.dimension)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of weights and biases, in the order in which a row of parameters holds them."""
        pairs = zip(self.widths[1:], self.widths, strict=False)
        return tuple(shape for after, before in pairs for shape in ((after, before), (after,)))

    @property
    def parameters(self) -> int:
        """Length of a row."""
        return sum(map(math.prod, self.shapes))

    def space(self) -> PolicyParameters:
        """Its parameters as a space; samples are spread by 1/√inputs, biases by 0.1."""
        named = tuple(
            (f"{'bias' if len(shape) == 1 else 'weight'} {i // 2}", shape) for i, shape in enumerate(self.shapes)
        )
        return PolicyParameters(named, tuple(0.1 if len(shape) == 1 else shape[1] ** -0.5 for shape in self.shapes))

    def split(self, rows: NDArray[Any]) -> list[Floats]:
        """Rows of parameters ``(n, parameters)`` as weights ``(n, after, before)`` and biases ``(n, after)`` in turn.

        Raises:
            InvalidCandidate: rows of another length.
        """
        policy = f"a policy with hidden layers {self.hidden} in {self.dimension} dimensions"
        return parameter_parts(parameter_rows(rows, self.parameters, policy), self.shapes)

    def pursuers(self, rows: NDArray[Any], worlds: NDArray[np.intp]) -> NetworkPursuers:
        """Teams that follow these rows, ``worlds`` saying which row a world's team follows, shape ``(n,)``."""
        return NetworkPursuers(self.split(rows), np.asarray(worlds, np.intp))


@final
class NetworkPursuers(Pursuers):
    """Teams that follow networks.

    Arguments:
        layers: weights ``(rows, after, before)`` and biases ``(rows, after)`` in turn.
        worlds: which row a world's team follows, shape ``(n,)``.
    """

    def __init__(self, layers: list[Floats], worlds: NDArray[np.intp]) -> None:
        self._layers = layers
        self._worlds = worlds
        self._spread: list[Floats] | None = None

    def take(self, worlds: NDArray[np.intp]) -> NetworkPursuers:
        """The teams of these worlds."""
        return NetworkPursuers(self._layers, self._worlds[worlds])

    def command(self, sight: PursuitSight) -> Floats:
        """The networks' answers; those longer than 1 are cut to 1."""
        if self._spread is None:  # worlds last and before first: (before, after, 1, n) and (after, 1, n)
            self._spread = [np.ascontiguousarray(part[self._worlds].T[..., None, :]) for part in self._layers]
        signal = observe(sight)
        last = len(self._spread) - 2
        for layer in range(0, last + 1, 2):
            signal = _affine(self._spread[layer], self._spread[layer + 1], signal)
            if layer < last:
                np.tanh(signal, out=signal)
        np.clip(signal, -_LONGEST, _LONGEST, out=signal)  # squares of enormous weights would overflow
        signal /= np.maximum(np.sqrt(over_axes(signal * signal)), 1)
        return signal


def _affine(weights: Floats, bias: Floats, signal: Floats) -> Floats:
    """W x + b in every world: ``(before, after, 1, n)``, ``(after, 1, n)`` and ``(before, agents, n)``.

    Not by a matrix product, whose rounding depends on how many columns it has: see :func:`over_axes`.
    """
    total = weights[0] * signal[0]
    total += bias
    product = np.empty_like(total)
    for before in range(1, len(weights)):
        np.multiply(weights[before], signal[before], out=product)
        total += product
    return total
