"""A report: one HTML file without anything outside of it, of a finished or a running search."""

from __future__ import annotations

import base64
import datetime
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from searchlib.arguments import file_path
from searchlib.errors import InvalidSettings
from searchlib.report.candidate_table import CandidateTable
from searchlib.report.markup import Markup, data_block, element, join
from searchlib.report.page_pictures import pictures
from searchlib.report.page_sections import failures, held_out, masthead, section, settings_tables, winner
from searchlib.report.reproduction import reproduction
from searchlib.study import Study

__all__ = ["POLICY", "report_page", "write_report"]

#: What a page may do: run its own script, use its own style, show the pictures that it carries. ``{live}`` is what a
#: page of a running search needs in addition.
POLICY = (
    "default-src 'none'; img-src data:; style-src {style}; script-src {script};{live} base-uri 'none'; "
    "form-action 'none'"
)


def report_page(study: Study, *, live_seconds: float | None = None, version: str = "") -> str:
    """The page of a study, as it is now.

    Arguments:
        study: opened for reading; its search may be running.
        live_seconds: how often the page asks its server for news; None: it is a file and never asks.
        version: what the server calls this state of the study.

    Raises:
        StudyError: the study cannot be read.
    """
    settings, result = study.settings, study.result()
    given = settings["direction"]
    direction = (given,) if isinstance(given, str) else tuple(given)
    named = () if result.front is None else result.front.names
    table = CandidateTable(result.history, direction, named)
    parts = [
        winner(result, direction, table.names),
        held_out(result.holdout, direction, table.names),
        pictures(study, result, direction),
        _candidates(len(result.history.ids), result.history.omitted),
        failures(table, result.history.failures),
        settings_tables(settings, result.notes),
        reproduction(study.path.name, settings),
    ]
    head = masthead(study.path.name, settings, result)
    return _page(study.path.name, join([head, element("main", parts)]), table.to_json(), live_seconds, version)


def write_report(study: str | Path, output: str | Path) -> Path:
    """Write the page of a study to a file; returns where.

    Arguments:
        study: path of the study; its search may be running.
        output: path of the page; its folder must exist.

    Raises:
        StudyError: the study cannot be read.
        InvalidSettings: the page cannot be written there.

    Example:
        >>> import tempfile
        >>> from searchlib import search
        >>> from searchlib.spaces import Binary
        >>> folder = Path(tempfile.mkdtemp())
        >>> result = search(sum, space=Binary(3), budget=8, study=folder / "ones.db")
        >>> write_report(folder / "ones.db", folder / "report.html").read_text()[:15]
        '<!doctype html>'
    """
    path = file_path("output", output)
    with Study.open(file_path("study", study)) as opened:
        text = report_page(opened)
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidSettings(f"cannot write the report to {str(path)!r}: {error}") from error
    return path


def _candidates(n: int, omitted: int) -> Markup:
    """The frame of the table, which the page's script fills."""
    more = f" {omitted:,} more were evaluated, of which the study keeps a digest only." if omitted else ""
    return section(
        "candidates", "Candidates",
        element("p", f"All {n:,} candidates told. A head sorts, a row opens.{more}", class_="quiet"),
        element("noscript", element("p", "The table needs JavaScript.", class_="warning")),
        element("div", id="table", data_keep=True),
    )  # fmt: skip


def _page(title: str, body: Markup, data: dict[str, Any], live: float | None, version: str) -> str:
    style, script = (resources.files(__package__).joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    policy = POLICY.format(style=_digest(style), script=_digest(script), live="" if live is None else
                           " connect-src 'self';")  # fmt: skip
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{title} · searchlib"),
        element("style", Markup(style)),
    ]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    foot = element("footer", element("p", "As of ", element("span", now, id="made"), "."))
    button = element("button", "dark or light", type="button", id="theme")
    inside = [button, body, foot, data_block("data", data), element("script", Markup(script))]
    page = element("html", element("head", head), element("body", inside), lang="en", data_live=live,
                   data_version=version or None)  # fmt: skip
    return f"<!doctype html>\n{page}\n"


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
