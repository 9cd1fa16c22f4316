"""The books of an allocation space: what rows cost, and moves of whole populations back under their budgets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.allocation_space import unit_of_sums
from searchlib.space import Population

__all__ = ["Ledger"]

#: Rounds of moving parts to cheaper options before what is still over a budget is moved toward a feasible row.
_ROUNDS = 8


@final
@dataclass(frozen=True, eq=False)
class Ledger:
    """Costs as whole numbers of a unit, so that sums are exact in any order, and vectorized moves.

    Arguments:
        costs: shape ``(budgets, parts, options)``, finite.
        budgets: shape ``(budgets,)``.
        allowed: shape ``(parts, options)``; at least one per part.
        group: shape ``(parts,)``, numbered from 0.
        max_distinct: the most different options in a group, or None.
    """

    costs: NDArray[np.float64]
    budgets: NDArray[np.float64]
    allowed: NDArray[np.bool_]
    group: NDArray[np.intp]
    max_distinct: int | None

    @cached_property
    def parts(self) -> int:
        return int(self.allowed.shape[0])

    @cached_property
    def options(self) -> int:
        return int(self.allowed.shape[1])

    @cached_property
    def groups(self) -> int:
        return int(self.group.max()) + 1

    @cached_property
    def units(self) -> NDArray[np.float64]:
        """Costs in whole units; their sums stay below 2**51, where float64 adds whole numbers exactly."""
        unit = unit_of_sums(self.costs, self.budgets)
        return np.asarray(np.rint(self.costs / unit[:, None, None]) * self.allowed)

    @cached_property
    def limit(self) -> NDArray[np.float64]:
        """Budgets in units. Where a cost had to be rounded, one unit per part is what the rounding may amount to."""
        unit = unit_of_sums(self.costs, self.budgets)
        rounded = (self.units * unit[:, None, None] != self.costs * self.allowed).any(axis=(1, 2))
        return np.asarray(np.floor(self.budgets / unit) + self.parts * rounded)

    @cached_property
    def scale(self) -> NDArray[np.float64]:
        """How much of every budget there is to decide, in units, at least 1."""
        low = np.where(self.allowed, self.units, np.inf).min(axis=2).sum(axis=1)
        high = np.where(self.allowed, self.units, -np.inf).max(axis=2).sum(axis=1)
        return np.asarray(np.maximum(high - low, 1.0))

    @cached_property
    def lower(self) -> NDArray[np.intp]:
        """How many allowed options are cheaper, ``(budgets + 1, parts, options)``; the last by all budgets together."""
        weighted = (self.units / self.scale[:, None, None]).sum(axis=0, keepdims=True)
        sizes = np.where(self.allowed, np.concatenate([self.units, weighted]), np.inf)
        return np.stack([(size[:, None, :] < size[:, :, None]).sum(axis=2) for size in sizes])

    @cached_property
    def sorted_options(self) -> NDArray[np.intp]:
        """Options by cost, allowed ones first, ``(budgets + 1, parts, options)``."""
        return np.argsort(np.where(self.allowed, self.lower, self.options), axis=2, kind="stable")

    @cached_property
    def count(self) -> NDArray[np.intp]:
        """Allowed options per part, ``(parts,)``."""
        return np.asarray(self.allowed.sum(axis=1), np.intp)

    @cached_property
    def place(self) -> NDArray[np.intp]:
        """Where each option stands in the last of :attr:`sorted_options`, ``(parts, options)``."""
        place = np.empty((self.parts, self.options), np.intp)
        np.put_along_axis(place, self.sorted_options[-1], np.arange(self.options)[None], axis=1)
        return place

    @cached_property
    def firsts(self) -> NDArray[np.intp]:
        """The first part of every group, ``(groups,)``."""
        return np.unique(self.group, return_index=True)[1]

    @cached_property
    def member(self) -> NDArray[np.float64]:
        """1 where a part belongs to a group, ``(parts, groups)``."""
        return np.asarray(self.group[:, None] == np.arange(self.groups), np.float64)

    @cached_property
    def starts(self) -> NDArray[np.intp]:
        """Where the options of each part start in a flat table ``(parts * options,)``."""
        return np.arange(self.parts) * self.options

    def cost(self, rows: Population) -> NDArray[np.float64]:
        """Units of each row, ``(n, budgets)``."""
        index = rows + self.starts
        sums = np.empty((len(rows), len(self.limit)))
        for number, units in enumerate(self.units):
            units.ravel().take(index).sum(axis=1, out=sums[:, number])
        return sums

    def affordable(self, rows: Population) -> NDArray[np.bool_]:
        """Which rows are within all budgets."""
        return np.asarray((self.cost(rows) <= self.limit).all(axis=1))

    def used(self, rows: Population) -> NDArray[np.intp]:
        """How many parts of each group have each option, ``(n, groups, options)``."""
        n = len(rows)
        index = (np.arange(n)[:, None] * self.groups + self.group) * self.options + rows
        size = n * self.groups * self.options
        return np.bincount(index.ravel(), minlength=size).reshape(n, self.groups, self.options)

    def few_enough(self, rows: Population) -> NDArray[np.bool_]:
        """Which rows have at most ``max_distinct`` options in every group."""
        if self.max_distinct is None:
            return np.ones(len(rows), np.bool_)
        return np.asarray(((self.used(rows) > 0).sum(axis=2) <= self.max_distinct).all(axis=1))

    def limited(self, rows: Population, prefer: NDArray[np.float64], floor: Population) -> Population:
        """Rows whose groups keep the ``max_distinct`` used options of largest ``prefer`` ``(n, groups, options)``.

        Parts with another option move to the nearest kept one; a group of which some part has no kept option takes
        the options of ``floor``.
        """
        if self.max_distinct is None or not len(rows):
            return rows
        used = self.used(rows) > 0
        wide = used.sum(axis=2) > self.max_distinct
        if not wide.any():
            return rows
        order = np.argsort(-np.where(used, prefer, -np.inf), axis=2, kind="stable")
        kept = np.zeros_like(used)
        np.put_along_axis(kept, order[:, :, : self.max_distinct], True, axis=2)
        kept = (kept & used) | (used & ~wide[:, :, None])
        usable = kept[:, self.group] & self.allowed
        far = np.abs(self.place - self.place[np.arange(self.parts), rows][:, :, None])
        nearest = np.where(usable, far, self.options + 1).argmin(axis=2)
        lost = np.zeros((len(rows), self.groups), np.bool_)
        row, part = np.nonzero(~usable.any(axis=2))
        lost[row, self.group[part]] = True
        return np.where(lost[:, self.group], floor, nearest).astype(rows.dtype)

    def moved(self, rows: Population, targets: Population, keys: NDArray[Any], by_group: bool = False) -> Population:
        """Set parts to their targets, smallest key first, until all budgets hold; all of them where none holds.

        With ``by_group`` the parts of a group move together, by the key of the first of them.
        """
        first = self._first_affordable(rows, targets, keys, by_group)
        return np.where(first, targets, rows).astype(rows.dtype)

    def _first_affordable(
        self, rows: Population, targets: Population, keys: NDArray[Any], by_group: bool
    ) -> NDArray[np.bool_]:
        if by_group:
            keys = keys[:, self.firsts]
        order = np.argsort(keys, axis=1)
        left = self.limit - self.cost(rows)
        fits = np.ones(order.shape, np.bool_)
        before, after = rows + self.starts, targets + self.starts
        for number, units in enumerate(self.units):
            flat = units.ravel()
            change = flat.take(after) - flat.take(before)
            change = change @ self.member if by_group else change
            fits &= np.take_along_axis(change, order, axis=1).cumsum(axis=1) <= left[:, number, None]
        last = np.where(fits.any(axis=1), fits.argmax(axis=1), order.shape[1])
        position = np.empty_like(order)
        np.put_along_axis(position, order, np.arange(order.shape[1])[None], axis=1)
        taken = position <= last[:, None]
        return taken[:, self.group] if by_group else taken

    def filled(self, rows: Population, targets: Population, keys: NDArray[Any]) -> Population:
        """Set parts to their targets, smallest key first, as long as all budgets hold."""
        order = np.argsort(keys, axis=1)
        left = self.limit - self.cost(rows)
        fits = np.ones(order.shape, np.bool_)
        before, after = rows + self.starts, targets + self.starts
        for number, units in enumerate(self.units):
            flat = units.ravel()
            change = np.take_along_axis(flat.take(after) - flat.take(before), order, axis=1)
            fits &= change.cumsum(axis=1) <= left[:, number, None]
        taken = np.empty_like(fits)
        np.put_along_axis(taken, order, np.logical_and.accumulate(fits, axis=1), axis=1)
        return np.where(taken, targets, rows).astype(rows.dtype)

    def tightest(self, rows: Population) -> NDArray[np.intp]:
        """The budget that each row exceeds most, ``(n,)``."""
        return np.asarray(((self.cost(rows) - self.limit) / self.scale).argmax(axis=1))

    def repaired(
        self,
        rows: Population,
        floor: Population,
        keys: NDArray[Any],
        *,
        rng: np.random.Generator | None = None,
        scores: NDArray[np.float64] | None = None,
    ) -> Population:
        """Move few parts of rows that exceed a budget to cheaper options, until all budgets hold.

        Every round looks at the budget that a row exceeds most, chooses a cheaper option for every part, and takes as
        many of them, in the order of ``keys`` ``(n, parts)``, as it needs. What is still over a budget after several
        rounds (budgets in conflict) takes parts (groups, under ``max_distinct``) of the feasible row ``floor``: at the
        latest all of them. Within ``max_distinct`` options only those that the group has are chosen.

        Arguments:
            rows: shape ``(n, parts)``, of allowed options, within ``max_distinct``.
            floor: a feasible row.
            keys: parts with small keys change first; with ``scores`` they are added to the loss of score per cost.
            rng: draws the cheaper option; without it the next cheaper ones are tried first.
            scores: shape ``(n, parts, options)``: the cheaper option of largest score, where it costs least.
        """
        rows = rows.copy()
        bad = np.flatnonzero(~self.affordable(rows))
        for attempt in range(_ROUNDS):
            if not len(bad):
                return rows
            part, tight = rows[bad], self.tightest(rows[bad])
            if scores is None and self.max_distinct is None:
                targets, order = self._cheaper(part, tight, rng, attempt), keys[bad]
            else:
                mine = None if scores is None else scores[bad]
                targets, order = self._cheaper_by_score(part, tight, rng, mine, keys[bad])
            rows[bad] = self.moved(part, targets, order)
            bad = bad[~self.affordable(rows[bad])]
        if len(bad):
            targets = np.broadcast_to(floor, (len(bad), self.parts))
            rows[bad] = self.moved(rows[bad], targets, keys[bad], by_group=self.max_distinct is not None)
        return rows

    def _cheaper(
        self, rows: Population, tight: NDArray[np.intp], rng: np.random.Generator | None, attempt: int
    ) -> Population:
        index = (tight * self.parts * self.options)[:, None] + self.starts
        lower = self.lower.ravel().take(index + rows)
        if rng is None:
            rank = np.maximum(lower - (1 << attempt), 0)  # one notch, then two, four …
        else:
            rank = (rng.random(rows.shape, np.float32) * lower).astype(np.intp)
        return np.where(lower > 0, self.sorted_options.ravel().take(index + rank), rows)

    def _cheaper_by_score(
        self,
        rows: Population,
        tight: NDArray[np.intp],
        rng: np.random.Generator | None,
        scores: NDArray[np.float64] | None,
        keys: NDArray[Any],
    ) -> tuple[Population, NDArray[Any]]:
        lower = self.lower[tight]
        own = np.take_along_axis(lower, rows[:, :, None].astype(np.intp), axis=2)
        may = self.allowed & (lower < own)
        if self.max_distinct is not None:
            may &= (self.used(rows) > 0)[:, self.group]
        if scores is None:
            wish = np.asarray(lower, np.float64) if rng is None else rng.random(lower.shape)
        else:
            wish = scores
        targets = np.where(may, wish, -np.inf).argmax(axis=2)
        targets = np.where(may.any(axis=2), targets, rows)
        if scores is None:
            return targets, keys
        at = np.arange(self.parts)
        flat = self.units[tight]
        pick = np.arange(len(rows))[:, None]
        saving = (flat[pick, at, rows] - flat[pick, at, targets]) / self.scale[tight][:, None]
        loss = np.take_along_axis(scores, rows[:, :, None].astype(np.intp), axis=2)[:, :, 0]
        loss = loss - np.take_along_axis(scores, targets[:, :, None], axis=2)[:, :, 0]
        return targets, np.where(saving > 0, loss / np.maximum(saving, 1e-12), np.inf)
