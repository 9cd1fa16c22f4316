"""What happened in many worlds of a pursuit."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["PursuitOutcome"]


@final
@dataclass(frozen=True, eq=False)
class PursuitOutcome:
    """What happened in every world, arrays of shape ``(n,)``, measured in every state, the first one included.

    With ``stop_at_capture`` a world is measured until its first capture.

    Arguments:
        captured: whether a pursuer ever was within the capture radius.
        first_capture_step: in which state first, 0 is the start; the number of steps where never.
        min_distance: of any pursuer to the evader, in m.
        capture_steps: states with a pursuer within the radius.
        collisions: pairs of pursuer and obstacle closer than the collision radius, summed over states.
        over_speed: commands longer than 1, summed over pursuers and steps.
        reward: the authors', a mean over pursuers: per state 10 for every pursuer within the radius or else minus the
            least distance, −5 per collision, −100 per command that is too fast.
    """

    captured: NDArray[np.bool_]
    first_capture_step: NDArray[np.int64]
    min_distance: NDArray[np.float32]
    capture_steps: NDArray[np.int64]
    collisions: NDArray[np.int64]
    over_speed: NDArray[np.int64]
    reward: NDArray[np.float32]

    @classmethod
    def none(cls, n: int, steps: int) -> PursuitOutcome:
        """Of ``n`` worlds in which nothing has happened."""
        return cls(
            captured=np.zeros(n, bool),
            first_capture_step=np.full(n, steps, np.int64),
            min_distance=np.full(n, np.inf, np.float32),
            capture_steps=np.zeros(n, np.int64),
            collisions=np.zeros(n, np.int64),
            over_speed=np.zeros(n, np.int64),
            reward=np.zeros(n, np.float32),
        )

    def __len__(self) -> int:
        return len(self.captured)

    def put(self, rows: NDArray[np.intp], other: PursuitOutcome, places: NDArray[Any]) -> None:
        """Write worlds ``places`` of another outcome into the worlds ``rows`` of this one."""
        for field in fields(self):
            getattr(self, field.name)[rows] = getattr(other, field.name)[places]

    def take(self, places: NDArray[Any]) -> PursuitOutcome:
        """The worlds at these positions."""
        return PursuitOutcome(**{field.name: getattr(self, field.name)[places] for field in fields(self)})
