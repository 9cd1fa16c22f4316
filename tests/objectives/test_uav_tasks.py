"""Tasks of a multi-UAV pursuit: the authors' scenarios and generator, and what their expansion may change."""

from __future__ import annotations

import numpy as np
import pytest

from searchlib import Curriculum, Split, TaskArchive
from searchlib.errors import InvalidSettings
from searchlib.objectives.uav_tasks import (
    SCENARIOS,
    UAV_AXES,
    UavTask,
    UavTasks,
    UavTaskSpace,
    free_starts,
    scenario_tasks,
    uniform_tasks,
)

AUTHORS = {  # drones, evader and cylinders of hideandseek.py
    "wall": ([(.6, .4), (.6, 0), (.6, -.4)], (-.8, 0), {(0, .15), (0, -.15), (0, .45), (0, -.45)}),
    "narrow gap": ([(0, .7), (.2, .7), (-.2, .7)], (-.5, .2), {(.3, .3), (.3, -.3), (-.3, .3), (-.3, -.3), (0, .3)}),
    "random": ([(.6, 0), (.8, 0), (.8, -.2)], (-.8, 0),
               {(.6, .4), (-.6, .4), (-.2, .4), (0, .2), (-.2, -.4), (0, -.2)}),
    "passage": ([(.6, 0), (.8, .2), (.8, -.2)], (0, .6),
                {(0, .3), (.2, .3), (-.2, .3), (0, -.2), (.2, -.2), (-.2, -.2)}),
}  # fmt: skip


@pytest.mark.parametrize("name", AUTHORS)
def test_scenarios_are_the_authors_and_shifts_stay_small_and_free(name):
    drones, evader, cylinders = AUTHORS[name]
    given = scenario_tasks(name, 1, shift=0.0)
    np.testing.assert_allclose(given.drones[0], [(x, y, 0.5) for x, y in drones])
    np.testing.assert_allclose(given.evader[0], (*evader, 0.5))
    assert set(map(tuple, given.cylinders[0][given.stands[0]].tolist())) == cylinders
    moved = scenario_tasks(name, 300, seed=3)
    apart = np.abs(moved.vectors - given.vectors)
    assert apart[:, :12].max() <= 0.1
    assert apart[:, 12:].max() == 0
    assert free_starts(moved.vectors).all()
    assert len(set(moved.cases().ids)) == 300


def test_starts_that_are_held_out_are_met_by_no_search():
    held = {task.seed for task in scenario_tasks("wall", 200)} | {
        task.seed for task in uniform_tasks(np.random.default_rng(0), 200, split=Split.HOLDOUT)
    }
    assert len(held) == 400
    assert not held & {task.seed for task in uniform_tasks(np.random.default_rng(0), 500)}


def test_the_generator_draws_four_or_five_cylinders_on_its_grid_off_everybody():
    tasks = uniform_tasks(np.random.default_rng(0), 500)
    assert set(tasks.stands.sum(axis=1).tolist()) == {4, 5}
    cells = tasks.cylinders[tasks.stands] / 0.2
    np.testing.assert_allclose(cells, np.round(cells), atol=1e-9)
    assert tasks.drones[..., 0].min() >= 0.1
    assert tasks.drones[..., 0].max() <= 0.536
    assert -0.536 <= tasks.evader[:, 0].min() <= tasks.evader[:, 0].max() <= -0.1
    agents = np.concatenate([tasks.drones, tasks.evader[:, None]], axis=1)
    beside = np.linalg.norm(agents[:, :, None, :2] - tasks.cylinders[:, None], axis=-1)
    assert beside[np.broadcast_to(tasks.stands[:, None], beside.shape)].min() >= 0.2
    for world, stands in zip(tasks.cylinders, tasks.stands, strict=True):
        assert len(np.unique(world[stands], axis=0)) == stands.sum()


def test_the_expansion_moves_starts_by_a_tenth_of_a_metre_and_no_cylinders():
    space = UavTaskSpace.default()
    rows = space.sample(np.random.default_rng(0), 300)
    moved = space.near(np.random.default_rng(1), rows, 0.1 / 1.8)
    assert 0.09 < np.abs(moved - rows)[:, :12].max() <= 0.1 + 1e-12
    assert (moved[:, 12:] == rows[:, 12:]).all()
    assert space.contains(moved).all()
    inside = space.at(space.unit(rows))
    np.testing.assert_allclose(inside, rows, atol=1e-12)


def test_a_curriculum_keeps_tasks_between_its_thresholds():
    generator = Curriculum(low=0.5, high=0.9, share=0.7, expansion=0.1 / 1.8, archive=TaskArchive(capacity=50))
    run = generator.start_on(UavTaskSpace.default(), np.random.default_rng(0))
    for _ in range(12):
        batch = run.ask(24)
        run.tell(batch, (batch.tasks[:, 9] + 0.8).clip(0, 1))
    assert len(run.archive) == 50
    x = run.tasks.at(run.archive.tasks)[:, 9]
    assert ((x >= -0.3 - 1e-9) & (x <= 0.1 + 1e-9)).all()
    assert (run.ask(24).origin == 1).sum() == 17


def test_gains_are_log_uniform_and_decided_by_the_seed():
    tasks = scenario_tasks("wall", 2000)
    gains = tasks.gains(1.4)
    assert gains.shape == (2000, 4)
    assert 1 / 1.4 <= gains.min() < 0.72
    assert 1.38 < gains.max() <= 1.4
    np.testing.assert_allclose(np.log(gains).mean(), 0, atol=0.01)
    np.testing.assert_array_equal(tasks.take([5, 3]).gains(1.4), gains[[5, 3]])
    np.testing.assert_array_equal(tasks.gains(1.0), 1)


def test_tasks_are_a_payload_and_wrong_ones_are_refused():
    tasks = scenario_tasks("random", 5)
    again = UavTasks.of(list(tasks))
    assert isinstance(tasks[0], UavTask)
    np.testing.assert_array_equal(again.vectors, tasks.vectors)
    np.testing.assert_array_equal(again[1:3].seeds, tasks.seeds[1:3])
    with pytest.raises(InvalidSettings, match="no tasks of a UavPursuit"):
        UavTasks.of(["a prompt"])
    with pytest.raises(InvalidSettings, match=f"vectors \\(n, {len(UAV_AXES)}\\)"):
        UavTasks(np.zeros((2, 3)), [0, 1])
    with pytest.raises(InvalidSettings, match="the scenarios are wall"):
        scenario_tasks("desert", 1)
    assert list(SCENARIOS) == list(AUTHORS)
