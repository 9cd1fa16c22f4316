"""Pictures of traffic: how queues grow and shrink under every controller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from searchlib.errors import InvalidSettings
from searchlib.objectives.episode_pictures import new_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_queues"]


def draw_queues(
    queues: Mapping[str, Mapping[str, Sequence[float]]], interval: float, *, highlight: str | None = None
) -> Sequence[Axes]:
    """Draw standing vehicles over time, one picture per network, the controllers in it.

    Arguments:
        queues: of every network those of every controller, such as ``{"mine": {"ours": outcome.queues}}``.
        interval: seconds between two numbers.
        highlight: a controller whose line is thick.

    Raises:
        MissingDependency: matplotlib is not installed.
        InvalidSettings: there are no networks.
    """
    if not queues:
        raise InvalidSettings("a picture of queues needs at least one network, but got none")
    panels = new_axes(7, 2.4 * len(queues), len(queues))
    for axes, (network, lines) in zip(panels, queues.items(), strict=True):
        for number, (controller, values) in enumerate(lines.items()):
            minutes = [interval * i / 60 for i in range(len(values))]
            width = 2.2 if controller == highlight else 1.0
            axes.plot(minutes, values, linewidth=width, color=f"C{number % 10}", label=controller)
        axes.set_title(network, fontsize=9)
        axes.set_ylabel("standing or outside")
    panels[0].legend(fontsize=7, ncols=2)
    panels[-1].set_xlabel("minutes")
    return panels
