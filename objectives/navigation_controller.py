"""The proportional controller of a many-agent navigation: the pull of the goal, damped, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_sight import NavigationSight
from searchlib.objectives.uav_heuristics import capped
from searchlib.spaces import PolicyParameters

__all__ = ["ProportionalSteering", "pull_of_goal"]

#: Commands per m and per m/s where the gains are zero, of discs and of flights; discs hardly lose by being rough.
_PULL, _DAMP, _FLIGHT_PULL, _FLIGHT_DAMP = 6.0, 1.2, 4.0, 0.3


@final
@dataclass(frozen=True)
class ProportionalSteering:
    """Agents that do not see each other. Rows hold two gains.

    Example:
        >>> ProportionalSteering().parameters
        2
    """

    @property
    def parameters(self) -> int:
        """Length of a row: pull and damping, as logarithms of factors."""
        return 2

    def space(self) -> PolicyParameters:
        """The gains as a space."""
        return PolicyParameters((("gains", (2,)),), 0.5)

    def command(self, rows: Any, sight: NavigationSight, settings: NavigationSettings, xp: Any) -> Any:
        """Commands of length 1 at most, shape ``(n, t, agents, dimension)``.

        Arguments:
            rows: gains of n teams, shape ``(n, 2)``.
            sight: of t worlds of each, worlds' axes ``(n, t)``.
            settings: of the worlds.
            xp: array module.
        """
        pull, damp = (rows[:, i, None, None, None] for i in range(2))
        return capped(pull_of_goal(pull, damp, sight, settings, xp), 1.0, xp)


def pull_of_goal(pull: Any, damp: Any, sight: NavigationSight, settings: NavigationSettings, xp: Any) -> Any:
    """Towards the goal and against the velocity, of any length; gains are logarithms of factors."""
    flies = settings.flight is not None
    towards, against = (_FLIGHT_PULL, _FLIGHT_DAMP) if flies else (_PULL, _DAMP)
    return towards * xp.exp(pull) * (sight.goal - sight.position) - against * xp.exp(damp) * sight.velocity
