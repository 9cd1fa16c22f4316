"""The command line: ``python -m searchlib --help``."""

from __future__ import annotations

import argparse
import contextlib
import csv
import inspect
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import numpy as np

import searchlib.spaces as spaces  # so that a study's space is known by its name
from searchlib import exchange
from searchlib.algorithms import Algorithm
from searchlib.budget import Budget
from searchlib.case_source import CaseSource
from searchlib.errors import InvalidSettings, SearchlibError
from searchlib.exchange.tables import history_rows, plain, to_parquet
from searchlib.loop import Search
from searchlib.migration import migrate
from searchlib.named_objective import WrongObjective, named_objective
from searchlib.objective import Objective
from searchlib.raced_rows import CaseRacing
from searchlib.rebuilt_settings import CONSTRUCTORS, rebuilt, rebuilt_or_none
from searchlib.repair import repaired
from searchlib.report.page import write_report
from searchlib.report.watch import watch
from searchlib.result import Outcome, Result
from searchlib.space import Space
from searchlib.study import GIVEN_SEEDS, Study
from searchlib.whole_search import completed

_EXAMPLES = """examples:
  python -m searchlib list                               spaces and algorithms
  python -m searchlib run prune.py:make --budget 400 --study mixtral.db
  python -m searchlib show mixtral.db                    what a study has found so far
  python -m searchlib resume mixtral.db --objective prune.py:make
  python -m searchlib export mixtral.db --csv history.csv
  python -m searchlib export mixtral.db --optuna trials.db   then: optuna-dashboard sqlite:///trials.db
  python -m searchlib report mixtral.db -o report.html   one web page that needs no network
  python -m searchlib watch mixtral.db                   the same page, live
  python -m searchlib migrate mixtral.db                 bring a study of an older searchlib to the present format
  python -m searchlib repair mixtral.db -o sound.db      what is sound of a damaged study, to go on from
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Search from the command line, and read what searches have found.

    The exit status is 0 when all is well, 1 for a problem of a search or a study, 2 for wrong usage, and 130 for a
    search that was interrupted (its best so far is printed).
    """
    options = _parser().parse_args(arguments)
    try:
        outcome = options.run(options)
    except SearchlibError as error:
        print(f"searchlib: {error}", file=sys.stderr)
        return 2 if isinstance(error, InvalidSettings) else 1
    except BrokenPipeError:
        return 0
    return 130 if outcome is Outcome.INTERRUPTED else 0


def _parser() -> argparse.ArgumentParser:
    what = inspect.getdoc(main)
    parser = argparse.ArgumentParser(
        "searchlib", description=what, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _add_completion(parser)
    listing = commands.add_parser("list", help="list the spaces and algorithms of this installation")
    listing.add_argument("--json", action="store_true", help="as one JSON object")
    listing.set_defaults(run=_list)
    show = commands.add_parser("show", help="say what a study holds")
    show.add_argument("study", type=Path)
    show.add_argument("--json", action="store_true", help="as one JSON object")
    show.set_defaults(run=_show)
    what = "a function in a file of yours that returns the objective, or (objective, algorithm)"
    begin = commands.add_parser("run", help="search with an objective of your own")
    begin.add_argument("objective", metavar="FILE.py:NAME", help=what)
    begin.add_argument("--budget", type=int, metavar="N", help="evaluations")
    begin.add_argument("--seconds", type=float, metavar="S", help="the most time that it may take")
    begin.add_argument("--target", type=float, metavar="VALUE", help="stop where it is reached")
    begin.add_argument("--study", type=Path, help="file to keep the search in; where it is there, the search goes on")
    begin.add_argument("--seed", type=int, default=0)
    begin.add_argument("--timeout", type=float, metavar="S", help="seconds for a candidate (with --workers)")
    begin.add_argument("--batch-size", type=int, metavar="N", help="the most candidates that are asked for at once")
    begin.add_argument("--asynchronous", action="store_true", help="for evaluation times that differ")
    begin.set_defaults(run=_run)
    resume = commands.add_parser("resume", help="go on with a study")
    resume.add_argument("study", type=Path)
    resume.add_argument("--objective", required=True, metavar="FILE.py:NAME", help=what)
    resume.add_argument("--budget", type=int, help="evaluations in all; by default what the study was started with")
    for searching in (begin, resume):
        searching.add_argument("--workers", type=int, default=1, metavar="N", help="worker processes")
        searching.add_argument("--quiet", action="store_true", help="without a line that says how far it is")
        searching.add_argument("--json", action="store_true", help="what was found, as one JSON object")
    resume.set_defaults(run=_resume)
    export = commands.add_parser("export", help="write a study's history as a table")
    export.add_argument("study", type=Path)
    target = export.add_mutually_exclusive_group(required=True)
    target.add_argument("--csv", type=Path, metavar="FILE", help="'-' for standard output")
    target.add_argument("--json", type=Path, metavar="FILE", help="'-' for standard output")
    target.add_argument("--parquet", type=Path, metavar="FILE", help="with every number to the last bit")
    target.add_argument("--optuna", metavar="URL-OR-FILE", help="a storage that optuna-dashboard opens")
    export.set_defaults(run=_export)
    report = commands.add_parser("report", help="write a study as one web page that needs no network")
    report.add_argument("study", type=Path)
    report.add_argument("-o", "--output", type=Path, default=Path("report.html"), metavar="FILE")
    report.set_defaults(run=_report)
    watching = commands.add_parser("watch", help="serve the same page to this machine while a search runs")
    watching.add_argument("study", type=Path)
    watching.add_argument("--port", type=int, default=0, help="by default any free one")
    watching.set_defaults(run=_watch)
    migrating = commands.add_parser("migrate", help="bring a study of an older version to the present format")
    migrating.add_argument("study", type=Path, help="the file as it is now is kept beside it")
    migrating.add_argument("--json", action="store_true", help="as one JSON object")
    migrating.set_defaults(run=_migrate)
    repair = commands.add_parser("repair", help="write what is sound of a damaged study into another file")
    repair.add_argument("study", type=Path)
    repair.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="that is not there yet")
    repair.add_argument("--json", action="store_true", help="as one JSON object")
    repair.set_defaults(run=_repair)
    return parser


