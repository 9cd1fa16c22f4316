"""How well a predictor ranked the candidates of every stage before it was trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from searchlib.errors import InvalidSettings
from searchlib.report.convergence import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_predictor_quality", "predictor_notes"]


def predictor_notes(notes: Any) -> list[Mapping[str, Any]]:
    """Notes of every predictor in those of a search: its own, or of members (:class:`searchlib.Portfolio`) and stages.

    Predictors of which no stage has been judged are left out.

    Example:
        >>> stages = [{"evaluations": 8, "tau": 0.5, "guided": True}]
        >>> predictor_notes({"portfolio": [{"algorithm": "PredictorGuided()", "notes": {"stages": stages}}]})
        [{'stages': [{'evaluations': 8, 'tau': 0.5, 'guided': True}]}]
    """
    if isinstance(notes, list):
        return [found for each in notes for found in predictor_notes(each)]
    if not isinstance(notes, Mapping):
        return []
    stages = notes.get("stages")
    if isinstance(stages, list):
        return [notes] if any(isinstance(each, Mapping) and each.get("tau") is not None for each in stages) else []
    return predictor_notes(list(notes.values()))


def plot_predictor_quality(
    notes: Mapping[str, Any] | Mapping[str, Sequence[Mapping[str, Any]]], *, axes: Axes | None = None
) -> Axes:
    """Draw Kendall's tau of a :class:`searchlib.PredictorGuided` search against evaluations.

    Filled marks are stages after which the predictor was trusted; hollow ones were left to plain evolution. The first
    mark of a run is cross-validated, all others compare predictions with what came out afterwards.

    Arguments:
        notes: ``result.notes`` of one search; or for every name those of several searches.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: these are no notes of such a search.
    """
    runs: Mapping[str, Any] = {"predictor": [notes]} if "stages" in notes else notes
    lists = all(isinstance(repetitions, list | tuple) for repetitions in runs.values())
    if not runs or not lists or not all("stages" in run for repetitions in runs.values() for run in repetitions):
        raise InvalidSettings("notes must be result.notes of a PredictorGuided search, but have no 'stages'")
    axes = new_axes() if axes is None else axes
    for name, repetitions in runs.items():
        color = None
        for run in repetitions:
            stages = [stage for stage in run["stages"] if stage["tau"] is not None]
            where, taus = [stage["evaluations"] for stage in stages], [stage["tau"] for stage in stages]
            (line,) = axes.plot(where, taus, label=name if color is None else None, color=color, lw=0.8, alpha=0.6)
            color = line.get_color()
            faces = [color if stage["guided"] else "none" for stage in stages]
            axes.scatter(where, taus, edgecolors=color, facecolors=faces, s=24, zorder=3)
    axes.axhline(0, color="0.4", lw=1, ls=":")
    axes.set_xlabel("evaluations")
    axes.set_ylabel("Kendall's tau on the next stage")
    axes.legend(fontsize="small")
    return axes
