"""Checking arguments that are numbers."""

from __future__ import annotations

import operator
from typing import Any

from searchlib.errors import InvalidSettings

__all__ = ["whole_number"]


def whole_number(name: str, value: Any, least: int) -> int:
    """``value`` as an int of at least ``least``; numpy's whole numbers count, bools do not.

    Raises:
        InvalidSettings: it is none; the message names the argument and the value.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        raise InvalidSettings(f"{name} must be a whole number of at least {least}, but is {value!r}")
    return number
