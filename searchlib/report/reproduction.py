"""The commands that make a search again, or go on with it.

A study may be a stranger's: what it says about itself is quoted where it could do more than construct settings.
"""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Mapping
from typing import Any

from searchlib.report.markup import Markup, element
from searchlib.report.page_sections import section

__all__ = ["reproduction", "same_command", "same_search", "same_versions"]

_PACKAGES = ("numpy", "scipy", "joblib")
#: Options of ``python -m searchlib run`` for the limits of a budget.
_LIMITS = {"evaluations": "--budget", "seconds": "--seconds", "target": "--target"}
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+!]*")
#: What settings are written with: calls of constructors, and literals.
_PLAIN = (ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.UnaryOp, ast.USub, ast.Load, ast.keyword, ast.Expression)


def same_search(name: str, settings: Mapping[str, Any]) -> str:
    """The call that makes the search of a study again, as Python text.

    Example:
        >>> print(same_search("a.db", {"algorithm": "Evolution()", "budget": "Budget(evaluations=9)", "seed": 1}))
        search(
            objective,
            algorithm=Evolution(),
            budget=Budget(evaluations=9),
            seed=1,
            study='again-a.db',
        )
    """
    given = {
        **{key: _expression(settings.get(key)) for key in ("algorithm", "budget", "racing")},
        "cases": _expression(settings.get("case_source")),
        **{key: _repr(settings.get(key)) for key in ("seed", "threads", "shortlist")},
        "batch_size": _repr(settings.get("batch_size")) if settings.get("batch_given") is True else None,
        "asynchronous": "True" if settings.get("asynchronous") else None,
        "study": repr(f"again-{name}"),
    }
    if settings.get("asynchronous"):
        given["batch_size"] = None
    order = ("algorithm", "budget", "seed", "threads", "batch_size", "asynchronous", "racing", "cases", "shortlist",
             "study")  # fmt: skip
    return "search(\n    objective,\n" + "".join(f"    {key}={given[key]},\n" for key in order if given[key]) + ")"


def same_versions(settings: Mapping[str, Any]) -> str:
    """The command that installs the versions of a study; empty where it names none.

    Example:
        >>> same_versions({"versions": {"python": "3.11.2", "numpy": "2.1", "scipy": "1 && reboot"}})
        'pip install numpy==2.1  # Python 3.11.2'
    """
    versions = settings.get("versions")
    known = {
        package: version for package, version in (versions.items() if isinstance(versions, dict) else ())
        if isinstance(version, str) and _VERSION.fullmatch(version)
    }  # fmt: skip
    pinned = [f"{package}=={known[package]}" for package in _PACKAGES if package in known]
    python = f"  # Python {known['python']}" if "python" in known else ""
    return f"pip install {' '.join(pinned)}{python}" if pinned else ""


def same_command(name: str, settings: Mapping[str, Any]) -> str:
    """The command that makes the search of a study again; empty where the command line has no option for it.

    Example:
        >>> same_command("a.db", {"algorithm": "Evolution()", "budget": "Budget(evaluations=9, seconds=60)", "seed": 1})
        'python -m searchlib run FILE.py:NAME --budget 9 --seconds 60 --seed 1 --study again-a.db'
    """
    limits, seed, size = _limits(settings.get("budget")), settings.get("seed"), settings.get("batch_size")
    elsewhere = settings.get("racing") or settings.get("case_source") or settings.get("given_seeds")
    if not limits or elsewhere or settings.get("threads", 1) != 1 or not isinstance(seed, int):
        return ""
    words = ["python -m searchlib run FILE.py:NAME", *limits, f"--seed {seed}"]
    if settings.get("asynchronous"):
        words.append("--asynchronous")
    elif settings.get("batch_given") is True and isinstance(size, int):
        words.append(f"--batch-size {size}")
    return " ".join([*words, f"--study {shlex.quote(f'again-{name}')}"])


def _limits(budget: Any) -> list[str]:
    """A budget as options; empty where there are none for it."""
    text = _expression(budget)
    call = None if text is None else ast.parse(text, mode="eval").body
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id != "Budget" or call.args:
        return []
    found = []
    for given in call.keywords:
        number = _number(given.value)
        if given.arg not in _LIMITS or number is None:
            return []
        found.append(f"{_LIMITS[given.arg]} {number!r}")
    return found


def _number(node: ast.expr) -> int | float | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def reproduction(name: str, settings: Mapping[str, Any]) -> Markup:
    """Both commands as a part of a page."""
    install, seeds, run = same_versions(settings), settings.get("given_seeds"), same_command(name, settings)
    return section(
        "reproduce", "Reproduce",
        _lead(
            "The same search; its history depends on which worker came back first:" if settings.get("asynchronous")
            else "The same history, bit by bit, on the same machine, versions and threads:"
        ),
        _command(same_search(name, settings)),
        _lead("Or on the command line, where NAME is a function in FILE.py that returns (objective, algorithm):")
        if run else None,
        _command(run) if run else None,
        _lead("With the versions that it had:") if install else None,
        _command(install) if install else None,
        _lead("with the seeds= that it was given; they are the first candidates of the table.") if seeds else None,
        _lead("Go on with this study; here NAME may return the objective alone:"),
        _command(f"python -m searchlib resume {shlex.quote(name)} --objective FILE.py:NAME"),
        _lead("This page:"),
        _command(f"python -m searchlib report {shlex.quote(name)} -o report.html"),
    )  # fmt: skip


def _lead(text: str) -> Markup:
    return element("p", text, class_="quiet")


def _command(text: str) -> Markup:
    return element("div", element("pre", element("code", text), tabindex="0"),
                   element("button", "copy", type="button", class_="copy"), class_="command")  # fmt: skip


def _repr(value: Any) -> str | None:
    return None if value is None else repr(value)


def _expression(text: Any) -> str | None:
    """Settings as they are written down where they only construct something; quoted where they are anything else."""
    if text is None:
        return None
    try:
        tree = ast.parse(str(text), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return repr(text)
    return str(text) if all(map(_constructs, ast.walk(tree))) else repr(text)


def _constructs(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name)
    if isinstance(node, ast.Name):
        return node.id in ("inf", "nan") or re.fullmatch(r"[A-Z][A-Za-z0-9]*", node.id) is not None
    return isinstance(node, _PLAIN)
