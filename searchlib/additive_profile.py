"""What every option of every part costs in quality, each alone: a table, its noise, and the allocations it implies."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.allocation_space import AllocationSpace
from searchlib.arguments import listed, numbers, shown, whole_number
from searchlib.errors import InvalidSettings
from searchlib.knapsack import Allocated, Knapsack, Method, solve

__all__ = ["AdditiveProfile", "Weights"]

#: How much each metric counts, for all parts or for each: by name or in order, numbers or arrays ``(parts,)``.
Weights = Mapping[str, ArrayLike] | ArrayLike

#: What numpy raises on a file that savez has not written.
_DAMAGES = (
    KeyError, TypeError, ValueError, ArithmeticError, AttributeError, EOFError, OSError, NotImplementedError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@final
@dataclass(frozen=True, eq=False, repr=False)
class AdditiveProfile:
    """The loss of every (part, option) alone, relative to a base option of every part.

    The surrogate that MoA (arXiv 2406.14909, section 4.2), MixDQ (arXiv 2405.17873, section 4.3) and ViDiT-Q (arXiv
    2406.02540) allocate with: the loss of an allocation is taken to be the sum over its parts. With it goes what costs
    and budgets a space declares, so that one profile gives the allocation for any budget.
    :func:`searchlib.measure_profile` measures one; the constructor takes one from elsewhere (attention mass, Taylor
    terms, a published table).

    Arguments:
        loss: shape ``(metrics, parts, options)`` or ``(parts, options)``, lower is better; ``+inf`` where an option is
            not allowed or failed.
        costs: shape ``(budgets, parts, options)``.
        budgets: shape ``(budgets,)``, the default limits.
        error: standard errors, shaped like ``loss``; NaN where unknown. None: all unknown.
        base: shape ``(parts,)``, the option of every part that losses are relative to; None: of least loss by the
            first metric.
        metrics: one distinct name per metric.
        groups: shape ``(parts,)``; see :class:`searchlib.knapsack.Knapsack`.
        max_distinct: the most different options in a group, or None.
        cases: shape ``(parts, options)``, on how many cases each entry was measured; None: unknown (zeros).
        part_names: None for numbers.
        option_names: None for numbers.

    Raises:
        InvalidSettings: shapes that do not fit together.

    Example:
        >>> loss = [[3.0, 1.0, 0.0], [0.4, 0.2, 0.0]]
        >>> profile = AdditiveProfile(loss, costs=[[[2, 4, 8]] * 2], budgets=[10])
        >>> found = profile.allocate()
        >>> found.choice.tolist(), float(found.loss)
        ([2, 0], 0.4)
        >>> profile.allocate([6]).choice.tolist()
        [1, 0]
    """

    loss: NDArray[np.float64]
    costs: NDArray[np.float64]
    budgets: NDArray[np.float64]
    _: dataclasses.KW_ONLY
    error: NDArray[np.float64] | None = None
    base: NDArray[np.int64] | None = None
    metrics: tuple[str, ...] = ("loss",)
    groups: NDArray[np.int64] | None = None
    max_distinct: int | None = None
    cases: NDArray[np.int64] | None = None
    part_names: tuple[str, ...] | None = None
    option_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        loss = numbers("loss", self.loss)
        loss = loss[None] if loss.ndim == 2 else loss
        if loss.ndim != 3 or not loss.size:
            raise InvalidSettings(f"loss must have shape (metrics, parts, options), but has {loss.shape}")
        shape, budgets = loss.shape, numbers("budgets", self.budgets).reshape(-1)
        if np.isnan(loss).any() or not np.isfinite(loss).any(axis=2).all():
            raise InvalidSettings(
                f"every loss must be a number or +inf, and every part needs an option of finite loss, but losses are "
                f"{shown(self.loss)}"
            )
        error = np.full(shape, np.nan) if self.error is None else numbers("error", self.error)
        base = np.where(np.isfinite(loss[0]), loss[0], np.inf).argmin(axis=1) if self.base is None else self.base
        cases = np.zeros(shape[1:]) if self.cases is None else self.cases
        arrays: dict[str, tuple[NDArray[Any], tuple[int, ...]]] = {
            "loss": (loss, shape), "error": (error[None] if error.ndim == 2 else error, shape),
            "costs": (_costs(self.costs, budgets, shape), (len(budgets), *shape[1:])),
            "budgets": (budgets, budgets.shape), "base": (numbers("base", base, np.int64), shape[1:2]),
            "cases": (numbers("cases", cases, np.int64), shape[1:]),
        }  # fmt: skip
        if self.groups is not None:
            arrays["groups"] = (numbers("groups", self.groups, np.int64), shape[1:2])
        for name, (array, expected) in arrays.items():
            if array.shape != expected:
                raise InvalidSettings(f"{name} must have shape {expected} beside a loss of {shape}, not {array.shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        chosen = np.arange(shape[2]) == arrays["base"][0][:, None]
        if not (chosen & np.isfinite(loss[0])).any(axis=1).all():
            raise InvalidSettings(f"base must hold an option of finite loss for every part, but is {shown(base)}")
        names = (("metrics", 0, ""), ("part_names", 1, "part "), ("option_names", 2, "option "))
        for name, axis, prefix in names:
            given = getattr(self, name)
            usual = [f"{prefix}{i}" for i in range(shape[axis])]
            plain = tuple(map(str, usual if given is None else listed(name, given)))
            if len(plain) != shape[axis] or len(set(plain)) < len(plain):
                raise InvalidSettings(f"{name} must be {shape[axis]} distinct names, but are {shown(given)}")
            object.__setattr__(self, name, plain)
        if self.max_distinct is not None:
            object.__setattr__(self, "max_distinct", whole_number("max_distinct", self.max_distinct, 1))

    @classmethod
    def of(cls, space: AllocationSpace, loss: ArrayLike, **fields: Any) -> Self:
        """A profile of a space: its costs, budgets, groups and names; what it does not allow is ``+inf``.

        ``loss`` and ``fields`` are those of the constructor.
        """
        table = np.where(space.allowed_array, np.asarray(loss, np.float64), np.inf)
        groups = None if space.groups is None else np.asarray(space.groups)
        return cls(
            table, space.costs_array, space.budgets_array, groups=groups, max_distinct=space.max_distinct,
            part_names=space.part_names, option_names=space.option_names, **fields,
        )  # fmt: skip

    def __repr__(self) -> str:
        """Its size and a fingerprint of everything in it, by which a study recognizes it."""
        metrics, parts, options = self.loss.shape
        return f"AdditiveProfile({parts} parts, {options} options, {metrics} metrics, {self.digest!r})"

    @cached_property
    def digest(self) -> str:
        """A fingerprint of all fields."""
        digest = hashlib.blake2b(digest_size=8)
        for field in dataclasses.fields(self):
            value = getattr(self, field.name) if field.init else None
            digest.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
        return digest.hexdigest()

    @property
    def errors(self) -> NDArray[np.float64]:
        """``error`` as an array that is always there."""
        assert self.error is not None  # filled in by __post_init__
        return self.error

    @property
    def allowed(self) -> NDArray[np.bool_]:
        """Which options may be chosen, ``(parts, options)``: those of finite loss in every metric."""
        return np.asarray(np.isfinite(self.loss).all(axis=0))

    def loss_of(self, population: ArrayLike) -> NDArray[np.float64]:
        """The sum over the parts for every row, shape ``(n, metrics)``."""
        rows = np.asarray(population, np.intp)
        return np.asarray(self.loss[:, np.arange(rows.shape[1]), rows].sum(axis=2).T)

    def error_of(self, population: ArrayLike) -> NDArray[np.float64]:
        """Standard errors of :meth:`loss_of`, entries being independent, ``(n, metrics)``; unknown ones count 0."""
        rows = np.asarray(population, np.intp)
        variance = np.nan_to_num(self.errors) ** 2
        return np.asarray(np.sqrt(variance[:, np.arange(rows.shape[1]), rows].sum(axis=2)).T)

    def reliable(self, sigmas: float = 3.0) -> NDArray[np.bool_]:
        """Which entries stand out of their noise, ``(metrics, parts, options)``; those of unknown noise do not."""
        return np.asarray(np.abs(self.loss) > sigmas * np.where(np.isnan(self.errors), np.inf, self.errors))

    def combined(self, weights: Weights) -> Self:
        """One metric in the place of several: their weighted sum, where weights may differ from part to part.

        ViDiT-Q's metric decoupling is a weight of 1 for the metric that counts for a part (quality for spatial
        attention, text alignment for cross attention, temporal consistency for temporal attention) and 0 for others.

        Arguments:
            weights: by metric's name (the others count 0) or in the order of :attr:`metrics`; each a number, or an
                array of shape ``(parts,)``.

        Example:
            >>> both = AdditiveProfile([[[4.0, 0.0]], [[1.0, 0.0]]], [], [], metrics=("quality", "alignment"))
            >>> both.combined({"quality": 0.5, "alignment": [2.0]}).loss.tolist()
            [[[4.0, 0.0]]]
        """
        table = self._weight_table(weights)[:, :, None]
        with np.errstate(invalid="ignore"):
            loss = np.where(self.allowed, np.where(table == 0, 0.0, table * self.loss).sum(axis=0), np.inf)
            error = np.sqrt(np.where(table == 0, 0.0, (table * self.errors) ** 2).sum(axis=0))
        return dataclasses.replace(self, loss=loss[None], error=error[None], metrics=("combined",))

    def _weight_table(self, weights: Weights) -> NDArray[np.float64]:
        metrics, parts = self.loss.shape[:2]
        if isinstance(weights, Mapping):
            unknown = sorted(set(weights) - set(self.metrics))
            if unknown:
                raise InvalidSettings(f"there is no metric {unknown[0]!r}; the profile has {list(self.metrics)}")
            given: list[Any] = [weights.get(name, 0.0) for name in self.metrics]
        else:
            given = list(weights) if np.iterable(weights) else [weights]
        if len(given) != metrics:
            raise InvalidSettings(f"weights must be one per metric of {list(self.metrics)}, but are {shown(weights)}")
        columns = [numbers("a weight", weight) for weight in given]
        if any(column.shape not in ((), (1,), (parts,)) for column in columns):
            raise InvalidSettings(
                f"a weight must be a number or one number per part ({parts}), but weights are {shown(weights)}"
            )
        table = np.stack([np.broadcast_to(column, (parts,)) for column in columns])
        if not ((table >= 0) & (table <= 1e150)).all():
            raise InvalidSettings(
                f"weights must be at most 1e150 and not negative (losses are all minimized), but are {shown(weights)}"
            )
        return table

    def problem(self, budgets: ArrayLike | None = None, weights: Weights | None = None) -> Knapsack:
        """The knapsack of these losses within ``budgets`` (the default ones if None).

        Raises:
            InvalidSettings: several metrics without weights.
        """
        if weights is None and len(self.metrics) > 1:
            raise InvalidSettings(f"say how much each metric counts: weights={dict.fromkeys(self.metrics, 1.0)}")
        loss = self.loss[0] if weights is None else self.combined(weights).loss[0]
        loss = np.where(self.allowed, loss, np.inf)
        limits = self.budgets if budgets is None else numbers("budgets", budgets).reshape(-1)
        return Knapsack(loss, self.costs, limits, groups=self.groups, max_distinct=self.max_distinct)

    def allocate(
        self, budgets: ArrayLike | None = None, weights: Weights | None = None, method: Method = "auto", **options: Any
    ) -> Allocated:
        """The allocation of least additive loss within the budgets, with the certificate of its solver.

        Arguments:
            budgets: limits, shape ``(budgets,)``; the default ones if None.
            weights: as for :meth:`combined`; needed where there are several metrics.
            method: as for :func:`searchlib.knapsack.solve`, which also takes the ``options``.
        """
        return solve(self.problem(budgets, weights), method, **options)

    def front(
        self, points: int | ArrayLike = 16, weights: Weights | None = None, method: Method = "auto", **options: Any
    ) -> tuple[Allocated, ...]:
        """Allocations for many budgets from one profile; none of them is dominated by another.

        Arguments:
            points: how many levels between every part at its cheapest and at its dearest, the same share of the span
                of every budget; or the budgets themselves, shape ``(n, budgets)``.
            weights, method, options: as for :meth:`allocate`.

        Returns:
            from the smallest budgets to the largest.
        """
        limits = self._levels(whole_number("points", points, 2)) if np.ndim(points) == 0 else np.asarray(points, float)
        found: list[Allocated] = []
        for number, limit in enumerate(limits, 1):
            try:
                found.append(self.allocate(limit, weights, method, **options))
            except InvalidSettings:  # where budgets conflict, small levels have no allocation
                if np.ndim(points) or number == len(limits):
                    raise
        numbers = np.array([[allocated.loss, *allocated.cost] for allocated in found])
        no_worse = (numbers[:, None] <= numbers[None]).all(axis=2)
        equal = no_worse & no_worse.T
        twice = np.tril(equal, -1).any(axis=1)
        dominated = (no_worse & ~equal).any(axis=0)
        return tuple(found[index] for index in np.flatnonzero(~dominated & ~twice))

    def _levels(self, points: int) -> NDArray[np.float64]:
        low = np.where(self.allowed, self.costs, np.inf).min(axis=2).sum(axis=1)
        high = np.where(self.allowed, self.costs, -np.inf).max(axis=2).sum(axis=1)
        return np.asarray(low + np.linspace(0, 1, points)[:, None] * (high - low))

    def monotone(self, budget: int = 0) -> Self:
        """The nearest profile in which no option is worse than a cheaper one: what noise contradicts is averaged.

        Isotonic regression per part and metric, weighted by the inverse squared standard errors, with options in the
        order of their cost of the ``budget``; those of equal cost count by their mean and keep their distance from it.
        It is the remedy for sensitivity tables in which fewer bits often seem
        better than more. The base stays at 0. Not for parts whose dearer options may really be worse.
        """
        if not 0 <= budget < len(self.budgets):
            raise InvalidSettings(
                f"budget={budget} must be the number of the budget by whose costs options are ordered, but there are "
                f"{len(self.budgets)} budgets"
            )
        loss, costs = self.loss.copy(), self.costs[budget]
        assert self.base is not None  # filled in by __post_init__
        for part, options in enumerate(self.allowed):
            order = np.flatnonzero(options)
            order = order[np.argsort(costs[part, order], kind="stable")]
            level = np.unique(costs[part, order], return_inverse=True)[1].reshape(-1)
            for metric in range(len(loss)):
                weight = _precision(self.errors[metric, part, order])
                weight[order == self.base[part]] = 1e12 * weight.max()
                total = np.asarray(np.bincount(level, weight), np.float64)
                mean = np.asarray(np.bincount(level, weight * loss[metric, part, order]) / total)
                steps = len(mean) < len(order)  # options of equal cost keep what sets them apart
                own = loss[metric, part, order] - mean[level] if steps else 0.0
                fitted = _falling(mean, total)[level] + own
                fitted[order == self.base[part]] = loss[metric, part, self.base[part]]
                loss[metric, part, order] = fitted
        return dataclasses.replace(self, loss=loss)

    def save(self, path: str | Path) -> None:
        """Write an ``.npz`` file of plain arrays and texts."""
        arrays = {
            field.name: np.asarray(value) for field in dataclasses.fields(self)
            if field.init and (value := getattr(self, field.name)) is not None
        }  # fmt: skip
        with Path(path).open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote; nothing in the file is run.

        Raises:
            InvalidSettings: another file.
        """
        try:
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                fields: dict[str, Any] = {name: file[name] for name in file.files}
            for name in ("metrics", "part_names", "option_names"):
                fields[name] = tuple(fields[name].tolist())
            if "max_distinct" in fields:
                fields["max_distinct"] = int(fields["max_distinct"])
            return cls(**fields)
        except _DAMAGES as error:
            raise InvalidSettings(f"{shown(path)} holds no profile of AdditiveProfile.save: {error}") from error


def _costs(costs: Any, budgets: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    table = numbers("costs", costs)
    return table.reshape(0, *shape[1:]) if not len(budgets) and not table.size else table


def _precision(error: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse variances; entries of unknown or no error count like the most precise of the others."""
    known = np.isfinite(error) & (error > 0)
    if not known.any():
        return np.ones(len(error))
    least = error[known].min()
    return np.asarray(np.where(known, error, least) / least) ** -2.0


def _falling(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest sequence that never rises (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        block = (value, weight, 1)
        while blocks and blocks[-1][0] < block[0]:
            mean, total, length = blocks.pop()
            joint = total + block[1]
            block = ((mean * total + block[0] * block[1]) / joint, joint, length + block[2])
        blocks.append(block)
    return np.repeat(np.array([mean for mean, _, _ in blocks]), [length for _, _, length in blocks])
