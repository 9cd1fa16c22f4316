"""Several objectives at once: who dominates whom, how crowded a front is, and where its knee lies."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.errors import InvalidSettings
from searchlib.objective import Direction

__all__ = ["crowding", "dominance_ranks", "knee", "minimized", "nondominated", "normalized", "repeated", "spread"]

#: Rows that are compared with a front at once.
_BLOCK = 1024
#: Numbers that a comparison of a block with a front may hold at once.
_NUMBERS_AT_ONCE = 4_000_000
#: Rows from which on it pays to sort columns before rows are compared with each other.
_MANY = 150


def minimized(values: ArrayLike, direction: Direction | tuple[Direction, ...] = "minimize") -> NDArray[np.float64]:
    """``values`` of shape ``(n, m)`` as numbers that are all minimized.

    Arguments:
        values: one row per candidate, one column per objective.
        direction: of every column, or of all of them.

    Raises:
        InvalidSettings: another shape, infinite numbers, or directions that are none or not one per column.

    Example:
        >>> minimized([[1, 5]], ("minimize", "maximize"))
        array([[ 1., -5.]])
    """
    table = np.asarray(values, np.float64)
    if table.ndim != 2 or not table.shape[1]:
        raise InvalidSettings(f"values must have shape (n, objectives), but have shape {table.shape}")
    if np.isinf(table).any():
        raise InvalidSettings("values must be finite (NaN for a candidate that has none), but some are infinite")
    given = (direction,) * table.shape[1] if isinstance(direction, str) else tuple(direction)
    if len(given) != table.shape[1] or not set(given) <= {"minimize", "maximize"}:
        raise InvalidSettings(
            f"direction must be 'minimize' or 'maximize', or a tuple of {table.shape[1]} of them (one per objective), "
            f"but is {direction!r}"
        )
    return np.asarray(table * np.array([1.0 if each == "minimize" else -1.0 for each in given]) + 0.0)


def nondominated(
    values: ArrayLike, direction: Direction | tuple[Direction, ...] = "minimize"
) -> NDArray[np.bool_]:
    """Which rows no other row dominates, shape ``(n,)``; of equal rows all or none, and never a row with NaN.

    A row dominates another where it is nowhere worse and somewhere better. Two and three objectives take
    n log n steps; more of them n times the size of the front.

    Arguments:
        values: shape ``(n, m)``.
        direction: of every column, or of all of them.

    Example:
        >>> nondominated([[1, 4], [2, 2], [3, 3], [4, 1]])
        array([ True,  True, False,  True])
    """
    return np.asarray(_ranks(minimized(values, direction), 1) == 0)


def dominance_ranks(
    values: ArrayLike, direction: Direction | tuple[Direction, ...] = "minimize", enough: int | None = None
) -> NDArray[np.int64]:
    """The front that every row belongs to, shape ``(n,)``: 0 where nothing dominates it; -1 for rows with NaN.

    Front r is what nothing dominates once the fronts before it are taken away (Goldberg 1989; NSGA-II, Deb, Pratap,
    Agarwal and Meyarivan 2002, section III.A). For two and three objectives fronts are found by binary search among
    staircases (Jensen 2003; Zhang, Tian, Cheng and Jin 2015, ENS-BS), for more of them one after another.

    Arguments:
        values: shape ``(n, m)``.
        direction: of every column, or of all of them.
        enough: once so many distinct rows have their front, all others may be told the next number, which saves time
            with four objectives and more; None: all have their own.

    Example:
        >>> dominance_ranks([[1, 4], [2, 2], [3, 3], [4, 1], [4, 4]]).tolist()
        [0, 0, 1, 0, 2]
    """
    return _ranks(minimized(values, direction), None, enough)


def crowding(values: ArrayLike, ranks: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """How far apart every row's neighbors are, shape ``(n,)``: the crowding distance of NSGA-II.

    Deb et al. 2002, section III.B: for every objective the distance of the next smaller to the next larger value of the
    same front, as a share of the front's range, summed; infinite at the ends of a front.

    Arguments:
        values: shape ``(n, m)``, without NaN.
        ranks: the front of every row; None: they are one.

    Example:
        >>> crowding([[0, 4], [1, 2], [4, 0]]).tolist()
        [inf, 2.0, inf]
    """
    table = np.asarray(values, np.float64)
    fronts = np.zeros(len(table), np.int64) if ranks is None else ranks
    distance = np.zeros(len(table))
    if not len(table):
        return distance
    for column in table.T:
        order = np.lexsort((column, fronts))
        row, front = column[order], fronts[order]
        first = np.concatenate([[True], front[1:] != front[:-1]])
        last = np.concatenate([first[1:], [True]])
        number = np.cumsum(first) - 1
        span = (row[last] - row[first])[number]
        gap = np.full(len(row), np.inf)
        inner = np.flatnonzero(~first & ~last)
        gap[inner] = (row[inner + 1] - row[inner - 1]) / np.where(span[inner] > 0, span[inner], 1.0)
        distance[order] += gap
    return distance


def repeated(values: ArrayLike) -> NDArray[np.bool_]:
    """Which rows equal an earlier one, shape ``(n,)``."""
    table = np.asarray(values, np.float64)
    mask = np.zeros(len(table), np.bool_)
    order = np.lexsort(table.T)  # stable: of equal rows the first stays the first
    mask[order[1:]] = (table[order[1:]] == table[order[:-1]]).all(axis=1)
    return mask


def normalized(values: ArrayLike) -> NDArray[np.float64]:
    """Every column shifted and scaled so that its values span 0 to 1; a column of equal numbers becomes 0.

    With the rows of a front, 0 is the ideal and 1 the nadir point, and no other reference is needed.
    """
    table: NDArray[np.float64] = np.array(values, np.float64)
    if not len(table):
        return table
    low, high = table.min(axis=0), table.max(axis=0)
    return np.asarray((table - low) / np.where(high > low, high - low, 1.0), np.float64)


def knee(values: ArrayLike, direction: Direction | tuple[Direction, ...] = "minimize") -> int:
    """The row of the knee: farthest from the line (plane) through the extremes, towards the ideal point.

    Das, *On characterizing the "knee" of the Pareto curve based on normal-boundary intersection*, Structural
    Optimization 18, 1999: where giving up a little of one objective no longer buys much of another. Values are
    normalized first, so units do not matter; the line (plane) goes through the best row of each objective, or where
    these span none, through the unit points. Of equal rows the first. Branke, Deb, Dierolf and Osswald (PPSN 2004)
    compare it with other rules.

    Arguments:
        values: shape ``(n, m)``, of a front or of any rows; rows with NaN are no candidates.
        direction: of every column, or of all of them.

    Raises:
        InvalidSettings: no row without NaN.

    Example:
        >>> knee([[0, 10], [1, 3], [5, 2], [10, 0]])
        1
    """
    table = minimized(values, direction)
    rows = np.flatnonzero(nondominated(table))
    if not len(rows):
        raise InvalidSettings("a knee needs at least one row of finite values, but there is none")
    front = normalized(table[rows])
    corners = _corners(front)
    return int(rows[np.argmax((1.0 - front @ _normal(front[corners])) if len(front) > 1 else np.zeros(1))])


def spread(values: ArrayLike, n: int) -> NDArray[np.int64]:
    """Positions of ``n`` rows of a front that cover it, best first: the extremes, then always the farthest row.

    Farthest-first traversal (Gonzalez 1985) in normalized values; all rows, in that order, where there are no more.

    Arguments:
        values: shape ``(m, objectives)``, minimized, without NaN.
        n: how many.

    Example:
        >>> spread([[0, 9], [1, 8], [5, 5], [9, 0]], 3).tolist()
        [0, 3, 2]
    """
    table = normalized(values)
    if not len(table) or n < 1:
        return np.empty(0, np.int64)
    corners = _corners(table)
    chosen = list(dict.fromkeys(corners.tolist()))[:n]
    apart = np.full(len(table), np.inf)
    for row in chosen:
        apart = np.minimum(apart, ((table - table[row]) ** 2).sum(axis=1))
    apart[chosen] = -1.0
    while len(chosen) < min(n, len(table)):
        row = int(apart.argmax())
        chosen.append(row)
        apart = np.minimum(apart, ((table - table[row]) ** 2).sum(axis=1))
        apart[chosen] = -1.0
    return np.array(chosen, np.int64)


def _corners(table: NDArray[np.float64]) -> NDArray[np.intp]:
    """The row that is best in each objective, then best in the sum of the others; shape ``(m,)``."""
    total = table.sum(axis=1)
    return np.array([np.lexsort((total, column))[0] for column in table.T])


def _normal(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """The plane ``x @ normal = 1`` through the corners; the simplex where they span none with a positive normal."""
    m = corners.shape[1]
    try:
        normal = np.linalg.solve(corners, np.ones(m))
    except np.linalg.LinAlgError:
        return np.ones(m)
    sound = np.isfinite(normal).all() and (normal > 0).all()
    return np.asarray(normal, np.float64) if sound else np.ones(m)


def _ranks(table: NDArray[np.float64], fronts: int | None, enough: int | None = None) -> NDArray[np.int64]:
    """Ranks of rows that are minimized; with ``fronts=1`` all but the first front may be any positive number."""
    ranks = np.full(len(table), -1, np.int64)
    rows = np.flatnonzero(~np.isnan(table).any(axis=1))
    if not len(rows):
        return ranks
    order = rows[np.lexsort(table[rows].T[::-1])]  # by the first objective, then by the next: dominators come first
    ordered = table[order]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    ranks[order] = _distinct_ranks(ordered[new], fronts, enough)[np.cumsum(new) - 1]
    return ranks


def _distinct_ranks(table: NDArray[np.float64], fronts: int | None, enough: int | None) -> NDArray[np.int64]:
    """Ranks of distinct rows in lexicographic order."""
    m = table.shape[1]
    if m == 1:
        return np.arange(len(table))
    if m == 2 and fronts == 1:
        best = np.minimum.accumulate(table[:, 1])
        return np.concatenate([[False], table[1:, 1] >= best[:-1]]).astype(np.int64)
    if m == 2:
        return _planar_ranks(table[:, 1].tolist())
    if m == 3:
        return _staircase_ranks(table[:, 1].tolist(), table[:, 2].tolist(), fronts)
    if len(table) ** 2 <= _NUMBERS_AT_ONCE and fronts != 1:
        return _peeled_ranks(table, len(table) if enough is None else enough)
    ranks, rank = np.zeros(len(table), np.int64), 0
    left: NDArray[np.intp] = np.arange(len(table))
    while len(left):
        first = _first_front(table[left])
        ranks[left[first]] = rank
        left, rank = left[~first], rank + 1
        if fronts == 1 or (enough is not None and len(table) - len(left) >= enough):
            ranks[left] = rank
            break
    return ranks


def _planar_ranks(second: list[float]) -> NDArray[np.int64]:
    """Rows in order of the first objective: a front dominates a row where its least second objective is no more."""
    least: list[float] = []  # of every front so far; it rises from front to front
    ranks = np.empty(len(second), np.int64)
    for row, value in enumerate(second):
        rank = bisect_right(least, value)
        if rank == len(least):
            least.append(value)
        else:
            least[rank] = value
        ranks[row] = rank
    return ranks


def _staircase_ranks(second: list[float], third: list[float], fronts: int | None) -> NDArray[np.int64]:
    """Rows in order of the first objective: what a front dominates lies above its staircase in the other two."""
    stairs: list[tuple[list[float], list[float]]] = []  # of every front: second ascending, negated third ascending
    ranks = np.empty(len(second), np.int64)
    limit = len(second) if fronts is None else fronts
    for row, (y, z) in enumerate(zip(second, third, strict=True)):
        low, high = 0, len(stairs)
        while low < high:
            middle = (low + high) // 2
            ys, zs = stairs[middle]
            place = bisect_right(ys, y) - 1
            if place >= 0 and -zs[place] <= z:
                low = middle + 1
            else:
                high = middle
        ranks[row] = low
        if low == limit:
            continue
        if low == len(stairs):
            stairs.append(([], []))
        ys, zs = stairs[low]
        start = bisect_right(ys, y)
        start -= start > 0 and ys[start - 1] == y
        end = bisect_right(zs, -z)  # steps up to here have a third objective of z or more
        ys[start : max(start, end)], zs[start : max(start, end)] = [y], [-z]
    return ranks


def _peeled_ranks(table: NDArray[np.float64], enough: int) -> NDArray[np.int64]:
    """Front after front, by who dominates whom among the distinct rows, until there are ``enough``."""
    dominated, ranks, rank = _dominated_among(table), np.full(len(table), -1, np.int64), 0
    left: NDArray[np.intp] = np.arange(len(table))
    by = np.count_nonzero(dominated, axis=1)
    while left.size and len(table) - len(left) < enough:
        first = by == 0
        front, left, by = left[first], left[~first], by[~first]
        ranks[front] = rank
        by -= np.count_nonzero(dominated[np.ix_(left, front)], axis=1)
        rank += 1
    ranks[left] = rank
    return ranks


def _first_front(table: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the distinct rows nothing dominates, whatever their number of objectives."""
    order = np.lexsort((*table.T[::-1], table.sum(axis=1)))  # a dominator's sum is smaller, or rounds to the same
    ordered = table[order]
    front = ordered[:0]
    mask = np.zeros(len(table), np.bool_)
    for start in range(0, len(ordered), _BLOCK):
        block = ordered[start : start + _BLOCK]
        rows = np.flatnonzero(~_dominated(block, front))
        rows = rows[~_dominated_among(block[rows]).any(axis=1)]
        mask[order[start + rows]] = True
        front = np.concatenate([front, block[rows]])
    return mask


