"""Buildings to explore: images of a resolution, the area that can be reached, generated plans, starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from searchlib.cases import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.exploration_maps import KINDS, FloorPlan, generated_plan, load_floor_plan
from searchlib.objectives.exploration_tasks import ExplorationTask, exploration_tasks, plans_by_name, task_cases

DATA = Path(__file__).parents[3] / "shared" / "data" / "floorplans"


def saved(tmp_path, pixels, name="plan.png"):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.asarray(pixels, np.uint8)).save(tmp_path / name)
    return tmp_path / name


@pytest.mark.parametrize("name", ["plan.png", "plan.pgm"])
def test_a_cell_is_as_many_pixels_as_the_resolution_says(tmp_path, name):
    pixels = np.full((40, 60), 255)
    pixels[:, 30] = 0  # a wall one pixel wide, with a door two cells wide
    pixels[10:20, 30] = 255
    plan = load_floor_plan(saved(tmp_path, pixels, name), resolution=0.07, cell=0.35)
    assert plan.walls.shape == (40 // 5 + 2, 60 // 5 + 2)
    assert plan.cell == 0.35
    np.testing.assert_array_equal(np.flatnonzero(plan.walls[1:-1, 1 + 30 // 5]), [0, 1, 4, 5, 6, 7])
    assert plan.free == 8 * 12 - 6
    assert plan.name == "plan"


def test_gray_is_not_free_and_what_cannot_be_reached_is_wall(tmp_path):
    pixels = np.full((20, 20), 255)
    pixels[:, 10] = 205  # what a mapping robot did not know
    pixels[:, 15:] = 205
    plan = load_floor_plan(saved(tmp_path, pixels), resolution=1.0, cell=1.0)
    assert plan.walls.shape == (22, 12)
    assert plan.free == 200


def test_a_plan_is_one_connected_area_inside_a_border():
    rng = np.random.default_rng(0)
    plan = FloorPlan("noise", rng.random((30, 40)) < 0.35)
    labels, areas = ndimage.label(~plan.walls)
    assert areas == 1
    assert plan.free == (labels == 1).sum() > 100
    border = np.concatenate([plan.walls[0], plan.walls[-1], plan.walls[:, 0], plan.walls[:, -1]])
    assert border.all()


@pytest.mark.parametrize("kind", KINDS)
def test_generated_plans_are_the_same_for_the_same_seed_and_large_enough_to_explore(kind):
    plans = [generated_plan(kind, seed) for seed in range(6)]
    assert len({plan.digest for plan in plans}) == 6
    np.testing.assert_array_equal(generated_plan(kind, 3).walls, plans[3].walls)
    for plan in plans:
        assert plan.free > 0.3 * 60 * 90
        assert ndimage.label(~plan.walls)[1] == 1


def test_a_team_starts_together_on_free_cells():
    plan = generated_plan("caves", 1)
    starts = plan.starts(5, 6)
    assert starts.shape == (6, 2)
    assert len({tuple(place) for place in starts.tolist()}) == 6
    assert not plan.walls[starts[:, 0], starts[:, 1]].any()
    assert np.abs(starts - starts[0]).sum(axis=1).max() <= 5
    np.testing.assert_array_equal(plan.starts(5, 6), starts)
    np.testing.assert_array_equal(plan.starts(5, 2), starts[:2])
    assert len({tuple(plan.starts(seed, 1)[0].tolist()) for seed in range(30)}) > 20


def test_real_floor_plans_are_read():
    if not DATA.is_dir():
        pytest.skip("the floor plans are not here (../shared/data/floorplans)")
    pytest.importorskip("PIL")
    willow = load_floor_plan(DATA / "willow-full.pgm", resolution=0.1, cell=0.5)
    assert max(willow.walls.shape) == 110
    assert willow.free * willow.cell**2 > 700  # m²
    assert load_floor_plan(DATA / "autolab.png", resolution=0.0346, cell=0.35).free > 2500


def test_tasks_go_through_all_buildings_and_teams_and_splits_share_no_seed():
    plans = [generated_plan(kind, 0) for kind in KINDS]
    tasks = {split: exploration_tasks(plans, (2, 4), 80, split=split) for split in Split}
    for some in tasks.values():
        counts = {(task.plan, task.agents) for task in some}
        assert len(counts) == 8
        assert len({task.seed for task in some}) == 80
    seeds = [{task.seed for task in some} for some in tasks.values()]
    assert not seeds[0] & seeds[1] | seeds[0] & seeds[2] | seeds[1] & seeds[2]
    assert exploration_tasks(plans, (2,), 9, seed=1) != exploration_tasks(plans, (2,), 9, seed=2)


def test_the_name_of_a_case_says_which_walls():
    first, second = FloorPlan("x", np.zeros((5, 5))), FloorPlan("x", np.zeros((5, 6)))
    task = ExplorationTask("x", 2, 7)
    ids = {task_cases({"x": plan}, [task]).ids for plan in (first, second)}
    assert len(ids) == 2


def test_what_cannot_be_meant_is_refused(tmp_path):
    with pytest.raises(InvalidSettings, match="free cells"):
        FloorPlan("rock", np.ones((3, 3)))
    with pytest.raises(InvalidSettings, match="positive number of meters"):
        FloorPlan("x", np.zeros((3, 3)), cell=0.0)
    with pytest.raises(InvalidSettings, match="too few for 5 agents"):
        FloorPlan("closet", np.zeros((2, 2))).starts(0, 5)
    with pytest.raises(InvalidSettings, match="kind must be one of rooms"):
        generated_plan("mazes", 0)
    with pytest.raises(InvalidSettings, match="at least as large as a pixel"):
        load_floor_plan(tmp_path / "none.png", resolution=0.5, cell=0.35)
    with pytest.raises(InvalidSettings, match="an image that pillow reads"):
        load_floor_plan(tmp_path / "none.png", resolution=0.1, cell=0.35)
    plan = FloorPlan("x", np.zeros((5, 5)))
    with pytest.raises(InvalidSettings, match="distinct names"):
        plans_by_name([plan, plan])
    with pytest.raises(InvalidSettings, match="1 to 8 agents"):
        exploration_tasks([plan], (9,), 1)
    with pytest.raises(InvalidSettings, match="a task is on 'y'"):
        task_cases({"x": plan}, [ExplorationTask("y", 2, 0)])
