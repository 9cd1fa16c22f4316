"""One problem instance of the engine's suite, and the meter that a method spends its evaluations through."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Population, Space

__all__ = ["Instance", "Meter", "Spent"]

Values = NDArray[np.float64]


class Spent(Exception):
    """The budget of evaluations is used up."""


@final
@dataclass(frozen=True)
class Instance:
    """A function to minimize.

    Arguments:
        problem: which one of its family.
        number: which instance of the problem; its seed.
        space: what may vary.
        truth: of rows ``(n, d)``, canonical or not, their true values ``(n,)``.
        noise: of a generator and true values, what an evaluation shows; None: the truth.
    """

    problem: str
    number: int
    space: Space
    truth: Callable[[Population], Values]
    noise: Callable[[np.random.Generator, Values], Values] | None = None


@final
class Meter:
    """An instance that counts: call it with rows, get what an evaluation shows, until the budget is spent.

    Every row counts, duplicates too, and rows outside of the space, which cannot win. A method may set
    :attr:`recommended` to the row that it would hand over; otherwise that is the best one seen, by what the evaluations
    showed.

    Attributes:
        curve: true value of the best row seen (by what was shown) after every evaluation.
    """

    def __init__(self, instance: Instance, budget: int, rng: np.random.Generator) -> None:
        self.instance, self.budget = instance, budget
        self.recommended: Population | None = None
        self.curve: list[float] = []
        self.seconds = 0.0  # inside the objective
        self._rng, self._best, self._best_row = rng, np.inf, None
        self._best_truth = np.inf

    @property
    def left(self) -> int:
        """Evaluations that are left."""
        return self.budget - len(self.curve)

    def __call__(self, rows: Population) -> Values:
        start = time.process_time()
        rows = np.asarray(rows)[: self.left]
        if not len(rows):
            raise Spent
        truth = self.instance.truth(rows)
        shown = truth if self.instance.noise is None else self.instance.noise(self._rng, truth)
        inside = self.instance.space.contains(rows.astype(self.instance.space.dtype))  # a probe may lie outside
        for row, seen, true, good in zip(rows, shown.tolist(), truth.tolist(), inside.tolist(), strict=True):
            if good and seen < self._best:
                self._best, self._best_row, self._best_truth = seen, row, true
            self.curve.append(self._best_truth)
        self.seconds += time.process_time() - start
        return shown

    def outcome(self) -> float:
        """True value of the recommended row."""
        row = self._best_row if self.recommended is None else self.recommended
        return float(self.instance.truth(np.asarray(row)[None, :])[0]) if row is not None else np.inf
