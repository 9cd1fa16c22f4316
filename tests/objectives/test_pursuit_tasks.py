"""Tasks of a pursuit: vectors within bounds, seeds that never meet, cases."""

import numpy as np
import pytest

from searchlib.cases import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.pursuit_settings import PursuitSettings
from searchlib.objectives.pursuit_tasks import TASK_AXES, PursuitRange, PursuitTask, PursuitTasks, split_seeds


def test_the_grid_has_the_64_cells_of_the_paper_and_one_task_in_each():
    tasks = PursuitRange().grid()
    assert len(tasks) == 64
    # 5 equally spaced points on every axis of train.yaml; the capture radius is fixed.
    edges = [np.linspace(1.3, 5.0, 5), np.linspace(0.5, 1.0, 5), np.linspace(1.0, 5.0, 5)]
    counts, _ = np.histogramdd(tasks.vectors[:, :3], edges)
    assert (counts == 1).all()
    assert (tasks.capture_radius == 0.15).all()
    assert len(set(tasks.seeds.tolist())) == 64


def test_an_axis_whose_bounds_are_equal_is_not_cut():
    range_ = PursuitRange(evader_speed=(1.0, 3.5), half_size=(0.5, 2.2), obstacle_speed=(1.0, 1.0))
    tasks = range_.grid(3, copies=4)
    assert len(tasks) == 9 * 4
    cells = tasks.vectors.reshape(9, 4, 4)
    assert (cells == cells[:, :1]).all()
    assert len(set(tasks.seeds.tolist())) == 36
    assert len(PursuitRange.only(2.4, 1.5).grid()) == 1


def test_grids_of_different_seeds_and_splits_are_different_worlds():
    first, second, other = (
        PursuitRange().grid(seed=0), PursuitRange().grid(seed=1), PursuitRange().grid(split=Split.SELECT),
    )  # fmt: skip
    assert np.array_equal(first.vectors, PursuitRange().grid().vectors)
    assert np.array_equal(first.seeds, PursuitRange().grid().seeds)
    assert not {*first.seeds.tolist()} & {*second.seeds.tolist()}
    assert not {*first.seeds.tolist()} & {*other.seeds.tolist()}


def test_uniform_tasks_fill_the_range():
    tasks = PursuitRange(capture_radius=(0.1, 0.6)).uniform(np.random.default_rng(0), 2000)
    for axis, (name, low, high) in enumerate(zip(TASK_AXES, (1.3, 0.5, 1.0, 0.1), (5.0, 1.0, 5.0, 0.6), strict=True)):
        counts, _ = np.histogram(tasks.vectors[:, axis], 4, (low, high))
        assert counts.sum() == 2000
        assert counts.min() > 400
        assert np.array_equal(getattr(tasks, name), tasks.vectors[:, axis])


def test_seeds_of_different_splits_never_meet_even_from_equal_generators():
    seeds = [split_seeds(split, np.random.default_rng(0), 1000) for split in Split]
    assert [len(set(part.tolist())) for part in seeds] == [1000] * 3
    remainders = [set((part % 4).tolist()) for part in seeds]
    assert remainders == [{0}, {1}, {2}]


def test_tasks_survive_being_taken_apart_and_put_together():
    starts = np.full((3, 4, 2), np.nan)
    starts[1] = 0.25
    tasks = PursuitTasks(PursuitRange().uniform(np.random.default_rng(1), 3).vectors, [4, 5, 6], starts)
    again = PursuitTasks.of(tuple(tasks))
    assert np.array_equal(again.vectors, tasks.vectors)
    assert np.array_equal(again.seeds, tasks.seeds)
    assert np.array_equal(again.starts, tasks.starts, equal_nan=True)
    assert PursuitTasks.of(tasks) is tasks
    assert tasks[0].starts is None
    assert tasks[1].starts == ((0.25, 0.25),) * 4
    assert PursuitTasks.of([tasks[0]]).starts is None
    assert tasks[1:].seeds.tolist() == [5, 6]
    hash(tasks[1])


