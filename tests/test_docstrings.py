"""Every example in a docstring runs."""

import doctest
import importlib
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOPS = {
    "searchlib": "searchlib",
    "spaces": "searchlib.spaces",
    "objectives": "searchlib.objectives",
    "benchmarks": "benchmarks",
}


def modules():
    for top, prefix in TOPS.items():
        for path in sorted((ROOT / top).rglob("*.py")):
            inside = path.relative_to(ROOT / top).with_suffix("").parts
            if top == "searchlib" and inside[0] in ("spaces", "objectives"):
                continue
            if ">>>" in path.read_text(encoding="utf-8"):
                yield ".".join((prefix, *inside)).removesuffix(".__init__")


MODULES = list(modules())


def test_there_are_examples():
    assert len(MODULES) > 15


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    if name.startswith(("searchlib.objectives", "benchmarks")):
        pytest.importorskip("torch")
        pytest.importorskip("transformers")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        module = importlib.import_module(name)
        result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 0
    assert result.failed == 0
