"""What an Optuna trial may vary, as a space: distributions in, rows and parameters out."""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from searchlib import spaces
from searchlib.errors import InvalidSettings
from searchlib.space import Space

__all__ = ["OptunaSpace", "part_of"]


def part_of(distribution: BaseDistribution) -> Space | None:
    """The space of one parameter, or None where it has a single value or no space of ours.

    Numbers on a grid (``step``) are counted from its lower end; options are numbered, because one may be anything.

    Example:
        >>> part_of(IntDistribution(10, 50, step=20)), part_of(FloatDistribution(0.1, 1.0, log=True))
        (Integer(low=0, high=2, length=1, log=False, scale=0.1), Real(low=0.1, high=1.0, length=1, log=True, scale=0.1))
    """
    if distribution.single():
        return None
    try:
        if isinstance(distribution, CategoricalDistribution):
            return spaces.Categorical(tuple(range(len(distribution.choices))))
        if isinstance(distribution, IntDistribution) and distribution.log:
            return spaces.Integer(distribution.low, distribution.high, log=True)
        if isinstance(distribution, IntDistribution):
            return spaces.Integer(0, (distribution.high - distribution.low) // distribution.step)
        if isinstance(distribution, FloatDistribution) and distribution.step is not None:
            return spaces.Integer(0, _grid(distribution, distribution.high))
        if isinstance(distribution, FloatDistribution):
            return spaces.Real(distribution.low, distribution.high, log=distribution.log)
    except InvalidSettings:  # bounds farther apart than ours may be
        pass
    return None


def _grid(distribution: FloatDistribution, value: float) -> int:
    """The number of a value on the grid of a distribution; in decimals, as Optuna counts."""
    low, step = decimal.Decimal(str(distribution.low)), decimal.Decimal(str(distribution.step))
    return int(((decimal.Decimal(str(value)) - low) / step).to_integral_value())


@final
class OptunaSpace:
    """The parameters of a trial as a product, and the way between its rows and parameters.

    Arguments:
        distributions: by name; all must have a space (:func:`part_of`).

    Attributes:
        space: the product, parts in the order of the names.

    Example:
        >>> made = OptunaSpace({"x": FloatDistribution(0.0, 1.0, step=0.25), "on": CategoricalDistribution(["a", "b"])})
        >>> row = made.row({"x": 0.75, "on": "b"}, made.distributions)
        >>> row.tolist(), made.parameters(row)
        ([1, 3], {'on': 'b', 'x': 0.75})
    """

    def __init__(self, distributions: Mapping[str, BaseDistribution]) -> None:
        self.distributions = {name: distributions[name] for name in sorted(distributions)}
        parts = {name: part_of(distribution) for name, distribution in self.distributions.items()}
        self.space = spaces.Product({name: part for name, part in parts.items() if part is not None})

    def parameters(self, row: NDArray[Any]) -> dict[str, Any]:
        """The parameters that a row ``(d,)`` means."""
        value = self.space.decode(row)
        return {name: _external(distribution, value[name]) for name, distribution in self.distributions.items()}

    def row(
        self, parameters: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
    ) -> NDArray[Any] | None:
        """The row of a trial's parameters; None where one is missing or was drawn from another distribution."""
        if any(distributions.get(name) != own for name, own in self.distributions.items()):
            return None
        value = {name: _internal(own, parameters[name]) for name, own in self.distributions.items()}
        rows = self.space.repair(np.array([[value[name] for name in self.distributions]], np.float64))
        return np.asarray(self.space.canonical(rows)[0])


def _external(distribution: BaseDistribution, value: Any) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[value]
    if isinstance(distribution, IntDistribution):
        return value if distribution.log else distribution.low + value * distribution.step
    assert isinstance(distribution, FloatDistribution)
    if distribution.step is None:
        return value
    return min(distribution.low + value * distribution.step, distribution.high)


def _internal(distribution: BaseDistribution, value: Any) -> float:
    if isinstance(distribution, IntDistribution) and not distribution.log:
        return int((value - distribution.low) // distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return _grid(distribution, value)
    return float(distribution.to_internal_repr(value))
