"""Where the total of a candidate will end of which some cells are known.

A candidate is looked at several times; a look shows one or several of its cells. Let k looks have shown the means
y₁ … y_k, and let m looks remain, whose cells weigh M together. If a look is the toss of a coin whose bias has a uniform
prior, the number of heads that remain is Beta-binomial (Johnson, Kemp and Kotz, *Univariate Discrete Distributions*,
third edition, section 6.2.2, with the parameters of the posterior, 1 + Σ y and 1 + k − Σ y), and what is still to
come to the total has

    mean M μ,    variance φ (M² / m) μ (1 − μ) (k + 2 + m) / (k + 3),    μ = (1 + Σ y) / (k + 2),

with φ = 1. Looks that are less spread than coins have a φ below 1: means of several rows, or scores that are not only 0
and 1. It is estimated as max(b, w / v), at most 1, from the spread between looks,

    b = (2 + Σ (y − ȳ)² / μ (1 − μ)) / (1 + k),

and from that of the v cells within a look, where x (1 − x) is how far a cell is from being 0 or 1,

    w = (2 + k − Σ mean(x (1 − x)) / μ (1 − μ)) / (2 + k).

Both are shrunk towards the coin, which has the weight of two looks. The φ is an addition of this library: an estimate
from few looks is rough, and the shrinkage was chosen on simulated tables.
"""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Forecast"]


@final
class Forecast:
    """What the looks at ``n`` candidates have shown, and what they let expect.

    Arguments:
        looks: how many looks each candidate will have had in the end, shape ``(n,)``.
        cells: how many equally weighted cells a look shows (an effective number), shape ``(n,)``.

    Example:
        >>> forecast = Forecast(np.array([9, 9]), np.ones(2))
        >>> forecast.add(np.array([0, 1]), np.array([0, 0]), np.ones(2), np.array([1.0, 0.0]))
        >>> mean, variance = forecast.rest(np.array([8.0, 8.0]))
        >>> mean.round(2).tolist(), variance.round(2).tolist()
        ([5.33, 2.67], [4.89, 4.89])
    """

    def __init__(self, looks: NDArray[np.int64], cells: NDArray[np.float64]) -> None:
        self._planned, self._cells = looks, cells
        # Number of looks so far, and their sums of y, of y², and of the mean of x (1 - x).
        self._k, self._y, self._yy, self._xx = np.zeros((4, len(looks)))

    def add(
        self, candidate: NDArray[np.int64], look: NDArray[np.int64], weight: NDArray[np.float64], x: NDArray[np.float64]
    ) -> None:
        """Take in new cells, all of a look together.

        Arguments:
            candidate, look: which look at which candidate each cell belongs to, shape ``(cells,)``.
            weight: of the cells in their look, shape ``(cells,)``.
            x: the cells' scores in [0, 1], shape ``(cells,)``.
        """
        looks, which = np.unique(np.stack([candidate, look]), axis=1, return_inverse=True)
        which = which.reshape(-1)
        mass = np.bincount(which, weight)
        y, xx = (np.bincount(which, weight * part) / mass for part in (x, x * (1 - x)))
        for sums, terms in ((self._k, None), (self._y, y), (self._yy, y * y), (self._xx, xx)):
            sums += np.bincount(looks[0], terms, len(sums))

    def rest(self, left: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of what is still to come to each total.

        Arguments:
            left: M, the weight of the cells that remain, shape ``(n,)``; 0 where there are none.
        """
        k = self._k
        m = np.maximum(self._planned - k, 1)
        mean = (1 + self._y) / (k + 2)
        coin = mean * (1 - mean)
        between = (2 + (self._yy - self._y**2 / np.maximum(k, 1)) / coin) / (1 + k)
        within = (2 + k - self._xx / coin) / (2 + k)
        spread = np.clip(np.maximum(between, within / self._cells), 0, 1)
        return left * mean, spread * left**2 / m * coin * (k + 2 + m) / (k + 3)
