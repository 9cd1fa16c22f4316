"""The command line: ``python -m searchlib --help``."""

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import dataclasses
import functools
import importlib.util
import inspect
import json
import sys
import traceback
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import searchlib.spaces as spaces  # so that a study's space is known by its name
from searchlib import algorithms
from searchlib.algorithms import Algorithm, Status
from searchlib.budget import Budget
from searchlib.case_source import CaseSource, FreshCases
from searchlib.curriculum import Curriculum, Ladder
from searchlib.errors import InvalidSettings, SearchlibError, StudyDamaged
from searchlib.history import History
from searchlib.loop import Search
from searchlib.objective import Objective
from searchlib.raced_rows import CaseRacing
from searchlib.result import Result
from searchlib.space import Space
from searchlib.study import GIVEN_SEEDS, Study
from searchlib.task_archive import TaskArchive

#: The settings that a study writes as ``repr``; read back with these names and nothing else.
_CONSTRUCTORS: dict[str, Any] = {
    "Auto": algorithms.Auto,
    "Beam": algorithms.Beam,
    "Budget": Budget,
    "CMAES": algorithms.CMAES,
    "CaseRacing": CaseRacing,
    "CatCMAwM": algorithms.CatCMAwM,
    "Curriculum": Curriculum,
    "EstimationOfDistribution": algorithms.EstimationOfDistribution,
    "Evolution": algorithms.Evolution,
    "EvolutionStrategy": algorithms.EvolutionStrategy,
    "ExactAllocation": algorithms.ExactAllocation,
    "FreshCases": FreshCases,
    "GaussianProcess": algorithms.GaussianProcess,
    "HingeRanker": algorithms.HingeRanker,
    "Ladder": Ladder,
    "LocalSearch": algorithms.LocalSearch,
    "Nevergrad": algorithms.Nevergrad,
    "Pool": algorithms.Pool,
    "GaussNewton": algorithms.GaussNewton,
    "NSGA2": algorithms.NSGA2,
    "NSGA3": algorithms.NSGA3,
    "OneAtATime": algorithms.OneAtATime,
    "OnePlusOneES": algorithms.OnePlusOneES,
    "Portfolio": algorithms.Portfolio,
    "ProbedAllocation": algorithms.ProbedAllocation,
    "PredictorGuided": algorithms.PredictorGuided,
    "QuasiRandom": algorithms.QuasiRandom,
    "RandomSearch": algorithms.RandomSearch,
    "ScikitPredictor": algorithms.ScikitPredictor,
    "ShrinkingPool": algorithms.ShrinkingPool,
    "Stages": algorithms.Stages,
    "TaskArchive": TaskArchive,
}

_EXAMPLES = """examples:
  python -m searchlib list                               spaces and algorithms
  python -m searchlib show mixtral.db                    what a study has found so far
  python -m searchlib resume mixtral.db --objective prune.py:make
  python -m searchlib export mixtral.db --csv history.csv
"""


class _WrongObjective(InvalidSettings):
    """What ``--objective`` names cannot be used."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status (0 fine, 1 a search or study problem, 2 wrong usage)."""
    parser = argparse.ArgumentParser(
        "searchlib", epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter, description=main.__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="list the spaces and algorithms of this installation")
    listing.set_defaults(run=_list)
    show = commands.add_parser("show", help="say what a study holds")
    show.add_argument("study", type=Path)
    show.add_argument("--json", action="store_true", help="as one JSON object")
    show.set_defaults(run=_show)
    resume = commands.add_parser("resume", help="go on with a study")
    resume.add_argument("study", type=Path)
    what = "a function in a file of yours that returns the objective, or (objective, algorithm)"
    resume.add_argument("--objective", required=True, metavar="FILE.py:NAME", help=what)
    resume.add_argument("--budget", type=int, help="evaluations in all; by default what the study was started with")
    resume.add_argument("--workers", type=int, default=1)
    resume.set_defaults(run=_resume)
    export = commands.add_parser("export", help="write a study's history as a table")
    export.add_argument("study", type=Path)
    target = export.add_mutually_exclusive_group(required=True)
    target.add_argument("--csv", type=Path, metavar="FILE", help="'-' for standard output")
    target.add_argument("--json", type=Path, metavar="FILE", help="'-' for standard output")
    export.set_defaults(run=_export)
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except SearchlibError as error:
        print(f"searchlib: {error}", file=sys.stderr)
        return 2 if isinstance(error, _WrongObjective) else 1
    except BrokenPipeError:
        return 0
    return 0


