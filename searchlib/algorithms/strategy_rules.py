"""How evolution strategies move a center and a spread, given how the members of a generation compare."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PGPE", "SNES", "OpenAIES", "Rule", "centered_ranks", "log_utilities"]

Vector = NDArray[Any]

#: Adam's decay rates and guard (Kingma and Ba, arXiv 1412.6980).
_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8
#: ClipUp's momentum, and the largest relative change of a spread (arXiv 2008.02387, sections 3 and 4).
_MOMENTUM, _SIGMA_RATE, _SIGMA_CHANGE = 0.9, 0.1, 0.2
#: The radius of the first search distribution in units of the largest step (their section 4.1: 15).
_RADIUS = 15.0


def centered_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights from 0.5 for the lowest value to -0.5 for the highest, shape ``(n,)``; equal values share their mean.

    Salimans et al., arXiv 1703.03864, section 2.1. Where all values are equal, all weights are 0.

    Example:
        >>> centered_ranks(np.array([3.0, 1.0, 3.0])).tolist()
        [-0.25, 0.5, -0.25]
    """
    return _shared(values, np.linspace(0.5, -0.5, len(values)).astype(np.float64))


def log_utilities(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Utilities of natural evolution strategies, which sum to 0, shape ``(n,)``; equal values share their mean.

    Wierstra et al., *Natural evolution strategies*, JMLR 15, 2014, section 3.1.
    """
    n = len(values)
    raw = np.maximum(0.0, math.log(n / 2 + 1) - np.log(np.arange(1, n + 1)))
    return _shared(values, raw / raw.sum() - 1 / n)


def _shared(values: NDArray[np.float64], by_rank: NDArray[np.float64]) -> NDArray[np.float64]:
    """``by_rank`` of sorted values, dealt out; what equal values got between them they share."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind="stable")
    totals = np.bincount(group[order], weights=by_rank)
    if len(totals) == 1:  # exactly: a rule may look at the direction alone
        return np.zeros(len(values))
    return np.asarray((totals / np.bincount(group))[group])


class Rule(ABC):
    """A center and a spread that learn. ``width`` is the length of the center; ``sigma`` one number or a vector."""

    #: Whether members come in pairs ±noise.
    mirrored = True
    #: Whether :meth:`update` needs the sum of squares.
    adapts_sigma = True

    def __init__(self, center: Vector, sigma: Vector | float) -> None:
        self.center, self.sigma = center, sigma

    @abstractmethod
    def weights(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """What each member's noise counts, shape ``(n,)``; sums to 0, and is 0 where all values are equal."""

    @abstractmethod
    def update(self, total: Vector, squares: Vector | None, members: int) -> None:
        """Learn from a generation.

        Arguments:
            total: Σ weight · sign · noise, shape ``(width,)``; may be overwritten.
            squares: Σ weight · noise², where :attr:`adapts_sigma`; may be overwritten.
            members: how many there were.
        """


@final
class OpenAIES(Rule):
    """A fixed spread, and Adam on the estimated gradient (arXiv 1703.03864)."""

    adapts_sigma = False

    def __init__(self, center: Vector, sigma: Vector | float, rate: float = 0.25) -> None:
        super().__init__(center, sigma)
        self._rate, self._steps = rate, 0
        self._mean, self._square = np.zeros_like(center), np.zeros_like(center)

    def weights(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return centered_ranks(values)

    def update(self, total: Vector, squares: Vector | None, members: int) -> None:
        if not total.any():  # nobody was better than anybody: momentum alone must not move the center
            return
        self._steps += 1
        total /= members
        self._mean += (1 - _FIRST) * (total - self._mean)
        np.multiply(total, total, out=total)
        total -= self._square
        self._square += (1 - _SECOND) * total
        bias = math.sqrt(1 - _SECOND**self._steps) / (1 - _FIRST**self._steps)
        np.sqrt(self._square, out=total)
        total += _TINY
        np.divide(self._mean, total, out=total)
        total *= self.sigma
        total *= self._rate * bias
        self.center = self.center + total


@final
class PGPE(Rule):
    """Policy gradients with parameter-based exploration, its center moved by ClipUp.

    Sehnke et al., *Parameter-exploring policy gradients*, Neural Networks 23(4), 2010; Toklu et al., *ClipUp*,
    arXiv 2008.02387: the gradient gives the direction only, velocities are at most a fifteenth of the first radius.
    """

    def __init__(self, center: Vector, sigma: Vector | float, rate: float = 0.5) -> None:
        super().__init__(center, np.full(len(center), sigma, center.dtype) if np.ndim(sigma) == 0 else sigma)
        # Lengths are in units of the first spread, which may differ from gene to gene.
        self._unit = sigma
        self._fastest = math.sqrt(len(center)) / _RADIUS
        self._rate = rate * self._fastest
        self._velocity = np.zeros_like(center)

    def weights(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return centered_ranks(values)

    def update(self, total: Vector, squares: Vector | None, members: int) -> None:
        assert squares is not None
        sigma: Any = self.sigma
        total *= sigma
        total /= self._unit
        length = float(np.linalg.norm(total))
        if not length:
            return
        total *= self._rate / length
        self._velocity *= _MOMENTUM
        self._velocity += total
        speed = float(np.linalg.norm(self._velocity))
        if speed > self._fastest:
            self._velocity *= self._fastest / speed
        self.center = self.center + self._velocity * self._unit
        # Σ w (ε² − 1) = Σ w ε², since the weights sum to 0; the mean over members is that of (w₊ + w₋)/2 over pairs.
        squares *= _SIGMA_RATE / members
        np.clip(squares, -_SIGMA_CHANGE, _SIGMA_CHANGE, out=squares)
        squares += 1
        self.sigma = sigma * squares


@final
class SNES(Rule):
    """The separable natural evolution strategy.

    Schaul, Glasmachers and Schmidhuber, *High dimensions and heavy tails for natural evolution strategies*, GECCO 2011,
    with the rates of Wierstra et al., JMLR 15, 2014, table 1.
    """

    mirrored = False

    def __init__(self, center: Vector, sigma: Vector | float, rate: float = 1.0) -> None:
        super().__init__(center, np.full(len(center), sigma, center.dtype) if np.ndim(sigma) == 0 else sigma)
        self._rate = rate
        self._sigma_rate = (3 + math.log(len(center))) / (5 * math.sqrt(len(center)))

    def weights(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return log_utilities(values)

    def update(self, total: Vector, squares: Vector | None, members: int) -> None:
        assert squares is not None
        sigma: Any = self.sigma
        total *= sigma
        total *= self._rate
        self.center = self.center + total
        squares *= self._sigma_rate / 2
        np.exp(squares, out=squares)
        self.sigma = sigma * squares
