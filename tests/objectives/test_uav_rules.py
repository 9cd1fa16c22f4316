"""The rules of a multi-UAV pursuit, against brute force, finite differences and numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.objectives.uav_rules import collided, confined, cylinder_gaps, evader_force, mate_offsets, sees
from searchlib.objectives.uav_settings import UavSettings

SETTINGS = UavSettings()
MIDDLE = np.array([0.0, 0.0, 0.6])
FAR = np.full((6, 2), 1e3)


def test_a_cylinder_hides_what_lies_behind_it_as_points_along_the_line_say():
    rng = np.random.default_rng(0)
    drones, evader = rng.uniform(-0.8, 0.8, (200, 3, 3)), rng.uniform(-0.8, 0.8, (200, 3))
    cylinders = rng.uniform(-0.8, 0.8, (200, 6, 2))
    shares = np.linspace(0, 1, 1001)[:, None, None, None]
    points = drones[..., :2] + shares * (evader[:, None, :2] - drones[..., :2])
    apart = np.linalg.norm(points[..., None, :] - cylinders[:, None], axis=-1)  # (points, worlds, drones, cylinders)
    nearest, place = apart.min(axis=0), apart.argmin(axis=0)
    inside = (place > 0) & (place < len(shares) - 1)  # the foot of the perpendicular lies on the segment
    hidden = ((nearest <= 0.1) & inside).any(axis=-1)
    ends = np.minimum(place, len(shares) - 1 - place)  # where the foot is an end to the sampling's precision
    clear = ((np.abs(nearest - 0.1) > 2e-3) & ((ends == 0) | (ends > 1))).all(axis=-1)
    assert 0.2 < hidden.mean() < 0.9
    assert clear.mean() > 0.7
    np.testing.assert_array_equal(sees(drones, evader, cylinders, SETTINGS, np)[clear], ~hidden[clear])


def test_the_evaders_force_is_the_gradient_of_its_logarithms():
    rng = np.random.default_rng(1)
    gains = rng.uniform(0.7, 1.4, 4)
    drones, cylinders, seen = rng.uniform(-0.5, 0.5, (3, 3)) + MIDDLE, rng.uniform(-0.8, 0.8, (6, 2)), [1, 0, 1]

    def potential(place):
        apart, posts = np.linalg.norm(place - drones, axis=1), np.linalg.norm(place[:2] - cylinders, axis=1)
        return (
            gains[0] * np.log(apart)[np.array(seen) > 0].sum()
            + gains[1] * np.log(0.9 - np.hypot(*place[:2]))
            + gains[2] * (np.log(place[2]) + np.log(1.2 - place[2]))
            + gains[3] * np.log(posts - 0.1).sum()
        )

    met = 0
    for place in rng.uniform(-0.6, 0.6, (60, 3)) + MIDDLE:
        if (np.linalg.norm(place[:2] - cylinders, axis=1) < 0.13).any() or not 0.03 < place[2] < 1.17:
            continue
        slope = [(potential(place + step) - potential(place - step)) / 2e-6 for step in 1e-6 * np.eye(3)]
        force = evader_force(place, drones, np.array(seen), cylinders, gains, SETTINGS, np)
        np.testing.assert_allclose(force, slope, rtol=1e-4, atol=1e-4)
        met += 1
    assert met > 20


def test_an_evader_that_nobody_sees_does_not_feel_drones():
    place, drones = np.array([0.3, 0.0, 0.6]), np.array([[0.4, 0.0, 0.6]] * 3)
    hidden = evader_force(place, drones, np.zeros(3), FAR, np.ones(4), SETTINGS, np)
    np.testing.assert_allclose(hidden, [-1 / 0.6, 0, 0], atol=0.01)
    seen = evader_force(place, drones, np.ones(3), FAR, np.ones(4), SETTINGS, np)
    np.testing.assert_allclose(seen - hidden, [-30, 0, 0], atol=1e-6)


def test_whatever_leaves_the_arena_is_put_back_to_its_edge():
    places = np.array([[2.0, 0.0, 3.0], [0.0, -5.0, -1.0], [0.3, 0.4, 0.5]])
    np.testing.assert_allclose(confined(places, SETTINGS, np), [[0.88, 0, 1.18], [0, -0.88, 0.02], [0.3, 0.4, 0.5]])


@pytest.mark.parametrize(
    ("where", "drone"),
    [("post", (0.168, 0.0, 0.6)), ("wall", (0.0, 0.901, 0.6)), ("ceiling", (0.5, 0.5, 1.201)), ("floor", (0.5, 0, 0.0)),
     ("mate", (-0.5, 0.13, 0.6)), ("nothing", (0.172, 0.0, 0.6)), ("nothing", (-0.5, 0.141, 0.6))],
)  # fmt: skip
def test_collisions_are_those_of_the_authors_distances(where, drone):
    drones = np.array([drone, (-0.5, 0.0, 0.6), (0.0, -0.5, 0.6)])
    posts = np.array([[0.0, 0.0], *FAR[1:]])
    assert bool(collided(drones, posts, SETTINGS, np)) == (where != "nothing")


def test_gaps_are_measured_from_surfaces_and_mates_go_round_in_a_circle():
    drones = np.array([[0.5, 0.0, 0.1], [0.0, 0.4, 0.2], [-0.3, 0.0, 0.3]])
    unit, gap = cylinder_gaps(drones, np.zeros((1, 2)), SETTINGS, np)
    np.testing.assert_allclose(gap[:, 0], [0.4, 0.3, 0.2], atol=1e-9)
    np.testing.assert_allclose(unit[:, 0], [[1, 0], [0, 1], [-1, 0]], atol=1e-9)
    offsets = mate_offsets(drones, np)
    np.testing.assert_allclose(offsets[1], [drones[1] - drones[2], drones[1] - drones[0]])


def test_settings_that_cannot_be_meant_are_refused():
    with pytest.raises(InvalidSettings, match="capture_radius"):
        UavSettings(capture_radius=0.0)
    with pytest.raises(InvalidSettings, match="multiple of decide_every"):
        UavSettings(steps=802)
    with pytest.raises(InvalidSettings, match="whole number of physics steps"):
        UavSettings(physics_rate=250)
    with pytest.raises(InvalidSettings, match="gain_spread"):
        UavSettings(gain_spread=0.5)
