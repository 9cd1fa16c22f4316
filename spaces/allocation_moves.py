"""The smallest moves within an allocation space, all at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Population, distinct
from searchlib.spaces.allocation_ledger import Ledger
from searchlib.spaces.listing import one_changed

__all__ = ["moves"]

#: Switches of single parts up to which exchanges of two of them are looked at: two million pairs.
MOST = 2000


def moves(ledger: Ledger, row: NDArray[Any]) -> Population:
    """Every feasible row that differs from a feasible one, ``(parts,)``, by a switch, an exchange or a joint switch.

    A *switch* gives one part another option. An *exchange* switches two parts of which one could not switch alone, as
    when one pays for the other (the level switch of EvoPress, arXiv 2410.14649); spaces with more than
    2,000 switches have none, for there would be too many. Under ``max_distinct`` a *joint switch* gives all parts of a
    group that have one option another one, which the group did not have. All three lead back the way they came.
    """
    offered = ledger.allowed & (np.arange(ledger.options) != row[:, None])
    options = np.broadcast_to(np.arange(ledger.options), offered.shape)
    singles = one_changed(row, options, offered)
    fits = ledger.affordable(singles) & ledger.few_enough(singles)
    found = [singles[fits]]
    if len(singles) <= MOST:
        found.append(_exchanges(ledger, row, offered, fits))
    if ledger.max_distinct is None:
        return np.concatenate(found)
    return distinct(np.concatenate([*found, _joint(ledger, row)]))


def _exchanges(ledger: Ledger, row: NDArray[Any], offered: NDArray[np.bool_], fits: NDArray[np.bool_]) -> Population:
    part, option = np.nonzero(offered)
    change = ledger.units[:, part, option] - ledger.units[:, part, row[part]]
    left = ledger.limit - ledger.cost(row[None])[0]
    allowed = np.triu(part[:, None] != part) & ~(fits[:, None] & fits)
    for number in range(len(left)):
        allowed &= change[number, :, None] + change[number] <= left[number]
    one, two = np.nonzero(allowed)
    rows, each = np.repeat(row[None], len(one), axis=0), np.arange(len(one))
    rows[each, part[one]], rows[each, part[two]] = option[one], option[two]
    return np.asarray(rows[ledger.few_enough(rows)])


def _joint(ledger: Ledger, row: NDArray[Any]) -> Population:
    used = ledger.used(row[None])[0] > 0
    group, old, new = np.nonzero(used[:, :, None] & ~used[:, None, :])
    moved = (ledger.group == group[:, None]) & (row == old[:, None])
    may = ledger.allowed[np.arange(ledger.parts), new[:, None]]
    possible = (may | ~moved).all(axis=1)
    rows = np.where(moved, new[:, None], row).astype(row.dtype)[possible]
    return np.asarray(rows[ledger.affordable(rows) & ledger.few_enough(rows)])