def _list(options: argparse.Namespace) -> None:
    del options
    print("algorithms (searchlib.…)")
    for name, kind in _CONSTRUCTORS.items():
        if issubclass(kind, Algorithm):
            print(f"  {name:<26}{_first_line(kind)}")
    print("spaces (searchlib.spaces.…)")
    for name in spaces.__all__:
        kind = getattr(spaces, name)
        if isinstance(kind, type) and issubclass(kind, Space):
            print(f"  {name:<26}{_first_line(kind)}")


def _show(options: argparse.Namespace) -> None:
    with Study.open(options.study) as study:
        result = study.result()
        summary = _summary(study, result)
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    del summary["front"]
    for name, value in summary.items():
        print(f"{name:<12}{value if not isinstance(value, dict | list) else json.dumps(value)}")
    if result.front is not None:
        print(result.front)


def _resume(options: argparse.Namespace) -> None:
    objective = _load(options.objective)
    with Study.open(options.study) as study:
        settings, space = study.settings, study.space
        given = study.read_array(GIVEN_SEEDS)
    if given is None:
        given = np.array(settings["given_seeds"], space.dtype)
    algorithm = None
    if isinstance(objective, tuple):  # an algorithm of the user's own comes along, since its name is not imported
        objective, algorithm = objective
    plain = not isinstance(objective, Objective)
    run = Search(
        objective,
        _rebuilt(settings["algorithm"], Algorithm) if algorithm is None else algorithm,
        space=space if plain else None,
        direction=_direction(settings) if plain else None,
        batched=plain and settings["objective"].get("batched", False),
        budget=_rebuilt(settings["budget"], Budget) if options.budget is None else options.budget,
        seed=settings["seed"],
        seeds=[space.decode(row) for row in given],
        threads=settings["threads"],
        batch_size=settings["batch_size"] if settings["batch_given"] else None,
        racing=_rebuilt_or_none(settings.get("racing"), CaseRacing),
        cases=_rebuilt_or_none(settings.get("case_source"), CaseSource),
        shortlist=settings["shortlist"],
        choose=settings.get("choose"),
        study=options.study,
        workers=options.workers,
    )
    with contextlib.closing(run), run:
        for _ in run:
            pass
        print(run.result())


def _export(options: argparse.Namespace) -> None:
    with Study.open(options.study) as study:
        rows = _history_rows(study.history())
    path = options.csv or options.json
    console = contextlib.nullcontext(sys.stdout)
    with console if str(path) == "-" else path.open("w", newline="", encoding="utf-8") as stream:
        if options.json:
            json.dump(rows, stream, indent=1)
            stream.write("\n")
        else:
            writer = csv.DictWriter(stream, list(rows[0]) if rows else ["id"])
            writer.writeheader()
            for row in rows:
                writer.writerow({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()})


def _summary(study: Study, result: Result) -> dict[str, Any]:
    settings = study.settings
    values = result.history.values[:, 0]
    maximize = np.atleast_1d(settings["direction"])[0] == "maximize"
    best = (np.fmax if maximize else np.fmin).reduce(values, initial=np.nan)
    named = ("objective", "space", "algorithm", "budget", "seed", "versions")
    return {
        "study": str(study.path),
        **{name: settings[name] for name in named},
        "evaluations": result.history.evaluations,
        "told": len(result.history),
        "failed": result.history.failures,
        "seconds": round(result.seconds, 3),
        "best": None if np.isnan(best) else float(best),
        "outcome": result.outcome.value,
        "winner": _plain(result.best),
        "value": None if np.isnan(result.value) else result.value,
        "holdout": None if result.holdout is None else result.holdout.to_json(),
        "front": None if result.front is None else result.front.to_json(),
    }


