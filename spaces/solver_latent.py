"""Solver schedules as unbounded reals: what an optimizer of vectors sees of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.spaces.solver_genes import LARGEST_COEFFICIENT, LARGEST_SCALE, Gene
from searchlib.spaces.solver_schedule import CORRECTOR_RELAXATIONS, RELAXATIONS
from searchlib.spaces.solver_times import NoiseLevels

__all__ = ["SlotLatent"]

Reals = NDArray[np.float64]
Count = NDArray[np.integer[Any]]

#: Natural steps of the two real genes: one unit of their coordinates.
COEFFICIENT_STEP = 0.1
SCALE_STEP = 0.25
NUMBERS = 8  # share of the way, order, noise, low, coefficient, scale, corrector, start
WIDTH = NUMBERS + len(RELAXATIONS) + len(CORRECTOR_RELAXATIONS)
#: Where the thresholds of the start lie: latest below 1, the one before below 2.
STARTS = (0.0, 1.5, 2.5)


@final
@dataclass(frozen=True)
class SlotLatent:
    """Coordinates: evaluations, analytic first step, end at 0, last level; then 15 per step.

    Whole numbers are four units wide, like an :class:`~searchlib.spaces.interval.Interval`; yes or no is a sign;
    kinds are arg-maxes of one coordinate per option; the way in λ is shared by a soft-max.
    """

    levels: NoiseLevels
    length: int
    least: int
    nfe: int
    max_order: int

    @property
    def dimension(self) -> int:
        return 4 + self.length * WIDTH

    def read(self, latent: Reals, may_be_analytic: bool) -> tuple[Count, Count, Reals, Reals]:
        """Number of steps, analytic first step, genes without levels, and last levels (0 for an end at 0)."""
        z = np.clip(latent, -1e3, 1e3)
        analytic = ((z[:, 1] > 0) & may_be_analytic).astype(np.intp)
        count = _whole(z[:, 0], self.least, self.nfe) + analytic
        ends = self.levels.ends.from_latent(z[:, 3]) * (z[:, 2] <= 0)
        part = z[:, 4:].reshape(-1, self.length, WIDTH)
        slots = np.zeros((len(z), self.length, len(Gene)))
        slots[..., Gene.ORDER] = _whole(part[..., 1], 1, self.max_order)
        for column, gene in ((2, Gene.NOISE), (3, Gene.LOW), (6, Gene.CORRECTOR)):
            slots[..., gene] = part[..., column] > 0
        slots[..., Gene.COEFFICIENT] = np.clip(
            COEFFICIENT_STEP * part[..., 4], -LARGEST_COEFFICIENT, LARGEST_COEFFICIENT
        )
        slots[..., Gene.SCALE] = np.clip(1 + SCALE_STEP * part[..., 5], 0, LARGEST_SCALE)
        slots[..., Gene.START] = (part[..., 7] > 1) + 1.0 * (part[..., 7] > 2)
        middle = NUMBERS + len(RELAXATIONS)
        slots[..., Gene.RELAXATION] = part[..., NUMBERS:middle].argmax(axis=-1)
        slots[..., Gene.CORRECTOR_RELAXATION] = part[..., middle:].argmax(axis=-1)
        return count, analytic, slots, ends

    def levels_of(self, latent: Reals, count: Count, zero: NDArray[np.bool_]) -> Reals:
        """The noise levels of rows with that many steps and that end."""
        z = np.clip(latent, -1e3, 1e3)
        ends = np.where(zero, 0.0, self.levels.ends.from_latent(z[:, 3]))
        return self.levels.from_shares(z[:, 4:].reshape(-1, self.length, WIDTH)[..., 0], count, ends)

    def write(self, count: Count, analytic: Count, slots: Reals) -> Reals:
        """A right inverse of :meth:`read` and :meth:`levels_of`."""
        rows = np.arange(len(slots))
        last = slots[rows, count - 1, Gene.SIGMA]
        part = np.zeros((len(slots), self.length, WIDTH))
        inside = np.where(last > 0, np.clip(last, self.levels.low, self.levels.high), self.levels.low)
        part[..., 0] = self.levels.to_shares(slots[..., Gene.SIGMA], count)
        part[..., 1] = _middle(slots[..., Gene.ORDER], 1, self.max_order)
        for column, gene in ((2, Gene.NOISE), (3, Gene.LOW), (6, Gene.CORRECTOR)):
            part[..., column] = 2 * slots[..., gene] - 1
        part[..., 4] = slots[..., Gene.COEFFICIENT] / COEFFICIENT_STEP
        part[..., 5] = (slots[..., Gene.SCALE] - 1) / SCALE_STEP
        part[..., 7] = np.array(STARTS)[slots[..., Gene.START].astype(np.intp)]
        middle = NUMBERS + len(RELAXATIONS)
        part[..., NUMBERS:middle] = slots[..., Gene.RELAXATION, None] == np.arange(len(RELAXATIONS))
        part[..., middle:] = slots[..., Gene.CORRECTOR_RELAXATION, None] == np.arange(len(CORRECTOR_RELAXATIONS))
        whole = (_middle(count - analytic, self.least, self.nfe), 2 * analytic - 1, np.where(last > 0, -1, 1),
                 self.levels.ends.to_latent(inside))  # fmt: skip
        return np.column_stack([*whole, part.reshape(-1, self.length * WIDTH)]).astype(np.float64)


def _whole(z: Reals, low: int, high: int) -> Count:
    """Whole numbers from ``low`` to ``high``, each an equal part of [-2, 2]."""
    count = high - low + 1
    place = np.floor((np.clip(z, -2, 2) + 2) / 4 * count).astype(np.intp)
    return np.asarray(low + np.minimum(place, count - 1))


def _middle(value: NDArray[Any], low: int, high: int) -> Reals:
    """The middle of a whole number's part."""
    return np.asarray((np.maximum(value, low) - low + 0.5) / (high - low + 1) * 4 - 2)
