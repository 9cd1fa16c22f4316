"""What happened in many worlds of a many-agent navigation."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NavigationOutcome"]


@final
@dataclass(frozen=True, eq=False)
class NavigationOutcome:
    """What happened in every world until all goals were occupied at once, arrays of shape ``(n,)``.

    Arguments:
        steps: until then; the limit where never.
        collisions: pairs of agents that overlapped, summed over those steps.
        covered: largest share of the goals that were occupied at once.
        limit: steps of an episode, a number.
    """

    steps: NDArray[np.int64]
    collisions: NDArray[np.int64]
    covered: NDArray[np.float32]
    limit: int

    @property
    def success(self) -> NDArray[np.bool_]:
        """Whether all goals were occupied at once."""
        return np.asarray(self.covered >= 1)

    @property
    def collisions_per_step(self) -> NDArray[np.float64]:
        """Pairs that overlap in a step, on average."""
        return np.asarray(self.collisions / np.maximum(self.steps, 1))

    def __len__(self) -> int:
        return len(self.steps)

    def take(self, places: Any) -> NavigationOutcome:
        """The worlds at these positions."""
        parts = {field.name: getattr(self, field.name)[places] for field in fields(self) if field.name != "limit"}
        return NavigationOutcome(**parts, limit=self.limit)
