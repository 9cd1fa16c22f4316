"""How populations of solver schedules vary: the operators of the released search of USF (arXiv 2312.07243).

From ``mutate`` and ``crossover`` of its ``search_utils.py``. What differs: times move in λ; the released mutation
draws c twice with its rate; a mixed child there needs parents of equal length, here the steps beyond the shorter
parent stay whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.spaces import chance
from searchlib.spaces.solver_genes import LINEAR, Gene, draw
from searchlib.spaces.solver_times import NoiseLevels

__all__ = [
    "change_of_count",
    "change_one_decision",
    "drop_step",
    "insert_step",
    "mix_decisions",
    "mix_times",
    "move_one_time",
    "resize",
    "vary_decisions",
    "vary_times",
]

Slots = NDArray[np.float64]
Count = NDArray[np.integer[Any]]
Flags = NDArray[np.bool_]

#: Genes that go together in a crossover; times are the other parent's business.
KINDS = (
    (Gene.ORDER, Gene.LOW, Gene.RELAXATION, Gene.COEFFICIENT, Gene.SCALE, Gene.START),
    (Gene.NOISE,),
    (Gene.CORRECTOR, Gene.CORRECTOR_RELAXATION),
)


def insert_step(
    rng: np.random.Generator, levels: NoiseLevels, slots: Slots, count: Count, where: Flags
) -> tuple[Count, Slots]:
    """A step with random decisions that ends at a random λ before the last; rows need room for it."""
    rows = np.flatnonzero(where)
    if not len(rows):
        return count, slots
    out, grown = slots.copy(), count + where
    part = out[rows]
    place = np.arange(len(rows))
    part[place, count[rows]] = draw(rng, (len(rows), 1))[:, 0]
    end = part[place, count[rows] - 1, Gene.SIGMA]
    reach = levels.position(end, 1.0)
    part[place, count[rows], Gene.SIGMA] = levels.at(reach * rng.random(len(rows)))
    part = _sorted(part, grown[rows])
    part[..., Gene.SIGMA] = levels.nearest(part[..., Gene.SIGMA], grown[rows], end == 0)
    out[rows] = part
    return grown, out


def drop_step(rng: np.random.Generator, slots: Slots, count: Count, where: Flags) -> tuple[Count, Slots]:
    """Without one random step before the last; rows have two or more."""
    rows = np.flatnonzero(where)
    if not len(rows):
        return count, slots
    out, left = slots.copy(), count - where
    part = out[rows]
    gone = rng.integers(0, count[rows] - 1)
    kept = np.argsort(np.arange(slots.shape[1]) == gone[:, None], axis=1, kind="stable")
    part = np.take_along_axis(part, kept[..., None], axis=1)
    part[np.arange(slots.shape[1]) >= left[rows, None]] = 0.0
    out[rows] = part
    return left, out


def change_of_count(rng: np.random.Generator, n: int, rate: float) -> NDArray[np.int64]:
    """One step more with probability ``rate`` and one less with the same, independently."""
    return np.asarray((rng.random(n) < rate).astype(np.int64) - (rng.random(n) < rate))


def resize(
    rng: np.random.Generator, levels: NoiseLevels, slots: Slots, count: Count, wanted: Count
) -> tuple[Count, Slots]:
    """Steps inserted or dropped until every row has ``wanted`` of them."""
    while (wanted != count).any():
        count, slots = insert_step(rng, levels, slots, count, wanted > count)
        count, slots = drop_step(rng, slots, count, wanted < count)
    return count, slots


def _sorted(slots: Slots, count: Count) -> Slots:
    """Steps by descending level; a step's decisions stay with its end."""
    key = np.where(np.arange(slots.shape[1]) < count[:, None], slots[..., Gene.SIGMA], -1.0)
    return np.take_along_axis(slots, np.argsort(-key, axis=1, kind="stable")[..., None], axis=1)


def vary_times(
    rng: np.random.Generator,
    levels: NoiseLevels,
    slots: Slots,
    count: Count,
    zero: Flags,
    rate: float,
    scale: float,
) -> Slots:
    """Each level moved in λ with probability ``rate``; a last level that is not 0 is drawn anew."""
    sigmas, out = slots[..., Gene.SIGMA], slots.copy()
    rows, last = np.arange(len(sigmas)), count - 1
    hit = rng.random(sigmas.shape) < rate
    was_zero = sigmas[rows, last] == 0
    # Rows whose times all stay are not touched: spreading them again could change them by rounding.
    same = ~(hit & (np.arange(sigmas.shape[1]) < count[:, None])).any(axis=1) & (zero == was_zero)
    moved = sigmas * np.exp(-np.where(hit, scale * rng.standard_normal(sigmas.shape), 0.0))
    fresh = hit[rows, last] | was_zero
    moved[rows, last] = np.where(fresh, levels.ends.draw(rng, (len(rows),)), sigmas[rows, last])
    out[..., Gene.SIGMA] = np.where(same[:, None], sigmas, levels.nearest(moved, count, zero))
    return out


