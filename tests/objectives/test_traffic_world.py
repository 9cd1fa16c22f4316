"""Rollouts of traffic: what SUMO itself says, and what no signal may do."""

from __future__ import annotations

import importlib.util
import subprocess
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.traffic_grid import grid_city
from searchlib.errors import InvalidSettings
from searchlib.objectives.traffic_network import RESCO, resco
from searchlib.objectives.traffic_rules import RULES, SelfOrganizing
from searchlib.objectives.traffic_settings import TrafficSettings
from searchlib.objectives.traffic_world import PROGRAMS, SignalController, rollout, sumo_modules

pytest.importorskip("libsumo")
sumo = pytest.importorskip("sumo")

SETTINGS = TrafficSettings(seconds=400)


class Stubborn(SignalController):
    """The first phase for ever."""

    def decide(self, sight):
        return sight.layout.first[:-1].copy()


class Restless(SignalController):
    """Another phase at every decision."""

    def decide(self, sight):
        following = sight.current + 1
        return np.where(following == sight.layout.first[1:], sight.layout.first[:-1], following)


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return grid_city(tmp_path_factory.mktemp("city"), 2, vehicles=700, seconds=500, block=60.0)


def told(file):
    return [dict(trip.attrib) for trip in ElementTree.parse(file).getroot().iter("tripinfo")]


