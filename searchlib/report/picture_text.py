"""Names from anywhere as labels of pictures."""

from __future__ import annotations

import re

__all__ = ["label"]

#: Control characters, halves of surrogate pairs and what else XML cannot hold: one of them, and an SVG shows nothing.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def label(name: object, limit: int = 36) -> str:
    """A name as text of matplotlib: in one line, short, never a formula, and never hidden from a legend.

    Example:
        >>> label("_cost in $ per\\n1000 tokens, and in $ per year")
        ' _cost in \\\\$ per 1000 tokens, and in …'
    """
    line = " ".join(_UNPRINTABLE.sub(" ", str(name)).split())
    line = line if len(line) <= limit else line[: limit - 1] + "…"
    line = line.replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line
