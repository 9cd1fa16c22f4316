"""What all worlds of a many-agent navigation have in common: physics, density, and when a goal is reached."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

from searchlib.arguments import instance, real_number, whole_number
from searchlib.errors import InvalidSettings
from searchlib.objectives.uav_settings import UavSettings

__all__ = ["NavigationSettings"]


@final
@dataclass(frozen=True, kw_only=True)
class NavigationSettings:
    """N agents, N goals, nobody told which is whose: MASP's task (arXiv 2312.02522) with MAGE-X's numbers.

    Worlds of any number of agents have the same density: the side of the box is ``(N / density)^(1 / dimension)``.

    Arguments:
        steps: of an episode (MAGE-X: 120).
        dt: seconds per step.
        damping: share of the velocity that a step takes.
        force: acceleration of a command of length 1, in m/s²; longer commands are cut to that length (MAGE-X: five
            commands, one at a time along an axis).
        radius: of an agent, in m; two that overlap collide and push each other.
        contact_force, contact_margin: of that push, as in the multi-agent particle environments.
        reached: a goal is occupied by an agent that is so near, in m.
        density: agents per m² (or m³) of the box.
        start_speed: initial velocities are drawn from a disc (ball) of this radius, in m/s.
        pillars: fixed round obstacles for every 10 agents, rounded up.
        pillar_radius: in m.
        flight: None: discs in a plane. Else quadrotors in three dimensions, whose commands are velocities as shares of
            ``flight.speed``, one per ``flight.decide_every`` control steps; two nearer than ``flight.spacing`` collide.
            Flights know no pillars, and of the physics above only ``dt``, ``steps``, ``reached`` and ``density``.

    Raises:
        InvalidSettings: a number that cannot be meant.

    Example:
        >>> settings = NavigationSettings(density=1.25)
        >>> settings.side(5), settings.side(20), NavigationSettings.flying().dimension
        (2.0, 4.0, 3)
    """

    steps: int = 120
    dt: float = 0.1
    damping: float = 0.25
    force: float = 5.0
    radius: float = 0.1
    contact_force: float = 100.0
    contact_margin: float = 1e-3
    reached: float = 0.15
    density: float = 1.25
    start_speed: float = 0.0
    pillars: int = 0
    pillar_radius: float = 0.25
    flight: UavSettings | None = None

    def __post_init__(self) -> None:
        whole_number("steps", self.steps, 1)
        whole_number("pillars", self.pillars, 0)
        for name in (
            "dt", "force", "radius", "contact_force", "contact_margin", "reached", "density", "pillar_radius",
        ):  # fmt: skip
            real_number(name, getattr(self, name), "(0, inf)")
        real_number("damping", self.damping, "[0, 1)")
        real_number("start_speed", self.start_speed, "[0, inf)")
        if self.flight is None:
            return
        instance("flight", self.flight, UavSettings, "UavSettings(…)")
        if self.pillars:
            raise InvalidSettings(f"flights know no pillars, but pillars={self.pillars}; leave them out")
        taken = self.flight.dt * self.flight.decide_every
        if abs(taken - self.dt) > 1e-9:
            raise InvalidSettings(f"a step of a flight takes {taken:g} s, but dt={self.dt!r}; make them equal")

    @classmethod
    def flying(cls, *, steps: int = 80, density: float = 0.625, start_speed: float = 0.0) -> NavigationSettings:
        """Crazyflies with ten velocity commands a second, a box of 2 m for five."""
        return cls(
            steps=steps, density=density, start_speed=start_speed,
            flight=UavSettings(decide_every=10, steps=10 * steps),
        )  # fmt: skip

    @property
    def dimension(self) -> int:
        """2, or 3 for flights."""
        return 2 if self.flight is None else 3

    @property
    def touch(self) -> float:
        """Distance of two agents below which they collide, in m."""
        return 2 * self.radius if self.flight is None else self.flight.spacing

    @property
    def spacing(self) -> float:
        """Length that a box of one agent's share is wide, in m: the unit in which distances are told to networks."""
        return float(self.density ** (-1 / self.dimension))

    @property
    def top_speed(self) -> float:
        """Of an agent that is pushed for ever, or the longest velocity command of a flight, in m/s."""
        if self.flight is not None:
            return self.flight.speed
        return self.force * self.dt / self.damping if self.damping else self.force

    def side(self, agents: int) -> float:
        """Of the box of so many agents, in m."""
        return float((whole_number("agents", agents, 1) / self.density) ** (1 / self.dimension))

    def posts(self, agents: int) -> int:
        """Pillars in a world of so many agents."""
        return math.ceil(self.pillars * agents / 10)
