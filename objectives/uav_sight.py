"""What a team of drones knows at a moment: what all of its laws decide from."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["UavSight"]


class UavSight(NamedTuple):
    """Many worlds in front, ``…`` being their axes.

    Arguments:
        drones: positions in m, shape ``(…, drones, 3)``.
        velocity: in m/s, shape ``(…, drones, 3)``.
        up: where the drones' rotors push, unit vectors, shape ``(…, drones, 3)``.
        evader: where it was last seen by anybody, in m, shape ``(…, 3)``; before, the middle of the arena.
        seen: 1 where somebody sees it now, else 0, shape ``(…)``.
        future: where it is expected in the next moments, in m, shape ``(…, moments, 3)``; where nobody predicts,
            ``evader``.
        cylinders: their axes from above, shape ``(…, cylinders, 2)``; far away where none stands.
    """

    drones: Any
    velocity: Any
    up: Any
    evader: Any
    seen: Any
    future: Any
    cylinders: Any
