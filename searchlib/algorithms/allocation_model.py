"""What evaluations say about an additive profile: a Bayesian linear model of the joint value."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Population

__all__ = ["AllocationModel", "Fitted"]

#: Misfit of entries as a share of their loss, and residual as a share of the spread of values, that are compared.
_MISFITS = (0.1, 0.3, 1.0)
_RESIDUALS = (0.02, 0.1, 0.3, 1.0)
#: Standard deviation of the factor between additive and joint differences.
_FACTOR = 0.5
#: Slopes of the values within this factor of 1 are no matter of units; they are looked at from so many evaluations on.
_SAME_UNITS, _ENOUGH = 4.0, 5
#: Evaluations that are modeled: the best ones beyond that.
_ROWS = 400


@final
class AllocationModel:
    """Joint value = constant + factor · sum of the profile's losses + sum of corrections + residual.

    The factor is about 1, in the units of the values: a profile in others (several metrics, by weights that only say
    how they compare) is brought to theirs by the slope of the values first. The correction of a (part, option) has
    the entry's variance (its squared standard error) and that of a misfit in proportion to its loss, since parts act
    together otherwise than alone; the residual is what no sum over parts explains. How large misfit and residual are
    follows from the marginal likelihood on a grid. All Gaussian, so the posterior of n evaluations takes an n × n
    matrix whatever the number of parts; draws from it are prior draws corrected by what they leave unexplained
    (Matheron's rule).

    Arguments:
        loss: shape ``(parts, options)``, finite.
        error: standard errors, shaped alike, finite; 0 for the base.
        base: shape ``(parts,)``; its entries are not corrected.
    """

    def __init__(self, loss: NDArray[np.float64], error: NDArray[np.float64], base: NDArray[np.int64]) -> None:
        self.loss = loss
        free = np.ones(loss.shape, np.bool_)
        free[np.arange(len(base)), base] = False
        typical = float(np.median(np.abs(loss[free]))) if free.any() else 0.0
        self.noise = np.where(free, error**2, 0.0)
        self.misfit = np.where(free, loss**2 + (0.1 * typical) ** 2, 0.0)

    def prior_draw(self, rng: np.random.Generator, misfit: float) -> NDArray[np.float64]:
        """Losses that may be true before anything was evaluated, ``(parts, options)``."""
        scale = np.sqrt(self.noise + misfit**2 * self.misfit)
        return np.asarray(self.loss + scale * rng.standard_normal(scale.shape))

    def fit(self, rows: Population, values: NDArray[np.float64]) -> Fitted:
        """Condition on evaluations: rows ``(n, parts)`` and their values ``(n,)``, at least one."""
        if len(rows) > _ROWS:
            kept = np.sort(np.argsort(values, kind="stable")[:_ROWS])
            rows, values = rows[kept], values[kept]
        rows = rows.astype(np.intp)
        sums = self._sums(self.loss, rows)
        unit = _unit(sums, values)
        if unit != 1.0:
            return self._scaled(unit).fit(rows, values)
        spread = max(float(np.std(values)), float(np.std(sums)), 1e-9 * (1 + abs(float(values[0]))))
        constant = float(np.mean(values - sums))
        given = values - constant - sums
        noise, misfit = self._gram(self.noise, rows), self._gram(self.misfit, rows)
        centered = sums - sums.mean()  # the factor turns around the mean, the constant takes the rest
        known = noise + _FACTOR**2 * np.outer(centered, centered) + (10 * spread) ** 2
        best_score, best = -math.inf, (_MISFITS[-1], _RESIDUALS[-1] * spread)
        for share in _MISFITS:
            for part in _RESIDUALS:
                score = _likelihood(known + share**2 * misfit, (part * spread) ** 2, given)
                if score > best_score:
                    best_score, best = score, (share, part * spread)
        return Fitted(self, rows, given, centered, known + best[0] ** 2 * misfit, *best)

    def _scaled(self, unit: float) -> AllocationModel:
        """The same in other units."""
        scaled = copy.copy(self)
        scaled.loss, scaled.noise, scaled.misfit = unit * self.loss, unit**2 * self.noise, unit**2 * self.misfit
        return scaled

    @staticmethod
    def _sums(table: NDArray[np.float64], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        return np.asarray(table[np.arange(rows.shape[1]), rows].sum(axis=1))

    @staticmethod
    def _gram(variance: NDArray[np.float64], rows: NDArray[np.intp]) -> NDArray[np.float64]:
        """The covariance of the rows' sums where every entry has this variance."""
        gram = np.zeros((len(rows), len(rows)))
        for part in range(rows.shape[1]):
            own = rows[:, part]
            gram += variance[part, own] * (own[:, None] == own)
        return gram


@final
@dataclass(frozen=True, eq=False)
class Fitted:
    """The posterior.

    Arguments:
        model: the prior.
        rows: shape ``(n, parts)``.
        given: shape ``(n,)``, what the prior mean leaves unexplained.
        centered: shape ``(n,)``, the rows' additive losses around their mean.
        covariance: shape ``(n, n)``, of the prior without residual.
        misfit: share of the losses by which entries may be off.
        residual: standard deviation of what no sum explains.
    """

    model: AllocationModel
    rows: NDArray[np.intp]
    given: NDArray[np.float64]
    centered: NDArray[np.float64]
    covariance: NDArray[np.float64]
    misfit: float
    residual: float

    def draw(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """Losses that may be true, ``(parts, options)``."""
        model = self.model
        variance = model.noise + self.misfit**2 * model.misfit
        correction = np.sqrt(variance) * rng.standard_normal(variance.shape)
        factor = _FACTOR * rng.standard_normal()
        residual = self.residual * rng.standard_normal(len(self.rows))
        constant = math.sqrt(max(self._constant, 0.0)) * rng.standard_normal()
        drawn = model._sums(correction, self.rows) + factor * self.centered + constant + residual
        return self._updated(self.given - drawn, correction, factor)

    def mean(self) -> NDArray[np.float64]:
        """Expected losses, ``(parts, options)``."""
        return self._updated(self.given, np.zeros_like(self.model.loss), 0.0)

    @property
    def _constant(self) -> float:
        own = self.model.noise + self.misfit**2 * self.model.misfit
        first = float(self.covariance[0, 0] - self.model._sums(own, self.rows[:1])[0])
        return first - _FACTOR**2 * float(self.centered[0] ** 2)

    def _updated(
        self, left: NDArray[np.float64], correction: NDArray[np.float64], factor: float
    ) -> NDArray[np.float64]:
        """Prior corrections and factor, moved by what is left unexplained."""
        model, parts = self.model, self.rows.shape[1]
        jitter = self.residual**2 + 1e-12 * np.trace(self.covariance) / len(left)
        weights = np.linalg.solve(self.covariance + jitter * np.eye(len(left)), left)
        per_entry = np.zeros(model.loss.shape)
        np.add.at(per_entry, (np.arange(parts), self.rows), np.repeat(weights[:, None], parts, axis=1))
        variance = model.noise + self.misfit**2 * model.misfit
        factor = factor + _FACTOR**2 * float(self.centered @ weights)
        return np.asarray((1 + factor) * model.loss + correction + variance * per_entry)


def _unit(sums: NDArray[np.float64], values: NDArray[np.float64]) -> float:
    """How many units of the values one of the sums is; 1 where the prior of the factor can explain the difference."""
    apart = sums - sums.mean()
    square = float(apart @ apart)
    slope = float(apart @ values) / square if square > 0 and len(sums) >= _ENOUGH else 1.0
    return slope if slope > 0 and not 1 / _SAME_UNITS < slope < _SAME_UNITS else 1.0


def _likelihood(covariance: NDArray[np.float64], residual: float, given: NDArray[np.float64]) -> float:
    """Log marginal likelihood, up to a constant."""
    matrix = covariance + residual * np.eye(len(given))
    try:
        factor = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return -math.inf
    solved = np.linalg.solve(factor, given)
    return float(-0.5 * solved @ solved - np.log(np.diag(factor)).sum())
