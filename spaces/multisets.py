"""Collections of k of n items in which items may come again, each a row of ascending numbers.

Adding 0, 1, …, k - 1 to such a row makes a subset of k of n + k - 1, and the other way round ("stars and bars").
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.spaces import k_of_n

__all__ = ["count", "draw", "every"]


def count(n: int, k: int) -> int:
    """How many there are."""
    return math.comb(n + k - 1, k)


def draw(rng: np.random.Generator, rows: int, n: int, k: int) -> NDArray[Any]:
    """``rows`` of them, all equally likely; drawing the items one by one would favor those without repetitions."""
    return np.asarray(k_of_n.draw(rng, rows, n + k - 1, k) - np.arange(k))


def every(n: int, k: int) -> NDArray[Any]:
    """All of them, in lexical order."""
    return np.asarray(k_of_n.every(n + k - 1, k) - np.arange(k))
