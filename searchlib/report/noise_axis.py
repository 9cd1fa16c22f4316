"""A sampling schedule drawn on the noise axis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from searchlib.report.convergence import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_schedule"]

_MARKS = {"data": "o", "noise": "s"}


def plot_schedule(schedule: Any, *, axes: Axes | None = None) -> Axes:
    """Draw at which noise levels a schedule steps, and with which solver; sampling goes from left to right.

    Every mark is the start of a step: its height is the order, circles predict data, squares noise; filled ones are
    corrected. A last level of σ = 0, which a logarithmic axis does not have, stands where a step as long as the one
    before would end.

    Arguments:
        schedule: a :class:`~searchlib.spaces.SolverSchedule`.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    axes = new_axes() if axes is None else axes
    sigmas = np.array(schedule.sigmas)
    # A logarithmic axis has no 0: it stands where the next step of the same length would be.
    shown = np.where(sigmas > 0, sigmas, sigmas[-2] ** 2 / sigmas[-3] if len(sigmas) > 2 else sigmas[0] / 10)
    for place, step in enumerate(schedule.steps):
        color = f"C{step.order - 1}"
        axes.plot(shown[place : place + 2], [step.order] * 2, color=color, lw=2, alpha=0.5, solid_capstyle="butt")
        axes.plot(shown[place], step.order, _MARKS[step.prediction], color=color, ms=8, mew=1.5,
                  mfc=color if step.corrector else "none")  # fmt: skip
        if step.relaxation != "none":
            axes.annotate(step.relaxation, (shown[place], step.order), (0, 8), textcoords="offset points",
                          ha="center", fontsize=7)  # fmt: skip
    axes.vlines(shown, 0.5, 0.62, color="0.4", lw=1)
    last = "σ = 0" if sigmas[-1] == 0 else f"σ = {sigmas[-1]:.3g}"
    axes.annotate(last, (shown[-1], 0.62), (0, 3), textcoords="offset points", ha="center", fontsize=7)
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_yticks([1, 2, 3])
    axes.set_ylim(0.5, 3.5)
    first = ", the first step analytic" if schedule.analytic_first_step else ""
    axes.set_title(f"{schedule.nfe} evaluations{first}; ○ data □ noise, filled: corrected", fontsize=9)
    axes.set(xlabel="noise level σ/α (noisy left)", ylabel="order of the solver")
    return axes
