"""Every adapter, and all that belongs to one, refuses what cannot be meant in one of our exceptions with its value."""

import importlib
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchlib import objectives

calls = importlib.import_module("tests.properties.objective_calls")
junk = importlib.import_module("tests.properties.junk")
verdict = importlib.import_module("tests.properties.verdict")
amount = importlib.import_module("tests.properties.settings")

#: Every place that a bad argument can be put into.
PLACES = [(name, argument) for name, (function, _) in calls.CALLS.items()
          for argument in inspect.signature(function).parameters]  # fmt: skip


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Texts are taken for paths."""
    monkeypatch.chdir(tmp_path)


def test_every_public_adapter_has_a_valid_call_or_a_reason_to_have_none():
    assert set(objectives.__all__) == set(calls.CALLS) | set(calls.LEFT_OUT)
    assert not set(calls.CALLS) & set(calls.LEFT_OUT)
    assert len(PLACES) > 180


@pytest.mark.parametrize("name", calls.CALLS)
def test_the_calls_themselves_are_accepted(name):
    function, arguments = calls.CALLS[name]
    verdict.attempt(lambda: function(**arguments()), seconds=60)  # imports and compiles what it needs
    _, refusal = verdict.attempt(lambda: function(**arguments()))
    assert refusal is None


def judged(name, argument, value):
    function, arguments = calls.CALLS[name]
    _, refusal = verdict.attempt(lambda: function(**{**arguments(), argument: value}))
    if refusal is not None:
        assert junk.mentions(str(refusal), value), f"{refusal} does not show it"


@amount.cases(few=150, many=4_000)
@given(st.sampled_from(PLACES), st.sampled_from(list(junk.JUNK)))
def test_one_bad_argument_is_refused_with_its_value(place, label):
    judged(*place, junk.JUNK[label]())
