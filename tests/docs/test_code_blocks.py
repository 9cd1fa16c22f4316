"""Every program in the documentation runs, or says why not and is held to what can be checked without running it."""

import ast
import importlib
import re

import pytest

pages = importlib.import_module("tests.docs.pages")
ELSEWHERE, PAGES, ROOT = pages.ELSEWHERE, pages.PAGES, pages.ROOT
blocks, public_names, text = pages.blocks, pages.public_names, pages.text
arguments = importlib.import_module("tests.docs.signatures").arguments

PYTHON = [block for page in PAGES for block in blocks(page, "python")]
RUNNING = sorted({block.page for block in PYTHON if block.runs} - set(ELSEWHERE))


def test_there_are_programs():
    assert len(PYTHON) > 30
    assert len(RUNNING) > 3


@pytest.mark.parametrize("page", RUNNING)
def test_the_programs_of_a_page_run_and_print_what_it_says(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__page__"}
    for block in [block for block in blocks(page, "python") if block.runs]:
        source = "\n" * (block.line - 1) + block.source  # so that a traceback names the line of the page
        exec(compile(source, str(ROOT / page), "exec"), names)
        printed = capsys.readouterr().out
        if quoted := quoted_output(block):
            assert re.fullmatch(pattern(quoted), masked(printed)), f"{block} printed\n{printed}"


def quoted_output(block):
    """The output that a page shows below a program; empty where it shows none."""
    below = [text for text in blocks(block.page, "text") if text.line == block.line + block.source.count("\n") + 3]
    return below[0].source if below else ""


def masked(text):
    """A text without its figures, which depend on the machine, and without its columns."""
    return re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d.,]*(e[-+]?\d+)?", "#", text)).strip()


def pattern(quoted):
    """What a masked text has to match: an ellipsis stands for anything."""
    return ".*".join(map(re.escape, masked(quoted).split("…")))


def test_quoted_output_is_compared_by_its_words():
    assert re.fullmatch(pattern("best  0.5 [a, …]\n"), masked("best 1e-3 [a, b=2, c]"))
    assert not re.fullmatch(pattern("best  0.5\n"), masked("worst 0.5"))
    found = [block for page in RUNNING for block in blocks(page, "python") if block.runs and quoted_output(block)]
    assert len(found) >= 8


@pytest.mark.parametrize("page", sorted(ELSEWHERE))
def test_a_page_that_is_run_elsewhere_is_read_there(page):
    test = (ROOT / ELSEWHERE[page]).read_text(encoding="utf-8")
    assert page.rsplit("/", 1)[-1] in test
    assert "exec(" in test


@pytest.mark.parametrize("block", [block for block in PYTHON if "notest" in block.marks], ids=str)
def test_a_program_that_does_not_run_says_why_and_compiles(block):
    compile(block.source, str(block), "exec")
    assert re.fullmatch(r"<!-- not run: .+ -->", block.above), f"{block}: the line above says {block.above!r}"


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_every_name_that_a_program_imports_from_searchlib_exists(block):
    for node in ast.walk(ast.parse(block.source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("searchlib", "benchmarks"):
            missing = {alias.name for alias in node.names} - public_names(node.module)
            assert not missing, f"{block}: {node.module} has no {', '.join(sorted(missing))}"


def calls(block, names):
    """(arguments that exist, names that are passed, call) of every call of an imported class or function."""
    for node in ast.walk(ast.parse(block.source)):
        if isinstance(node, ast.Call):
            called, method = node.func, None
            if isinstance(called, ast.Attribute):
                called, method = called.value, called.attr
            if isinstance(called, ast.Name) and called.id in names:
                passed = {keyword.arg for keyword in node.keywords if keyword.arg is not None}
                yield arguments(*names[called.id], method), passed, ast.unparse(node.func)


def imported(page):
    """(module, name) of everything that a page's programs import from searchlib, by the name that they give it."""
    return {
        alias.asname or alias.name: (node.module, alias.name)
        for block in blocks(page, "python")
        for node in ast.walk(ast.parse(block.source))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "searchlib"
        for alias in node.names
    }


@pytest.mark.parametrize("page", sorted({block.page for block in PYTHON}))
def test_every_argument_that_a_program_passes_to_searchlib_exists(page):
    names = imported(page)
    assert names
    for block in blocks(page, "python"):
        for known, passed, call in calls(block, names):
            assert known is None or passed <= known, f"{block}: {call} has no {', '.join(sorted(passed - known))}"


def test_an_argument_that_does_not_exist_is_noticed():
    assert {"keep", "groups", "cases"} <= arguments("searchlib.objectives", "ExpertPruning")
    assert "keeps" not in arguments("searchlib.objectives", "ExpertPruning")
    assert {"population", "sigma"} <= arguments("searchlib", "EvolutionStrategy")
    assert {"budget", "seed"} <= arguments("searchlib", "search")
    checked = [call for page in PAGES for block in blocks(page, "python") for call in calls(block, imported(page))]
    assert len([call for call in checked if call[0] is not None and call[1]]) > 60


def test_a_name_that_does_not_exist_is_noticed():
    assert "Subset" in public_names("searchlib.spaces")
    assert "SubSet" not in public_names("searchlib.spaces")
    assert {"Search", "spaces", "errors"} <= public_names("searchlib")


@pytest.mark.parametrize("page", PAGES[1:])
def test_every_block_says_its_language(page):
    fences = re.findall(r"^```(.*)$", text(page), flags=re.MULTILINE)
    assert all(fences[::2])
    assert not any(fences[1::2])
