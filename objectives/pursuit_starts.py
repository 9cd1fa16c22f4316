"""Where everything is at the start of a pursuit, and where its obstacles go: functions of the tasks' seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objectives.pursuit_settings import PursuitSettings
from searchlib.objectives.pursuit_tasks import PursuitTasks

__all__ = ["ARENA_CELLS", "PursuitStarts", "outside_cells", "pursuit_starts", "reachable"]

#: Cells along a side of the occupancy grid of a cylinder arena; a post takes four by four.
ARENA_CELLS = 12

_POST = 4
#: Blocks of cells in which a post may stand: the middle and its four neighbors (``generate_cylinder_large``).
_PLACES = np.array([[0, 1], [1, 1], [1, 0], [1, 2], [2, 1]])
_MOST_ATTEMPTS = 100


@final
@dataclass(frozen=True, eq=False)
class PursuitStarts:
    """Start states of many worlds, the worlds along the last axis, float32.

    Arguments:
        agents: positions of the pursuers and, last, the evader, shape ``(dimension, pursuers + 1, n)``.
        obstacles: centers of balls, or of the feet of posts, shape ``(dimension, obstacles, n)``.
        tops: heights of posts, shape ``(obstacles, n)``; −1 for one that does not stand.
        turns: unit vectors, shape ``(turns, dimension, obstacles, n)``; one is taken every ``turn_every`` steps.
    """

    agents: NDArray[np.float32]
    obstacles: NDArray[np.float32]
    tops: NDArray[np.float32]
    turns: NDArray[np.float32]


def pursuit_starts(settings: PursuitSettings, tasks: PursuitTasks) -> PursuitStarts:
    """The start states of the tasks.

    In a box everything is uniform, in shares of the box that do not depend on its size. In a cylinder arena pursuers
    and evader stand in the middle of different free cells of a 12 × 12 grid, at any height, and a path between high
    posts leads from every pursuer to the evader (``rejection_sampling_with_validation_large_cylinder_cl``).

    Raises:
        InvalidSettings: a task gives starts for another number of agents or dimensions.
    """
    starts = (_box if settings.arena == "box" else _cylinder)(settings, tasks)
    if tasks.starts is not None:
        expected = (settings.agents, settings.dimension)
        if tasks.starts.shape[1:] != expected:
            raise InvalidSettings(f"starts of a task must have shape {expected}, but have {tasks.starts.shape[1:]}")
        given = np.moveaxis(tasks.starts, 0, -1).swapaxes(0, 1)
        drawn = np.isnan(tasks.starts).all(axis=(1, 2))
        starts.agents[:] = np.where(drawn, starts.agents, given)
    return starts


def _box(settings: PursuitSettings, tasks: PursuitTasks) -> PursuitStarts:
    dimension, n = settings.dimension, len(tasks)
    shares = np.empty((n, settings.agents + settings.obstacles, dimension))
    turns = np.empty((n, settings.turns, settings.obstacles, dimension))
    for world, seed in enumerate(tasks.seeds.tolist()):
        rng = np.random.default_rng(seed)
        shares[world] = rng.random(shares.shape[1:])
        turns[world] = rng.standard_normal(turns.shape[1:])
    turns /= np.linalg.norm(turns, axis=-1, keepdims=True)
    places = 2 * tasks.half_size[:, None, None] * shares
    places[..., :2] -= tasks.half_size[:, None, None]
    return PursuitStarts(
        _worlds_last(places[:, : settings.agents]),
        _worlds_last(places[:, settings.agents :]),
        np.zeros((settings.obstacles, n), np.float32),
        np.ascontiguousarray(turns.transpose(1, 3, 2, 0), np.float32),
    )


def _worlds_last(array: NDArray[Any]) -> NDArray[np.float32]:
    return np.ascontiguousarray(array.transpose(2, 1, 0), np.float32)


def _cylinder(settings: PursuitSettings, tasks: PursuitTasks) -> PursuitStarts:
    n, count = len(tasks), settings.obstacles
    rngs = [np.random.default_rng(seed) for seed in tasks.seeds.tolist()]
    blocks, high = np.zeros((n, count, 2), np.intp), np.zeros((n, count), bool)
    stand, cells = np.zeros((n, count), bool), np.zeros((n, settings.agents, 2), np.intp)
    pending = np.arange(n)
    for _ in range(_MOST_ATTEMPTS):
        for world in pending.tolist():
            blocks[world], high[world], stand[world], cells[world] = _attempt(settings, rngs[world])
        blocked = outside_cells() | _occupied(blocks[pending], (high & stand)[pending])
        reached = reachable(blocked, cells[pending, -1])
        found = reached[np.arange(len(pending))[:, None], cells[pending, :, 0], cells[pending, :, 1]].all(axis=1)
        pending = pending[~found]
        if not len(pending):
            break
    else:
        raise InvalidSettings(f"no start state with free paths was found for the task {tasks[int(pending[0])]}")
    unit = tasks.half_size[:, None, None]
    places = np.empty((n, settings.agents, settings.dimension))
    places[..., :2] = ((cells + 0.5) * (2 / ARENA_CELLS) - 1) * unit
    height = 4 / 3 * tasks.half_size[:, None]
    feet = np.zeros((n, count, settings.dimension))
    feet[..., :2] = (blocks - 1) * (2 / 3) * unit
    if settings.dimension == 3:
        shares = np.array([rng.random(settings.agents) for rng in rngs]).reshape(n, settings.agents)
        places[..., 2] = 0.02 + shares * (height - 0.04)
    tops = np.where(stand, height * np.where(high, 1.0, 0.5), -1.0)
    turns = np.zeros((settings.turns, settings.dimension, count, n), np.float32)
    return PursuitStarts(_worlds_last(places), _worlds_last(feet), tops.T.astype(np.float32), turns)


def _attempt(settings: PursuitSettings, rng: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """Blocks of posts, which of them are high, which stand, and cells of the agents."""
    count = settings.obstacles
    least = count if settings.fewest_obstacles is None else settings.fewest_obstacles
    stand = np.arange(count) < rng.integers(least, count + 1)
    blocks = _PLACES[rng.permutation(len(_PLACES))[:count]]
    high = rng.random(count) < 0.5 if settings.dimension == 3 else np.ones(count, bool)
    free = np.argwhere(~(outside_cells() | _occupied(blocks[None], stand[None])[0]))
    return blocks, high, stand, free[rng.permutation(len(free))[: settings.agents]]


def outside_cells() -> NDArray[np.bool_]:
    """Cells of the grid whose middle is too near to the wall of a cylinder arena or outside of it, ``(12, 12)``."""
    middles = np.arange(ARENA_CELLS) + 0.5 - ARENA_CELLS / 2
    # The authors list these cells one by one; they are those beyond 14/15 of the radius.
    return np.hypot(middles[:, None], middles) > ARENA_CELLS / 2 * (14 / 15)


def _occupied(blocks: NDArray[np.intp], counts: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells under posts, shape ``(n, 12, 12)``."""
    coarse = np.zeros((len(blocks), ARENA_CELLS // _POST, ARENA_CELLS // _POST), bool)
    world, post = np.nonzero(counts)
    coarse[world, blocks[world, post, 0], blocks[world, post, 1]] = True
    return coarse.repeat(_POST, axis=1).repeat(_POST, axis=2)


def reachable(blocked: NDArray[np.bool_], start: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Which cells of many grids a walk from ``start`` over sides of free cells reaches: breadth first, all at once.

    Arguments:
        blocked: shape ``(n, a, b)``.
        start: row and column per grid, shape ``(n, 2)``; counts as reached even where it is blocked.

    Example:
        >>> wall = np.zeros((1, 3, 3), bool)
        >>> wall[0, :, 1] = True
        >>> reachable(wall, np.array([[0, 0]]))[0].astype(int).tolist()
        [[1, 0, 0], [1, 0, 0], [1, 0, 0]]
    """
    padded = np.zeros((len(blocked), blocked.shape[1] + 2, blocked.shape[2] + 2), bool)
    inner = padded[:, 1:-1, 1:-1]
    inner[np.arange(len(blocked)), start[:, 0], start[:, 1]] = True
    known = -1
    while known != (known := int(inner.sum())):
        near = padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]
        inner |= near & ~blocked
    return inner.copy()
