"""ORCA beside the definitions of the paper: nearest permitted velocities, and no collision within the horizon."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from searchlib.objectives.navigation_orca import HalfPlanes, OrcaSteering, half_planes, nearest_velocity
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_sight import NavigationSight

REACH, HORIZON, DT = 0.2, 0.8, 0.1


def right_of(lines, velocity):
    offset = lines.point - velocity[..., None, :]
    return lines.direction[..., 0] * offset[..., 1] - lines.direction[..., 1] * offset[..., 0]


def drawn(seed, n=40, others=4):
    rng = np.random.default_rng(seed)
    ways = rng.normal(size=(n, others, 2))
    ways *= rng.uniform(1.1 * REACH, 1.2, (n, others, 1)) / np.linalg.norm(ways, axis=-1, keepdims=True)
    return ways, rng.uniform(-1, 1, (n, 1, 2)), rng.uniform(-1, 1, (n, others, 2)), rng.uniform(-1.2, 1.2, (n, 2))


def test_the_velocity_is_the_nearest_one_that_is_permitted():
    offset, own, theirs, wanted = drawn(0)
    lines = half_planes(offset, own, theirs, REACH, 0.5, HORIZON, DT, np)
    found = nearest_velocity(lines, wanted, 2.0, np)
    feasible = 0
    for i in range(len(found)):
        normal = np.stack([-lines.direction[i, :, 1], lines.direction[i, :, 0]], axis=-1)
        one = [{"type": "ineq", "fun": lambda v, i=i, normal=normal: ((v - lines.point[i]) * normal).sum(axis=-1)},
               {"type": "ineq", "fun": lambda v: 4.0 - v @ v}]  # fmt: skip
        best = optimize.minimize(
            lambda v, i=i: ((v - wanted[i]) ** 2).sum(), np.zeros(2), constraints=one, method="SLSQP"
        )  # fmt: skip
        if best.success and right_of(lines, best.x[None, None])[0][i].max() < 1e-6:
            feasible += 1
            np.testing.assert_allclose(found[i], best.x, atol=2e-3)
    assert feasible > 20


def test_two_discs_that_both_obey_do_not_meet_within_the_horizon():
    offset, own, theirs, wanted = drawn(1, n=400, others=1)
    other_wanted = -wanted[::-1]
    mine = nearest_velocity(half_planes(offset, own, theirs, REACH, 0.5, HORIZON, DT, np), wanted, 3.0, np)
    swapped = half_planes(-offset, theirs, own, REACH, 0.5, HORIZON, DT, np)
    yours = nearest_velocity(swapped, other_wanted, 3.0, np)

    def meets(first, second):
        times = np.linspace(0, HORIZON, 81)[:, None, None]
        apart = np.linalg.norm(offset[:, 0] + times * (second - first), axis=-1)
        return apart.min(axis=0) < REACH - 1e-4

    assert not meets(mine, yours).any()
    assert meets(wanted, other_wanted).mean() > 0.05
    assert meets(own[:, 0], theirs[:, 0]).mean() > 0.05


def test_a_velocity_outside_all_obstacles_is_left_alone():
    lines = HalfPlanes(np.array([[[-5.0, 0.0]]]), np.array([[[0.0, -1.0]]]))
    np.testing.assert_array_equal(nearest_velocity(lines, np.array([[0.3, 0.1]]), 2.0, np), [[0.3, 0.1]])


def test_where_nothing_is_permitted_all_lines_give_way_alike():
    # Left of one and right of the other by 1 each: the least evil lies half way.
    point, way = np.array([[[0.0, 1.0], [0.0, -1.0]]]), np.array([[[1.0, 0.0], [-1.0, 0.0]]])
    found = nearest_velocity(HalfPlanes(point, way), np.array([[0.5, -1.5]]), 3.0, np)[0]
    assert right_of(HalfPlanes(point, way), found[None])[0].max() <= 1.25
    assert found[0] == pytest.approx(0.5)


def test_overlapping_discs_part():
    near = np.array([[[0.1, 0.0]]])
    still = np.zeros((1, 1, 2))
    lines = half_planes(near, still, still, REACH, 0.5, HORIZON, DT, np)
    found = nearest_velocity(lines, np.zeros((1, 2)), 5.0, np)
    np.testing.assert_allclose(found, [[-0.5, 0.0]], atol=1e-6)  # half of .1 m in .1 s


def test_velocities_are_those_of_the_rvo2_library():
    pyrvo = pytest.importorskip("pyrvo", reason="pyrvo is not installed")
    offset, own, theirs, wanted = drawn(2, n=60, others=3)
    ours = nearest_velocity(half_planes(offset, own, theirs, REACH, 0.5, HORIZON, DT, np), wanted, 2.0, np)
    same = 0
    for i in range(60):
        world = pyrvo.RVOSimulator(DT, 10.0, 10, HORIZON, HORIZON, REACH / 2, 2.0)
        for place, speed in [((0.0, 0.0), own[i, 0]), *zip(map(tuple, offset[i]), theirs[i], strict=True)]:
            number = world.add_agent(tuple(map(float, place)))
            world.set_agent_velocity(number, tuple(map(float, speed)))
            world.set_agent_pref_velocity(number, (0.0, 0.0))
        world.set_agent_pref_velocity(0, tuple(map(float, wanted[i])))
        world.do_step()
        theirs_now = np.array(world.get_agent_velocity(0).to_tuple())
        same += np.abs(theirs_now - ours[i]).max() < 1e-3
    assert same >= 50  # where no velocity is permitted, ours is only near the least evil


def test_orca_steers_around_what_a_controller_would_hit():
    settings = NavigationSettings()
    sight = NavigationSight(
        np.array([[[[0.0, 0.0], [0.5, 0.01]]]]), np.array([[[[1.0, 0.0], [-1.0, 0.0]]]]),
        np.array([[[[1.0, 0.0], [-1.0, 0.0]]]]), np.empty((1, 1, 0, 2)),
    )  # fmt: skip
    given = OrcaSteering().command(np.zeros((1, 2)), sight, settings, np)[0, 0]
    np.testing.assert_array_less(np.linalg.norm(given, axis=-1), 1 + 1e-6)
    assert given[0, 1] < -0.1
    assert given[1, 1] > 0.1