@pytest.fixture(scope="module")
def alone(city, tmp_path_factory):
    """What SUMO's own program records of the city's own plan, and its own statistics."""
    folder = tmp_path_factory.mktemp("alone")
    subprocess.run(
        [str(Path(sumo.SUMO_HOME) / "bin" / "sumo"), "-c", city.config, "--seed", "5", "--end", "400",
         "--time-to-teleport", "-1", "--collision.action", "warn", "--no-step-log", "--no-warnings",
         "--tripinfo-output", str(folder / "trips.xml"), "--tripinfo-output.write-unfinished",
         "--tripinfo-output.write-undeparted", "--statistic-output", str(folder / "statistics.xml")],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_the_fixed_plan_through_our_loop_is_sumo_without_us_to_the_last_digit(city, alone, tmp_path):
    outcome = rollout(city, SETTINGS, "fixed plan", seed=5, records=tmp_path / "trips.xml")
    theirs = told(alone / "trips.xml")
    assert len(theirs) > 300
    assert told(tmp_path / "trips.xml") == theirs
    assert outcome.seconds == 400
    assert outcome.switches == 0


def test_delays_and_vehicles_that_never_got_in_are_those_of_sumos_statistics(city, alone):
    outcome = rollout(city, SETTINGS, "fixed plan", seed=5)
    root = ElementTree.parse(alone / "statistics.xml").getroot()
    vehicles = root.find("vehicles").attrib
    assert outcome.never_inserted > 50
    assert 0 <= outcome.never_inserted - int(vehicles["waiting"]) <= 1  # due in the last second of all
    assert outcome.trips.inserted == int(vehicles["inserted"])
    assert outcome.trips.arrived == int(vehicles["inserted"]) - int(vehicles["running"])
    theirs = told(alone / "trips.xml")
    late = sum(float(trip["departDelay"]) for trip in theirs)
    lost = sum(float(trip["timeLoss"]) for trip in theirs if float(trip["depart"]) >= 0)
    assert outcome.trips.delay == pytest.approx(late + lost, abs=1e-6)
    assert late > 0.1 * lost


def test_who_never_got_in_has_waited_since_its_departure(city, alone):
    outside = [trip for trip in told(alone / "trips.xml") if float(trip["depart"]) < 0]
    due = {
        trip.get("id"): float(trip.get("depart"))
        for trip in ElementTree.parse(Path(city.config).parent / "grid2x2.rou.xml").getroot().iter("trip")
    }
    assert outside
    for trip in outside:
        assert float(trip["departDelay"]) == pytest.approx(400 - due[trip["id"]], abs=1.0)


@pytest.fixture
def shown(monkeypatch):
    """Every state that is set, as (second, signal, state)."""
    states, lights = [], sumo_modules().trafficlight
    set_state = lights.setRedYellowGreenState

    def watch(name, state):
        states.append((sumo_modules().simulation.getTime(), name, state))
        set_state(name, state)

    monkeypatch.setattr(lights, "setRedYellowGreenState", watch)
    return states


@pytest.mark.parametrize("controller", [Restless(), RULES["max-pressure"]], ids=["restless", "max-pressure"])
def test_no_green_ends_without_yellow_and_none_is_shorter_than_allowed(city, shown, controller):
    outcome = rollout(city, SETTINGS, controller, seed=1)
    assert outcome.switches > 30
    for signal in city.signals:
        mine = [(second, state) for second, name, state in shown if name == signal.name]
        assert len(mine) > 20
        for (before, old), (after, new) in pairwise(mine):
            for was, now in zip(old, new, strict=True):
                assert not (was in "Gg" and now in "rs")
                assert not (was in "rs" and now == "y")
            lasted = after - before
            if "y" in old:
                assert lasted == SETTINGS.yellow
            elif old in signal.phases:
                assert lasted >= SETTINGS.min_green
            else:  # waits until nobody stands inside the junction
                assert new in signal.phases or new == old


def test_after_yellow_the_next_green_waits_for_who_stands_inside_but_not_for_ever(city, shown):
    rollout(city, SETTINGS, Restless(), seed=1)
    waits = [state for signal in city.signals for _, name, state in shown if name == signal.name and "y" not in state]
    cleared = [state for state in waits if all(state not in signal.phases for signal in city.signals)]
    assert 0 < len(cleared) < 0.5 * len(waits)
    assert not any({"g", "G"} & set(state) for state in cleared)
    shown.clear()
    rollout(city, TrafficSettings(seconds=400, clearing=0), Restless(), seed=1)
    assert all("y" in state or any(state in signal.phases for signal in city.signals) for _, _, state in shown)


def test_greens_are_never_other_than_the_program_allows_together(city, shown):
    rollout(city, SETTINGS, Restless(), seed=1)
    assert len(shown) > 50
    for signal in city.signals:
        allowed = [{i for i, letter in enumerate(state) if letter in "Gg"} for state in signal.phases]
        for _, name, state in shown:
            if name == signal.name:
                green = {i for i, letter in enumerate(state) if letter in "Gg"}
                assert any(green <= together for together in allowed)


def test_a_signal_that_starves_a_road_is_told_by_its_delay_and_by_those_left_outside(city):
    fair, unfair = (rollout(city, SETTINGS, one, seed=2) for one in (RULES["max-queue"], Stubborn()))
    assert unfair.never_inserted > fair.never_inserted + 20
    assert unfair.delay > 2 * fair.delay
    assert unfair.trips.due == fair.trips.due


def test_gridlock_is_given_up_and_seeds_and_demand_decide_the_rest(city):
    stopped = rollout(city, SETTINGS, Stubborn(), seed=2, stop_above=60)
    assert stopped.stopped
    assert stopped.seconds < 400
    assert stopped.peak > 60
    some = [rollout(city, SETTINGS, "fixed plan", seed=s, scale=k) for s, k in ((3, 1.0), (3, 1.0), (4, 1.0), (3, 0.8))]
    delays = [one.trips.delay for one in some]
    assert delays[0] == delays[1]
    assert len(set(delays)) == 3
    assert some[3].trips.due == pytest.approx(0.8 * some[0].trips.due, rel=0.05)


def test_queues_are_counted_at_every_decision(city):
    outcome = rollout(city, SETTINGS, Stubborn(), seed=2)
    assert len(outcome.queues) == SETTINGS.decisions == 80
    assert outcome.queues[0] == 0
    assert outcome.queues[-1] > 50
    total = (outcome.waiting.sum() + outcome.outside) / SETTINGS.decide_every
    assert total == pytest.approx(outcome.queues.sum())


def test_sumos_own_detectors_lead_the_same_phases_and_change_what_happens(city):
    delays = {name: rollout(city, SETTINGS, name, seed=1).delay for name in PROGRAMS}
    assert len(set(delays.values())) == 3
    assert delays["actuated"] < delays["fixed plan"]


def test_a_program_that_is_none_is_refused_by_naming_those_there_are(city):
    with pytest.raises(InvalidSettings, match=r"fixed plan, actuated, delay-based.*'webster'"):
        rollout(city, SETTINGS, "webster", seed=1)


def test_sotl_switches_less_the_higher_its_threshold(city):
    few, many = (rollout(city, SETTINGS, SelfOrganizing(one), seed=1).switches for one in (400.0, 20.0))
    assert 0 < few < many


@pytest.mark.skipif(importlib.util.find_spec("sumo_rl") is None, reason="RESCO's networks are in sumo-rl")
def test_rescos_networks_are_read_from_the_installed_package():
    sizes = [len(resco(name).signals) for name in RESCO]
    assert sizes == [1, 3, 8, 1, 7, 16, 16, 21]
    outcome = rollout(resco("cologne1"), TrafficSettings(seconds=120), RULES["max-wave"], seed=0)
    assert outcome.trips.due > 30
    with pytest.raises(InvalidSettings, match="'cologne1', 'cologne3'"):
        resco("cologne2")
