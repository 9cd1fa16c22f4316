"""MASP's Goal Matcher: scores of agents for goals, by a network found without gradients, for any number of agents.

Agents and goals are the nodes of a complete graph. Every pair is described by numbers that mean the same in a team of
five and of fifty; a first round estimates times, a second one hears how many agents want a goal and how many goals suit
an agent. Scores are negative powers of the estimated time: a power of 1 adds times up, a large one cares for the
slowest agent only. With all parameters at zero scores are minus the square of the distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import one_of, real_number
from searchlib.objectives.navigation_assignment import hungarian, round_greedily, sinkhorn
from searchlib.objectives.navigation_distances import crossed, distances
from searchlib.objectives.navigation_layouts import NavigationLayouts
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.pursuit_policy import parameter_parts, parameter_rows
from searchlib.spaces import PolicyParameters

__all__ = ["GoalMatcher"]

Floats = NDArray[np.float32]

#: Power, drift (how far an agent goes on by itself, in spacings per top speed), and weight of pillars on the way.
_GAINS, _FEATURES, _HEARD, _HIDDEN = 3, 7, 4, 8
#: Worlds that are scored at a time: more fill the cache.
_PAIRS = 200_000


@final
@dataclass(frozen=True)
class GoalMatcher:
    """The network: gains, a round over pairs, and a round that has heard of the rivals.

    Arguments:
        rounding: ``"assignment"`` takes the permutation of the largest total score, as one that knows all would;
            ``"greedy"`` rounds Sinkhorn's plan, surest first, as agents could agree on by messages.
        temperature: of that plan, in units of the mean cost of a pair.

    Example:
        >>> GoalMatcher().parameters
        180
    """

    rounding: Literal["assignment", "greedy"] = "assignment"
    temperature: float = 0.005

    def __post_init__(self) -> None:
        one_of("rounding", self.rounding, ("assignment", "greedy"))
        real_number("temperature", self.temperature, "(0, inf)")

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of gains, weights and biases, in the order in which a row of parameters holds them."""
        second = _FEATURES + _HEARD
        return (
            (_GAINS,), (_HIDDEN, _FEATURES), (_HIDDEN,), (1, _HIDDEN),
            (_HIDDEN, second), (_HIDDEN,), (1, _HIDDEN), (1,),
        )  # fmt: skip

    @property
    def parameters(self) -> int:
        """Length of a row."""
        return sum(map(math.prod, self.shapes))

    def space(self) -> PolicyParameters:
        """Its parameters as a space; a gain's spread is .5, that of weights 0.5/√inputs, of biases 0.05."""
        names = ("gains", "first", "first bias", "time", "second", "second bias", "correction", "correction bias")
        spreads = (0.5, *(0.5 * shape[1] ** -0.5 if len(shape) == 2 else 0.05 for shape in self.shapes[1:]))
        return PolicyParameters(tuple(zip(names, self.shapes, strict=True)), spreads)

    def rows(self, rows: NDArray[Any]) -> Floats:
        """Rows of parameters ``(n, parameters)`` as float32.

        Raises:
            InvalidCandidate: rows of another length.
        """
        return parameter_rows(rows, self.parameters, "a matcher")

    def decide(
        self, rows: NDArray[Any], position: Floats, velocity: Floats, layouts: NavigationLayouts,
        settings: NavigationSettings,
    ) -> NDArray[np.intp]:  # fmt: skip
        """The goal of every agent, shape ``(n, agents)``: a permutation of the goals per world.

        Arguments:
            rows: parameters for every world, shape ``(n, parameters)``.
            position: of the agents, in m, shape ``(n, agents, dimension)``.
            velocity: in m/s, of the same shape.
            layouts: of the worlds, which know goals and pillars.
            settings: of the worlds.
        """
        scores = self.scores(rows, position, velocity, layouts, settings)
        if self.rounding == "assignment":
            return hungarian(-scores)
        scale = -scores.mean(axis=(1, 2), keepdims=True)
        return round_greedily(sinkhorn(scores / scale, temperature=self.temperature))

    def scores(
        self, rows: NDArray[Any], position: Floats, velocity: Floats, layouts: NavigationLayouts,
        settings: NavigationSettings,
    ) -> Floats:  # fmt: skip
        """Scores of every agent for every goal, negative, shape ``(n, agents, goals)``; arguments as above."""
        some = max(1, _PAIRS // layouts.agents**2)
        parts = [
            self._scores(rows[at], position[at], velocity[at], layouts.take(np.arange(len(layouts))[at]), settings)
            for at in (slice(first, first + some) for first in range(0, len(layouts), some))
        ]  # fmt: skip
        return np.concatenate(parts)

    def _scores(
        self, rows: NDArray[Any], position: Floats, velocity: Floats, layouts: NavigationLayouts,
        settings: NavigationSettings,
    ) -> Floats:  # fmt: skip
        parts = parameter_parts(self.rows(rows), self.shapes)
        power, drift, blocked = (parts[0][:, i, None, None] for i in range(_GAINS))
        unit, top = settings.spacing, settings.top_speed
        goals = np.asarray(layouts.goals, np.float32)
        coasting = velocity * (drift[..., None] * unit / top)[:, 0]
        way = goals[:, None] - (position + coasting)[:, :, None]
        length = np.sqrt((way * way).sum(axis=-1)) / unit
        plain = np.asarray(distances(position, goals) / unit, np.float32)
        speed = np.asarray(velocity / top, np.float32)
        straight = way / (unit * length[..., None] + 1e-6)
        along = (speed[:, :, None] * straight).sum(axis=-1)
        across = np.sqrt(((speed * speed).sum(axis=-1)[:, :, None] - along * along).clip(0.0))
        blocks = crossed(position, goals, layouts.pillars, settings)
        row, column = plain.min(axis=2, keepdims=True), plain.min(axis=1, keepdims=True)
        features = np.stack(
            [length.clip(0, 4) - 1, np.exp(-length), along, across, blocks, _share(row, plain), _share(column, plain)],
            axis=-1,
        )
        time = (length + blocked * blocks) * np.exp(_layer(features, parts[1:4]))
        time = np.maximum(time, 1e-3)
        slowest = np.maximum(time.min(axis=2).max(axis=1), time.min(axis=1).max(axis=1))[:, None, None]
        # How many want this goal, how many goals suit this agent, and how late both would be.
        eager, suited = np.exp(-4 * (time - time.min(axis=2, keepdims=True))), np.exp(-time)
        heard = [
            np.log(eager.sum(axis=1, keepdims=True)), np.log(suited.sum(axis=2, keepdims=True)),
            time.min(axis=1, keepdims=True), (time / slowest).clip(0, 4),
        ]  # fmt: skip
        known = np.concatenate([features, np.stack(np.broadcast_arrays(*heard), axis=-1)], axis=-1)
        time = time * np.exp(np.tanh(_layer(known, parts[4:7]) + parts[7][:, :, None]))
        scaled = time / time.max(axis=(1, 2), keepdims=True)
        return np.asarray(-(scaled ** (2 * np.exp(power)).clip(0.25, 24.0)), np.float32)


def _share(least: Floats, of: Floats) -> Floats:
    return np.asarray(least / (of + 1e-6), np.float32)


def _layer(signal: Floats, parts: list[Floats]) -> Floats:
    """A hidden layer with tanh and a single linear output without bias, of one network per world."""
    weight, bias, out = parts
    n, agents, goals, inputs = signal.shape
    flat = signal.reshape(n, agents * goals, inputs)
    hidden = np.tanh(np.matmul(flat, weight.swapaxes(1, 2)) + bias[:, None])
    return np.asarray(np.matmul(hidden, out.swapaxes(1, 2)).reshape(n, agents, goals))

