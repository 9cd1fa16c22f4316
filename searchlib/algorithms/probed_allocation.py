"""Allocation from nothing: probe the parts within the budget, solve the sum of what they lose, search what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.additive_profile import AdditiveProfile
from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status, in_order
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.exact_allocation import ExactAllocation
from searchlib.algorithms.local_search import LocalSearch
from searchlib.algorithms.portfolio import Portfolio
from searchlib.algorithms.proposed import Proposed
from searchlib.allocation_space import AllocationSpace
from searchlib.arguments import check_field, instance, real_number
from searchlib.errors import MissingOperator
from searchlib.space import Population, row_keys

__all__ = ["ProbedAllocation"]

#: Part of what a dearer option gains over the one before it, where nothing says: a bit less quarters a rounding error.
_USUAL, _LEAST, _MOST = 0.35, 0.1, 0.9
#: Part of the evaluations that one change of every part may take, even where ``share`` is smaller.
_FIRST_SHARE = 0.6
#: Ids under which the second phase hears of the probes.
_PROBES = -(1 << 42)
#: Evaluations assumed where no budget of evaluations is known.
_UNKNOWN = 300


@final
@dataclass(frozen=True, kw_only=True)
class ProbedAllocation(Algorithm):
    """Measure what every part loses at a cheaper option, extrapolate, allocate exactly, then search.

    Every candidate lies within the budgets, the probes too (a profile measured beside the budgets, by
    :func:`searchlib.measure_profile`, says more, and belongs to :class:`searchlib.ExactAllocation`):

    1. *Even* candidates: all parts at the same option, as far as the budgets allow it. The best is the base; the others
       say how quickly the loss falls from option to option.
    2. Single changes of the base: every part at the cheapest option, then at the next cheaper one, and so on, until
       ``share`` of the evaluations are spent (.6 of them, if the first round takes it). What dearer options gain is
       extrapolated: their differences shrink by a constant factor, taken from the even candidates.
    3. :class:`~searchlib.ExactAllocation` on that profile (its exact optimum, alternates, draws from the posterior of
       a linear model of everything evaluated), and :class:`~searchlib.LocalSearch` around the best, taking turns.

    Arguments:
        share: part of the evaluations that probes may take after the first round, in (0, 1).
        local: the local search.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Allocation
        >>> bits, sizes = (2, 4, 8), (1.0, 3.0, 2.0, 1.0)
        >>> space = Allocation(tuple("abcd"), bits, costs=[[[s * b for b in bits] for s in sizes]], budgets=[28.0])
        >>> def loss(bits):
        ...     return sum(weight * 4.0**-b for weight, b in zip((9, 1, 1, 30), bits))
        >>> search(loss, ProbedAllocation(), space=space, budget=20).best
        (4, 2, 4, 8)
    """

    share: float = 0.4
    local: LocalSearch = LocalSearch()  # noqa: RUF009  frozen

    def __post_init__(self) -> None:
        check_field(self, "share", real_number, "(0, 1)")
        check_field(self, "local", instance, LocalSearch, "a LocalSearch(…)")

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run, for one objective.

        Raises:
            MissingOperator: the space is no :class:`~searchlib.AllocationSpace`.
        """
        problem.require_one_objective(self)
        if not isinstance(problem.space, AllocationSpace):
            raise MissingOperator(f"ProbedAllocation needs an AllocationSpace, but got {type(problem.space).__name__}")
        return _ProbedRun(self, problem.space, problem, rng)


