"""A source of cases with a diary: what the generations of a search met, and how they did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib import Cases, Objective
from searchlib.case_source import CaseRun, CaseSource

__all__ = ["Diary", "Watched"]


@final
class Diary:
    """What the generations of a run met.

    Attributes:
        tasks: of every generation, shape ``(n, axes)``.
        success: of its members in each, on average, shape ``(n,)``; that of the last generation may be missing.
    """

    def __init__(self) -> None:
        self.tasks: list[NDArray[np.float64]] = []
        self.success: list[NDArray[np.float64]] = []


@final
@dataclass(frozen=True)
class Watched(CaseSource):
    """A source with a diary.

    Arguments:
        source: which.
        diary: what is written into.
        vectors: task vectors ``(n, axes)`` of cases.
        per_generation: cases that a generation meets.
    """

    source: CaseSource
    diary: Diary
    vectors: Callable[[Cases], NDArray[np.float64]]
    per_generation: int

    @property
    def follows_progress(self) -> bool:
        return self.source.follows_progress

    def start(self, objective: Objective, rng: np.random.Generator) -> CaseRun:
        return _WatchedRun(self.source.start(objective, rng), self.diary, self.vectors)


@final
class _WatchedRun(CaseRun):
    def __init__(self, run: CaseRun, diary: Diary, vectors: Callable[[Cases], NDArray[np.float64]]) -> None:
        self._run, self._diary, self._vectors = run, diary, vectors

    def ask(self, progress: float) -> Cases:
        cases = self._run.ask(progress)
        self._diary.tasks.append(self._vectors(cases))
        return cases

    def tell(self, scores: NDArray[np.float64]) -> None:
        self._diary.success.append(scores[:, :, 0].mean(axis=0))
        self._run.tell(scores)

    def notes(self) -> Mapping[str, Any]:
        return self._run.notes()
