"""What all worlds of a pursuit have in common: dimension, numbers, arena, time, radii."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

from searchlib.arguments import one_of, real_number, whole_number
from searchlib.errors import InvalidSettings

__all__ = ["PursuitSettings"]


@final
@dataclass(frozen=True, kw_only=True)
class PursuitSettings:
    """Kinematic pursuit of one faster evader, as in TaskFlex Solver and DualCL (arXiv 2312.12255).

    What differs between worlds (evader speed, size …) is a task: :class:`~searchlib.objectives.PursuitTasks`.

    Arguments:
        dimension: 2 or 3.
        pursuers: how many; all share one policy.
        obstacles: moving balls of a box; in a cylinder arena the most posts that stand, at most 5.
        fewest_obstacles: a cylinder arena has from this number to ``obstacles`` posts, drawn by the task's seed; None:
            always ``obstacles``. A box always has ``obstacles``.
        arena: ``"box"`` is ``[-s, s]²``, in three dimensions ``[-s, s]² × [0, 2s]`` with s the half-size of the task;
            ``"cylinder"`` is DualCL's: radius s, height 4s/3, posts of radius s/3 in five places, half of them low (all
            high in two dimensions).
        steps: control steps of an episode.
        dt: seconds per control step.
        turn_every: control steps after which every obstacle takes another direction.
        pursuer_speed: limit, in m/s.
        obstacle_radius: of a ball, in m.
        collision_radius: of a pursuer, in m.

    Raises:
        InvalidSettings: a number that cannot be meant.

    Example:
        >>> PursuitSettings.dualcl().steps, PursuitSettings().agents
        (800, 4)
    """

    dimension: int = 2
    pursuers: int = 3
    obstacles: int = 3
    fewest_obstacles: int | None = None
    arena: Literal["box", "cylinder"] = "box"
    steps: int = 150
    dt: float = 0.04
    turn_every: int = 20
    pursuer_speed: float = 1.0
    obstacle_radius: float = 0.05
    collision_radius: float = 0.01

    def __post_init__(self) -> None:
        one_of("dimension", self.dimension, (2, 3))
        for name, least in (("pursuers", 1), ("obstacles", 0), ("steps", 1), ("turn_every", 1)):
            whole_number(name, getattr(self, name), least)
        one_of("arena", self.arena, ("box", "cylinder"))
        if self.arena == "cylinder" and self.obstacles > 5:
            raise InvalidSettings(f"a cylinder arena has places for 5 posts, but obstacles={self.obstacles}")
        if self.fewest_obstacles is not None:
            whole_number("fewest_obstacles", self.fewest_obstacles, 0)
            if self.arena == "box" or self.fewest_obstacles > self.obstacles:
                raise InvalidSettings(
                    f"fewest_obstacles must be at most obstacles={self.obstacles} and is for a cylinder arena only, "
                    f"but is {self.fewest_obstacles} in a {self.arena}; leave it out"
                )
        for name in ("dt", "pursuer_speed", "obstacle_radius", "collision_radius"):
            real_number(name, getattr(self, name), "(0, inf)")

    @classmethod
    def tfs(cls) -> PursuitSettings:
        """TaskFlex Solver in three dimensions: 3 pursuers, 5 moving balls, 500 steps of 0.016 s.

        From the authors' ``train.yaml`` and ``predatorprey_cl.py`` (commit 78a278d).
        """
        return cls(dimension=3, obstacles=5, steps=500, dt=0.016)

    @classmethod
    def dualcl(cls) -> PursuitSettings:
        """DualCL: 4 pursuers in a cylinder with 0 to 3 posts, 800 steps of 0.016 s.

        From the authors' ``HideAndSeek_circle_eval.yaml`` (commit 13bf0fd).
        """
        return cls(
            dimension=3, pursuers=4, fewest_obstacles=0, arena="cylinder", steps=800, dt=0.016, collision_radius=0.05
        )

    @property
    def agents(self) -> int:
        """Pursuers and the evader."""
        return self.pursuers + 1

    @property
    def turns(self) -> int:
        """How many directions an obstacle takes in an episode."""
        return -(-self.steps // self.turn_every)
