"""Choosing how to search for a subset: cross-validation over the models that one may look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms import ShrinkingPool
from searchlib.arguments import whole_number
from searchlib.budget import Budget
from searchlib.cases import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.eval_subset import EvalSubset
from searchlib.objectives.rank_agreement import kendall_tau
from searchlib.objectives.score_matrix import ScoreMatrix
from searchlib.objectives.score_noise import ScoreNoise
from searchlib.space import Candidates
from searchlib.whole_search import search

__all__ = ["SubsetMethod", "choose_method"]


@final
@dataclass(frozen=True, kw_only=True)
class SubsetMethod:
    """One way to search for a subset; the arguments are those of :class:`EvalSubset`."""

    criterion: str | None = None
    noise: ScoreNoise | None = None
    algorithm: ShrinkingPool | None = None
    replacement: bool = False
    k: int = 5

    def objective(self, scores: ScoreMatrix, size: int, **settings: Any) -> EvalSubset:
        """The objective on a table; ``settings`` are further arguments of :class:`EvalSubset`."""
        return EvalSubset(
            scores, size, criterion=self.criterion, noise=self.noise, replacement=self.replacement, k=self.k, **settings
        )


def choose_method(
    scores: Any,
    size: int,
    methods: Mapping[str, SubsetMethod],
    *,
    budget: int | Budget,
    folds: int = 3,
    repeats: int = 1,
    margin: float = 0.0,
    seed: int = 0,
) -> tuple[str, dict[str, NDArray[np.float64]]]:
    """The method whose subsets rank left-out models best, and every method's taus, shape ``(repeats · folds,)`` each.

    The tau on the models that a subset was searched on grows with every set one looks at; the tau on a left-out fold
    does not. Pass only models that may be looked at: those of the final test must not be in ``scores``. Whatever a
    method searches for, it is judged by Kendall's tau; a fold whose models all tie, in truth or by estimate, counts 0.

    Arguments:
        scores: a table models × items, or what :class:`ScoreMatrix` can be made of.
        size: number of items to keep.
        methods: by name.
        budget: of every search.
        folds: how many parts the models are dealt into at random, at least 2, each of at least 3 models.
        repeats: how often they are dealt.
        margin: tie margin of Kendall's tau.
        seed: decides folds and searches.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> scores = rng.normal(size=(12, 1)) - rng.normal(size=(1, 80)) + rng.normal(size=(12, 80))
        >>> methods = {"tau": SubsetMethod(criterion="kendall"), "expected tau": SubsetMethod()}
        >>> name, taus = choose_method(scores, 8, methods, budget=2000)
        >>> name in methods, taus[name].shape
        (True, (3,))
    """
    table = ScoreMatrix.of(scores)
    folds, repeats = whole_number("folds", folds, 2), whole_number("repeats", repeats, 1)
    models = len(table.models)
    if not methods:
        raise InvalidSettings("choose_method needs at least one method to choose from")
    if models < 3 * folds:
        raise InvalidSettings(f"{folds} folds need at least {3 * folds} models, but there are {models}; use fewer")
    rng = np.random.default_rng(seed)
    parts = [part for _ in range(repeats) for part in np.array_split(rng.permutation(models), folds)]
    taus = {
        name: np.array([_tau(method, table, size, part.tolist(), budget, margin, seed) for part in parts])
        for name, method in methods.items()
    }
    return max(taus, key=lambda name: float(taus[name].mean())), taus


def _tau(
    method: SubsetMethod, table: ScoreMatrix, size: int, left_out: Sequence[int], budget: int | Budget, margin: float,
    seed: int,
) -> float:  # fmt: skip
    if float(np.ptp(table.filled()[left_out].mean(axis=1))) <= margin:
        return 0.0
    objective = method.objective(table, size, select=left_out, margin=margin)
    result = search(objective, method.algorithm, budget=budget, seed=seed, shortlist=1)
    if result.row is None:  # all left-out models tie by estimate
        return 0.0
    found = objective.evaluate(Candidates(objective.space, result.row[None]), objective.cases(Split.SELECT))
    return float(np.nan_to_num(kendall_tau(found[:, :, 0], found[0, :, 1], margin)[0]))
