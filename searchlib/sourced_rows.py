"""Score tables whose cases change from generation to generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm
from searchlib.case_source import CaseRun, CaseSource
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.scoretable import ScoreTable
from searchlib.scoring import Scorer
from searchlib.space import Population

__all__ = ["SourcedRows"]


@final
class SourcedRows:
    """Fills the tables of batches, each on the cases of its generation.

    A batch's cases follow from the seed and from the scores before it, so a study resumes bit for bit.

    Arguments:
        source: of the cases.
        objective: what is scored.
        algorithm: must compare the candidates of one generation only.
        scorer: evaluates and journals.
        seed: of the source.

    Raises:
        InvalidSettings: the algorithm compares candidates of different batches.
    """

    def __init__(
        self, source: CaseSource, objective: Objective, algorithm: Algorithm, scorer: Scorer, seed: int
    ) -> None:
        if not isinstance(source, CaseSource):
            raise InvalidSettings(f"cases must be a FreshCases(…) or a Curriculum(…), but is {source!r}")
        if algorithm.compares_batches:
            raise InvalidSettings(
                f"{type(algorithm).__name__} compares candidates that met different cases when these change; take one "
                f"that compares within a generation (EvolutionStrategy, CMAES), or leave cases=… out"
            )
        if objective.recomputable:
            raise InvalidSettings(f"{type(objective).__name__} is recomputable, so its cases must not change")
        self._run: CaseRun = source.start(objective, np.random.default_rng([seed, 1]))
        self._scorer = scorer
        self._generation = -1
        self._cases = Cases.none()
        self._scores: list[NDArray[np.float64]] = []
        #: Which rows met which cases in the last batch.
        self.parts: list[tuple[Population, Cases]] = []

    def score(self, rows: Population, number: int, generation: int, progress: float) -> ScoreTable:
        """The table of the batch ``number``, which belongs to a ``generation`` counted up from 0."""
        if generation != self._generation:
            self._learn()
            self._cases, self._generation = self._run.ask(progress), generation
        table = self._scorer.score(rows, Split.SEARCH, number, self._cases)
        self._scores.append(table.scores[table.done])
        self.parts = [(rows, self._cases)]
        return table

    def _learn(self) -> None:
        if self._generation < 0:
            return
        scores, self._scores = [part for part in self._scores if len(part)], []
        self._run.tell(np.concatenate(scores) if scores else np.empty((0, len(self._cases), 1)))

    def notes(self) -> Mapping[str, Any]:
        """What the source says about itself."""
        return self._run.notes()
