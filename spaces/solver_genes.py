"""The genes of one step of a solver schedule, for whole populations at once."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.spaces.solver_schedule import (
    CORRECTOR_RELAXATIONS,
    MAX_ORDER,
    PREDICTIONS,
    RELAXATIONS,
    SolverSchedule,
    SolverStep,
)

__all__ = ["LARGEST_COEFFICIENT", "LARGEST_SCALE", "LINEAR", "Gene", "clean", "draw", "genes_of", "schedule_of",
           "step_distance", "step_features"]  # fmt: skip

Slots = NDArray[np.float64]

#: Bounds of the two real genes; released schedules have |c| up to 0.5.
LARGEST_COEFFICIENT = 1.0
LARGEST_SCALE = 2.0
LINEAR = float(RELAXATIONS.index("linear"))


class Gene(IntEnum):
    """The columns of one step; a gene that means nothing beside the others is 0."""

    SIGMA = 0  # σ/α at the step's end
    ORDER = 1  # 1 to 3
    NOISE = 2  # 1: expands the noise prediction, 0: the data prediction
    LOW = 3  # 1: first derivative of a step of order 3 from one point
    RELAXATION = 4  # index into RELAXATIONS
    COEFFICIENT = 5
    SCALE = 6  # factor on the second derivative
    CORRECTOR = 7
    CORRECTOR_RELAXATION = 8  # index into CORRECTOR_RELAXATIONS
    START = 9  # 0: latest evaluation, 1 and 2: the ones before


#: Largest value of every whole gene.
HIGHEST = {
    Gene.ORDER: MAX_ORDER,
    Gene.NOISE: 1,
    Gene.LOW: 1,
    Gene.RELAXATION: len(RELAXATIONS) - 1,
    Gene.CORRECTOR: 1,
    Gene.CORRECTOR_RELAXATION: len(CORRECTOR_RELAXATIONS) - 1,
    Gene.START: MAX_ORDER - 1,
}


def clean(slots: Slots, count: NDArray[Any], *, max_order: int, correctors: bool) -> Slots:
    """Decisions rounded to legal ones, and 0 where they mean nothing; noise levels as they are.

    Idempotent, and the identity on legal rows.

    Arguments:
        slots: shape (n, steps, genes), finite.
        count: number of steps of every row.
        max_order: largest order allowed.
        correctors: whether any step may have one.
    """
    out = slots.copy()
    for gene, high in HIGHEST.items():
        out[..., gene] = np.rint(np.clip(slots[..., gene], 0, high))
    index = np.arange(slots.shape[1])
    active, last = index < count[:, None], index == count[:, None] - 1
    out[..., Gene.ORDER] = np.clip(out[..., Gene.ORDER], 1, np.minimum(index + 1, max_order))
    out[..., Gene.START] = np.minimum(out[..., Gene.START], index)
    out[..., Gene.ORDER] = np.where(last & (slots[..., Gene.SIGMA] == 0), 1, out[..., Gene.ORDER])
    order = out[..., Gene.ORDER]
    out[..., Gene.LOW] *= order == MAX_ORDER
    out[..., Gene.RELAXATION] *= order > 1
    coefficient = np.clip(slots[..., Gene.COEFFICIENT], -LARGEST_COEFFICIENT, LARGEST_COEFFICIENT)
    out[..., Gene.COEFFICIENT] = np.where(out[..., Gene.RELAXATION] == LINEAR, coefficient, 0.0)
    out[..., Gene.SCALE] = np.where(order == MAX_ORDER, np.clip(slots[..., Gene.SCALE], 0, LARGEST_SCALE), 0.0)
    out[..., Gene.CORRECTOR] *= ~last & active & correctors
    out[..., Gene.CORRECTOR_RELAXATION] *= out[..., Gene.CORRECTOR]
    # DDIM from a sample that was not corrected is the same for either prediction (see SolverSchedule).
    before = (index - out[..., Gene.START] - 1).astype(np.intp)
    corrected = np.take_along_axis(out[..., Gene.CORRECTOR], np.maximum(before, 0), axis=1) * (before >= 0)
    out[..., Gene.NOISE] *= (order > 1) | (out[..., Gene.CORRECTOR] > 0) | (corrected > 0)
    out[~active, 1:] = 0.0
    return out + 0.0  # -0.0 and 0.0 are one candidate


def draw(rng: np.random.Generator, shape: tuple[int, int]) -> Slots:
    """Random decisions, not clean yet.

    Orders as the released search of USF draws them, {1: .2, 2: .4, 3: .3, 4: .1}, without its order 4; the other
    choices are even, c ~ N(0, 0.05²). Every step starts from the latest evaluation.
    """
    slots = np.zeros((*shape, len(Gene)))
    slots[..., Gene.ORDER] = rng.choice([1, 2, 3], shape, p=[2 / 9, 4 / 9, 3 / 9])
    for gene in (Gene.NOISE, Gene.LOW, Gene.RELAXATION, Gene.CORRECTOR, Gene.CORRECTOR_RELAXATION):
        slots[..., gene] = rng.integers(0, HIGHEST[gene] + 1, shape)
    slots[..., Gene.COEFFICIENT] = 0.05 * rng.standard_normal(shape)
    slots[..., Gene.SCALE] = rng.choice([0.5, 1.0], shape)
    return slots


def genes_of(schedule: SolverSchedule, length: int) -> NDArray[np.float64]:
    """The genes of a schedule's steps, shape (length, genes)."""
    slots = np.zeros((length, len(Gene)))
    for row, sigma, step in zip(slots, schedule.sigmas[1:], schedule.steps, strict=False):
        row[Gene.SIGMA] = sigma
        row[Gene.ORDER] = step.order
        row[Gene.NOISE] = PREDICTIONS.index(step.prediction)
        row[Gene.LOW] = step.order == MAX_ORDER and step.points == 1
        row[Gene.RELAXATION] = RELAXATIONS.index(step.relaxation)
        row[Gene.COEFFICIENT] = step.coefficient
        row[Gene.SCALE] = step.second_scale if step.order == MAX_ORDER else 0.0
        row[Gene.CORRECTOR] = step.corrector
        row[Gene.CORRECTOR_RELAXATION] = CORRECTOR_RELAXATIONS.index(step.corrector_relaxation)
        row[Gene.START] = -1 - step.start
    return slots


