"""Hugging Face model cards of what a search has found: what was searched, on which cases, and the held-out table."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from searchlib.arguments import instance, listed, shown
from searchlib.errors import InvalidSettings
from searchlib.exchange.card_text import code_block, inline, table, yaml_header
from searchlib.exchange.opened_study import opened
from searchlib.holdout import Comparison
from searchlib.report.reproduction import same_search, same_versions
from searchlib.result import Result
from searchlib.study import Study

__all__ = ["model_card"]

#: Characters of the winner, of its space and of settings that are shown.
_LIMIT = 2000
_SPLITS = {
    "search": "the algorithm learned from them", "select": "the winner was picked on them",
    "holdout": "opened once the search had stopped",
}  # fmt: skip
_OWN = ("base_model", "license", "model-index", "tags")


def model_card(
    source: Result | Study | str | Path,
    *,
    name: str,
    base_model: str | Sequence[str] | None = None,
    cases: str = "",
    metric: str = "value",
    task: str | None = None,
    dataset: str | None = None,
    license: str | None = None,
    tags: Sequence[str] = (),
    metadata: Mapping[str, Any] | None = None,
) -> str:
    """The text of a model card (``README.md``) for a model that was made of a search's winner.

    The body says what was searched, by which algorithm, budget, seed and versions, on how many cases of each split,
    the held-out values of the winner and of every reference with intervals, what flatters the winner's value, and how
    to make the search again. The header has the tags ``searchlib`` and yours, and a ``model-index`` with the held-out
    values where there are any and ``task`` and ``dataset`` are given, as the Hub demands. The license is yours to say.

    Texts may come from anywhere: none can add to the header, or become a link or markup in the body.

    Arguments:
        source: of a study (or its path) everything above; a :class:`~searchlib.Result` alone knows no seed, budget,
            versions or sizes of splits.
        name: of the model.
        base_model: Hub id of what was searched over, or several of them.
        cases: what the cases are, in a sentence.
        metric: what the value is called, as on the Hub (``"accuracy"``).
        task: of the ``model-index``, for example ``"text-generation"``.
        dataset: of the ``model-index``: where the held-out cases are from.
        license: an identifier of the Hub (``"apache-2.0"``).
        tags: more tags.
        metadata: more entries of the header as JSON values, for example ``{"library_name": "transformers"}``.

    Raises:
        InvalidSettings: an argument that cannot be meant, or a search without a winner.
        StudyError: the study cannot be read.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Subset
        >>> result = search(sum, space=Subset(8, k=2), budget=28)
        >>> card = model_card(result, name="few experts", base_model="org/model", cases="Eight numbers.")
        >>> print("".join(card.splitlines(keepends=True)[:9]))
        ---
        tags:
          - "searchlib"
        base_model: "org/model"
        ---
        <BLANKLINE>
        # few experts
        <BLANKLINE>
        Found by a search without gradients over choices inside org/model.
        <BLANKLINE>
    """
    for argument, text in {"name": name, "cases": cases, "metric": metric}.items():
        instance(argument, text, str, "a text")
    bases = (base_model,) if isinstance(base_model, str) else tuple(listed("base_model", base_model or ()))
    extra = dict(metadata or {})
    if clash := sorted(set(extra) & set(_OWN)):
        raise InvalidSettings(f"metadata={shown(extra)} says {clash[0]!r} again; use the argument of that name")
    if isinstance(source, Result):
        result, settings, file = source, {}, ""
    else:
        with opened(source) as study:
            result, settings, file = study.result(), study.settings, study.path.name
    if result.row is None:
        raise InvalidSettings(f"the search has no winner to make a card of: {result.outcome.value}")
    names = _names(result, metric)
    entries: dict[str, Any] = {**extra, "tags": ["searchlib", *listed("tags", tags)]}
    if license is not None:
        entries["license"] = license
    if bases:
        entries["base_model"] = bases[0] if len(bases) == 1 else list(bases)
    if result.holdout is not None and task is not None and dataset is not None:
        entries["model-index"] = [_index(name, result, names, task, dataset)]
    over = f" inside {', '.join(map(inline, bases))}" if bases else ""
    parts = [
        yaml_header(entries),
        f"# {inline(name)}",
        f"Found by a search without gradients over choices{over}.",
        *_searched(result, settings),
        *_cases(cases, result, settings),
        *_held_out(result, names),
        *_reproduce(settings, file),
    ]
    return "\n\n".join(parts) + "\n"


def _names(result: Result, metric: str) -> tuple[str, ...]:
    """What the values are called, one name per objective."""
    if result.history.objectives == 1:
        return (metric,)
    known = () if result.front is None else result.front.names
    return known or tuple(f"{metric} {number}" for number in range(result.history.objectives))


def _index(name: str, result: Result, names: Sequence[str], task: str, dataset: str) -> dict[str, Any]:
    """The winner's held-out values as the Hub lists them."""
    assert result.holdout is not None
    winners = [rows[0] for rows in (result.holdout.rows, *result.holdout.others)]
    metrics = [
        {"type": kind, "value": row.value, "name": f"{kind} on held-out cases"}
        for kind, row in zip(names, winners, strict=True) if math.isfinite(row.value)
    ]  # fmt: skip
    return {
        "name": name,
        "results": [{"task": {"type": task}, "dataset": {"type": dataset, "name": dataset}, "metrics": metrics}],
    }


