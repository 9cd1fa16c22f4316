"""Optimal design: the items whose scores together tell most about the mean over all items.

Centered item by item, the scores of a model are taken to be normal with the covariance of the models at hand plus
independent noise on every item,

    x = L z + e,    z ~ N(0, I),    e ~ N(0, diag(ψ)),    L Lᵀ = Cᵀ C / (m − 1),

with C the m × items table of centered scores. The mean over all items is tᵀ z, t the mean row of L, and once the items
of a set S are known its variance is

    tᵀ P t,    P⁻¹ = I + Σ_{i ∈ S} λᵢ λᵢᵀ / ψᵢ,

which a set should make small: Bayesian c-optimality (Chaloner and Verdinelli, *Bayesian Experimental Design: A Review*,
1995, section 2). Adding item i lowers it by (λᵢᵀ P t)² / (ψᵢ + λᵢᵀ P λᵢ), so growing a set and exchanging single items
(Fedorov, 1972) cost one product of L with a vector per step.

Unlike the rank agreement on the models at hand, this cannot be won by fitting their noise: an item counts for what it
would add to the best linear prediction, and the noise of all items is in the account.
"""

from __future__ import annotations

from typing import Any, final

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

__all__ = ["ItemDesign"]

#: So many loadings of sets are looked up at once (16 MB).
_BLOCK = 2_000_000
#: Rounds of exchanges over all places; fewer where one changes nothing.
_ROUNDS = 8


@final
class ItemDesign:
    """What sets of items explain of the differences between models in their mean over all items.

    Arguments:
        centered: scores less their mean over models, shape ``(models, items)``.
        noise: ψ, the variance of the noise of every item, positive, shape ``(items,)``.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> ability, slopes = rng.normal(size=(9, 1)), np.array([0.1, 2.0, 0.1, 1.0, 0.1])
        >>> scores = ability * slopes
        >>> design = ItemDesign(scores - scores.mean(axis=0), np.ones(5))
        >>> design.best(2).tolist()
        [1, 3]
        >>> design.explained(np.array([[1, 3], [0, 2]])).round(2).tolist()
        [0.68, 0.01]
    """

    def __init__(self, centered: NDArray[np.float64], noise: NDArray[np.float64]) -> None:
        # The Gram matrix over models is small; its eigenvectors are the left singular vectors.
        values, directions = np.linalg.eigh(centered @ centered.T)
        directions = directions[:, values > 1e-12 * max(float(values[-1]), 1e-300)]
        root = float(np.sqrt(len(centered) - 1))
        self._factors = directions * root  # z of every model
        self._loadings = np.ascontiguousarray(centered.T @ directions / root)
        self._noise = noise
        self._target = self._loadings.mean(axis=0)

    def residuals(self, population: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """By how much the best linear prediction from every set misses the models at hand, and what its noise costs.

        The mean square of the first, with m − 1 for the mean, and the second add up to the variance that is left.

        Arguments:
            population: sets of items, shape ``(n, size)``.

        Returns:
            shapes ``(n, models)`` and ``(n,)``.
        """
        left = self._left(population)
        return left @ self._factors.T, np.asarray((left * (self._target - left)).sum(axis=1))

    def explained(self, population: NDArray[Any]) -> NDArray[np.float64]:
        """The share of the variance of the mean over all items that every set explains, in [0, 1), shape ``(n,)``."""
        return np.asarray(1 - self._left(population) @ self._target / (self._target @ self._target))

    def best(self, size: int) -> NDArray[np.int64]:
        """A set of ``size`` items that no exchange of one item improves, or as near to it as a few rounds come."""
        # Matrices this small gain nothing by threads, and sums would depend on their number.
        with threadpoolctl.threadpool_limits(1):
            belief = _Belief(self._loadings, self._noise, self._target)
            free = np.ones(len(self._loadings), np.bool_)
            chosen = []
            for _ in range(size):
                chosen.append(int(np.where(free, belief.gains(), -1.0).argmax()))
                free[chosen[-1]] = False
                belief.add(chosen[-1])
            for _ in range(_ROUNDS if free.any() else 0):
                if not self._exchange(chosen, free):
                    break
        return np.sort(chosen)

    def _exchange(self, chosen: list[int], free: NDArray[np.bool_]) -> bool:
        """Put the best item in every place in turn; whether any place has changed."""
        changed = False
        belief = _Belief(self._loadings, self._noise, self._target)  # anew every round: rounding errors add up
        for item in chosen:
            belief.add(item)
        for place, item in enumerate(chosen):
            belief.remove(item)
            gains = belief.gains()
            best = int(np.where(free, gains, -1.0).argmax())
            if gains[best] > gains[item] * (1 + 1e-9):
                free[item], free[best], chosen[place], changed = True, False, best, True
            belief.add(chosen[place])
        return changed

    def _left(self, population: NDArray[Any]) -> NDArray[np.float64]:
        """P t of every set, shape ``(n, factors)``."""
        n, size = population.shape
        out = np.empty((n, len(self._target)))
        step = max(1, _BLOCK // (size * len(self._target)))
        for start in range(0, n, step):
            block = population[start : start + step]
            out[start : start + step] = self._left_of(self._loadings[block], self._noise[block])
        return out

    def _left_of(self, loadings: NDArray[np.float64], noise: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same for loadings ``(n, size, factors)`` and noise ``(n, size)``, by the smaller of two systems."""
        size, factors = loadings.shape[1:]
        flipped = loadings.transpose(0, 2, 1)
        if factors <= size:
            precision = np.eye(factors) + (flipped / noise[:, None, :]) @ loadings
            wanted = np.broadcast_to(self._target[:, None], (len(noise), factors, 1))
            return np.asarray(np.linalg.solve(precision, wanted)[..., 0])
        covariance = loadings @ flipped
        covariance[:, np.arange(size), np.arange(size)] += noise
        weights = np.linalg.solve(covariance, (loadings @ self._target)[..., None])
        return np.asarray(self._target - (flipped @ weights)[..., 0])


@final
class _Belief:
    """P, and what follows from it for every item, as items come and go one by one."""

    def __init__(self, loadings: NDArray[np.float64], noise: NDArray[np.float64], target: NDArray[np.float64]) -> None:
        self._loadings, self._noise, self._target = loadings, noise, target
        self._posterior = np.eye(len(target))
        self._reach = loadings @ target  # λᵢᵀ P t
        self._spread = (loadings**2).sum(axis=1)  # λᵢᵀ P λᵢ

    def gains(self) -> NDArray[np.float64]:
        """By how much every item would lower the variance, shape ``(items,)``."""
        return np.asarray(self._reach**2 / (self._noise + self._spread))

    def add(self, item: int) -> None:
        """Know the score of this item, too."""
        self._update(item, self._noise[item])

    def remove(self, item: int) -> None:
        """Know it no longer."""
        self._update(item, -self._noise[item])

    def _update(self, item: int, noise: float) -> None:
        """Sherman and Morrison's formula for a row more or, with negative noise, one fewer."""
        direction = self._posterior @ self._loadings[item]
        scale = noise + float(self._loadings[item] @ direction)
        across = self._loadings @ direction
        self._posterior -= np.outer(direction, direction) / scale
        self._reach -= across * (float(direction @ self._target) / scale)
        self._spread -= across**2 / scale
