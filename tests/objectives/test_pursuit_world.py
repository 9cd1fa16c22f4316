"""The pursuit simulator: what it equals when written slowly, what it counts, and what it does not depend on."""

import itertools
import math
import time

import numpy as np
import pytest

from searchlib.objectives.pursuit_heuristics import Janosov, PotentialField
from searchlib.objectives.pursuit_policy import PursuitNetwork
from searchlib.objectives.pursuit_record import record_pursuit
from searchlib.objectives.pursuit_settings import PursuitSettings
from searchlib.objectives.pursuit_starts import pursuit_starts
from searchlib.objectives.pursuit_tasks import PursuitRange, PursuitTask, PursuitTasks
from searchlib.objectives.pursuit_world import Pursuers, PursuitWorld, rollout

RANGE = PursuitRange(evader_speed=(1.0, 3.5), half_size=(0.5, 2.2), obstacle_speed=(1.0, 3.0))
SETTINGS = {
    "2-D box": PursuitSettings(),
    "3-D box": PursuitSettings(dimension=3, obstacles=5, steps=120, dt=0.016),
    "3-D cylinder": PursuitSettings(dimension=3, pursuers=4, arena="cylinder", steps=120, dt=0.016),
    "2-D cylinder": PursuitSettings(arena="cylinder", steps=120),
}


@pytest.fixture(params=SETTINGS)
def settings(request):
    return SETTINGS[request.param]


class Drift(Pursuers):
    """Commands of a given length, in directions that turn from pursuer to pursuer."""

    def __init__(self, length):
        self.length = length

    def command(self, sight):
        angles = np.arange(sight.pursuers.shape[1])[:, None] + 0 * sight.distance
        command = np.zeros_like(sight.pursuers)
        command[0], command[1] = self.length * np.cos(angles), self.length * np.sin(angles)
        return command


# --- the formulas of the notes, one world, one number at a time -------------------------------------------------------


def minus(a, b):
    return [x - y for x, y in zip(a, b, strict=True)]


def norm(a):
    return math.sqrt(sum(x * x for x in a))


def slow_evader_step(settings, task, pursuers, evader, obstacles, tops):
    """F = Σ d̂/|d| + obstacles + walls; velocity v_e F/|F|."""
    s, dimension = task.half_size, settings.dimension
    force = [0.0] * dimension
    for pursuer in pursuers:
        away = minus(evader, pursuer)
        force = [f + x / (norm(away) + 1e-5) ** 2 for f, x in zip(force, away, strict=True)]
    if settings.arena == "box":
        for ball in obstacles:
            away = minus(evader, ball)
            force = [f + x / (norm(away) + 1e-5) ** 2 for f, x in zip(force, away, strict=True)]
        bounds = [(-s, s), (-s, s), (0, 2 * s)][:dimension]
        for axis, (low, high) in enumerate(bounds):
            force[axis] += 1 / (evader[axis] - low + 1e-5) - 1 / (high - evader[axis] + 1e-5)
    else:
        r = math.hypot(*evader[:2])
        for axis in range(2):
            force[axis] -= evader[axis] / ((s - r) ** 2 + 1e-5)
        if dimension == 3:
            force[2] += 1 / (evader[2] + 1e-5) - 1 / (4 / 3 * s - evader[2] + 1e-5)
        for post, top in zip(obstacles, tops, strict=True):
            if top >= 0:
                unit, gap = slow_gap(evader, post, top, s / 3)
                force = [f + x / (max(gap - 0.05, 0) + 1e-9) for f, x in zip(force, unit, strict=True)]
    return [task.evader_speed * settings.dt * f / (norm(force) + 1e-5) for f in force]


def slow_gap(place, post, top, radius):
    """Unit vector away from the nearest point of a post and the distance to it."""
    flat = minus(place[:2], post[:2])
    beside = norm(flat) - radius
    above = place[2] - top if len(place) == 3 else -1.0
    if above <= 0:
        return [x / norm(flat) for x in flat] + [0.0] * (len(place) - 2), beside
    beside = max(beside, 0.0)
    gap = math.hypot(beside, above)
    return [*(x / norm(flat) * beside / gap for x in flat), above / gap], gap


def slow_confine(settings, s, place, obstacles, tops):
    place = list(place)
    if settings.arena == "box":
        bounds = [(-s, s), (-s, s), (0, 2 * s)][: settings.dimension]
        return [min(max(x, low), high) for x, (low, high) in zip(place, bounds, strict=True)]
    for post, top in zip(obstacles, tops, strict=True):
        flat = minus(place[:2], post[:2])
        below = settings.dimension == 2 or place[2] < top
        if top >= 0 and below and norm(flat) < s / 3:
            place[:2] = [c + x / norm(flat) * s / 3 for c, x in zip(post[:2], flat, strict=True)]
    r = math.hypot(*place[:2])
    place[:2] = [x * min(1.0, s / max(r, 1e-9)) for x in place[:2]]
    return place[:2] + [min(max(z, 0.0), 4 / 3 * s) for z in place[2:]]


