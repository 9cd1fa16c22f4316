"""YAML and Markdown that no text in them can break."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from searchlib.arguments import shown
from searchlib.errors import InvalidSettings

__all__ = ["code_block", "inline", "table", "yaml_header"]

#: What a page or YAML cannot hold: control characters, halves of surrogate pairs, line separators, and the marks that
#: turn the reading direction of what follows (a name could otherwise look like another one).
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]"
)
_NO_NAMES = ("n", "no", "null", "off", "on", "true", "false", "y", "yes")
_MARKS = re.compile(r"([\\`*_\[\]|~$#])")


def yaml_header(entries: Mapping[str, Any]) -> str:
    """A YAML block between lines of dashes; texts are quoted as in JSON, which YAML reads.

    Arguments:
        entries: JSON values by name.

    Raises:
        InvalidSettings: a value that JSON does not know.

    Example:
        >>> print(yaml_header({"license": "mit", "tags": ["a: b", "---"]}))
        ---
        license: "mit"
        tags:
          - "a: b"
          - "---"
        ---
    """
    return "\n".join(["---", *_block(entries, ""), "---"])


def _block(value: Mapping[str, Any] | Sequence[Any], indent: str) -> list[str]:
    """The lines of a mapping or a list that holds something."""
    lines: list[str] = []
    if isinstance(value, Mapping):
        for key, item in value.items():
            lines += _entry(f"{indent}{_key(str(key))}:", item, indent + "  ", "")
    else:
        for item in value:
            lines += _entry(f"{indent}-", item, indent + "  ", f"{indent}- ")
    return lines


def _entry(head: str, item: Any, indent: str, start: str) -> list[str]:
    """What stands behind a key or a dash; a collection below it, behind a dash beginning on the same line."""
    if not isinstance(item, Mapping | list | tuple) or not item:
        return [f"{head} {_scalar(item)}"]
    lines = _block(item, indent)
    return [start + lines[0].removeprefix(indent), *lines[1:]] if start else [head, *lines]


def _key(name: str) -> str:
    """A name that YAML 1.1 does not take for anything else, or a quoted one."""
    plain = re.fullmatch("[A-Za-z_][A-Za-z0-9_-]*", name) is not None
    return name if plain and name.lower() not in _NO_NAMES else _scalar(name)


def _scalar(value: Any) -> str:
    if isinstance(value, Mapping | list | tuple) and not value:
        return "{}" if isinstance(value, Mapping) else "[]"
    if isinstance(value, float) and math.isfinite(value):
        # YAML 1.1 takes 1e-05 for a text: it wants a point.
        text = repr(value)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    if value is None or isinstance(value, str | bool | int):
        return json.dumps(_printable(value) if isinstance(value, str) else value, ensure_ascii=False)
    raise InvalidSettings(f"the header of a model card holds JSON values, but one is {shown(value)}")


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def inline(text: object) -> str:
    """A text in one line of Markdown, also in a cell of a table, that means itself.

    Example:
        >>> inline("a|b <script> *c*")
        'a\\\\|b &lt;script&gt; \\\\*c\\\\*'
    """
    line = " ".join(_printable(str(text)).split())
    return _MARKS.sub(r"\\\1", html.escape(line, quote=False))


def code_block(text: str, language: str = "") -> str:
    """A fenced block; its fence is longer than any in the text.

    Example:
        >>> code_block("```", "python").splitlines()
        ['````python', '```', '````']
    """
    clean = _printable(text)
    longest = max((len(run) for run in re.findall("`+", clean)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{clean}\n{fence}"


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of Markdown: the first column on the left, all others on the right.

    Example:
        >>> print(table(["", "value"], [["winner", 0.5]]))
        |  | value |
        |---|---:|
        | winner | 0.5 |
    """
    lines = ["| " + " | ".join(map(inline, heads)) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    return "\n".join(lines + ["| " + " | ".join(map(inline, row)) + " |" for row in rows])
