"""SEARCH cases that change from generation to generation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import check_field, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective

__all__ = ["CaseRun", "CaseSource", "FreshCases"]


class CaseRun(ABC):
    """A source at work: what a generation meets, and what came of it."""

    @abstractmethod
    def ask(self, progress: float) -> Cases:
        """The cases of the next generation; ``progress`` of the search goes from 0 to 1."""

    @abstractmethod
    def tell(self, scores: NDArray[np.float64]) -> None:
        """Learn from the scores ``(n, c, k)`` of a generation's members that have all theirs, n possibly 0."""

    @property
    def tasks(self) -> NDArray[np.float64] | None:
        """The vectors ``(c, d)`` of the tasks that were asked for last; None where cases are no tasks."""
        return None

    @property
    def success(self) -> NDArray[np.float64] | None:
        """The mean success ``(c,)`` in each of these tasks; None where nobody has been told of it (yet)."""
        return None

    def notes(self) -> Mapping[str, Any]:
        """What a user may want to know afterwards, as JSON values."""
        return {}


class CaseSource(ABC):
    """Settings of a source of cases: a frozen dataclass whose ``start`` gives a :class:`CaseRun`."""

    #: How many cases a generation meets.
    per_generation: int

    @property
    def follows_progress(self) -> bool:
        """Whether the cases depend on the progress that :meth:`CaseRun.ask` is told."""
        return False

    @abstractmethod
    def start(self, objective: Objective, rng: np.random.Generator) -> CaseRun:
        """Begin on an objective; all randomness comes from ``rng``."""


@final
@dataclass(frozen=True)
class FreshCases(CaseSource):
    """Every generation meets other SEARCH cases, all its members the same: common random numbers, renewed.

    They are drawn without replacement until all have been met, and then again. What a policy has learned by heart about
    the cases of one generation is of no use in the next.

    Arguments:
        per_generation: cases of a generation, no more than the objective has.

    Example:
        >>> FreshCases(24)
        FreshCases(per_generation=24)
    """

    per_generation: int

    def __post_init__(self) -> None:
        check_field(self, "per_generation", whole_number, 1)

    def start(self, objective: Objective, rng: np.random.Generator) -> CaseRun:
        """Begin on an objective.

        Raises:
            InvalidSettings: it has fewer SEARCH cases.
        """
        cases = objective.cases(Split.SEARCH)
        if len(cases) < self.per_generation:
            raise InvalidSettings(
                f"FreshCases({self.per_generation}) needs that many SEARCH cases, but {type(objective).__name__} has "
                f"{len(cases)}"
            )
        return _Fresh(cases, self.per_generation, rng)


@final
class _Fresh(CaseRun):
    def __init__(self, cases: Cases, count: int, rng: np.random.Generator) -> None:
        self._cases, self._count, self._rng = cases, count, rng
        self._left: NDArray[np.intp] = np.empty(0, np.intp)

    def ask(self, progress: float) -> Cases:
        del progress
        columns, self._left = self._left[: self._count], self._left[self._count :]
        missing = self._count - len(columns)
        if missing:  # what is left of one round, and the first others of the next
            again = self._rng.permutation(len(self._cases))
            new = ~np.isin(again, columns)
            first = np.flatnonzero(new)[:missing]
            columns, self._left = np.concatenate([columns, again[first]]), np.delete(again, first)
        return self._cases.take(columns)

    def tell(self, scores: NDArray[np.float64]) -> None:
        del scores
