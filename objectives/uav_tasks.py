"""Tasks of a multi-UAV pursuit: starts and cylinders as vectors, OPEN's uniform generator, its four scenarios."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.arguments import numbers, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.pursuit_tasks import split_seeds
from searchlib.objectives.uav_settings import CYLINDERS, DRONES
from searchlib.space import Population
from searchlib.spaces import CurriculumTasks

__all__ = [
    "SCENARIOS", "UAV_AXES", "UavTask", "UavTaskSpace", "UavTasks", "free_starts", "scenario_tasks", "uniform_tasks",
]  # fmt: skip

Floats = NDArray[np.float64]

#: The axes of a task vector: starts of the drones and the evader, then the axes of the cylinders from above.
UAV_AXES = (
    *(f"drone {i} {axis}" for i in range(DRONES) for axis in "xyz"),
    *(f"evader {axis}" for axis in "xyz"),
    *(f"cylinder {i} {axis}" for i in range(CYLINDERS) for axis in "xy"),
)
_AGENTS = 3 * (DRONES + 1)
#: Where a cylinder that does not stand is noted: a corner of the grid, outside of the arena.
_AWAY = 0.8
#: Distances from the axis of the arena, from cylinders' axes and between drones that a start keeps, in m.
_REACH, _POST, _APART = 0.83, 0.2, 0.2
#: The uniform generator (``HideAndSeek_envgen.yaml``): sides of drones and evader, breadth, heights; its grid.
_SIDE, _BREADTH, _HEIGHTS = (0.1, 0.536), 0.536, (0.5, 0.7)
_GRID = np.stack(np.meshgrid(np.arange(-4, 5) * 0.2, np.arange(-4, 5) * 0.2, indexing="ij"), -1).reshape(-1, 2)
_CELLS = _GRID[np.hypot(*_GRID.T) <= 0.8 + 1e-9]
_FEWEST, _MOST = 4, 5
_TRIES = 200


def _posts(*places: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    return places + ((_AWAY, _AWAY),) * (CYLINDERS - len(places))


@final
@dataclass(frozen=True)
class _Scenario:
    drones: tuple[tuple[float, float], ...]
    evader: tuple[float, float]
    cylinders: tuple[tuple[float, float], ...]
    height: float = 0.5

    @property
    def vector(self) -> Floats:
        starts = np.array([*self.drones, self.evader])
        agents = np.concatenate([starts, np.full((len(starts), 1), self.height)], axis=1)
        return np.concatenate([agents.ravel(), np.ravel(self.cylinders)])


#: The four scenarios of the authors' evaluation (``hideandseek.py``).
SCENARIOS: Mapping[str, _Scenario] = {
    "wall": _Scenario(
        ((0.6, 0.4), (0.6, 0.0), (0.6, -0.4)), (-0.8, 0.0), _posts((0, 0.15), (0, -0.15), (0, 0.45), (0, -0.45))
    ),
    "narrow gap": _Scenario(
        ((0.0, 0.7), (0.2, 0.7), (-0.2, 0.7)), (-0.5, 0.2),
        _posts((0.3, 0.3), (0.3, -0.3), (-0.3, 0.3), (-0.3, -0.3), (0, 0.3)),
    ),
    "random": _Scenario(
        ((0.6, 0.0), (0.8, 0.0), (0.8, -0.2)), (-0.8, 0.0),
        _posts((0.6, 0.4), (-0.6, 0.4), (-0.2, 0.4), (0, 0.2), (-0.2, -0.4), (0, -0.2)),
    ),
    "passage": _Scenario(
        ((0.6, 0.0), (0.8, 0.2), (0.8, -0.2)), (0.0, 0.6),
        _posts((0, 0.3), (0.2, 0.3), (-0.2, 0.3), (0, -0.2), (0.2, -0.2), (-0.2, -0.2)),
    ),
}  # fmt: skip


class UavTask(NamedTuple):
    """One task, as the payload of a case: a vector along :data:`UAV_AXES` and a seed for the evader's gains."""

    vector: tuple[float, ...]
    seed: int


