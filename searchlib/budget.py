"""When a search has spent enough."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import final

from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings

__all__ = ["Budget"]


@final
@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits of a search; the first one reached stops it. None means no limit.

    Arguments:
        evaluations: distinct candidates evaluated on the search cases. Duplicates answered from the study and
            the final comparison on held-out cases are free. Never exceeded.
        cells: (candidate, case) scores computed. Checked before every batch; never exceeded by more than one batch.
        seconds: wall-clock time since this process started searching. Checked after every batch.
        cost: sum of ``objective.cost(...)`` (examples, NFE, simulated steps). Checked before every batch.
        target: stop as soon as the best search value is at least this good, in the objective's own direction.

    Example:
        >>> Budget(evaluations=400, seconds=3600)
        Budget(evaluations=400, seconds=3600)
    """

    evaluations: int | None = None
    cells: int | None = None
    seconds: float | None = None
    cost: float | None = None
    target: float | None = None

    def __post_init__(self) -> None:
        limits = [getattr(self, field.name) for field in fields(self)]
        if all(limit is None for limit in limits):
            raise InvalidSettings("a budget needs at least one limit, for example Budget(evaluations=400)")
        for field in fields(self):
            limit = getattr(self, field.name)
            if limit is None:
                continue
            if field.name in ("evaluations", "cells"):
                object.__setattr__(self, field.name, whole_number(f"Budget({field.name}=…)", limit, 1))
                continue
            if isinstance(limit, bool) or not isinstance(limit, int | float):
                raise InvalidSettings(f"Budget({field.name}=…) must be a number, but is {limit!r}")
            if math.isnan(limit) or (field.name != "target" and limit <= 0):
                raise InvalidSettings(f"Budget({field.name}=…) must be greater than 0, but is {limit!r}")

    def __repr__(self) -> str:
        parts = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) is not None]
        return f"Budget({', '.join(parts)})"

    @classmethod
    def of(cls, budget: int | Budget) -> Budget:
        """A plain number means evaluations."""
        return budget if isinstance(budget, Budget) else cls(evaluations=budget)
