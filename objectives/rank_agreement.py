"""How well estimates rank models, for a hundred thousand sets of estimates at once.

Kendall's tau-b with a tie margin is the criterion of FlashEval (arXiv 2403.16379, Section 3.1; the margin is in its
released code). Every function takes estimates ``(n, m)`` of m models and their true scores, shape ``(m,)`` or
``(n, m)``, and returns one number for each of the n rows; no Python runs per row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from searchlib.errors import InvalidSettings

__all__ = ["AGREEMENTS", "expected_kendall", "kendall_tau", "mean_absolute_error", "spearman", "top_k_recall"]

Numbers = NDArray[np.floating[Any]]

#: Rows per block: the differences of a block of 40 models stay in the cache.
_BLOCK = 2048


def kendall_tau(estimates: Numbers, truth: Numbers, margin: float = 0.0) -> NDArray[np.float64]:
    """Kendall's tau-b, where two models tie if their scores differ by no more than ``margin``.

    tau = (C − D) / sqrt((pairs untied in the truth) · (pairs untied in the estimates)), with C pairs in the same order
    and D in the opposite one. With margin 0 it is ``scipy.stats.kendalltau``. Where everything ties it is NaN.

    Arguments:
        estimates: shape ``(n, m)``.
        truth: shape ``(m,)``, or ``(n, m)`` where every row has its own.
        margin: not negative, in units of the scores; used for both.

    Example:
        >>> kendall_tau(np.array([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]]), np.array([0.1, 0.2, 0.3])).round(3).tolist()
        [1.0, -0.333]
    """
    estimates, truth = _checked(estimates, truth)
    if not margin >= 0:
        raise InvalidSettings(f"a tie margin must be 0 or more, but is {margin!r}")
    if truth.ndim == 2:
        return _kendall_by_row(estimates, truth, margin)
    order = np.argsort(truth, kind="stable")
    higher = truth[order][None, :] - truth[order][:, None] > margin  # [j, i]: model i truly beats model j
    concordant, discordant, untied = _pair_counts(estimates, order, higher, margin)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((concordant - discordant) / np.sqrt(float(np.triu(higher).sum()) * untied))


def expected_kendall(estimates: Numbers, truth: Numbers) -> NDArray[np.float64]:
    """Kendall's tau expected of estimates that carry Gaussian noise of standard deviation 1.

    The difference of two estimates has standard deviation √2, so a pair of models that is Δ apart is ordered rightly
    with probability Φ(Δ/√2): the mean over pairs of erf(Δ/2), in the direction of the truth. Unlike tau it tells a pair
    won by a hair from one won by a mile, which is what carries over to other models. Divide estimates by the standard
    deviation of their noise first; the smaller it is, the nearer this is to tau.

    Arguments:
        estimates: shape ``(n, m)``, in units of their noise.
        truth: shape ``(m,)``.

    Example:
        >>> expected_kendall(np.array([[0.0, 1.0], [0.0, 100.0]]), np.array([0.0, 1.0])).round(3).tolist()
        [0.52, 1.0]
    """
    estimates, truth = _checked(estimates, truth)
    order = np.argsort(truth, kind="stable")
    ordered = truth[order]
    pairs = int((ordered[None, :] > ordered[:, None]).sum())
    total = np.empty(len(estimates))
    half = estimates.dtype.type(0.5)
    for start in range(0, len(estimates), _BLOCK):
        models = np.ascontiguousarray(estimates[start : start + _BLOCK].T[order]) * half
        summed = np.zeros(models.shape[1])
        for j in range(len(order) - 1):
            above = int(np.searchsorted(ordered, ordered[j], side="right"))  # models that truly tie count for nothing
            summed += erf(models[above:] - models[j]).sum(axis=0)
        total[start : start + _BLOCK] = summed
    return total / pairs if pairs else np.full(len(estimates), np.nan)


def spearman(estimates: Numbers, truth: Numbers) -> NDArray[np.float64]:
    """Spearman's rank correlation; ties get mean ranks. NaN where everything ties.

    Example:
        >>> spearman(np.array([[1.0, 2.0, 9.0]]), np.array([0.1, 0.2, 0.3])).tolist()
        [1.0]
    """
    from scipy import stats

    estimates, truth = _checked(estimates, truth)
    first = stats.rankdata(estimates, axis=1)
    second = stats.rankdata(np.broadcast_to(truth, estimates.shape) if truth.ndim == 2 else truth[None, :], axis=1)
    first, second = first - first.mean(axis=1, keepdims=True), second - second.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            (first * second).sum(axis=1) / np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
        )


def top_k_recall(estimates: Numbers, truth: Numbers, k: int = 5) -> NDArray[np.float64]:
    """The share of the k truly best models that are among the k best by estimate; of equals the first ones count.

    Example:
        >>> top_k_recall(np.array([[1.0, 5.0, 3.0]]), np.array([1.0, 2.0, 3.0]), k=1).tolist()
        [0.0]
    """
    estimates, truth = _checked(estimates, truth)
    m = estimates.shape[1]
    if not 1 <= k <= m:
        raise InvalidSettings(f"top_k_recall needs 1 <= k <= {m} models, but got k={k}")
    best = np.argsort(-np.broadcast_to(truth, estimates.shape), axis=1, kind="stable")[:, :k]
    guess = np.argsort(-estimates, axis=1, kind="stable")[:, :k]
    members = np.zeros(estimates.shape, np.bool_)
    np.put_along_axis(members, best, True, axis=1)
    return np.asarray(np.take_along_axis(members, guess, axis=1).mean(axis=1))


def mean_absolute_error(estimates: Numbers, truth: Numbers) -> NDArray[np.float64]:
    """The mean distance of an estimate from the true score; the only agreement that is better when it is lower.

    Example:
        >>> mean_absolute_error(np.array([[1.0, 5.0]]), np.array([2.0, 3.0])).tolist()
        [1.5]
    """
    estimates, truth = _checked(estimates, truth)
    return np.asarray(np.abs(estimates - truth).mean(axis=1), np.float64)


#: Agreements by name: function, and whether higher is better.
AGREEMENTS: Mapping[str, tuple[Callable[..., NDArray[np.float64]], bool]] = {
    "kendall": (kendall_tau, True),
    "spearman": (spearman, True),
    "top_k_recall": (top_k_recall, True),
    "mean_absolute_error": (mean_absolute_error, False),
}


def _checked(estimates: Numbers, truth: Numbers) -> tuple[Numbers, Numbers]:
    estimates, truth = np.asarray(estimates), np.asarray(truth)
    fits = estimates.ndim == 2 and truth.shape in (estimates.shape[1:], estimates.shape)
    if not fits or estimates.shape[1] < 2:
        raise InvalidSettings(
            f"estimates must have shape (n, m) with m >= 2 models and truth (m,) or (n, m), "
            f"but they have shapes {estimates.shape} and {truth.shape}"
        )
    return estimates, truth


def _pair_counts(
    estimates: Numbers, order: NDArray[np.intp], higher: NDArray[np.bool_], margin: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Pairs in the same order as the truth, in the opposite order, and untied in the estimates; each ``(n,)``."""
    n, m = estimates.shape
    counts = np.zeros((3, n), np.int64)
    no_ties = bool(higher.sum() == m * (m - 1) // 2)  # models are in the order of the truth: none below the diagonal
    small = np.int8 if m <= 127 else np.int64  # one model's pairs are counted in it
    edge = estimates.dtype.type(margin)
    for start in range(0, n, _BLOCK):
        models = np.ascontiguousarray(estimates[start : start + _BLOCK].T[order])
        concordant, discordant, untied = counts[:, start : start + _BLOCK]
        for j in range(m - 1):
            difference = models[j + 1 :] - models[j]
            above, below = difference > edge, difference < -edge
            if not no_ties:
                untied += (above | below).view(np.int8).sum(axis=0, dtype=small)
                above, below = above[higher[j, j + 1 :]], below[higher[j, j + 1 :]]
            concordant += above.view(np.int8).sum(axis=0, dtype=small)
            discordant += below.view(np.int8).sum(axis=0, dtype=small)
    if no_ties:
        counts[2] = counts[0] + counts[1]
    return counts[0], counts[1], counts[2]


def _kendall_by_row(estimates: Numbers, truth: Numbers, margin: float) -> NDArray[np.float64]:
    i, j = np.triu_indices(estimates.shape[1], 1)
    out = np.empty(len(estimates))
    for start in range(0, len(out), _BLOCK):
        block = slice(start, start + _BLOCK)
        first, second = estimates[block][:, j] - estimates[block][:, i], truth[block][:, j] - truth[block][:, i]
        signs = [(part > margin).astype(np.int8) - (part < -margin) for part in (first, second)]
        untied = np.count_nonzero(signs[0], axis=1) * np.count_nonzero(signs[1], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            out[block] = (signs[0] * signs[1]).sum(axis=1) / np.sqrt(untied.astype(np.float64))
    return out
