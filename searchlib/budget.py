"""When a search has spent enough."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import final

from searchlib.arguments import check_field, real_number, whole_number
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
        for name in ("evaluations", "cells"):
            check_field(self, name, whole_number, 1, optional=True)
        for name in ("seconds", "cost"):
            check_field(self, name, real_number, "(0, inf]", optional=True)
        check_field(self, "target", real_number, "[-inf, inf]", optional=True)
        if all(getattr(self, field.name) is None for field in fields(self)):
            raise InvalidSettings("a budget needs at least one limit, for example Budget(evaluations=400)")

    def __repr__(self) -> str:
        parts = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) is not None]
        return f"Budget({', '.join(parts)})"

    @classmethod
    def of(cls, budget: int | Budget) -> Budget:
        """A plain number means evaluations."""
        return budget if isinstance(budget, Budget) else cls(evaluations=budget)
