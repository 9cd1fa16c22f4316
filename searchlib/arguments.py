"""Checking arguments of every kind: what cannot be meant is refused with its name and its value."""

from __future__ import annotations

import errno
import operator
import os
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings

__all__ = [
    "check_field", "file_path", "flag", "instance", "listed", "numbers", "one_of", "real_number", "shown",
    "whole_number",
]  # fmt: skip

T = TypeVar("T")

#: Characters of a value that a message shows.
_SHOWN = 200
_IN_WORDS = {
    "(0, inf)": "a positive number", "[0, inf)": "a number, 0 or more", "(-inf, inf)": "a finite number",
    "[-inf, inf]": "a number",
}  # fmt: skip
#: As large as seeds drawn by numpy are.
_LARGEST = 2**128 - 1


def shown(value: Any) -> str:
    """The beginning of a value's repr, whatever the value is.

    Example:
        >>> shown("x" * 1000)[-5:], shown(10**5000)
        ('xx...', '<int of more digits than Python writes>')
    """
    try:
        text = repr(value)
    except ValueError:  # whole numbers of more than 4,300 digits, also within collections
        return f"<{type(value).__name__} of more digits than Python writes>"
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def whole_number(name: str, value: Any, least: int, most: int = _LARGEST) -> int:
    """``value`` as an int of at least ``least``, at most ``most``; numpy's whole numbers count, bools do not.

    Raises:
        InvalidSettings: it is none; the message names the argument and the value.
    """
    try:
        whole = None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        whole = None
    if whole is None or not least <= whole <= most:
        bound = f"most {most}" if whole is not None and whole > most else f"least {least}"
        raise InvalidSettings(f"{name} must be a whole number of at {bound}, but is {shown(value)}")
    return whole


def real_number(name: str, value: Any, interval: str = "(-inf, inf)") -> Any:
    """``value``, an int or a float, which must lie in an interval such as ``"(0, 1]"``; numpy's become Python's.

    Raises:
        InvalidSettings: it does not, or is no real number; the message names the argument, interval and value.

    Example:
        >>> real_number("rate", np.float32(0.5), "(0, 1]")
        0.5
    """
    plain = value.item() if isinstance(value, np.floating | np.integer) else value
    low, high = map(float, interval[1:-1].split(","))
    fits = (
        isinstance(plain, int | float)
        and not isinstance(plain, bool)
        and (low < plain if interval[0] == "(" else low <= plain)
        and (plain < high if interval[-1] == ")" else plain <= high)
    )
    if not fits or (isinstance(plain, int) and abs(plain) >= 2**1023):  # no float is that large
        raise InvalidSettings(f"{name} must be {_IN_WORDS.get(interval, f'in {interval}')}, but is {shown(value)}")
    return plain


def numbers(name: str, value: Any, dtype: Any = np.float64) -> NDArray[Any]:
    """``value`` as a new array of real numbers of a type; whole numbers stay what they are, or are refused.

    Raises:
        InvalidSettings: it holds something else; the message names the argument and the value.

    Example:
        >>> numbers("groups", [0, 1.0], np.int64).tolist()
        [0, 1]
    """
    try:
        given = np.asarray(value)
        if given.dtype.kind not in "biuf":
            raise TypeError(given.dtype)
        with np.errstate(invalid="ignore", over="ignore"):
            typed = given.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidSettings(f"{name} must be an array of numbers, but is {shown(value)}") from error
    if typed.dtype.kind in "iu" and not np.array_equal(typed, given):
        raise InvalidSettings(f"{name} must hold whole numbers, but is {shown(value)}")
    return typed


def one_of(name: str, value: T, options: Collection[Any]) -> T:
    """``value``, which must be one of the options, of the same type.

    Raises:
        InvalidSettings: it is none of them; the message lists them.
    """
    if not any(type(value) is type(option) and value == option for option in options):
        listing = " or ".join(map(repr, options)) if len(options) == 2 else f"one of {tuple(options)}"
        raise InvalidSettings(f"{name} must be {listing}, but is {shown(value)}")
    return value


def flag(name: str, value: Any) -> bool:
    """``value``, which must be True or False.

    Raises:
        InvalidSettings: anything else.
    """
    if not isinstance(value, bool | np.bool_):
        raise InvalidSettings(f"{name} must be True or False, but is {shown(value)}")
    return bool(value)


def file_path(name: str, value: Any) -> Path:
    """``value``, a text or a path that may name a file, as a path.

    Raises:
        InvalidSettings: it is something else, is empty, is longer than a name may be, or holds what none holds.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    try:
        usable = isinstance(text, str) and b"\0" not in os.fsencode(text) and text not in ("", ".")
    except UnicodeEncodeError:
        usable = False
    if not usable:
        raise InvalidSettings(f"{name} must be the path of a file, but is {shown(value)}")
    path = Path(value)
    try:
        path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # what else is wrong is said by whoever opens it
            return path
        raise InvalidSettings(f"{name} must be the path of a file, but is too long for one: {shown(value)}") from error
    return path


def instance(name: str, value: T, kind: type[Any], wanted: str) -> T:
    """``value``, which must be of a type.

    Raises:
        InvalidSettings: it is not; the message says what was ``wanted``.
    """
    if not isinstance(value, kind):
        raise InvalidSettings(f"{name} must be {wanted}, but is {shown(value)}")
    return value


def listed(name: str, value: Any, wanted: str = "a list or a tuple") -> tuple[Any, ...]:
    """What a list, tuple, array or any other iterable but a text, a mapping or a set holds, as a tuple.

    Raises:
        InvalidSettings: it is no such thing, or has no order.
    """
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | dict | set | frozenset):
        raise InvalidSettings(f"{name} must be {wanted}, but is {shown(value)}")
    try:
        return tuple(value)
    except TypeError:  # an array without axes
        raise InvalidSettings(f"{name} must be {wanted}, but is {shown(value)}") from None


def check_field(settings: Any, name: str, check: Callable[..., Any], *limits: Any, optional: bool = False) -> None:
    """Replace one field of a frozen dataclass by what ``check(argument, value, *limits)`` returns.

    None stays None where the field is ``optional``.

    Raises:
        InvalidSettings: ``check`` refuses it, naming the class and the field.

    Example:
        >>> from searchlib import Beam
        >>> Beam(width=0)
        Traceback (most recent call last):
        searchlib.errors.InvalidSettings: Beam(width=…) must be a whole number of at least 1, but is 0
    """
    value = getattr(settings, name)
    if value is not None or not optional:
        object.__setattr__(settings, name, check(f"{type(settings).__name__}({name}=…)", value, *limits))
