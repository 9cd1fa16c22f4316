"""What a search is given, in the forms that it works with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from searchlib.budget import Budget
from searchlib.errors import InvalidSettings
from searchlib.objective import Direction, FunctionObjective, Objective
from searchlib.space import Population, Space

__all__ = ["as_objective", "encoded_seeds", "how_long", "told_apart"]


def as_objective(
    objective: Objective | Callable[[Any], Any] | None,
    space: Space | None,
    direction: Direction | tuple[Direction, ...] | None,
    batched: bool,
) -> Objective:
    """An objective, a plain function with its space, or None: candidates are evaluated outside.

    Raises:
        InvalidSettings: a function without a space, or an objective with one.
    """
    if isinstance(objective, Objective):
        if space is not None or direction is not None or batched:
            raise InvalidSettings(
                f"space=, direction= and batched= describe a plain function; {type(objective).__name__} has its own"
            )
        return objective
    if space is None:
        raise InvalidSettings("a plain function (or a search by ask and tell) needs space=…, for example Binary(10)")
    if not isinstance(space, Space):
        raise InvalidSettings(f"space must be a searchlib Space, but is {space!r}")
    function = _evaluated_outside if objective is None else objective
    return FunctionObjective(function, space, direction or "minimize", batched=batched)


def encoded_seeds(space: Space, seeds: Any) -> Population:
    """Candidates that a user wants to be tried first, as rows ``(m, d)``."""
    if seeds is None or not len(seeds):
        return np.empty((0, space.dimension), space.dtype)
    return space.encode(list(seeds))


def told_apart(rows: Population) -> Any:
    """Given seeds as a setting: the numbers, or of very many only what tells them apart."""
    if rows.size <= 10_000:
        return rows.tolist()
    return {"rows": len(rows), "digest": hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()}


def how_long(budget: Budget, each: float, evaluations: float, whole: float) -> str:
    """A sentence on how long a search will take.

    Arguments:
        budget: its budget.
        each: seconds that a candidate takes.
        evaluations: candidates that the budget is enough for.
        whole: seconds that all of them take; infinite where nobody knows.
    """
    if math.isinf(whole):
        return (
            f"a candidate takes about {_seconds(each)}, but {budget} does not say how many it takes; give "
            f"evaluations=… or seconds=… beside it to know the most that the search will take"
        )
    return (
        f"the whole search will take about {_seconds(whole)} of evaluation, "
        f"enough for about {evaluations:.0f} candidates at {_seconds(each)} each"
    )


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s"


def _evaluated_outside(value: Any) -> float:
    raise InvalidSettings(f"{value!r} is evaluated outside: report it with tell")
