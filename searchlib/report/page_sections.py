"""The parts of a report's page, each from what a study holds: winner, held-out table, failures, settings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from searchlib.algorithms.algorithm import Status
from searchlib.holdout import Comparison, Holdout
from searchlib.objective import Direction
from searchlib.report.candidate_table import CandidateTable, last_line, shown
from searchlib.report.interval_chart import interval_chart
from searchlib.report.markup import Markup, element
from searchlib.result import Outcome, Result
from searchlib.study import STATE

__all__ = ["failures", "held_out", "masthead", "section", "settings_tables", "winner"]

#: Characters of the winner, and of a setting, that a page shows.
_LIMIT = 20_000
#: Error texts that are shown; all of them are in the table.
_MOST_ERRORS = 50


def number(value: float | None, *, signed: bool = False, digits: int = 6) -> str:
    """A number as a page shows it."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{value:+.{digits}g}" if signed else f"{value:.{digits}g}"
    return text.replace("-", "\N{MINUS SIGN}")


def interval(bounds: tuple[float, float], *, signed: bool = False) -> str:
    """A confidence interval."""
    low, high = (number(bound, signed=signed, digits=4) for bound in bounds)
    return f"[{low}, {high}]"


def section(name: str, title: str, *children: Any) -> Markup:
    """One part of a page; a live page replaces it when it changes."""
    return element("section", element("h2", title), children, id=name, data_part=True)


def masthead(name: str, settings: Mapping[str, Any], result: Result) -> Markup:
    """What is searched, how far the search is, and how it ended."""
    history, objective = result.history, settings.get("objective", {})
    planned = settings.get("planned")
    planned = planned if isinstance(planned, int) else None
    title = objective.get("name") or objective.get("objective", "objective") if isinstance(objective, dict) else ""
    running = result.outcome is Outcome.RUNNING
    facts = [
        ("evaluations", f"{history.evaluations:,}" + (f" of {planned:,}" if planned else "")),
        ("candidates told", f"{len(history):,}"),
        ("failed", f"{history.failures:,}"),
        ("cached", f"{result.cache_hits:,}" if result.cache_hits else ""),
        ("seconds", f"{result.seconds:,.1f}"),
    ]
    items = [element("div", element("dt", key), element("dd", value)) for key, value in facts if value]
    state = element("span", "no result yet" if running else "finished", class_="badge running" if running else "badge")
    return element(
        "header",
        element("p", "searchlib · ", title, class_="kicker"),
        element("h1", name, " ", state),
        element("p", f"{_space_name(settings)}, searched by {_head(result.algorithm)}",
                "." if running else f"; {result.outcome.value}.", class_="lead"),
        element("dl", items, class_="facts"),
        element("progress", value=history.evaluations, max=planned, aria_label="share of the budget")
        if running and planned else None,
        id="masthead", data_part=True,
    )  # fmt: skip


def winner(result: Result, direction: Sequence[Direction], names: Sequence[str]) -> Markup:
    """The winner, what it is worth, and what to think of that; the best so far where there is none yet."""
    if result.row is None:
        return section("winner", "Best so far", *_best_so_far(result, direction[0]))
    tiles = [_tile(f"{names[0]} on the cases it was chosen on", number(result.value), "optimistic: chosen for it")]
    if result.corrected is not None:
        low_high = interval(result.corrected.interval)
        tiles.append(_tile("corrected for the choice", number(result.corrected.value), f"95 % {low_high}"))
    if result.holdout is not None:
        held = result.holdout
        tiles.insert(0, _tile(f"{names[0]} on held-out cases", number(held.value), f"95 % {interval(held.interval)}"))
    if result.optimism is not None:
        bounds = interval(result.optimism.interval, signed=True)
        tiles.append(_tile("optimism", number(result.optimism.value, signed=True), f"95 % {bounds}"))
    if result.front is not None:
        tiles.append(_tile("front", f"{len(result.front)}", "candidates that nothing dominates"))
    doubts = [element("p", f"Warning: {overlap}", class_="warning") for overlap in result.overlaps]
    text = shown(result.best, _LIMIT)
    return section("winner", "Winner", element("div", tiles, class_="tiles"), doubts,
                   element("pre", element("code", text), class_="candidate", tabindex="0"))  # fmt: skip


def _best_so_far(result: Result, way: Direction) -> list[Markup]:
    history = result.history
    done = np.flatnonzero((history.status == Status.DONE) & ~history.stopped)
    if not len(done):
        return [element("p", "No candidate has succeeded yet.", class_="quiet")]
    values = history.values[done, 0]
    place = int(done[values.argmax() if way == "maximize" else values.argmin()])
    row = list(history.rows())[place]
    text = "known by its seed only" if row is None else shown(history.space.decode(row), _LIMIT)
    tile = _tile("value on the search cases", number(float(history.values[place, 0])), "optimistic: the luckiest yet")
    return [element("div", tile, class_="tiles"), element("pre", element("code", text), class_="candidate")]


def _tile(label: str, value: str, note: str) -> Markup:
    return element("div", element("p", label, class_="label"), element("p", value, class_="value"),
                   element("p", note, class_="note"), class_="tile")  # fmt: skip


