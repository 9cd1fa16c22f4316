"""Filling score tables: what is on file is read, the rest is evaluated and journaled."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.cases import Cases, Split
from searchlib.chunks import Chunk, ChunkScores, plan_chunks
from searchlib.errors import InvalidSettings
from searchlib.evaluation import Evaluator
from searchlib.evaluation_cache import ObjectiveCache
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
        self, objective: Objective, evaluator: Evaluator, cases: Mapping[Split, Cases], study: Study | None,
        cache: ObjectiveCache | None = None,
    ) -> None:  # fmt: skip
        self._objective, self._evaluator, self._cases, self._study = objective, evaluator, cases, study
        self._cache = cache

    def chunks(self, rows: int, split: Split, cases: Cases | None = None) -> list[Chunk]:
        """How a batch of ``rows`` candidates is cut; decided by the objective alone."""
        objective, met = self._objective, self._cases[split] if cases is None else cases
        return plan_chunks(rows, len(met), objective.chunk_rows, objective.chunk_cases)

    def score(self, rows: Population, split: Split, number: int, given: Cases | None = None) -> ScoreTable:
        """The table of the batch ``number``; its finished chunks are read from the study.

        The cases are those of the split, or the ``given`` ones, which it does not have.

        Candidates that the cache knows are answered like duplicates: the others are cut into chunks as if they were
        the batch. Which ones these were is on file, because a cache that has grown would answer more of them.
        """
        cases, study, cache = self._cases[split] if given is None else given, self._study, self._cache
        table = ScoreTable(self._objective, len(rows), len(cases))
        stored = [] if study is None else list(study.chunks(number))
        hits = study.hits(number) if study is not None and stored else None
        keys = [] if cache is None else cache.keys(rows)
        cells = None if cache is None or stored else cache.find(keys, cases)
        if cells is not None:
            hits = cells.complete
        order: NDArray[np.intp] = np.arange(len(rows))
        if hits is not None:
            table.cached = hits
            order = np.argsort(~hits, kind="stable")  # on file what the cache knows comes first
        known = int(table.cached.sum())
        missing = [_moved(chunk, (known, 0)) for chunk in self.chunks(len(rows) - known, split, cases)]
        if known:
            missing.insert(0, Chunk(0, known, 0, len(cases)))
        found = stored if cells is None else cells.answers(missing, order)
        for scores in found:
            if cells is not None and study is not None:
                study.write_chunk(number, scores, hits if scores is found[0] else None)
            _enter(table, scores, order)
            missing.remove(scores.chunk)
        for scores in self._evaluator.run(rows[order], split, cases, missing, given):
            if study is not None:
                study.write_chunk(number, scores)
            if cache is not None:
                cache.add(keys, order, cases, scores)
            _enter(table, scores, order)
        if cache is not None:
            cache.flush()
        table.reduce()
        return table

    def on_file(self, number: int) -> dict[tuple[int, int], ChunkScores]:
        """The finished chunks of the batch ``number``, by their first row and case there."""
        stored = () if self._study is None else self._study.chunks(number)
        return {(scores.chunk.row, scores.chunk.case): scores for scores in stored}

    def cells(
        self, rows: Population, columns: NDArray[np.intp], at: tuple[int, int], number: int,
        on_file: Mapping[tuple[int, int], ChunkScores],
    ) -> Iterator[ChunkScores]:  # fmt: skip
        """Some rows ``(r, d)`` of the batch ``number`` on some SEARCH cases ``(c,)``, in chunks that count in these.

        In the journal they count from ``at`` (row, case) on: a place that is the batch's own matter, as long as no two
        chunks share it. What is ``on_file`` there is not evaluated.
        """
        objective, missing = self._objective, []
        for chunk in plan_chunks(len(rows), len(columns), objective.chunk_rows, objective.chunk_cases):
            stored = on_file.get((chunk.row + at[0], chunk.case + at[1]))
            if stored is None:
                missing.append(chunk)
            else:
                yield replace(stored, chunk=chunk)
        cases = self._cases[Split.SEARCH].take(columns)
        for scores in self._evaluator.run(rows, Split.SEARCH, cases, missing, columns):
            if self._study is not None:
                self._study.write_chunk(number, replace(scores, chunk=_moved(scores.chunk, at)))
            yield scores

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


def _enter(table: ScoreTable, scores: ChunkScores, order: NDArray[np.intp]) -> None:
    """Fill in a chunk whose rows count along ``order``."""
    chunk = scores.chunk
    table.fill(scores, order[chunk.row : chunk.row_end], np.arange(chunk.case, chunk.case_end))


def _moved(chunk: Chunk, at: tuple[int, int]) -> Chunk:
    """A chunk as it counts where its first row and case are ``at``."""
    row, case = at
    return Chunk(chunk.row + row, chunk.row_end + row, chunk.case + case, chunk.case_end + case)


def _label(split: Split) -> str:
    """What a batch of recommended candidates is called on file."""
    return f"finalists on {split.value}"
