"""Rows of k distinct indices out of n, the moves behind :class:`Subset` and :class:`ExpertSubsets`.

A row is an unordered set; every function that returns rows returns them sorted. Temporary arrays of numbers are as
large as the rows themselves, not (rows, n), wherever that would be large.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.spaces import chance

__all__ = ["contains", "draw", "every", "mask", "mix", "nearest", "replace", "shared", "swapped", "top"]

Rows = NDArray[Any]

# Up to this many random keys are drawn at once.
KEYS = 2**22


def draw(rng: np.random.Generator, rows: int, n: int, k: int) -> Rows:
    """``rows`` uniformly random k-subsets of n.

    Few of many: repeated indices are redrawn until there are none, which treats all indices alike, so all subsets
    are equally likely; beyond one half the indices to leave out are drawn. Otherwise the k smallest of n random keys.
    """
    if n <= 4 * k and rows * n <= KEYS:
        return top(rng.random((rows, n)), k)
    if 2 * k > n:
        return np.nonzero(~mask(draw(rng, rows, n, n - k), n))[1].reshape(rows, k)
    drawn = np.sort(rng.integers(n, size=(rows, k)), axis=1)
    open_rows = np.arange(rows)
    while len(open_rows):
        part = drawn[open_rows]
        twins = part[:, 1:] == part[:, :-1]
        again = twins.any(axis=1)
        open_rows, part, twins = open_rows[again], part[again], twins[again]
        part[:, 1:][twins] = rng.integers(n, size=np.count_nonzero(twins))
        drawn[open_rows] = np.sort(part, axis=1)
    return drawn


def every(n: int, k: int) -> Rows:
    """All k-subsets of n, in lexical order."""
    rows = np.empty((1, 0), np.int64)
    for slot in range(k):
        first = rows[:, -1] + 1 if slot else np.zeros(1, np.int64)
        count = n - k + slot + 1 - first
        step = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        rows = np.column_stack([np.repeat(rows, count, axis=0), np.repeat(first, count) + step])
    return rows


def swapped(row: NDArray[Any], n: int) -> Rows:
    """A sorted row, shape ``(k,)``, with one index replaced by one below ``n`` that it does not hold, in all ways."""
    outside = np.delete(np.arange(n, dtype=row.dtype), row[row < n])
    rows = np.repeat(row[None], len(row) * len(outside), axis=0)
    rows[np.arange(len(rows)), np.repeat(np.arange(len(row)), len(outside))] = np.tile(outside, len(row))
    return np.sort(rows, axis=1)


def replace(rng: np.random.Generator, rows: Rows, slots: NDArray[np.bool_], n: int) -> Rows:
    """Sorted ``rows`` with the indices at ``slots`` replaced by distinct random ones that the row did not hold.

    Where a row holds fewer than that outside, as many random slots as possible are replaced; ``k < n`` is assumed.
    """
    out = rows.copy()
    touched = np.flatnonzero(slots.any(axis=1))
    kept, outside = out[touched], n - rows.shape[1]
    slots = chance.at_most(rng, slots[touched], outside)
    count = slots.sum(axis=1)
    width = int(count.max(initial=0))
    ranks = rng.permuted(draw(rng, len(touched), outside, width), axis=1)
    kept[slots] = _missing(kept, ranks, n)[np.arange(width) < count[:, None]]
    out[touched] = np.sort(kept, axis=1)
    return out


def _missing(rows: Rows, ranks: Rows, n: int) -> Rows:
    """The indices with these ranks among those that the sorted rows do not hold."""
    k = rows.shape[1]
    base = np.arange(len(rows))[:, None] * (n + 1)
    gaps = (rows - np.arange(k) + base).ravel()
    before = np.searchsorted(gaps, (ranks + base).ravel(), side="right").reshape(ranks.shape)
    return np.asarray(ranks + before - np.arange(len(rows))[:, None] * k)


def mix(rng: np.random.Generator, first: Rows, second: Rows) -> Rows:
    """What both parents hold, filled up with a random half of what only one of them holds; ``k > 0``."""
    k = first.shape[1]
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    twins = both[:, 1:] == both[:, :-1]
    key = rng.random(both.shape, np.float32)
    key[:, :-1][twins] = -1
    key[:, 1:][twins] = 2
    chosen = np.argpartition(key, k - 1, axis=1)[:, :k]
    return np.sort(np.take_along_axis(both, chosen, axis=1), axis=1)


def shared(first: Rows, second: Rows) -> NDArray[np.intp]:
    """How many indices both rows hold, shape ``(n,)``."""
    both = np.sort(np.concatenate([first, second], axis=1), axis=1)
    return np.asarray(np.count_nonzero(both[:, 1:] == both[:, :-1], axis=1))


def nearest(rows: Rows, n: int) -> Rows:
    """Any finite numbers as sorted rows of distinct indices: rounded, then each moved to the next free index up,
    or down at the upper end. Rows of distinct indices come back sorted, otherwise unchanged.
    """
    k = rows.shape[1]
    slots = np.arange(k)
    index = np.sort(np.rint(np.clip(rows.astype(np.float64), 0, n - 1)).astype(np.int64), axis=1)
    raised = np.maximum.accumulate(index - slots, axis=1) + slots
    return np.asarray(np.minimum(raised, n - k + slots))


def contains(rows: Rows, n: int) -> NDArray[np.bool_]:
    """Whether each row holds distinct whole numbers from 0 to n - 1, in any order."""
    ordered = np.sort(rows, axis=1)
    whole = (ordered >= 0) & (ordered < n) & (ordered == np.floor(ordered))
    return np.asarray(whole.all(axis=1) & (ordered[:, 1:] > ordered[:, :-1]).all(axis=1))


def mask(rows: Rows, n: int) -> NDArray[np.bool_]:
    """The rows as membership masks, shape ``(rows, n)``."""
    members = np.zeros((len(rows), n), np.bool_)
    np.put_along_axis(members, rows.astype(np.intp), True, axis=1)
    return members


def top(scores: NDArray[np.float64], k: int) -> Rows:
    """The indices of the k largest scores of every row."""
    if k == 0:
        return np.empty((len(scores), 0), np.int64)
    return np.sort(np.argpartition(-scores, k - 1, axis=1)[:, :k], axis=1)
