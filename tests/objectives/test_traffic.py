"""CityLight's objective: its contract, its reward, its tasks."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("libsumo")
pytest.importorskip("sumo")

from benchmarks.traffic_grid import grid_city
from searchlib import Budget, EvolutionStrategy, Split, search
from searchlib.errors import InvalidSettings
from searchlib.objectives.traffic import Traffic
from searchlib.objectives.traffic_layout import laid_out
from searchlib.objectives.traffic_network import TrafficNetwork
from searchlib.objectives.traffic_policy import TrafficNetworkPolicy
from searchlib.objectives.traffic_settings import TrafficSettings
from searchlib.objectives.traffic_tasks import FreshTraffic, TrafficTask, traffic_tasks
from searchlib.space import Candidates
from searchlib.testing import check_objective

SETTINGS = TrafficSettings(seconds=100)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return grid_city(tmp_path_factory.mktemp("city"), 2, vehicles=180, seconds=150, block=60.0)


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    return grid_city(tmp_path_factory.mktemp("line"), 3, vehicles=150, seconds=150, block=80.0)


def traffic(networks, **changes):
    return Traffic(networks, SETTINGS, **{"search": 3, "select": 1, "holdout": 1, **changes})


def test_it_keeps_the_contract_of_objectives_to_the_last_bit(city):
    check_objective(traffic([city]), tolerance=0, cases=2, candidates=2)


def test_the_plan_costs_zero_and_a_policy_is_told_by_the_logarithm_of_queues(city):
    objective = traffic([city])
    task = TrafficTask(city, 0, 1.0)
    plan = objective.outcome("fixed plan", task)
    assert objective.value(plan, city) == 0.0
    row = np.zeros(objective.space.dimension, np.float32)
    ours = objective.outcome(row, task)
    weights = objective.weights(city)
    queue = [weights @ one.waiting + one.outside for one in (ours, plan)]
    assert queue[0] > 0
    assert objective.value(ours, city) == pytest.approx(np.log((queue[0] + 1) / (queue[1] + 1)))
    delayed = traffic([city], measure="delay")
    assert delayed.value(ours, city) == pytest.approx(np.log((ours.trips.delay + 1) / (plan.trips.delay + 1)))
    scores = objective.evaluate(
        Candidates(objective.space, row[None]), traffic([city]).cases(Split.SEARCH).take([0, 2])
    )
    assert scores.shape == (1, 2)
    assert scores[0, 0] != scores[0, 1]


def test_weights_are_the_sum_of_all_rewards_each_with_its_upstream_neighbors(line):
    layout = laid_out(line, SETTINGS.reach)
    queues = np.random.default_rng(0).uniform(1, 9, len(layout.signals))
    total = 0.0
    for i in range(len(queues)):
        upstream = [queues[j] for j in layout.neighbors[i] if j >= 0]
        total += queues[i] + 0.2 * np.mean(upstream)
    assert traffic([line]).weights(line) @ queues == pytest.approx(total)
    np.testing.assert_array_equal(traffic([line], neighbor_weight=0.0).weights(line), np.ones(len(queues)))


def test_gridlock_is_worse_than_any_plan_and_the_earlier_the_worse(city):
    objective = traffic([city])
    task = TrafficTask(city, 1, 1.0)
    row = np.zeros(objective.space.dimension)
    values, seconds = [], []
    for limit in (5, 25):
        outcome = objective.outcome(row, task, stop_above=limit)
        assert outcome.stopped
        values.append(objective.value(outcome, city))
        seconds.append(outcome.seconds)
    assert seconds[0] < seconds[1]
    assert values[0] > values[1] > 1.0


def test_a_policy_per_intersection_is_as_many_rows_and_serves_its_own_networks_only(city, line):
    one = TrafficNetworkPolicy((2,), embedding=0)
    objective = traffic([city, line], policy=one, shared=False)
    assert objective.space.dimension == one.parameters * (4 + 9)
    row = np.tile(one.space().sample(np.random.default_rng(1), 1)[0], 13)
    shared = traffic([city, line], policy=one)
    for network in (city, line):
        task = TrafficTask(network, 3, 1.0)
        both = [objective.outcome(row, task), shared.outcome(row[: one.parameters], task)]
        assert both[0].trips == both[1].trips
    with pytest.raises(InvalidSettings, match=r"serve grid2x2 only, but grid3x3"):
        traffic([city], policy=one, shared=False).controller(row[: 4 * one.parameters], line)


def test_a_search_over_fresh_tasks_finds_what_is_no_worse_than_where_it_began(city):
    objective = traffic([city], search=6, policy=TrafficNetworkPolicy((2,), embedding=0))
    strategy = EvolutionStrategy(method="cma", population=4, sigma=0.3)
    result = search(
        objective, strategy, budget=Budget(evaluations=9), seed=0, batch_size=4, shortlist=2, cases=FreshTraffic(2)
    )
    assert result.holdout is not None
    names = [row.name for row in result.holdout.rows]
    assert {"fixed plan", "actuated", "max-pressure"} <= set(names)
    assert np.isfinite(result.value)


def test_tasks_of_splits_never_share_a_seed_and_demand_stays_in_its_range(city):
    tasks = {split: traffic_tasks([city], 200, split=split) for split in Split}
    seeds = [{task.seed for task in some} for some in tasks.values()]
    assert all(len(few) == 200 for few in seeds)
    assert not seeds[0] & seeds[1] | seeds[0] & seeds[2] | seeds[1] & seeds[2]
    assert all(0 <= seed < 2**31 for few in seeds for seed in few)
    scales = [task.scale for task in tasks[Split.SEARCH]]
    assert 0.9 <= min(scales) < 0.92 < 1.08 < max(scales) <= 1.1
    with pytest.raises(InvalidSettings, match=r"seed .* is in both search and holdout"):
        traffic([city], search=tasks[Split.SEARCH], holdout=tasks[Split.SEARCH][:2])


def test_every_generation_meets_as_many_tasks_of_each_network_and_all_before_any_again(city, line):
    objective = traffic([city, line], search=4)
    run = FreshTraffic(4).start(objective, np.random.default_rng(0))
    met = [run.ask(0.0) for _ in range(4)]
    for cases in met:
        assert sorted(task.network.name for task in cases.payload) == ["grid2x2", "grid2x2", "grid3x3", "grid3x3"]
    assert len(set(met[0].ids) | set(met[1].ids)) == 8
    assert {*met[2].ids, *met[3].ids} == {*met[0].ids, *met[1].ids}
    with pytest.raises(InvalidSettings, match="multiple of 2 up to 8"):
        FreshTraffic(3).start(objective, np.random.default_rng(0))


def test_networks_pickle_as_a_name_and_a_path(city):
    assert laid_out(city, 200.0).signals
    bytes_ = pickle.dumps(city)
    assert len(bytes_) < 500
    assert pickle.loads(bytes_) == city
    assert [signal.name for signal in pickle.loads(bytes_).signals] == [signal.name for signal in city.signals]


def test_what_cannot_be_meant_is_refused(city, tmp_path):
    with pytest.raises(InvalidSettings, match="at least one network"):
        Traffic([])
    with pytest.raises(InvalidSettings, match="measure must be one of"):
        traffic([city], measure="fuel")
    with pytest.raises(InvalidSettings, match=r"yellow=5 and decide_every=5"):
        TrafficSettings(yellow=5)
    with pytest.raises(InvalidSettings, match=r"\.sumocfg"):
        TrafficNetwork("mine", str(tmp_path / "none.sumocfg"))
    with pytest.raises(InvalidSettings, match="scales"):
        traffic_tasks([city], 1, scales=(1.1, 0.9))


def test_queues_are_drawn_one_picture_per_network():
    pytest.importorskip("matplotlib")
    from searchlib.objectives.traffic_pictures import draw_queues

    axes = draw_queues({"a": {"plan": [0, 3, 6], "ours": [0, 1, 2]}, "b": {"plan": [1, 1]}}, 5, highlight="ours")
    assert [len(one.lines) for one in axes] == [2, 1]
    np.testing.assert_allclose(axes[0].lines[0].get_xdata(), [0, 1 / 12, 1 / 6])
    np.testing.assert_array_equal(axes[0].lines[1].get_ydata(), [0, 1, 2])
    with pytest.raises(InvalidSettings, match="at least one network"):
        draw_queues({}, 5)
