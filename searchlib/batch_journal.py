"""What a search writes into its study about a batch, and what it checks there when it goes over the batch again."""

from __future__ import annotations

import warnings
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Batch
from searchlib.errors import StudyMismatch
from searchlib.history import Told, kept_rows
from searchlib.objective import Objective
from searchlib.seeded_population import as_seeded, bits_of
from searchlib.study import ASKED, StoredBatch, Study

__all__ = ["BatchJournal", "replayed", "require_same_values"]


@final
class BatchJournal:
    """Keeps what came of the batches of a search.

    Arguments:
        study: where.
        objective: of a recomputable one only the best rows and a digest are kept.
        signs: that make values minimized.
    """

    def __init__(self, study: Study, objective: Objective, signs: NDArray[np.float64]) -> None:
        self._study, self._objective, self._signs = study, objective, signs

    def write(
        self, told: Told, number: int, stored: StoredBatch | None, asked: int, seconds: float,
        place: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        """Keep what came of the batch ``number``, for which ``asked`` candidates were asked; check what is on file.

        ``place`` is for batches that are told in another order (:meth:`searchlib.Study.write_told`).

        Raises:
            StudyMismatch: the same candidates have other values than on file.
        """
        if self._objective.recomputable:
            self._write_digest(told, stored, asked, seconds)
            return
        before = None if stored is None else self._study.told(stored)
        if before is None:
            self._study.write_told(number, told, seconds, place)
        else:
            require_same_values(before.values, told.values, number, self._objective)

    def _write_digest(self, told: Told, stored: StoredBatch | None, asked: int, seconds: float) -> None:
        if stored is None:
            kept = told.take(kept_rows(told, self._signs))
            omitted = len(told.ids) - len(kept.ids)
            number = self._study.write_batch(ASKED, asked, kept.ids, kept.population, kept.fresh, omitted, told.digest)
            self._study.write_told(number, kept, seconds)
        elif stored.digest != told.digest:
            raise StudyMismatch(
                f"batch {stored.number} was evaluated again and differs from what is on file (another machine, or "
                f"other versions?); this study holds digests only, so begin another one"
            )
        elif self._study.told(stored) is None:
            self._study.write_told(stored.number, told.take(kept_rows(told, self._signs)), seconds)


def require_same_values(
    before: NDArray[np.float64], now: NDArray[np.float64], number: int, objective: Objective
) -> None:  # fmt: skip
    """Refuse to go on with a study whose scores mean something else than when they were written.

    Raises:
        StudyMismatch: the values of batch ``number`` are others than on file.
    """
    if before.shape != now.shape or not np.allclose(before, now, rtol=1e-9, atol=0.0, equal_nan=True):
        raise StudyMismatch(
            f"the scores on file for batch {number} now reduce to other values than they did; "
            f"{type(objective).__name__}.aggregate has changed since the study was written"
        )


def replayed(stored: StoredBatch, batch: Batch) -> Batch:
    """What is on file of a batch that was asked for again.

    Raises:
        StudyMismatch: the file holds only the seeds of its candidates, and these are others.
    """
    # The weights of a seeded population cannot be had from the file.
    recorded = stored.population if as_seeded(batch.population) is None else batch.population
    if bits_of(stored.population) != bits_of(batch.population):
        differs = (
            f"the algorithm proposes other candidates than on file in batch {stored.number} (another machine or other "
            f"versions?)"
        )
        if recorded is not stored.population:
            raise StudyMismatch(f"{differs}, and the file holds only the seeds of these; begin another study")
        warnings.warn(f"{differs}; going on with the recorded ones", stacklevel=5)
    return Batch(stored.ids, recorded)
