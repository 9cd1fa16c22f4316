"""The columns of the score table: what a candidate is scored on."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import check_field, listed, shown
from searchlib.errors import InvalidSettings

__all__ = ["Cases", "Split"]


class Split(enum.StrEnum):
    """Who may look at a case."""

    SEARCH = "search"  #: algorithms learn from these
    SELECT = "select"  #: the winner is picked from a short list on these
    HOLDOUT = "holdout"  #: opened once, after the search has stopped


@final
@dataclass(frozen=True, eq=False)
class Cases:
    """An ordered set of cases: dataset examples, noise seeds, prompts, road networks …

    Arguments:
        ids: one distinct name (str or int) per case; results refer to cases by it.
        payload: what the objective needs for each case, one item per id, or None where the id says it all.

    Example:
        >>> cases = Cases.of(["2+2=", "3+1="])
        >>> len(cases), cases.take([1]).payload
        (2, ('3+1=',))
    """

    ids: tuple[str | int, ...]
    payload: Sequence[Any] | None = None

    def __post_init__(self) -> None:
        check_field(self, "ids", listed)
        for name in self.ids:
            if not isinstance(name, str | int | np.integer):
                raise InvalidSettings(f"case ids must be texts or whole numbers, but one is {shown(name)}")
        if len(set(self.ids)) != len(self.ids):
            twice = next(name for name in self.ids if self.ids.count(name) > 1)
            raise InvalidSettings(f"case ids must be distinct, but {twice!r} occurs {self.ids.count(twice)} times")
        if self.payload is not None and (items := _length(self.payload)) != len(self.ids):
            there = f"is {shown(self.payload)}" if items is None else f"there are {items} items"
            raise InvalidSettings(f"payload must have one item per case id, but {there} for {len(self.ids)} ids")

    @classmethod
    def of(cls, payload: Sequence[Any]) -> Cases:
        """Cases numbered from 0, one per item of ``payload``."""
        return cls(tuple(range(len(payload))), payload)

    @classmethod
    def none(cls) -> Cases:
        """No cases: a split that the objective does not have."""
        return cls(())

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, columns: Sequence[int] | NDArray[np.integer[Any]]) -> Cases:
        """The cases at these positions, in this order."""
        ids = tuple(self.ids[int(column)] for column in columns)
        if self.payload is None:
            return Cases(ids)
        return Cases(ids, tuple(self.payload[int(column)] for column in columns))

    @property
    def digest(self) -> str:
        """A short fingerprint of the ids, by which a study recognizes its cases."""
        return hashlib.blake2b(repr(self.ids).encode(), digest_size=8).hexdigest()


def _length(payload: Any) -> int | None:
    try:
        return len(payload)
    except TypeError:
        return None
