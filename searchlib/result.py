"""What a search hands back."""

from __future__ import annotations

import enum
import importlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.case_overlap import Overlap
from searchlib.front import Front
from searchlib.history import History
from searchlib.holdout import Holdout
from searchlib.objective import Direction
from searchlib.selection_bias import Estimate
from searchlib.space import Population

if TYPE_CHECKING:
    from searchlib.report.plots import Plots

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
        hits: distinct candidates that an evaluation cache has answered so far.
    """

    evaluations: int
    best_value: float
    ids: NDArray[np.int64]
    population: Population
    values: NDArray[np.float64]
    status: NDArray[np.int8]
    seconds: float
    replayed: bool
    hits: int = 0


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
        notes: what the algorithm has to say about its run (:meth:`searchlib.Run.notes`), as JSON values; under
            ``"racing"`` what a race saved.
        front: with several objectives, what nothing else dominates, and which of it is the winner; None with one.
        optimism: how much better the winner's value looks than its held-out value (negative: it looks worse); None
            without held-out cases.
        corrected: what is left of ``value`` once the choice on the SELECT cases is paid for, even without held-out
            cases (:func:`searchlib.selection_bias.corrected`); None where these did not decide, or of several
            objectives.
        overlaps: cases that splits share, in spite of which the values are not honest.
        direction: of every value, ``"minimize"`` or ``"maximize"``; empty where a result was put together without.
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
    optimism: Estimate | None = None
    corrected: Estimate | None = None
    overlaps: tuple[Overlap, ...] = ()
    direction: tuple[Direction, ...] = ()

    @property
    def cache_hits(self) -> int:
        """How many candidates an evaluation cache has answered; they are no evaluations."""
        return int(self.history.cached.sum())

    @property
    def plot(self) -> Plots:
        """Pictures of this result: ``result.plot.convergence()``, each an Axes of matplotlib."""
        # By name: reports are made of results, and an import would close the circle.
        plots: Plots = importlib.import_module("searchlib.report.plots").Plots(self)
        return plots

    def to_json(self) -> dict[str, Any]:
        """The part of a result that a study cannot work out again by itself, as JSON values."""
        return {
            "row": None if self.row is None else self.row.tolist(),
            "value": self.value if math.isfinite(self.value) else None,
            "holdout": None if self.holdout is None else self.holdout.to_json(),
            "outcome": self.outcome.name,
            "notes": dict(self.notes),
            **({} if self.front is None else {"front": self.front.to_json()}),
            **({} if self.optimism is None else {"optimism": self.optimism.to_json()}),
            **({} if self.corrected is None else {"corrected": self.corrected.to_json()}),
            **({"overlaps": [overlap.to_json() for overlap in self.overlaps]} if self.overlaps else {}),
        }

    def _doubts(self) -> list[str]:
        """How much the value flatters, and why the held-out one may too."""
        lines = []
        if self.corrected is not None:
            low, high = self.corrected.interval
            why = "what its choice on the select cases leaves of it"
            lines.append(f"corrected  {self.corrected.value:.6g} [{low:.4g}, {high:.4g}]  {why}")
        if self.optimism is not None:
            low, high = self.optimism.interval
            lines.append(f"optimism   {self.optimism.value:+.4g} [{low:+.4g}, {high:+.4g}]  by which it beats held-out")
        return lines + [f"WARNING    {overlap}" for overlap in self.overlaps]

    def __str__(self) -> str:
        optimistic = " (chosen for it; see held-out)" if self.holdout else ""
        lines = [
            f"best       {_short(self.best)}",
            f"value      {self.value:.6g}{optimistic}",
            *self._doubts(),
            f"stopped    {self.outcome.value}",
            f"searched   {self.history.evaluations} evaluations, {len(self.history)} candidates told, "
            f"{self.history.failures} failed, {self.seconds:.1f} s",
        ]
        if self.cache_hits:
            lines.append(f"cached     {self.cache_hits} candidates were in the evaluation cache and cost no budget")
        lines.append(f"algorithm  {self.algorithm}")
        if "racing" in self.notes:
            lines.append(f"raced      {_raced(self.notes['racing'])}")
        first_error = next((error for error in self.history.errors if error), "").strip()
        if first_error:
            lines.append(f"1st error  {first_error.splitlines()[-1]}")
        if self.front is not None:
            lines.append(str(self.front))
        if self.holdout is not None:
            lines.append(self.holdout.table(() if self.front is None else self.front.names))
        return "\n".join(lines)


def _raced(notes: Mapping[str, Any]) -> str:
    """What racing saved, and what its error means."""
    return (
        f"{notes['stopped']} of {notes['candidates']} candidates stopped early, {notes['cells']} cells instead of "
        f"{notes['cells_of_full_rows']}; one that belongs among the best {notes['keep']} so far is stopped with "
        f"probability {notes['error']:g} at most"
    )


def _short(value: Any, limit: int = 200) -> str:
    text = re.sub(r"\s*\n\s*", " ", repr(value))  # arrays show themselves over several lines
    return text if len(text) <= limit else text[: limit - 1] + "…"