@final
class _ProbedRun(Run):
    def __init__(
        self, settings: ProbedAllocation, space: AllocationSpace, problem: Problem, rng: np.random.Generator
    ) -> None:
        self._settings, self._space, self._problem, self._rng = settings, space, problem, rng
        self._archive, self._proposed = Archive(space, 64), Proposed(space)
        self._table: list[tuple[Population, float]] = []
        self._values: dict[bytes, float] = {}
        self._waiting: list[Evidence] = []
        self._open: set[int] = set()  # probes that have not been told
        self._probed: list[Evidence] = []
        self._even = _even(space)
        self._queue = self._proposed.claim(space.canonical(np.concatenate([problem.first_rows, self._even])))
        self._phase = 0
        self._asked = self._offset = 0
        self._second: Run | None = None
        self._profile: AdditiveProfile | None = None

    def ask(self, n: int) -> Batch:
        self._settle()
        while self._second is None and not len(self._queue):
            self._advance()
        if self._second is not None:
            batch = self._second.ask(n)
            return Batch(batch.ids + self._offset, batch.population)
        rows, self._queue = self._queue[:n], self._queue[n:]
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        self._open.update(ids.tolist())
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        if self._second is None:
            self._waiting.append(evidence)
        else:
            self._pass_on(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        if self._second is not None:
            return self._second.recommend(n)
        return self._archive.best(n)

    def notes(self) -> Mapping[str, Any]:
        notes: dict[str, Any] = {"probes": self._offset if self._second is not None else self._asked}
        return {**notes, **({} if self._second is None else self._second.notes())}

    def _pass_on(self, evidence: Evidence) -> None:
        """Tell the second phase, under its own ids; of late probes under negative ones."""
        assert self._second is not None
        ids = [
            index if index < 0 else _PROBES + index if index < self._offset else index - self._offset
            for index in evidence.ids.tolist()
        ]
        self._second.tell(replace(evidence, ids=np.array(ids, np.int64)))

    def _settle(self) -> None:
        if self._second is not None:
            return
        for evidence in self._waiting:
            self._proposed.note_strangers(evidence)
            self._archive.add(evidence)
            self._open.difference_update(evidence.ids.tolist())
        self._probed += self._waiting
        for evidence, place in in_order(self._waiting):
            if evidence.status[place] == Status.DONE:
                key = row_keys(self._space.canonical(evidence.population[place][None]))[0]
                self._values.setdefault(key, float(evidence.values[place, 0]))
        self._waiting = []
        self._archive.settle()

    def _advance(self) -> None:
        """From the even candidates to the single changes, and from these to the search."""
        known = [self._value(row) for row in self._even]
        if self._phase == 0 and np.isfinite(known).any():
            self._phase = 1
            self._base = self._even[int(np.argmin(known))]
            self._queue = self._proposed.claim(self._single_changes())
            if len(self._queue):
                return
        if self._phase == 0:  # no even candidate has succeeded, or none has been told yet
            self._base = self._even[0]
        self._begin_search()

    def _single_changes(self) -> Population:
        """One part of the base at another option that the budgets allow, cheapest options first."""
        space, base = self._space, self._base
        allowed, order = space.allowed_array, _by_cost(space)
        budget = self._problem.evaluations or _UNKNOWN
        rows = []
        left = int(_FIRST_SHARE * budget) - self._asked
        for option in order:
            parts = np.flatnonzero(allowed[:, option] & (base != option))
            changed = np.repeat(base[None], len(parts), axis=0)
            changed[np.arange(len(parts)), parts] = option
            changed = space.canonical(changed[space.contains(changed)])
            if len(changed) > left:  # a part of the parts says little about the others: the largest first
                shares = space.costs_array.max(axis=2).sum(axis=0) if len(space.budgets_array) else np.ones(len(base))
                weight = [shares[np.flatnonzero(row != base)[0]] if (row != base).any() else 0 for row in changed]
                changed = changed[np.argsort(weight, kind="stable")[::-1][: max(0, left)]]
            rows.append(changed)
            left = int(self._settings.share * budget) - self._asked - sum(map(len, rows))
            if left <= 0:
                break
        return np.concatenate(rows) if rows else base[:0][None]

    def _begin_search(self) -> None:
        space = self._space
        self._profile = AdditiveProfile.of(space, self._estimated(), base=self._base.astype(np.int64))
        both = Portfolio((ExactAllocation(self._profile, alternates=4), self._settings.local))
        # Seeds have been proposed already; the second phase hears of everything.
        self._second = both.start(replace(self._problem, seeds=None), self._rng)
        self._offset = self._asked
        for evidence in self._probed:
            self._pass_on(evidence)
        self._probed = []

    def _estimated(self) -> NDArray[np.float64]:
        """What every part loses at every option, against the base, ``(parts, options)``."""
        space, base = self._space, self._base
        allowed = space.allowed_array
        order = _by_cost(space)
        here, shape = self._value(base), self._shape(order)
        loss = np.full(allowed.shape, np.nan)
        loss[np.arange(len(base)), base] = 0.0
        for part in range(len(base)):
            for option in np.flatnonzero(allowed[part]):
                row = base.copy()
                row[part] = option
                if option != base[part]:
                    loss[part, option] = self._value(space.canonical(row[None])[0]) - here
        loss[~np.isfinite(loss)] = np.nan
        # What was not measured follows the common shape, scaled by what the part lost where it was.
        for part in range(len(base)):
            steps = shape - shape[base[part]]
            seen = np.isfinite(loss[part]) & (np.abs(steps) > 0)
            scale = float(np.clip((loss[part, seen] / steps[seen]).mean(), 0, None)) if seen.any() else np.nan
            missing = ~np.isfinite(loss[part])
            loss[part, missing] = (scale * steps)[missing]
        for column in loss.T:  # a part of which nothing is known is a usual one
            known = np.isfinite(column)
            column[~known] = np.median(column[known]) if known.any() else 0.0
        return loss

    def _shape(self, order: NDArray[np.int64]) -> NDArray[np.float64]:
        """How the loss falls from option to option, up to scale: measured on even candidates, then extrapolated."""
        level = {int(row[0]): self._value(row) for row in self._even if (row == row[0]).all()}
        falls: list[float] = []
        for first, second in zip(order[:-1].tolist(), order[1:].tolist(), strict=True):
            fall = level.get(first, np.nan) - level.get(second, np.nan)
            if not np.isfinite(fall) or fall <= 0:
                ratio = falls[-1] / falls[-2] if len(falls) > 1 else _USUAL
                fall = (falls[-1] if falls else 1.0) * float(np.clip(ratio, _LEAST, _MOST))
            falls.append(fall)
        shape = np.zeros(len(order))
        shape[order] = -np.concatenate([[0.0], np.cumsum(falls)])
        return shape

    def _value(self, row: Population) -> float:
        """What was told about a row; infinite where nothing was, or where it failed."""
        return self._values.get(row_keys(self._space.canonical(row[None]))[0], np.inf)


def _by_cost(space: AllocationSpace) -> NDArray[np.int64]:
    """Options, the cheapest first."""
    if not len(space.budgets_array):
        return np.arange(space.allowed_array.shape[1])
    cost = np.where(space.allowed_array, space.costs_array / np.maximum(np.abs(space.budgets_array), 1e-300)[
        :, None, None], 0).sum(axis=(0, 1))  # fmt: skip
    return np.asarray(np.argsort(cost, kind="stable"))


def _even(space: AllocationSpace) -> Population:
    """All parts at the same option where the budgets allow that, else as nearly as :meth:`Space.repair` makes it."""
    options = space.allowed_array.shape[1]
    rows = np.repeat(np.arange(options)[:, None], space.dimension, axis=1)
    return np.asarray(space.canonical(space.repair(rows)))
