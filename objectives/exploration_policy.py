"""The parameters of a planner of two levels, as rows of a space, and rows as planners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.errors import InvalidCandidate
from searchlib.objectives.exploration_features import GHOST_FEATURES, HISTORY, MAIN_FEATURES
from searchlib.objectives.exploration_planner import Planner
from searchlib.spaces import PolicyParameters

__all__ = ["ExplorationPolicy"]

_G, _M = len(GHOST_FEATURES), len(MAIN_FEATURES)
#: A planner that goes where much is to be seen on short ways, and where nobody else goes: what two trial evolutions in
#: generated buildings had in common, rounded. Past places and goals, and main nodes, have no weight.
_PRIOR = {
    "log path": -1.6, "path": -0.25, "log path, by what is left": -1.1, "log gain": 2.4, "gain on the way": 1.0,
    "unknown beside": 0.7, "unknown around": 1.7, "unknown far around": -1.7, "potential, near": 1.2,
    "potential, far": 1.9, "log path of others": 0.8, "later than others": -0.8, "log path to next ghost": -0.8,
    "log path to next ghost, by what is left": 0.6, "taken, near": -3.8, "taken, beyond": -3.3,
}  # fmt: skip
#: Pull, look and least, as of :class:`Planner`.
_HABITS = (0.5, 0.2, 25.0)
#: Natural steps of linear weights: 0.2 over the spread that a feature has among the ghosts (main nodes) of one plan, as
#: measured in generated buildings, or estimated (ages, pockets, what is beyond, others and goals around, what is
#: unknown far around a main node). A step in any weight then changes a plan as much.
_GHOST_STEPS = (
    1.3, 0.65, 2.0, 1.35, 0.35, 0.8, 1.25, 1.8, 1.3, 0.3, 0.8, 1.6, 1.2, 1.65, 1.1, 0.5, 0.4, 0.65, 0.65, 0.6, 0.95,
    1.0, 1.3, 1.0, 1.0, 1.0, 2.1, 1.1, 1.5, 1.3,
)  # fmt: skip
_MAIN_STEPS = (0.85, 1.6, 0.7, 1.25, 0.55, 0.85, 0.3, 2.1, 1.05, 1.5, 0.8, 1.0, 0.7, 1.5)


@final
@dataclass(frozen=True)
class ExplorationPolicy:
    """Which parts a planner has.

    Arguments:
        units: hidden units of the ghost level, beside its linear part.
        main_units: hidden units of the main level.
        main: whether there is a main level.
        history: whether past places and goals count.
        ahead: steps to a waypoint; nearer ones mean more plans, as agents get new goals where one has reached its own.

    Example:
        >>> ExplorationPolicy().parameters, ExplorationPolicy(main=False).parameters, ExplorationPolicy(4, 2).parameters
        (47, 33, 207)
    """

    units: int = 0
    main_units: int = 0
    main: bool = True
    history: bool = True
    ahead: int = 3

    def __post_init__(self) -> None:
        whole_number("units", self.units, 0)
        whole_number("main_units", self.main_units, 0)
        whole_number("ahead", self.ahead, 1)

    @property
    def _tensors(self) -> tuple[tuple[str, tuple[int, ...], float], ...]:
        """Name, shape and spread; those of a level in the order that compiled code reads."""
        found: list[tuple[str, tuple[int, ...], float]] = [
            ("pull", (1,), 0.3), ("look", (1,), 0.1), ("least", (1,), 6.0), ("ghost linear", (_G,), 1.0),
        ]  # fmt: skip
        if self.units:
            found += [("ghost units", (self.units, _G), 1.0), ("ghost biases", (self.units,), 1.0),
                      ("ghost outputs", (self.units,), 1.0)]  # fmt: skip
        if self.main:
            found.append(("main linear", (_M,), 1.0))
            if self.main_units:
                found += [("main units", (self.main_units, _M), 1.0), ("main biases", (self.main_units,), 1.0),
                          ("main outputs", (self.main_units,), 1.0)]  # fmt: skip
        return tuple(found)

    def space(self) -> PolicyParameters:
        """All parameters; a sample's spread is a natural step of an evolution strategy."""
        return PolicyParameters(
            tuple((name, shape) for name, shape, _ in self._tensors), tuple(spread for _, _, spread in self._tensors)
        )

    @property
    def parameters(self) -> int:
        """How many there are."""
        return sum(int(np.prod(shape)) for _, shape, _ in self._tensors)

    def prior(self) -> NDArray[np.float32]:
        """A row with which a search can begin: gain against path, away from the goals of others."""
        row = np.zeros(self.parameters, np.float32)
        row[:3] = _HABITS
        row[3 : 3 + _G] = [_PRIOR.get(name, 0.0) for name in GHOST_FEATURES] / np.array(_GHOST_STEPS)
        return row

    def planner(self, row: NDArray[Any]) -> Planner:
        """A row of parameters as a planner.

        Raises:
            InvalidCandidate: a row of another length.
        """
        values = np.array(row, np.float64).ravel()
        if len(values) != self.parameters:
            raise InvalidCandidate(f"a row of this planner has {self.parameters} parameters, but got {len(values)}")
        ghosts = (1 + self.units) * _G + 2 * self.units
        ghost, main = values[3 : 3 + ghosts], values[3 + ghosts :]
        ghost[: (1 + self.units) * _G].reshape(-1, _G)[:] *= _GHOST_STEPS
        main[: (1 + self.main_units) * _M].reshape(-1, _M)[:] *= _MAIN_STEPS
        if not self.history:
            ghost[: (1 + self.units) * _G].reshape(-1, _G)[:, _places(GHOST_FEATURES)] = 0.0
            if self.main:
                main[: (1 + self.main_units) * _M].reshape(-1, _M)[:, _places(MAIN_FEATURES)] = 0.0
        pull, look, least = map(float, values[:3])
        return Planner(ghost, main, np.array([self.units, self.main_units]), pull, look, least, self.ahead)


def _places(names: tuple[str, ...]) -> list[int]:
    return [place for place, name in enumerate(names) if name in HISTORY]