@final
@dataclass(frozen=True, eq=False)
class UavTasks(Sequence[UavTask]):
    """Many tasks as arrays; as a sequence it is the payload of cases.

    Arguments:
        vectors: shape ``(n, 24)``, columns as in :data:`UAV_AXES`, in m.
        seeds: shape ``(n,)``, whole numbers from 0.

    Raises:
        InvalidSettings: shapes that do not fit, or numbers that are not finite.

    Example:
        >>> tasks = scenario_tasks("wall", 3, seed=1)
        >>> tasks.drones.shape, tasks.evader.shape, int(tasks.stands[0].sum())
        ((3, 3, 3), (3, 3), 4)
    """

    vectors: Floats
    seeds: NDArray[np.int64]

    def __init__(self, vectors: ArrayLike, seeds: ArrayLike) -> None:
        rows, worlds = numbers("vectors", vectors), numbers("seeds", seeds, np.int64)
        if rows.ndim != 2 or rows.shape[1] != len(UAV_AXES) or worlds.shape != (len(rows),):
            raise InvalidSettings(
                f"tasks need vectors (n, {len(UAV_AXES)}) and seeds (n,), but got {rows.shape} and {worlds.shape}"
            )
        if not np.isfinite(rows).all() or (worlds < 0).any():
            raise InvalidSettings("a task's numbers must be finite and its seed at least 0")
        object.__setattr__(self, "vectors", rows)
        object.__setattr__(self, "seeds", worlds)

    @classmethod
    def of(cls, tasks: Sequence[UavTask] | UavTasks) -> UavTasks:
        """Tasks from single ones, such as the payload of cases."""
        if isinstance(tasks, UavTasks):
            return tasks
        if not all(isinstance(task, UavTask) for task in tasks):
            raise InvalidSettings("these are no tasks of a UavPursuit; take the cases of UavTasks(…).cases()")
        vectors = np.array([task.vector for task in tasks], np.float64).reshape(-1, len(UAV_AXES))
        return cls(vectors, np.array([task.seed for task in tasks], np.int64))

    @property
    def drones(self) -> Floats:
        """Starts, shape ``(n, drones, 3)``."""
        return self.vectors[:, : 3 * DRONES].reshape(-1, DRONES, 3)

    @property
    def evader(self) -> Floats:
        """Starts, shape ``(n, 3)``."""
        return self.vectors[:, 3 * DRONES : _AGENTS]

    @property
    def cylinders(self) -> Floats:
        """Axes from above, shape ``(n, cylinders, 2)``; those that do not stand lie outside of the arena."""
        return self.vectors[:, _AGENTS:].reshape(-1, CYLINDERS, 2)

    @property
    def stands(self) -> NDArray[np.bool_]:
        """Which cylinders stand, shape ``(n, cylinders)``."""
        return np.hypot(self.cylinders[..., 0], self.cylinders[..., 1]) < _REACH

    def gains(self, spread: float) -> Floats:
        """Factors of the forces on the evader, shape ``(n, 4)``: log-uniform in [1/spread, spread], by the seeds."""
        draws = np.array([np.random.default_rng(seed).random(4) for seed in self.seeds.tolist()]).reshape(-1, 4)
        return np.asarray(spread ** (2 * draws - 1))

    def __len__(self) -> int:
        return len(self.vectors)

    @overload
    def __getitem__(self, index: int) -> UavTask: ...
    @overload
    def __getitem__(self, index: slice) -> UavTasks: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return UavTask(tuple(self.vectors[index].tolist()), int(self.seeds[index]))

    def __iter__(self) -> Iterator[UavTask]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: ArrayLike) -> UavTasks:
        """The tasks at these positions, in this order."""
        places = np.asarray(rows, np.intp)
        return UavTasks(self.vectors[places], self.seeds[places])

    def cases(self) -> Cases:
        """These tasks as cases; an id says all that decides a world.

        Raises:
            InvalidSettings: a task is there twice.
        """
        return Cases(tuple(map(_name, self.vectors, self.seeds.tolist())), self)


def _name(vector: Floats, seed: int) -> str:
    return f"{hashlib.blake2b((vector + 0.0).tobytes(), digest_size=10).hexdigest()} #{seed}"


@dataclass(frozen=True)
class UavTaskSpace(CurriculumTasks):
    """Tasks for a curriculum: OPEN's uniform generator, and its expansion, which moves starts but no cylinders.

    Example:
        >>> space = UavTaskSpace.default()
        >>> rows = space.sample(np.random.default_rng(0), 5)
        >>> bool(space.contains(rows).all()), bool((space.near(np.random.default_rng(1), rows, 0.05) != rows).any())
        (True, True)
    """

    @classmethod
    def default(cls) -> UavTaskSpace:
        """All starts that the expansion may reach, and all cells of the grid."""
        agents = ((-_AWAY, _AWAY), (-_AWAY, _AWAY), (0.3, 0.9)) * (DRONES + 1)
        low, high = zip(*agents, *((-_AWAY, _AWAY),) * (2 * CYLINDERS), strict=True)
        return cls(UAV_AXES, low, high)

    def valid(self, rows: Population) -> NDArray[np.bool_]:
        """Those with free starts (:func:`free_starts`)."""
        return free_starts(rows)

    @property
    def middle(self) -> Floats:
        """The scenario with a wall."""
        return SCENARIOS["wall"].vector

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        """Tasks as OPEN's uniform generator draws them."""
        rows = _drawn(rng, n)
        for _ in range(_TRIES):
            bad = np.flatnonzero(~free_starts(rows))
            if not len(bad):
                break
            rows[bad] = _drawn(rng, len(bad))
        rows[~free_starts(rows)] = self.middle
        return rows

    def near(self, rng: np.random.Generator, rows: Population, width: float) -> Population:
        """Starts moved uniformly by up to ``width`` of 1.8 m, the arena's diameter, in every coordinate."""
        moved = np.array(rows)
        missing: NDArray[np.intp] = np.arange(len(rows))
        for _ in range(10):
            shifts = rng.uniform(-1.8 * width, 1.8 * width, (len(missing), _AGENTS))
            moved[missing, :_AGENTS] = np.clip(
                rows[missing, :_AGENTS] + shifts, self.low[:_AGENTS], self.high[:_AGENTS]
            )
            missing = missing[~free_starts(moved[missing])]
            if not len(missing):
                return moved
        moved[missing] = rows[missing]
        return moved


