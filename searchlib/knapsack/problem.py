"""The multiple-choice knapsack: one option for every part within linear budgets, and what a solver found for it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings

__all__ = ["Allocated", "Knapsack"]

#: How far a sum of costs may exceed its budget by rounding: per part, relative to the largest sum there could be.
_ROUNDING = float(np.finfo(np.float64).eps)


@final
@dataclass(frozen=True, eq=False)
class Knapsack:
    """Give every part one of its options so that the sum of losses is least and every sum of costs within its budget.

    The multiple-choice knapsack problem with several budgets (Kellerer, Pferschy and Pisinger, *Knapsack Problems*,
    2004, chapter 11), optionally with at most a few different options within a group of parts, as in MoA's two rules
    per layer (arXiv 2406.14909). A budget may be met with equality up to rounding: see :attr:`limits`. A least amount
    is a budget on the negative costs.

    Arguments:
        loss: shape ``(parts, options)``; ``+inf`` where a part may not have an option.
        cost: shape ``(budgets, parts, options)``, finite, of any sign; ignored where the option is not allowed.
        budgets: shape ``(budgets,)``; the sum of costs is at most this. ``+inf`` is no limit.
        groups: shape ``(parts,)``, whole numbers; None: all parts are one group.
        max_distinct: at most so many different options within a group; None: any number.

    Raises:
        InvalidSettings: shapes that do not fit, NaN, a part without an allowed option, or a budget that not even the
            cheapest options meet.

    Example:
        >>> problem = Knapsack([[9, 4, 1], [5, 3, 2]], [[[2, 4, 8], [2, 4, 8]]], [12])
        >>> problem.parts, problem.options
        (2, 3)
        >>> float(problem.loss_of([2, 1])), problem.cost_of([2, 1]).tolist(), bool(problem.fits([2, 1]))
        (4.0, [12.0], True)
    """

    loss: NDArray[np.float64]
    cost: NDArray[np.float64]
    budgets: NDArray[np.float64]
    _: dataclasses.KW_ONLY
    groups: NDArray[np.int64] | None = None
    max_distinct: int | None = None

    def __post_init__(self) -> None:
        loss, cost = _numbers("loss", self.loss), _numbers("cost", self.cost)
        budgets = _numbers("budgets", self.budgets)
        if loss.ndim != 2 or 0 in loss.shape:
            raise InvalidSettings(f"loss must have shape (parts, options), at least one of each, but has {loss.shape}")
        if budgets.ndim != 1 or cost.shape != (len(budgets), *loss.shape):
            raise InvalidSettings(
                f"cost must have shape (budgets, parts, options), here {(*budgets.shape, *loss.shape)} as loss and "
                f"budgets say, but has {cost.shape}"
            )
        if np.isnan(loss).any() or (loss == -np.inf).any():
            part, option = np.argwhere(np.isnan(loss) | (loss == -np.inf))[0]
            raise InvalidSettings(
                f"loss[{part}, {option}] is {loss[part, option]}; it must be a number, or +inf where a part may not "
                "have the option"
            )
        allowed = np.isfinite(loss)
        if not allowed.any(axis=1).all():
            part = int(np.argmin(allowed.any(axis=1)))
            raise InvalidSettings(f"part {part} has no allowed option: every loss[{part}] is +inf")
        cost = np.where(allowed, cost, 0.0)
        if not np.isfinite(cost).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(cost))[0])
            raise InvalidSettings(
                f"cost{list(at)} is {cost[at]}; it must be finite (an option that is not allowed has a loss of +inf)"
            )
        if np.isnan(budgets).any() or (budgets == -np.inf).any():
            raise InvalidSettings(f"budgets must be numbers, or +inf for no limit, but are {budgets.tolist()}")
        for name, value in (("loss", loss), ("cost", cost), ("budgets", budgets)):
            self._keep(name, value)
        self._check_groups()
        self._check_budgets()

    def _keep(self, name: str, value: NDArray[Any]) -> None:
        value.flags.writeable = False
        object.__setattr__(self, name, value)

    def _check_groups(self) -> None:
        if self.max_distinct is not None:
            object.__setattr__(self, "max_distinct", whole_number("max_distinct", self.max_distinct, 1))
        if self.groups is None:
            return
        groups = np.array(self.groups)
        if groups.shape != (self.parts,) or not np.issubdtype(groups.dtype, np.integer):
            raise InvalidSettings(
                f"groups must be {self.parts} whole numbers, one per part, but are {groups.dtype} of shape "
                f"{groups.shape}"
            )
        self._keep("groups", groups.astype(np.int64))

    def _check_budgets(self) -> None:
        cheapest = np.where(self.allowed, self.cost, np.inf).min(axis=2).sum(axis=1)
        for number in np.flatnonzero(cheapest > self.limits):
            raise InvalidSettings(
                f"budget {number} is {self.budgets[number]:.12g}, but the smallest possible cost, every part at its "
                f"cheapest allowed option, is {cheapest[number]:.12g}; raise the budget or allow cheaper options"
            )

    @property
    def parts(self) -> int:
        """Number of parts."""
        return int(self.loss.shape[0])

    @property
    def options(self) -> int:
        """Number of options."""
        return int(self.loss.shape[1])

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Which part may have which option, shape ``(parts, options)``."""
        return np.isfinite(self.loss)

    @cached_property
    def limits(self) -> NDArray[np.float64]:
        """What a sum of costs is compared with, shape ``(budgets,)``: the budget and an allowance for rounding.

        The allowance is what adding numbers one after the other may lose: 2.2e-16 per part of the largest sum of
        absolute costs, so that four bits everywhere meet a budget of 4.0 and nothing that matters exceeds one.
        """
        largest = np.abs(self.cost).max(axis=2).sum(axis=1)
        return np.asarray(self.budgets + _ROUNDING * self.parts * largest)

    def loss_of(self, choice: ArrayLike) -> NDArray[np.float64]:
        """Sum of losses of one or many choices, shape ``(..., parts)`` to ``(...)``."""
        return np.asarray(self.loss[np.arange(self.parts), np.asarray(choice)].sum(axis=-1))

    def cost_of(self, choice: ArrayLike) -> NDArray[np.float64]:
        """Sums of costs of one or many choices, shape ``(..., parts)`` to ``(..., budgets)``."""
        sums = self.cost[:, np.arange(self.parts), np.asarray(choice)].sum(axis=-1)
        return np.moveaxis(np.asarray(sums), 0, -1)

    def fits(self, choice: ArrayLike) -> NDArray[np.bool_]:
        """Whether choices are allowed and within all budgets and ``max_distinct``, ``(..., parts)`` to ``(...)``."""
        rows = np.asarray(choice)
        good = np.isfinite(self.loss_of(rows)) & (self.cost_of(rows) <= self.limits).all(axis=-1)
        if self.max_distinct is not None:
            for members in self.members():
                inside = np.sort(rows[..., members], axis=-1)
                good &= (np.diff(inside, axis=-1) != 0).sum(axis=-1) < self.max_distinct
        return np.asarray(good)

    def members(self) -> list[NDArray[np.intp]]:
        """The parts of every group, in the order of the groups' numbers."""
        if self.groups is None:
            return [np.arange(self.parts)]
        order = np.argsort(self.groups, kind="stable")
        return np.split(order, np.flatnonzero(np.diff(self.groups[order])) + 1)

    def unlimited(self) -> Knapsack:
        """The same without ``max_distinct``; its bound holds for this problem as well."""
        return self if self.max_distinct is None else dataclasses.replace(self, max_distinct=None)

    def only(self, allowed: NDArray[np.bool_]) -> Knapsack:
        """The same with fewer options, shape ``(parts, options)``."""
        return dataclasses.replace(self, loss=np.where(allowed, self.loss, np.inf))


@final
@dataclass(frozen=True, eq=False)
class Allocated:
    """An allocation within all budgets, and how far from the best possible it can be at most.

    Arguments:
        choice: shape ``(parts,)``, the option of every part.
        loss: sum of its losses.
        bound: no allocation within the budgets has a smaller loss.
        cost: shape ``(budgets,)``, sums of its costs.
        method: what found it: ``"lp"``, ``"milp"`` or ``"lagrangian"``.
    """

    choice: NDArray[np.int64]
    loss: float
    bound: float
    cost: NDArray[np.float64]
    method: str

    @property
    def gap(self) -> float:
        """``(loss - bound) / max(|loss|, |bound|)``; zero where they are equal."""
        difference = max(self.loss - self.bound, 0.0)
        return difference / max(abs(self.loss), abs(self.bound)) if difference else 0.0

    @property
    def optimal(self) -> bool:
        """Whether the bound proves, up to a gap of 1e-9, that nothing better exists."""
        return self.gap <= 1e-9


def _numbers(name: str, values: Any) -> NDArray[np.float64]:
    try:
        return np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidSettings(f"{name} must be an array of numbers, but is {values!r:.200}") from None
