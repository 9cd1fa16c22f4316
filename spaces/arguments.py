"""Checks of constructor arguments: what cannot be meant is refused with its value."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from searchlib.arguments import shown
from searchlib.errors import InvalidSettings

__all__ = ["flag", "fraction", "positive", "real", "whole"]


def whole(name: str, value: Any, *, low: int = 1, high: int = 2**31 - 1) -> int:
    """``value`` as an int within ``low <= value <= high``; a bool is not a number.

    Raises:
        InvalidSettings: not a whole number, or out of range.
    """
    try:
        number = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = None
    if number is None or not low <= number <= high:
        raise InvalidSettings(f"{name} must be a whole number from {low} to {high}, but got ({name}={shown(value)})")
    return number


def real(name: str, value: Any) -> float:
    """``value`` as a finite float; a bool is not a number.

    Raises:
        InvalidSettings: not a finite number.
    """
    other = isinstance(value, str | bytes | bool | np.bool_ | np.complexfloating)
    try:
        number = math.nan if other or (isinstance(value, np.ndarray) and value.ndim) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise InvalidSettings(f"{name} must be a finite number, but got ({name}={shown(value)})")
    return number


def positive(name: str, value: Any) -> float:
    """``value`` as a finite float greater than 0.

    Raises:
        InvalidSettings: not such a number.
    """
    number = real(name, value)
    if number <= 0:
        raise InvalidSettings(f"{name} must be greater than 0, but got ({name}={shown(value)})")
    return number


def fraction(name: str, value: Any, *, zero: bool = False) -> float:
    """``value`` as a probability in (0, 1], or in [0, 1] with ``zero``.

    Raises:
        InvalidSettings: not such a number.
    """
    number = real(name, value)
    if number < 0 or number > 1 or (number == 0 and not zero):
        bounds = "[0, 1]" if zero else "(0, 1]"
        raise InvalidSettings(f"{name} must be a probability in {bounds}, but got ({name}={shown(value)})")
    return number


def flag(name: str, value: Any) -> bool:
    """``value``, which must be True or False.

    Raises:
        InvalidSettings: anything else.
    """
    if not isinstance(value, bool):
        raise InvalidSettings(f"{name} must be True or False, but got ({name}={shown(value)})")
    return value
