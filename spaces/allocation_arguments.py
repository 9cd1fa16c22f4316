"""Checks of the tables of an allocation space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import listed, numbers, shown
from searchlib.errors import InvalidSettings
from searchlib.spaces.arguments import real, whole

__all__ = ["checked_fields"]


def checked_fields(
    parts: Any, options: Any, costs: Any, budgets: Any, allowed: Any, groups: Any, max_distinct: Any
) -> dict[str, Any]:
    """The fields of an allocation space as tuples of plain numbers.

    Raises:
        InvalidSettings: the tables do not fit together, or hold what they should not.
    """
    names = _distinct("parts", parts, str)
    choices = _distinct("options", options, None)
    if len(choices) > 2**15:
        raise InvalidSettings(f"options must be at most {2**15}, but are {len(choices)}")
    limits = tuple(real(f"budgets[{index}]", limit) for index, limit in enumerate(listed("budgets", budgets)))
    shape = (len(limits), len(names), len(choices))
    table = _table("costs", costs, shape, float)
    mask = None if allowed is None else _table("allowed", allowed, shape[1:], bool)
    if mask is not None:
        for name, row in zip(names, mask, strict=True):
            if not any(row):
                raise InvalidSettings(f"every part needs an option, but allowed has none for {name!r}")
    layers = None
    if groups is not None:
        layers = tuple(whole(f"groups[{part}]", number, low=0) for part, number in enumerate(listed("groups", groups)))
        if len(layers) != len(names):
            raise InvalidSettings(f"groups must hold one number per part ({len(names)}), but holds {len(layers)}")
    return {
        "parts": names, "options": choices, "costs": table, "budgets": limits, "allowed": mask, "groups": layers,
        "max_distinct": None if max_distinct is None else whole("max_distinct", max_distinct),
    }  # fmt: skip


def _distinct(name: str, given: Any, kind: type | None) -> tuple[Any, ...]:
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InvalidSettings(f"{name} must be a tuple such as ('a', 'b'), but got ({name}={shown(given)})")
    plain = tuple(item.item() if isinstance(item, np.generic) else item for item in given)
    for item in plain:
        scalar = isinstance(item, str) if kind is str else item is None or isinstance(item, str | int | float)
        if not scalar or (isinstance(item, float) and not math.isfinite(item)):
            wanted = "str" if kind is str else "str, bool, None or finite numbers"
            raise InvalidSettings(f"{name} must be {wanted}, but one is {shown(item)}")
    if not plain or len(set(plain)) < len(plain):
        raise InvalidSettings(f"{name} must be distinct and at least one, but got ({name}={shown(given)})")
    return plain


def _table(name: str, given: Any, shape: tuple[int, ...], kind: type) -> Any:
    """Nested tuples of ``shape`` from nested sequences or an array."""
    array: NDArray[Any] = numbers(name, given).astype(kind)
    if array.size == 0 and math.prod(shape) == 0:
        array = array.reshape(shape)
    if array.shape != shape:
        axes = "(budgets, parts, options)" if len(shape) == 3 else "(parts, options)"
        raise InvalidSettings(f"{name} must have shape {shape} {axes}, but has {array.shape}: {shown(given)}")
    if not np.isfinite(array).all() or (np.abs(array) > 1e150).any():
        raise InvalidSettings(
            f"{name} must be finite and at most 1e150; allowed=… excludes options; but got {shown(given)}"
        )
    return _tuples(array.tolist())


def _tuples(nested: Any) -> Any:
    return tuple(_tuples(item) for item in nested) if isinstance(nested, list) else nested
