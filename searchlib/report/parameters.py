"""Which features of a space belong together, and what they are called: one parameter for every choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.space import Space

__all__ = ["Parameter", "parameters"]


@final
@dataclass(frozen=True)
class Parameter:
    """One choice of a space.

    Arguments:
        name: of the choice.
        columns: of ``space.features`` that say what was chosen.
    """

    name: str
    columns: tuple[int, ...]


def parameters(space: Space) -> list[Parameter]:
    """The choices of a space. Features that are no choice of their own (costs that follow from others) are left out.

    Example:
        >>> from searchlib.spaces import Categorical, Integer, Product
        >>> for each in parameters(Product(kind=Categorical(("a", "b")), depth=Integer(1, 9))):
        ...     print(each.name, each.columns)
        kind (0, 1)
        depth (2,)
    """
    for kind in type(space).__mro__:
        if kind.__name__ in _KINDS:
            return _KINDS[kind.__name__](space)
    return [Parameter(f"feature {column}", (column,)) for column in range(_width(space))]


def _width(space: Space) -> int:
    row: NDArray[Any] = space.sample(np.random.default_rng(0), 1)
    return int(space.features(row).shape[1])


def _moved(inner: list[Parameter], prefix: str, start: int) -> list[Parameter]:
    """Parameters of a part of a space, where its features begin at ``start``."""
    return [
        Parameter(" ".join(filter(None, (prefix, each.name))), tuple(column + start for column in each.columns))
        for each in inner
    ]


def _product(space: Any) -> list[Parameter]:
    found, start = [], 0
    for name, part in space.parts:
        found += _moved(parameters(part), name, start)
        start += _width(part)
    return found


def _grouped(space: Any) -> list[Parameter]:
    inner, width = parameters(space.part), _width(space.part)
    return [each for group in range(space.groups) for each in _moved(inner, f"group {group}", group * width)]


def _numbers(space: Any) -> list[Parameter]:
    names = [""] if space.length == 1 else [str(gene) for gene in range(space.length)]
    return [Parameter(name, (column,)) for column, name in enumerate(names)]


def _options(space: Any) -> list[Parameter]:
    m = len(space.choices)
    names = [""] if space.length == 1 else [str(gene) for gene in range(space.length)]
    return [Parameter(name, tuple(range(gene * m, gene * m + m))) for gene, name in enumerate(names)]


def _items(space: Any) -> list[Parameter]:
    return [Parameter(f"item {item}", (item,)) for item in range(_width(space))]


def _experts(space: Any) -> list[Parameter]:
    places = [(group, expert) for group in range(space.groups) for expert in range(space.experts)]
    return [Parameter(f"group {group} expert {expert}", (column,)) for column, (group, expert) in enumerate(places)]


def _allocation(space: Any) -> list[Parameter]:
    m = len(space.options)
    return [Parameter(str(name), tuple(range(part * m, part * m + m))) for part, name in enumerate(space.parts)]


def _view(space: Any) -> list[Parameter]:
    return _allocation(space.allocation)


#: By the name of the space: the engine imports no spaces.
_KINDS: Mapping[str, Callable[[Any], list[Parameter]]] = {
    "Allocation": _allocation,
    "AllocationView": _view,
    "Binary": _items,
    "Categorical": _options,
    "ExpertSubsets": _experts,
    "Grouped": _grouped,
    "Integer": _numbers,
    "Product": _product,
    "Real": _numbers,
    "Subset": _items,
}