def _history_rows(history: History) -> list[dict[str, Any]]:
    """The history as plain rows, one per candidate told."""
    columns = (history.ids, history.batch, history.status, history.values, history.secondary, history.fresh)
    return [
        {
            "id": int(index),
            "batch": int(batch),
            "status": Status(status).name,
            "value": None if np.isnan(value).any() else float(value[0]) if len(value) == 1 else value.tolist(),
            "secondary": None if np.isnan(secondary) else float(secondary),
            "fresh": bool(fresh),
            "candidate": None if row is None else _plain(history.space.decode(row)),
            "genes": None if row is None else row.tolist(),
            "error": error,
        }
        for index, batch, status, value, secondary, fresh, row, error in zip(
            *columns, history.rows(), history.errors, strict=True
        )
    ]


def _load(target: str) -> Any:
    """Call ``NAME`` of the user's own ``FILE.py``: an objective, a plain function, or one of them with an algorithm."""
    path, _, name = target.rpartition(":")
    if not name or not path.endswith(".py") or not Path(path).is_file():
        raise _WrongObjective(f"--objective must be FILE.py:NAME with an existing file, but is {target!r}")
    make = getattr(_imported(path), name, None)
    if not callable(make):
        raise _WrongObjective(f"{path!r} has no function {name!r} that makes the objective")
    needed = _needed(make)
    if needed:
        raise _WrongObjective(
            f"{target!r} is called without arguments, but needs {', '.join(needed)}; name a function that needs none "
            f"and returns the objective"
        )
    made = _of_the_user(make, path, f"{target!r} made no objective")
    objective, *algorithm = made if isinstance(made, tuple) and len(made) == 2 else (made,)
    plain = callable(objective) and not isinstance(objective, type)
    if not (plain or isinstance(objective, Objective)) or not all(isinstance(one, Algorithm) for one in algorithm):
        raise _WrongObjective(
            f"{target!r} must return an Objective, a function to search, or (objective, algorithm), "
            f"but returned {made!r:.200}"
        )
    return made


def _imported(path: str) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses and pickles look for it
    sys.path.insert(0, str(Path(path).resolve().parent))  # as if it were run as a script
    _of_the_user(functools.partial(spec.loader.exec_module, module), path, f"{path!r} cannot be imported")
    return module


def _needed(make: Callable[..., Any]) -> list[str]:
    """Names of the arguments that a call must have; none where Python cannot tell."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return []
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in optional]


def _of_the_user(call: Callable[[], Any], path: str, failed: str) -> Any:
    """Call the user's own code; what it raises becomes one sentence with the last line of ``path`` that was reached."""
    try:
        return call()
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if Path(frame.filename).resolve() == Path(path).resolve()]
        line = f" (line {lines[-1]})" if lines else ""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise _WrongObjective(f"{failed}{line}: {reason:.500}") from error


def _rebuilt(text: str, kind: type[Any]) -> Any:
    """Rebuild settings from their ``repr``: constructor calls of known names with literal arguments, nothing else."""
    def build(node: ast.expr) -> Any:
        if isinstance(node, ast.Name) and node.id in ("inf", "nan"):
            return float(node.id)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CONSTRUCTORS:
            named = {keyword.arg: build(keyword.value) for keyword in node.keywords if keyword.arg}
            return _CONSTRUCTORS[node.func.id](*map(build, node.args), **named)
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(map(build, node.elts)) if isinstance(node, ast.Tuple) else list(map(build, node.elts))
        return ast.literal_eval(node)

    try:
        value = build(ast.parse(text, mode="eval").body)
    except (SyntaxError, ValueError, TypeError) as error:
        raise StudyDamaged(
            f"the study's settings cannot be rebuilt from {text!r:.200}; if the algorithm is your own, let the "
            f"function given as --objective return (objective, algorithm)"
        ) from error
    if not isinstance(value, kind):
        raise StudyDamaged(f"the study should hold a {kind.__name__}, but holds {text!r:.200}")
    return value


def _rebuilt_or_none(text: str | None, kind: type[Any]) -> Any:
    return None if text is None else _rebuilt(text, kind)


def _direction(settings: dict[str, Any]) -> Any:
    direction = settings["direction"]
    return direction if isinstance(direction, str) else tuple(direction)


def _plain(value: Any) -> Any:
    """A typed value as JSON."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def _first_line(kind: type[Any]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