def schedule_of(sigma_max: float, slots: NDArray[np.float64], analytic_first_step: bool) -> SolverSchedule:
    """The schedule of clean slots, shape (count, genes)."""
    rows = slots.tolist()
    steps = [
        SolverStep(
            int(row[Gene.ORDER]),
            PREDICTIONS[int(row[Gene.NOISE])],
            points=1 if row[Gene.LOW] else None,
            relaxation=RELAXATIONS[int(row[Gene.RELAXATION])],
            coefficient=row[Gene.COEFFICIENT],
            second_scale=row[Gene.SCALE],
            corrector=bool(row[Gene.CORRECTOR]),
            corrector_relaxation=CORRECTOR_RELAXATIONS[int(row[Gene.CORRECTOR_RELAXATION])],
            start=-1 - int(row[Gene.START]),
        )
        for row in rows
    ]
    return SolverSchedule((sigma_max, *(row[Gene.SIGMA] for row in rows)), tuple(steps), analytic_first_step)


def step_features(slots: Slots, position: NDArray[np.float64]) -> NDArray[np.float64]:
    """What a predictor sees of every step, shape (n, steps, 20).

    Columns: 0 the step exists; 1-3 where it starts, ends, and its length, as fractions of the way in λ; 4-6 order
    is 1, 2, 3; 7 noise prediction; 8 low-order estimate; 9-12 relaxation is none, linear, bh1, bh2; 13 its
    coefficient; 14 scale of the second derivative; 15 corrector; 16-18 its relaxation is none, bh1, bh2; 19 start.

    Arguments:
        slots: clean.
        position: of every step's end, shape (n, steps).
    """
    exists = slots[..., Gene.ORDER] > 0
    begin = np.concatenate([np.zeros((len(slots), 1)), position[:, :-1]], axis=1)
    orders = slots[..., Gene.ORDER, None] == np.arange(1, MAX_ORDER + 1)
    relaxations = (slots[..., Gene.RELAXATION, None] == np.arange(len(RELAXATIONS))) & exists[..., None]
    corrections = slots[..., Gene.CORRECTOR_RELAXATION, None] == np.arange(len(CORRECTOR_RELAXATIONS))
    corrections = corrections & (slots[..., Gene.CORRECTOR, None] > 0)
    columns = [
        np.stack([exists, begin * exists, position * exists, (position - begin) * exists], axis=-1),
        orders,
        slots[..., [Gene.NOISE, Gene.LOW]],
        relaxations,
        slots[..., [Gene.COEFFICIENT, Gene.SCALE, Gene.CORRECTOR]],
        corrections,
        slots[..., [Gene.START]] / (MAX_ORDER - 1),
    ]
    return np.concatenate(columns, axis=-1, dtype=np.float64)


def step_distance(slots: Slots, mates: Slots, apart: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of the steps of two populations, shape (n,): positive wherever a gene differs.

    ``apart`` says how far the noise levels are, shape (n, steps); other real genes count as they are, and every
    decision that differs a quarter.
    """
    gaps = np.abs(slots - mates)
    gaps[..., Gene.SIGMA] = apart
    gaps = np.where(slots != mates, np.maximum(gaps, np.finfo(np.float64).tiny), 0.0)
    real = [Gene.SIGMA, Gene.COEFFICIENT, Gene.SCALE]
    kinds = [gene for gene in Gene if gene not in real]
    differ = (slots[..., kinds] != mates[..., kinds]).sum(axis=(1, 2))
    return np.asarray(gaps[..., real].sum(axis=(1, 2)) + differ / 4)
