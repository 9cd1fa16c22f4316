"""What the site does to pages and docstrings before Markdown reads them."""

import importlib
import types

import pytest

pages = importlib.import_module("tests.docs.pages")
ROOT, hook = pages.ROOT, pages.hook


def test_marks_for_the_tests_are_gone_and_nothing_else():
    rewritten = hook("plain_fences").on_page_markdown("a\n```python notest\nx = 1\n```\n```python\n```\nnotest")
    assert rewritten == "a\n```python\nx = 1\n```\n```python\n```\nnotest"


def test_roles_and_literal_blocks_of_docstrings_become_markdown():
    pytest.importorskip("griffe")
    plain = hook("plain_roles").plain
    assert plain("of :class:`~searchlib.Search`, :meth:`Run.ask`") == "of `Search`, `Run.ask`"
    assert plain("By hand::\n\n    x = 1\n\n    y = 2\n\nAfter.") == (
        "By hand:\n\n    ```python\n    x = 1\n\n    y = 2\n    ```\n\nAfter."
    )
    assert plain("Last::\n\n    x = 1") == "Last:\n\n    ```python\n    x = 1\n    ```"
    assert plain("Example:\n    >>> 1\n    1") == "Examples:\n    >>> 1\n    1"


def test_links_that_leave_the_documentation_lead_to_copies():
    pytest.importorskip("mkdocs")
    from mkdocs.structure.files import File, Files

    links = hook("linked_files")
    config = types.SimpleNamespace(use_directory_urls=False, site_dir="/nowhere", plugins=types.SimpleNamespace())
    settings = {"docs_dir": str(ROOT / "docs")}
    config = type("Config", (types.SimpleNamespace,), {"__getitem__": lambda self, key: settings[key]})(
        use_directory_urls=False, site_dir="/nowhere", docs_dir=settings["docs_dir"],
        plugins=types.SimpleNamespace(_current_plugin=None),
    )  # fmt: skip
    page = File("engine.md", settings["docs_dir"], "/nowhere", use_directory_urls=False)
    files = links.on_files(Files([page]), config)
    assert files.get_file_from_path("source/searchlib/algorithms/auto.py.txt") is not None
    text = "[a](../searchlib/algorithms/auto.py) [b](teaching.md) [c](../no/such/file.py)"
    shown = links.on_page_markdown(text, types.SimpleNamespace(file=page), config, files)
    assert shown == "[a](source/searchlib/algorithms/auto.py.txt) [b](teaching.md) [c](../no/such/file.py)"
