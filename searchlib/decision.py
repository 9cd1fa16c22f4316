"""What a filled score table says: the best row, or the group of rows with the largest sum."""

from __future__ import annotations

from typing import Any, Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.errors import InvalidSettings

__all__ = ["DIGITS", "Contest", "Decision", "decide"]

#: ``"max"``: the row with the largest value wins. ``"sum"``: the group with the largest weighted sum of values wins.
Decision = Literal["max", "sum"]

#: Values that are equal to so many decimals are equal: 0.1 + 0.2 ties with 0.3.
DIGITS = 9


def decide(
    values: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    prefer: ArrayLike | None = None,
    decision: Decision = "max",
) -> int:
    """The winning row where all values are known.

    Arguments:
        values: shape ``(n,)``, the higher the better.
        groups: shape ``(n,)``, whole numbers; what each row argues for. None: every row stands for itself.
        weights: shape ``(n,)``, positive; how often each row counts in a sum. None: once.
        prefer: shape ``(n,)``; among equals the largest wins, then the lowest row. None: the weight of its group.
        decision: ``"max"`` or ``"sum"``.

    Returns:
        the winning row; for ``"sum"``, the best row of the winning group.

    Raises:
        InvalidSettings: no rows, or arguments of other shapes.

    Example:
        >>> values = [0.9, 0.6, 0.5]
        >>> decide(values, groups=[7, 8, 8]), decide(values, groups=[7, 8, 8], decision="sum")
        (0, 1)
    """
    array = per_row("values", values, np.size(values))
    contest = Contest(len(array), groups, weights, prefer, decision)
    first = best(contest.sums(contest.weights * array), contest.rank)
    rows = np.flatnonzero(contest.owner == first)
    return int(rows[best(array[rows], contest.row_rank[rows])])


@final
class Contest:
    """Who competes: the rows, the candidates they belong to (themselves, or their groups), and who wins a tie.

    Arguments:
        n: number of rows.
        groups, weights, prefer, decision: as for :func:`decide`.

    Attributes:
        group: shape ``(n,)``, the groups numbered from 0; ``names`` as they were given.
        owner: shape ``(n,)``, the candidate of each row, numbered from 0 to ``size - 1``.
        weights: shape ``(n,)``, what each row contributes to its candidate.
        row_rank, rank: order of rows ``(n,)`` and of candidates ``(size,)`` among equals, 0 the first.
    """

    def __init__(
        self,
        n: int,
        groups: ArrayLike | None,
        weights: ArrayLike | None,
        prefer: ArrayLike | None,
        decision: Decision,
    ) -> None:
        if decision not in ("max", "sum"):
            raise InvalidSettings(f'decision must be "max" or "sum", but is {decision!r}')
        if not n:
            raise InvalidSettings("there must be at least one candidate, but there is none")
        self.decision: Decision = decision
        self.names = np.arange(n) if groups is None else per_row("groups", groups, n, "iu")
        self.group = np.unique(self.names, return_inverse=True)[1].reshape(-1)
        counts = np.ones(n) if weights is None else per_row("weights", weights, n).astype(np.float64)
        if not (counts > 0).all():
            raise InvalidSettings(f"weights must be positive, but the smallest is {counts.min()}")
        liked = np.bincount(self.group, counts)[self.group] if prefer is None else per_row("prefer", prefer, n)
        self.row_rank = np.argsort(np.argsort(-liked.astype(np.float64), kind="stable"))
        self.owner = self.group if decision == "sum" else np.arange(n)
        self.size = int(self.owner.max()) + 1
        self.weights = counts if decision == "sum" else np.ones(n)
        first = np.full(self.size, n)
        np.minimum.at(first, self.owner, self.row_rank)
        self.rank = np.argsort(np.argsort(first))

    def sums(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Sums over the rows of each candidate, shape ``(size,)``."""
        return np.bincount(self.owner, values, self.size).astype(np.float64)


def best(values: NDArray[np.float64], rank: NDArray[np.int64]) -> int:
    """Where the largest value is; of equals, the one that comes first in ``rank``."""
    rounded = np.round(values, DIGITS)
    ties = np.flatnonzero(rounded == rounded.max())
    return int(ties[np.argmin(rank[ties])])


def per_row(name: str, values: ArrayLike, n: int, kinds: str = "iufb") -> NDArray[Any]:
    """``values`` as an array of one number per row."""
    array = np.asarray(values)
    if array.shape != (n,) or array.dtype.kind not in kinds or not np.isfinite(array).all():
        what = "whole" if kinds == "iu" else "finite"
        raise InvalidSettings(
            f"{name} must be {n} {what} numbers, one per row, but are {array.dtype} of shape {array.shape}"
        )
    return array
