"""Start states of a pursuit: free cells, open paths, and nothing but the seed."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from searchlib.errors import InvalidSettings
from searchlib.objectives.pursuit_settings import PursuitSettings
from searchlib.objectives.pursuit_starts import outside_cells, pursuit_starts, reachable
from searchlib.objectives.pursuit_tasks import PursuitTasks

DUALCL = PursuitSettings.dualcl()


def tasks(n, size=0.9):
    return PursuitTasks([[2.4, size, 0.0, 0.12]] * n, range(n))


def cells(starts, size=0.9):
    """Rows and columns of all agents, and how far they are from the middles of those cells, in cells."""
    places = (starts.agents[:2] / size + 1) * 6 - 0.5
    return np.rint(places).astype(int), np.abs(places - np.rint(places)).max()


def test_the_cells_outside_are_those_that_the_authors_list():
    # placement.py of DualCL: the first and last five cells of the outer rows, then 3, 2, 1 and 1.
    listed = np.zeros((12, 12), bool)
    for row, count in enumerate((5, 3, 2, 1, 1)):
        for line in (row, 11 - row):
            listed[line, :count] = listed[line, -count:] = True
    assert np.array_equal(outside_cells(), listed)


def test_the_flood_reaches_what_scipy_labels_as_one_region():
    rng = np.random.default_rng(0)
    blocked = rng.random((300, 12, 12)) < rng.random((300, 1, 1)) * 0.6
    start = rng.integers(0, 12, (300, 2))
    blocked[np.arange(300), start[:, 0], start[:, 1]] = False
    reached = reachable(blocked, start)
    sizes = set()
    for grid, (row, column), found in zip(~blocked, start, reached, strict=True):
        labels, _ = ndimage.label(grid)
        assert np.array_equal(found, labels == labels[row, column])
        sizes.add(int(found.sum()))
    assert len(sizes) > 30


def test_every_pursuer_of_a_cylinder_arena_has_an_open_path_to_the_evader():
    starts = pursuit_starts(DUALCL, tasks(300))
    (rows, columns), off = cells(starts)
    assert off < 1e-4
    middles = (np.stack(np.meshgrid(np.arange(12), np.arange(12), indexing="ij")) - 5.5) * 0.15
    for world in range(300):
        free, open_ = ~outside_cells(), ~outside_cells()
        for foot, top in zip(starts.obstacles[:2, :, world].T, starts.tops[:, world], strict=True):
            under = (np.abs(middles - foot[:, None, None]) < 0.3).all(axis=0)
            free &= ~(under & (top >= 0))
            open_ &= ~(under & (top > 1.0))
        assert free[rows[:, world], columns[:, world]].all()
        assert len({*zip(rows[:, world], columns[:, world], strict=True)}) == 5
        labels, _ = ndimage.label(open_)
        regions = labels[rows[:, world], columns[:, world]]
        assert (regions == regions[-1]).all()
        assert regions[-1] > 0


def test_without_the_check_some_start_states_would_have_no_path(monkeypatch):
    module = __import__("searchlib.objectives.pursuit_starts", fromlist=["reachable"])
    checked = pursuit_starts(DUALCL, tasks(300))
    monkeypatch.setattr(module, "reachable", lambda blocked, start: np.ones_like(blocked))
    unchecked = pursuit_starts(DUALCL, tasks(300))
    differ = (checked.agents[:2] != unchecked.agents[:2]).any(axis=(0, 1))
    assert 3 < differ.sum() < 150


def test_posts_stand_in_five_places_none_to_three_at_a_time_and_half_of_them_low():
    starts = pursuit_starts(DUALCL, tasks(400))
    stand = starts.tops >= 0
    assert set(stand.sum(axis=0)) == {0, 1, 2, 3}
    np.testing.assert_allclose(np.bincount(stand.sum(axis=0)), 100, atol=35)
    places = {tuple(foot) for foot in np.rint(starts.obstacles[:2].transpose(1, 2, 0)[stand] * 1000).tolist()}
    assert places == {(0, 0), (600, 0), (-600, 0), (0, 600), (0, -600)}
    heights = starts.tops[stand]
    assert {round(height, 4) for height in heights.tolist()} == {0.6, 1.2}
    assert 0.4 < (heights < 1).mean() < 0.6
    for world in range(400):
        feet = {tuple(foot) for foot in np.round(starts.obstacles[:2, :, world], 4).T[stand[:, world]].tolist()}
        assert len(feet) == stand[:, world].sum()


def test_a_fixed_number_of_posts_can_be_asked_for():
    for count in (0, 2, 3):
        settings = dataclasses.replace(DUALCL, obstacles=count, fewest_obstacles=None)
        assert ((pursuit_starts(settings, tasks(20)).tops >= 0).sum(axis=0) == count).all()


def test_in_two_dimensions_all_posts_are_high():
    settings = PursuitSettings(arena="cylinder")
    starts = pursuit_starts(settings, tasks(50))
    np.testing.assert_allclose(starts.tops, 1.2, rtol=1e-6)
    assert starts.agents.shape == (2, 4, 50)


def test_agents_fill_the_height_of_the_cylinder():
    heights = pursuit_starts(DUALCL, tasks(300)).agents[2]
    assert heights.min() >= 0.02 - 1e-6
    assert heights.max() <= 1.18 + 1e-6
    assert np.histogram(heights, 4, (0.02, 1.18))[0].min() > 0.2 * heights.size


@pytest.mark.parametrize("dimension", [2, 3])
def test_agents_and_balls_fill_the_box(dimension):
    settings = PursuitSettings(dimension=dimension)
    starts = pursuit_starts(settings, tasks(500, 1.5))
    low, high = np.array([-1.5, -1.5, 0.0][:dimension]), np.array([1.5, 1.5, 3.0][:dimension])
    for places in (starts.agents, starts.obstacles):
        shares = (places - low[:, None, None]) / (high - low)[:, None, None]
        assert shares.min() >= 0
        assert shares.max() <= 1
        for axis in shares:
            assert np.histogram(axis, 5, (0, 1))[0].min() > 0.17 * axis.size


@pytest.mark.parametrize("settings", [PursuitSettings(), DUALCL], ids=["box", "cylinder"])
def test_a_start_depends_on_its_seed_alone(settings):
    whole = pursuit_starts(settings, tasks(20))
    for part in ([7], [19, 3, 7]):
        some = pursuit_starts(settings, tasks(20).take(part))
        for name in ("agents", "obstacles", "tops", "turns"):
            assert np.array_equal(getattr(some, name), getattr(whole, name)[..., part])
    assert len({places.tobytes() for places in np.moveaxis(whole.agents, -1, 0)}) == 20


def test_given_starts_take_the_place_of_drawn_ones():
    given = np.full((2, 4, 2), np.nan)
    given[1] = [[0.1, 0.2], [0.3, 0.4], [-0.1, -0.2], [0.5, -0.5]]
    drawn = PursuitTasks([[2.4, 1.0, 1.0, 0.15]] * 2, [1, 2])
    starts = pursuit_starts(PursuitSettings(), PursuitTasks(drawn.vectors, drawn.seeds, given))
    np.testing.assert_allclose(starts.agents[..., 1].T, given[1], rtol=1e-6)
    assert np.array_equal(starts.agents[..., 0], pursuit_starts(PursuitSettings(), drawn).agents[..., 0])


def test_starts_of_another_number_of_agents_are_refused():
    wrong = PursuitTasks([[2.4, 1.0, 1.0, 0.15]], [1], np.zeros((1, 3, 2)))
    with pytest.raises(InvalidSettings, match=r"shape \(4, 2\), but have \(3, 2\)"):
        pursuit_starts(PursuitSettings(), wrong)


def test_a_longer_episode_begins_with_the_turns_of_a_shorter_one():
    short, long = (pursuit_starts(PursuitSettings(steps=steps), tasks(3)).turns for steps in (60, 100))
    assert (len(short), len(long)) == (3, 5)
    assert np.array_equal(long[:3], short)
