"""What happened in many worlds of a multi-UAV pursuit."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["UavOutcome"]


@final
@dataclass(frozen=True, eq=False)
class UavOutcome:
    """What happened in every world, arrays of shape ``(n,)``, measured after every control step of the whole episode.

    Arguments:
        first_capture_step: after which step first; the number of steps where never.
        collided: whether any drone ever was too near to a cylinder or a mate, or outside.
        first_collision_step: after which step first; the number of steps where never.
        min_distance: of any drone to the evader, in m.
        capture_steps: steps with a capture.
        fastest: speed of any drone, in m/s.
        steps: of the episode, a number.
    """

    first_capture_step: NDArray[np.int64]
    collided: NDArray[np.bool_]
    first_collision_step: NDArray[np.int64]
    min_distance: NDArray[np.float32]
    capture_steps: NDArray[np.int64]
    fastest: NDArray[np.float32]
    steps: int

    @property
    def captured(self) -> NDArray[np.bool_]:
        """Whether there was a capture, collisions or not."""
        return np.asarray(self.first_capture_step < self.steps)

    @property
    def success(self) -> NDArray[np.bool_]:
        """Whether there was a capture and no collision in the whole episode."""
        return self.captured & ~self.collided

    def __len__(self) -> int:
        return len(self.collided)

    def take(self, places: Any) -> UavOutcome:
        """The worlds at these positions."""
        parts = {field.name: getattr(self, field.name)[places] for field in fields(self) if field.name != "steps"}
        return UavOutcome(**parts, steps=self.steps)