def _add_completion(parser: argparse.ArgumentParser) -> None:
    """``--print-completion bash|zsh|tcsh``, where shtab is installed."""
    try:
        import shtab
    except ImportError:
        return
    shtab.add_argument_to(parser, help="print what a shell needs to complete words by Tab")


def _list(options: argparse.Namespace) -> None:
    found = {
        "algorithms": {name: kind for name, kind in CONSTRUCTORS.items() if issubclass(kind, Algorithm)},
        "spaces": {name: kind for name in spaces.__all__ if _is_space(kind := getattr(spaces, name))},
    }
    lines = {what: {name: _first_line(kind) for name, kind in kinds.items()} for what, kinds in found.items()}
    if options.json:
        print(json.dumps(lines, indent=2))
        return
    for what, where in (("algorithms", "searchlib"), ("spaces", "searchlib.spaces")):
        print(f"{what} ({where}.…)")
        for name, line in lines[what].items():
            print(f"  {name:<26}{line}")


def _is_space(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Space)


def _show(options: argparse.Namespace) -> None:
    with Study.open(options.study) as study:
        result = study.result()
        summary = _summary(study, result)
    if options.json:
        print(json.dumps(summary, indent=2))
        return
    del summary["front"], summary["holdout"]
    for name, value in summary.items():
        text = json.dumps(value) if isinstance(value, dict | list) else str(value)
        print(f"{name:<12}{text}{_MEANING.get(name, '') if value is not None else ''}")
    if result.front is not None:
        print(result.front)
    if result.holdout is not None:
        print(result.holdout.table(() if result.front is None else result.front.names))


#: What two of the values are, for people.
_MEANING = {"best": " (of all candidates, on the SEARCH cases)", "value": " (the winner's, which was chosen for it)"}


def _run(options: argparse.Namespace) -> Outcome:
    made = named_objective(options.objective)
    objective, algorithm = made if isinstance(made, tuple) else (made, None)
    if not isinstance(objective, Objective):
        raise WrongObjective(
            f"{options.objective!r} returned a plain function, of which nobody knows the space; return "
            f"searchlib.FunctionObjective(function, space) instead"
        )
    budget = Budget(evaluations=options.budget, seconds=options.seconds, target=options.target)
    run = Search(
        objective, algorithm, budget=budget, seed=options.seed, study=options.study, workers=options.workers,
        timeout=options.timeout, batch_size=options.batch_size, asynchronous=options.asynchronous,
    )  # fmt: skip
    return _finished(run, options)


def _finished(run: Search, options: argparse.Namespace) -> Outcome:
    """Go through a search and print what it has found."""
    shown = False if options.quiet or options.json else None
    with contextlib.closing(run):
        result = completed(run, shown)
    print(json.dumps(_found(result), indent=2) if options.json else result)
    return result.outcome


