"""The policy of traffic signals: the order of phases and neighbors is nothing to it; and the layout of a network."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

pytest.importorskip("libsumo")
pytest.importorskip("sumo")

from benchmarks.traffic_grid import grid_city
from searchlib.errors import InvalidCandidate
from searchlib.objectives.traffic_layout import laid_out
from searchlib.objectives.traffic_network import TrafficNetwork
from searchlib.objectives.traffic_policy import FEATURES, TrafficNetworkPolicy, neighbor_features, phase_features
from searchlib.objectives.traffic_rules import RULES, MaxPressure, MaxQueue, SelfOrganizing
from searchlib.objectives.traffic_sight import TrafficWatch


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return grid_city(tmp_path_factory.mktemp("city"), 3, vehicles=10, seconds=100)


def reordered(city, folder):
    """The same city, the phases of every program in reverse order."""
    tree = ElementTree.parse(city.net)
    for program in tree.getroot().iter("tlLogic"):
        phases = list(program)
        for phase in phases:
            program.remove(phase)
        program.extend(reversed(phases))
    tree.write(folder / "other.net.xml")
    (folder / "other.sumocfg").write_text(
        '<configuration><input><net-file value="other.net.xml"/></input></configuration>'
    )
    return TrafficNetwork("other", str(folder / "other.sumocfg"))


def sight_of(layout, current_states, seed=0, decisions=7):
    """A sight after random traffic on the lanes, by their names; signals show these states."""
    watch = TrafficWatch(layout, 5)
    place = {(layout.signals[i].name, layout.states[p]): p for p, i in enumerate(layout.owner)}
    current = np.array([place[signal.name, current_states[signal.name]] for signal in layout.signals])
    for k in range(decisions):
        rng = np.random.default_rng([seed, k])
        counts = {lane: rng.uniform(0, 12) for lane in sorted(layout.lanes)}  # no ties
        vehicles = np.array([counts[lane] for lane in layout.lanes])
        halting = vehicles * 0.6
        count = len(layout.signals)
        sight = watch.sight(5.0 * k, current, np.full(count, 10.0), np.ones(count, bool), halting, vehicles)
    return sight


def both(city, folder):
    one, other = laid_out(city, 200.0), laid_out(reordered(city, folder), 200.0)
    states = {signal.name: signal.phases[0] for signal in one.signals}
    match = [
        next(q for q in range(len(other.owner)) if other.states[q] == one.states[p]
             and other.signals[other.owner[q]].name == one.signals[one.owner[p]].name)
        for p in range(len(one.owner))
    ]  # fmt: skip
    return sight_of(one, states), sight_of(other, states), np.array(match)


def test_scores_of_phases_that_change_places_change_places(city, tmp_path):
    first, second, match = both(city, tmp_path)
    assert (match != np.arange(len(match))).any()
    for network in (TrafficNetworkPolicy(), TrafficNetworkPolicy((8, 5), embedding=3)):
        row = network.space().sample(np.random.default_rng(1), 1)[0]
        scores = [network.controller(row).scores(sight) for sight in (first, second)]
        np.testing.assert_allclose(scores[0], scores[1][match], rtol=1e-12)
        assert np.ptp(scores[0]) > 0.1
    for rule in RULES.values():
        chosen = rule.decide(first)
        np.testing.assert_array_equal(match[chosen], rule.decide(second))


def test_the_order_of_neighbors_does_not_matter_and_what_they_show_does(city):
    layout = laid_out(city, 200.0)
    states = {signal.name: signal.phases[0] for signal in layout.signals}
    sight = sight_of(layout, states)
    order = [2, 0, 3, 1]
    rows = np.arange(len(layout.signals) * 4).reshape(-1, 4)[:, order].ravel()
    turned = dataclasses.replace(
        layout, neighbors=layout.neighbors[:, order], distance=layout.distance[:, order], width=layout.width[:, order],
        feeds=layout.feeds[:, order], sends=layout.sends[:, order], queues=layout.queues[rows],
    )  # fmt: skip
    network = TrafficNetworkPolicy()
    row = network.space().sample(np.random.default_rng(2), 1)[0]
    scores = [network.controller(row).scores(dataclasses.replace(sight, layout=one)) for one in (layout, turned)]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-12)
    empty = dataclasses.replace(layout, neighbors=np.full_like(layout.neighbors, -1))
    alone = network.controller(row).scores(dataclasses.replace(sight, layout=empty))
    assert np.abs(alone - scores[0]).max() > 1e-3


def test_of_phases_with_the_same_score_the_green_one_stays_else_the_first(city):
    layout = laid_out(city, 200.0)
    sight = sight_of(layout, {signal.name: signal.phases[1] for signal in layout.signals})
    np.testing.assert_array_equal(sight.best(np.zeros(len(layout.owner))), sight.current)
    np.testing.assert_array_equal(sight.best(-sight.is_current), layout.first[:-1])


def test_without_an_embedding_neighbors_are_not_looked_at(city):
    layout = laid_out(city, 200.0)
    sight = sight_of(layout, {signal.name: signal.phases[0] for signal in layout.signals})
    network = TrafficNetworkPolicy(embedding=0)
    row = network.space().sample(np.random.default_rng(3), 1)[0]
    scores = network.controller(row).scores(sight)
    far = dataclasses.replace(sight, layout=dataclasses.replace(layout, neighbors=np.full_like(layout.neighbors, -1)))
    np.testing.assert_array_equal(scores, network.controller(row).scores(far))


def test_one_row_for_all_is_the_same_row_for_each(city):
    layout = laid_out(city, 200.0)
    sight = sight_of(layout, {signal.name: signal.phases[0] for signal in layout.signals})
    network = TrafficNetworkPolicy()
    row = network.space().sample(np.random.default_rng(4), 1)[0]
    each = np.tile(row, (len(layout.signals), 1))
    np.testing.assert_allclose(
        network.controller(each).scores(sight), network.controller(row).scores(sight), rtol=1e-9, atol=1e-9
    )
    each[0] += 1
    changed = network.controller(each).scores(sight) != network.controller(row).scores(sight)
    assert changed[layout.owner == 0].any()
    assert (np.abs(network.controller(each).scores(sight) - network.controller(row).scores(sight))[4:] < 1e-9).all()


def test_a_phase_somebody_waits_for_too_long_is_next_whatever_the_scores_say(city):
    layout = laid_out(city, 200.0)
    sight = sight_of(layout, {signal.name: signal.phases[0] for signal in layout.signals}, decisions=30)
    network = TrafficNetworkPolicy()
    row = np.zeros(network.parameters)
    row[FEATURES.index("is green")] = 1e6
    held = network.controller(row).decide(sight)
    np.testing.assert_array_equal(held, sight.current)
    assert sight.starved_for.max() == 150
    saved = network.controller(row, 120.0).decide(sight)
    assert (saved != sight.current).all()
    assert (sight.starved_for[saved] > 120).all()


def test_a_way_that_stays_red_starves_though_its_lane_is_green_for_others(city):
    layout = laid_out(city, 200.0)
    opens = np.asarray(layout.opens)
    part = [(p, c) for p, c in np.argwhere(layout.green) if 0 < layout.green[p, c] < 1]
    starving = layout.most_way(np.ones(len(layout.way_lane)))
    assert (starving == 1).all()
    for p, c in part[:3]:
        mine = np.flatnonzero(layout.way_lane == c)
        assert 0 < opens[p, mine].sum() < len(mine)


def test_the_layout_of_a_grid_is_what_a_look_at_it_says(city):
    layout = laid_out(city, 200.0)
    names = [signal.name for signal in layout.signals]
    assert sorted(names) == [f"{column}{row}" for column in "ABC" for row in range(3)]
    around = {names[i]: {names[j] for j in layout.neighbors[i] if j >= 0} for i in range(9)}
    assert around["B1"] == {"A1", "C1", "B0", "B2"}
    assert around["A0"] == {"A1", "B0"}
    middle = names.index("B1")
    assert (np.abs(layout.distance[middle] - 190) < 25).all()
    assert (layout.width[middle] == 2).all()
    for p in np.flatnonzero(layout.owner == middle):
        targets = {link.target for link in layout.signals[middle].links if layout.states[p][link.place] in "Gg"}
        room = {layout.lanes[lane] for lane in np.flatnonzero(np.asarray(layout.beyond)[p])}
        assert room == targets
    np.testing.assert_allclose(np.asarray(layout.beyond).sum(axis=1), 1.0)


def test_neighbors_send_where_their_green_ways_lead(city):
    layout = laid_out(city, 200.0)
    for i, signal in enumerate(layout.signals):
        mine = {link.source for link in signal.links}
        for k, j in enumerate(layout.neighbors[i]):
            if j < 0:
                continue
            for p, state in enumerate(layout.signals[j].phases):
                leads = any(state[link.place] in "Gg" and link.target in mine for link in layout.signals[j].links)
                assert layout.sends[i, k, p] == leads
    assert 0 < layout.sends.mean() < 1


def test_queues_reach_back_beyond_the_last_piece_of_a_lane(tmp_path):
    long, short = (grid_city(tmp_path / str(b), 2, vehicles=2, seconds=9, block=b) for b in (400.0, 60.0))
    assert (np.asarray((laid_out(long, 200.0).reach != 0).sum(axis=1)).ravel() == 1).all()
    layout = laid_out(short, 200.0)
    assert (layout.before_lanes < 60).all()  # another signal or the border lies there
    sight = sight_of(layout, {signal.name: signal.phases[0] for signal in layout.signals})
    found = phase_features(sight)
    assert found.shape == (len(layout.owner), len(FEATURES))
    assert np.isfinite(found).all()
    assert np.abs(neighbor_features(sight)).max() < 10


def test_max_queue_max_pressure_and_sotl_are_what_brute_force_says(city):
    layout = laid_out(city, 200.0)
    sight = sight_of(layout, {signal.name: signal.phases[1] for signal in layout.signals}, seed=3)
    queue, pressure = [], []
    for p, state in enumerate(layout.states):
        signal = layout.signals[layout.owner[p]]
        share = {}
        for link in signal.links:
            share.setdefault(link.source, []).append(state[link.place] in "Gg")
        weights = {layout.lanes.index(lane): np.mean(opened) for lane, opened in share.items()}
        queue.append(sum(w * sight.queue[c] for c, w in weights.items()))
        dense = {c: (sight.queue[c] + sight.coming[c]) * 7.5 / layout.lengths[c] for c in weights}
        pressure.append(sum(w * (dense[c] - sight.room_taken[p]) for c, w in weights.items()))
    for rule, scores in ((MaxQueue(), np.array(queue)), (MaxPressure(), np.array(pressure))):
        chosen = rule.decide(sight)
        for i in range(len(layout.signals)):
            mine = np.flatnonzero(layout.owner == i)
            assert chosen[i] in mine
            assert scores[chosen[i]] == pytest.approx(scores[mine].max())
    patient, eager = (SelfOrganizing(threshold).decide(sight) for threshold in (1e9, 0.0))
    np.testing.assert_array_equal(patient, sight.current)
    assert (eager != sight.current).any()


def test_rows_of_another_length_are_refused_with_the_number_that_is_needed():
    with pytest.raises(InvalidCandidate, match=r"109 parameters.*\(7,\)"):
        TrafficNetworkPolicy().controller(np.zeros(7))


def test_the_large_policy_is_large_and_the_small_one_small():
    assert TrafficNetworkPolicy((64, 48)).parameters > 3000
    assert 80 <= TrafficNetworkPolicy().parameters <= 150
    space = TrafficNetworkPolicy().space()
    assert space.dimension == TrafficNetworkPolicy().parameters
