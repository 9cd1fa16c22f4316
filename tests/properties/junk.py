"""What nobody means: values of every wrong kind, made anew for every use."""

import collections.abc
import contextlib
import datetime
import decimal
import fractions
import itertools

import numpy as np

__all__ = ["JUNK", "Odd", "mentions"]


class Odd:
    """An object that is nothing in particular."""

    def __repr__(self):
        return "<odd>"


def ragged():
    array = np.empty(2, object)
    array[:] = [[1], [1, 2]]
    return array


#: How to make each, by what it is.
JUNK = {
    "None": lambda: None,
    "NaN": lambda: float("nan"),
    "infinity": lambda: float("inf"),
    "minus infinity": lambda: float("-inf"),
    "minus one": lambda: -1,
    "zero": lambda: 0,
    "minus zero": lambda: -0.0,
    "one half": lambda: 0.5,
    "a huge whole number": lambda: 2**70,
    "a negative huge whole number": lambda: -(2**70),
    "more digits than Python writes": lambda: 10**5000,
    "a huge float": lambda: 1e308,
    "a tiny float": lambda: 5e-324,
    "True": lambda: True,
    "a complex number": lambda: 1j,
    "a decimal": lambda: decimal.Decimal("NaN"),
    "a fraction": lambda: fractions.Fraction(1, 3),
    "a date": lambda: datetime.date(2020, 1, 1),
    "an empty text": lambda: "",
    "a text": lambda: "nonsense",
    "a long text": lambda: "x" * 1000,
    "a text with NUL": lambda: "a\0b",
    "half a character": lambda: "\ud800",
    "no bytes": lambda: b"",
    "bytes": lambda: b"\xff\xfe",
    "an empty list": lambda: [],
    "an empty tuple": lambda: (),
    "an empty mapping": lambda: {},
    "an empty set": lambda: set(),
    "a list of None": lambda: [None],
    "a list of NaN": lambda: [float("nan")],
    "a tuple with duplicates": lambda: ("a", "a"),
    "numbers twice": lambda: (1, 1),
    "nested lists": lambda: [[1, 2], [3]],
    "a list of lists": lambda: [[]],
    "pairs": lambda: (("a", 1), ("a", 2)),
    "a mapping": lambda: {"a": None},
    "a mapping of numbers": lambda: {1: 2},
    "a set": lambda: {1, 2},
    "a generator": lambda: (number for number in (1, 2)),
    "an iterator of junk": lambda: itertools.repeat(None, 3),
    "a range": lambda: range(3),
    "an object": Odd,
    "a class": lambda: Odd,
    "a function": lambda: len,
    "an exception": lambda: ValueError("odd"),
    "a slice": lambda: slice(None),
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "a 0-d array": lambda: np.array(3.5),
    "an array without entries": lambda: np.empty((0, 3)),
    "an array of objects": ragged,
    "a complex array": lambda: np.array([1j, 2.0]),
    "an array of dates": lambda: np.array(["2020-01-01"], "datetime64[D]"),
    "an array of texts": lambda: np.array(["a", "b"]),
    "an array of NaN": lambda: np.full((2, 2), np.nan),
    "a record array": lambda: np.zeros(2, [("a", "i4"), ("b", "f8")]),
    "an array of booleans": lambda: np.array([True, False]),
    "an array with many axes": lambda: np.zeros((1, 2, 1, 2)),
    "numpy's NaN": lambda: np.float32("nan"),
    "numpy's whole number": lambda: np.int64(-7),
    "numpy's boolean": lambda: np.bool_(False),
    "numpy's date": lambda: np.datetime64("NaT"),
}


def mentions(message, value):
    """Whether a message shows a value (also as a float), or something within it, or of an array its shape or type."""
    within = value if isinstance(value, list) else [value]
    if any(isinstance(one, collections.abc.Iterator) or one is True for one in within):  # spent, or a flag at odds
        return True
    if value is None or _length(value) == 0:  # there is nothing to show
        return True
    return any(part and part in message for part in _parts(value))


def _length(value):
    with contextlib.suppress(TypeError):
        return len(value)
    return None


def _parts(value, depth=0):
    if isinstance(value, list | tuple) and any(isinstance(part, list) and not part for part in value):
        yield "()"
    if isinstance(value, float | np.floating):
        yield repr(np.asarray(value))[6:12]
    if isinstance(value, np.ndarray):
        yield "no score"
        yield from ("array(", str(value.shape), str(value.dtype), str(value.size))
        value = value.tolist()
    if isinstance(value, np.generic):
        yield repr(value)[:16]
        value = value.item()
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        yield str(np.shape(value))
        yield repr(float(value))
        yield f"{float(value):.12g}"
    try:
        shown = repr(value)
    except ValueError:  # whole numbers of more than 4,300 digits
        shown = "more digits"
    yield shown[:16]
    yield str(type(value).__name__)
    if _length(value) is not None:
        yield str(_length(value))
    if depth < 3 and isinstance(value, list | tuple | set | dict | range):
        for item in value:
            yield from _parts(item, depth + 1)
        if isinstance(value, dict):
            for item in value.values():
                yield from _parts(item, depth + 1)
