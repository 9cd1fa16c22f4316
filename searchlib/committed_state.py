"""Where a long search stood, now and then on file: from there it resumes without making its choices again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Evidence, Run, Status
from searchlib.batch_journal import require_same_values
from searchlib.cases import Split
from searchlib.errors import SearchlibError, StudyDamaged
from searchlib.history import Told
from searchlib.objective import Objective
from searchlib.scoring import Scorer
from searchlib.study import Study

__all__ = ["CommittedState", "in_batches"]

#: Candidates that lie between two states at least, and as a share of all until then.
_LEAST, _SHARE = 16_384, 1 / 32

#: Counted up when anything in the state of any algorithm gets another meaning; states of other layouts are not used.
_LAYOUT = 1


@final
class CommittedState:
    """The states of a search whose algorithm can say its own (:meth:`searchlib.algorithms.Run.state`).

    A state abbreviates the journal and adds nothing to it: without one the same search is replayed from its batches.
    It holds the algorithm's own part only; all else follows from what was told.

    Arguments:
        study: where.
        objective: what is searched.
        scorer: of the search.
        signs: that make values minimized.
    """

    def __init__(self, study: Study, objective: Objective, scorer: Scorer, signs: NDArray[np.float64]) -> None:
        self._study, self._objective, self._scorer, self._signs = study, objective, scorer, signs
        self._last = 0  # candidates in the last state

    def restore(self, run: Run) -> tuple[int, Told, list[int]] | None:
        """Bring a run to the last state.

        Returns:
            the number of the last batch, all that was told until then, and how many candidates every batch had. None
            where there is no state, or one of another layout or algorithm; then nothing has changed.

        Raises:
            StudyDamaged: the state is none of this algorithm.
            StudyMismatch: the scores on file have other values than they had.
        """
        found = self._study.read_state()
        if found is None or run.state() is None or self._study.told_in_part:
            return None
        search, own = found
        if search.get("made by") != _made_by(run):
            return None
        told, sizes = self._study.told_until(search.get("batch", -1))
        self._require_valid(told)
        self._check(told, sizes)
        minimized = told.values * self._signs
        evidence = Evidence(told.ids, told.population, minimized, told.status, told.secondary, told.standard_error)
        try:
            run.restore(own, evidence)
        except (SearchlibError, LookupError, TypeError, ValueError, OverflowError) as error:
            raise self._damaged(f"{error!s:.200} in the state of its algorithm") from error
        self._last = len(told.ids)
        return search["batch"], told, list(sizes.values())

    def _require_valid(self, told: Told) -> None:
        try:
            self._objective.space.check(told.population)
        except SearchlibError as error:
            raise self._damaged(str(error)[:200]) from error
        if (told.ids != np.arange(len(told.ids))).any():
            raise self._damaged("ids that do not count up from 0")

    def _damaged(self, what: str) -> StudyDamaged:
        name = self._study.path.name
        return StudyDamaged(
            f"{str(self._study.path)!r} is damaged, or no search has written it: {what}; searchlib repair {name} -o "
            f"sound.db makes a copy without its state, which is only there to go on sooner"
        )

    def _check(self, told: Told, sizes: Mapping[int, int]) -> None:
        """Whether what is on file of the last batch with a score still has the values that it had."""
        scored = told.fresh & (told.status == Status.DONE)
        for number, batch in reversed(list(zip(sizes, in_batches(list(sizes.values())), strict=True))):
            if scored[batch].any():
                fresh = told.fresh[batch]
                scores = self._scorer.score(told.population[batch][fresh], Split.SEARCH, number)
                require_same_values(told.values[batch][fresh], scores.values, number, self._objective)
                return

    def write_if_due(self, run: Run, batch: int, told: int) -> None:
        """Write down where a run stands after a batch, in all ``told`` candidates, where that is worth it."""
        if told - self._last < max(_LEAST, _SHARE * told):
            return
        self._last, own = told, run.state()
        if own is not None and not self._study.told_in_part:
            self._study.write_state({"made by": _made_by(run), "batch": batch}, own)


def _made_by(run: Run) -> list[str]:
    """What a state depends on; another algorithm (that ``Auto`` chose) or other generators make other states."""
    return [str(_LAYOUT), type(run).__name__, str(run.notes().get("chosen", "")), np.__version__]


def in_batches(sizes: Sequence[int]) -> Iterator[slice]:
    """Where the batches lie in what was told of all of them."""
    ends = np.cumsum(sizes).tolist()
    return (slice(end - size, end) for end, size in zip(ends, sizes, strict=True))