def vary_decisions(rng: np.random.Generator, slots: Slots, rate: float, scale: float) -> Slots:
    """Each decision of each step drawn anew with probability ``rate``, or c moved; not clean yet."""
    fresh = draw(rng, (len(slots), slots.shape[1]))
    out = slots.copy()
    for group in ((Gene.ORDER,), (Gene.NOISE,), (Gene.LOW,), (Gene.SCALE,), *KINDS[2:]):
        hit = rng.random(slots.shape[:2]) < rate
        for gene in group:
            out[..., gene] = np.where(hit, fresh[..., gene], out[..., gene])
    hit = rng.random(slots.shape[:2]) < rate
    kept = (slots[..., Gene.RELAXATION] == LINEAR) & chance.coins(rng, slots.shape[:2])
    moved = slots[..., Gene.COEFFICIENT] + scale * rng.standard_normal(slots.shape[:2])
    for gene, other in ((Gene.RELAXATION, np.full_like(moved, LINEAR)), (Gene.COEFFICIENT, moved)):
        out[..., gene] = np.where(hit, np.where(kept, other, fresh[..., gene]), out[..., gene])
    # A step that now has what it lacked (a second derivative, a relaxation) gets a drawn value instead of 0.
    missing = (out[..., Gene.ORDER] == 3) & (slots[..., Gene.ORDER] < 3)
    out[..., Gene.SCALE] = np.where(missing, fresh[..., Gene.SCALE], out[..., Gene.SCALE])
    missing = (out[..., Gene.ORDER] > 1) & (slots[..., Gene.ORDER] <= 1)
    for gene in (Gene.RELAXATION, Gene.COEFFICIENT):
        out[..., gene] = np.where(missing, fresh[..., gene], out[..., gene])
    return out


def mix_decisions(rng: np.random.Generator, slots: Slots, mate: Slots, shared: Count, deep: float) -> Slots:
    """Decisions of two parents: each kind from one of them, at least one from ``mate``; step by step with ``deep``.

    Arguments:
        rng: of all randomness.
        slots: the parent whose times the child has.
        mate: the other.
        shared: steps that both have.
        deep: probability of a row to be mixed step by step.
    """
    n, length = slots.shape[:2]
    whole = chance.hits(rng, n, len(KINDS), 0.5)
    stepwise = chance.coins(rng, (n, length, len(KINDS)))
    mixed = np.where((rng.random(n) < deep)[:, None, None], stepwise, whole[:, None, :])
    mixed &= (np.arange(length) < shared[:, None])[..., None]
    out = slots.copy()
    for kind, genes in enumerate(KINDS):
        columns = list(genes)
        out[..., columns] = np.where(mixed[..., kind, None], mate[..., columns], slots[..., columns])
    return out


def mix_times(
    rng: np.random.Generator,
    levels: NoiseLevels,
    sigmas: NDArray[np.float64],
    mate: NDArray[np.float64],
    count: Count,
) -> NDArray[np.float64]:
    """Each level from one of two parents with equally many steps and the same kind of end."""
    mixed = np.where(chance.coins(rng, sigmas.shape), mate, sigmas)
    zero = mixed[np.arange(len(mixed)), count - 1] == 0
    fits = levels.contains(mixed, count)
    return np.where(fits[:, None], mixed, levels.nearest(mixed, count, zero))


def move_one_time(rng: np.random.Generator, levels: NoiseLevels, slots: Slots, count: Count) -> tuple[Count, Slots]:
    """One level of every row drawn anew between its neighbors; a row with no such level gets another step."""
    out, rows = slots.copy(), np.arange(len(slots))
    left, right, able = levels.rooms(slots[..., Gene.SIGMA], count)
    column = chance.pick(rng, able)
    left, right, moved = left[rows, column], right[rows, column], able.any(axis=1)
    sigma = np.exp(-rng.uniform(left, np.maximum(left, right)))
    sigma = np.where(column == count - 1, np.clip(sigma, levels.low, levels.high), sigma)
    out[rows[moved], column[moved], Gene.SIGMA] = sigma[moved]
    # One step to 0 and nothing between: only another step makes a difference.
    return insert_step(rng, levels, out, count, np.logical_not(moved))


def change_one_decision(rng: np.random.Generator, slots: Slots, count: Count) -> Slots:
    """One step after the first raised from order 1 to 2, or expanding the other prediction.

    Rows need such a step that does not end at 0, where the order is 1.
    """
    out, rows = slots.copy(), np.arange(len(slots))
    last = count - 1 - (slots[rows, count - 1, Gene.SIGMA] == 0)
    column = rng.integers(1, last + 1)
    raised = slots[rows, column, Gene.ORDER] == 1
    out[rows[raised], column[raised], Gene.ORDER] = 2
    out[rows[~raised], column[~raised], Gene.NOISE] = 1 - slots[rows[~raised], column[~raised], Gene.NOISE]
    return out
