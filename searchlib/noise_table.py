"""Normal noise by number: slices of one table that is drawn once."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["NOISES", "noise"]

#: Numbers of noise vectors: 0 … NOISES − 1.
NOISES = 2**62
#: The table holds this many numbers at least, and this many times the length of a vector.
_SHORTEST, _TIMES = 2**20, 4
#: Decides the table. Searches differ by the numbers that they draw.
_SEED = 20170310
#: Spreads consecutive numbers over the table (the golden ratio of 64 bits).
_GOLDEN = 0x9E3779B97F4A7C15


def noise(number: int, length: int) -> NDArray[np.float32]:
    """A vector of standard normal numbers, the same for the same arguments everywhere; read-only, never copied.

    Slices of one large block at pseudo-random places, as in Salimans et al., *Evolution strategies as a scalable
    alternative to reinforcement learning*, arXiv 1703.03864, section 2.1: a vector costs no draws, only the memory
    traffic of reading it. Two vectors share numbers, but at other places, so that their inner product is that of
    independent ones.

    Arguments:
        number: 0 ≤ number < NOISES.
        length: d.

    Example:
        >>> noise(7, 3).shape, bool((noise(7, 3) == noise(7, 3)).all()), bool((noise(8, 3) == noise(7, 3)).any())
        ((3,), True, False)
    """
    table = _table(max(_SHORTEST, _TIMES * length))
    start = (number * _GOLDEN % 2**64) * (len(table) - length + 1) >> 64
    return table[start : start + length]


@lru_cache(maxsize=2)
def _table(length: int) -> NDArray[np.float32]:
    table = np.random.Generator(np.random.SFC64(_SEED)).standard_normal(length, np.float32)
    table.flags.writeable = False
    return table
