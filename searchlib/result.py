"""What a search hands back."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.front import Front
from searchlib.history import History
from searchlib.holdout import Comparison, Holdout
from searchlib.space import Population

__all__ = ["Outcome", "Record", "Result"]


@final
class Outcome(enum.StrEnum):
    """Why a search stopped."""

    EVALUATIONS = "the budget of evaluations is spent"
    CELLS = "the budget of cells is spent"
    SECONDS = "the time is up"
    COST = "the budget of cost is spent"
    TARGET = "the target value is reached"
    EXHAUSTED = "every candidate of the space has been evaluated"
    NOTHING_NEW = "the algorithm proposes nothing new any more"
    INTERRUPTED = "it was interrupted"
    DRY_RUN = "it was only a dry run"
    RUNNING = "it has not stopped yet"


@final
@dataclass(frozen=True, eq=False)
class Record:
    """One batch of a running search.

    Arguments:
        evaluations: distinct candidates evaluated so far.
        best_value: best value on the search cases so far, in the objective's own direction; NaN before the first.
        ids: shape ``(n,)``.
        population: shape ``(n, d)``.
        values: shape ``(n, objectives)``; NaN where a candidate failed.
        status: shape ``(n,)``.
        seconds: time that the batch took.
        replayed: whether it was read from the study instead of evaluated.
    """

    evaluations: int
    best_value: float
    ids: NDArray[np.int64]
    population: Population
    values: NDArray[np.float64]
    status: NDArray[np.int8]
    seconds: float
    replayed: bool


@final
@dataclass(frozen=True, eq=False)
class Result:
    """The outcome of a search.

    Arguments:
        best: the winner, as the objective's ``artifact`` of its typed value; None where nothing succeeded.
        row: the winner's genes, shape ``(d,)``; None where nothing succeeded.
        value: its value on the SELECT cases (on the SEARCH cases where the objective has no others), in the
            objective's own direction; NaN where nothing succeeded. Optimistic: it was chosen for being good. Of several
            objectives the first; all of them are in ``front``.
        holdout: the winner and the references on held-out cases; None where the objective has none.
        history: everything told, in order, failed candidates included.
        outcome: why the search stopped.
        algorithm: the ``repr`` of what searched.
        seconds: wall-clock time of this process's part of the search.
        notes: what the algorithm has to say about its run (:meth:`searchlib.Run.notes`), as JSON values.
        front: with several objectives, what nothing else dominates, and which of it is the winner; None with one.
    """

    best: Any
    row: NDArray[Any] | None
    value: float
    holdout: Holdout | None
    history: History
    outcome: Outcome
    algorithm: str
    seconds: float
    notes: Mapping[str, Any] = field(default_factory=dict)
    front: Front | None = None

    def to_json(self) -> dict[str, Any]:
        """The part of a result that a study cannot work out again by itself, as JSON values."""
        return {
            "row": None if self.row is None else self.row.tolist(),
            "value": self.value if math.isfinite(self.value) else None,
            "holdout": None if self.holdout is None else self.holdout.to_json(),
            "outcome": self.outcome.name,
            "notes": dict(self.notes),
            **({} if self.front is None else {"front": self.front.to_json()}),
        }

    def __str__(self) -> str:
        optimistic = " (chosen for it; see held-out)" if self.holdout else ""
        lines = [
            f"best       {_short(self.best)}",
            f"value      {self.value:.6g}{optimistic}",
            f"stopped    {self.outcome.value}",
            f"searched   {self.history.evaluations} evaluations, {len(self.history)} candidates told, "
            f"{self.history.failures} failed, {self.seconds:.1f} s",
        ]
        lines.append(f"algorithm  {self.algorithm}")
        first_error = next((error for error in self.history.errors if error), "").strip()
        if first_error:
            lines.append(f"1st error  {first_error.splitlines()[-1]}")
        if self.front is not None:
            lines.append(str(self.front))
        if self.holdout is not None:
            lines.append(f"held-out   {self.holdout.cases} cases, look {self.holdout.looks}")
            lines += _compared(self.holdout.rows)
            names = () if self.front is None else self.front.names
            for number, rows in enumerate(self.holdout.others, start=1):
                lines.append(f"  {names[number] if names else f'value {number}'}")
                lines += _compared(rows)
        return "\n".join(lines)


def _compared(rows: tuple[Comparison, ...]) -> list[str]:
    """One line for the winner, one for each reference."""
    width, lines = max(len(row.name) for row in rows), []
    for row in rows:
        text = f"  {row.name:<{width}}  {row.value:10.4g}  [{row.interval[0]:.4g}, {row.interval[1]:.4g}]"
        if row is not rows[0] and not math.isnan(row.difference):
            low, high = row.difference_interval
            text += f"   best is {row.difference:+.4g} [{low:+.4g}, {high:+.4g}]"
        lines.append(text)
    return lines


def _short(value: Any, limit: int = 200) -> str:
    text = re.sub(r"\s*\n\s*", " ", repr(value))  # arrays show themselves over several lines
    return text if len(text) <= limit else text[: limit - 1] + "…"