def _dominated(rows: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows are nowhere better than some row of ``by``, all of which are distinct from them."""
    found = np.zeros(len(rows), np.bool_)
    step = max(1, _NUMBERS_AT_ONCE // max(1, len(rows)))
    for start in range(0, len(by), step):
        found |= _nowhere_better(rows, by[start : start + step]).any(axis=1)
    return found


def _dominated_among(rows: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the distinct rows (first axis) is dominated by which."""
    short = _as_places(rows) if len(rows) > _MANY else rows
    found = _nowhere_better(short, short)
    np.fill_diagonal(found, False)
    return found


def _as_places(rows: NDArray[np.float64]) -> NDArray[Any]:
    """Every column's numbers by their place among them: short integers are compared several times faster."""
    kind = np.int16 if len(rows) <= np.iinfo(np.int16).max else np.int32
    places = np.empty(rows.T.shape, kind)
    for own, column in zip(places, rows.T, strict=True):
        order = np.argsort(column, kind="stable")
        ascending = column[order]
        own[order] = np.concatenate([[0], np.cumsum(ascending[1:] > ascending[:-1])])
    return places.T


def _nowhere_better(rows: NDArray[Any], than: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows are at least as large in every column, shape ``(len(rows), len(than))``."""
    found = np.ones((len(rows), len(than)), np.bool_)
    for own, other in zip(rows.T, than.T, strict=True):
        found &= own[:, None] >= other
    return found
