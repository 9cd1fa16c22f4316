"""Where the evader will be: a small network that learns from rollouts, apart from any policy.

OPEN's predictor is an LSTM on the last 10 frames, with five positions as its output, trained by the mean squared error
(arXiv 2409.15866, section IV). This one reads the same frames by a perceptron, which batches better on processors; a
frame is a decision, and positions are predicted for every second one that follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objectives.uav_settings import DRONES

__all__ = ["FRAMES", "FRAME_SIZE", "MOMENTS", "UavPredictor", "frame", "frames_and_futures", "predicted"]

Floats = NDArray[np.float32]

#: Frames that are remembered, and numbers of a frame.
FRAMES = 10
FRAME_SIZE = 4 + 3 * DRONES
#: Decisions ahead for which positions are predicted.
MOMENTS = (2, 4, 6, 8, 10)
_INPUTS = FRAMES * FRAME_SIZE + 3
#: Largest displacement that is predicted, in m.
_FAR = 0.6


def frame(evader: Any, seen: Any, drones: Any, xp: Any) -> Any:
    """A frame ``(…, 13)``: where the evader was last seen, whether it is seen, and where the drones are."""
    flat = drones.reshape(*drones.shape[:-2], 3 * DRONES)
    return xp.concatenate([evader, xp.asarray(seen)[..., None] * xp.ones_like(evader[..., :1]), flat], axis=-1)


def _features(frames: Any, xp: Any) -> Any:
    """Frames ``(…, 10, 13)``, the newest last, relative to where the evader was last seen: ``(…, 133)``."""
    here = frames[..., -1:, :3]
    drones = frames[..., 4:].reshape(*frames.shape[:-1], DRONES, 3) - here[..., None, :]
    parts = (4 * (frames[..., :3] - here), frames[..., 3:4], drones)
    lead = frames.shape[:-2]
    return xp.concatenate([*(part.reshape(*lead, -1) for part in parts), here[..., 0, :]], axis=-1)


def predicted(weights: tuple[Any, ...], frames: Any, xp: Any) -> Any:
    """Positions of the evader at :data:`MOMENTS`, shape ``(…, 5, 3)``, from frames ``(…, 10, 13)``."""
    first, first_bias, second, second_bias = weights
    hidden = xp.tanh(_features(frames, xp) @ first + first_bias)
    moved = _FAR * xp.tanh(hidden @ second + second_bias)
    return frames[..., -1:, :3] + moved.reshape(*frames.shape[:-2], len(MOMENTS), 3)


def frames_and_futures(evader: Any, seen: Any, drones: Any, believed: Any) -> tuple[Floats, Floats]:
    """What to learn from: frames ``(m, 10, 13)`` and the true displacements ``(m, 5, 3)`` from where it was last seen.

    Arguments:
        evader: true positions at all decisions, shape ``(decisions, n, 3)``.
        seen: shape ``(decisions, n)``.
        drones: shape ``(decisions, n, drones, 3)``.
        believed: where it was last seen, shape ``(decisions, n, 3)``.
    """
    every = np.asarray(frame(np.asarray(believed), np.asarray(seen), np.asarray(drones), np), np.float32)
    last = len(every) - max(MOMENTS)
    if last < FRAMES:
        raise InvalidSettings(f"learning to predict needs {FRAMES + max(MOMENTS)} decisions, but got {len(every)}")
    now = np.arange(FRAMES - 1, last)
    frames = np.stack([every[now - FRAMES + 1 + k] for k in range(FRAMES)], axis=2)
    future = np.stack([np.asarray(evader)[now + moment] for moment in MOMENTS], axis=2)
    moved = future - np.asarray(believed)[now][:, :, None]
    return frames.reshape(-1, FRAMES, FRAME_SIZE), moved.reshape(-1, len(MOMENTS), 3).astype(np.float32)


@final
@dataclass(frozen=True, eq=False)
class UavPredictor:
    """A perceptron with one hidden layer.

    Arguments:
        weights: of both layers, weights ``(before, after)`` and biases in turn, float32.
    """

    weights: tuple[Floats, Floats, Floats, Floats]

    @classmethod
    def fit(
        cls, frames: Floats, moved: Floats, *, hidden: int = 64, epochs: int = 6, batch: int = 1024,
        rate: float = 2e-3, seed: int = 0,
    ) -> UavPredictor:  # fmt: skip
        """Learn by Adam on the mean squared error, its rate falling to zero.

        Arguments:
            frames: shape ``(m, 10, 13)``.
            moved: true displacements, shape ``(m, 5, 3)`` (:func:`frames_and_futures`).
            hidden: width of the layer.
            epochs: how often every example is met.
            batch: examples of a step.
            rate: the first one.
            seed: of the first weights and the order of examples.
        """
        rng = np.random.default_rng(seed)
        inputs = np.asarray(_features(np.asarray(frames, np.float32), np), np.float32)
        wanted = np.asarray(moved, np.float32).reshape(len(inputs), -1)
        weights = [
            rng.standard_normal((_INPUTS, hidden)).astype(np.float32) / np.float32(np.sqrt(_INPUTS)),
            np.zeros(hidden, np.float32),
            0.1 * rng.standard_normal((hidden, wanted.shape[1])).astype(np.float32) / np.float32(np.sqrt(hidden)),
            np.zeros(wanted.shape[1], np.float32),
        ]
        mean, square = [np.zeros_like(w) for w in weights], [np.zeros_like(w) for w in weights]
        total, step = epochs * max(1, len(inputs) // batch), 0
        for _ in range(epochs):
            order = rng.permutation(len(inputs))
            for place in range(max(1, len(inputs) // batch)):
                step += 1
                rows = order[place * batch : (place + 1) * batch]
                slopes = _slopes(weights, inputs[rows], wanted[rows])
                pace = np.float32(rate * (1 - (step - 1) / total) * np.sqrt(1 - 0.999**step) / (1 - 0.9**step))
                for w, m, s, slope in zip(weights, mean, square, slopes, strict=True):
                    m += np.float32(0.1) * (slope - m)
                    s += np.float32(0.001) * (slope * slope - s)
                    w -= pace * m / (np.sqrt(s) + np.float32(1e-8))
        return cls(tuple(weights))  # type: ignore[arg-type]

    def displacement(self, frames: Floats) -> Floats:
        """Predicted displacements from where the evader was last seen, shape ``(m, 5, 3)``."""
        rows = np.asarray(frames, np.float32)
        return np.asarray(predicted(self.weights, rows, np) - rows[:, -1:, :3])


def _slopes(weights: list[Floats], inputs: Floats, wanted: Floats) -> list[Floats]:
    """Of the mean squared error, by hand."""
    first, first_bias, second, second_bias = weights
    hidden = np.tanh(inputs @ first + first_bias)
    out = np.tanh(hidden @ second + second_bias)
    at_out = (_FAR * out - wanted) * (1 - out * out) * np.float32(2 * _FAR / wanted.size)
    at_hidden = (at_out @ second.T) * (1 - hidden * hidden)
    return [inputs.T @ at_hidden, at_hidden.sum(axis=0), hidden.T @ at_out, at_out.sum(axis=0)]
