"""A picture of a file of results: every method on every task, from the smallest to the largest value of its seeds.

It is made of the JSON alone, by text: the same bytes from the same file, whatever is installed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchlib.report.markup import Markup, element

__all__ = ["Picture", "picture"]

#: The most tasks, and the most rows of all tasks together, that a picture shows.
_TASKS, _ROWS = 12, 150
#: From such a ratio of the largest to the smallest value on, a task's scale is logarithmic.
_WIDE = 100.0

_COLUMN, _ROW, _HEAD, _GAP, _MARGIN, _TITLE, _FOOT = 505, 16, 24, 14, 12, 24, 26
_LABEL, _CHART, _VALUE = 240, (250, 410), 420
_LETTERS, _LONG = 40, 78

_STYLE = Markup(
    "text{font:11px system-ui,sans-serif;fill:#1c1d1f}.task{font-weight:600}.quiet{fill:#62666d}.paper{fill:#fff}"
    ".axis{stroke:#d9dadc}.mark{stroke:#c2571a;stroke-dasharray:2 2}.span{stroke:#2458c5;stroke-width:2}"
    ".dot{fill:#2458c5}@media(prefers-color-scheme:dark){text{fill:#e6e7e9}.quiet{fill:#9aa0a8}.paper{fill:#16181c}"
    ".axis{stroke:#3a3d43}.mark{stroke:#f0a35e}.span{stroke:#8ab0ff}.dot{fill:#8ab0ff}}"
)


@dataclass(frozen=True)
class Picture:
    """An SVG, and what it shows in a sentence."""

    svg: str
    text: str


@dataclass(frozen=True)
class _Row:
    """A method's mean, least and greatest value on a task."""

    method: str
    mean: float
    least: float
    most: float


def picture(title: str, rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Picture | None:
    """Draw the first of the metrics that the rows have; None where they have none.

    Arguments:
        title: of the results.
        rows: of the JSON file.
        metrics: the most important first; empty: the one that most rows have.

    Example:
        >>> values = {"mean": 0.5, "std": 0.1, "values": [0.4, 0.6]}
        >>> drawn = picture("Toys", [{"task": "sort", "method": "ours", "metrics": {"accuracy": values}}], ["accuracy"])
        >>> drawn.text
        'Toys: accuracy of 1 method on 1 task'
    """
    metric = _metric(rows, metrics)
    if metric is None:
        return None
    tasks = _by_task(rows, metric)
    shown = _shown(tasks)
    methods = len({row.method for task in shown for row in tasks[task]})
    text = f"{title}: {metric} of {_count(methods, 'method')} on {_count(len(shown), 'task')}"
    left = len(tasks) - len(shown)
    if left:
        text += f" ({left} further in the tables)"
    return Picture(_svg(text, {task: tasks[task] for task in shown}), text)


def _metric(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> str | None:
    counts: dict[str, int] = {}
    for row in rows:
        for name, summary in row["metrics"].items():
            counts[name] = counts.get(name, 0) + (summary["mean"] is not None)
    counts = {name: count for name, count in counts.items() if count}
    wanted = [name for name in metrics if name in counts]
    return wanted[0] if wanted else max(counts, key=lambda name: counts[name], default=None)


def _by_task(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, list[_Row]]:
    tasks: dict[str, list[_Row]] = {}
    for row in rows:
        summary = row["metrics"].get(metric)
        if summary is None or summary["mean"] is None:
            continue
        known = [value for value in summary["values"] if value is not None]
        tasks.setdefault(row["task"], []).append(_Row(row["method"], summary["mean"], min(known), max(known)))
    return tasks


def _shown(tasks: Mapping[str, Sequence[_Row]]) -> list[str]:
    """The first tasks, as many as a picture takes, but one at least."""
    shown: list[str] = []
    for task in list(tasks)[:_TASKS]:
        if shown and sum(len(tasks[one]) for one in (*shown, task)) > _ROWS:
            break
        shown.append(task)
    return shown


def _svg(text: str, tasks: Mapping[str, Sequence[_Row]]) -> str:
    """The tasks in two columns, each in the shorter one."""
    heights, panels = [_MARGIN + _TITLE] * 2, []
    columns = min(2, len(tasks))
    for task, rows in tasks.items():
        column = min(range(columns), key=lambda one: heights[one])
        panels.append(_panel(task, rows, _MARGIN + column * (_COLUMN + _GAP), heights[column]))
        heights[column] += _HEAD + _ROW * len(rows) + _GAP
    width, height = 2 * _MARGIN + columns * _COLUMN + (columns - 1) * _GAP, max(heights) + _FOOT
    notes = "dot: mean · line: smallest to largest of the seeds · dashed: the first row · every task on its own scale"
    foot = element("text", notes if columns > 1 else notes.replace("every task on its own scale", "one scale"),
                   x=_MARGIN, y=height - 10, class_="quiet")  # fmt: skip
    paper = element("rect", class_="paper", width=width, height=height, rx=6)
    head = element("text", _short(text, _LONG * columns), x=_MARGIN, y=_MARGIN + 10, class_="quiet")
    drawing = element(
        "svg", element("title", text), element("style", _STYLE), paper, head, panels, foot, role="img", width=width,
        height=height, viewBox=f"0 0 {width} {height}", xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip
    return f"{drawing}\n"


def _panel(task: str, rows: Sequence[_Row], x: int, y: int) -> Markup:
    """One task: a line of text, and a row for every method."""
    low, high = min(row.least for row in rows), max(row.most for row in rows)
    wide = low > 0 and high / low >= _WIDE
    head = element("text", _short(task, _LONG) + (" (logarithmic)" if wide else ""), class_="task", x=0, y=14)

    def at(value: float) -> str:
        share = _share(value, low, high, wide)
        return f"{_CHART[0] + share * (_CHART[1] - _CHART[0]):.1f}"

    bottom, first = _HEAD + _ROW * len(rows), at(rows[0].mean)
    mark = element("line", class_="mark", x1=first, x2=first, y1=_HEAD, y2=bottom)
    lines = [_line(row, _HEAD + _ROW * place, at) for place, row in enumerate(rows)]
    return element("g", head, mark, lines, transform=f"translate({x} {y})")


def _line(row: _Row, top: int, at: Any) -> list[Markup]:
    middle, base = top + _ROW // 2, top + _ROW // 2 + 4
    span = element("line", class_="span", x1=at(row.least), x2=at(row.most), y1=middle, y2=middle)
    return [
        element("text", _short(row.method, _LETTERS), x=_LABEL, y=base, text_anchor="end"),
        element("line", class_="axis", x1=_CHART[0], x2=_CHART[1], y1=middle, y2=middle),
        *([span] if row.most > row.least else []),
        element("circle", class_="dot", cx=at(row.mean), cy=middle, r=3.5),
        element("text", f"{row.mean:.4g}", class_="quiet", x=_VALUE, y=base),
    ]


def _share(value: float, low: float, high: float, wide: bool) -> float:
    """Where a value lies between both ends, from 0 to 1; in the middle where they are equal."""
    if not high > low:
        return 0.5
    if wide:
        value, low, high = (math.log(max(one, low)) for one in (value, low, high))
    return (value - low) / (high - low)


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"


def _count(n: int, what: str) -> str:
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
