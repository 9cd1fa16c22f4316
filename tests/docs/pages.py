"""The pages of the documentation, cut into their blocks."""

import ast
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ELSEWHERE", "PAGES", "ROOT", "Block", "blocks", "hook", "public_names", "text"]

ROOT = Path(__file__).parents[2]

#: Every page by its path in the repository.
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))]

#: Pages whose programs another test runs: it puts something small in the place of what they need, or looks at values.
ELSEWHERE = {
    "README.md": "tests/test_readme.py",
    "docs/allocation.md": "tests/test_allocation_docs.py",
    "docs/exchange.md": "tests/exchange/test_exchange_docs.py",
    "docs/report.md": "tests/report/test_report_docs.py",
    "docs/sparse_attention.md": "tests/objectives/test_sparse_attention_docs.py",
}

_FENCE = re.compile(r"^```(?P<language>\w+)(?P<marks>[^\n]*)\n(?P<source>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, the number of its first line there, and the line above its fence."""

    page: str
    line: int
    language: str
    marks: tuple[str, ...]
    above: str
    source: str

    def __str__(self):
        return f"{self.page}:{self.line}"

    @property
    def runs(self):
        """Whether the page's program contains it."""
        return self.language == "python" and "notest" not in self.marks


def text(page):
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page, language):
    """The blocks of one language on a page, in order."""
    whole = text(page)
    found = []
    for match in _FENCE.finditer(whole):
        if match["language"] == language:
            before = whole[: match.start()].splitlines()
            above = before[-1] if before else ""
            marks = tuple(match["marks"].split())
            found.append(Block(page, len(before) + 2, language, marks, above, match["source"]))
    return found


def public_names(module):
    """What can be imported from a module, read from its source: nothing is loaded."""
    folder = ROOT.joinpath(*module.split("."))
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    names = set()
    if folder.is_dir():
        names |= {inner.stem for inner in folder.iterdir() if inner.suffix == ".py" or inner.is_dir()}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def hook(name):
    """One of the site's hooks, which lie beside the pages and in no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
