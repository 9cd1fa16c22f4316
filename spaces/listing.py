"""Lists of rows: every one of a small space, and every one that differs from a row in one place."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["digits", "one_changed", "side_by_side", "spliced"]

Rows = NDArray[Any]


def digits(counts: Iterable[int]) -> NDArray[np.int64]:
    """All rows of whole numbers from 0 below the count of their column, in lexical order.

    Example:
        >>> digits((2, 3)).tolist()
        [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    """
    columns = tuple(counts)
    total = step = math.prod(columns)
    rows, place = np.empty((total, len(columns)), np.int64), np.arange(total)
    for column, count in enumerate(columns):
        step //= count
        rows[:, column] = place // step % count
    return rows


def side_by_side(lists: Sequence[Rows]) -> list[Rows]:
    """Every combination of one row per list, as one array per list: the last list varies fastest."""
    return [rows[chosen] for rows, chosen in zip(lists, digits(map(len, lists)).T, strict=True)]


def spliced(row: NDArray[Any], start: int, parts: Rows) -> Rows:
    """Copies of a row, shape ``(d,)``, with its genes from ``start`` on replaced by each of the parts."""
    rows = np.repeat(row[None], len(parts), axis=0)
    rows[:, start : start + parts.shape[1]] = parts
    return rows


def one_changed(row: NDArray[Any], options: NDArray[Any], offered: NDArray[np.bool_]) -> Rows:
    """Copies of a row with one gene set to one of its options, shape ``(d, most)``, wherever these are offered."""
    gene, option = np.nonzero(offered)
    rows = np.repeat(row[None], len(gene), axis=0)
    rows[np.arange(len(gene)), gene] = options[gene, option]
    return rows
