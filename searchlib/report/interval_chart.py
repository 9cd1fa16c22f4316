"""Confidence intervals as small drawings in the rows of a table."""

from __future__ import annotations

import math
from collections.abc import Sequence

from searchlib.report.markup import Markup, element

__all__ = ["interval_chart"]

_WIDTH, _HEIGHT, _MARGIN = 160, 18, 6


def interval_chart(rows: Sequence[tuple[float, float, float]]) -> list[Markup]:
    """One drawing per row ``(value, low, high)``, all on the same scale; a thin line marks the first row's value."""
    ends = [end for row in rows for end in row if math.isfinite(end)]
    low, high = min(ends, default=0.0), max(ends, default=1.0)
    reach = (high - low) or 1.0

    def at(value: float) -> str:
        return f"{_MARGIN + (_WIDTH - 2 * _MARGIN) * (value - low) / reach:.1f}"

    middle, charts = _HEIGHT / 2, []
    for value, least, most in rows:
        parts = []
        if math.isfinite(rows[0][0]):
            parts.append(element("line", x1=at(rows[0][0]), x2=at(rows[0][0]), y1=0, y2=_HEIGHT, class_="mark"))
        if math.isfinite(least) and math.isfinite(most):
            parts.append(element("line", x1=at(least), x2=at(most), y1=middle, y2=middle, class_="span"))
        if math.isfinite(value):
            parts.append(element("circle", cx=at(value), cy=middle, r=3.5, class_="dot"))
        box = f"0 0 {_WIDTH} {_HEIGHT}"
        size = {"width": _WIDTH, "height": _HEIGHT, "viewBox": box}
        charts.append(element("svg", parts, class_="interval", aria_hidden="true", **size))
    return charts
