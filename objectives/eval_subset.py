"""FlashEval: keep the few items of a benchmark that rank models like all of them.

L. Zhao, T. Zhao, Z. Lin, X. Ning, G. Dai, H. Yang, Y. Wang, *FlashEval: Towards Fast and Accurate Evaluation of
Text-to-image Diffusion Generative Models*, CVPR 2024, https://arxiv.org/abs/2403.16379.

Reproduced: Kendall's tau of subset means against full means, with tie margins; the search with a shrinking pool and
its released schedules (:class:`searchlib.ShrinkingPool`), for scores of any benchmark. New here: subsets are searched
for the tau that is *expected* of them under the noise of the scores, and end with exchanges of single items; the
paper's own method is ``EvalSubset(scores, size, criterion="kendall", replacement=True)`` searched by
``ShrinkingPool(polish=0)``. Not reproduced: the Fréchet distance (it has no score per item), and the image
generation that makes the scores.

In terms of the engine: a candidate is a set of items, a case is a *model*, the observation is (mean over the set, mean
over all items), and the value is their rank agreement over models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from searchlib.algorithms import ShrinkingPool, pool_schedule
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.objectives import eval_subset_baselines as baselines
from searchlib.objectives.item_subset import ItemSubset
from searchlib.objectives.rank_agreement import AGREEMENTS, expected_kendall, kendall_tau
from searchlib.objectives.score_matrix import ScoreMatrix
from searchlib.objectives.score_noise import ScoreNoise
from searchlib.space import Candidates
from searchlib.spaces import EvalSubsets, Subset

__all__ = ["EvalSubset"]

#: The criterion that reckons with noise; the others are the names of AGREEMENTS.
EXPECTED = "expected_kendall"


@final
class EvalSubset(Objective):
    """Which ``size`` items of a benchmark rank models like all its items do.

    Arguments:
        scores: a table models × items, higher is better: a :class:`~searchlib.objectives.ScoreMatrix`, an array, a
            DataFrame, or the path of a CSV, npz or parquet file. Missing cells are filled by the additive fit of model
            and item effects.
        size: number of items to keep.
        holdout: models (names or positions) on which the result is tested; the search never sees them.
        select: models on which the winner is picked from the short list. By default none: the search picks.
        criterion: ``"expected_kendall"``, or ``"kendall"``, ``"spearman"``, ``"top_k_recall"``,
            ``"mean_absolute_error"``. The first one is searched only; SELECT and HOLDOUT report Kendall's tau.
        noise: what the expected tau takes for noise.
        margin: models whose scores differ by no more than this tie (Kendall only).
        replacement: whether an item may be kept several times, as in the paper.
        k: how many best models ``"top_k_recall"`` asks for.

    Raises:
        InvalidSettings: an unknown model or criterion, a size that leaves no choice, fewer than 3 models to search on.

    Example:
        >>> from searchlib import search
        >>> rng = np.random.default_rng(0)
        >>> ability, difficulty = rng.normal(size=(12, 1)), rng.normal(size=(1, 200))
        >>> scores = ability - difficulty + rng.normal(size=(12, 200))
        >>> result = search(EvalSubset(scores, size=10, holdout=range(8, 12)), budget=20_000)
        >>> len(result.best.items), result.holdout.cases
        (10, 4)
    """

    additive = False
    recomputable = True
    chunk_rows = 16_384
    batch_size = 16_384

    def __init__(
        self,
        scores: Any,
        size: int,
        *,
        holdout: Sequence[str | int] = (),
        select: Sequence[str | int] = (),
        criterion: str = EXPECTED,
        noise: ScoreNoise | None = None,
        margin: float = 0.0,
        replacement: bool = False,
        k: int = 5,
    ) -> None:
        self.scores = ScoreMatrix.of(scores)
        if criterion != EXPECTED and criterion not in AGREEMENTS:
            raise InvalidSettings(f"criterion must be one of {[EXPECTED, *AGREEMENTS]}, but is {criterion!r}")
        items = len(self.scores.items)
        if not 1 <= size < items and not (replacement and size >= 1):
            raise InvalidSettings(f"size must be at least 1 and less than the {items} items, but is {size!r}")
        self.space = EvalSubsets(items, size) if replacement else Subset(items, size)
        self.direction = "maximize" if criterion == EXPECTED or AGREEMENTS[criterion][1] else "minimize"
        self.criterion, self.noise, self.margin, self.k = criterion, noise or ScoreNoise(), float(margin), k
        self._split = self._models(holdout, select)
        filled = self.scores.filled()
        self._full = filled.mean(axis=1)
        self._place = {name: row for row, name in enumerate(self.scores.models)}
        self._table = np.ascontiguousarray(filled.T)  # items × models, so that a subset gathers whole rows
        self._searched = filled[self._split[Split.SEARCH]]
        shrunk, variance = self.noise.split(self._searched)
        self._variance = variance
        # What the search averages, in single precision; the last column is the variance of the noise.
        columns = [shrunk.T, variance[:, None]] if criterion == EXPECTED else [self._searched.T]
        self._search_table = np.ascontiguousarray(np.concatenate(columns, axis=1), np.float32)

    def _models(self, holdout: Sequence[str | int], select: Sequence[str | int]) -> dict[Split, NDArray[np.intp]]:
        names = self.scores.models
        rows: dict[Split, NDArray[np.intp]] = {}
        for split, given in ((Split.HOLDOUT, holdout), (Split.SELECT, select)):
            unknown = [m for m in given if (m not in names if isinstance(m, str) else not 0 <= int(m) < len(names))]
            if unknown:
                raise InvalidSettings(f"the {split.value} model {unknown[0]!r} is not one of the {len(names)} models")
            chosen = [names.index(m) if isinstance(m, str) else int(m) for m in given]
            rows[split] = np.array(sorted(set(chosen)), np.intp)
        taken = np.concatenate(list(rows.values()))
        if len(set(taken.tolist())) < len(taken):
            raise InvalidSettings("a model is both in holdout= and in select=")
        rows[Split.SEARCH] = np.setdiff1d(np.arange(len(names)), taken)
        if len(rows[Split.SEARCH]) < 3:
            raise InvalidSettings(f"at least 3 models are needed to search on, but {len(rows[Split.SEARCH])} are left")
        return rows

    def cases(self, split: Split) -> Cases:
        """The models of a split."""
        return Cases(tuple(self.scores.models[row] for row in self._split[split]))

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Observations ``(n, c, 2)``: the estimate from the subset and the mean over all items.

        On the SEARCH models the estimate for ``"expected_kendall"`` is in units of its own noise.
        """
        rows = np.array([self._place[str(name)] for name in cases.ids], np.intp)
        searched = np.searchsorted(self._split[Split.SEARCH], rows)
        inside = np.isin(rows, self._split[Split.SEARCH])
        if inside.all() and len(rows):
            estimates = self._search_estimates(candidates.array)[:, searched]
        else:
            estimates = _means(candidates.array, self._table)[:, rows]
        out = np.empty((len(candidates), len(rows), 2))
        out[:, :, 0], out[:, :, 1] = estimates, self._full[rows]
        return out

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rank agreement of estimates and full means over models, shape ``(n, 1)``."""
        estimates, truth = scores[:, :, 0], scores[:, :, 1]
        same = bool(len(truth)) and bool((truth == truth[0]).all())
        searching = same and np.array_equal(truth[0], self._full[self._split[Split.SEARCH]])
        if self.criterion == EXPECTED and searching:
            return expected_kendall(estimates.astype(np.float32), truth[0])[:, None]
        one = truth[0] if same else truth
        if searching:
            estimates = estimates.astype(np.float32)  # they were averaged in single precision
        return self._agreement(estimates, one)[:, None]

    def _agreement(self, estimates: NDArray[np.floating[Any]], truth: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.criterion in (EXPECTED, "kendall"):
            return kendall_tau(estimates, truth, self.margin)
        settings = {"k": min(self.k, estimates.shape[1])} if self.criterion == "top_k_recall" else {}
        return AGREEMENTS[self.criterion][0](estimates, truth, **settings)

    def means(self, population: NDArray[Any]) -> NDArray[np.float32]:
        """What the search averages over every set: scores of the SEARCH models, and the variance of their noise."""
        return _means(population, self._search_table)

    def _search_estimates(self, population: NDArray[Any]) -> NDArray[np.float32]:
        means = self.means(population)
        if self.criterion != EXPECTED:
            return means
        noise = np.sqrt(means[:, -1:] / np.float32(population.shape[1]))
        return np.asarray(means[:, :-1] / noise)

    def references(self) -> tuple[str, ...]:
        """Cheap rivals of the same size, chosen on the SEARCH models, and a random set ten times as large."""
        larger = ("random, 10 times as many",) if 10 * self.space.dimension < len(self.scores.items) else ()
        return ("random", "best single items", "greedy mean matching", *larger)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Estimates of a reference and full means, shape ``(c, 2)``."""
        size, rng = self.space.dimension, np.random.default_rng(0)
        if name == "best single items":
            anchors = baselines.best_single_items(self._searched, size, rng)
        elif name == "greedy mean matching":
            anchors = baselines.greedy_mean_matching(self._searched, size, rng)
        else:
            anchors = baselines.random_items(self._searched, size if name == "random" else 10 * size, rng)
        rows = np.array([self._place[str(model)] for model in cases.ids], np.intp)
        estimates = anchors.weights @ self._table[anchors.items][:, rows]
        return np.stack([estimates, self._full[rows]], axis=1)

    def algorithm(self, evaluations: int | None) -> ShrinkingPool:
        """The released schedule; for the criterion that is worth polishing, its pools down to a fifth of the items."""
        del evaluations
        if self.criterion != EXPECTED:
            return ShrinkingPool(polish=0)
        items, size = len(self.scores.items), self.space.dimension
        pools = tuple(pool for pool in pool_schedule(items, size) if 5 * pool >= items)
        return ShrinkingPool(schedule=pools, polish=0.5)

    def artifact(self, value: Any) -> ItemSubset:
        """The chosen items, calibrated with the models that the search has seen."""
        rows = np.concatenate([self._split[Split.SEARCH], self._split[Split.SELECT]])
        kept = list(value)
        noise = float(np.sqrt(self._variance[kept].sum())) / self.noise.scale / len(kept)
        return ItemSubset(
            tuple(self.scores.items[item] for item in kept),
            tuple(self.scores.models[row] for row in rows),
            self._table[kept][:, rows].mean(axis=0),
            self._full[rows],
            noise,
        )

    def fingerprint(self) -> Mapping[str, Any]:
        """Criterion, noise, and a digest of the scores."""
        return {
            "objective": type(self).__name__,
            "criterion": self.criterion,
            "noise": repr(self.noise),
            "margin": self.margin,
            "k": self.k,
            "scores": hashlib.blake2b(self._table.tobytes(), digest_size=8).hexdigest(),
        }


def _means(population: NDArray[Any], table: NDArray[Any]) -> NDArray[Any]:
    """The mean row of ``table`` (items, columns) over every set, shape ``(n, columns)``."""
    n, size = population.shape
    weights = np.full(n * size, 1 / size, table.dtype)
    selection = sparse.csr_array(
        (weights, population.ravel(), np.arange(0, n * size + 1, size)), shape=(n, len(table))
    )
    return np.asarray(selection @ table)
