"""When a search gives up: too many candidates in a row that cannot be evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.errors import EvaluationFailed

__all__ = ["FailureCount"]


@final
class FailureCount:
    """Counts failures in a row.

    Arguments:
        most: failures in a row from which on a search has no hope.
        forgiving: whether it goes on all the same, because somebody else evaluates.
    """

    def __init__(self, most: int, *, forgiving: bool = False) -> None:
        self._most, self._forgiving = most, forgiving
        self._in_a_row, self._first_error = 0, ""
        #: Candidates that failed in all.
        self.total = 0

    def count(self, states: NDArray[np.int8], errors: Sequence[str], new: NDArray[np.bool_]) -> None:
        """Count a batch, by what was told of it; candidates that are not ``new`` say nothing.

        Raises:
            EvaluationFailed: too many in a row; the message ends with the first traceback.
        """
        failed = int((states == Status.FAILED).sum())
        self.total += failed
        if not failed:
            self._in_a_row = 0
            return
        for status, error, fresh in zip(states, errors, new, strict=True):
            if not fresh:
                continue
            self._in_a_row = self._in_a_row + 1 if status == Status.FAILED else 0
            self._first_error = self._first_error or error
            if self._in_a_row >= self._most and not self._forgiving:
                raise EvaluationFailed(
                    f"{self._in_a_row} candidates in a row failed (max_failures={self._most}); "
                    f"a study keeps failures, so mend the cause and begin another one. "
                    f"The first error was:\n{self._first_error}"
                )
