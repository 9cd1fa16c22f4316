"""Docstrings for Markdown: reStructuredText's roles and literal blocks, which sources use, become code."""

from __future__ import annotations

import re
from typing import Any

import griffe

__all__ = ["PlainRoles", "plain"]

_ROLE = re.compile(r":(?:attr|class|data|exc|func|meth|mod):`(?P<short>~)?(?P<name>[^`]+)`")


def plain(text: str) -> str:
    """The text with names for roles, blocks after ``::`` as fenced code, and doctests as such.

    Example:
        >>> plain("See :class:`~searchlib.Search` and ``rng``.")
        'See `Search` and ``rng``.'
    """
    text = _ROLE.sub(lambda role: f"`{role['name'].rsplit('.', 1)[-1] if role['short'] else role['name']}`", text)
    text = re.sub(r"^( *)Example:$", r"\1Examples:", text, flags=re.MULTILINE)  # the one that griffe reads as a doctest
    return _fenced(text)


def _fenced(text: str) -> str:
    lines: list[str] = []
    fence: str | None = None  # the indentation of the block that is open
    opened = False
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        if fence is not None and line.strip():
            if not opened and indent > len(fence):
                fence, opened = line[:indent], True
                lines.append(f"{fence}```python")
            elif indent < len(fence):
                _close(lines, fence, opened)
                fence, opened = None, False
        lines.append(line)
        if fence is None and line.rstrip().endswith("::"):
            lines[-1] = line.rstrip()[:-1]
            fence = line[:indent]
    if fence is not None:
        _close(lines, fence, opened)
    return "\n".join(lines)


def _close(lines: list[str], fence: str, opened: bool) -> None:
    """End a block before the empty lines that follow it."""
    if opened:
        end = len(lines)
        while not lines[end - 1].strip():
            end -= 1
        lines.insert(end, f"{fence}```")


class PlainRoles(griffe.Extension):
    """Rewrites every docstring as it is collected."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = plain(obj.docstring.value)
