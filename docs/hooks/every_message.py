"""Every message of the library's own exceptions, read from its source: the list at the end of the page on errors."""

from __future__ import annotations

import ast
import functools
import html
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Message", "error_classes", "messages", "on_page_markdown"]

PLACE = "<!-- every message -->"
_FOLDERS = ("searchlib", "spaces", "objectives")


class Message(NamedTuple):
    """The class of an exception, the file that raises it, and its message with ``…`` for values."""

    kind: str
    path: str
    text: str


def error_classes(root: Path) -> dict[str, str]:
    """The exceptions of searchlib/errors.py and those made of them elsewhere, by the name of their base."""
    classes = [node for _, nodes in _sources(root) for node in nodes if isinstance(node, ast.ClassDef)]
    found = {"SearchlibError": ""}
    while True:
        more = {
            node.name: base.id
            for node in classes if node.name not in found
            for base in node.bases if isinstance(base, ast.Name) and base.id in found
        }  # fmt: skip
        if not more:
            return found
        found |= more


def messages(root: Path) -> list[Message]:
    """What is raised, by class, file and text; a text that another function has put together is left out."""
    kinds = error_classes(root)
    found = set()
    for path, nodes in _sources(root):
        for node in nodes:
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds:
                text = "".join(map(_text, node.args[:1])).strip()
                if text.strip("… "):
                    found.add(Message(node.func.id, path, text))
    return sorted(found)


@functools.lru_cache(maxsize=1)
def _sources(root: Path) -> list[tuple[str, list[ast.AST]]]:
    """Classes and calls of every file, by its path."""
    found: list[tuple[str, list[ast.AST]]] = []
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            if folder != "searchlib" or path.relative_to(root / folder).parts[0] not in _FOLDERS:
                tree = ast.parse(path.read_text(encoding="utf-8"))
                nodes = (node for node in ast.walk(tree) if isinstance(node, ast.Call | ast.ClassDef))
                found.append((path.relative_to(root).as_posix(), list(nodes)))
    return found


def _text(node: ast.expr) -> str:
    """A text as its source has it, with an ellipsis for each value."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return "…"


def on_page_markdown(markdown: str, config: Any, **_: Any) -> str:
    """Put the list in its place."""
    if PLACE not in markdown:
        return markdown
    lines: list[str] = []
    kind = path = ""
    for message in messages(Path(config["docs_dir"]).parent):
        if message.kind != kind:
            kind, path = message.kind, ""
            lines += ["", f"### {kind}: all messages"]
        if message.path != path:
            path = message.path
            lines += ["", f"`{path}`", ""]
        lines.append(f"- {html.escape(' '.join(message.text.split())).translate(_PLAIN)}")
    return markdown.replace(PLACE, "\n".join(lines))


#: What Markdown would read as its own.
_PLAIN = {ord(sign): f"\\{sign}" for sign in "*_`[]{}\\"}
