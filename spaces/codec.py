"""Typed values into populations, with an error that names the value that does not belong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from searchlib.arguments import shown
from searchlib.errors import InvalidCandidate
from searchlib.space import Population, Space

__all__ = ["stack"]


def stack(space: Space, values: Sequence[Any], genes: Callable[[Any], Any]) -> Population:
    """Canonical rows of the values, where ``genes(value)`` lists the d numbers of one row.

    Raises:
        InvalidCandidate: ``genes`` fails as it does on what it does not know, or what it returns is not a
            row of the space.
    """
    rows = np.empty((len(values), space.dimension), space.dtype)
    for index, value in enumerate(values):
        refusal = InvalidCandidate(f"values[{index}] = {shown(value)} does not lie in {space!r}")
        try:
            row = np.asarray(genes(value))
        except (TypeError, ValueError, LookupError, OverflowError, AttributeError) as reason:
            raise refusal from reason
        fits = row.shape == (space.dimension,) and row.dtype.kind in "biuf"
        if not fits or not space.contains(row[None])[0]:
            raise refusal
        rows[index] = row
    return space.canonical(rows)
