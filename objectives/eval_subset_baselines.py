"""What subsets of benchmark items are compared with: rows of the table, and rivals that are cheap to make.

Every function takes the scores of the training models, shape ``(models, items)``, a size and a generator, and returns
:class:`Anchors`. "B3-prompt" and "B3-set" are FlashEval's names (arXiv 2403.16379, Section 5); anchor points by item
response theory are tinyBenchmarks' (arXiv 2402.14992, Section 4).
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.cluster import vq

from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings
from searchlib.objectives.item_response import binarized, fit_2pl
from searchlib.objectives.rank_agreement import kendall_tau

__all__ = [
    "Anchors", "best_random_set", "best_single_items", "greedy_mean_matching", "irt_anchor_items", "kmedoid_items",
    "random_items",
]  # fmt: skip

Scores = NDArray[np.floating[Any]]

_BLOCK = 8192


class Anchors(NamedTuple):
    """Chosen items and how they are averaged: ``items`` (size,) positions, ``weights`` (size,) that sum to one."""

    items: NDArray[np.int64]
    weights: NDArray[np.float64]


def random_items(scores: Scores, size: int, rng: np.random.Generator) -> Anchors:
    """Distinct items at random.

    Example:
        >>> random_items(np.zeros((3, 10)), 2, np.random.default_rng(0)).weights.tolist()
        [0.5, 0.5]
    """
    return _equal(rng.choice(_items(scores, size), size, replace=False))


def best_single_items(scores: Scores, size: int, rng: np.random.Generator) -> Anchors:
    """B3-prompt: the items that rank the models best, each by itself; of equals the first."""
    del rng
    _items(scores, size)
    taus = np.nan_to_num(kendall_tau(scores.T, scores.mean(axis=1)), nan=-1.0)
    return _equal(np.argsort(-taus, kind="stable")[:size])


def best_random_set(
    scores: Scores, size: int, rng: np.random.Generator, *, sets: int = 100_000, replacement: bool = True,
    margin: float = 0.0,
) -> Anchors:  # fmt: skip
    """B3-set: the best of many random sets by Kendall's tau on the training models; the paper draws with replacement.

    An item that is drawn twice counts twice, so there may be fewer different items than ``size``.
    """
    items = _items(scores, size)
    truth, table = scores.mean(axis=1), np.ascontiguousarray(scores.T)
    best, kept = -np.inf, np.arange(size)
    for start in range(0, sets, _BLOCK):
        n = min(_BLOCK, sets - start)
        drawn = rng.integers(items, size=(n, size)) if replacement else np.argsort(rng.random((n, items)))[:, :size]
        places = np.arange(0, n * size + 1, size)
        chosen = sparse.csr_array((np.full(n * size, 1 / size), drawn.ravel(), places), shape=(n, items))
        taus = np.nan_to_num(kendall_tau(chosen @ table, truth, margin), nan=-1.0)
        first = int(taus.argmax())
        if taus[first] > best:
            best, kept = float(taus[first]), drawn[first]
    return _equal(np.sort(kept))


def greedy_mean_matching(scores: Scores, size: int, rng: np.random.Generator) -> Anchors:
    """Add, one by one, the item that brings the subset means of the models closest to their full means.

    Closest in squares over models, after the mean over models is taken out: an offset that all models share changes
    no rank. Not in the paper, and a strong cheap rival.
    """
    del rng
    items = _items(scores, size)
    centered = scores - scores.mean(axis=0)
    target, total = centered.mean(axis=1), np.zeros(len(scores))
    squares, free = (centered**2).sum(axis=0), np.ones(items, np.bool_)
    chosen: list[int] = []
    for count in range(1, size + 1):
        rest = total - count * target
        distance = squares + 2 * rest @ centered  # |total + item - count · target|², up to what all items share
        chosen.append(int(np.where(free, distance, np.inf).argmin()))
        free[chosen[-1]] = False
        total = total + centered[:, chosen[-1]]
    return _equal(np.array(chosen))


def kmedoid_items(scores: Scores, size: int, rng: np.random.Generator) -> Anchors:
    """Cluster the items by their scores over models (k-means) and keep the item nearest to each center.

    An item weighs as much as its cluster has items.
    """
    _items(scores, size)
    return _nearest_to_centers(np.ascontiguousarray(scores.T), size, rng)


def irt_anchor_items(scores: Scores, size: int, rng: np.random.Generator) -> Anchors:
    """Cluster the items by what an item response model says about them, and keep the item nearest to each center.

    tinyBenchmarks' anchors: continuous scores become 0 and 1, a two-parameter logistic model is fitted, and items are
    clustered by slope and intercept; an item weighs as much as its cluster has items.
    """
    _items(scores, size)
    fitted = fit_2pl(binarized(scores))
    return _nearest_to_centers(np.stack([fitted.slopes, fitted.intercepts], axis=1), size, rng)


def _items(scores: Scores, size: int) -> int:
    items = scores.shape[1]
    if whole_number("size", size, 1) > items:
        raise InvalidSettings(f"size must be a whole number from 1 to the {items} items, but is {size!r}")
    return int(items)


def _equal(items: NDArray[Any]) -> Anchors:
    return Anchors(np.asarray(items, np.int64), np.full(len(items), 1 / len(items)))


def _nearest_to_centers(points: NDArray[Any], size: int, rng: np.random.Generator) -> Anchors:
    spread = points.std(axis=0)
    scaled = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    centers, owner = _kmeans(scaled, size, rng)
    chosen: list[int] = []
    free = np.ones(len(scaled), np.bool_)
    weights = np.bincount(owner, minlength=size).astype(np.float64)
    for center in centers:
        distance = ((scaled - center) ** 2).sum(axis=1)
        chosen.append(int(np.where(free, distance, np.inf).argmin()))
        free[chosen[-1]] = False
    weights = np.maximum(weights, 0.5)  # an item of an empty cluster is there, and hardly counts
    return Anchors(np.array(chosen), weights / weights.sum())


def _kmeans(points: NDArray[Any], size: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    """Centers ``(size, d)`` and the cluster of every point; where points coincide, clusters may be empty."""
    if size == 1:
        return points.mean(axis=0, keepdims=True), np.zeros(len(points), np.int64)
    different, owner = np.unique(points, axis=0, return_inverse=True)
    if len(different) <= size:  # a cluster for each, and the rest empty, at points that are there already
        again = np.resize(np.arange(len(different)), size)
        return different[again], owner.ravel()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty", category=UserWarning)
        centers, clusters = vq.kmeans2(points, size, minit="++", iter=30, missing="warn", rng=rng)
    return centers, clusters
