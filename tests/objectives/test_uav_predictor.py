"""The evader's predictor: frames, exact slopes, and learning what can be learned."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.objectives.uav_predictor import (
    FRAME_SIZE,
    FRAMES,
    MOMENTS,
    UavPredictor,
    _slopes,
    frame,
    frames_and_futures,
    predicted,
)


def flights(rng, n, decisions=40):
    """Evaders that fly in circles, and drones that stand."""
    phase, speed = rng.uniform(0, 6.28, n), rng.uniform(0.5, 2.0, n)
    time = 0.04 * np.arange(decisions)[:, None]
    angle = phase + speed / 0.5 * time
    evader = np.stack([0.5 * np.cos(angle), 0.5 * np.sin(angle), np.full_like(angle, 0.6)], axis=-1)
    drones = np.broadcast_to(rng.uniform(-0.5, 0.5, (n, 3, 3)), (decisions, n, 3, 3))
    return evader, np.ones((decisions, n), bool), drones


def test_frames_are_the_last_ten_and_futures_are_where_it_came():
    evader, seen, drones = flights(np.random.default_rng(0), 4)
    believed = evader + 0.01
    frames, moved = frames_and_futures(evader, seen, drones, believed)
    steps = 40 - max(MOMENTS) - FRAMES + 1
    assert frames.shape == (steps * 4, FRAMES, FRAME_SIZE)
    assert moved.shape == (steps * 4, len(MOMENTS), 3)
    world, now = 2, FRAMES - 1 + 5
    at = 5 * 4 + world
    np.testing.assert_allclose(frames[at, -1], frame(believed[now, world], 1.0, drones[now, world], np), rtol=1e-6)
    np.testing.assert_allclose(frames[at, 0, :3], believed[now - FRAMES + 1, world], rtol=1e-6)
    np.testing.assert_allclose(moved[at, 1], evader[now + MOMENTS[1], world] - believed[now, world], atol=1e-6)
    with pytest.raises(InvalidSettings, match="needs 20 decisions"):
        frames_and_futures(evader[:15], seen[:15], drones[:15], believed[:15])


def test_it_learns_to_foresee_more_than_standing_still_or_flying_straight():
    evader, seen, drones = flights(np.random.default_rng(1), 300)
    frames, moved = frames_and_futures(evader, seen, drones, evader)
    circles = flights(np.random.default_rng(2), 40)
    held = frames_and_futures(*circles, circles[0])
    predictor = UavPredictor.fit(frames, moved, epochs=30, batch=256)
    straight = (held[0][:, -1, :3] - held[0][:, -2, :3])[:, None] * np.array(MOMENTS)[:, None]

    def error(guess):
        return np.sqrt(((guess - held[1]) ** 2).sum(axis=-1).mean(axis=0))

    ours = error(predictor.displacement(held[0]))
    assert (ours < 0.5 * error(0)).all()
    assert ours[-1] < 0.7 * error(straight)[-1]
    again = UavPredictor.fit(frames[:512], moved[:512], epochs=2, seed=3)
    same = UavPredictor.fit(frames[:512], moved[:512], epochs=2, seed=3)
    assert all(np.array_equal(a, b) for a, b in zip(again.weights, same.weights, strict=True))


def test_its_slopes_are_those_of_the_mean_squared_error():
    rng = np.random.default_rng(4)
    weights = [rng.standard_normal(shape) * 0.3 for shape in ((7, 5), (5,), (5, 6), (6,))]
    inputs, wanted = rng.standard_normal((8, 7)), 0.3 * rng.standard_normal((8, 6))

    def loss(parts):
        first, first_bias, second, second_bias = parts
        return ((0.6 * np.tanh(np.tanh(inputs @ first + first_bias) @ second + second_bias) - wanted) ** 2).mean()

    for place, slope in enumerate(_slopes(weights, inputs, wanted)):
        for index in list(np.ndindex(slope.shape))[:6]:
            ends = []
            for step in (1e-6, -1e-6):
                moved = [part.copy() for part in weights]
                moved[place][index] += step
                ends.append(loss(moved))
            assert slope[index] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-7)


def test_predictions_are_relative_to_where_it_was_last_seen():
    frames = np.zeros((2, FRAMES, FRAME_SIZE), np.float32)
    frames[1, :, :3] = (0.3, -0.2, 0.5)
    predictor = UavPredictor.fit(frames, np.zeros((2, len(MOMENTS), 3), np.float32), epochs=1)
    places = predicted(predictor.weights, frames, np)
    np.testing.assert_allclose(places - frames[:, -1:, :3], predictor.displacement(frames), atol=1e-6)
    assert np.abs(predictor.displacement(frames)).max() < 0.6
