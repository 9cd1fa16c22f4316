"""Multi-UAV pursuit as an objective: whole flights, one compiled shape."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest

pytest.importorskip("jax")
if importlib.util.find_spec("crazyflow") is None:  # it refuses to be imported here after scipy: see uav_flight
    pytest.skip("crazyflow is not installed", allow_module_level=True)

from searchlib import Budget, Curriculum, EvolutionStrategy, search
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.objectives.uav_inner_loop import linearized
from searchlib.objectives.uav_predictor import FRAME_SIZE, FRAMES, MOMENTS, UavPredictor
from searchlib.objectives.uav_pursuit import UavPursuit
from searchlib.objectives.uav_rules import collided, sees
from searchlib.objectives.uav_settings import UavSettings
from searchlib.objectives.uav_tasks import UavTasks, scenario_tasks, uniform_tasks
from searchlib.objectives.uav_world import rollout
from searchlib.space import Candidates
from searchlib.testing import check_objective

SETTINGS = UavSettings(steps=80)
WALL = scenario_tasks("wall", 1, shift=0.0).vectors[0]


def pursuit(**changes):
    return UavPursuit(SETTINGS, inner_loop=linearized(), **{"search": 6, "select": 4, "holdout": 6, **changes})


def near(x=0.25, posts=()):
    """A task that begins with a drone ``x`` m off the evader, and its mates far away."""
    vector = WALL.copy()
    vector[:12] = [0, x, 0.6, 0.6, 0.3, 0.6, 0.6, -0.3, 0.6, 0.0, 0.0, 0.6]
    vector[12:] = 0.8
    vector[12 : 12 + 2 * len(posts)] = np.ravel(posts)
    return vector


def test_it_keeps_the_contract_of_objectives_to_the_last_bit():
    check_objective(pursuit(), tolerance=0, cases=3)


def test_scores_are_captures_without_collision_and_worlds_do_not_depend_on_company():
    objective = pursuit()
    rows = objective.space.sample(np.random.default_rng(0), 5)
    tasks = uniform_tasks(np.random.default_rng(1), 40)
    outcome, paths = rollout(SETTINGS, tasks, objective.teams(rows))
    scores = objective.evaluate(Candidates(objective.space, rows), tasks.cases())
    np.testing.assert_array_equal(scores.values, outcome.success.reshape(5, 40))
    assert 0 < outcome.captured.sum() < 200
    assert (outcome.success == (outcome.captured & ~outcome.collided)).all()
    some = np.array([199, 3, 77])
    again, walked = rollout(SETTINGS, tasks, objective.teams(rows), some)
    for field in dataclasses.fields(again):
        if field.name != "steps":
            np.testing.assert_array_equal(getattr(again, field.name), getattr(outcome, field.name)[some])
    np.testing.assert_array_equal(walked.drones, paths.drones[:, some])
    np.testing.assert_allclose(paths.drones[0, :40], tasks.drones, atol=1e-6)


def test_what_happened_is_what_the_paths_show():
    objective = pursuit()
    tasks = uniform_tasks(np.random.default_rng(2), 60)
    outcome, paths = rollout(SETTINGS, tasks, objective.teams(("angelani",)))
    posts = np.where(tasks.stands[..., None], tasks.cylinders, 1e3)
    visible = sees(paths.drones, paths.evader, np.broadcast_to(posts, (SETTINGS.decisions, *posts.shape)), SETTINGS, np)
    np.testing.assert_array_equal(paths.seen, visible.any(axis=-1))
    apart = np.linalg.norm(paths.drones - paths.evader[:, :, None], axis=-1)
    caught = ((apart < 0.3) & visible).any(axis=-1)
    assert caught[1:].any()
    assert outcome.captured[caught[1:].any(axis=0)].all()
    crashed = np.stack([collided(paths.drones[k], posts, SETTINGS, np) for k in range(1, SETTINGS.decisions)])
    assert outcome.collided[crashed.any(axis=0)].all()
    speed = np.linalg.norm(np.diff(paths.evader, axis=0), axis=-1) / 0.04
    assert 0.6 < np.median(speed) <= speed.max() <= 1.3 + 1e-3
    np.testing.assert_array_equal(paths.believed[paths.seen], paths.evader[paths.seen])


def test_a_capture_needs_free_sight():
    objective = pursuit()
    tasks = UavTasks([near(), near(posts=[(0.0, 0.12)]), near(posts=[(0.4, 0.0)])], [1, 1, 1])
    outcome = objective.outcome(np.zeros((1, objective.network.parameters)), tasks)
    assert outcome.first_capture_step[0] == 0
    assert outcome.first_capture_step[2] == 0
    assert outcome.first_capture_step[1] > 0
    assert outcome.min_distance[1] < 0.3


def test_gains_of_the_evader_come_from_the_seed_and_change_its_flight():
    objective = pursuit()
    task = uniform_tasks(np.random.default_rng(3), 1)
    tasks = UavTasks(np.repeat(task.vectors, 3, axis=0), [4, 8, 8])
    paths = objective.paths(("janosov",), tasks)
    assert np.abs(paths.evader[-1, 0] - paths.evader[-1, 1]).max() > 1e-3
    np.testing.assert_array_equal(paths.evader[:, 1], paths.evader[:, 2])


def test_the_layer_for_safety_saves_the_heuristics():
    tasks = scenario_tasks("random", 40)
    safe, bare = (pursuit(safe=one).outcome(("angelani",), tasks).collided.mean() for one in (True, False))
    assert safe < 0.5 * bare


def test_only_a_predictor_changes_what_leads_the_aim():
    weights = UavPredictor.fit(
        np.zeros((1, FRAMES, FRAME_SIZE), np.float32), np.full((1, len(MOMENTS), 3), 0.2, np.float32), epochs=50
    )
    tasks = uniform_tasks(np.random.default_rng(4), 3)
    row = np.zeros((1, pursuit().network.parameters), np.float32)
    row[0, :5] = 1.0
    ahead, level = (pursuit(predictor=one).paths(row, tasks).drones for one in (weights, None))
    assert np.abs(ahead - level).max() > 1e-3
    row[0, :5] = 0.0
    straight = pursuit().paths(row, tasks).drones
    np.testing.assert_array_equal(straight, level)


def test_a_search_on_a_curriculum_runs_and_its_heuristics_are_references():
    objective = pursuit(select=0, holdout=8)
    result = search(
        objective, EvolutionStrategy(method="openai", population=8, sigma=0.4), seed=0, shortlist=1, batch_size=8,
        budget=Budget(evaluations=16), cases=Curriculum(per_generation=8, low=0.1, high=0.9),
    )  # fmt: skip
    assert np.abs(result.row).max() > 0
    assert objective.references() == ("janosov", "angelani", "potential field")
    scores = objective.evaluate_reference("janosov", objective.cases(Split.HOLDOUT))
    assert set(scores.tolist()) <= {0.0, 1.0}


def test_pictures_show_the_paths(tmp_path):
    pytest.importorskip("matplotlib")
    from searchlib.objectives.uav_pictures import UavEpisode, animate_uav_pursuit, draw_uav_curriculum, draw_uav_pursuit

    tasks = scenario_tasks("wall", 2)
    paths = pursuit().paths(("angelani",), tasks)
    episode = UavEpisode(SETTINGS, tasks[1], paths, 1)
    axes = draw_uav_pursuit(episode, until=15)
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xydata()) > 1]
    np.testing.assert_array_equal(lines[0], paths.drones[:16, 1, 0, :2])
    np.testing.assert_array_equal(lines[-1], paths.evader[:16, 1, :2])
    assert len([patch for patch in axes.patches if patch.get_fill()]) == 4
    axes.figure.savefig(tmp_path / "episode.png")
    assert (tmp_path / "episode.png").read_bytes().startswith(b"\x89PNG")
    image = pytest.importorskip("PIL.Image")
    with image.open(animate_uav_pursuit(episode, tmp_path / "episode.gif", every=5, until=19)) as gif:
        assert gif.n_frames == 5
    panels = draw_uav_curriculum([tasks.vectors] * 3, [np.array([0.2, 0.8])] * 2)
    places = np.asarray(panels[0].collections[0].get_offsets())
    np.testing.assert_allclose(places, [[0, 0.2], [0, 0.8], [1, 0.2], [1, 0.8]])
    with pytest.raises(InvalidSettings, match="until="):
        draw_uav_pursuit(episode, until=SETTINGS.decisions)
    with pytest.raises(InvalidSettings, match="every="):
        animate_uav_pursuit(episode, tmp_path / "never.gif", every=0)
    with pytest.raises(InvalidSettings, match="generation"):
        draw_uav_curriculum([], [])


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InvalidSettings, match="40 finite numbers"):
        UavPursuit(inner_loop=np.zeros(3))
    tasks = uniform_tasks(np.random.default_rng(0), 5)
    with pytest.raises(InvalidSettings, match="is in both search and holdout"):
        pursuit(search=tasks, holdout=tasks.take([3]))
    objective = pursuit()
    with pytest.raises(InvalidCandidate, match="parameters"):
        objective.outcome(np.zeros((1, 3)), tasks)
    with pytest.raises(InvalidSettings, match="the heuristics are janosov"):
        objective.outcome(("wolves",), tasks)
    with pytest.raises(InvalidSettings, match="no tasks of a UavPursuit"):
        objective.evaluate(Candidates(objective.space, np.zeros((1, objective.network.parameters))), Cases.of(["x"]))


def test_what_decides_a_score_shows_in_the_fingerprint():
    kinds = [pursuit(), pursuit(safe=False), UavPursuit(inner_loop=linearized()), pursuit(hidden=(4,))]
    kinds.append(UavPursuit(SETTINGS, inner_loop=linearized() * 1.1))
    assert len({repr(kind.fingerprint()) for kind in kinds}) == 5
