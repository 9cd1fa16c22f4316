"""What all worlds of a multi-UAV pursuit have in common: arena, evader, radii, rates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from searchlib.arguments import real_number, whole_number
from searchlib.errors import InvalidSettings

__all__ = ["CYLINDERS", "DRONES", "UavSettings"]

#: Pursuers of a team, and the most cylinders of a world (scenarios have up to six).
DRONES = 3
CYLINDERS = 6


@final
@dataclass(frozen=True, kw_only=True)
class UavSettings:
    """Three Crazyflies after one faster evader among cylinders: OPEN's task (arXiv 2409.15866, ``HideAndSeek.yaml``).

    Arguments:
        steps: control steps of an episode (collective thrust and body rates).
        dt: seconds per control step.
        physics_rate: in Hz; rotors, rigid body and the rate controller of the firmware. A multiple of 1/dt.
        decide_every: control steps after which a team takes another velocity command; authors: 1.
        radius, height: of the arena, a standing cylinder, in m.
        cylinder_radius: of the obstacles, in m; they are as high as the arena.
        capture_radius: in m; only a pursuer whose sight is not blocked captures.
        speed: longest velocity command of a pursuer, in m/s.
        acceleration: how fast the command that is flown may change, in m/s². Drones that tilt further have no thrust
            left to hold their height.
        evader_speed: in m/s; it always moves that fast.
        gain_spread: every force on the evader is scaled by a factor between 1/spread and spread, drawn by the task's
            seed, so that no policy can rely on one law (authors: 1).
        clearance: of a cylinder's surface, below which a pursuer collides, in m.
        spacing: of two pursuers, below which they collide, in m.
        drone: model of the ``crazyflow`` package.

    Raises:
        InvalidSettings: a number that cannot be meant.

    Example:
        >>> UavSettings().decisions, UavSettings().substeps, UavSettings(steps=80).decisions
        (200, 5, 20)
    """

    steps: int = 800
    dt: float = 0.01
    physics_rate: int = 500
    decide_every: int = 4
    radius: float = 0.9
    height: float = 1.2
    cylinder_radius: float = 0.1
    capture_radius: float = 0.3
    speed: float = 1.0
    acceleration: float = 5.0
    evader_speed: float = 1.3
    gain_spread: float = 1.4
    clearance: float = 0.07
    spacing: float = 0.14
    drone: str = "cf2x_L250"

    def __post_init__(self) -> None:
        for name in ("steps", "physics_rate", "decide_every"):
            whole_number(name, getattr(self, name), 1)
        for name in (
            "dt", "radius", "height", "cylinder_radius", "capture_radius", "speed", "acceleration", "evader_speed",
            "clearance", "spacing",
        ):  # fmt: skip
            real_number(name, getattr(self, name), "(0, inf)")
        real_number("gain_spread", self.gain_spread, "[1, inf)")
        if self.steps % self.decide_every:
            raise InvalidSettings(
                f"steps must be a multiple of decide_every, but are {self.steps} and {self.decide_every}"
            )
        if self.physics_rate * self.dt > 1e9:
            raise InvalidSettings(f"a control step of dt={self.dt!r} is too long for physics_rate={self.physics_rate}")
        if abs(self.substeps - self.physics_rate * self.dt) > 1e-6 or self.substeps < 1:
            raise InvalidSettings(
                f"a control step must take a whole number of physics steps, but dt={self.dt!r} takes "
                f"{self.physics_rate * self.dt:g} of them"
            )

    @property
    def decisions(self) -> int:
        """Velocity commands of an episode."""
        return self.steps // self.decide_every

    @property
    def substeps(self) -> int:
        """Physics steps of a control step."""
        return round(self.physics_rate * self.dt)
