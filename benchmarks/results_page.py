"""The page of all results, made of the JSON files of the benchmarks: ``python -m benchmarks.results_page``.

Nothing on it is written by hand, so that it cannot say anything else than the files do.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.results_picture import Picture, picture
from benchmarks.table import write_whole

__all__ = ["PAGE", "PICTURES", "RESULTS", "Shown", "main", "page", "pictures", "undated"]

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "results.md"
#: Beside the page.
PICTURES = PAGE.parent / "pictures"

#: So many rows of a table that is a list, and then a sentence about the others.
_LONGEST = 60
#: Fewer filled cells than this share, and tasks × methods is a list instead of a matrix.
_FILLED = 0.4
_MADE = "Committed on "


@dataclass(frozen=True)
class Shown:
    """How a file of results appears on the page.

    Arguments:
        title: its heading.
        page: the page that explains it.
        metrics: what its tables show, the most important first; empty: all there are.
        options: of the command, beside preset, seeds and folder.
    """

    title: str
    page: str
    metrics: tuple[str, ...] = ()
    options: str = ""


#: Every file that is known, by its name; others appear at the end, with all of their metrics.
SHOWN: Mapping[str, Shown] = {
    "expert_pruning": Shown("Expert pruning", "expert_pruning.md", ("holdout_accuracy",), "--jobs 2"),
    "eval_subset": Shown("Evaluation subsets", "eval_subset.md", ("holdout_tau",)),
    "teaching": Shown("Learning by teaching", "teaching.md", ("holdout_accuracy", "generations")),
    "checkpoint_combination": Shown(
        "Combining checkpoints", "checkpoint_combination.md", ("holdout", "other_features"), "--jobs 2"
    ),
    "solver_schedule": Shown(
        "Solver search", "solver_search.md", ("holdout", "other_features"),
        '--method evolution --method "S3 (ours)" --method "S3 (ours), from the best known"',
    ),
    "solver_schedule_384": Shown(
        "Solver search, a quarter of the noises", "solver_search.md", ("holdout", "other_features"), "--images 384"
    ),
    "sparse_attention": Shown("Sparse attention", "sparse_attention.md", ("accuracy", "perplexity_320")),
    "quantized_llm": Shown("Quantized language models", "quantized_llm.md", ("text_bits", "copies_bits", "loss")),
    "mixed_precision": Shown("Mixed precision", "mixed_precision.md", ("aggregate", "quality", "alignment")),
    "pursuit": Shown("Curricula", "curricula.md", ("at 0.5", "at 1", "captures"), "--jobs 2 --store out/pursuit"),
    "uav_pursuit": Shown(
        "Multi-UAV pursuit", "uav_pursuit.md", ("captured, no collision", "captured"), "--store out/uav"
    ),
    "traffic": Shown("Traffic signals", "traffic.md", ("delay", "throughput"), "--store out/traffic"),
    "navigation": Shown("Navigation", "navigation.md", ("success", "steps"), "--store out/navigation"),
    "exploration": Shown(
        "Exploration", "exploration.md", ("steps to 90 %",), "--jobs 2 --store out/exploration"
    ),
    "engine": Shown("The engine against its peers", "engine.md", ("rank",)),
    "engine_100": Shown(
        "The engine at 100 evaluations of reals", "engine.md", ("rank",), "--family c --family d --budget 100"
    ),
    "engine_smac": Shown(
        "The engine at 100 evaluations of choices, SMAC3 among the rivals", "engine.md", ("rank",),
        "--family a1 --family a2 --family b --budget 100",
    ),
    "scaling": Shown("More workers", "clusters.md"),
    "speed": Shown("Speed", "expert_pruning.md"),
    "speed_classes": Shown("What asking and telling costs", "engine.md", (), "--part classes"),
}  # fmt: skip


def page(results: Path = RESULTS) -> str:
    """The whole page as Markdown, the same for the same files (but for the dates, which the repository knows)."""
    found = _read(results)
    names = [name for name in SHOWN if name in found] + [name for name in found if name not in SHOWN]
    tables = [name for name in names if _is_table(found[name])]
    lines = [
        "# All tables", "",
        "Every committed result of every benchmark, made by `python -m benchmarks.results_page` from the files in "
        "`benchmarks/results`: figures, claims with their statistics, versions, and the command that makes them again. "
        "The pages of the systems say what they mean. A claim that does not hold is shown like the others.", "",
        *_overview(tables, found), "",
    ]  # fmt: skip
    for name in tables:
        lines += [*_section(name, found[name], results), ""]
    others = [name for name in names if name not in tables]
    if others:
        lines += ["## Other files", "", *(f"- {_json(name)}" for name in others), ""]
    return "\n".join(lines).rstrip() + "\n"


def pictures(results: Path = RESULTS) -> dict[str, str]:
    """The picture of every table as SVG, by the name of its file: the same for the same files."""
    drawn = {name: _picture(name, document) for name, document in _read(results).items() if _is_table(document)}
    return {f"{name}.svg": one.svg for name, one in drawn.items() if one is not None}


def _read(results: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))}


def _picture(name: str, document: Mapping[str, Any]) -> Picture | None:
    shown = _shown(name)
    return picture(shown.title, document["rows"], shown.metrics)


def undated(text: str) -> str:
    """The page without what the repository's history says: to compare two of them."""
    return re.sub(rf"^{_MADE}.*?\. ", "", text, flags=re.MULTILINE)


