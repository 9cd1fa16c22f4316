"""Spaces by name: what Product and OneOf are declared with."""

from __future__ import annotations

import keyword
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from searchlib.arguments import shown
from searchlib.errors import InvalidSettings
from searchlib.space import Space

__all__ = ["Named", "array_type", "keywords", "named_spaces"]

Named = tuple[tuple[str, Space], ...]


def named_spaces(argument: str, given: Any, by_keyword: Mapping[str, Any], example: str) -> Named:
    """A mapping or pairs of name and space, then those given by keyword, as pairs.

    Arguments:
        argument: what ``given`` is called.
        given: what came by position.
        by_keyword: what came by keyword.
        example: what could have been meant.

    Raises:
        InvalidSettings: none, one that is not a space, or two of one name.
    """
    pairs = _pairs(argument, given) + tuple(by_keyword.items())
    if not pairs:
        raise InvalidSettings(
            f"{argument} must be at least one space by name, such as {example}, but got {shown(given)}"
        )
    for name, space in pairs:
        if not isinstance(name, str) or not isinstance(space, Space):
            one = f"{shown(name)}: {shown(space)}"
            raise InvalidSettings(f"each of {argument} must be a name and a space, but one is {one}")
    if len(dict(pairs)) < len(pairs):
        raise InvalidSettings(f"names must be distinct, but got {shown([name for name, _ in pairs])}")
    return pairs


def _pairs(argument: str, given: Any) -> Named:
    if isinstance(given, Space):  # Product(parts=Binary(3)) names a part "parts"
        return ((argument, given),)
    try:
        return tuple((name, space) for name, space in (given.items() if isinstance(given, Mapping) else given))
    except (TypeError, ValueError):
        raise InvalidSettings(f"{argument} must be pairs of a name and a space, but got {shown(given)}") from None


def keywords(pairs: Named) -> str:
    """The arguments of a constructor that rebuilds the pairs."""
    if all(name.isidentifier() and not keyword.iskeyword(name) for name, _ in pairs):
        return ", ".join(f"{name}={space!r}" for name, space in pairs)
    return repr(dict(pairs))


def array_type(spaces: Iterable[Space]) -> np.dtype[Any]:
    """What holds the genes of all of them: float64 where any holds floats, and int64 otherwise."""
    return np.dtype(np.float64 if any(space.dtype.kind == "f" for space in spaces) else np.int64)
