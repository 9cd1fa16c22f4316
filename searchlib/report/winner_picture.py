"""The picture of a winner that fits its space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from searchlib.algorithms.algorithm import Status
from searchlib.errors import InvalidSettings
from searchlib.objective import Direction
from searchlib.report.expert_layers import plot_experts
from searchlib.report.head_spans import plot_spans
from searchlib.report.item_influence import plot_influence
from searchlib.report.layer_bits import plot_bits
from searchlib.report.noise_axis import plot_schedule
from searchlib.report.training_coefficients import plot_coefficients
from searchlib.result import Result
from searchlib.space import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["WINNER_PICTURES", "plot_winner"]


def plot_winner(result: Result, direction: Direction, *, axes: Axes | None = None, **settings: Any) -> Axes:
    """Draw the winner of a search: :data:`WINNER_PICTURES` says how for which space.

    Arguments:
        result: of the search.
        direction: of its first value.
        axes: where to draw; by default a new figure.
        settings: of the picture, such as ``steps=`` of checkpoints or ``length=`` of a sequence.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: there is no winner, or no picture for its space.
    """
    if result.row is None:
        raise InvalidSettings("there is no winner to draw: no candidate has succeeded, or the search has not ended yet")
    space = result.history.space
    for kind in type(space).__mro__:
        if kind.__name__ in WINNER_PICTURES:
            return WINNER_PICTURES[kind.__name__][1](result, direction, axes=axes, **settings)
    raise InvalidSettings(
        f"there is no picture for candidates of {type(space).__name__}; there is one for {', '.join(WINNER_PICTURES)}"
    )


def _value(result: Result) -> tuple[Any, Any]:
    """The space and the winner's typed value (``result.best`` may be the objective's artifact of it)."""
    space: Space = result.history.space
    assert result.row is not None
    return space, space.decode(result.row)


def _experts(result: Result, direction: Direction, **settings: Any) -> Axes:
    del direction
    return plot_experts(*_value(result), **settings)


def _coefficients(result: Result, direction: Direction, **settings: Any) -> Axes:
    del direction
    return plot_coefficients(*_value(result), **settings)


def _schedule(result: Result, direction: Direction, **settings: Any) -> Axes:
    del direction
    return plot_schedule(_value(result)[1], **settings)


def _spans(result: Result, direction: Direction, *, length: int | None = None, **settings: Any) -> Axes:
    del direction
    space, plan = _value(result)
    return plot_spans(plan, length=space.lengths[-1] if length is None else length, **settings)


def _bits(result: Result, direction: Direction, **settings: Any) -> Axes:
    del direction
    return plot_bits(*_value(result), **settings)


def _items(result: Result, direction: Direction, **settings: Any) -> Axes:
    history = result.history
    done = (history.status == Status.DONE) & history.fresh
    chosen = np.asarray(result.row).tolist()
    return plot_influence(chosen, history.population[done], history.values[done, 0], direction, **settings)


#: By the name of the space (the engine imports none): what the picture shows, and who draws it.
WINNER_PICTURES: Mapping[str, tuple[str, Callable[..., Axes]]] = {
    "AttentionConfigs": ("attention spans per head", _spans),
    "BitWidths": ("bits per layer", _bits),
    "CheckpointCoefficients": ("coefficients over training time", _coefficients),
    "EvalSubsets": ("influence of the chosen items", _items),
    "ExemplarSets": ("influence of the chosen exemplars", _items),
    "ExpertMerges": ("experts merged per layer", _experts),
    "ExpertSubsets": ("experts kept per layer", _experts),
    "SolverSchedules": ("the schedule on the noise axis", _schedule),
    "Subset": ("influence of the chosen items", _items),
}
