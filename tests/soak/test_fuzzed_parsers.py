"""The fuzzer feeds every parser for a fixed number of runs."""

import importlib
import os

import pytest

pytestmark = pytest.mark.skipif(os.environ.get("SEARCHLIB_SLOW") != "1", reason="make soak fuzzes")

replays = importlib.import_module("tests.fuzz.test_fuzz_parsers")


def test_the_fuzzer_finds_nothing(tmp_path):
    pytest.importorskip("atheris")
    found = {}
    for number, name in enumerate(sorted(replays.fuzz.PARSERS)):
        (folder := tmp_path / str(number)).mkdir()
        found |= {name: report} if (report := replays.fuzzed(name, folder)) else {}
    assert not found, "\n\n".join(f"{name}: {report}" for name, report in found.items())