def free_starts(rows: Population) -> NDArray[np.bool_]:
    """Which vectors ``(n, 24)`` start everybody inside, off the cylinders, and the drones apart, shape ``(n,)``."""
    tasks = UavTasks(rows, np.zeros(len(rows), np.int64))
    agents = rows[:, :_AGENTS].reshape(-1, DRONES + 1, 3)
    inside = (np.hypot(agents[..., 0], agents[..., 1]) <= _REACH).all(axis=1)
    beside = agents[:, :, None, :2] - tasks.cylinders[:, None]
    off = ((np.hypot(beside[..., 0], beside[..., 1]) >= _POST) | ~tasks.stands[:, None]).all(axis=(1, 2))
    first, second = np.triu_indices(DRONES, 1)
    between = tasks.drones[:, first] - tasks.drones[:, second]
    return np.asarray(inside & off & (np.linalg.norm(between, axis=-1) >= _APART).all(axis=1))


def _drawn(rng: np.random.Generator, n: int) -> Population:
    """``n`` vectors as the uniform generator draws them: starts first, then cylinders on cells off all of them."""
    agents = rng.uniform(-_BREADTH, _BREADTH, (n, DRONES + 1, 3))
    agents[..., 0] = rng.uniform(*_SIDE, (n, DRONES + 1))
    agents[:, -1, 0] *= -1
    agents[..., 2] = rng.uniform(*_HEIGHTS, (n, DRONES + 1))
    beside = agents[:, :, None, :2] - _CELLS
    free = (np.hypot(beside[..., 0], beside[..., 1]) >= _POST).all(axis=1)
    order = np.argsort(np.where(free, rng.random(free.shape), 2.0), axis=1)[:, :_MOST]
    cylinders = np.full((n, CYLINDERS, 2), _AWAY)
    cylinders[:, :_MOST] = _CELLS[order]
    fewer = rng.integers(_FEWEST, _MOST + 1, n)
    cylinders[:, :_MOST][np.arange(_MOST) >= fewer[:, None]] = _AWAY
    return np.concatenate([agents.reshape(n, _AGENTS), cylinders.reshape(n, 2 * CYLINDERS)], axis=1)


def uniform_tasks(rng: np.random.Generator, n: int, *, split: Split = Split.SEARCH) -> UavTasks:
    """``n`` tasks of the uniform generator, with fresh seeds of the split."""
    return UavTasks(UavTaskSpace.default().sample(rng, n), split_seeds(split, rng, n))


def scenario_tasks(
    name: str, n: int, *, seed: int = 0, shift: float = 0.1, split: Split = Split.HOLDOUT
) -> UavTasks:  # fmt: skip
    """``n`` copies of a scenario, with starts moved by up to ``shift`` m in every coordinate into free space.

    Arguments:
        name: one of :data:`SCENARIOS`.
        n: how many.
        seed: decides shifts and the evaders' gains.
        shift: 0 leaves the starts where the authors put them.
        split: whose seeds they get.

    Raises:
        InvalidSettings: an unknown name.

    Example:
        >>> len(scenario_tasks("passage", 4)), scenario_tasks("random", 1, shift=0).drones[0, 1].tolist()
        (4, [0.8, 0.0, 0.5])
    """
    if name not in SCENARIOS:
        raise InvalidSettings(f"the scenarios are {', '.join(SCENARIOS)}, but {name!r} was asked for")
    count = whole_number("n", n, 0)
    rng = np.random.default_rng([whole_number("seed", seed, 0), list(SCENARIOS).index(name), list(Split).index(split)])
    rows = np.tile(SCENARIOS[name].vector, (count, 1))
    missing: NDArray[np.intp] = np.arange(count)
    for _ in range(_TRIES):
        moved = SCENARIOS[name].vector[:_AGENTS] + rng.uniform(-shift, shift, (len(missing), _AGENTS))
        rows[missing, :_AGENTS] = moved
        missing = missing[~free_starts(rows[missing])]
        if not len(missing):
            break
    rows[missing] = SCENARIOS[name].vector
    return UavTasks(rows, split_seeds(split, rng, count))
