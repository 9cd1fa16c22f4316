"""An operator of a space that fails says whether what it was given is to blame.

Operators run in the innermost loops, so they take their arguments as they come. Only where one raises are the arguments
looked at: what does not belong to the space is refused with a sentence, and otherwise the error is the operator's own.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import instance, numbers, shown, whole_number
from searchlib.errors import InvalidCandidate, InvalidSettings

__all__ = ["OPERATORS", "as_array", "blaming"]

#: The operators whose arguments are looked at.
OPERATORS = (
    "sample", "mutate", "crossover", "repair", "canonical", "contains", "encode", "decode", "features", "distance",
    "from_latent", "to_latent", "embed", "restrict", "sample_from",
)  # fmt: skip
#: The most candidates that can be drawn at once.
_MOST = 2**31 - 1


def blaming(operator: Callable[..., Any]) -> Callable[..., Any]:
    """The operator, which raises :class:`~searchlib.errors.InvalidCandidate` where its arguments made it fail."""

    @functools.wraps(operator)
    def checked(space: Any, *args: Any, **named: Any) -> Any:
        try:
            return operator(space, *args, **named)
        except Exception as error:
            _blame(space, operator, args, named, error)
            raise

    return checked


def _blame(space: Any, operator: Callable[..., Any], args: Any, named: Any, error: Exception) -> None:
    """Refuse the first argument that does not belong to the space.

    Raises:
        InvalidSettings: the generator, or how many.
        InvalidCandidate: anything else.
    """
    try:
        bound = inspect.signature(operator).bind(space, *args, **named).arguments
    except TypeError:  # too few or too many arguments: Python's own message says so
        return
    place = f"{operator.__name__} of {type(space).__name__}"
    for name, value in list(bound.items())[1:]:
        try:
            _check(space, operator.__name__, f"{name} in {place}", name, value)
        except InvalidCandidate as refusal:
            raise refusal from error
        except InvalidSettings as refusal:
            if name in ("rng", "n"):
                raise refusal from error
            raise InvalidCandidate(str(refusal)) from error
    if "second" in bound and len(bound["first"]) != len(bound["second"]):
        counts = f"{len(bound['first'])} and {len(bound['second'])}"
        raise InvalidCandidate(f"first and second in {place} must have as many rows, but have {counts}") from error


def _check(space: Any, operator: str, what: str, name: str, value: Any) -> None:
    if name == "rng":
        instance(what, value, np.random.Generator, "a numpy Generator")
    elif name == "n":
        whole_number(what, value, 0, _MOST)
    elif name == "values":
        scalar = isinstance(value, str | bytes) or (isinstance(value, np.ndarray) and not value.ndim)
        if scalar or not isinstance(value, Sequence | np.ndarray):
            raise InvalidCandidate(f"{what} must be a list of values, but is {shown(value)}")
    elif name == "pool":
        items = numbers(what, value, np.int64)
        if items.ndim != 1 or len(items) < space.dimension or not ((items >= 0) & (items < space.item_count)).all():
            raise InvalidCandidate(f"{what} must be items of {space!r:.200}, enough for one, but is {shown(value)}")
    elif name == "latent" or operator in ("repair", "contains"):
        width = space.latent_dimension if name == "latent" else space.dimension
        _check_table(what, value, width, floats=name == "latent")
    else:
        own = space.first if operator == "embed" else space
        _check_array(what, value)
        own.check(value[None] if name == "row" else value, name=what)
        if value.dtype != own.dtype:
            raise InvalidCandidate(f"{what} must hold {own.dtype} genes, but holds {value.dtype}: {shown(value)}")


def _check_array(what: str, value: Any) -> None:
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray):
        raise InvalidCandidate(f"{what} must be an array, but is {shown(value)}; np.asarray(…) makes one")


def _check_table(what: str, value: Any, width: int, floats: bool) -> None:
    _check_array(what, value)
    table = numbers(what, value)
    if table.ndim != 2 or table.shape[1] != width:
        raise InvalidCandidate(f"{what} must have shape (n, {width}), but has shape {table.shape}: {shown(value)}")
    if not np.isfinite(table).all() or (floats and value.dtype.kind != "f"):
        raise InvalidCandidate(f"{what} must be finite{' floats' if floats else ''}, but is {shown(value)}")


def as_array(name: str, given: Any) -> NDArray[Any]:
    """What numpy makes of it.

    Raises:
        InvalidCandidate: nothing.
    """
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:
        raise InvalidCandidate(f"{name} must be an array of rows, but is {shown(given)}") from error
