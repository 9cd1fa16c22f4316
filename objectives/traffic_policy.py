"""The policy that all signals share: a score for every phase, from its own lanes and from upstream neighbors.

CityLight's universal representation (arXiv 2406.02126), by scores instead of slots: a phase's score is the
same function of what its lanes show, whatever its number, so phases of any number and order are welcome. Up to four
upstream neighbors enter in two groups, those that feed the phase and those that feed others (the paper's two axes);
within a group they compete by a softmax, the two results stand side by side (the relation, one-hot). Road length and
number of lanes are the features of an edge.

A row of zeros is a rule: green for the phase before which most vehicles stand, come, fill their roads and have waited,
if there is room ahead. What is learned is added to it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import listed, whole_number
from searchlib.errors import InvalidCandidate
from searchlib.objectives.pursuit_policy import parameter_parts
from searchlib.objectives.traffic_sight import VEHICLE, TrafficSight
from searchlib.objectives.traffic_world import SignalController
from searchlib.spaces import PolicyParameters

__all__ = ["FEATURES", "NetworkSignals", "TrafficNetworkPolicy", "neighbor_features", "phase_features"]

Floats = NDArray[np.float64]

#: What is known of a phase, each of the order of 1.
FEATURES = (
    "standing", "coming", "longest queue", "fullest road", "density", "share of all", "protected share", "room taken",
    "is green", "green for", "starved for", "waited", "still crossing",
)  # fmt: skip
#: What is known of an upstream neighbor.
_NEIGHBOR = ("standing for me", "standing in all", "sends to me", "green for", "distance", "lanes")
#: The rule that a row of zeros is: weights of the features. Vehicles that are still coming count a fifth of those that
#: stand, room ahead and the wait much: otherwise networks lock that are nearly full.
_PRIOR = dict.fromkeys(FEATURES, 0.0) | {
    "standing": 0.5, "coming": 0.1, "density": 1.0, "room taken": -1.5, "waited": 1.5,
}  # fmt: skip


def phase_features(sight: TrafficSight) -> Floats:
    """What is known of every phase, shape ``(P, len(FEATURES))``; nothing in it depends on a phase's number."""
    layout = sight.layout
    found = np.empty((len(layout.owner), len(FEATURES)))
    sums = layout.green @ np.stack([sight.queue, sight.coming], axis=1)
    total = np.maximum(np.add.reduceat(sums.sum(axis=1), layout.first[:-1]), 1.0)[layout.owner]
    current = sight.is_current
    found[:, :2] = sums / 10
    density = np.minimum((sight.queue + sight.coming) * VEHICLE / np.maximum(layout.before_lanes, VEHICLE), 1.5)
    found[:, 2] = layout.most(sight.queue) / 10
    found[:, 3] = layout.most(density)
    found[:, 4] = layout.green @ density
    found[:, 5] = sums.sum(axis=1) / total
    found[:, 6] = (layout.protected @ sight.queue) / np.maximum(sums[:, 0], 1.0)
    found[:, 7] = sight.room_taken
    found[:, 8] = current
    found[:, 9] = current * np.minimum(sight.green_for / 30, 2.0)[layout.owner]
    found[:, 10] = np.minimum(sight.starved_for / 60, 3.0)
    found[:, 11] = np.log1p(sight.waited_for) / 5
    found[:, 12] = current * np.minimum(sums[:, 1] / 5, 2.0)
    return found


def neighbor_features(sight: TrafficSight) -> Floats:
    """What is known of the upstream neighbors of every signal, shape ``(I, 4, 6)``; zeros where there is none."""
    layout = sight.layout
    there = layout.neighbors >= 0
    who = np.where(there, layout.neighbors, 0)
    local = (sight.current - layout.first[:-1])[who]
    sends = np.take_along_axis(layout.sends, local[:, :, None], axis=2)[:, :, 0]
    standing = (layout.queues @ sight.queue).reshape(there.shape)
    every = (layout.before @ sight.queue)[who]
    found = np.empty((*there.shape, len(_NEIGHBOR)))
    found[..., 0], found[..., 1], found[..., 2] = standing / 10, every / 20, sends
    found[..., 3] = sends * np.minimum(sight.green_for / 30, 2.0)[who]
    found[..., 4:] = layout.edges
    found *= there[:, :, None]
    return found


