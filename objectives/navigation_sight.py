"""What can be seen of many worlds of a many-agent navigation, and the geometry of what is near."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["NavigationSight", "across", "dot", "length", "nearest"]

_TINY = 1e-6


class NavigationSight(NamedTuple):
    """The state of many worlds.

    Arguments:
        position: of the agents, in m, shape ``(…, agents, dimension)``.
        velocity: of the agents, in m/s, of the same shape.
        goal: of each agent, in m, of the same shape.
        pillars: centers, in m, shape ``(…, pillars, dimension)``.
    """

    position: Any
    velocity: Any
    goal: Any
    pillars: Any

    def offsets(self) -> Any:
        """From every agent to every agent, in m, shape ``(…, agents, agents, dimension)``."""
        return self.position[..., None, :, :] - self.position[..., :, None, :]

    def posts(self) -> Any:
        """From every agent to every pillar, in m, shape ``(…, agents, pillars, dimension)``."""
        return self.pillars[..., None, :, :] - self.position[..., :, None, :]


def nearest(apart: Any, count: int, xp: Any) -> Any:
    """Places of the ``count`` least numbers of the last axis, least first: one after the other, which beats a sort.

    Example:
        >>> import numpy as np
        >>> nearest(np.array([3.0, 1.0, 2.0]), 2, np).tolist()
        [1, 2]
    """
    found = []
    for _ in range(count):
        least = apart.argmin(axis=-1)[..., None]
        found.append(least)
        apart = xp.where(xp.arange(apart.shape[-1]) == least, xp.inf, apart)
    return xp.concatenate(found, axis=-1)


def length(vectors: Any, xp: Any) -> Any:
    """Shape ``(…, 1)``; never 0."""
    return xp.sqrt((vectors * vectors).sum(axis=-1, keepdims=True) + _TINY)


def dot(first: Any, second: Any) -> Any:
    """Shape ``(…, 1)``."""
    return (first * second).sum(axis=-1, keepdims=True)


def across(vectors: Any, xp: Any) -> Any:
    """Vectors turned a quarter to the left as seen from above; what stands upright has no left.

    Example:
        >>> import numpy as np
        >>> across(np.array([1.0, 0.0]), np).tolist()
        [-0.0, 1.0]
    """
    turned = [-vectors[..., 1], vectors[..., 0]]
    if vectors.shape[-1] == 3:
        turned.append(xp.zeros_like(vectors[..., 0]))
    return xp.stack(turned, axis=-1)
