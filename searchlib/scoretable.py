"""The score table of one batch: candidates × cases, filled chunk by chunk and reduced to values."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.errors import InvalidSettings
from searchlib.evaluation import ChunkScores
from searchlib.objective import Objective

__all__ = ["ScoreTable", "signs"]


def signs(objective: Objective) -> NDArray[np.float64]:
    """+1 for every minimized and -1 for every maximized number of the objective, shape ``(objectives,)``.

    Raises:
        InvalidSettings: a direction is neither.
    """
    directions = (objective.direction,) if isinstance(objective.direction, str) else tuple(objective.direction)
    if not directions or any(direction not in ("minimize", "maximize") for direction in directions):
        raise InvalidSettings(
            f"direction must be 'minimize' or 'maximize' (or a tuple of them), but is {objective.direction!r}"
        )
    return np.array([1.0 if direction == "minimize" else -1.0 for direction in directions])


@final
class ScoreTable:
    """Scores of n candidates on c cases.

    After all chunks are in and :meth:`reduce` was called: ``scores`` (n, c, k), ``values`` (n, objectives) in the
    objective's own direction (NaN where a candidate is not DONE), ``secondary`` (n,), ``standard_error``
    (n, objectives), ``status`` (n,), ``errors``.
    """

    def __init__(self, objective: Objective, candidates: int, cases: int) -> None:
        self._objective = objective
        self._cases = cases
        self.scores: NDArray[np.float64] = np.full((candidates, cases, 1), np.nan)
        self._secondary: NDArray[np.float64] | None = None
        self.status = np.full(candidates, Status.PENDING, np.int8)
        self.errors = [""] * candidates
        self.values: NDArray[np.float64] = np.full((candidates, len(signs(objective))), np.nan)

    def fill(self, chunk_scores: ChunkScores) -> None:
        """Enter one chunk."""
        chunk, values = chunk_scores.chunk, chunk_scores.values
        rows, columns = slice(chunk.row, chunk.row_end), slice(chunk.case, chunk.case_end)
        if values.shape[2] != self.scores.shape[2] and (chunk_scores.status == Status.DONE).any():
            self._widen(values.shape[2])
        self.scores[rows, columns] = values if values.shape[2] == self.scores.shape[2] else np.nan
        if not np.isnan(chunk_scores.secondary).all():
            if self._secondary is None:
                self._secondary = np.full(self.scores.shape[:2], np.nan)
            self._secondary[rows, columns] = chunk_scores.secondary
        self.status[rows] = np.maximum(self.status[rows], chunk_scores.status)
        for row, error in enumerate(chunk_scores.errors, start=chunk.row):
            self.errors[row] = self.errors[row] or error

    @property
    def done(self) -> NDArray[np.bool_]:
        """Which candidates have all their scores, shape ``(n,)``."""
        return np.asarray(self.status == Status.DONE)

    def reduce(self) -> None:
        """Aggregate the scores of all complete candidates; one whose value is not finite has failed.

        Raises:
            InvalidSettings: the objective's ``aggregate`` returns another shape than one row per candidate.
        """
        done, objectives = self.done, self.values.shape[1]
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
    def secondary(self) -> NDArray[np.float64]:
        """Mean secondary score, shape ``(n,)``; NaN where there is none."""
        if self._secondary is None:
            return np.full(len(self.status), np.nan)
        secondary = self._secondary.mean(axis=1)
        secondary[~self.done] = np.nan
        return np.asarray(secondary)

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Standard error of the values over the cases, shape ``(n, objectives)``; NaN where there is none."""
        objectives = self.values.shape[1]
        if not self._objective.additive or self._cases < 2 or self.scores.shape[2] != objectives:
            return np.full((len(self.status), objectives), np.nan)
        error = self.scores.std(axis=1, ddof=1) / np.sqrt(self._cases)
        error[~self.done] = np.nan
        return np.asarray(error)

    def _widen(self, k: int) -> None:
        if self.done.any():
            raise InvalidSettings(
                f"evaluate returned {self.scores.shape[2]} numbers per case for one chunk and {k} for another"
            )
        self.scores = np.full((*self.scores.shape[:2], k), np.nan)