def held_out(holdout: Holdout | None, direction: Sequence[Direction], names: Sequence[str]) -> Markup:
    """The winner and every reference on the held-out cases, with intervals."""
    if holdout is None:
        text = "Nothing was held out, or the search has not ended yet. Values are those of cases it learned from."
        return section("heldout", "Held-out cases", element("p", text, class_="quiet"))
    looks = f"look {holdout.looks} at them" if holdout.looks == 1 else (
        f"look {holdout.looks} at them: the winner is itself selected, so its interval is too narrow"
    )
    tables = []
    for name, way, rows in zip(names, direction, (holdout.rows, *holdout.others), strict=False):
        better = "higher is better" if way == "maximize" else "lower is better"
        tables.append(element("h3", f"{name} ({better})"))
        tables.append(element("div", _comparisons(rows, way), class_="scroll", tabindex="0"))
    text = f"{holdout.cases:,} cases that no algorithm has seen; {looks}. Intervals are at 95 %, differences paired."
    return section("heldout", "Held-out cases", element("p", text, class_="quiet"), tables)


def _comparisons(rows: tuple[Comparison, ...], way: Direction) -> Markup:
    heads = ("", "value", "95 % interval", "", "winner minus it", "95 % interval", "")
    charts = interval_chart([(row.value, *row.interval) for row in rows])
    body = []
    for row, chart in zip(rows, charts, strict=True):
        first = row is rows[0]
        cells = [
            element("th", "winner" if first else row.name, scope="row"),
            element("td", number(row.value), class_="number"),
            element("td", interval(row.interval), class_="number quiet"),
            element("td", chart),
            element("td", "" if first else number(row.difference, signed=True), class_="number"),
            element("td", "" if first else interval(row.difference_interval, signed=True), class_="number quiet"),
            element("td", "" if first else _verdict(row, way)),
        ]
        body.append(element("tr", cells, class_="first" if first else None))
    kinds = [None, "number", "number", None, "number", "number", None]
    head = [element("th", title, scope="col", class_=kind) for title, kind in zip(heads, kinds, strict=True)]
    return element("table", element("thead", element("tr", head)), element("tbody", body))


def _verdict(row: Comparison, way: Direction) -> Markup:
    low, high = row.difference_interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return element("span", "no interval", class_="quiet")
    if low <= 0 <= high:
        return element("span", "not told apart", class_="quiet")
    ahead = (low > 0) == (way == "maximize")
    return element("span", "winner is better" if ahead else "winner is worse", class_="good" if ahead else "bad")


def failures(table: CandidateTable, failed: int) -> Markup:
    """Every error once, with its traceback."""
    if not table.errors:
        return section("failures", "Failures", element("p", "No candidate failed.", class_="quiet"))
    who = "1 candidate" if failed == 1 else f"{failed:,} candidates"
    why = "1 reason" if len(table.errors) == 1 else f"{len(table.errors):,} different reasons"
    text = f"{who} failed, for {why}. A failed candidate is data: the search went on without it."
    order = sorted(range(len(table.errors)), key=lambda place: -table.counts[place])
    details = [
        element(
            "details",
            element("summary", element("span", f"{table.counts[place]:,} ×", class_="number quiet"), " ",
                    element("code", last_line(table.errors[place]))),
            element("pre", table.errors[place].strip(), tabindex="0"),
            data_key=str(place),
        )
        for place in order[:_MOST_ERRORS]
    ]  # fmt: skip
    more = len(order) - _MOST_ERRORS
    rest = element("p", f"{more:,} more are in the table above.", class_="quiet") if more > 0 else None
    return section("failures", "Failures", element("p", text, class_="quiet"), details, rest)


def settings_tables(settings: Mapping[str, Any], notes: Mapping[str, Any]) -> Markup:
    """What the search was started with, on which versions, and what its algorithm notes about it."""
    hidden = {"result", "versions", "given_seeds", STATE}
    plain = {name: value for name, value in settings.items() if name not in hidden and value is not None}
    versions = settings.get("versions")
    return section(
        "settings", "Settings and versions",
        element("h3", "Versions"), _pairs(versions if isinstance(versions, dict) else {"": versions}),
        element("details", element("summary", "Settings of the search"), _pairs(plain), data_key="settings"),
        element("details", element("summary", "Notes of the algorithm"), _pairs(notes), data_key="notes")
        if notes else None,
    )  # fmt: skip


def _pairs(values: Mapping[str, Any]) -> Markup:
    rows = [
        element("tr", element("th", name, scope="row"), element("td", element("code", _written(value))))
        for name, value in values.items()
    ]
    return element("div", element("table", element("tbody", rows), class_="pairs"), class_="scroll", tabindex="0")


def _written(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"


def _head(algorithm: str) -> str:
    """The name of an algorithm, without its settings."""
    return algorithm.partition("(")[0][:80]


def _space_name(settings: Mapping[str, Any]) -> str:
    space = settings.get("space")
    return str(space.get("space", space.get("type", "space"))) if isinstance(space, dict) else "space"
