"""``python notest`` in a fence speaks to the tests alone; readers see highlighted Python."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["on_page_markdown"]


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page without what only the tests read."""
    return re.sub(r"^(\s*```python) notest$", r"\1", markdown, flags=re.MULTILINE)