def _is_table(document: Any) -> bool:
    return isinstance(document, dict) and {"benchmark", "preset", "seeds", "rows", "claims"} <= document.keys()


def _shown(name: str) -> Shown:
    return SHOWN.get(name, Shown(name.replace("_", " ").capitalize(), "index.md"))


def _json(name: str) -> str:
    return f"[{name}.json](../benchmarks/results/{name}.json)"


def _overview(names: Sequence[str], found: Mapping[str, Any]) -> list[str]:
    rows = []
    for name in names:
        document, shown = found[name], _shown(name)
        rows.append([
            f"[{shown.title}](#{_anchor(shown.title)})", document["preset"], document["seeds"], len(document["rows"]),
            f"{sum(claim['holds'] for claim in document['claims'])} of {len(document['claims'])}",
        ])  # fmt: skip
    return _table(["results", "preset", "seeds", "rows", "claims that hold"], rows)


def _anchor(title: str) -> str:
    """The identifier that Markdown gives a heading."""
    return re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower())


def _section(name: str, document: Mapping[str, Any], results: Path) -> list[str]:
    shown, versions = _shown(name), document["environment"]
    packages = ", ".join(f"{package} {version}" for package, version in versions["versions"].items())
    command = (
        f"python -m benchmarks {document['benchmark']} --preset {document['preset']} --seeds {document['seeds']} "
        f"{shown.options + ' ' if shown.options else ''}--out benchmarks/results"
    )
    lines = [
        f"## {shown.title}", "",
        f"{_MADE}{_date(results / f'{name}.json')}. What it means: [{shown.page}]({shown.page}). "
        f"Everything: {_json(name)}.", "",
        "```console", f"$ {command}", "```", "",
        f"Python {versions['python']} on {versions['machine']}, {versions['cpus']} processors; {packages}.", "",
    ]  # fmt: skip
    drawn, own = _picture(name, document), results / f"{name}.png"
    if drawn is not None:
        lines += [f"![{_escaped(drawn.text)}]({PICTURES.name}/{name}.svg)", ""]
    if own.exists():
        lines += [f"![{shown.title}](../benchmarks/results/{own.name})", ""]
    return [*lines, *_tables(document["rows"], shown.metrics), *_claims(document["claims"])]


def _date(path: Path) -> str:
    """The day of the commit that a file's content is from."""
    command = ["git", "log", "-1", "--format=%cs", "--", path.name]
    try:
        done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "an unknown day"
    return done.stdout.strip() or "no day yet"


