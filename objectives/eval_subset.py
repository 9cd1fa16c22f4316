"""FlashEval: keep the few items of a benchmark that rank models like all of them.

L. Zhao, T. Zhao, Z. Lin, X. Ning, G. Dai, H. Yang, Y. Wang, *FlashEval: Towards Fast and Accurate Evaluation of
Text-to-image Diffusion Generative Models*, CVPR 2024, https://arxiv.org/abs/2403.16379.

Reproduced: Kendall's tau of subset means against full means, with tie margins; the search with a shrinking pool and
its released schedules (:class:`searchlib.ShrinkingPool`), for scores of any benchmark. New here: subsets are searched
for what they *explain* of the differences between models (:mod:`searchlib.objectives.item_design`), or for the tau that
is *expected* of them under the noise of the scores. The paper's own method is
``EvalSubset(scores, size, criterion="kendall", replacement=True)``. Not reproduced: the Fréchet distance (it has no
score per item), and the image generation that makes the scores.

In terms of the engine: a candidate is a set of items, a case is a *model*, the observation is (mean over the set, mean
over all items), and the value is their rank agreement over models.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from searchlib.algorithms import ShrinkingPool, pool_schedule
from searchlib.arguments import flag, instance, one_of, shown, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.objectives import eval_subset_baselines as baselines
from searchlib.objectives.item_design import ItemDesign
from searchlib.objectives.item_subset import ItemSubset, choice_effects, left_out_noise
from searchlib.objectives.rank_agreement import AGREEMENTS, expected_kendall, kendall_tau
from searchlib.objectives.score_matrix import ScoreMatrix, additively_filled
from searchlib.objectives.score_noise import ScoreNoise
from searchlib.space import Candidates, Population
from searchlib.spaces import EvalSubsets, Subset

__all__ = ["EvalSubset"]

#: Criteria that reckon with noise, and what they take for it by default; the others are the names of AGREEMENTS.
EXPLAINED, EXPECTED = "explained_variance", "expected_kendall"
NOISE: Mapping[str, ScoreNoise] = {
    EXPLAINED: ScoreNoise(shrinkage=0.0, scale=0.55, pooling=0.3),
    EXPECTED: ScoreNoise(),
}
#: On DiffusionDB's scores a design of 50 items or more ranks unseen models best, of 10 or fewer the expected tau does.
DESIGNED_FROM = 30


@final
class EvalSubset(Objective):
    """Which ``size`` items of a benchmark rank models like all its items do.

    Arguments:
        scores: a table models × items, higher is better: a :class:`~searchlib.objectives.ScoreMatrix`, an array, a
            DataFrame, or the path of a CSV, npz or parquet file. Missing cells are filled by the additive fit of model
            and item effects; those of the models searched on without a look at the others. Of an error or a perplexity
            pass the negative.
        size: number of items to keep.
        holdout: models (names or positions) on which the result is tested, at least 2; the search never sees them.
        select: models on which the winner is picked from the short list, at least 2. By default none: the search picks.
        criterion: ``"explained_variance"``, ``"expected_kendall"``, ``"kendall"``, ``"spearman"``, ``"top_k_recall"``,
            or ``"mean_absolute_error"``. The first two are searched only; SELECT and HOLDOUT report Kendall's tau.
            None: the first from 30 items on, the second for fewer.
        noise: what the first two take for noise; None: what was found to suit them.
        margin: models whose scores differ by no more than this tie (Kendall only).
        replacement: whether an item may be kept several times, as in the paper.
        k: how many best models ``"top_k_recall"`` asks for.

    Raises:
        InvalidSettings: an unknown model or criterion, a size that leaves no choice, fewer than 3 models to search on,
            or models of one split that are all equally good.

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
        criterion: str | None = None,
        noise: ScoreNoise | None = None,
        margin: float = 0.0,
        replacement: bool = False,
        k: int = 5,
    ) -> None:
        self.scores = ScoreMatrix.of(scores)
        if criterion is None:
            criterion = EXPECTED if whole_number("size", size, 1) < DESIGNED_FROM else EXPLAINED
        one_of("criterion", criterion, [*NOISE, *AGREEMENTS])
        if noise is not None:
            instance("noise", noise, ScoreNoise, "a ScoreNoise(…)")
        flag("replacement", replacement)
        items = len(self.scores.items)
        size, k = whole_number("size", size, 1), whole_number("k", k, 1)
        if size >= items and not replacement:
            raise InvalidSettings(f"size must be at least 1 and less than the {items} items, but is {size!r}")
        self.space = EvalSubsets(items, size) if replacement else Subset(items, size)
        self.direction = "maximize" if criterion in NOISE or AGREEMENTS[criterion][1] else "minimize"
        self.criterion, self.margin, self.k = criterion, _margin(margin), k
        self.noise = noise or NOISE.get(criterion, ScoreNoise())
        self._split = self._models(holdout, select)
        filled = self._filled()
        # Where scores are multiples of 1/unit, whole numbers are summed: models that tie, tie exactly.
        self._unit = unit = _unit(filled, size)
        summed = np.rint(filled * unit) if unit else filled
        self._full = summed.sum(axis=1) / (items * unit) if unit else filled.mean(axis=1)
        self._check_ranking()
        self._place = {name: row for row, name in enumerate(self.scores.models)}
        self._table = np.ascontiguousarray(filled.T)
        self._summed = np.ascontiguousarray(summed.T)  # items × models, so that a subset gathers whole rows
        self._searched = filled[self._split[Split.SEARCH]]
        shrunk, variance = self.noise.split(self._searched)
        self._design = ItemDesign(shrunk, variance) if criterion == EXPLAINED else None
        # What the search averages, in single precision; the last column is the variance of the noise.
        searching = self._split[Split.SEARCH]
        columns = [shrunk.T, variance[:, None]] if criterion == EXPECTED else [summed[searching].T]
        joined = np.concatenate(columns, axis=1)
        self._search_unit = 0 if criterion == EXPECTED else unit
        self._search_table = np.ascontiguousarray(joined, self._precision(joined))

    def _models(self, holdout: Sequence[str | int], select: Sequence[str | int]) -> dict[Split, NDArray[np.intp]]:
        names = self.scores.models
        rows: dict[Split, NDArray[np.intp]] = {}
        for split, given in ((Split.HOLDOUT, holdout), (Split.SELECT, select)):
            rows[split] = np.array(sorted(set(_positions(split.value, given, names))), np.intp)
        taken = np.concatenate(list(rows.values()))
        if len(set(taken.tolist())) < len(taken):
            raise InvalidSettings("a model is both in holdout= and in select=")
        alone = [split.value for split, chosen in rows.items() if len(chosen) == 1]
        if alone:
            raise InvalidSettings(f"{alone[0]}= needs at least 2 models, one alone has no rank; add one or more")
        rows[Split.SEARCH] = np.setdiff1d(np.arange(len(names)), taken)
        if len(rows[Split.SEARCH]) < 3:
            raise InvalidSettings(f"at least 3 models are needed to search on, but {len(rows[Split.SEARCH])} are left")
        few = min(len(part) for part in rows.values() if len(part))
        if self.criterion == "top_k_recall" and self.k >= few:
            raise InvalidSettings(
                f"top_k_recall with k={self.k} is always 1 where there are no more models, and one part has {few}; "
                f"lower k= or hold out more models"
            )
        return rows

    def _filled(self) -> NDArray[np.float64]:
        """The scores without gaps; those of the models searched on are filled without a look at the others."""
        filled = self.scores.filled()
        if self.scores.missing:
            filled = filled.copy()
            search = self._split[Split.SEARCH]
            both = np.concatenate([search, self._split[Split.SELECT]])
            filled[both] = additively_filled(self.scores.scores[both])
            filled[search] = additively_filled(self.scores.scores[search])
        return filled

    def _check_ranking(self) -> None:
        for split, rows in self._split.items():
            means = self._full[rows]
            if self.criterion != "mean_absolute_error" and len(rows) and float(np.ptp(means)) <= self._tie_margin:
                raise InvalidSettings(
                    f"the {len(rows)} {split.value} models have the same mean score, {means[0]:.6g}, up to the margin "
                    f"{self._tie_margin}: there is nothing to rank; use other models or a smaller margin"
                )

    def _precision(self, table: NDArray[np.float64]) -> type[np.float32] | type[np.float64]:
        """Single precision where it tells the models apart, which it does not next to a large offset."""
        largest = float(np.abs(table).max())
        apart = float(self._full[self._split[Split.SEARCH]].std())
        fine = 1e-12 < largest < 1e12 and largest * float(np.finfo(np.float32).eps) < 1e-3 * apart
        return np.float32 if fine or self._search_unit else np.float64

    def cases(self, split: Split) -> Cases:
        """The models of a split."""
        return Cases(tuple(self.scores.models[row] for row in self._split[split]))

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Observations ``(n, c, 2)``: the estimate from the subset and the mean over all items.

        On the SEARCH models the estimate for ``"expected_kendall"`` is in units of its own noise. For
        ``"explained_variance"`` it is the best linear prediction there, and the variance of its noise comes third.
        """
        rows = np.array([self._place[str(name)] for name in cases.ids], np.intp)
        searched = np.searchsorted(self._split[Split.SEARCH], rows)
        inside = np.isin(rows, self._split[Split.SEARCH])
        if inside.all() and len(rows) and self._design is not None:
            missed, noise = self._design.residuals(candidates.array)
            full = self._full[rows]
            return np.stack(np.broadcast_arrays(full - missed[:, searched], full, noise[:, None]), axis=2)
        if inside.all() and len(rows):
            estimates = self._search_estimates(candidates.array)[:, searched]
        else:
            estimates = _means(candidates.array, self._summed, self._unit)[:, rows]
        out = np.empty((len(candidates), len(rows), 2))
        out[:, :, 0], out[:, :, 1] = estimates, self._full[rows]
        return out

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The rank agreement of estimates and full means, or the share of their variance explained, ``(n, 1)``."""
        estimates, truth = scores[:, :, 0], scores[:, :, 1]
        if scores.shape[2] == 3:
            left = ((estimates - truth) ** 2).sum(axis=1) / (truth.shape[1] - 1) + scores[:, :, 2].mean(axis=1)
            return (1 - left / truth.var(axis=1, ddof=1))[:, None]
        same = bool(len(truth)) and bool((truth == truth[0]).all())
        searching = same and np.array_equal(truth[0], self._full[self._split[Split.SEARCH]])
        if self.criterion == EXPECTED and searching:
            return expected_kendall(estimates.astype(self._search_table.dtype), truth[0])[:, None]
        one = truth[0] if same else truth
        if searching:
            estimates = estimates.astype(self._search_table.dtype)  # in which they were averaged
        return self._agreement(estimates, one)[:, None]

    def _agreement(self, estimates: NDArray[np.floating[Any]], truth: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.criterion in (*NOISE, "kendall"):
            values = kendall_tau(estimates, truth, self.margin)
        else:
            settings = {"k": min(self.k, estimates.shape[1])} if self.criterion == "top_k_recall" else {}
            values = AGREEMENTS[self.criterion][0](estimates, truth, **settings)
        # Items on which all models tie order nothing: no agreement, not a failure.
        return np.where(np.isnan(values) & (np.ptp(truth, axis=-1) > self._tie_margin), 0.0, values)

    @property
    def _tie_margin(self) -> float:
        return self.margin if self.criterion in (*NOISE, "kendall") else 0.0

    def means(self, population: NDArray[Any]) -> NDArray[np.floating[Any]]:
        """What the search averages over every set: scores of the SEARCH models, and the variance of their noise."""
        return _means(population, self._search_table, self._search_unit)

    def _search_estimates(self, population: NDArray[Any]) -> NDArray[np.floating[Any]]:
        means = self.means(population)
        if self.criterion != EXPECTED:
            return means
        noise = np.sqrt(means[:, -1:] / means.dtype.type(population.shape[1]))
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
        estimates = _means(anchors.items[None, :], self._summed, self._unit)[0, rows]  # these weigh all items alike
        return np.stack([estimates, self._full[rows]], axis=1)

    def seeds(self) -> Population:
        """For ``"explained_variance"`` the optimal design, which needs no search; none for other criteria."""
        if self._design is None:
            return super().seeds()
        return self.space.canonical(self._design.best(self.space.dimension)[None, :].astype(self.space.dtype))

    def _designed(self, scores: NDArray[np.float64]) -> NDArray[np.int64]:
        return ItemDesign(*self.noise.split(scores)).best(self.space.dimension)

    def algorithm(self, evaluations: int | None) -> ShrinkingPool:
        """What suits the criterion: exchanges in the seed; some pools, then exchanges; the released schedule."""
        del evaluations
        if self.criterion == EXPLAINED:
            return ShrinkingPool(schedule=(), samples=1, polish=0.5)
        if self.criterion != EXPECTED:
            return ShrinkingPool(polish=0)
        items, size = len(self.scores.items), self.space.dimension
        pools = tuple(pool for pool in pool_schedule(items, size) if 5 * pool >= items)
        return ShrinkingPool(schedule=pools, polish=0.5)

    def artifact(self, value: Any) -> ItemSubset:
        """The chosen items, calibrated with the models that the search has seen."""
        searched, selected = self._split[Split.SEARCH], self._split[Split.SELECT]
        rows, kept = np.concatenate([searched, selected]), np.array(value)
        stretch, noise = choice_effects(self._searched, kept)
        if self._design is not None:
            noise = max(noise, left_out_noise(self._searched, self._designed))
        means = self._table[kept][:, rows].mean(axis=0)
        among = means[: len(searched)]
        among += (stretch - 1) * (among - among.mean())  # in place
        return ItemSubset(
            tuple(self.scores.items[item] for item in kept),
            tuple(self.scores.models[row] for row in rows),
            means,
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


def _positions(argument: str, given: Any, names: Sequence[str]) -> list[int]:
    """Where the models are that ``given`` names or counts."""
    if isinstance(given, str) or not np.iterable(given):
        raise InvalidSettings(f"{argument}= is a list of models (names or positions), but is {shown(given)}")
    found: list[int] = []
    for model in given:
        if isinstance(model, bool | np.bool_):
            raise InvalidSettings(f"{argument}= is a list of names or positions, not a mask; pass np.flatnonzero(mask)")
        try:
            place = names.index(model) if isinstance(model, str) else operator.index(model)
        except (TypeError, ValueError):
            place = -1
        if not 0 <= place < len(names):
            raise InvalidSettings(
                f"the {argument} model {shown(model)} is not one of the {len(names)} models "
                f"({', '.join(map(repr, names[:3]))}, …)"
            )
        found.append(place)
    return found


def _margin(margin: Any) -> float:
    try:
        value = math.nan if isinstance(margin, str | bool) or np.ndim(margin) else float(margin)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise InvalidSettings(f"a tie margin must be 0 or more, in units of the scores, but is {shown(margin)}")
    return value


def _unit(scores: NDArray[np.float64], size: int) -> int:
    """The least whole number that makes all scores whole (1 for right and wrong), 0 where none up to 100 does."""
    levels = np.unique(scores)
    if len(levels) > 1000:
        return 0
    for unit in range(1, 101):
        scaled = levels * unit
        # Sums below 2^22 are exact in single precision, and so different that their quotients differ, too.
        if np.abs(scaled).max() * size < 2**22 and np.abs(scaled - np.rint(scaled)).max() < 1e-9:
            return unit
    return 0


def _means(population: NDArray[Any], table: NDArray[Any], unit: int) -> NDArray[Any]:
    """The mean row over every set, shape ``(n, columns)``, of ``table`` (items, columns) or, unless 0, table / unit."""
    n, size = population.shape
    weights = np.full(n * size, 1 if unit else 1 / size, table.dtype)
    selection = sparse.csr_array(
        (weights, population.ravel(), np.arange(0, n * size + 1, size)), shape=(n, len(table))
    )
    means = np.asarray(selection @ table)
    return means / means.dtype.type(size * unit) if unit else means
