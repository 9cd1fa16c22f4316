"""An objective of the user's own, by file and name: ``prune.py:make``."""

from __future__ import annotations

import functools
import importlib.util
import inspect
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from searchlib.algorithms.algorithm import Algorithm
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective

__all__ = ["WrongObjective", "named_objective"]


class WrongObjective(InvalidSettings):
    """What the command line names as the objective cannot be used."""


def named_objective(target: str) -> Any:
    """Call ``NAME`` of the user's own ``FILE.py``: an objective, a plain function, or one of them with an algorithm."""
    path, _, name = target.rpartition(":")
    if not name or not path.endswith(".py") or not Path(path).is_file():
        raise WrongObjective(f"the objective must be FILE.py:NAME with an existing file, but is {target!r}")
    make = getattr(_imported(path), name, None)
    if not callable(make):
        raise WrongObjective(f"{path!r} has no function {name!r} that makes the objective")
    needed = _needed(make)
    if needed:
        raise WrongObjective(
            f"{target!r} is called without arguments, but needs {', '.join(needed)}; name a function that needs none "
            f"and returns the objective"
        )
    made = _of_the_user(make, path, f"{target!r} made no objective")
    objective, *algorithm = made if isinstance(made, tuple) and len(made) == 2 else (made,)
    plain = callable(objective) and not isinstance(objective, type)
    if not (plain or isinstance(objective, Objective)) or not all(isinstance(one, Algorithm) for one in algorithm):
        raise WrongObjective(
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
        raise WrongObjective(f"{failed}{line}: {reason:.500}") from error
