"""Attention spans per head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from searchlib.report.convergence import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_spans"]


def plot_spans(plan: Any, *, length: int, axes: Axes | None = None) -> Axes:
    """Draw what share of the keys every head of every layer keeps, sinks included.

    Arguments:
        plan: an :class:`~searchlib.spaces.AttentionPlan`.
        length: tokens of the whole sequence.
        axes: where to draw; by default a new figure.

    Returns:
        the Axes; ``axes.figure.savefig(...)`` saves the picture.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    axes = new_axes() if axes is None else axes
    kept = plan.kept(length) / length
    image = axes.imshow(kept.T, aspect="auto", interpolation="nearest", cmap="viridis_r", vmin=0, vmax=1)
    axes.set(xlabel="layer", ylabel="head")
    axes.locator_params(integer=True)
    axes.set_title(f"{length:,} tokens, of which {100 * plan.density(length):.3g} % are kept on average", fontsize=9)
    axes.figure.colorbar(image, ax=axes, label="share of the keys that the head keeps")
    return axes
