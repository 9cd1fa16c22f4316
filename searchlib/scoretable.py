"""The score table of one batch: candidates × cases, filled chunk by chunk and reduced to values."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.chunks import ChunkScores
from searchlib.errors import InvalidSettings
from searchlib.objective import Direction, Objective

__all__ = ["ScoreTable", "directions", "signs"]


def directions(objective: Objective) -> tuple[Direction, ...]:
    """Whether each number of the objective is minimized or maximized.

    Raises:
        InvalidSettings: a direction is neither.
    """
    ways = (objective.direction,) if isinstance(objective.direction, str) else tuple(objective.direction)
    if not ways or any(way not in ("minimize", "maximize") for way in ways):
        raise InvalidSettings(
            f"direction must be 'minimize' or 'maximize' (or a tuple of them), but is {objective.direction!r}"
        )
    return ways


def signs(objective: Objective) -> NDArray[np.float64]:
    """+1 for every minimized and -1 for every maximized number of the objective, shape ``(objectives,)``.

    Raises:
        InvalidSettings: a direction is neither.
    """
    return np.array([1.0 if way == "minimize" else -1.0 for way in directions(objective)])


@final
class ScoreTable:
    """Scores of n candidates on c cases.

    After all chunks are in and :meth:`reduce` was called: ``scores`` (n, c, k), ``values`` (n, objectives) in the
    objective's own direction (NaN where a candidate is not DONE), ``secondary`` (n,), ``standard_error``
    (n, objectives), ``status`` (n,), ``errors``; ``stopped`` (n,) says whose row was left with cells unfilled.
    """

    def __init__(self, objective: Objective, candidates: int, cases: int) -> None:
        self._objective = objective
        self._cases = cases
        self.scores: NDArray[np.float64] = np.full((candidates, cases, 1), np.nan)
        self._secondary: NDArray[np.float64] | None = None
        self.status = np.full(candidates, Status.PENDING, np.int8)
        self.errors = [""] * candidates
        self.stopped = np.zeros(candidates, np.bool_)
        self._estimated_error: NDArray[np.float64] = np.full(candidates, np.nan)
        self._estimated_secondary: NDArray[np.float64] = np.full(candidates, np.nan)
        self.values: NDArray[np.float64] = np.full((candidates, len(signs(objective))), np.nan)
        #: Which candidates an evaluation cache has answered, shape ``(n,)``.
        self.cached: NDArray[np.bool_] = np.zeros(candidates, np.bool_)

    def fill(
        self, chunk_scores: ChunkScores, rows: NDArray[np.intp] | None = None, cases: NDArray[np.intp] | None = None
    ) -> None:
        """Enter one chunk: at its own place, or in these rows ``(r,)`` and columns ``(c,)``."""
        chunk, values = chunk_scores.chunk, chunk_scores.values
        cells: Any = (slice(chunk.row, chunk.row_end), slice(chunk.case, chunk.case_end))
        if rows is not None and cases is not None:
            cells = np.ix_(rows, cases)
        if values.shape[2] != self.scores.shape[2] and (chunk_scores.status == Status.DONE).any():
            self._widen(values.shape[2])
        self.scores[cells] = values if values.shape[2] == self.scores.shape[2] else np.nan
        if not np.isnan(chunk_scores.secondary).all():
            if self._secondary is None:
                self._secondary = np.full(self.scores.shape[:2], np.nan)
            self._secondary[cells] = chunk_scores.secondary
        places = np.arange(chunk.row, chunk.row_end) if rows is None else rows
        self.status[places] = np.maximum(self.status[places], chunk_scores.status)
        for row, error in zip(places.tolist(), chunk_scores.errors, strict=True):
            self.errors[row] = self.errors[row] or error

    def stop(
        self, rows: NDArray[np.intp], values: NDArray[np.float64], standard_error: NDArray[np.float64],
        secondary: NDArray[np.float64],
    ) -> None:  # fmt: skip
        """Leave some rows ``(r,)`` as they are, with estimates ``(r,)`` of their one value."""
        self.stopped[rows] = True
        self.values[rows, 0], self._estimated_error[rows], self._estimated_secondary[rows] = (
            values, standard_error, secondary
        )  # fmt: skip

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which candidates have all their scores, shape ``(n,)``."""
        return np.asarray(self.status == Status.DONE)

    def reduce(self) -> None:
        """Aggregate the scores of all complete candidates; one whose value is not finite has failed.

        Raises:
            InvalidSettings: the objective's ``aggregate`` returns another shape than one row per candidate.
        """
        done, objectives = self.done & ~self.stopped, self.values.shape[1]
        if not done.any():
            return
        reduced = np.asarray(self._objective.aggregate(self.scores if done.all() else self.scores[done]))
        if reduced.shape != (int(done.sum()), objectives):
            raise InvalidSettings(
                f"{type(self._objective).__name__}.aggregate must return shape ({int(done.sum())}, {objectives}) "
                f"(candidates, directions), but returned {reduced.shape}"
            )
        self.values[done] = reduced
        for row in np.flatnonzero(done & ~np.isfinite(self.values).all(axis=1)):
            self.status[row] = Status.FAILED
            self.errors[row] = f"the scores reduce to {self.values[row].tolist()}, but a value must be finite"
            self.values[row] = np.nan

    @property
    def secondary_scores(self) -> NDArray[np.float64]:
        """Secondary scores, shape ``(n, c)``; NaN where there are none."""
        return np.full(self.scores.shape[:2], np.nan) if self._secondary is None else self._secondary

    @property
    def secondary(self) -> NDArray[np.float64]:
        """Mean secondary score, shape ``(n,)``; NaN where there is none."""
        if self._secondary is None:
            return np.full(len(self.status), np.nan)
        secondary = self._secondary.mean(axis=1)
        secondary[~self.done] = np.nan
        secondary[self.stopped] = self._estimated_secondary[self.stopped]
        return np.asarray(secondary)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Standard error of the values over the cases, shape ``(n, objectives)``; NaN where there is none."""
        objectives = self.values.shape[1]
        if not self._objective.additive or self._cases < 2 or self.scores.shape[2] != objectives:
            return np.full((len(self.status), objectives), np.nan)
        error = self.scores.std(axis=1, ddof=1) / np.sqrt(self._cases)
        error[~self.done] = np.nan
        error[self.stopped, 0] = self._estimated_error[self.stopped]
        return np.asarray(error)

    def _widen(self, k: int) -> None:
        if self.done.any():
            raise InvalidSettings(
                f"evaluate returned {self.scores.shape[2]} numbers per case for one chunk and {k} for another"
            )
        self.scores = np.full((*self.scores.shape[:2], k), np.nan)
