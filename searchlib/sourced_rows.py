"""Score tables whose cases change from generation to generation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm
from searchlib.arguments import shown
from searchlib.budget import Budget
from searchlib.case_source import CaseRun, CaseSource
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings, StudyMismatch
from searchlib.objective import Objective
from searchlib.scoretable import ScoreTable
from searchlib.scoring import Scorer
from searchlib.space import Population
from searchlib.study import Study

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
        study: keeps which cases a batch met, to refuse others when it is resumed.
        seed: of the source.
        budget: what progress is measured by.

    Raises:
        InvalidSettings: the algorithm compares candidates of different batches, or the source goes by the progress of a
            search that only a time limits.
    """

    def __init__(
        self, source: CaseSource, objective: Objective, algorithm: Algorithm, scorer: Scorer, study: Study | None,
        seed: int, budget: Budget,
    ) -> None:  # fmt: skip
        if not isinstance(source, CaseSource):
            raise InvalidSettings(f"cases must be a FreshCases(…) or a Curriculum(…), but is {shown(source)}")
        if algorithm.compares_batches:
            raise InvalidSettings(
                f"{type(algorithm).__name__} compares candidates that met different cases when these change; take one "
                f"that compares within a generation (EvolutionStrategy, CMAES), or leave cases=… out"
            )
        if objective.recomputable:
            raise InvalidSettings(f"{type(objective).__name__} is recomputable, so its cases must not change")
        if source.follows_progress and budget.evaluations is budget.cells is budget.cost is None:
            raise InvalidSettings(
                f"{source!r} changes with the progress of the search, which seconds do not say the same way twice; "
                f"give the budget evaluations, cells or cost as well"
            )
        #: Cases of a generation.
        self.per_generation = source.per_generation
        # A stream of its own: objectives draw their cases from small keys such as [seed, 1].
        self._run: CaseRun = source.start(objective, np.random.default_rng([seed, *b"cases"]))
        self._scorer, self._study = scorer, study
        self._generation = self._first = -1
        self._cases = Cases.none()
        self._scores: list[NDArray[np.float64]] = []
        #: Which rows met which cases in the last batch.
        self.parts: list[tuple[Population, Cases]] = []

    def score(self, rows: Population, number: int, generation: int, progress: float) -> ScoreTable:
        """The table of the batch ``number``, which belongs to a ``generation`` counted up from 0."""
        if generation != self._generation:
            self._learn()
            self._cases, self._generation, self._first = self._run.ask(progress), generation, number
            self._keep(f"tasks {number}", self._run.tasks)
        self._check(number)
        table = self._scorer.score(rows, Split.SEARCH, number, self._cases)
        self._scores.append(table.scores[table.done])
        self.parts = [(rows, self._cases)]
        return table

    def _check(self, number: int) -> None:
        """A batch on file must meet the cases that it met before."""
        if self._study is None:
            return
        met = np.frombuffer(bytes.fromhex(self._cases.digest), np.uint8)
        stored = self._study.read_array(f"met {number}")
        if stored is None:
            self._study.write_array(f"met {number}", met)
        elif not np.array_equal(stored, met):
            raise StudyMismatch(
                f"batch {number} met other cases than it would meet now (tasks, or a budget in cells or cost, have "
                f"changed); begin another study"
            )

    def _learn(self) -> None:
        if self._generation < 0:
            return
        scores, self._scores = [part for part in self._scores if len(part)], []
        self._run.tell(np.concatenate(scores) if scores else np.empty((0, len(self._cases), 1)))
        self._keep(f"success {self._first}", self._run.success)

    def _keep(self, name: str, array: NDArray[np.float64] | None) -> None:
        """What nobody needs to resume, but everybody to see what a curriculum has done; once."""
        if self._study is not None and array is not None and self._study.read_array(name) is None:
            self._study.write_array(name, array)

    def notes(self) -> Mapping[str, Any]:
        """What the source says about itself."""
        return self._run.notes()
