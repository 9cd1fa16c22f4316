"""The goal matcher: permutations of agents and goals, any team size, and ways around pillars."""

from __future__ import annotations

import math

import numpy as np
import pytest

from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.objectives.navigation_assignment import ASSIGNMENTS, hungarian
from searchlib.objectives.navigation_distances import crossed, distances, informed_distances
from searchlib.objectives.navigation_layouts import NavigationLayouts, random_layouts
from searchlib.objectives.navigation_matcher import GoalMatcher
from searchlib.objectives.navigation_settings import NavigationSettings

SETTINGS = NavigationSettings(start_speed=2.0, pillars=4)
MATCHER = GoalMatcher()


def told(agents=6, n=7, settings=SETTINGS):
    layouts = random_layouts(settings, agents, n, np.random.default_rng(agents))
    rows = MATCHER.space().sample(np.random.default_rng(1), n)
    return rows, layouts.starts.astype(np.float32), layouts.velocities.astype(np.float32), layouts


def scored(rows, position, velocity, layouts, settings=SETTINGS):
    return MATCHER.scores(rows, position, velocity, layouts, settings)


def test_nothing_learned_is_the_least_sum_of_squares():
    rows, position, velocity, layouts = told(20)
    found = MATCHER.decide(np.zeros_like(rows), position, velocity, layouts, SETTINGS)
    np.testing.assert_array_equal(found, ASSIGNMENTS["hungarian, squares"](distances(layouts.starts, layouts.goals)))


def test_agents_and_goals_in_another_order_are_matched_alike():
    rows, position, velocity, layouts = told()
    agent, goal = np.random.default_rng(2).permutation(6), np.random.default_rng(3).permutation(6)
    scores = scored(rows, position, velocity, layouts)
    mixed = NavigationLayouts(
        layouts.starts[:, agent], layouts.velocities[:, agent], layouts.goals[:, goal], layouts.pillars, layouts.seeds
    )  # fmt: skip
    again = scored(rows, position[:, agent], velocity[:, agent], mixed)
    np.testing.assert_allclose(again, scores[:, agent][:, :, goal], atol=1e-5)
    assert np.ptp(scores) > 0.1
    first = MATCHER.decide(rows, position, velocity, layouts, SETTINGS)
    second = MATCHER.decide(rows, position[:, agent], velocity[:, agent], mixed, SETTINGS)
    np.testing.assert_array_equal(goal[second], first[:, agent])


def test_a_turned_and_moved_world_has_the_same_scores():
    rows, position, velocity, layouts = told()
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    moved = NavigationLayouts(
        layouts.starts @ turn.T + 3, layouts.velocities @ turn.T, layouts.goals @ turn.T + 3,
        layouts.pillars @ turn.T + 3, layouts.seeds,
    )  # fmt: skip
    again = scored(rows, moved.starts.astype(np.float32), moved.velocities.astype(np.float32), moved)
    np.testing.assert_allclose(again, scored(rows, position, velocity, layouts), atol=1e-3)


@pytest.mark.parametrize("settings", [SETTINGS, NavigationSettings.flying(start_speed=1.0)])
def test_one_row_matches_teams_of_every_size(settings):
    row = MATCHER.space().sample(np.random.default_rng(4), 1)
    for agents in (2, 5, 50):
        layouts = random_layouts(settings, agents, 3, np.random.default_rng(5))
        for rounding in ("assignment", "greedy"):
            found = GoalMatcher(rounding).decide(
                np.repeat(row, 3, axis=0), layouts.starts.astype(np.float32), layouts.velocities.astype(np.float32),
                layouts, settings,
            )  # fmt: skip
            np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(agents), (3, 1)))


def test_a_world_is_scored_alike_in_any_company():
    rows, position, velocity, layouts = told(50, 100)
    scores = scored(rows, position, velocity, layouts)
    some = [99, 4]
    np.testing.assert_array_equal(scored(rows[some], position[some], velocity[some], layouts.take(some)), scores[some])


def test_the_drift_matches_agents_by_where_they_are_going():
    starts, velocities = [[0.0, 0.0], [0.4, 0.0]], [[2.0, 0.0], [-2.0, 0.0]]
    layouts = NavigationLayouts([starts], [velocities], [[[0.0, 0.1], [0.4, 0.1]]], np.empty((1, 0, 2)), [0])
    row = np.zeros((1, MATCHER.parameters), np.float32)
    state = (np.float32([starts]), np.float32([velocities]), layouts, SETTINGS)
    assert MATCHER.decide(row, *state).tolist() == [[0, 1]]
    row[0, 1] = 1.0
    assert MATCHER.decide(row, *state).tolist() == [[1, 0]]
    assert hungarian(informed_distances(*state)).tolist() == [[1, 0]]


def test_the_way_around_a_pillar_is_two_tangents_and_an_arc():
    settings = NavigationSettings(pillars=1)
    reach = settings.radius + settings.pillar_radius
    start, goal = [[-1.0, 0.0], [-1.0, 2.0]], [[1.0, 0.0], [1.0, 0.5]]
    layouts = NavigationLayouts([start], np.zeros((1, 2, 2)), [goal], [[[0.0, 0.0]]], [0])
    found = informed_distances(np.float32([start]), np.zeros((1, 2, 2), np.float32), layouts, settings)[0]
    arc = math.pi - 2 * math.acos(reach)
    assert found[0, 0] == pytest.approx(2 * math.sqrt(1 - reach**2) + reach * arc, rel=1e-5)
    assert found[1, 1] == pytest.approx(math.hypot(2, 1.5))
    assert 0 < found[0, 1] - math.hypot(2, 0.5) < found[0, 0] - 2
    through = crossed(np.float32([start]), np.float32([goal]), layouts.pillars, settings)[0]
    assert through[0, 0] == pytest.approx(1.0)
    assert through[1, 1] == 0


def test_wrong_rows_and_settings_are_refused():
    _, position, velocity, layouts = told()
    with pytest.raises(InvalidCandidate, match="180 parameters"):
        MATCHER.decide(np.zeros((7, 3)), position, velocity, layouts, SETTINGS)
    with pytest.raises(InvalidSettings, match="rounding"):
        GoalMatcher("none")
    with pytest.raises(InvalidSettings, match="temperature"):
        GoalMatcher(temperature=0)
