"""Where a long search stood, now and then on file: from there it resumes without making its choices again."""

from __future__ import annotations

from typing import final

import numpy as np

from searchlib.algorithms.algorithm import Run
from searchlib.batch_journal import require_same_values
from searchlib.cases import Split
from searchlib.duplicates import Known
from searchlib.errors import SearchlibError, StudyDamaged
from searchlib.failure_count import FailureCount
from searchlib.history import History, Told
from searchlib.objective import Objective
from searchlib.scoring import Scorer
from searchlib.spending import Spending
from searchlib.study import Study

__all__ = ["CommittedState"]

#: Candidates that lie between two states at least, and as a share of all until then.
_LEAST, _SHARE = 16_384, 1 / 32

#: Counted up when anything in the state of any algorithm gets another meaning; states of other layouts are not used.
_LAYOUT = 1


@final
class CommittedState:
    """The states of a search whose algorithm can say its own (:meth:`searchlib.algorithms.Run.state`).

    A state abbreviates the journal and adds nothing to it: without one the same search is replayed from its batches.

    Arguments:
        study: where.
        objective: what is searched.
        scorer: of the search.
        known, spent, failing, history: what the search itself counts and remembers.
    """

    def __init__(
        self, study: Study, objective: Objective, scorer: Scorer, known: Known, spent: Spending,
        failing: FailureCount, history: History,
    ) -> None:  # fmt: skip
        self._study, self._objective, self._scorer, self._known = study, objective, scorer, known
        self._spent, self._failing, self._history = spent, failing, history
        self._last = 0  # candidates in the last state

    def restore(self, run: Run) -> tuple[int, Told] | None:
        """Bring the search and its algorithm to the last state; its last batch, and all that was told until then.

        None where there is no state; then nothing has changed.

        Raises:
            StudyDamaged: the state is none of this algorithm.
            StudyMismatch: the scores on file of the last batch have other values than they had.
        """
        found = self._study.read_state()
        if found is None or found[0]["layout"] != _LAYOUT or run.state() is None:
            return None
        search, own = found
        told, sizes = self._study.told_until(search["batch"])
        try:
            run.restore(own, told.population)
            self._spent.restore(search["spent"])
            self._failing.restore(search["failing"])
        except (SearchlibError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise StudyDamaged(
                f"{str(self._study.path)!r} is damaged, or no search has written it: {error!s:.200} in the state of "
                f"its algorithm, which is only there to go on sooner; searchlib repair {self._study.path.name} -o "
                f"sound.db makes a copy without it"
            ) from error
        for start in range(0, len(told.ids), _LEAST):  # keys of all at once would be as large as the history
            self._known.add(told.population[start : start + _LEAST], start)
        self._history.append(told, sizes=sizes)
        self._last = len(self._history)
        self._check(search["batch"], told.take(np.arange(self._last - sizes[-1], self._last)))
        return search["batch"], told

    def _check(self, number: int, told: Told) -> None:
        """Whether what is on file of one batch still has the values that it had."""
        scores = self._scorer.score(told.population[told.fresh], Split.SEARCH, number)
        require_same_values(told.values[told.fresh], scores.values, number, self._objective)

    def write_if_due(self, run: Run, batch: int) -> None:
        """Write down where the search and its algorithm stand after a batch, where that is worth it."""
        told = len(self._history)
        if told - self._last < max(_LEAST, _SHARE * told):
            return
        self._last, own = told, run.state()
        if own is not None:
            counted = {"spent": self._spent.state(), "failing": self._failing.state()}
            self._study.write_state({"layout": _LAYOUT, "batch": batch, **counted}, own)
