"""Good allocations under many tables of losses at once, in milliseconds: for draws, which need no bound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.allocation_space import AllocationSpace
from searchlib.space import Population

__all__ = ["drawn_allocations"]

#: Steps of the prices of the budgets.
_STEPS = 80
#: Improvements of one part at a time, at most.
_IMPROVEMENTS = 40


def drawn_allocations(
    space: AllocationSpace, losses: NDArray[np.float64], known: Population, tightness: NDArray[np.float64] | None = None
) -> Population:
    """Allocations of small loss, one per table of ``losses`` ``(n, parts, options)``.

    Lagrangian relaxation: with prices on the budgets every part chooses alone; prices follow the subgradient, and the
    best choice met within the budgets (``known``, a row of the space, where there is none) is improved part by part as
    far as the budgets allow. Under ``max_distinct`` the options of every group are chosen by greed. No bound;
    :func:`searchlib.knapsack.solve` has one.

    Arguments:
        space: of the parts.
        losses: shape ``(n, parts, options)``; finite where an option is allowed.
        known: shape ``(parts,)``.
        tightness: shape ``(n,)``: the share of what lies between the cheapest parts and the budgets that each may
            spend; 1 where None. Where ``known`` is beyond that, it may be the answer nevertheless.
    """
    allowed = space.allowed_array
    losses = np.where(allowed, losses, np.inf)
    costs = space.costs_array
    part = np.arange(allowed.shape[0])
    best = np.repeat(known[None].astype(np.intp), len(losses), axis=0)
    low, high = costs.min(axis=2, initial=np.inf, where=allowed), costs.max(axis=2, initial=-np.inf, where=allowed)
    few = _Few.of(space)
    span = (high - low).sum(axis=1)
    span = np.where(span > 0, span, np.maximum(np.abs(high).sum(axis=1), 1.0))  # all options cost the same
    least = low.sum(axis=1)
    share = np.ones(len(losses)) if tightness is None else tightness
    budgets = least + share[:, None] * (space.budgets_array - least)
    slack = 1e-12 * np.abs(budgets)
    finite = np.where(allowed, losses, 0.0)
    size = (finite.max(axis=2) - finite.min(axis=2)).sum(axis=1)[:, None]
    lowest = losses[:, part, best[0]].sum(axis=1)
    price = np.repeat(size, len(costs), axis=1) / max(1, len(costs))
    for step in range(_STEPS):
        priced = losses + np.tensordot(price / span, costs, 1)
        choice = priced.argmin(axis=2) if few is None else few.choice(priced)
        over = np.zeros((len(losses), len(costs)))
        for number, cost in enumerate(costs):
            over[:, number] = cost[part, choice].sum(axis=1) - budgets[:, number]
        own = np.take_along_axis(losses, choice[:, :, None], axis=2)[:, :, 0].sum(axis=1)
        better = (over <= slack).all(axis=1) & (own < lowest)
        best[better], lowest[better] = choice[better], own[better]
        move = np.exp(np.clip(20 * over / span, -1.5, 1) * 8 / (8 + step))
        price = np.maximum(price * move, 1e-6 * size + 1e-300)
        if not len(costs):
            break
    if few is not None:
        losses = np.where(few.used(best, allowed.shape[1]), losses, np.inf)
    rows = _improved(losses, costs, budgets + slack, best).astype(space.dtype)
    inside = space.contains(rows)
    return np.asarray(np.where(inside[:, None], rows, known), space.dtype)


@final
@dataclass(frozen=True, eq=False)
class _Few:
    """At most so many options per group: ``member`` (parts, groups) is 1 where a part belongs to a group."""

    member: NDArray[np.float64]
    group: NDArray[np.intp]
    most: int

    @classmethod
    def of(cls, space: AllocationSpace) -> _Few | None:
        if space.max_distinct is None:
            return None
        parts, options = space.allowed_array.shape
        given = np.zeros(parts, np.intp) if space.groups is None else np.asarray(space.groups)
        group = np.unique(given, return_inverse=True)[1].reshape(-1)
        member = (group[:, None] == np.arange(group.max() + 1)).astype(float)
        return cls(member, group, min(space.max_distinct, options))

    def choice(self, priced: NDArray[np.float64]) -> NDArray[np.intp]:
        """The cheapest option per part among those that its group takes up one after the other, by greed."""
        finite = np.where(np.isfinite(priced), priced, 0.0)
        huge = 4 * np.abs(finite).max(axis=(1, 2), keepdims=True) + 1
        priced = np.where(np.isfinite(priced), priced, huge)
        kept = np.zeros((len(priced), self.member.shape[1], priced.shape[2]), np.bool_)
        lowest = np.broadcast_to(huge, (*priced.shape[:2], 1))
        for _ in range(self.most):
            total = np.einsum("pg,npk->ngk", self.member, np.minimum(priced, lowest), optimize=True)
            np.put_along_axis(kept, total.argmin(axis=2)[:, :, None], True, axis=2)
            lowest = np.where(kept[:, self.group], priced, np.inf).min(axis=2, keepdims=True)
        return np.asarray(np.where(kept[:, self.group], priced, np.inf).argmin(axis=2))

    def used(self, rows: NDArray[np.intp], options: int) -> NDArray[np.bool_]:
        """Which options each part's group has, ``(n, parts, options)``."""
        hot = (rows[:, :, None] == np.arange(options)).astype(float)
        return np.asarray((np.einsum("pg,npk->ngk", self.member, hot, optimize=True) > 0)[:, self.group])


def _improved(
    losses: NDArray[np.float64], costs: NDArray[np.float64], budgets: NDArray[np.float64], rows: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Give one part at a time the option that lowers the loss most within what is left of the budgets."""
    rows, part = rows.copy(), np.arange(rows.shape[1])
    active = np.arange(len(rows))
    for _ in range(_IMPROVEMENTS):
        mine = rows[active]
        gain = losses[active] - np.take_along_axis(losses[active], mine[:, :, None], axis=2)
        for cost, budget in zip(costs, budgets.T, strict=True):
            own = cost[part, mine]
            left = budget[active] - own.sum(axis=1)
            gain = np.where(cost - own[:, :, None] <= left[:, None, None], gain, np.inf)
        flat = gain.reshape(len(active), -1)
        where = flat.argmin(axis=1)
        good = flat[np.arange(len(active)), where] < 0
        active, where = active[good], where[good]
        if not len(active):
            break
        rows[active, where // losses.shape[2]] = where % losses.shape[2]
    return rows
