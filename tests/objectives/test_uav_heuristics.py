"""Heuristic teams and the layer for safety: the same commands as those of the kinematic pursuit, and barriers kept."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib.objectives.pursuit_arena import PursuitArena
from searchlib.objectives.pursuit_heuristics import Angelani, Janosov, PotentialField
from searchlib.objectives.pursuit_world import PursuitSight
from searchlib.objectives.uav_heuristics import HEURISTICS, heuristic_command, safe_command
from searchlib.objectives.uav_settings import UavSettings
from searchlib.objectives.uav_sight import UavSight

SETTINGS = UavSettings()
KNOWN = {"janosov": Janosov(), "angelani": Angelani(), "potential field": PotentialField()}
N = 50
MIDDLE = np.array([0.0, 0.0, 0.6])


class Posts(PursuitArena):
    """OPEN's arena for the heuristics of the kinematic pursuit, which know another one."""

    def __init__(self, posts):
        self.obstacles = posts

    def gaps(self, places):
        away = places[:2, :, None] - self.obstacles[:, None]
        apart = np.sqrt((away**2).sum(axis=0))
        return np.concatenate([away / apart, np.zeros_like(away[:1])]), apart - np.float32(0.1)

    def inward(self, places):
        from_axis = np.sqrt((places[:2] ** 2).sum(axis=0))
        return np.concatenate([-places[:2] / (from_axis * (0.9 - from_axis)), np.zeros_like(places[:1])])

    walls = normalized = confine = on_evader = move = None  # type: ignore[assignment]


def sight(rng, n=N, velocity=0.0):
    drones = rng.uniform(-0.6, 0.6, (n, 3, 3)) + MIDDLE
    evader = rng.uniform(-0.6, 0.6, (n, 3)) + MIDDLE
    speeds = velocity * rng.standard_normal((n, 3, 3))
    up = np.broadcast_to([0.0, 0.0, 1.0], drones.shape)
    future = np.broadcast_to(evader[:, None], (n, 5, 3))
    posts = rng.uniform(-0.7, 0.7, (n, 6, 2))
    return UavSight(drones, speeds, up, evader, np.ones(n), future, posts)


@pytest.mark.parametrize("name", KNOWN)
def test_commands_are_those_of_the_kinematic_heuristics(name):
    seen = sight(np.random.default_rng(0))
    arena = Posts(seen.cylinders.transpose(2, 1, 0).astype(np.float32))
    pursuers, evader = (
        part.astype(np.float32) for part in (seen.drones.transpose(2, 1, 0), seen.evader.T[:, None])
    )  # fmt: skip
    expected = KNOWN[name].command(PursuitSight(pursuers, evader, np.zeros_like(evader), arena))
    found = heuristic_command(HEURISTICS[name], seen, SETTINGS, np)
    touching = np.abs(arena.gaps(pursuers)[1] - 0.05).min(axis=1).T < 1e-3  # where forces go beyond all bounds
    assert touching.mean() < 0.1
    np.testing.assert_allclose(found[~touching], expected.transpose(2, 1, 0)[~touching], atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1), 1, atol=1e-6)


def alone(drone, command, posts=(), velocity=(0, 0, 0)):
    """The safe command of one drone whose mates are far off each other."""
    drones = np.array([drone, (-0.6, 0.3, 0.6), (-0.6, -0.3, 0.6)], float)
    cylinders = np.array([*posts, *[(1e3, 1e3)] * (6 - len(posts))], float)
    speeds = np.array([velocity, (0, 0, 0), (0, 0, 0)], float)
    given = UavSight(drones, speeds, drones * 0, drones[0], np.ones(()), drones[:1], cylinders)
    return safe_command(np.array([command, (0, 0, 0), (0, 0, 0)], float), given, SETTINGS, np)[0]


def test_a_command_that_leads_nowhere_near_is_left_alone():
    np.testing.assert_allclose(alone((0.3, 0, 0.6), (0.0, 0.6, 0.1)), (0.0, 0.6, 0.1), atol=1e-6)


def test_nothing_is_approached_faster_than_its_room_allows():
    toward = alone((0.3, 0.0, 0.6), (-0.9, 0.3, 0.0), posts=[(0.0, 0.0)])
    np.testing.assert_allclose(toward, (-2.0 * (0.2 - 0.07 - 0.075), 0.3, 0.0), atol=1e-6)
    assert alone((0.2, 0.0, 0.6), (-1.0, 0.0, 0.0), posts=[(0.0, 0.0)])[0] > 0  # too near: away
    assert alone((0.8, 0.0, 0.6), (1.0, 0.0, 0.0))[0] <= 1e-6
    assert alone((0.3, 0.0, 0.3), (0.0, 0.0, -1.0))[2] == pytest.approx(-0.1)
    assert alone((0.3, 0.0, 1.08), (0.0, 0.0, 1.0))[2] == pytest.approx(0.04)
    slow, fast = (alone((0.5, 0, 0.6), (1.0, 0, 0), velocity=(speed, 0, 0))[0] for speed in (0.0, 1.0))
    assert fast < slow - 0.2  # what moves there already needs time to stop


def test_a_gap_too_narrow_to_fly_through_is_a_wall_and_a_wide_one_is_not():
    middle, north = (0.0, -0.2, 0.6), (0.0, 1.0, 0.0)
    assert alone(middle, north, posts=[(0.15, 0.0), (-0.15, 0.0)])[1] <= 0
    assert alone(middle, north, posts=[(0.4, 0.0), (-0.4, 0.0)])[1] > 0.5


def test_mates_share_the_room_between_them():
    drones = np.array([(0.1, 0, 0.6), (-0.1, 0, 0.6), (0, 0.6, 0.6)])
    given = UavSight(drones, drones * 0, drones * 0, drones[0], np.ones(()), drones[:1], np.full((6, 2), 1e3))
    command = safe_command(np.array([(-1.0, 0, 0), (1.0, 0, 0), (0, 0, 0)]), given, SETTINGS, np)
    room = 0.2 - 0.14 - 0.08
    np.testing.assert_allclose(command[0, 0] - command[1, 0], -2 * room, atol=1e-6)
    np.testing.assert_allclose(command[0], -command[1], atol=1e-6)


def test_commands_are_never_longer_than_the_speed_limit():
    seen = sight(np.random.default_rng(2), velocity=0.7)
    wild = 5 * np.random.default_rng(3).standard_normal(seen.drones.shape)
    out = safe_command(wild, seen, SETTINGS, np)
    assert np.isfinite(out).all()
    assert np.linalg.norm(out, axis=-1).max() <= 1 + 1e-6
