"""The command line: ``python -m benchmarks [NAME [--preset …] [--seeds N] [--out DIR] [options of that benchmark]]``.

Without a name it lists what there is. Exit status: 0 done, 2 wrong usage, 3 a claim of this preset does not hold.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.util
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import PRESETS, Table
from searchlib.errors import InvalidSettings

__all__ = ["BENCHMARKS", "main"]

#: Every benchmark by name. Modules are imported when they are run, never to list them.
BENCHMARKS: Mapping[str, str] = {
    "checkpoint_combination": "benchmarks.checkpoint_combination",
    "engine": "benchmarks.engine",
    "eval_subset": "benchmarks.eval_subset",
    "expert_pruning": "benchmarks.expert_pruning",
    "exploration": "benchmarks.exploration",
    "mixed_precision": "benchmarks.mixed_precision",
    "navigation": "benchmarks.navigation",
    "pursuit": "benchmarks.pursuit",
    "quantized_llm": "benchmarks.quantized_llm",
    "scaling": "benchmarks.engine.scaling",
    "solver_schedule": "benchmarks.solver_schedule",
    "sparse_attention": "benchmarks.sparse_attention",
    "speed": "benchmarks.speed",
    "teaching": "benchmarks.teaching",
    "traffic": "benchmarks.traffic",
    "uav_pursuit": "benchmarks.uav_pursuit",
}

#: Search seeds where the command line names no number, and the benchmark has no SEEDS of its own.
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 3, "paper": 5, "full": 3}

#: Libraries that transformers imports, which warn of kernels for other machines and of their own deprecations.
_TALKATIVE = ("torchao", "torch.utils._pytree")

OK, WRONG_USAGE, CLAIM_BROKEN = 0, 2, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in {"-h", "--help"}:
        print(_listing())
        return OK
    name, *options = words
    if name not in BENCHMARKS:
        print(f"there is no benchmark {name!r}, choose one of:\n{_listing()}", file=sys.stderr)
        return WRONG_USAGE
    # OpenMP's threads spin while they wait for each other: with tensors this small and other work on the cores, that
    # made training twenty times slower. Read when torch is loaded; results are the same to the bit.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for library in _TALKATIVE:
        logging.getLogger(library).setLevel(logging.ERROR)
    try:
        module = importlib.import_module(BENCHMARKS[name])
    except ImportError as error:
        print(f"the benchmark {name} cannot be imported: {error}", file=sys.stderr)
        return WRONG_USAGE
    return _run(name, module, options)


def _run(name: str, module: Any, options: list[str]) -> int:
    parser = _parser(name, module)
    try:
        arguments = parser.parse_args(options)
    except SystemExit as stop:  # argparse has printed its help or its complaint
        return OK if stop.code in {0, None} else WRONG_USAGE
    if arguments.seeds is None:
        arguments.seeds = _seeds(module)[arguments.preset]
    start = time.perf_counter()
    try:
        table: Table = module.run(arguments)
    except InvalidSettings as error:
        print(f"{name}: {error}", file=sys.stderr)
        return WRONG_USAGE
    table.seconds = time.perf_counter() - start
    table.print()
    print(f"written to {table.write(arguments.out)}", file=sys.stderr)
    return CLAIM_BROKEN if table.broken_claims else OK


def _parser(name: str, module: Any) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=module.DESCRIPTION)
    parser.add_argument("--preset", choices=PRESETS, default="small", help="seconds, minutes, hours, real weights")
    parser.add_argument("--seeds", type=_positive, metavar="N", help=f"search seeds (by preset: {_seeds(module)})")
    parser.add_argument("--out", type=Path, default=Path("out"), metavar="DIR", help="for NAME.json (%(default)s)")
    module.add_arguments(parser)
    return parser


def _seeds(module: Any) -> dict[str, int]:
    return dict(getattr(module, "SEEDS", SEEDS))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, but is {text!r}")
    return int(text)


def _listing() -> str:
    width = max(map(len, BENCHMARKS))
    lines = [f"  {name:<{width}}  {_description(module)}" for name, module in BENCHMARKS.items()]
    return "\n".join(["usage: python -m benchmarks NAME [--help]", "", *lines])


def _description(module: str) -> str:
    """The module's DESCRIPTION, read from its source: importing all of them would take seconds, or fail."""
    try:
        spec = importlib.util.find_spec(module)
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8")) if spec and spec.origin else None
    except (ImportError, OSError, SyntaxError, ValueError):
        tree = None
    if tree is None:
        return "(not available here)"
    for statement in tree.body:
        target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
        if isinstance(target, ast.Name) and target.id == "DESCRIPTION":
            try:
                return str(ast.literal_eval(statement.value))  # type: ignore[attr-defined]
            except ValueError:
                break
    return "(no description)"


if __name__ == "__main__":
    sys.exit(main())