def _tables(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    """One matrix per metric where most tasks have most methods, else a list of rows."""
    present = list(dict.fromkeys(name for row in rows for name in row["metrics"]))
    wanted = [name for name in metrics if name in present] or present
    lines: list[str] = []
    listed: list[str] = []
    for metric in wanted:
        having = [row for row in rows if _known(row, metric)]
        tasks, methods = ({row[key]: None for row in having} for key in ("task", "method"))
        dense = len(tasks) > 1 and len(methods) > 1 and len(having) >= _FILLED * len(tasks) * len(methods)
        if dense:
            lines += _matrix(metric, having, list(tasks), list(methods))
        elif having:
            listed.append(metric)
    if listed:
        lines += _list(rows, listed)
    left = [name for name in present if name not in wanted]
    shown = sum(any(_known(row, metric) for metric in wanted) for row in rows)
    if left or shown < len(rows):
        others = f"{len(rows) - shown} rows without these values" if shown < len(rows) else ""
        further = f"further values ({', '.join(left)})" if left else ""
        lines += [f"Left out here: {' and '.join(filter(None, (others, further)))}.", ""]
    return lines


def _known(row: Mapping[str, Any], metric: str) -> bool:
    return metric in row["metrics"] and row["metrics"][metric]["mean"] is not None


def _matrix(metric: str, rows: Sequence[Mapping[str, Any]], tasks: list[str], methods: list[str]) -> list[str]:
    """Methods down and tasks across, or the other way where that is narrower."""
    cells = {(row["task"], row["method"]): _value(row["metrics"][metric]) for row in rows}
    if len(tasks) <= len(methods):
        body = [[method, *(cells.get((task, method), "–") for task in tasks)] for method in methods]
        return [f"**{_escaped(metric)}**", "", *_table(["", *tasks], body), ""]
    body = [[task, *(cells.get((task, method), "–") for method in methods)] for task in tasks]
    return [f"**{_escaped(metric)}**", "", *_table(["", *methods], body), ""]


def _list(rows: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> list[str]:
    having = [row for row in rows if any(_known(row, metric) for metric in metrics)]
    body = [
        [row["task"], row["method"], *(_value(row["metrics"][m]) if _known(row, m) else "–" for m in metrics)]
        for row in having[:_LONGEST]
    ]
    lines = [*_table(["task", "method", *metrics], body), ""]
    if len(having) > _LONGEST:
        lines += [f"{len(having) - _LONGEST} further rows of this table are in the JSON file.", ""]
    return lines


def _claims(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    if not claims:
        return ["No claims."]
    holding = sum(claim["holds"] for claim in claims)
    body = [
        [
            claim["claim"], _number(claim["value"]), _number(claim["bound"]), _interval(claim["interval"]), claim["n"],
            claim["test"], "yes" if claim["holds"] else "**no**",
        ]
        for claim in claims
    ]  # fmt: skip
    header = ["claim", "value", "bound", "interval", "n", "test", "holds"]
    return [f"{holding} of {len(claims)} claims hold:", "", *_table(header, body)]


def _table(header: Sequence[Any], body: Sequence[Sequence[Any]]) -> list[str]:
    rule = ["---"] * len(header)
    return [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in (header, rule, *body)]


def _escaped(cell: Any) -> str:
    """Text of a cell: what Markdown would read as its own is set apart."""
    text = str(cell)
    return text if text.startswith(("[", "**")) else re.sub(r"([|*_<\[\]`])", r"\\\1", text)


def _value(summary: Mapping[str, Any]) -> str:
    # equal values differ by rounding from their mean
    spread = f" ± {summary['std']:.2g}" if (summary["std"] or 0.0) > 1e-12 * abs(summary["mean"]) else ""
    return f"{_number(summary['mean'])}{spread}"


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 1e4 and math.isfinite(value) else f"{value:.4g}"


def _interval(ends: Sequence[float | None] | None) -> str:
    return "" if ends is None else f"{_number(ends[0])} … {_number(ends[1])}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page and its pictures, or say whether they are up to date."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_page", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; status 1 where one is out of date")
    options = parser.parse_args(arguments)
    made, drawn = page(), pictures()
    if options.check:
        late = _out_of_date(made, drawn)
        for name in late:
            print(f"{name} is out of date: python -m benchmarks.results_page", file=sys.stderr)
        return bool(late)
    for name in set(_kept_pictures()) - set(drawn):
        (PICTURES / name).unlink()
    for name, svg in drawn.items():
        write_whole(PICTURES / name, svg)
    print(f"written to {write_whole(PAGE, made)} and {PICTURES}", file=sys.stderr)
    return 0


def _out_of_date(made: str, drawn: Mapping[str, str]) -> list[str]:
    """Names of what is not as it would be made now."""
    kept = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    there = _kept_pictures()
    late = [] if undated(kept) == undated(made) else [PAGE.name]
    return late + [name for name in sorted({*there, *drawn}) if there.get(name) != drawn.get(name)]


def _kept_pictures() -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(PICTURES.glob("*.svg"))}


if __name__ == "__main__":
    sys.exit(main())
