"""Reading what somebody else may have written: where it makes no sense, that is said in a sentence."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar, cast

from searchlib.errors import SearchlibError, StudyDamaged

__all__ = ["expected", "reading"]

#: What numpy and json raise on what no study has written.
_SENSELESS = (
    TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, SyntaxError, MemoryError,
)  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")


def reading(method: Callable[P, R]) -> Callable[P, R]:
    """A method of what has a ``path``, which reads that file.

    Raises:
        StudyDamaged: what it finds makes no sense.
    """

    def damaged(study: Any, error: Exception) -> StudyDamaged:
        return StudyDamaged(
            f"{str(study.path)!r} is damaged, or no search has written it: {type(error).__name__} in "
            f"{method.__name__} ({error!s:.100}); go on from another copy, or begin another study"
        )

    @functools.wraps(method)
    def whole(*given: P.args, **named: P.kwargs) -> R:
        try:
            return method(*given, **named)
        except SearchlibError:
            raise
        except _SENSELESS as error:
            raise damaged(given[0], error) from error

    @functools.wraps(method)
    def each(*given: P.args, **named: P.kwargs) -> Iterator[Any]:
        try:
            yield from cast(Iterator[Any], method(*given, **named))
        except SearchlibError:
            raise
        except _SENSELESS as error:
            raise damaged(given[0], error) from error

    return cast(Callable[P, R], each) if inspect.isgeneratorfunction(method) else whole


def expected(holds: bool, otherwise: str) -> None:
    """Say within :func:`reading` that something cannot be."""
    if not holds:
        raise ValueError(otherwise)
