"""Filling score tables: what is on file is read, the rest is evaluated and journaled."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.evaluation import Chunk, Evaluator, plan_chunks
from searchlib.objective import Objective
from searchlib.scoretable import ScoreTable
from searchlib.space import Population
from searchlib.study import StoredBatch, Study

__all__ = ["Scorer"]

logger = logging.getLogger("searchlib")


@final
class Scorer:
    """Scores populations and references of one objective, through its study where there is one."""

    def __init__(
        self, objective: Objective, evaluator: Evaluator, cases: Mapping[Split, Cases], study: Study | None
    ) -> None:
        self._objective, self._evaluator, self._cases, self._study = objective, evaluator, cases, study

    def chunks(self, rows: int, split: Split) -> list[Chunk]:
        """How a batch of ``rows`` candidates is cut; decided by the objective alone."""
        objective = self._objective
        return plan_chunks(rows, len(self._cases[split]), objective.chunk_rows, objective.chunk_cases)

    def score(self, rows: Population, split: Split, number: int) -> ScoreTable:
        """The table of the batch ``number``; its finished chunks are read from the study."""
        cases = self._cases[split]
        table = ScoreTable(self._objective, len(rows), len(cases))
        missing = self.chunks(len(rows), split)
        if self._study is not None:
            for scores in self._study.chunks(number):
                table.fill(scores)
                missing.remove(scores.chunk)
        for scores in self._evaluator.run(rows, split, cases, missing):
            if self._study is not None:
                self._study.write_chunk(number, scores)
            table.fill(scores)
        table.reduce()
        return table

    def score_finalists(self, rows: Population, split: Split) -> ScoreTable:
        """The table of recommended candidates on any split, outside the batches that the algorithm asked for."""
        if self._study is None:
            return self.score(rows, split, -1)
        label = _label(split)
        stored = self._find(rows, label)
        if stored is None:
            number = self._study.write_batch(label, 0, np.arange(len(rows)), rows, np.ones(len(rows), np.bool_))
            return self.score(rows, split, number)
        return self.score(rows, split, stored.number)

    def looks(self, except_row: NDArray[Any]) -> int:
        """How many other finalists have been shown the held-out cases, by this study's file."""
        assert self._study is not None
        # Of a front, the chosen candidate comes first.
        shown = {batch.population[0].tobytes() for batch in self._study.batches(_label(Split.HOLDOUT))}
        return len(shown - {except_row.tobytes()})

    def score_reference(self, name: str) -> NDArray[np.float64] | None:
        """Held-out scores ``(c, k)`` of a reference; None, and a warning in the log, where it cannot be scored."""
        stored = None if self._study is None else self._study.reference(name, Split.HOLDOUT)
        if stored is not None:
            return stored
        cases = self._cases[Split.HOLDOUT]
        try:
            scores = np.asarray(self._objective.evaluate_reference(name, cases), np.float64)
            unknown = np.isnan(scores).all(axis=0)  # a number that the reference does not have
            if scores.shape[:1] != (len(cases),) or not (np.isfinite(scores) | unknown).all() or unknown.all():
                raise InvalidSettings(
                    f"a reference must give finite scores of shape ({len(cases)},) or ({len(cases)}, k) (a number that "
                    f"it does not have may be NaN for all cases), but gave {scores!r:.200}"
                )
        except Exception:
            logger.warning("the reference %r is left out:", name, exc_info=True)
            return None
        scores = scores.reshape(len(cases), -1)
        if self._study is not None:
            self._study.write_reference(name, Split.HOLDOUT, scores)
        return scores

    def _find(self, rows: Population, label: str) -> StoredBatch | None:
        assert self._study is not None
        for batch in self._study.batches(label):
            if batch.population.shape == rows.shape and batch.population.tobytes() == rows.tobytes():
                return batch
        return None


def _label(split: Split) -> str:
    """What a batch of recommended candidates is called on file."""
    return f"finalists on {split.value}"
