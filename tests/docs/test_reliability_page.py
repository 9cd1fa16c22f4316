"""The page on reliability promises nothing for which there is no test."""

import ast
import importlib
import re

import pytest

pages = importlib.import_module("tests.docs.pages")
ROOT = pages.ROOT
PAGE = pages.text("docs/reliability.md")


def functions(path):
    """The tests of a file."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


NAMES = {name for path in (ROOT / "tests").rglob("test_*.py") for name in functions(path)}

#: A test by its file and name, and one by its name alone, of which the end may be left out.
WHOLE, SHORT = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`"), re.compile(r"`(test_\w+)(…?)`")


def contracts():
    """The rows of the table of contracts: number, and what is said of its tests."""
    section = PAGE.partition("## Twenty contracts\n")[2].partition("\n## ")[0]
    return [(int(number), row) for number, row in re.findall(r"^\| (\d+) \| (.*) \|$", section, re.MULTILINE)]


def test_every_contract_has_a_row_and_tests():
    rows = contracts()
    assert [number for number, _ in rows] == list(range(1, 21))
    for number, row in rows:
        assert WHOLE.search(row), f"no test holds us to contract {number}"


@pytest.mark.parametrize(("path", "name"), sorted(set(WHOLE.findall(PAGE))))
def test_every_test_that_is_named_with_its_file_is_there(path, name):
    assert name in functions(path)


def test_every_test_that_is_named_alone_is_there():
    found = SHORT.findall(PAGE)
    assert len(found) > 25
    for name, cut in found:
        assert any(test.startswith(name) if cut else test == name for test in NAMES), name


def test_a_test_that_is_not_there_is_noticed():
    assert "test_that_nobody_has_written" not in NAMES
    assert "test_every_contract_has_a_row_and_tests" in functions("tests/docs/test_reliability_page.py")
