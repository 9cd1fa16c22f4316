"""The bound that is told beside the rows of flights."""

import dataclasses
import importlib.util

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from benchmarks.navigation_bound import progress, steps_at_full_speed
from searchlib.cases import Split
from searchlib.objectives.navigation_layouts import random_layouts
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.uav_inner_loop import linearized

if importlib.util.find_spec("crazyflow") is None:  # it refuses to be imported here after scipy: see uav_flight
    pytest.skip("crazyflow is not installed", allow_module_level=True)

SETTINGS = NavigationSettings.flying(steps=40)


@pytest.fixture(scope="module")
def law():
    return linearized()


@pytest.fixture(scope="module")
def flown(law):
    return progress(SETTINGS, law, SETTINGS.steps)


def test_a_drone_takes_a_moment_to_start_and_then_flies_at_its_top_speed(flown):
    assert flown[0] < 0.03
    assert (np.diff(flown) >= 0).all()
    assert np.diff(flown)[20:].mean() == pytest.approx(SETTINGS.top_speed * 0.1, rel=0.1)


def test_the_bound_is_when_the_longest_way_of_the_best_assignment_is_flown(flown, law):
    layouts = random_layouts(SETTINGS, 4, 20, np.random.default_rng(3), split=Split.HOLDOUT)
    found = steps_at_full_speed(SETTINGS, law, layouts)
    for starts, goals, steps in zip(layouts.starts, layouts.goals, found, strict=True):
        ways = np.linalg.norm(starts[:, None] - goals[None], axis=-1)
        near = ways <= flown[steps - 1] + SETTINGS.reached
        sooner = ways <= (flown[steps - 2] if steps > 1 else 0.0) + SETTINGS.reached
        assert near[linear_sum_assignment(~near)].all()
        assert not sooner[linear_sum_assignment(~sooner)].all()


def test_who_flies_slower_has_a_later_bound(law):
    slow = dataclasses.replace(SETTINGS, flight=dataclasses.replace(SETTINGS.flight, speed=0.5))
    layouts = random_layouts(SETTINGS, 4, 20, np.random.default_rng(3), split=Split.HOLDOUT)
    assert (steps_at_full_speed(slow, law, layouts) > steps_at_full_speed(SETTINGS, law, layouts)).all()
