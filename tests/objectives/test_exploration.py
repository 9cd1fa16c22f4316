"""Exploration of unknown buildings: sight, paths, the topological map, whole episodes, and the objective."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from scipy import ndimage, sparse
from scipy.sparse import csgraph

from searchlib import CMAES, Budget, FreshCases, search
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.objectives.exploration import Exploration
from searchlib.objectives.exploration_episode import play
from searchlib.objectives.exploration_features import GHOST_FEATURES, MAIN_FEATURES
from searchlib.objectives.exploration_ghosts import scratch_arrays
from searchlib.objectives.exploration_maps import FloorPlan, generated_plan
from searchlib.objectives.exploration_nodes import Topology, add_circle, grow, prune_circle, topology_arrays
from searchlib.objectives.exploration_paths import distances_from, find_pockets, spread
from searchlib.objectives.exploration_policy import ExplorationPolicy
from searchlib.objectives.exploration_rules import RULES
from searchlib.objectives.exploration_settings import ExplorationSettings
from searchlib.objectives.exploration_sight import FREE, UNKNOWN, WALL, ray_tree, reveal, unseen_from
from searchlib.objectives.exploration_tasks import ExplorationTask, exploration_tasks
from searchlib.objectives.exploration_waypoints import choose_waypoint
from searchlib.objectives.exploration_world import REACHED
from searchlib.space import Candidates
from searchlib.testing import check_objective

PLANS = [generated_plan(kind, 0, height=26, width=36) for kind in ("rooms", "caves", "halls")]
UNSEEN = [generated_plan("offices", 7, height=26, width=36)]
SIGHT, RAYS = 9.0, 144


#: What random parameters do may never come to an end.
SHORT = ExplorationSettings(steps=150)


def team(**changes):
    return Exploration(PLANS, UNSEEN, **{"search": 12, "holdout": 6, **changes})


def sampled_sight(walls, place, radius=SIGHT, rays=RAYS):
    """Cells that points walking along every ray come through before a wall, by tiny steps."""
    lengths = np.arange(0.0, radius + 1.5, 0.002)
    found = {place}
    for angle in (np.arange(rays) + 0.5) * (2 * np.pi / rays):
        cells = np.floor(np.add(place, 0.5) + lengths[:, None] * [np.sin(angle), np.cos(angle)]).astype(int)
        cells = cells[((cells - place) ** 2).sum(axis=1) <= radius**2]
        cells = cells[((cells >= 0) & (cells < walls.shape)).all(axis=1)]
        blocked = np.flatnonzero(walls[cells[:, 0], cells[:, 1]])
        found |= {tuple(cell) for cell in cells[: blocked[0] + 1 if len(blocked) else None][::5].tolist()}
        if len(blocked):
            found.add(tuple(cells[blocked[0]].tolist()))
    return found


def seen_from(plan, place):
    walls = plan.walls.ravel().astype(np.uint8)
    known, seen = np.zeros(walls.size, np.uint8), np.zeros(walls.size, np.uint8)
    width = plan.walls.shape[1]
    new = reveal(walls, known, seen, 0, place[0] * width + place[1], width, ray_tree(SIGHT, RAYS))
    assert new == (known == FREE).sum() == (seen == 1).sum()
    return known.reshape(plan.walls.shape)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.name)
def test_a_lidar_sees_what_rays_reach_and_nothing_else(plan):
    place = tuple(np.argwhere(~plan.walls)[200].tolist())
    known = seen_from(plan, place)
    expected = sampled_sight(plan.walls, place)
    assert len(expected) > 40
    assert {tuple(cell) for cell in np.argwhere(known != UNKNOWN).tolist()} == expected
    np.testing.assert_array_equal(known == WALL, plan.walls & (known != UNKNOWN))


def test_in_an_empty_hall_every_cell_of_the_disk_is_seen_once():
    hall = FloorPlan("hall", np.zeros((30, 30)))
    known = seen_from(hall, (15, 15))
    rows, columns = np.indices(known.shape)
    np.testing.assert_array_equal(known == FREE, (rows - 15) ** 2 + (columns - 15) ** 2 <= SIGHT**2)


def test_what_would_be_seen_is_what_is_seen_where_all_unknown_cells_turn_out_free():
    hall = FloorPlan("hall", np.zeros((30, 30)))
    known = np.zeros(hall.walls.size, np.uint8)
    known[hall.walls.ravel()] = WALL
    width, tree = hall.walls.shape[1], ray_tree(SIGHT, RAYS)
    stamps = np.zeros(known.size + 1, np.int32)
    place = 4 * width + 4
    expected = (seen_from(hall, (4, 4)) == FREE).sum() - 1  # but for where one stands
    assert unseen_from(known, place, width, tree, stamps, 1) == expected
    known[place + 1 : place + 3] = FREE
    assert unseen_from(known, place, width, tree, stamps, 2) == expected - 2
    known[place + width] = WALL  # hides what lies behind
    assert unseen_from(known, place, width, tree, stamps, 3) < expected - 8


def test_path_lengths_are_those_of_scipy():
    plan = PLANS[1]
    width, size = plan.walls.shape[1], plan.walls.size
    free = ~plan.walls
    cells = np.arange(size).reshape(free.shape)
    pairs = [(cells[:, :-1], cells[:, 1:], free[:, :-1] & free[:, 1:]), (cells[:-1], cells[1:], free[:-1] & free[1:])]
    a, b = (np.concatenate([pair[k][pair[2]] for pair in pairs]) for k in (0, 1))
    graph = sparse.coo_array((np.ones(len(a)), (a, b)), shape=(size, size)).tocsr()
    source = int(np.flatnonzero(free)[11])
    expected = csgraph.dijkstra(graph, directed=False, indices=source, unweighted=True)
    known = np.where(free, FREE, WALL).astype(np.uint8).ravel()
    found, queue = np.empty(size, np.int32), np.empty(size, np.int32)
    assert distances_from(known, source, width, size, found, queue) == free.sum()
    np.testing.assert_array_equal(np.where(found < 0, np.inf, found), expected)
    distances_from(known, source, width, 7, found, queue)
    np.testing.assert_array_equal(np.where(found < 0, np.inf, found), np.where(expected <= 7, expected, np.inf))


def half_known(plan):
    """The left half of a building is known, and some of the rest."""
    known = np.where(plan.walls, WALL, FREE).astype(np.uint8)
    known[1:-1, 18:-1] = UNKNOWN
    known[3:9, 20:30] = known[8:12, 19:23] = FREE
    known[5:7, 24:26] = UNKNOWN
    return known


def test_pockets_are_the_areas_of_unknown_cells():
    known = half_known(PLANS[1])
    labels, count = ndimage.label(known == UNKNOWN)
    assert count > 1
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    pocket, queue = np.empty(known.size, np.int32), np.empty(known.size, np.int32)
    find_pockets(known.ravel(), known.shape[1], pocket, queue)
    np.testing.assert_array_equal(pocket.reshape(known.shape), sizes[labels])


def test_ways_through_the_unknown_are_those_on_a_map_where_it_is_free():
    known = half_known(PLANS[1])
    width, source = known.shape[1], int(np.flatnonzero(known.ravel() == FREE)[5])
    open_map = np.where(known == WALL, WALL, FREE).astype(np.uint8).ravel()
    queue, expected = np.empty(known.size, np.int32), np.empty(known.size, np.int32)
    distances_from(open_map, source, width, 25, expected, queue)
    found = np.full(known.size, -1, np.int32)
    reached = spread(known.ravel(), source, width, 25, True, found, queue)
    np.testing.assert_array_equal(found, expected)
    assert reached == (expected >= 0).sum() > (known == FREE).sum() / 2


def waypoint(look, goal, ahead=5):
    """In a known corridor, with a dark room beside it: the waypoint from its left end, (row, column)."""
    known = np.full((20, 30), WALL, np.uint8)
    known[9:12, 2:28] = FREE
    known[3:8, 5:9] = UNKNOWN
    known[8, 5:9] = FREE  # a door above the corridor
    path, scratch = np.empty(known.size, np.int32), scratch_arrays(known.size)
    distances_from(known.ravel(), 10 * 30 + 2, 30, known.size, path, scratch.queue)
    chosen, _ = choose_waypoint(
        known.ravel(), path, 10 * 30 + 2, goal[0] * 30 + goal[1], ahead, 30, ray_tree(SIGHT, 36), look, scratch, 0
    )
    return divmod(int(chosen), 30), int(path[chosen])


def test_a_waypoint_is_where_more_is_seen_and_so_many_steps_ahead():
    straight, steps = waypoint(1e-9, (10, 20))
    assert straight == (10, 7)
    assert steps == 5
    seeing, steps = waypoint(10.0, (10, 20))
    assert seeing[0] < 10
    assert steps == 5


def test_a_goal_that_is_nearer_and_one_without_waypoints_are_kept():
    assert waypoint(1.0, (10, 6)) == ((10, 6), 4)
    assert waypoint(0.0, (10, 20)) == ((10, 20), 18)


TOPOLOGY = Topology(spacing=5.0, spokes=24, radius=8.0, creation=2.0, apart=1.5, explored=0.6, around=3.0)


def ghosts_around(places, known, topology=TOPOLOGY):
    """A topological map whose main nodes were made at these cells in turn, and its ghosts before and after pruning."""
    height, width = known.shape
    net, region = topology_arrays(), np.full(known.size, -1, np.int32)
    for row, column in places:
        grow(topology, net, row * width + column, width, region)
    made = np.stack([net.rows, net.columns], -1)[: net.counts[1]].copy()
    left = prune_circle(topology, net, known.ravel(), width, height)
    return net, made, np.stack([net.rows, net.columns], -1)[:left]


def test_a_main_node_is_made_only_where_none_is_near():
    net, _, _ = ghosts_around([(20, 20), (20, 24), (20, 25), (20, 26), (24, 23)], np.zeros((60, 60), np.uint8))
    assert net.nodes[: net.counts[0]].tolist() == [20 * 60 + 20, 20 * 60 + 26]


def test_a_main_node_in_the_unknown_has_all_its_ghosts_on_the_circle():
    _, made, left = ghosts_around([(30, 30)], np.zeros((60, 60), np.uint8))
    assert len(made) == len(left) == 24
    np.testing.assert_allclose(np.hypot(*(made - 30).T), 8.0)


def test_ghosts_near_nodes_are_not_made_or_dropped():
    _, made, left = ghosts_around([(30, 30), (30, 38)], np.zeros((60, 60), np.uint8))
    second = made[24:]
    assert len(second) < 24
    for ghost in second:
        nodes = np.array([[30, 30], *made[:24]])
        assert np.hypot(*(nodes - ghost).T).min() >= 2.0
    # the first node's ghosts around the second node are gone
    assert np.hypot(*(left - [30, 38]).T).min() > 5.0
    assert np.hypot(*(made[:24] - [30, 38]).T).min() < 1.0


def test_ghosts_are_dropped_where_all_is_explored_and_outside_of_the_grid():
    known = np.zeros((60, 60), np.uint8)
    known[:, :33] = FREE
    _, made, left = ghosts_around([(30, 30)], known)
    near_unknown = np.floor(made[:, 1] + 0.5) >= 33 - 3
    assert 0 < near_unknown.sum() < 24
    np.testing.assert_allclose(left, made[near_unknown])
    _, _, left = ghosts_around([(30, 3)], np.zeros((60, 60), np.uint8))
    assert 0 < len(left) < 24
    assert left.min() >= 0


@pytest.mark.parametrize(("explored", "kept"), [(3, True), (5, False)])
def test_a_ghost_behind_a_wall_is_dropped_where_more_than_sixty_percent_behind_it_is_explored(explored, kept):
    known = np.zeros((60, 60), np.uint8)
    known[30, 30:32] = FREE
    known[30, 32] = WALL
    known[30, 33 : 33 + explored] = FREE  # of the six cells up to the ghost
    net = topology_arrays()
    topology = TOPOLOGY._replace(spokes=1)
    grow(topology, net, 30 * 60 + 30, 60, np.full(known.size, -1, np.int32))
    assert net.counts[1] == 1
    assert (prune_circle(topology, net, known.ravel(), 60, 60) == 1) == kept


def test_a_ghost_too_near_to_another_one_is_dropped():
    net = topology_arrays()
    topology = TOPOLOGY._replace(creation=0.0)
    region = np.full(3600, -1, np.int32)
    grow(topology, net, 30 * 60 + 30, 60, region)
    add_circle(topology, net, 60)
    assert net.counts[1] == 48
    assert prune_circle(topology, net, np.zeros(3600, np.uint8), 60, 60) == 24


@pytest.fixture(scope="module")
def episodes():
    """One episode of every kind of planner, with two or three agents."""
    objective = team()
    found = {}
    for number, how in enumerate((objective.policy.prior(), *RULES)):
        task = ExplorationTask(PLANS[number % 3].name, 2 + number % 2, 1000 + number)
        found[how if isinstance(how, str) else "planner"] = (task, objective.record(how, task))
    return found


def test_agents_walk_one_cell_at_a_time_and_never_through_walls(episodes):
    assert len(episodes) == 8
    for task, episode in episodes.values():
        assert episode.paths.shape[1:] == (task.agents, 2)
        assert not episode.plan.walls[episode.paths[..., 0], episode.paths[..., 1]].any()
        assert np.abs(np.diff(episode.paths, axis=0)).sum(axis=-1).max() == 1
        assert episode.steps > 10


def test_the_map_is_the_union_of_what_every_agent_has_seen(episodes):
    for task, episode in list(episodes.values())[:3]:
        walls = episode.plan.walls
        first = np.full(walls.shape, -1)
        views = {}
        for step, places in enumerate(episode.paths):
            for place in map(tuple, places.tolist()):
                if place not in views:
                    views[place] = seen_from(episode.plan, place) != UNKNOWN
                first[(first < 0) & views[place]] = step
        inner = np.s_[1:-1, 1:-1]  # nobody needs to see the border
        np.testing.assert_array_equal(episode.first_seen[inner], first[inner])
        assert task.plan == episode.plan.name


def test_steps_to_a_share_are_when_that_share_of_the_free_cells_is_known(episodes):
    for _, episode in episodes.values():
        for share, steps in zip(REACHED, episode.reached.astype(int), strict=True):
            if steps <= episode.steps:
                assert episode.covered(steps) >= share
                assert steps == 0 or episode.covered(steps - 1) < share
        assert episode.reached[-1] == episode.steps
        labels, _ = ndimage.label(~episode.plan.walls)
        assert labels.max() == 1  # so that all free cells can be reached


def test_overlap_is_the_share_of_cells_that_several_agents_saw():
    objective = team()
    task = ExplorationTask(PLANS[0].name, 2, 5)
    outcome = objective.outcome((objective.policy.prior(),), [task])
    episode = objective.record(objective.policy.prior(), task)
    at = int(outcome.steps_to(0.9)[0, 0])
    counts = np.zeros(episode.plan.walls.shape, int)
    for a in range(2):
        seen = np.zeros(counts.shape, bool)
        for place in map(tuple, episode.paths[: at + 1, a].tolist()):
            seen |= seen_from(episode.plan, place) != UNKNOWN
        counts += seen & ~episode.plan.walls
    assert outcome.overlap[0, 0, REACHED.index(0.9)] == pytest.approx((counts > 1).sum() / (counts > 0).sum())


def test_main_nodes_lie_where_agents_were_and_apart(episodes):
    _, episode = episodes["planner"]
    assert len(episode.mains) > 2
    been = {tuple(place) for place in episode.paths.reshape(-1, 2).tolist()}
    assert {tuple(place) for place in episode.mains.tolist()} <= been
    off = np.hypot(*(episode.mains[:, None] - episode.mains).transpose(2, 0, 1))
    assert off[np.triu_indices(len(off), 1)].min() > 2.0 / 0.35


def test_it_keeps_the_contract_of_objectives_to_the_last_bit():
    check_objective(team(settings=SHORT), tolerance=0, cases=3)


def test_an_episode_does_not_depend_on_its_company():
    objective = team(settings=SHORT)
    rows = objective.space.sample(np.random.default_rng(0), 3)
    tasks = objective.cases(Split.HOLDOUT).payload
    outcome = objective.outcome(rows, tasks)
    alone = objective.outcome(rows[2:], tasks[4:5])
    np.testing.assert_array_equal(alone.steps[0, 0], outcome.steps[2, 4])
    np.testing.assert_array_equal(alone.overlap[0, 0], outcome.overlap[2, 4])
    scores = objective.evaluate(Candidates(objective.space, rows), objective.cases(Split.HOLDOUT))
    np.testing.assert_allclose(scores, np.log(outcome.steps[..., 3:]).mean(axis=-1))


def test_searches_with_one_worker_and_with_two_find_the_same():
    def found(workers):
        return search(
            team(settings=SHORT, search=6, holdout=0), CMAES(sigma=0.3, population=4), seed=3, batch_size=4,
            shortlist=1, budget=Budget(evaluations=9), cases=FreshCases(2), workers=workers,
        )  # fmt: skip

    one, two = found(1), found(2)
    np.testing.assert_array_equal(one.row, two.row)
    assert not np.array_equal(one.row, team().policy.prior())


def test_goals_are_excluded_where_another_agent_goes():
    hall = FloorPlan("hall", np.zeros((60, 12)))
    settings = ExplorationSettings()
    start = next(seed for seed in range(500) if 25 <= hall.starts(seed, 1)[0, 0] <= 35)
    alike, apart = (play(settings, hall, start, 2, RULES[name])[0] for name in
                    ("nearest", "nearest with goal exclusion"))  # fmt: skip
    # Together they go one way and then the other; apart they go both ways at once.
    assert apart[-1] < 0.75 * alike[-1]


def test_circles_and_frontiers_are_two_kinds_of_ghosts_that_both_explore():
    task = exploration_tasks(PLANS, (3,), 1)
    reached = [
        team(settings=ExplorationSettings(ghosts=kind)).outcome((ExplorationPolicy().prior(),), task).steps[0, 0]
        for kind in ("frontier", "circle")
    ]
    assert not np.array_equal(*reached)
    assert max(map(max, reached)) < 3000


def test_without_history_those_features_have_no_weight_and_without_main_nodes_there_is_no_second_level():
    row = np.arange(1.0, 1 + ExplorationPolicy().parameters)
    planner = ExplorationPolicy(history=False).planner(row)
    dropped = {name for name, weight in zip(GHOST_FEATURES, planner.ghost_weights, strict=True) if weight == 0}
    dropped |= {name for name, weight in zip(MAIN_FEATURES, planner.main_weights, strict=True) if weight == 0}
    assert dropped == {"own goal", "goals chosen here", "straight on", "goals of others", "log age", "visits"}
    flat = ExplorationPolicy(main=False)
    assert len(flat.planner(row[: flat.parameters]).main_weights) == 0
    units = ExplorationPolicy(units=3, main_units=2)
    for place, one in enumerate(np.eye(units.parameters)):  # every gene is one number of the planner, in order
        again = units.planner(one)
        numbers = np.concatenate([[again.pull, again.look, again.least], again.ghost_weights, again.main_weights])
        assert np.flatnonzero(numbers).tolist() == [place]


def test_the_main_level_and_hidden_units_change_where_agents_go():
    objective = team(policy=ExplorationPolicy(units=2, main_units=1))
    prior = objective.policy.prior()
    rng = np.random.default_rng(0)
    changed = objective.space.encode([{
        name: part - (2 * abs(rng.normal(size=part.shape)) if name.startswith(level) else 0)
        for name, part in objective.space.decode(prior).items()
    } for level in ("main", "ghost units", "none")])  # fmt: skip
    changed[1, -2:] = prior[-2:]
    tasks = exploration_tasks(PLANS, (2,), 3)
    main, _, same = objective.outcome(changed, tasks).steps
    np.testing.assert_array_equal(same, objective.outcome((prior,), tasks).steps[0])
    assert not np.array_equal(main, same)


def test_pictures_show_the_map_and_the_paths(tmp_path, episodes):
    pytest.importorskip("matplotlib")
    from searchlib.objectives.exploration_pictures import animate_exploration, draw_exploration, map_colors

    _, episode = episodes["planner"]
    axes = draw_exploration(episode, until=20)
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 21]
    np.testing.assert_array_equal(lines[0], episode.paths[:21, 0, ::-1])
    assert f"{episode.covered(20):.0%}" in axes.get_title()
    image = map_colors(episode, 0)
    assert (image[episode.first_seen == 0] != map_colors(episode, episode.steps)[episode.first_seen == 0]).sum() == 0
    axes.figure.savefig(tmp_path / "episode.png")
    assert (tmp_path / "episode.png").read_bytes().startswith(b"\x89PNG")
    pillow = pytest.importorskip("PIL.Image")
    every = episode.steps // 3
    with pillow.open(animate_exploration(episode, tmp_path / "episode.gif", every=every)) as gif:
        assert gif.n_frames == len({*range(0, episode.steps, every), episode.steps})
    with pytest.raises(InvalidSettings, match="until="):
        draw_exploration(episode, until=episode.steps + 1)
    with pytest.raises(InvalidSettings, match="every="):
        animate_exploration(episode, tmp_path / "never.gif", every=0)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InvalidSettings, match="1 of them are in both"):
        Exploration(PLANS, PLANS[:1])
    tasks = exploration_tasks(PLANS, (2,), 4)
    with pytest.raises(InvalidSettings, match="is in both search and select"):
        team(search=tasks, select=tasks[2:])
    with pytest.raises(InvalidSettings, match="the rules are nearest"):
        team().outcome(("wander",), tasks)
    with pytest.raises(InvalidCandidate, match="parameters"):
        team().outcome((np.zeros(3),), tasks)
    with pytest.raises(InvalidSettings, match="no tasks of an Exploration"):
        team().evaluate(Candidates(team().space, team().seeds()), Cases.of(["x"]))
    for wrong in ({"ghosts": "walls"}, {"sight": 0.5}, {"spacing": 0.0}, {"replan": 0}):
        with pytest.raises(InvalidSettings, match=next(iter(wrong))):
            ExplorationSettings(**wrong)


def test_what_decides_a_score_shows_in_the_fingerprint():
    kinds = [team(), team(settings=ExplorationSettings(sight=8.0)), team(policy=ExplorationPolicy(history=False))]
    assert len({repr(one.fingerprint()) for one in kinds}) == 3
    assert repr(team().fingerprint()) == repr(team().fingerprint())
