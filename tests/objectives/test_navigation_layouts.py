"""Layouts: density, room between things, seeds of splits, and the authors' files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from searchlib.cases import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.navigation_layouts import NavigationLayouts, authors_layouts, random_layouts
from searchlib.objectives.navigation_settings import NavigationSettings

CROWDED = NavigationSettings(start_speed=1.5, pillars=4)
AUTHORS = Path(__file__).parents[2].parent / "shared" / "data" / "masp_layouts"


def apart(first, second=None):
    offset = first[:, :, None] - (first if second is None else second)[:, None]
    found = np.linalg.norm(offset, axis=-1)
    if second is None:
        found[:, np.arange(first.shape[1]), np.arange(first.shape[1])] = np.inf
    return found


def test_everything_has_room_at_the_same_density_in_every_size():
    for agents in (5, 20):
        layouts = random_layouts(CROWDED, agents, 30, np.random.default_rng(0))
        side = CROWDED.side(agents)
        assert agents / side**2 == pytest.approx(CROWDED.density)
        assert layouts.pillars.shape == (30, CROWDED.posts(agents), 2)
        for places in (layouts.starts, layouts.goals, layouts.pillars):
            assert 0.4 * side < np.abs(places).max() <= side / 2
        assert apart(layouts.starts).min() > 2 * CROWDED.radius
        assert apart(layouts.goals).min() > 2 * CROWDED.reached
        for places in (layouts.starts, layouts.goals):
            assert apart(places, layouts.pillars).min() > CROWDED.radius + CROWDED.pillar_radius


def test_velocities_fill_a_disc_or_a_ball():
    for settings in (CROWDED, NavigationSettings.flying(start_speed=1.5)):
        speeds = np.linalg.norm(random_layouts(settings, 5, 400, np.random.default_rng(1)).velocities, axis=-1)
        assert speeds.max() <= 1.5
        # The share of a disc (ball) within half its radius.
        assert (speeds < 0.75).mean() == pytest.approx(0.5**settings.dimension, abs=0.03)
    assert not random_layouts(NavigationSettings(), 5, 2, np.random.default_rng(1)).velocities.any()


def test_splits_never_share_a_seed_and_payloads_come_back():
    drawn = [random_layouts(CROWDED, 4, 50, np.random.default_rng(2), split=split) for split in Split]
    seeds = [set(layouts.seeds.tolist()) for layouts in drawn]
    assert all(len(one) == 50 for one in seeds)
    assert not seeds[0] & seeds[1]
    assert not seeds[0] & seeds[2]
    again = NavigationLayouts.of([drawn[0][3], drawn[0][7]])
    for field in dataclasses.fields(again):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(drawn[0].take([3, 7]), field.name))
    assert again.cases().ids == tuple(drawn[0].cases().ids[i] for i in (3, 7))


def test_layouts_that_cannot_be_meant_are_refused():
    layouts = random_layouts(CROWDED, 4, 2, np.random.default_rng(3))
    with pytest.raises(InvalidSettings, match="starts, velocities and goals"):
        NavigationLayouts(layouts.starts, layouts.velocities, layouts.goals[:, :3], layouts.pillars, layouts.seeds)
    with pytest.raises(InvalidSettings, match="finite"):
        NavigationLayouts(layouts.starts * np.nan, layouts.velocities, layouts.goals, layouts.pillars, layouts.seeds)
    with pytest.raises(InvalidSettings, match="as many agents"):
        NavigationLayouts.of([layouts[0], random_layouts(CROWDED, 5, 1, np.random.default_rng(3))[0]])
    with pytest.raises(InvalidSettings, match="no room"):
        random_layouts(NavigationSettings(density=30), 5, 1, np.random.default_rng(3))
    with pytest.raises(InvalidSettings, match="dt="):
        NavigationSettings(flight=NavigationSettings.flying().flight, dt=0.2)
    with pytest.raises(InvalidSettings, match="pillars"):
        NavigationSettings(flight=NavigationSettings.flying().flight, pillars=1)


def test_the_authors_layouts_are_read_as_they_wrote_them(tmp_path):
    with pytest.raises(InvalidSettings, match="no layouts of 20"):
        authors_layouts(tmp_path, 20)
    for name, rows in (("map", [[3, 0], [0, 3]]), ("land", [[-3, 0], [0, -3]])):
        np.savetxt(tmp_path / f"2agent_simple_spread_{name}_0.txt", rows)
    layouts = authors_layouts(tmp_path, 2)
    np.testing.assert_allclose(layouts.starts, [[[2, 0], [0, 2]]])
    np.testing.assert_allclose(layouts.goals, [[[-2, 0], [0, -2]]])


def test_their_own_files_hold_four_layouts_of_twenty_and_of_fifty():
    if not AUTHORS.is_dir():
        pytest.skip("the layouts of MAGE-X are not here (../shared/data/masp_layouts)")
    for agents in (20, 50):
        layouts = authors_layouts(AUTHORS, agents)
        assert layouts.starts.shape == layouts.goals.shape == (4, agents, 2)
        assert apart(layouts.goals).min() > 0.2
