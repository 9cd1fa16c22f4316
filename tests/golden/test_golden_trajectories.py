"""No algorithm proposes other candidates than those on file, unless somebody meant it to."""

import importlib

import pytest

from searchlib import algorithms
from searchlib.algorithms import Algorithm

golden = importlib.import_module("tests.golden.trajectories")
RECORDED = golden.recorded()

def changed(name, now):
    """Where a search differs from what is on file, in a sentence; an empty text where it does not."""
    before = RECORDED[name]["digests"]
    parts = [number for number, pair in enumerate(zip(before, now, strict=False)) if pair[0] != pair[1]]
    if not parts and len(before) == len(now):
        return ""
    told = min(len(before), len(now)) - 1
    first = min([*parts, told])
    other = f"differs from candidate {first * golden.PART} on"
    where = "hands over another winner" if first >= told == len(now) - 1 else other
    return f"{name} {where}; where that is meant: python -m tests.golden.trajectories {name!r}, and CHANGELOG.md"


@pytest.mark.parametrize("name", golden.SEARCHES)
def test_no_trajectory_has_changed(name):
    if RECORDED[name].get("needs") != (here := golden.needed(name)):
        pytest.skip(f"recorded with {RECORDED[name]['needs']}, and here is {here}")
    now = golden.digests(name)
    assert not (said := changed(name, now)), said


def test_every_public_algorithm_is_recorded():
    public = {name for name in algorithms.__all__ if is_algorithm(getattr(algorithms, name))}
    assert {type(golden.ALGORITHMS[algorithm]).__name__ for algorithm, _ in golden.SEARCHES.values()} == public
    assert set(RECORDED) == set(golden.SEARCHES)


def is_algorithm(kind):
    return isinstance(kind, type) and issubclass(kind, Algorithm) and kind is not Algorithm


def test_trajectories_are_long_and_differ_from_each_other():
    whole = [tuple(entry["digests"]) for entry in RECORDED.values()]
    assert len(set(whole)) > 0.9 * len(whole) > 70  # Auto may do what one of the others does
    assert sum(len(digests) >= 1 + golden.BUDGET // golden.PART for digests in whole) > 0.7 * len(whole)


def test_another_trajectory_is_told_with_its_place():
    name = next(iter(golden.SEARCHES))
    before = RECORDED[name]["digests"]
    assert changed(name, before) == ""
    assert "differs from candidate 48 on" in changed(name, [before[0], "other", *before[2:]])
    assert "hands over another winner" in changed(name, [*before[:-1], "other"])
    assert "differs from candidate" in changed(name, before[1:])