def test_cases_are_named_by_all_that_decides_a_world():
    starts = np.zeros((1, 4, 2))
    vectors, seeds = [[2.4, 1.5, 1.0, 0.15]], [9]
    plain, placed = PursuitTasks(vectors, seeds), PursuitTasks(vectors, seeds, starts)
    ids = [part.cases().ids[0] for part in (plain, placed, PursuitTasks(vectors, seeds, starts + 0.1))]
    assert len(set(ids)) == 3
    assert ids[0] == "2.3999999999999999 1.5 1 0.14999999999999999 #9"
    third = PursuitTasks([[1 / 3, 1.5, 1.0, 0.15]], [9])
    assert float(third.cases().ids[0].split()[0]) == 1 / 3
    taken = PursuitRange().grid().cases().take([5, 2])
    assert PursuitTasks.of(taken.payload).seeds.tolist() == PursuitRange().grid().seeds[[5, 2]].tolist()


def test_a_task_that_is_there_twice_is_refused_as_cases():
    tasks = PursuitTasks([[2.4, 1.5, 1.0, 0.15]] * 2, [9, 9])
    with pytest.raises(InvalidSettings, match="distinct"):
        tasks.cases()


@pytest.mark.parametrize(
    ("vectors", "seeds", "message"),
    [
        ([[2.4, 1.5, 1.0]], [1], "shapes"),
        ([[2.4, 1.5, 1.0, 0.15]], [1, 2], "shapes"),
        ([[2.4, 0.0, 1.0, 0.15]], [1], "half_size of task 0 must be positive, but is 0.0"),
        ([[2.4, 1.0, 0.0, 0.15], [2.4, 1.0, -1.0, 0.15]], [1, 2], "obstacle_speed of task 1"),
        ([[np.nan, 1.0, 1.0, 0.15]], [1], "evader_speed"),
        ([[2.4, 1.0, 1.0, 0.15]], [-1], "whole numbers from 0"),
        ([[2.4, 1.0, 1.0, 0.15]], [0.5], "whole numbers from 0"),
    ],
)
def test_tasks_that_cannot_be_meant_are_refused(vectors, seeds, message):
    with pytest.raises(InvalidSettings, match=message):
        PursuitTasks(vectors, seeds)


def test_ranges_out_of_order_are_refused():
    with pytest.raises(InvalidSettings, match=r"half_size must be \(low, high\)"):
        PursuitRange(half_size=(2.0, 1.0))


def test_things_that_are_no_tasks_are_refused():
    with pytest.raises(InvalidSettings, match="no pursuit tasks"):
        PursuitTasks.of([1, 2])
    assert PursuitTasks.of([PursuitTask(2.4, 1.5, 1.0, 0.15, 3)]).seeds.tolist() == [3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dimension": 4}, "dimension must be 2 or 3"),
        ({"pursuers": 0}, "pursuers"),
        ({"arena": "torus"}, "'box' or 'cylinder'"),
        ({"arena": "cylinder", "obstacles": 6}, "places for 5 posts"),
        ({"fewest_obstacles": 0}, "leave it out"),
        ({"arena": "cylinder", "obstacles": 2, "fewest_obstacles": 3}, "at most obstacles=2"),
        ({"dt": 0.0}, "dt must be a positive number"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong, message):
    with pytest.raises(InvalidSettings, match=message):
        PursuitSettings(**wrong)


def test_the_settings_of_the_papers_are_those_of_their_files():
    tfs, dualcl = PursuitSettings.tfs(), PursuitSettings.dualcl()
    assert (tfs.pursuers, tfs.obstacles, tfs.steps, tfs.dt, tfs.obstacle_radius, tfs.collision_radius) == (
        3, 5, 500, 0.016, 0.05, 0.01,
    )  # fmt: skip
    assert (dualcl.pursuers, dualcl.obstacles, dualcl.steps, dualcl.arena) == (4, 3, 800, "cylinder")
