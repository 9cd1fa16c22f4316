"""Pictures of episodes and curricula show what happened."""

from __future__ import annotations

import dataclasses
import itertools
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.objectives import PursuitSettings
from searchlib.objectives.pursuit_heuristics import Janosov
from searchlib.objectives.pursuit_pictures import animate_pursuit, draw_curriculum, draw_pursuit
from searchlib.objectives.pursuit_record import record_pursuit
from searchlib.objectives.pursuit_tasks import PursuitTask

POSTS = dataclasses.replace(PursuitSettings.dualcl(), steps=30, fewest_obstacles=3)
EPISODES = {
    "box": record_pursuit(PursuitSettings(steps=60), PursuitTask(0.5, 0.5, 1.0, 0.15, seed=3), Janosov()),
    "box in 3-D": record_pursuit(PursuitSettings.tfs(), PursuitTask(3.0, 1.0, 1.0, 0.01, seed=3), Janosov()),
    "cylinder": record_pursuit(POSTS, PursuitTask(2.4, 0.9, 0.0, 0.05, seed=3), Janosov()),
}


@pytest.mark.parametrize("name", EPISODES)
def test_an_episode_is_drawn_where_it_was(name, tmp_path):
    trajectory = EPISODES[name]
    axes = draw_pursuit(trajectory)
    paths = [line.get_xydata() for line in axes.lines]
    last = len(paths[0]) - 1
    assert last == (np.argmax(trajectory.captured) if trajectory.captured.any() else len(trajectory.evader) - 1)
    for pursuer in range(trajectory.settings.pursuers):
        np.testing.assert_array_equal(paths[pursuer], trajectory.pursuers[: last + 1, pursuer, :2])
    np.testing.assert_array_equal(paths[trajectory.settings.pursuers], trajectory.evader[: last + 1, :2])
    shown = len([patch for patch in axes.patches if patch.get_fill()])
    assert shown == trajectory.settings.obstacles
    assert ("caught" in axes.get_title()) == bool(trajectory.captured.any())
    file = tmp_path / "episode.png"
    axes.figure.savefig(file)
    assert file.read_bytes().startswith(b"\x89PNG")


def test_a_slow_evader_is_caught_and_a_fast_one_is_not_so_both_kinds_were_drawn():
    assert EPISODES["box"].captured.any()
    assert not EPISODES["box in 3-D"].captured.any()


def test_a_moving_picture_has_a_frame_for_every_few_states_and_lasts_as_long_as_the_episode(tmp_path):
    image = pytest.importorskip("PIL.Image")
    trajectory = EPISODES["cylinder"]
    with image.open(animate_pursuit(trajectory, tmp_path / "episode.gif", every=5)) as gif:
        assert gif.format == "GIF"
        assert gif.n_frames == 7
        frames = []
        for number in range(gif.n_frames):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB"), float))
            assert gif.info["duration"] == pytest.approx(5 * 0.016 * 1000, rel=0.1)
    assert all(np.abs(before - after).max() > 0 for before, after in itertools.pairwise(frames))


def test_a_curriculum_is_drawn_with_all_its_tasks_and_their_success():
    rng = np.random.default_rng(0)
    tasks = [rng.random((count, 4)) for count in (3, 5, 2)]
    success = [rng.random(3), rng.random(5)]
    speed, radius = draw_curriculum(tasks, success, ("evader_speed", "capture_radius"))
    for axes, column in ((speed, 0), (radius, 3)):
        (dots,) = axes.collections
        places = np.asarray(dots.get_offsets())
        np.testing.assert_array_equal(places[:, 0], [0, 0, 0, 1, 1, 1, 1, 1])
        np.testing.assert_array_equal(places[:, 1], np.concatenate(tasks[:2])[:, column])
        np.testing.assert_array_equal(dots.get_array(), np.concatenate(success))


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(InvalidSettings, match="from 0 to 60"):
        draw_pursuit(EPISODES["box"], until=61)
    with pytest.raises(InvalidSettings, match="every="):
        animate_pursuit(EPISODES["box"], tmp_path / "never.gif", every=0)
    with pytest.raises(InvalidSettings, match="coordinates"):
        draw_curriculum([np.zeros((1, 4))], [np.zeros(1)], ("height",))
    with pytest.raises(InvalidSettings, match="generation"):
        draw_curriculum([], [])


def test_without_matplotlib_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"searchlib\[report\]"):
        draw_pursuit(EPISODES["box"])
