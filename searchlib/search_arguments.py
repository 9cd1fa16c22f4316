"""What a search is given, in the forms that it works with."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from searchlib.arguments import flag, listed, shown
from searchlib.budget import Budget
from searchlib.errors import InvalidSettings
from searchlib.objective import Direction, FunctionObjective, Objective
from searchlib.space import Population, Space
from searchlib.standing import duration

__all__ = ["as_objective", "encoded_seeds", "how_long", "require_one_by_one", "require_references", "told_apart"]


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
        if space is not None or direction is not None or flag("batched", batched):
            raise InvalidSettings(
                f"space=, direction= and batched= describe a plain function; {type(objective).__name__} has its own"
            )
        return objective
    if space is None:
        raise InvalidSettings("a plain function (or a search by ask and tell) needs space=…, for example Binary(10)")
    if not isinstance(space, Space):
        raise InvalidSettings(f"space must be a searchlib Space, but is {shown(space)}")
    function = _evaluated_outside if objective is None else objective
    return FunctionObjective(function, space, "minimize" if direction is None else direction, batched=batched)


def require_references(objective: Objective) -> None:
    """Refuse names of references that are none before a search, rather than when it is over.

    Raises:
        InvalidSettings: they are no names, or ``references`` is no method.
    """
    method: Any = objective.references
    names: Any = method() if callable(method) else None
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        got = f"returns {shown(names)}" if callable(method) else f"is {shown(method)}"
        raise InvalidSettings(
            f"{type(objective).__name__}.references must be a method that returns names, such as ('full model',), but "
            f"{got}"
        )


def encoded_seeds(space: Space, seeds: Any) -> Population:
    """Candidates that a user wants to be tried first, as rows ``(m, d)``."""
    given = () if seeds is None else listed("seeds", seeds, "a list of candidates")
    return space.encode(list(given)) if given else np.empty((0, space.dimension), space.dtype)


def require_one_by_one(arguments: Mapping[str, Any]) -> None:
    """Refuse what cannot be had where candidates are asked for and told one by one.

    Raises:
        InvalidSettings: one of the arguments is given.
    """
    given = [name for name, value in arguments.items() if value]
    if given:
        raise InvalidSettings(
            f"asynchronous=True asks for and tells of one candidate at a time, which does not go with {given[0]}; "
            f"leave one of them out"
        )


def told_apart(rows: Population) -> Any:
    """Given seeds as a setting: the numbers, or of very many only what tells them apart."""
    if rows.size <= 10_000:
        return rows.tolist()
    return {"rows": len(rows), "digest": hashlib.blake2b(rows.tobytes(), digest_size=16).hexdigest()}


def how_long(budget: Budget, each: float, evaluations: float, whole: float, cost: float) -> str:
    """A sentence on how long a search will take, what it costs, and how much memory one chunk has taken.

    Arguments:
        budget: its budget.
        each: seconds that a candidate takes.
        evaluations: candidates that the budget is enough for.
        whole: seconds that all of them take; infinite where nobody knows.
        cost: of a candidate, in the objective's own unit.
    """
    memory = _peak_gigabytes()
    most = "" if memory is None else f"; this process has used {memory:.3g} GB of memory at most"
    if math.isinf(whole):
        return (
            f"a candidate takes about {_seconds(each)}, but {budget} does not say how many it takes; give "
            f"evaluations=… or seconds=… beside it to know the most that the search will take{most}"
        )
    return (
        f"the whole search will take about {_seconds(whole)} of evaluation, "
        f"enough for about {evaluations:.0f} candidates at {_seconds(each)} each; that is a cost of about "
        f"{cost * evaluations:.3g} in the unit of Budget(cost=…){most}"
    )


def _seconds(value: float) -> str:
    return f"{value:.3g} s" if value < 100 else f"{value:.0f} s ({duration(value)})"


def _peak_gigabytes() -> float | None:
    """The most memory that this process has had so far; None where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def _evaluated_outside(value: Any) -> float:
    raise InvalidSettings(f"{value!r} is evaluated outside: report it with tell")
