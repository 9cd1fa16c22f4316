"""Layouts of a many-agent navigation: where agents start, how fast, where goals and pillars are; the authors' own."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, final, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.arguments import instance, numbers, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.pursuit_tasks import split_seeds

__all__ = ["NavigationLayout", "NavigationLayouts", "authors_layouts", "random_layouts"]

Floats = NDArray[np.float64]

#: Gaps that starts, goals and pillars keep, in m, and how often a place is drawn before a layout is given up.
_CLEAR, _TRIES = 0.05, 400
#: Goals lie so far apart that no agent occupies two of them.
_GOALS_APART = 2.0
#: What the authors' files are divided by when they are read (MAGE-X).
_AUTHORS_SCALE = 1.5


class NavigationLayout(NamedTuple):
    """One layout, as the payload of a case: starts, velocities, goals and pillars as nested tuples, and a seed."""

    starts: tuple[tuple[float, ...], ...]
    velocities: tuple[tuple[float, ...], ...]
    goals: tuple[tuple[float, ...], ...]
    pillars: tuple[tuple[float, ...], ...]
    seed: int


@final
@dataclass(frozen=True, eq=False)
class NavigationLayouts(Sequence[NavigationLayout]):
    """Many layouts of one size as arrays; as a sequence it is the payload of cases.

    Arguments:
        starts: in m, shape ``(n, agents, dimension)``.
        velocities: at the start, in m/s, of the same shape.
        goals: in m, of the same shape.
        pillars: centers, in m, shape ``(n, pillars, dimension)``.
        seeds: of all chance, shape ``(n,)``, whole numbers from 0.

    Raises:
        InvalidSettings: shapes that do not fit, or numbers that are not finite.

    Example:
        >>> layouts = random_layouts(NavigationSettings(), 5, 3, np.random.default_rng(0))
        >>> layouts.agents, layouts.goals.shape, len(layouts.take([2, 0]))
        (5, (3, 5, 2), 2)
    """

    starts: Floats
    velocities: Floats
    goals: Floats
    pillars: Floats
    seeds: NDArray[np.int64]

    def __init__(
        self, starts: ArrayLike, velocities: ArrayLike, goals: ArrayLike, pillars: ArrayLike, seeds: ArrayLike
    ) -> None:  # fmt: skip
        worlds = numbers("seeds", seeds, np.int64)
        given = {"starts": starts, "velocities": velocities, "goals": goals, "pillars": pillars}
        arrays = {name: numbers(name, value) for name, value in given.items()}
        shape = arrays["starts"].shape
        alike = all(arrays[name].shape == shape for name in ("velocities", "goals"))
        posts = arrays["pillars"].shape
        fit = len(shape) == len(posts) == 3 and posts[::2] == shape[::2] and worlds.shape == shape[:1]
        if not (alike and fit):
            told = {name: array.shape for name, array in arrays.items()}
            raise InvalidSettings(
                "layouts need starts, velocities and goals (n, agents, dimension), pillars (n, pillars, dimension) and "
                f"seeds (n,), but got {told} and {worlds.shape}"
            )
        if not all(np.isfinite(array).all() for array in arrays.values()) or (worlds < 0).any():
            raise InvalidSettings("a layout's numbers must be finite and its seed at least 0")
        for name, value in (*arrays.items(), ("seeds", worlds)):
            object.__setattr__(self, name, value)

    @classmethod
    def of(cls, layouts: Sequence[NavigationLayout] | NavigationLayouts) -> NavigationLayouts:
        """Layouts from single ones, such as the payload of cases.

        Raises:
            InvalidSettings: they are none, or of several sizes.
        """
        if isinstance(layouts, NavigationLayouts):
            return layouts
        if not layouts or not all(isinstance(one, NavigationLayout) for one in layouts):
            raise InvalidSettings("these are no layouts; take the cases of NavigationLayouts(…) or of a Navigation")
        if len({np.shape(one.starts) for one in layouts}) > 1:
            raise InvalidSettings("layouts of one call must have as many agents each; evaluate team sizes one by one")
        width = len(layouts[0].starts[0])
        pillars = np.array([one.pillars for one in layouts], np.float64).reshape(len(layouts), -1, width)
        starts, velocities, goals = (np.array([one[i] for one in layouts], np.float64) for i in range(3))
        return cls(starts, velocities, goals, pillars, np.array([one.seed for one in layouts], np.int64))

    @property
    def agents(self) -> int:
        """Agents of a layout, and goals."""
        return self.starts.shape[1]

    def __len__(self) -> int:
        return len(self.starts)

    @overload
    def __getitem__(self, index: int) -> NavigationLayout: ...
    @overload
    def __getitem__(self, index: slice) -> NavigationLayouts: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        parts = (self.starts, self.velocities, self.goals, self.pillars)
        starts, velocities, goals, pillars = (tuple(map(tuple, part[index].tolist())) for part in parts)
        return NavigationLayout(starts, velocities, goals, pillars, int(self.seeds[index]))

    def __iter__(self) -> Iterator[NavigationLayout]:
        return (self[index] for index in range(len(self)))

    def take(self, rows: ArrayLike) -> NavigationLayouts:
        """The layouts at these positions, in this order."""
        at = np.asarray(rows, np.intp)
        return NavigationLayouts(
            self.starts[at], self.velocities[at], self.goals[at], self.pillars[at], self.seeds[at]
        )  # fmt: skip

    def cases(self) -> Cases:
        """These layouts as cases; an id says all that decides a world.

        Raises:
            InvalidSettings: a layout is there twice.
        """
        return Cases(tuple(self._name(index) for index in range(len(self))), self)

    def _name(self, index: int) -> str:
        digest = hashlib.blake2b(digest_size=10)
        for part in (self.starts, self.velocities, self.goals, self.pillars):
            digest.update((part[index] + 0.0).tobytes())
        return f"{self.agents} agents {digest.hexdigest()} #{self.seeds[index]}"


def random_layouts(
    settings: NavigationSettings, agents: int, n: int, rng: np.random.Generator, *, split: Split = Split.SEARCH
) -> NavigationLayouts:  # fmt: skip
    """``n`` layouts drawn uniformly in the box of so many agents, with fresh seeds of the split.

    Starts are a diameter and a bit apart, goals so far that no agent occupies two, both off the pillars.

    Raises:
        InvalidSettings: the box is too full.
    """
    instance("settings", settings, NavigationSettings, "NavigationSettings(…)")
    instance("rng", rng, np.random.Generator, "a numpy Generator")
    agents, n = whole_number("agents", agents, 1, 10_000), whole_number("n", n, 0, 10**7)
    side, size = settings.side(agents), settings.dimension
    half = side / 2
    none = np.empty((n, 0, size))
    beside = settings.pillar_radius + settings.touch / 2 + _CLEAR
    pillars = _scattered(rng, none, 0.0, settings.posts(agents), half, 2 * beside + settings.touch)
    starts = _scattered(rng, pillars, beside, agents, half, settings.touch + _CLEAR)
    goals = _scattered(rng, pillars, beside, agents, half, _GOALS_APART * settings.reached + 1e-3)
    ways = rng.standard_normal((n, agents, size))
    ways /= np.linalg.norm(ways, axis=-1, keepdims=True)
    velocities = settings.start_speed * ways * rng.random((n, agents, 1)) ** (1 / size)
    return NavigationLayouts(starts, velocities, goals, pillars, split_seeds(split, rng, n))


def _scattered(
    rng: np.random.Generator, posts: Floats, beside: float, count: int, half: float, apart: float
) -> Floats:  # fmt: skip
    """``count`` places per world, ``apart`` from each other and ``beside`` from the posts ``(n, posts, dimension)``."""
    n, _, size = posts.shape
    places: Floats = np.empty((n, 0, size))
    for _ in range(count):
        fresh = np.empty((n, size))
        missing: NDArray[np.intp] = np.arange(n)
        for _ in range(_TRIES):
            fresh[missing] = rng.uniform(-half, half, (len(missing), size))
            near = np.linalg.norm(places[missing] - fresh[missing, None], axis=-1) < apart
            on = np.linalg.norm(posts[missing] - fresh[missing, None], axis=-1) < beside
            missing = missing[near.any(axis=1) | on.any(axis=1)]
            if not len(missing):
                break
        if len(missing):
            raise InvalidSettings(
                f"no room was found for {count} places {apart:g} m apart in a box of {2 * half:g} m; take a smaller "
                "density, fewer pillars or smaller radii"
            )
        places = np.concatenate([places, fresh[:, None]], axis=1)
    return places


def authors_layouts(folder: str | os.PathLike[str], agents: int) -> NavigationLayouts:
    """The fixed layouts of MAGE-X, read from its text files: starts and goals of 20 or 50 agents, all at rest.

    https://github.com/yang-xy20/mage-x (MIT); the environment divides the coordinates by 1.5.

    Arguments:
        folder: with ``20agent_simple_spread_map_0.txt`` (starts) and ``…_land_0.txt`` (goals) and so on.
        agents: of the layouts.

    Raises:
        InvalidSettings: there are none of this size.
    """
    found = sorted(Path(folder).glob(f"{agents}agent_simple_spread_map_*.txt"))
    if not found:
        missing = f"{agents}agent_simple_spread_map_*.txt"
        raise InvalidSettings(f"there are no layouts of {agents} agents in {folder} ({missing})")
    starts = np.array([np.loadtxt(file) for file in found]) / _AUTHORS_SCALE
    goals = np.array([np.loadtxt(file.with_name(file.name.replace("_map_", "_land_"))) for file in found])
    return NavigationLayouts(
        starts, np.zeros_like(starts), goals / _AUTHORS_SCALE, np.empty((len(starts), 0, 2)), np.arange(len(starts))
    )
