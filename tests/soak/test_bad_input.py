"""Every kind of junk in every place: what the properties draw a few of in every run of the tests."""

import importlib
import os

import pytest

pytestmark = pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="make soak tries all")

adapters = importlib.import_module("tests.properties.test_bad_adapters")
arguments = importlib.import_module("tests.properties.test_bad_arguments")
candidates = importlib.import_module("tests.properties.test_bad_candidates")
junk = importlib.import_module("tests.properties.junk")


imported = arguments.imported  # the fixture


def test_every_kind_of_junk_in_every_public_place_is_refused_with_its_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tried = 0
    for name, argument in arguments.PLACES:
        for make in junk.JUNK.values():
            arguments.used(name, arguments.judged(name, {argument: make()}))
            tried += 1
    assert tried > 15_000


def test_every_kind_of_junk_in_every_place_of_an_adapter_is_refused_with_its_value(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tried = 0
    for name, argument in adapters.PLACES:
        for make in junk.JUNK.values():
            adapters.judged(name, argument, make())
            tried += 1
    assert tried > 10_000


def test_every_kind_of_junk_in_every_operator_is_refused_with_its_value():
    tried = 0
    for space in candidates.SPACES:
        for operator, good in candidates.operator_calls(space).items():
            for argument, value in good().items():
                for label in candidates.bad_values(value):
                    candidates.judge(space, operator, argument, label)
                    tried += 1
    assert tried > 100_000