def _resume(options: argparse.Namespace) -> Outcome:
    objective = named_objective(options.objective)
    with Study.open(options.study) as study:
        settings, space = study.settings, study.space
        given, batch_size = study.read_array(GIVEN_SEEDS), _batch_size(study)
    if given is None:
        given = np.array(settings["given_seeds"], space.dtype)
    algorithm, asynchronous = None, bool(settings.get("asynchronous"))
    if isinstance(objective, tuple):  # an algorithm of the user's own comes along, since its name is not imported
        objective, algorithm = objective
    plain = not isinstance(objective, Objective)
    run = Search(
        objective,
        rebuilt(settings["algorithm"], Algorithm) if algorithm is None else algorithm,
        space=space if plain else None,
        direction=_direction(settings) if plain else None,
        batched=plain and settings["objective"].get("batched", False),
        budget=rebuilt(settings["budget"], Budget) if options.budget is None else options.budget,
        seed=settings["seed"],
        seeds=[space.decode(row) for row in given],
        threads=settings["threads"],
        batch_size=None if asynchronous else batch_size,
        asynchronous=asynchronous,
        racing=rebuilt_or_none(settings.get("racing"), CaseRacing),
        cases=rebuilt_or_none(settings.get("case_source"), CaseSource),
        shortlist=settings.get("shortlist"),
        choose=settings.get("choose"),
        study=options.study,
        workers=options.workers,
    )
    return _finished(run, options)


def _batch_size(study: Study) -> int | None:
    """The number that the search was given for a batch, if it was given one; early searches show it by their first."""
    settings, first = study.settings, next(study.batches(), None)
    size: int = settings["batch_size"]
    usual = min(size, settings.get("planned") or size)
    given = settings.get("batch_given", first is not None and first.asked >= usual)
    return size if given else None


def _export(options: argparse.Namespace) -> None:
    if options.parquet is not None:
        print(to_parquet(options.study, options.parquet))
        return
    if options.optuna is not None:
        there = exchange.to_optuna(options.study, options.optuna)
        print(f"{len(there.get_trials(deepcopy=False))} trials in the Optuna study {there.study_name!r}")
        return
    with Study.open(options.study) as study:
        rows = history_rows(study.history())
    with _text_target(options.csv or options.json, options.study) as stream:
        if options.json:
            json.dump(rows, stream, indent=1)
            stream.write("\n")
        else:
            writer = csv.DictWriter(stream, list(rows[0]) if rows else ["id"])
            writer.writeheader()
            for row in rows:
                writer.writerow({k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in row.items()})


@contextlib.contextmanager
def _text_target(path: Path, study: Path) -> Iterator[TextIO]:
    """A file to be written, or the console where it is called ``-``; never the study that is read."""
    if str(path) == "-":
        yield sys.stdout
        return
    if path.exists() and path.samefile(study):
        raise InvalidSettings(f"{str(path)!r} is the study itself; write its table to another file")
    try:
        stream = path.open("w", newline="", encoding="utf-8")
    except OSError as error:
        raise InvalidSettings(f"{str(path)!r} cannot be written: {error.strerror}; its folder must exist") from error
    with stream:
        yield stream


def _report(options: argparse.Namespace) -> None:
    print(write_report(options.study, options.output))


def _watch(options: argparse.Namespace) -> None:
    watch(options.study, port=options.port, tell=lambda url: print(f"{url}  (Ctrl-C ends it)", flush=True))


def _migrate(options: argparse.Namespace) -> None:
    done = migrate(options.study)
    if not options.json:
        print(done)
        return
    kept = None if done.kept is None else str(done.kept)
    print(json.dumps({"study": str(done.study), "old": done.old, "new": done.new, "kept": kept}, indent=2))


def _repair(options: argparse.Namespace) -> None:
    done = repaired(options.study, options.output)
    print(json.dumps({**asdict(done), "path": str(done.path)}, indent=2) if options.json else done)


def _summary(study: Study, result: Result) -> dict[str, Any]:
    settings = study.settings
    values = result.history.values[:, 0]
    maximize = np.atleast_1d(settings["direction"])[0] == "maximize"
    best = (np.fmax if maximize else np.fmin).reduce(values, initial=np.nan)
    named = ("objective", "space", "algorithm", "budget", "seed", "versions")
    return {
        "study": str(study.path),
        **{name: settings[name] for name in named},
        "best": None if np.isnan(best) else float(best),
        **_found(result),
    }


def _found(result: Result) -> dict[str, Any]:
    """What a search has found, as JSON values."""
    return {
        "evaluations": result.history.evaluations,
        "told": len(result.history),
        "failed": result.history.failures,
        "seconds": round(result.seconds, 3),
        "outcome": result.outcome.value,
        "winner": plain(result.best),
        "value": None if np.isnan(result.value) else result.value,
        "holdout": None if result.holdout is None else result.holdout.to_json(),
        "front": None if result.front is None else result.front.to_json(),
    }


def _direction(settings: dict[str, Any]) -> Any:
    direction = settings["direction"]
    return direction if isinstance(direction, str) else tuple(direction)


def _first_line(kind: type[Any]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
