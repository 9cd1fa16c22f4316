"""Random masks over populations: which genes an operator touches."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["at_most", "coins", "hits", "pick"]

# Below this rate it is cheaper to draw the number of hits and their places than one number per gene.
SPARSE = 0.1


def coins(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Independent tosses of a fair coin; one random bit each."""
    count = math.prod(shape)
    bits = np.frombuffer(rng.bytes((count + 7) // 8), np.uint8)
    return np.unpackbits(bits, count=count).view(np.bool_).reshape(shape)


def hits(rng: np.random.Generator, n: int, d: int, rate: float) -> NDArray[np.bool_]:
    """Which of ``d > 0`` genes change in each of ``n`` rows: each with probability ``rate``, given that one does.

    The same distribution as redrawing every row until it has a hit, without redrawing: the first hit follows a
    truncated geometric law, the genes after it are independent.
    """
    if rate >= 1:
        return np.ones((n, d), np.bool_)
    miss = math.log1p(-rate)
    place = np.log1p(rng.random(n) * math.expm1(d * miss)) / miss
    first = np.minimum(place.astype(np.intp), d - 1)
    if rate > SPARSE:
        mask = (rng.random((n, d), np.float32) < rate) & (np.arange(d) > first[:, None])
    else:
        mask = np.zeros((n, d), np.bool_)
        where = rng.choice(n * d, rng.binomial(n * d, rate), replace=False, shuffle=False)
        row, gene = np.divmod(where, d)
        mask[row, gene] = gene > first[row]
    mask[np.arange(n), first] = True
    return mask


def pick(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The column of one of the true entries of every row, all equally likely; 0 where a row has none."""
    return np.asarray(np.where(mask, 1 - rng.random(mask.shape), 0).argmax(axis=1))


def at_most(rng: np.random.Generator, mask: NDArray[np.bool_], limit: int) -> NDArray[np.bool_]:
    """``mask`` with random true entries dropped from rows that have more than ``limit > 0``."""
    over = np.flatnonzero(mask.sum(axis=1) > limit)
    if not len(over):
        return mask
    keys = np.where(mask[over], rng.random((len(over), mask.shape[1])), 2.0)
    kept = mask.copy()
    kept[over] = keys <= np.partition(keys, limit - 1, axis=1)[:, limit - 1 : limit]
    return kept
