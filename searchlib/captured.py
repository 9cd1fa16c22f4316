"""What a plain function depends on that its fingerprint does not show.

A fingerprint knows a function's name, code, constants, defaults and simple closure values
(:class:`searchlib.FunctionObjective`). A global number, a helper function, an array or a model in a closure may change
while all of these stay.
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

import numpy as np

__all__ = ["captured"]

_SIMPLE = str | bytes | int | float | bool | None


def captured(function: Any) -> tuple[str, ...]:
    """Names (with their types) of what ``function`` uses and a fingerprint of its code does not contain.

    Modules, builtins, and functions and classes of other packages are taken to be what their names say.

    Example:
        >>> weights = [1.0, 2.0]
        >>> captured(lambda x: x @ weights), captured(lambda x: abs(x) + 1)
        (('weights (list)',), ())
    """
    return tuple(dict.fromkeys(_captured(function)))


def _captured(function: Any) -> Iterator[str]:
    if isinstance(function, functools.partial):
        yield from _captured(function.func)
        for name, value in [*enumerate(function.args), *function.keywords.items()]:
            if not _shown(value):
                yield f"argument {name} ({type(value).__name__})"
        return
    if not isinstance(function, types.FunctionType):
        if not isinstance(function, types.BuiltinFunctionType | type):
            yield f"{type(function).__name__} object"
        return
    for value in [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]:
        if not _shown(value):
            yield f"a default ({type(value).__name__})"
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        value = _content(cell)
        if not _shown(value) and not _named(value, function):
            yield f"{name} ({type(value).__name__})"
    for name in _globals(function.__code__):
        if name in function.__globals__:
            value = function.__globals__[name]
            if not _named(value, function):
                yield f"{name} ({type(value).__name__})"


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _globals(code: types.CodeType) -> Iterator[str]:
    """Names of the globals that this code, or what is defined inside of it, reads."""
    import dis

    yield from (step.argval for step in dis.get_instructions(code) if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"))
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _globals(inner)


def _shown(value: Any) -> bool:
    """Whether a fingerprint shows a closure value or an argument whole."""
    if isinstance(value, tuple | list):
        return all(map(_shown, value))
    return isinstance(value, _SIMPLE | types.ModuleType)


def _named(value: Any, function: types.FunctionType) -> bool:
    """Whether a name says it all: a module, or a function or class of another package."""
    if isinstance(value, types.ModuleType):
        return True
    if not (inspect.isroutine(value) or isinstance(value, type | np.ufunc)):
        return False
    home = getattr(value, "__module__", None) or "builtins"
    return bool(home.partition(".")[0] != function.__module__.partition(".")[0])
