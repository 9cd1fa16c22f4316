"""Cases that two splits share: what is learned from a case cannot be tested on it.

A held-out value is honest as long as the search has not seen the held-out cases. Two cases are the same where their
payloads are; where a payload cannot be read (or there is none), where their ids are.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from searchlib.cases import Cases, Split

__all__ = ["Overlap", "case_keys", "overlaps"]

#: How many shared cases a sentence names.
_NAMED = 3


@final
@dataclass(frozen=True)
class Overlap:
    """Cases of one split that are in an earlier one too.

    Arguments:
        split: the split that should be untouched (``"select"`` or ``"holdout"``).
        earlier: the split that is looked at first (``"search"`` or ``"select"``).
        ids: ids of the shared cases, as ``split`` has them, in its order.
        cases: number of all cases of ``split``.
    """

    split: str
    earlier: str
    ids: tuple[str | int, ...]
    cases: int

    def __str__(self) -> str:
        named = ", ".join(repr(name) for name in self.ids[:_NAMED]) + (", …" if len(self.ids) > _NAMED else "")
        return f"{len(self.ids)} of {self.cases} {self.split} cases are {self.earlier} cases too ({named})"

    def to_json(self) -> dict[str, Any]:
        """The overlap as JSON values."""
        return {"split": self.split, "earlier": self.earlier, "ids": list(self.ids), "cases": self.cases}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Overlap:
        """Rebuild from :meth:`to_json`."""
        return cls(data["split"], data["earlier"], tuple(data["ids"]), data["cases"])


def overlaps(cases: Mapping[Split, Cases]) -> tuple[Overlap, ...]:
    """What the splits of an objective share: of SELECT with SEARCH, of HOLDOUT with either.

    Example:
        >>> exam = {Split.SEARCH: Cases(("a", "b")), Split.SELECT: Cases.none(), Split.HOLDOUT: Cases(("b", "c"))}
        >>> print(*overlaps(exam))
        1 of 2 holdout cases are search cases too ('b')
    """
    contents = {split: _contents(part) for split, part in cases.items()}
    found = []
    for earlier, split in itertools.combinations((Split.SEARCH, Split.SELECT, Split.HOLDOUT), 2):
        first, then = contents.get(earlier, {}), contents.get(split, {})
        shared = tuple(name for name, content in then.items() if content in set(first.values())) if first else ()
        if shared:
            found.append(Overlap(split.value, earlier.value, shared, len(then)))
    return tuple(found)


def case_keys(cases: Cases) -> list[bytes]:
    """A 128-bit key per case, of its id and (where it can be read) its payload."""
    payload = [None] * len(cases) if cases.payload is None else cases.payload
    return [_digest((name, _read(item))) for name, item in zip(cases.ids, payload, strict=True)]


def _contents(cases: Cases) -> dict[str | int, bytes]:
    """By id, what makes two cases the same."""
    if cases.payload is None:
        return {name: _digest(("id", name)) for name in cases.ids}
    read = [_read(item) for item in cases.payload]
    return {
        name: _digest(("id", name) if content is None else ("payload", content))
        for name, content in zip(cases.ids, read, strict=True)
    }


def _digest(value: Any) -> bytes:
    return hashlib.blake2b(repr(value).encode(), digest_size=16).digest()


def _read(value: Any) -> Any:
    """A payload as nested plain values whose ``repr`` tells two apart; None where it (or a part) cannot be read."""
    if isinstance(value, str | bytes | bool | int | float):
        return value
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.hasobject:
            return None
        content = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16).hexdigest()
        return ("array", array.dtype.str, array.shape, content)
    if isinstance(value, tuple | list):
        parts = [("none",) if item is None else _read(item) for item in value]
        return None if any(part is None for part in parts) else ("sequence", *parts)
    if isinstance(value, Mapping):
        pairs = _read([part for key in sorted(value, key=repr) for part in (key, value[key])])
        return None if pairs is None else ("mapping", pairs)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = _read([getattr(value, field.name) for field in dataclasses.fields(value)])
        return None if parts is None else (type(value).__qualname__, parts)
    return None