@pytest.mark.parametrize("name", ["2-D box", "3-D box", "3-D cylinder", "2-D cylinder"])
def test_every_step_is_that_of_a_slow_loop_over_the_formulas(name):
    settings, steps = SETTINGS[name], 0
    tasks = RANGE.uniform(np.random.default_rng(5), 6)
    for index, task in enumerate(tasks):
        path = record_pursuit(settings, task, Drift(0.9))
        turns = pursuit_starts(settings, tasks.take([index])).turns[..., 0]
        for now in range(settings.steps):
            pursuers, evader, obstacles = path.pursuers[now], path.evader[now], path.obstacles[now]
            places = [list(map(float, place)) for place in (*pursuers, evader, *obstacles)]
            chase, prey = places[: settings.pursuers], places[settings.pursuers]
            balls, tops = places[settings.agents :], path.post_heights.tolist()
            moved = minus(prey, [-x for x in slow_evader_step(settings, task, chase, prey, balls, tops)])
            expected = slow_confine(settings, task.half_size, moved, balls, tops)
            np.testing.assert_allclose(path.evader[now + 1], expected, atol=2e-5)
            for i, place in enumerate(chase):
                turned = [0.9 * math.cos(i), 0.9 * math.sin(i), 0.0][: settings.dimension]
                there = [x + settings.dt * u for x, u in zip(place, turned, strict=True)]
                there = slow_confine(settings, task.half_size, there, balls, tops)
                np.testing.assert_allclose(path.pursuers[now + 1, i], there, atol=1e-5)
            if settings.arena == "box":
                flown = [
                    [x + task.obstacle_speed * settings.dt * u for x, u in zip(ball, turn, strict=True)]
                    for ball, turn in zip(balls, turns[now // 20].T.tolist(), strict=True)
                ]
                flown = [slow_confine(settings, task.half_size, ball, (), ()) for ball in flown]
                np.testing.assert_allclose(path.obstacles[now + 1], flown, atol=1e-5)
            steps += 1
    assert steps == 6 * settings.steps


@pytest.mark.parametrize("seed", range(5))
def test_a_whole_path_is_that_of_the_slow_loop_as_long_as_chaos_permits(seed):
    # Two paths in 64 bits, one of them rounded to 32 after every step, say how long that is.
    settings, task = PursuitSettings(obstacles=0, steps=60), PursuitTask(2.4, 1.5, 1.0, 0.15, seed=seed)
    path = record_pursuit(settings, task, Drift(0.9))
    start = path.evader[0].astype(float).tolist()
    prey = shifted = start
    chase = path.pursuers[0].astype(float).tolist()
    compared = 0
    for now in range(settings.steps):
        steps = [slow_evader_step(settings, task, chase, place, (), ()) for place in (prey, shifted)]
        for i, place in enumerate(chase):
            moved = [place[0] + 0.036 * math.cos(i), place[1] + 0.036 * math.sin(i)]
            chase[i] = slow_confine(settings, task.half_size, moved, (), ())
        prey, shifted = (
            slow_confine(settings, task.half_size, [x + d for x, d in zip(place, step, strict=True)], (), ())
            for place, step in zip((prey, shifted), steps, strict=True)
        )
        shifted = np.float32(shifted).astype(float).tolist()
        if norm(minus(prey, shifted)) > 1e-6:
            break
        np.testing.assert_allclose(path.evader[now + 1], prey, atol=1e-5)
        np.testing.assert_allclose(path.pursuers[now + 1], chase, atol=1e-5)
        compared += 1
    assert compared >= 5


def test_the_outcome_counts_what_the_recorded_path_shows(settings):
    tasks = RANGE.uniform(np.random.default_rng(1), 15)
    outcome = rollout(settings, tasks, Janosov())
    for index, task in enumerate(tasks):
        path = record_pursuit(settings, task, Janosov())
        distances = np.linalg.norm(path.pursuers - path.evader[:, None], axis=-1)
        caught = distances.min(axis=1) < task.capture_radius
        assert np.array_equal(caught, path.captured)
        assert outcome.captured[index] == caught.any()
        assert outcome.capture_steps[index] == caught.sum()
        assert outcome.first_capture_step[index] == (caught.argmax() if caught.any() else settings.steps)
        assert outcome.min_distance[index] == pytest.approx(distances.min(), abs=1e-5)
        reward = np.where(caught, 10 * (distances < task.capture_radius).sum(axis=1), -distances.min(axis=1)).sum()
        reward -= 5 / settings.pursuers * outcome.collisions[index]
        assert outcome.reward[index] == pytest.approx(reward, rel=1e-3, abs=1e-2)
    assert outcome.captured.sum() > 1


def test_collisions_are_those_of_the_recorded_path():
    settings = PursuitSettings(obstacles=6, obstacle_radius=0.1, collision_radius=0.05)
    tasks = RANGE.uniform(np.random.default_rng(2), 20)
    outcome = rollout(settings, tasks, Drift(1.0))
    counts = []
    for task in tasks:
        path = record_pursuit(settings, task, Drift(1.0))
        gaps = np.linalg.norm(path.pursuers[:, :, None] - path.obstacles[:, None], axis=-1) - 0.1
        counts.append((gaps < 0.05).sum())
    assert np.array_equal(outcome.collisions, counts)
    assert outcome.collisions.sum() > 20


def test_a_pursuer_that_stands_on_the_evader_has_caught_it_at_step_0(settings):
    starts = np.full((2, settings.agents, settings.dimension), 0.4)
    starts[:, :-2] = -0.4
    starts[1, -1] = -0.3
    tasks = PursuitTasks([[2.4, 0.9, 1.0, 0.12]] * 2, [1, 2], starts)
    outcome = rollout(settings, tasks, Drift(0.0))
    assert outcome.captured[0]
    assert outcome.first_capture_step.tolist()[0] == 0
    assert outcome.min_distance[0] < 1e-6
    assert outcome.first_capture_step[1] > 0


def test_nobody_is_faster_than_allowed_and_nobody_leaves(settings):
    tasks = RANGE.uniform(np.random.default_rng(3), 20)
    free = 0
    for task in tasks:
        path = record_pursuit(settings, task, Drift(3.0))
        steps = np.linalg.norm(np.diff(path.pursuers, axis=0), axis=-1)
        # Whom a post pushes aside moves a little further than he flew.
        limit = settings.dt * (1.0 if settings.arena == "box" else 1.5)
        assert steps.max() <= limit * (1 + 1e-4)
        jumps = np.linalg.norm(np.diff(path.evader, axis=0), axis=-1)
        if settings.arena == "box":
            assert jumps.max() <= task.evader_speed * settings.dt * (1 + 1e-4)
            inner = np.abs(path.evader[1:, :2]).max(axis=1) < task.half_size - 1e-4
            inner &= (path.evader[1:, 2:] > 1e-4).all(axis=1) & (path.evader[1:, 2:] < 2 * task.half_size - 1e-4).all(1)
            # Constant speed, whatever the force (unless that is almost none), where no wall stops it.
            np.testing.assert_allclose(jumps[inner], task.evader_speed * settings.dt, rtol=2e-2)
            free += inner.sum()
        everyone = np.concatenate([path.pursuers, path.evader[:, None]], axis=1)
        size = np.linalg.norm(everyone[..., :2], axis=-1) if settings.arena == "cylinder" else everyone[..., :2]
        assert np.abs(size).max() <= task.half_size * (1 + 1e-6)
    if settings.arena == "box":
        assert free > 100


def test_commands_that_are_too_fast_are_counted_and_cut():
    tasks = RANGE.uniform(np.random.default_rng(4), 5)
    settings = PursuitSettings(steps=30)
    assert rollout(settings, tasks, Drift(1.0)).over_speed.tolist() == [0] * 5
    fast, full = (rollout(settings, tasks, Drift(length)) for length in (2.0, 1.0))
    assert fast.over_speed.tolist() == [3 * 30] * 5
    np.testing.assert_allclose(fast.min_distance, full.min_distance, atol=1e-4)
    np.testing.assert_allclose(fast.reward, full.reward - 100 * 30, rtol=1e-3)


def test_nobody_is_inside_a_post():
    settings = PursuitSettings(dimension=3, pursuers=4, arena="cylinder", steps=200, dt=0.016)
    tasks = PursuitTasks([[2.4, 0.9, 0.0, 0.12]] * 20, range(20))
    near = 0
    for task in tasks:
        path = record_pursuit(settings, task, Drift(1.0))
        everyone = np.concatenate([path.pursuers, path.evader[:, None]], axis=1)
        for post, top in zip(path.obstacles[0], path.post_heights, strict=True):
            distance = np.linalg.norm(everyone[..., :2] - post[:2], axis=-1)
            beside = everyone[..., 2] < top
            assert distance[beside].min(initial=9) > 0.3 - 1e-4
            near += (distance[beside] < 0.31).sum()
    assert near > 0


# --- independence of company --------------------------------------------------------------------------------------


def teams(settings, n):
    network = PursuitNetwork(settings.dimension)
    rows = 0.5 * np.random.default_rng(7).standard_normal((n, network.parameters))
    return network, rows.astype(np.float32)


def same(first, second):
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in vars(first))


def test_a_world_is_the_same_to_the_last_bit_in_any_company(settings):
    tasks = RANGE.uniform(np.random.default_rng(8), 9)
    network, rows = teams(settings, 5)
    team, task = (part.ravel() for part in np.indices((5, 9)))
    whole = rollout(settings, tasks, network.pursuers(rows, team), worlds=task)
    shuffled = np.random.default_rng(9).permutation(45)
    mixed = rollout(settings, tasks, network.pursuers(rows, team[shuffled]), worlds=task[shuffled])
    assert same(mixed, whole.take(shuffled))
    assert same(rollout(settings, tasks, network.pursuers(rows, team), worlds=task, block=7), whole)
    for world in (0, 17, 44):
        alone = rollout(
            settings, tasks.take([task[world]]), network.pursuers(rows[team[world]][None], np.array([0]))
        )  # fmt: skip
        assert same(alone, whole.take([world]))
    assert len(set(whole.reward.tolist())) == 45


@pytest.mark.parametrize("heuristic", [Janosov(), PotentialField()])
def test_stopping_at_the_capture_changes_nothing_before_it(settings, heuristic):
    tasks = RANGE.uniform(np.random.default_rng(10), 40)
    whole, stopped = (rollout(settings, tasks, heuristic, stop_at_capture=stop) for stop in (False, True))
    assert np.array_equal(whole.captured, stopped.captured)
    assert np.array_equal(whole.first_capture_step, stopped.first_capture_step)
    assert np.array_equal(stopped.capture_steps, stopped.captured)
    never = ~whole.captured
    assert same(whole.take(never), stopped.take(never))
    assert (stopped.min_distance >= whole.min_distance).all()
    assert whole.captured.any()


def test_all_chance_comes_from_the_seed_of_the_task():
    tasks = PursuitTasks([[2.4, 1.5, 1.0, 0.15]] * 4, [5, 6, 5, 7])
    outcome = rollout(PursuitSettings(), tasks, Janosov())
    assert same(outcome.take([0]), outcome.take([2]))
    assert len({*outcome.min_distance.tolist()}) == 3


def test_the_size_of_the_box_scales_the_start_and_nothing_else_does():
    settings = PursuitSettings()
    small, large = (pursuit_starts(settings, PursuitTasks([[2.4, s, 1.0, 0.15]], [3])) for s in (0.5, 2.0))
    np.testing.assert_allclose(large.agents, 4 * small.agents, rtol=1e-6)
    assert np.array_equal(large.turns, small.turns)
    np.testing.assert_allclose(np.linalg.norm(small.turns, axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(("pursuers", "obstacles"), list(itertools.product([1, 2, 5], [0, 1])))
def test_any_number_of_pursuers_and_obstacles_will_do(pursuers, obstacles):
    settings = PursuitSettings(pursuers=pursuers, obstacles=obstacles, steps=20)
    tasks = RANGE.uniform(np.random.default_rng(11), 3)
    network, rows = teams(settings, 1)
    for team in (network.pursuers(rows, np.zeros(3, int)), Janosov(), PotentialField()):
        outcome = rollout(settings, tasks, team)
        assert np.isfinite(outcome.min_distance).all()
        assert np.isfinite(outcome.reward).all()


def test_no_worlds_are_no_outcome():
    outcome = rollout(PursuitSettings(), PursuitTasks(np.empty((0, 4)), np.empty(0, int)), Janosov())
    assert len(outcome) == 0


def test_many_worlds_cost_little_more_than_one():
    settings = PursuitSettings(steps=60)
    tasks = RANGE.uniform(np.random.default_rng(12), 24)
    network, rows = teams(settings, 40)
    team, task = (part.ravel() for part in np.indices((40, 24)))

    def seconds(worlds):
        began = time.process_time()
        rollout(settings, tasks, network.pursuers(rows, team[worlds]), worlds=task[worlds])
        return time.process_time() - began

    many = min(seconds(slice(None)) for _ in range(3))
    one = min(seconds(slice(1)) for _ in range(3))
    assert many < 960 * one / 30
    # Measured alone: 0.8 million steps per second; a machine that is busy with other things passes too.
    assert 960 * settings.steps / many > 100_000


def test_the_state_can_be_stepped_by_hand():
    settings = PursuitSettings()
    tasks = RANGE.uniform(np.random.default_rng(13), 2)
    world = PursuitWorld(settings, tasks, pursuit_starts(settings, tasks), np.array([0, 1, 1]))
    for _ in range(5):
        sight = world.sight()
        world.step(Janosov().command(sight), sight)
    assert world.time == 5
    assert world.pursuers.shape == (2, 3, 3)
    assert np.array_equal(world.evader[..., 1], world.evader[..., 2])
    assert not np.array_equal(world.evader[..., 0], world.evader[..., 1])