def _searched(result: Result, settings: Mapping[str, Any]) -> list[str]:
    history = result.history
    done = f"{history.evaluations:,} evaluations, {history.failures:,} failed"
    if settings:
        done += f", {result.seconds:,.0f} s"
    rows = [
        ["space", _cut(repr(history.space))],
        ["algorithm", _cut(result.algorithm)],
        *([key, _cut(str(settings[key]))] for key in ("budget", "seed", "direction") if key in settings),
        ["searched", done],
        ["stopped because", result.outcome.value],
    ]
    return ["## What was searched", table(["", "search"], rows).replace("|---:|", "|---|"), "The winner:",
            code_block(_cut(repr(result.best)))]  # fmt: skip


def _cases(cases: str, result: Result, settings: Mapping[str, Any]) -> list[str]:
    rows = [
        [split, number, _SPLITS.get(split, "")]
        for split, (number, _) in settings.get("cases", {}).items() if number
    ]  # fmt: skip
    parts = [inline(cases)] if cases else []
    if rows:
        parts.append(table(["split", "cases", ""], rows))
    parts += [f"**Warning**: {inline(overlap)}." for overlap in result.overlaps]
    return ["## Cases", *parts] if parts else []


def _held_out(result: Result, names: Sequence[str]) -> list[str]:
    chosen = f"On the cases that the winner was picked on: {inline(names[0])} {result.value:.6g} (chosen for it)"
    if result.corrected is not None:
        chosen += f"; corrected for that choice {result.corrected.value:.6g} {_interval(result.corrected.interval)}"
    parts = ["## Results", f"{chosen}."]
    if result.holdout is None:
        return [*parts, "Nothing was held out: this value is of cases that the search has seen."]
    looks = result.holdout.looks
    many = "" if looks == 1 else f" This is look {looks} at them, so that the winner is itself selected."
    parts.append(
        f"On {result.holdout.cases:,} held-out cases, with 95 % intervals; differences are paired over cases.{many}"
    )
    for name, rows in zip(names, (result.holdout.rows, *result.holdout.others), strict=True):
        lines = [[row.name, *_numbers(row, row is rows[0])] for row in rows]
        parts.append(table(["", name, "95 % interval", "winner minus it", "95 % interval"], lines))
    return parts


def _numbers(row: Comparison, winner: bool) -> list[str]:
    value = "" if math.isnan(row.value) else f"{row.value:.4g}"
    if winner or math.isnan(row.difference):
        return [value, _interval(row.interval), "", ""]
    return [value, _interval(row.interval), f"{row.difference:+.4g}", _interval(row.difference_interval, "+")]


def _interval(bounds: tuple[float, float], sign: str = "") -> str:
    return "" if any(map(math.isnan, bounds)) else f"[{bounds[0]:{sign}.4g}, {bounds[1]:{sign}.4g}]"


def _reproduce(settings: Mapping[str, Any], file: str) -> list[str]:
    if not settings:
        return []
    versions = same_versions(settings)
    again = shlex.quote(file)
    return [
        "## Reproduce",
        "The same history, on the same machine, versions and threads, where `objective` is the one above:",
        *([code_block(versions, "console")] if versions else []),
        code_block(_cut(same_search(file, settings)), "python"),
        "Or go on from the study itself, which holds every candidate and score:",
        code_block(f"python -m searchlib resume {again} --objective FILE.py:NAME", "console"),
    ]


def _cut(text: str) -> str:
    return text if len(text) <= _LIMIT else f"{text[: _LIMIT - 1]}…"
