"""What all episodes of an exploration have in common: lidar, times, and how the topological map is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from searchlib.arguments import one_of, real_number, whole_number
from searchlib.errors import InvalidSettings

__all__ = ["ExplorationSettings"]

#: Ghosts of a circle, its radius and what prunes them, in m (MANTM, ``train_graph_habitat.sh`` and its defaults).
_SPOKES, _CIRCLE, _CREATION, _APART, _EXPLORED, _AROUND = 24, 3.0, 0.8, 0.5, 0.6, 1.0


@final
@dataclass(frozen=True, kw_only=True)
class ExplorationSettings:
    """A lidar of 3.2 m, plans every five steps, main nodes 2 m apart: MANTM's lengths on cells of 0.35 m.

    Arguments:
        sight: range of the lidar, in cells.
        rays: of the lidar, evenly spaced.
        replan: steps after which all agents get new goals together; they also do where one has reached its goal.
        steps: after which an episode is over; a step leads to one of four neighbors.
        cell: edge of a cell, in m; turns the lengths of the topological map to cells.
        spacing: of main nodes, in m.
        ghosts: ``"frontier"`` (groups of frontier cells) or ``"circle"`` (points around main nodes, as the authors').
        span: of a group of frontier cells along either axis, from its first cell, in cells.
        samples: of the random trees.

    Raises:
        InvalidSettings: a number that cannot be meant.

    Example:
        >>> ExplorationSettings().topology.spacing, ExplorationSettings(ghosts="circle").topology.spokes
        (5.714285714285714, 24)
    """

    sight: float = 9.0
    rays: int = 144
    replan: int = 5
    steps: int = 3000
    cell: float = 0.35
    spacing: float = 2.0
    ghosts: str = "frontier"
    span: int = 5
    samples: int = 400

    def __post_init__(self) -> None:
        for name, least in (("rays", 8), ("replan", 1), ("steps", 1), ("span", 1), ("samples", 1)):
            whole_number(name, getattr(self, name), least)
        for name in ("sight", "cell", "spacing"):
            real_number(name, getattr(self, name), "(0, inf)")
        if self.sight < 1.5:
            raise InvalidSettings(f"a lidar must see its neighbors: sight >= 1.5 cells, but it is {self.sight!r}")
        one_of("ghosts", self.ghosts, ("frontier", "circle"))

    @property
    def topology(self) -> Any:
        """The same for compiled code, a :class:`~searchlib.objectives.exploration_nodes.Topology` in cells."""
        from searchlib.objectives.exploration_nodes import Topology

        return Topology(
            self.spacing / self.cell, self.span, _SPOKES if self.ghosts == "circle" else 0, _CIRCLE / self.cell,
            _CREATION / self.cell, _APART / self.cell, _EXPLORED, _AROUND / self.cell,
        )  # fmt: skip

    @property
    def lidar(self) -> Any:
        """Times and rays for compiled code, a :class:`~searchlib.objectives.exploration_world.Lidar`."""
        from searchlib.objectives.exploration_sight import ray_tree
        from searchlib.objectives.exploration_world import Lidar

        tree, glance = (ray_tree(float(self.sight), rays) for rays in (self.rays, max(8, self.rays // 4)))
        return Lidar(tree, glance, self.replan, self.steps, self.samples)
