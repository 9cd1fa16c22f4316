"""``result.plot``: the pictures of a result."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.arguments import instance
from searchlib.errors import InvalidSettings
from searchlib.objective import Direction
from searchlib.report.convergence import best_so_far, plot_convergence
from searchlib.report.hypervolume_growth import plot_hypervolume
from searchlib.report.importance import plot_importance
from searchlib.report.interactions import plot_interactions
from searchlib.report.pareto_front import plot_front
from searchlib.report.picture_text import label
from searchlib.report.predictor_quality import plot_predictor_quality, predictor_notes
from searchlib.report.score_heat import plot_scores
from searchlib.report.stored_scores import StoredScores, stored_scores
from searchlib.report.task_history import plot_tasks
from searchlib.report.variance_shares import VarianceShares, variance_shares
from searchlib.report.winner_picture import plot_winner
from searchlib.result import Result
from searchlib.study import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Plots"]

#: The most candidates and cases that a heat map shows.
_ROWS, _COLUMNS = 400, 200


@final
class Plots:
    """Pictures of one result. Every method returns the Axes and takes ``ax=`` to draw into; they need matplotlib.

    Arguments:
        result: of a search, or of a study (``Study.open(path).result()``).
        direction: of its values; by default what the result says.

    Raises:
        InvalidSettings: directions that are none, or not one per value.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Binary
        >>> result = search(sum, space=Binary(4), budget=16, direction="maximize")
        >>> result.plot.convergence().get_xlabel()  # needs matplotlib
        'evaluations'
    """

    def __init__(self, result: Result, direction: Direction | Sequence[Direction] | None = None) -> None:
        self._result = instance("result", result, Result, "a Result")
        self._given = result.direction
        if direction is not None:
            ways = (direction,) if isinstance(direction, str) else tuple(direction)
            if len(ways) != result.history.objectives or not set(ways) <= {"minimize", "maximize"}:
                raise InvalidSettings(
                    f"direction must be 'minimize' or 'maximize' for each of {result.history.objectives} value(s), but "
                    f"is {direction!r:.80}"
                )
            self._given = ways
        self._shares: VarianceShares | None = None

    def convergence(self, *, ax: Axes | None = None) -> Axes:
        """Best value so far, and the held-out values of the winner and of every reference as lines."""
        result, direction = self._result, self.direction[0]
        held = () if result.holdout is None else result.holdout.rows
        levels = {f"{'winner' if row is held[0] else label(row.name)} (held-out)": row.value for row in held}
        curve = best_so_far(result.history, direction)
        if not np.isfinite(curve).any():
            raise InvalidSettings("there is no value to draw: no candidate has succeeded yet")
        name = f"best {self._names[0]} so far"
        axes = plot_convergence({"search": [curve]}, levels=levels, ylabel=name, axes=ax)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0, -0.14), ncols=2, frameon=False)
        if result.history.omitted:
            axes.set_xlabel("candidates on file")
        return axes

    def scores(self, study: Study | str | Path | StoredScores, *, ax: Axes | None = None) -> Axes:
        """The score table as a heat map, candidates × cases: a result does not hold it, its study does."""
        if isinstance(study, StoredScores):
            table = study
        elif isinstance(study, Study):
            table = stored_scores(study, candidates=_ROWS, cases=_COLUMNS)
        else:
            with Study.open(study) as opened:
                table = stored_scores(opened, candidates=_ROWS, cases=_COLUMNS)
        return plot_scores(table, self.direction[0], axes=ax)

    def front(self, *, x: int = 0, y: int = 1, ax: Axes | None = None) -> Axes:
        """The front among all candidates; ``x`` and ``y`` are the numbers of the values to draw."""
        result, front = self._result, self._result.front
        return plot_front(
            result.history.values, self.direction, names=() if front is None else front.names,
            front=None if front is None else front.values, chosen=None if front is None else front.chosen,
            x=x, y=y, axes=ax,
        )  # fmt: skip

    def hypervolume(self, *, reference: Sequence[float] | None = None, ax: Axes | None = None) -> Axes:
        """The volume that the front dominates, against evaluations."""
        values = self._result.history.values[self._result.history.fresh]
        return plot_hypervolume(values, self.direction, reference=reference, axes=ax)

    def importance(self, *, ax: Axes | None = None) -> Axes:
        """Which parameters the first value depends on (fANOVA of a random forest; needs scikit-learn)."""
        return plot_importance(self._variance(), axes=ax)

    def interactions(self, *, ax: Axes | None = None) -> Axes:
        """Which pairs of the most important parameters matter together (needs scikit-learn)."""
        return plot_interactions(self._variance(), axes=ax)

    def predictor_quality(self, *, ax: Axes | None = None) -> Axes:
        """How well a :class:`searchlib.PredictorGuided` search ranked what it evaluated next, over its stages."""
        found = predictor_notes(self._result.notes)
        if not found:
            raise InvalidSettings(
                f"no stage of a predictor has been judged: {self._result.algorithm:.80} has none, or none yet"
            )
        runs = {"predictor" if not number else f"predictor {number + 1}": [run] for number, run in enumerate(found)}
        return plot_predictor_quality(runs, axes=ax)

    def winner(self, *, ax: Axes | None = None, **settings: Any) -> Axes:
        """The winner as fits its space: experts, coefficients, schedule, spans, bits, or chosen items.

        Settings are those of the picture: ``steps=`` of checkpoints, ``length=`` of a sequence, ``names=`` of items.
        """
        return plot_winner(self._result, self.direction[0], axes=ax, **settings)

    def tasks(
        self, tasks: Sequence[NDArray[Any]], success: Sequence[NDArray[Any]] | None = None, *,
        name: str = "task", coordinate: int = 0, ax: Axes | None = None,
    ) -> Axes:  # fmt: skip
        """One coordinate of a curriculum's tasks over time, colored by the success in them.

        A result does not hold them, its study does: ``plot.tasks(*searchlib.report.stored_tasks(study))``.
        """
        return plot_tasks(tasks, success, name=name, coordinate=coordinate, axes=ax)

    @property
    def direction(self) -> tuple[Direction, ...]:
        """Of every value."""
        if not self._given:
            raise InvalidSettings(
                "this result does not say which values are good ones; use Plots(result, direction='minimize') or "
                "'maximize'"
            )
        return self._given

    @property
    def _names(self) -> tuple[str, ...]:
        front = self._result.front
        return tuple(map(label, front.names)) if front is not None and front.names else ("value",)

    def _variance(self) -> VarianceShares:
        if self._shares is None:
            history = self._result.history
            done = (history.status == Status.DONE) & history.fresh & ~history.stopped
            self._shares = variance_shares(history.space, history.population[done], history.values[done, 0])
        return self._shares
