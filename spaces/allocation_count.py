"""Whether an allocation space has candidates, which they are where they are few, and how many where they are many."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Population
from searchlib.spaces.allocation_ledger import Ledger

__all__ = ["count", "enumerated", "feasible_row"]

#: Spaces with at most this many candidates are listed.
LISTED = 4096
#: Partial candidates held at most while listing.
_PARTIAL = 1 << 16
#: Distinct sums of costs held at most while counting.
_SUMS = 1 << 16
#: Steps of cost in the bound on the number of candidates.
_GRID = 2048
#: Rounds of weighing budgets anew in the search for a feasible row.
_WEIGHINGS = 200
#: Seconds after which the search for a feasible row gives up.
_SECONDS = 60.0


def feasible_row(ledger: Ledger) -> Population | None:
    """A row within all limits, ``(parts,)``, cheap on all budgets where that is possible; None where there is none."""
    weights = np.ones(len(ledger.limit))
    for _ in range(_WEIGHINGS if len(weights) > 1 else 1):
        size = np.einsum("b,bpk->pk", weights / ledger.scale, ledger.units)
        row = _cheapest(ledger, size)
        over = (ledger.cost(row[None])[0] - ledger.limit) / ledger.scale
        if (over <= 0).all() and _member(ledger, row):
            return row
        weights = weights * np.exp(np.clip(8 * over, -0.5, 0.5))
        weights /= weights.sum()
    return _solved(ledger)


def _cheapest(ledger: Ledger, size: NDArray[np.float64]) -> Population:
    """Every part's smallest option; under ``max_distinct`` by greed the smallest of few options per group.

    Greed may find none for some part; the row then has an option that is not allowed.
    """
    size = np.where(ledger.allowed, size, np.inf)
    row = size.argmin(axis=1)
    if ledger.max_distinct is None or ledger.few_enough(row[None])[0]:
        return np.asarray(row, np.int16)
    for group in range(ledger.groups):
        parts = np.flatnonzero(ledger.group == group)
        best = np.full(len(parts), np.inf)
        kept: list[int] = []
        for _ in range(min(ledger.max_distinct, ledger.options)):
            left = np.minimum(best[:, None], size[parts])
            missing = np.isinf(left).sum(axis=0)
            total = np.where(np.isinf(left), 0.0, left).sum(axis=0)
            option = int(np.lexsort((total, missing))[0])
            kept.append(option)
            best = left[:, option]
        row[parts] = np.array(kept)[size[parts][:, kept].argmin(axis=1)]
    return np.asarray(row, np.int16)


def _solved(ledger: Ledger) -> Population | None:
    """The cheapest feasible row by integer programming; None where there is none.

    Raises:
        TimeoutError: neither a row nor a proof that there is none within a minute.
    """
    from scipy import sparse
    from scipy.optimize import Bounds, LinearConstraint, milp

    parts, options, groups = ledger.parts, ledger.options, ledger.groups
    few = ledger.max_distinct is not None
    x, y = parts * options, groups * options if few else 0
    blocks = [LinearConstraint(_padded(sparse.kron(sparse.eye(parts), np.ones((1, options))), y), 1, 1)]
    for units, limit, scale in zip(ledger.units, ledger.limit, ledger.scale, strict=True):
        sums = sparse.csr_matrix(units.reshape(1, x) / scale)
        blocks.append(LinearConstraint(_padded(sums, y), -np.inf, limit / scale))
    if few:
        member = sparse.csr_matrix((np.ones(parts), (np.arange(parts), ledger.group)), (parts, groups))
        link = sparse.hstack([sparse.eye(x), -sparse.kron(member, sparse.eye(options))])
        blocks.append(LinearConstraint(link, -np.inf, 0))
        width = sparse.kron(sparse.eye(groups), np.ones((1, options)))
        blocks.append(LinearConstraint(sparse.hstack([sparse.csr_matrix((groups, x)), width]), 0, ledger.max_distinct))
    size = np.einsum("b,bpk->pk", 1 / ledger.scale, ledger.units).ravel()
    upper = np.concatenate([ledger.allowed.ravel().astype(float), np.ones(y)])
    found = milp(
        np.concatenate([size, np.zeros(y)]), constraints=blocks, integrality=np.ones(x + y), bounds=Bounds(0, upper),
        options={"time_limit": _SECONDS},
    )  # fmt: skip
    if found.x is None:
        if found.status == 2:
            return None
        raise TimeoutError(found.message)
    row = found.x[:x].reshape(parts, options).argmax(axis=1).astype(np.int16)
    return row if _member(ledger, row) else None


def _member(ledger: Ledger, row: Population) -> bool:
    allowed = ledger.allowed[np.arange(ledger.parts), row].all()
    return bool(allowed and ledger.affordable(row[None])[0] and ledger.few_enough(row[None])[0])


def _padded(matrix: Any, columns: int) -> Any:
    from scipy import sparse

    return sparse.hstack([matrix, sparse.csr_matrix((matrix.shape[0], columns))]) if columns else matrix


def enumerated(ledger: Ledger, most: int = LISTED, partial: int = _PARTIAL) -> Population | None:
    """All candidates in lexical order, where they are at most ``most``; None where there may be more."""
    cheapest = np.where(ledger.allowed, ledger.units, np.inf).min(axis=2)
    rest = cheapest.sum(axis=1, keepdims=True) - cheapest.cumsum(axis=1)  # of the parts after each
    rows = np.zeros((1, ledger.parts), np.int16)
    spent = np.zeros((1, len(ledger.limit)))
    few = ledger.max_distinct is not None
    used = np.zeros((1, ledger.groups, ledger.options), np.bool_) if few else None
    for part in range(ledger.parts):
        choices = np.flatnonzero(ledger.allowed[part])
        source = np.repeat(np.arange(len(rows)), len(choices))
        option = np.tile(choices, len(rows))
        cost = spent[source] + ledger.units[:, part, option].T
        keep = (cost + rest[:, part] <= ledger.limit).all(axis=1)
        group = ledger.group[part]
        if used is not None:
            new = ~used[source, group, option]
            keep &= used[source, group].sum(axis=1) + new <= (ledger.max_distinct or 0)
        source, option = source[keep], option[keep]
        if len(source) > partial or (part == ledger.parts - 1 and len(source) > most):
            return None
        rows, spent = rows[source], cost[keep]
        rows[:, part] = option
        if used is not None:
            used = used[source]
            used[np.arange(len(source)), group, option] = True
    return rows


def count(ledger: Ledger) -> int:
    """How many candidates there are where they can be counted, else a bound that is not below."""
    wide = ledger.max_distinct is not None
    if not wide:
        counted = _counted(ledger)
        if counted is not None:
            return counted
    per_part = [int(number) for number in ledger.count]
    bounds = [math.prod(per_part)]
    if ledger.max_distinct is not None:
        most = min(ledger.max_distinct, ledger.options)
        ways = math.comb(ledger.options, most) ** ledger.groups
        bounds.append(ways * math.prod(min(most, number) for number in per_part))
    bounds.extend(_bound(ledger, number) for number in range(len(ledger.limit)))
    return min(bounds)


def _counted(ledger: Ledger) -> int | None:
    """By dynamic programming over the distinct sums of costs; None where these are too many."""
    if not len(ledger.limit):
        return math.prod(int(number) for number in ledger.count)
    cheapest = np.where(ledger.allowed, ledger.units, np.inf).min(axis=2)
    rest = cheapest.sum(axis=1, keepdims=True) - cheapest.cumsum(axis=1)
    spent = np.zeros((1, len(ledger.limit)))
    ways = np.ones(1, object)  # whole numbers of any length
    for part in range(ledger.parts):
        choices = np.flatnonzero(ledger.allowed[part])
        cost = (spent[:, None] + ledger.units[:, part, choices].T).reshape(-1, len(ledger.limit))
        many = np.repeat(ways, len(choices))
        keep = (cost + rest[:, part] <= ledger.limit).all(axis=1)
        spent, which = np.unique(cost[keep], axis=0, return_inverse=True)
        if len(spent) > _SUMS // max(1, ledger.options):
            return None
        ways = np.zeros(len(spent), object)
        np.add.at(ways, which.reshape(-1), many[keep])
    return int(ways.sum())


def _bound(ledger: Ledger, number: int) -> int:
    """No fewer than the candidates within one budget: costs rounded down to a grid, which admits more."""
    units = np.where(ledger.allowed, ledger.units[number], np.inf)
    low = units.min(axis=1)
    room = ledger.limit[number] - low.sum()
    most = np.where(ledger.allowed, units - low[:, None], 0.0).max(axis=1).sum()
    if room >= most:
        return math.prod(int(n) for n in ledger.count)
    step = max(room / _GRID, 1.0)
    ways: NDArray[np.float64] = np.zeros(int(room // step) + 1)
    ways[0], exponent = 1.0, 0
    for part in range(ledger.parts):
        new = np.zeros_like(ways)
        for extra in units[part][ledger.allowed[part]] - low[part]:
            shift = int(extra // step)
            if shift < len(ways):
                new[shift:] += ways[: len(ways) - shift]
        largest = math.frexp(float(new.max()))[1]
        ways, exponent = np.ldexp(new, -largest), exponent + largest
    total = ways.sum() * (1 + 1e-9)  # for what rounding may have lost
    mantissa, power = math.frexp(float(total))
    bits = int(mantissa * 2**53) + 1
    shift = power + exponent - 53
    return bits << shift if shift >= 0 else (bits >> -shift) + 1
