"""The expert search as the authors of EEP released it: a baseline, kept faithful to its settings.

Source: imagination-research/EEP at 39df572 (``configs/search/search.yml``, ``opencompass/tasks/search.py``,
``search_utils.py``), the code behind arXiv 2407.00945. One child per iteration, an archive of everything evaluated,
no tie-break but a shuffle, no seeds, the best training accuracy wins.

Candidates are scored by whatever is passed in; through this library's models, negative mapped router scores count as
zero, where the release divides by sums that may nearly cancel. Three faults of the release are not copied: group names
that match no layer (all layers shared one matrix pair), an endless loop where there are fewer distinct candidates than
initial ones, and a final choice on a development split that always picked the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.spaces import ExpertMatrices

__all__ = ["ReleasedLoop"]

Score = Callable[[ExpertMatrices], float]


@final
@dataclass(frozen=True)
class ReleasedLoop:
    """Settings of the released search, by their names in ``search.yml`` where they have one.

    Arguments:
        total: evaluations in all; the release makes 402 (it reads the archive's size before each one).
        discrete: evaluations of the pruning phase, the initial ones included (101).
        initial: random individuals at the start (31: the release compares with a strict ``>``).
        change_rate: ``weight_change_prob``, ``transfer_change_prob``: a matrix is touched.
        row_rate: a row of a touched matrix gets another expert in the pruning phase.
        crossover_rate: a child of the merging phase has two parents.
        parent_rate: a row (or an untouched matrix) comes from the first parent.
        element_rate, scale: an element of a touched matrix moves, and by what standard deviation.
        normalize_rate: all merging rows are divided by their sums.
        crossover_margin, crossover_least: who may be crossed: within so many accuracy points of the best, at least
            so many.
        mutation_margin: who may be mutated, in accuracy points.
    """

    total: int = 402
    discrete: int = 101
    initial: int = 31
    change_rate: float = 0.25
    row_rate: float = 0.15
    crossover_rate: float = 0.3
    parent_rate: float = 0.6
    element_rate: float = 0.25
    scale: float = 0.065
    normalize_rate: float = 0.1
    crossover_margin: float = 1.0
    crossover_least: int = 6
    mutation_margin: float = 3.0

    def search(
        self, score: Score, *, experts: int, keep: int, groups: int, rng: np.random.Generator
    ) -> tuple[list[ExpertMatrices], list[float]]:
        """Run the loop.

        Arguments:
            score: training accuracy in [0, 1] of a candidate.
            experts: experts per layer.
            keep: experts to keep.
            groups: layer groups.
            rng: all randomness.

        Returns:
            all candidates, the best one first (equals in any order), and the training accuracies as they came.
        """
        archive: list[NDArray[np.float64]] = []  # (2, groups, keep, experts): router mapping, merging
        accuracies: list[float] = []

        def add(matrices: NDArray[np.float64]) -> None:
            archive.append(matrices)
            accuracies.append(score(ExpertMatrices(*matrices.astype(np.float32))))

        choices = math.comb(experts, keep) ** groups
        while len(archive) < min(self.initial, self.total, choices):
            matrices = _random(rng, experts, keep, groups)
            if not any(np.array_equal(matrices, other) for other in archive):
                add(matrices)
        while len(archive) < self.total:
            ranked = self._ranked(rng, accuracies)
            if len(archive) < self.discrete:
                add(self._replace(rng, archive[self._parent(rng, ranked, accuracies)]))
            else:
                add(self._blend(rng, archive, ranked, accuracies))
        best_first = self._ranked(rng, accuracies)
        return [ExpertMatrices(*archive[i].astype(np.float32)) for i in best_first], accuracies

    def _ranked(self, rng: np.random.Generator, accuracies: list[float]) -> NDArray[np.intp]:
        return np.lexsort((rng.random(len(accuracies)), -np.array(accuracies)))

    def _near(self, ranked: NDArray[np.intp], accuracies: list[float], margin: float) -> int:
        values = 100 * np.array(accuracies)[ranked]
        return int((values >= values[0] - margin - 1e-9).sum())

    def _parent(self, rng: np.random.Generator, ranked: NDArray[np.intp], accuracies: list[float]) -> int:
        # randint includes its upper end, so one individual just outside the margin can be drawn, too.
        last = min(self._near(ranked, accuracies, self.mutation_margin), len(ranked) - 1)
        return int(ranked[rng.integers(0, last, endpoint=True)])

    def _touched(self, rng: np.random.Generator, groups: int) -> NDArray[np.bool_]:
        while True:
            touched = rng.random((2, groups)) < self.change_rate
            if touched.any():
                return touched

    def _replace(self, rng: np.random.Generator, parent: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pruning phase: rows of touched groups get an expert that is not in the group, router and merging alike."""
        child = parent.copy()
        touched = self._touched(rng, child.shape[1])[1]
        for group in np.flatnonzero(touched):
            for row in np.flatnonzero(rng.random(child.shape[2]) < self.row_rate):
                child[:, group, row] = 0  # cleared first, so that it may draw itself again
                free = np.flatnonzero(child[1, group].sum(axis=0) == 0)
                child[:, group, row, rng.choice(free)] = 1
        return child

    def _blend(
        self,
        rng: np.random.Generator,
        archive: list[NDArray[np.float64]],
        ranked: NDArray[np.intp],
        accuracies: list[float],
    ) -> NDArray[np.float64]:
        """Merging phase: crossover or not, then Gaussian steps, now and then a normalization."""
        child = archive[self._parent(rng, ranked, accuracies)].copy()
        touched = self._touched(rng, child.shape[1])
        if rng.random() < self.crossover_rate and len(archive) > 1:
            pool = max(self._near(ranked, accuracies, self.crossover_margin), self.crossover_least)
            one, two = rng.choice(ranked[: min(pool, len(ranked))], size=2, replace=False)
            child = self._cross(rng, archive[one], archive[two], touched)
        moved = touched[:, :, None, None] & (rng.random(child.shape) < self.element_rate)
        child += np.where(moved, rng.normal(0, self.scale, child.shape), 0)
        if rng.random() < self.normalize_rate:
            child[1] /= child[1].sum(axis=-1, keepdims=True)
        return child

    def _cross(
        self,
        rng: np.random.Generator,
        first: NDArray[np.float64],
        second: NDArray[np.float64],
        touched: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        rows = rng.random(first.shape[:3]) < self.parent_rate
        whole = rng.random(first.shape[:2]) < self.parent_rate
        return np.where(np.where(touched[:, :, None], rows, whole[:, :, None])[..., None], first, second)


def _random(rng: np.random.Generator, experts: int, keep: int, groups: int) -> NDArray[np.float64]:
    kept = np.sort(np.argsort(rng.random((groups, experts)), axis=1)[:, :keep], axis=1)
    return np.repeat(np.eye(experts)[kept][None], 2, axis=0)
