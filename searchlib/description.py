"""What a study writes down about the search it holds."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from searchlib.algorithms.algorithm import Algorithm
from searchlib.budget import Budget
from searchlib.cases import Cases, Split
from searchlib.objective import Objective

__all__ = ["FIXED", "describe", "identity"]

#: Settings that decide the history; a study refuses to resume when one of them differs.
FIXED = (
    "space", "direction", "objective", "cases", "algorithm", "seed", "batch_size", "batch_given", "chunk", "threads",
    "given_seeds", "racing", "case_source", "task_space", "asynchronous",
)  # fmt: skip


def describe(
    objective: Objective, algorithm: Algorithm, cases: Mapping[Split, Cases], budget: Budget, **numbers: Any
) -> dict[str, Any]:
    """A search as JSON values; ``numbers`` are settings that are JSON values already."""
    direction = objective.direction
    return {
        **identity(objective),
        "dimension": objective.space.dimension,
        "direction": direction if isinstance(direction, str) else list(direction),
        "cases": {split.value: [len(part), part.digest] for split, part in cases.items()},
        "algorithm": repr(algorithm),
        "budget": repr(budget),
        "planned": budget.evaluations,
        "versions": _versions(),
        **numbers,
    }


def identity(objective: Objective) -> dict[str, Any]:
    """What decides a score beside the genes, the case and the number of threads, as JSON values."""
    return {
        "space": objective.space.to_json(),
        "dtype": objective.space.dtype.str,
        "objective": dict(objective.fingerprint()),
        "chunk": [objective.chunk_rows, objective.chunk_cases],
    }


def _versions() -> dict[str, str]:
    from importlib import metadata  # loads the libraries of mail and archives: 25 ms

    packages = {name: metadata.version(name) for name in ("numpy", "scipy", "joblib")}
    return {"python": platform.python_version(), **packages}
