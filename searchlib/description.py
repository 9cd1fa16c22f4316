"""What a study writes down about the search it holds."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from searchlib.algorithms.algorithm import Algorithm
from searchlib.budget import Budget
from searchlib.cases import Cases, Split
from searchlib.objective import Objective

__all__ = ["FIXED", "describe"]

#: Settings that decide the history; a study refuses to resume when one of them differs.
FIXED = (
    "space", "direction", "objective", "cases", "algorithm", "seed", "batch_size", "chunk", "threads", "given_seeds"
)  # fmt: skip


def describe(
    objective: Objective, algorithm: Algorithm, cases: Mapping[Split, Cases], budget: Budget, **numbers: Any
) -> dict[str, Any]:
    """A search as JSON values; ``numbers`` are settings that are JSON values already."""
    direction = objective.direction
    return {
        "space": objective.space.to_json(),
        "dtype": objective.space.dtype.str,
        "dimension": objective.space.dimension,
        "direction": direction if isinstance(direction, str) else list(direction),
        "objective": dict(objective.fingerprint()),
        "cases": {split.value: [len(part), part.digest] for split, part in cases.items()},
        "algorithm": repr(algorithm),
        "chunk": [objective.chunk_rows, objective.chunk_cases],
        "budget": repr(budget),
        "planned": budget.evaluations,
        "versions": _versions(),
        **numbers,
    }


def _versions() -> dict[str, str]:
    from importlib import metadata  # loads the libraries of mail and archives: 25 ms

    packages = {name: metadata.version(name) for name in ("numpy", "scipy", "joblib")}
    return {"python": platform.python_version(), **packages}
