"""Every public constructor and function refuses what cannot be meant, in one of our exceptions that shows the value."""

import importlib
import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import searchlib
from searchlib import Problem, algorithms, spaces, testing
from searchlib.algorithms import Algorithm
from searchlib.errors import SearchlibError
from searchlib.space import Space, space_from_json

calls = importlib.import_module("tests.properties.public_calls")
junk = importlib.import_module("tests.properties.junk")
verdict = importlib.import_module("tests.properties.verdict")
amount = importlib.import_module("tests.properties.settings")


def parameters(function):
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [name for name, one in inspect.signature(function).parameters.items() if one.kind not in kinds]


#: Every place that a bad argument can be put into.
PLACES = [(name, argument) for name, (function, _) in calls.CALLS.items() for argument in parameters(function)]


@pytest.fixture(scope="module", autouse=True)
def imported():
    """What some algorithms import when they begin takes longer than any bad argument may."""
    for name in ("cma", "cmaes", "nevergrad", "sklearn.ensemble") if amount.MANY else ():
        pytest.importorskip(name)


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Texts are taken for paths."""
    monkeypatch.chdir(tmp_path)


def test_every_public_name_has_a_valid_call_or_a_reason_to_have_none():
    packages = (searchlib, algorithms, spaces, testing)
    public = {f"{package.__name__}.{name}" for package in packages for name in package.__all__}
    twins = {f"searchlib.{name}" for name in algorithms.__all__} & public
    assert public - twins == set(calls.CALLS) | set(calls.LEFT_OUT)
    assert not set(calls.CALLS) & set(calls.LEFT_OUT)
    assert len(PLACES) > 300


@pytest.mark.parametrize("name", calls.CALLS)
def test_the_calls_themselves_are_accepted(name):
    function, arguments = calls.CALLS[name]
    verdict.attempt(lambda: function(**arguments()), seconds=20)  # imports what it needs
    _, refusal = verdict.attempt(lambda: function(**arguments()))
    assert refusal is None


def judged(name, bad):
    """What a call with some bad arguments returns, after its refusal, if it is one, was found to be in order."""
    function, arguments = calls.CALLS[name]
    answer, refusal = verdict.attempt(lambda: function(**{**arguments(), **bad}))
    if refusal is not None:
        assert any(junk.mentions(str(refusal), value) for value in bad.values()), f"{refusal} does not show any of it"
    return answer


@amount.cases(few=300, many=5_000)
@given(st.sampled_from(PLACES), st.sampled_from(list(junk.JUNK)))
def test_one_bad_argument_is_refused_with_its_value(place, label):
    name, argument = place
    used(name, judged(name, {argument: junk.JUNK[label]()}))


@amount.cases(few=100, many=4_000)
@given(st.sampled_from(list(calls.CALLS)), st.data())
def test_two_bad_arguments_are_refused_with_the_value_of_one(name, data):
    places = [argument for owner, argument in PLACES if owner == name]
    if len(places) >= 2:
        chosen = data.draw(st.lists(st.sampled_from(places), min_size=2, max_size=2, unique=True))
        used(name, judged(name, {one: junk.JUNK[data.draw(st.sampled_from(list(junk.JUNK)))]() for one in chosen}))


def used(name, answer):
    """What was accepted must be good for something: settings are values, spaces are searched, algorithms begin."""
    if isinstance(answer, Space | Algorithm):
        assert type(answer).__name__ in repr(answer)
    if isinstance(answer, Space) and answer.dimension < 10_000:
        assert space_from_json(answer.to_json()) in {answer}
    if isinstance(answer, Algorithm) and (amount.MANY or not isinstance(answer, calls.SLOW_TO_IMPORT)):
        begun(answer)


def begun(algorithm):
    space, rng = calls.suited(algorithm), np.random.default_rng(0)
    try:
        with verdict.within(verdict.LIMIT):
            batch = algorithm.start(Problem(space, evaluations=20, batch_size=4), rng).ask(4)
    except SearchlibError:
        return
    space.check(np.asarray(batch.population))
