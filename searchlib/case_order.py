"""Which cases a new candidate meets first: random, but more likely the ones on which candidates differ.

Cases on which all candidates score alike say nothing about who is better. A fixed choice of the others (the subset of
FlashEval, arXiv 2403.16379) is biased for candidates unlike those that it was fitted to: the more, the fewer rows the
table has. So cases are drawn at random with unequal probabilities, and every estimate divides by them: unbiased
whatever a candidate does, and the more precise the better the probabilities fit.

The draw is sequential Poisson sampling (E. Ohlsson, *Sequential Poisson sampling*, Journal of Official Statistics 14,
1998): one order of all cases, of which every beginning is such a sample.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["chances", "drawn_order", "spread"]

#: How many rows the average of all cases counts for in the spread of each. With 4 or 16, chance differences between
#: the first eight complete rows decide too much: see the candidates that are nearly alike in tests/test_raced_rows.py.
_PRIOR = 64.0


def spread(scores: NDArray[np.float64], usual: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far scores usually are from what is usual on each case (root of the mean square), shape ``(c,)``, positive.

    The optimal chances of cases are proportional to it (Neyman's allocation). Cases on which no row was unusual get
    part of the average of all cases, so that none is left out.

    Arguments:
        scores: complete rows, shape ``(m, c)``.
        usual: what is usual, shape ``(c,)``.

    Example:
        >>> spread(np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]]), np.array([1.0, 0.0])).round(2)
        array([0.4 , 0.42])
    """
    squares = ((scores - usual) ** 2).sum(axis=0)
    average = squares.mean() / len(scores)
    if average <= 0:  # all rows are alike
        return np.ones(scores.shape[1])
    return np.asarray(np.sqrt((squares + _PRIOR * average) / (len(scores) + _PRIOR)))


def drawn_order(sizes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.intp]:
    """An order of the cases, shape ``(c,)``; those of larger ``sizes`` ``(c,)`` tend to come first."""
    return np.asarray(np.argsort(rng.random(len(sizes)) / sizes, kind="stable"))


def chances(sizes: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """With what probability each case is among the first ``n`` of :func:`drawn_order`, shape ``(c,)``.

    Proportional to ``sizes``, except that none exceeds 1; they add up to ``n``.

    Example:
        >>> chances(np.array([1.0, 1.0, 6.0]), 2)
        array([0.5, 0.5, 1. ])
    """
    chance: NDArray[Any] = np.ones(len(sizes))
    free = np.ones(len(sizes), np.bool_)
    while n < len(sizes):
        wanted = (n - (~free).sum()) * sizes / sizes[free].sum()
        chance = np.where(free, wanted, 1.0)
        if not (chance > 1).any():
            break
        free &= chance <= 1
    return chance
