"""Search a coarse space first, then the finer one that contains it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run
from searchlib.arguments import check_field, instance, real_number, whole_number
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import Population, StagedSpace, distinct, row_keys

__all__ = ["Stages"]


@final
@dataclass(frozen=True)
class Stages(Algorithm):
    """Run ``first`` on the coarse part of a staged space, then ``second`` on the whole, starting from all it learned.

    The second stage is told the whole archive of the first (EEP, arXiv 2407.00945, Algorithm 1: pruning, then
    merging), so nothing is evaluated again. The hand-over happens when the first stage has spent its share of the
    evaluations, or has nothing more to propose.

    Arguments:
        first: searches ``space.first``.
        second: searches ``space``.
        share: part of the evaluation budget for the first stage, in [0, 1].
        first_evaluations: an absolute number instead of a share; required where the budget has no evaluations.
    """

    first: Algorithm
    second: Algorithm
    share: float = 0.25
    first_evaluations: int | None = None

    def __post_init__(self) -> None:
        for name in ("first", "second"):
            check_field(self, name, instance, Algorithm, "an Algorithm")
        check_field(self, "share", real_number, "[0, 1]")
        check_field(self, "first_evaluations", whole_number, 0, optional=True)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run.

        Raises:
            MissingOperator: the space has no coarser stage.
        """
        if not isinstance(problem.space, StagedSpace):
            raise MissingOperator(
                f"Stages needs a StagedSpace (one with `first`, `embed` and `restrict`), but got {problem.space!r}; "
                f"use {self.second!r} alone"
            )
        return _StagedRun(self, problem, problem.space, rng)

    def evaluations(self, problem: Problem) -> int:
        """Evaluations that the first stage may spend."""
        if self.first_evaluations is not None:
            return self.first_evaluations
        if problem.evaluations is None:
            raise InvalidSettings("Stages(share=…) needs a budget in evaluations; pass first_evaluations=… instead")
        return math.ceil(self.share * problem.evaluations)


@final
class _StagedRun(Run):
    """Ids are counted over both stages: the second stage's own ids start where the first one's ended."""

    def __init__(self, settings: Stages, problem: Problem, space: StagedSpace, rng: np.random.Generator) -> None:
        self._settings, self._problem, self._space, self._rng = settings, problem, space, rng
        self._limit = settings.evaluations(problem)
        seeds, exact = space.restrict(problem.first_rows)
        self._first: Run = settings.first.start(
            replace(problem, space=space.first, seeds=distinct(seeds[exact]), evaluations=self._limit), rng
        )
        self._second: Run | None = None
        self._archive: list[Evidence] = []
        self._asked = 0

    def ask(self, n: int) -> Batch:
        if self._second is None:
            batch = self._first.ask(min(n, self._limit - self._asked)) if self._asked < self._limit else None
            if batch is not None and len(batch):
                self._asked += len(batch)
                return Batch(batch.ids, self._space.canonical(self._space.embed(batch.population)))
            self._second = self._hand_over()
        batch = self._second.ask(n)
        return Batch(batch.ids + self._asked, batch.population)

    def tell(self, evidence: Evidence) -> None:
        if self._second is None:
            self._archive.append(evidence)
            rows, exact = self._space.restrict(evidence.population)
            if exact.any():
                self._first.tell(replace(evidence, population=rows).take(exact))
        else:
            ids = np.where(evidence.ids >= self._asked, evidence.ids - self._asked, _strangers(evidence.ids))
            self._second.tell(replace(evidence, ids=ids))

    def recommend(self, n: int) -> Population:
        if self._second is not None:
            return self._second.recommend(n)
        return self._space.canonical(self._space.embed(self._first.recommend(n)))

    def notes(self) -> Mapping[str, Any]:
        """Those of both stages, under ``"first"`` and ``"second"``, where there are any."""
        runs = (("first", self._first), ("second", self._second))
        return {name: dict(notes) for name, run in runs if run is not None and (notes := run.notes())}

    def _hand_over(self) -> Run:
        left = None
        if self._problem.evaluations is not None:
            left = max(1, self._problem.evaluations - self._asked)
        second = self._settings.second.start(
            replace(self._problem, seeds=self._seeds_left(), evaluations=left), self._rng
        )
        for evidence in self._archive:
            second.tell(replace(evidence, ids=_strangers(evidence.ids)))
        self._archive = []
        return second

    def _seeds_left(self) -> Population:
        """The seeds that the first stage did not get to: those off its space, and those it had no budget for."""
        seeds = self._space.canonical(self._problem.first_rows)
        told = {key for evidence in self._archive for key in row_keys(self._space.canonical(evidence.population))}
        return seeds[[key not in told for key in row_keys(seeds)]]


def _strangers(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids under which another run's candidates are injected: negative, and distinct for distinct ids."""
    return np.where(ids >= 0, -1 - ids, ids)
