"""The candidates of any space as Optuna's parameters: names, values and distributions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from searchlib import spaces
from searchlib.allocation_space import AllocationSpace
from searchlib.space import ItemSpace, Space

__all__ = ["OptunaParameters", "Parameter"]

#: Options above which whole numbers are a range and not a list: every trial carries its list along.
_LISTED = 64
#: Genes above which a space has no parameters: nobody looks at so many columns, and a storage keeps them one by one.
_MOST = 1000


class Parameter(NamedTuple):
    """One parameter of a trial."""

    value: Any
    distribution: BaseDistribution


@final
class OptunaParameters:
    """Turns rows of a space into parameters.

    Reals, whole numbers and options keep their bounds, scales and names; the parts of products, groups and branches are
    found by name and number (a branch that was not chosen has none). Items (subsets, permutations) are one parameter
    per slot. A space that is none of these has one parameter per gene, ``gene[3]``; where such a gene is real or has no
    declared bounds, its distribution spans the values in ``population``. More than 1,000 genes are no parameters.

    Arguments:
        space: of the rows.
        population: all rows ``(d,)`` that will be asked for; None for those of which only seeds are known.

    Example:
        >>> from searchlib.spaces import Categorical, Product, Real
        >>> space = Product(rate=Real(1e-3, 1.0, log=True), solver=Categorical(("euler", "heun")))
        >>> rows = space.encode([{"rate": 0.5, "solver": "heun"}])
        >>> for name, parameter in OptunaParameters(space, rows).of(rows[0]).items():
        ...     print(name, parameter.value, parameter.distribution)
        rate 0.5 FloatDistribution(high=1.0, log=True, low=0.001, step=None)
        solver heun CategoricalDistribution(choices=('euler', 'heun'))
    """

    def __init__(self, space: Space, population: Iterable[NDArray[Any] | None]) -> None:
        self._space = space
        self._wide = space.dimension > _MOST
        known = [] if self._wide else [row for row in population if row is not None]
        if known:
            self._low, self._high = np.min(known, axis=0), np.max(known, axis=0)

    def of(self, row: NDArray[Any] | None) -> dict[str, Parameter]:
        """The parameters of one row ``(d,)`` of the population, by name; none where only its seed is known."""
        if row is None or self._wide:
            return {}
        canonical = self._space.canonical(row[None])[0]
        return dict(self._parameters(self._space, "", canonical, 0))

    def _parameters(
        self, space: Space, name: str, row: NDArray[Any], start: int
    ) -> Iterator[tuple[str, Parameter]]:
        """Those of a part whose genes are ``row``, the first of which is gene ``start`` of the whole space."""
        if isinstance(space, spaces.Product):
            for key, inner in space.parts:
                yield from self._parameters(inner, _below(name, key), row[: inner.dimension], start)
                row, start = row[inner.dimension :], start + inner.dimension
        elif isinstance(space, spaces.Fixed):
            yield from self._parameters(space.of, name, row, start)
        elif isinstance(space, spaces.Grouped | spaces.Multiset):
            part, step = space.part, space.part.dimension
            for number in range(space.groups if isinstance(space, spaces.Grouped) else space.slots):
                place = number * step
                below = f"{name or 'x'}[{number}]"
                yield from self._parameters(part, below, row[place : place + step], start + place)
        elif isinstance(space, spaces.OneOf):
            names = [branch for branch, _ in space.branches]
            chosen = int(row[0])
            yield _below(name, "branch"), Parameter(names[chosen], CategoricalDistribution(names))
            branch, inner = space.branches[chosen]
            yield from self._parameters(inner, _below(name, branch), row[1 : 1 + inner.dimension], start + 1)
        else:
            yield from self._leaves(space, name, row, start)

    def _leaves(self, space: Space, name: str, row: NDArray[Any], start: int) -> Iterator[tuple[str, Parameter]]:
        make = _KNOWN.get(type(space))
        if isinstance(space, AllocationSpace):
            names = space.options if isinstance(space, spaces.Allocation) else space.option_names
            for part, gene, allowed in zip(space.part_names, row.tolist(), space.allowed_array, strict=True):
                options = tuple(option for option, may in zip(names, allowed, strict=True) if may)
                yield _below(name, part), _listed(names[int(gene)], options)
        elif make is not None:
            called = name or "x"
            for number, gene in enumerate(row.tolist()):
                yield called if len(row) == 1 else f"{called}[{number}]", make(space, gene)
        elif isinstance(space, ItemSpace):
            for number, gene in enumerate(row.tolist()):
                yield f"{name or 'item'}[{number}]", _whole(int(gene), 0, space.item_count - 1)
        else:
            for number, gene in enumerate(row.tolist()):
                yield f"{_below(name, 'gene')}[{number}]", self._unknown(space, gene, start + number)

    def _unknown(self, space: Space, gene: Any, place: int) -> Parameter:
        low, high = self._low[place], self._high[place]
        if space.dtype.kind == "b":
            return _listed(int(gene), (0, 1))
        if space.dtype.kind == "f":
            return Parameter(float(gene), FloatDistribution(float(low), float(high)))
        return Parameter(int(gene), IntDistribution(int(low), int(high)))


def _below(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part


def _listed(value: Any, choices: tuple[Any, ...]) -> Parameter:
    return Parameter(value, CategoricalDistribution(choices))


def _whole(value: int, low: int, high: int) -> Parameter:
    """A number that is the name of something."""
    if high - low < _LISTED:
        return _listed(value, tuple(range(low, high + 1)))
    return Parameter(value, IntDistribution(low, high))


def _real(space: spaces.Real, gene: float) -> Parameter:
    return Parameter(float(gene), FloatDistribution(space.low, space.high, log=space.log))


def _integer(space: spaces.Integer, gene: float) -> Parameter:
    return Parameter(int(gene), IntDistribution(space.low, space.high, log=space.log))


def _option(space: spaces.Categorical, gene: float) -> Parameter:
    return _listed(space.choices[int(gene)], space.choices)


_KNOWN: Mapping[type[Space], Callable[[Any, Any], Parameter]] = {
    spaces.Binary: lambda space, gene: _listed(int(gene), (0, 1)),
    spaces.Categorical: _option,
    spaces.Integer: _integer,
    spaces.Permutation: lambda space, gene: _whole(int(gene), 0, space.n - 1),
    spaces.Real: _real,
    spaces.Simplex: lambda space, gene: Parameter(float(gene), FloatDistribution(0.0, 1.0)),
}
