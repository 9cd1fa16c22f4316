"""The executor and its rules: turned worlds, other orders, any team size, and the controller that it begins with."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate
from searchlib.objectives.navigation_controller import ProportionalSteering
from searchlib.objectives.navigation_executor import NavigationExecutor
from searchlib.objectives.navigation_orca import OrcaSteering
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_sight import NavigationSight

PLANE = NavigationSettings(pillars=4)
SPACE = NavigationSettings.flying()


def seen(settings, agents=7, teams=3, worlds=2):
    rng = np.random.default_rng(agents)
    shape = (teams, worlds, agents, settings.dimension)
    posts = (teams, worlds, settings.posts(agents), settings.dimension)
    return NavigationSight(*(rng.normal(size=size) for size in (shape, shape, shape, posts)))


def rows(law, teams=3):
    return 2 * law.space().sample(np.random.default_rng(0), teams).astype(np.float64)


SAFE = NavigationExecutor(pillars=True, safe=True)
LAWS = [
    (NavigationExecutor(pillars=True), PLANE), (NavigationExecutor(), SPACE), (SAFE, PLANE),
    (ProportionalSteering(), PLANE),
]  # fmt: skip


@pytest.mark.parametrize(("law", "settings"), LAWS)
def test_agents_in_another_order_get_their_own_commands(law, settings):
    sight, order = seen(settings), np.random.default_rng(1).permutation(7)
    mixed = NavigationSight(*(part[..., order, :] for part in sight[:3]), sight.pillars)
    given = law.command(rows(law), sight, settings, np)
    assert given.shape == sight.position.shape
    np.testing.assert_allclose(law.command(rows(law), mixed, settings, np), given[..., order, :], atol=1e-9)
    assert np.ptp(given) > 0.5


@pytest.mark.parametrize(("law", "settings"), LAWS)
def test_a_turned_world_is_answered_by_turned_commands(law, settings):
    turn = np.eye(settings.dimension)
    turn[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]
    sight = seen(settings)
    turned = NavigationSight(*(part @ turn.T for part in sight))
    given = law.command(rows(law), sight, settings, np)
    np.testing.assert_allclose(law.command(rows(law), turned, settings, np), given @ turn.T, atol=1e-9)


def test_commands_are_no_longer_than_one_in_teams_of_every_size():
    for law, settings in LAWS:
        for agents in (2, 3, 50):
            given = law.command(20 * rows(law), seen(settings, agents), settings, np)
            lengths = np.linalg.norm(given, axis=-1)
            assert np.isfinite(lengths).all()
            assert 0 < lengths.max() <= 1 + 1e-6


@pytest.mark.parametrize("settings", [PLANE, SPACE])
def test_nothing_learned_is_the_proportional_controller(settings):
    executor = NavigationExecutor(settings.pillars > 0)
    given = executor.command(np.zeros((3, executor.parameters)), seen(settings), settings, np)
    plain = ProportionalSteering().command(np.zeros((3, 2)), seen(settings), settings, np)
    np.testing.assert_allclose(given, plain, atol=1e-12)


def test_nothing_learned_behind_the_layer_for_safety_is_orca():
    row = np.zeros((3, SAFE.parameters))
    row[:, 0], row[:, 6] = 0.3, -0.4
    given = SAFE.command(row, seen(PLANE), PLANE, np)
    orca = OrcaSteering().command(np.tile([0.3, -0.4], (3, 1)), seen(PLANE), PLANE, np)
    np.testing.assert_allclose(given, orca, atol=1e-9)
    plain = NavigationExecutor(pillars=True).command(row, seen(PLANE), PLANE, np)
    assert np.abs(given - plain).max() > 0.1


def test_far_mates_do_not_matter_and_near_ones_do():
    executor = NavigationExecutor()
    settings = NavigationSettings()
    row = rows(executor, 1)
    sight = seen(settings, 6, 1, 1)
    for offset, matters in ((50.0, False), (0.25, True)):
        # At rest at its goal, so that the command is not cut.
        far = [sight.position.copy(), np.zeros_like(sight.velocity), sight.position.copy(), sight.pillars]
        far[0][..., 1:, :] = far[0][..., :1, :] + offset * np.arange(1, 6)[:, None]
        first = executor.command(row, NavigationSight(*far), settings, np)[0, 0, 0]
        far[0][..., 1:, :] += 0.05
        second = executor.command(row, NavigationSight(*far), settings, np)[0, 0, 0]
        assert (np.abs(first - second).max() > 1e-3) == matters


def test_rows_of_another_length_are_refused():
    with pytest.raises(InvalidCandidate, match="339 parameters"):
        NavigationExecutor().rows(np.zeros((2, 5)))
