"""Who is ahead in a cell (family × budget): ranks over paired instances, and tests that say what is chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Standing", "ecdf", "holm", "standings"]

_RESAMPLES = 4000


@final
@dataclass(frozen=True)
class Standing:
    """One method in a cell.

    Arguments:
        rank: mean rank over instances, 1 the best; ties share the mean of their ranks.
        regret: median over instances of the true value recommended, scaled so that 0 is the best that any method
            found on that instance and 1 is what random search found (its median over the instance's problem).
        behind: how much lower (better) the reference method's rank is than this one's, on average.
        behind_bound: upper 95 % bound of reference rank − this rank (paired bootstrap over instances).
        wins: share of instances on which the reference is strictly better, ties half.
        p_better: one-sided Wilcoxon p-value that the reference is better than this one; Holm-corrected.
        p_worse: the same for worse.
    """

    rank: float
    regret: float
    behind: float
    behind_bound: float
    wins: float
    p_better: float
    p_worse: float


def standings(values: Mapping[str, Sequence[float]], reference: str, floor: str = "random") -> dict[str, Standing]:
    """Compare methods on the same instances.

    Arguments:
        values: true values recommended, lower is better; one per instance, in the same order for every method.
        reference: the method that the others are compared with.
        floor: the method whose values are regret 1.

    Example:
        >>> table = standings({"ours": [1.0, 2.0, 1.0], "theirs": [2.0, 3.0, 2.0], "random": [5.0, 5.0, 5.0]}, "ours")
        >>> table["ours"].rank, table["theirs"].rank, table["theirs"].wins
        (1.0, 2.0, 1.0)
    """
    from scipy.stats import rankdata, wilcoxon

    names = list(values)
    table = np.array([values[name] for name in names])
    ranks = rankdata(table, axis=0)
    best, worst = table.min(axis=0), table[names.index(floor)]
    scale = np.where(worst > best, worst - best, 1.0)
    regret = (table - best) / scale
    own = names.index(reference)
    rng = np.random.default_rng(0)
    picks = rng.integers(table.shape[1], size=(_RESAMPLES, table.shape[1]))
    better, worse = {}, {}
    for place, name in enumerate(names):
        difference = table[place] - table[own]
        if place == own or not np.abs(difference).max() > 0:
            better[name] = worse[name] = 1.0
            continue
        relative = difference / np.maximum(scale, 1e-300)  # instances of different problems, on one scale
        better[name] = float(wilcoxon(relative, alternative="greater", zero_method="zsplit").pvalue)
        worse[name] = float(wilcoxon(relative, alternative="less", zero_method="zsplit").pvalue)
    better, worse = holm(better, reference), holm(worse, reference)
    found = {}
    for place, name in enumerate(names):
        gap = ranks[own] - ranks[place]
        bound = float(np.quantile(gap[picks].mean(axis=1), 0.95))
        ahead = (table[own] < table[place]).mean() + 0.5 * (table[own] == table[place]).mean()
        found[name] = Standing(
            float(ranks[place].mean()), float(np.median(regret[place])), float(-gap.mean()), bound, float(ahead),
            better[name], worse[name],
        )  # fmt: skip
    return found


def holm(p_values: Mapping[str, float], left_out: str) -> dict[str, float]:
    """Holm's step-down correction (1979) over all methods but one."""
    order = sorted((name for name in p_values if name != left_out), key=p_values.__getitem__)
    corrected, so_far = {left_out: 1.0}, 0.0
    for place, name in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - place) * p_values[name]))
        corrected[name] = so_far
    return corrected


def ecdf(curves: NDArray[np.float64], targets: NDArray[np.float64], at: Sequence[int]) -> list[float]:
    """The share of (instance, target) pairs that were reached by so many evaluations.

    Arguments:
        curves: best true value after every evaluation, shape ``(instances, budget)``.
        targets: shape ``(instances, targets)``.
        at: numbers of evaluations.
    """
    best = np.minimum.accumulate(curves, axis=1)
    return [float((best[:, min(n, best.shape[1]) - 1][:, None] <= targets).mean()) for n in at]