@final
@dataclass(frozen=True)
class TrafficNetworkPolicy:
    """The network of the policy.

    Arguments:
        hidden: widths of the hidden layers; (64, 48) is large.
        embedding: numbers that a neighbor is told by; 0: neighbors are not looked at.

    Example:
        >>> TrafficNetworkPolicy().parameters, TrafficNetworkPolicy((64, 48)).parameters
        (109, 4353)
    """

    hidden: tuple[int, ...] = (4,)
    embedding: int = 2

    def __post_init__(self) -> None:
        for width in listed("hidden", self.hidden):
            whole_number("hidden", width, 1)
        whole_number("embedding", self.embedding, 0)

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of tensors, in the order in which a row of parameters holds them."""
        wide = len(FEATURES) + 2 * self.embedding
        layers = (((after, before), (after,)) for before, after in itertools.pairwise((wide, *self.hidden)))
        neighbor = ((self.embedding, len(_NEIGHBOR)), (self.embedding,), (self.embedding,)) if self.embedding else ()
        return ((wide,), *neighbor, *itertools.chain.from_iterable(layers), (self.hidden[-1],))

    @property
    def parameters(self) -> int:
        """Length of a row."""
        return sum(map(math.prod, self.shapes))

    def space(self) -> PolicyParameters:
        """Its parameters as a space; what is added directly to a score is spread by 0.3, inner weights by 1/√inputs."""
        names = ["direct", *(("embed", "embed bias", "gate") if self.embedding else ())]
        names += [f"{kind} {i}" for i in range(len(self.hidden)) for kind in ("weight", "bias")] + ["out"]
        spreads = []
        for name, shape in zip(names, self.shapes, strict=True):
            outer = name in ("direct", "out")
            spreads.append(0.3 if outer else 0.3 if len(shape) == 1 else shape[1] ** -0.5)
        return PolicyParameters(tuple(zip(names, self.shapes, strict=True)), tuple(spreads))

    def controller(self, row: NDArray[Any], longest_red: float = math.inf) -> NetworkSignals:
        """Signals that follow one row of parameters ``(parameters,)``, or one row each ``(I, parameters)``.

        Raises:
            InvalidCandidate: a row of another length.
        """
        rows = np.atleast_2d(np.asarray(row, np.float64))
        if rows.ndim != 2 or rows.shape[1] != self.parameters:
            raise InvalidCandidate(
                f"a policy with hidden layers {self.hidden} and embedding {self.embedding} has {self.parameters} "
                f"parameters, but the row has shape {np.shape(row)}"
            )
        return NetworkSignals(self, rows, longest_red)


@final
class NetworkSignals(SignalController):
    """Signals that follow the network.

    Arguments:
        network: the policy.
        rows: parameters, ``(1, parameters)`` for all signals or ``(I, parameters)`` for each its own.
        longest_red: seconds of red after which a phase with a queue is next.
    """

    def __init__(self, network: TrafficNetworkPolicy, rows: Floats, longest_red: float) -> None:
        self._parts = parameter_parts(rows, network.shapes)
        self._embedding, self._shared, self._longest = network.embedding, len(rows) == 1, longest_red
        self._prior = np.array([*_PRIOR.values(), *np.zeros(2 * network.embedding)])

    def scores(self, sight: TrafficSight) -> Floats:
        """Of every phase, shape ``(P,)``."""
        signal = phase_features(sight)
        owner = sight.layout.owner
        parts = list(self._parts)
        direct = parts.pop(0)
        if self._embedding:
            signal = np.concatenate([signal, self._influence(sight, parts.pop(0), parts.pop(0), parts.pop(0))], axis=1)
        which = np.zeros(len(owner), np.intp) if self._shared else owner
        score = ((self._prior + direct[which]) * signal).sum(axis=1)
        *layers, out = parts
        for weight, bias in zip(layers[::2], layers[1::2], strict=True):
            if self._shared:
                signal = np.tanh(signal @ weight[0].T + bias[0])
            else:
                signal = np.tanh((weight[which] @ signal[:, :, None])[:, :, 0] + bias[which])
        return np.asarray(score + (out[which] * signal).sum(axis=1))

    def _influence(self, sight: TrafficSight, embed: Floats, bias: Floats, gate: Floats) -> Floats:
        """Neighbors that feed a phase and neighbors that do not, each a mean by softmax, side by side."""
        layout = sight.layout
        told = np.tanh((neighbor_features(sight) @ embed.swapaxes(-1, -2)) + bias[:, None])
        logits = np.minimum(np.maximum((told * gate[:, None]).sum(axis=2), -20), 20)
        weight = np.exp(logits) * (layout.neighbors >= 0)
        share = layout.axes * weight[layout.owner][:, None]
        share /= np.maximum(share.sum(axis=2, keepdims=True), 1e-9)
        found = share @ told[layout.owner]
        return np.asarray(found.reshape(len(found), 2 * self._embedding))

    def decide(self, sight: TrafficSight) -> NDArray[np.intp]:
        """The phase of the highest score; where somebody has waited too long, the one waited for longest."""
        scores = self.scores(sight)
        starved = sight.starved_for
        return sight.best(np.where(starved > self._longest, 1e9 + starved, scores))
