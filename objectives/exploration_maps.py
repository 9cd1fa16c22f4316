"""Buildings to explore: floor plans from images of a stated resolution, and a generator of rooms, halls and caves."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.arguments import instance, numbers, shown, whole_number
from searchlib.errors import InvalidSettings, MissingDependency

__all__ = ["KINDS", "FloorPlan", "generated_plan", "load_floor_plan"]

#: What :func:`generated_plan` makes.
KINDS = ("rooms", "offices", "halls", "caves")
#: Gray levels from which a pixel is free: walls are dark, and what a mapping robot did not know is gray.
_FREE = 230


@final
@dataclass(frozen=True, eq=False)
class FloorPlan:
    """A building as a grid: where walls are, and how large a cell is.

    Only what can be reached counts: the largest connected area of free cells (four neighbors). All else is wall, and so
    is the border, so that nothing leaves the grid.

    Arguments:
        name: what rows of tables call it.
        walls: shape ``(height, width)``, true where nothing can go or see through.
        cell: edge of a cell, in m.

    Raises:
        InvalidSettings: no matrix, a cell without size, or no free cell.

    Example:
        >>> plan = FloorPlan("two rooms", [[0, 0, 1, 0, 0, 0]])
        >>> plan.walls.astype(int).tolist(), plan.free
        ([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], 3)
    """

    name: str
    walls: NDArray[np.bool_]
    cell: float = 0.35

    def __init__(self, name: str, walls: ArrayLike, cell: float = 0.35) -> None:
        instance("name", name, str, "a text")
        given = numbers("walls", walls).astype(bool)
        if given.ndim != 2 or given.all():
            raise InvalidSettings(f"walls must be a matrix with free cells, but {name!r} has shape {given.shape}")
        if not isinstance(cell, int | float | np.floating) or not 0 < cell < 1e6:
            raise InvalidSettings(f"cell must be a positive number of meters, but is {shown(cell)}")
        area = _largest_area(~given)
        rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
        inside = area[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        object.__setattr__(self, "name", str(name))
        object.__setattr__(self, "walls", np.pad(~inside, 1, constant_values=True))
        object.__setattr__(self, "cell", float(cell))

    @property
    def free(self) -> int:
        """How many cells can be reached."""
        return int((~self.walls).sum())

    @cached_property
    def digest(self) -> str:
        """A short fingerprint of the walls."""
        told = repr(self.walls.shape).encode() + np.packbits(self.walls).tobytes()
        return hashlib.blake2b(told, digest_size=6).hexdigest()

    def starts(self, seed: int, agents: int) -> NDArray[np.int32]:
        """Where a team begins: a random free cell and those next to it by path, shape ``(agents, 2)``.

        Raises:
            InvalidSettings: more agents than free cells.
        """
        free = np.argwhere(~self.walls)
        if agents > len(free):
            raise InvalidSettings(f"{self.name} has {len(free)} free cells, too few for {agents} agents")
        first = tuple(free[np.random.default_rng(seed).integers(len(free))].tolist())
        found, place = [first], 0
        while len(found) < agents:
            row, column = found[place]
            place += 1
            for near in ((row, column + 1), (row + 1, column), (row, column - 1), (row - 1, column)):
                if not self.walls[near] and near not in found:
                    found.append(near)
        return np.array(found[:agents], np.int32)


def _largest_area(free: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    labels, _ = ndimage.label(free)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return np.asarray(labels == sizes.argmax())


def load_floor_plan(
    path: str | os.PathLike[str], *, resolution: float, cell: float, name: str | None = None, free: int = _FREE
) -> FloorPlan:  # fmt: skip
    """A floor plan from an image: a cell is free where nine tenths of its pixels are.

    Arguments:
        path: a PNG, a PGM, or whatever pillow reads; dark is wall.
        resolution: meters per pixel.
        cell: meters per cell, at least as much. Doors should be two cells wide or more.
        name: by default that of the file.
        free: gray level from which a pixel is free, in [1, 255].

    Raises:
        MissingDependency: pillow is not installed.
        InvalidSettings: no image, cells smaller than pixels, or no free cell.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError as error:
        raise MissingDependency("floor plans need pillow: pip install 'searchlib[report]'") from error
    if not 0 < resolution <= cell:
        raise InvalidSettings(
            f"a cell must be at least as large as a pixel, but cell={cell!r} and resolution={resolution!r}"
        )
    file = Path(path)
    try:
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("L"))
    except (FileNotFoundError, UnidentifiedImageError) as error:
        raise InvalidSettings(f"a floor plan must be an image that pillow reads, but {file} is none") from error
    share = _averaged((pixels >= free).astype(np.float64), cell / resolution)
    return FloorPlan(file.stem if name is None else name, share < 0.9, cell)


def _averaged(pixels: NDArray[np.float64], size: float) -> NDArray[np.float64]:
    """Means over squares ``size`` pixels wide, whole or not; pixels count for the square that their middle is in."""
    height, width = pixels.shape
    to_row = ((np.arange(height) + 0.5) / size).astype(int)
    to_column = ((np.arange(width) + 0.5) / size).astype(int)
    cells = to_row[:, None] * (to_column[-1] + 1) + to_column
    sums = np.bincount(cells.ravel(), pixels.ravel())
    means = sums / np.maximum(np.bincount(cells.ravel()), 1)
    return np.asarray(means.reshape(to_row[-1] + 1, to_column[-1] + 1))


def generated_plan(kind: str, seed: int, *, height: int = 60, width: int = 90, cell: float = 0.35) -> FloorPlan:
    """A building that a generator draws; the same for the same seed.

    Arguments:
        kind: ``"rooms"`` (rooms in rooms, with doors), ``"offices"`` (cells along corridors), ``"halls"`` (few walls,
            many pillars) or ``"caves"`` (cellular automaton).
        seed: another seed is another building.
        height, width: of the grid before what nobody can reach is cut off, in cells, at least 20.
        cell: edge of a cell, in m.

    Raises:
        InvalidSettings: an unknown kind, or a grid that is too small.

    Example:
        >>> plan = generated_plan("rooms", 3)
        >>> plan.name, plan.walls.shape[0] <= 62, plan.free > 1000
        ('rooms 3', True, True)
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise InvalidSettings(f"kind must be one of {', '.join(KINDS)}, but is {shown(kind)}")
    tall, wide = whole_number("height", height, 20, 10_000), whole_number("width", width, 20, 10_000)
    rng = np.random.default_rng([whole_number("seed", seed, 0), KINDS.index(kind)])
    make = {"rooms": _rooms, "offices": _offices, "halls": _halls, "caves": _caves}[kind]
    for _ in range(50):
        walls = make(rng, tall, wide)
        if _largest_area(~walls).sum() >= 0.3 * walls.size:
            break
    return FloorPlan(f"{kind} {seed}", walls, cell)


def _rooms(rng: np.random.Generator, height: int, width: int) -> NDArray[Any]:
    """Halves of halves, with one or two doors in every wall."""
    walls = np.zeros((height, width), bool)
    least = int(rng.integers(8, 14))

    def split(top: int, left: int, bottom: int, right: int) -> None:
        tall, wide = bottom - top, right - left
        if max(tall, wide) < 2 * least + 1 or (max(tall, wide) < 3 * least and rng.random() < 0.15):
            return
        along = wide >= tall
        length = wide if along else tall
        place = int(rng.integers(least, length - least + 1)) + (left if along else top)
        _wall(rng, walls, place, (top, bottom) if along else (left, right), along)
        if along:
            split(top, left, bottom, place)
            split(top, place + 1, bottom, right)
        else:
            split(top, left, place, right)
            split(place + 1, left, bottom, right)

    split(0, 0, height, width)
    return _furnished(rng, walls)


def _wall(
    rng: np.random.Generator, walls: NDArray[np.bool_], place: int, ends: tuple[int, int], upright: bool
) -> None:  # fmt: skip
    """A wall with doors two or three cells wide."""
    line = walls[ends[0] : ends[1], place] if upright else walls[place, ends[0] : ends[1]]
    line[:] = True
    for _ in range(1 + int(rng.random() < 0.35)):
        wide = int(rng.integers(2, 4))
        at = int(rng.integers(0, max(1, len(line) - wide + 1)))
        beside = slice(at, at + wide)
        line[beside] = False
        # A wall that ends at the door of another one would close it.
        for side in (place - 1, place + 1):
            other = walls[:, side] if upright else walls[side]
            other[ends[0] + at : ends[0] + at + wide] = False


def _furnished(rng: np.random.Generator, walls: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Some things stand around."""
    height, width = walls.shape
    for _ in range(int(rng.integers(0, 14))):
        row, column = int(rng.integers(1, height - 3)), int(rng.integers(1, width - 3))
        walls[row : row + int(rng.integers(1, 4)), column : column + int(rng.integers(1, 4))] = True
    return walls


def _offices(rng: np.random.Generator, height: int, width: int) -> NDArray[Any]:
    """Parallel corridors with cells on both sides, joined by cross-corridors."""
    walls = np.zeros((height, width), bool)
    depth, hall = int(rng.integers(7, 12)), int(rng.integers(3, 5))
    top = 0
    while top < height:
        for upper in (True, False):
            first, last = (top, top + depth) if upper else (top + depth + hall + 2, top + 2 * depth + hall + 2)
            if first >= height:
                break
            wall = last if upper else first - 1
            if wall < height:
                walls[wall] = True
            walls[min(height - 1, last if not upper else first - 1), :] |= not upper or first > 0
            column = 0
            while column < width:
                wide = int(rng.integers(6, 13))
                end = min(column + wide, width)
                if end < width:
                    walls[first : min(last, height), end] = True
                if wall < height and end - column > 3 and rng.random() < 0.93:
                    door = int(rng.integers(column + 1, max(column + 2, end - 2)))
                    walls[wall, door : door + 2] = False
                column = end + 1
        top += 2 * depth + hall + 3
    for _ in range(int(rng.integers(1, 4))):
        column = int(rng.integers(2, width - 5))
        walls[:, column : column + 3] = False
    return _furnished(rng, walls)


def _halls(rng: np.random.Generator, height: int, width: int) -> NDArray[Any]:
    """A few long walls that end somewhere, and pillars."""
    walls = np.zeros((height, width), bool)
    for _ in range(int(rng.integers(4, 10))):
        length = int(rng.integers(8, max(9, min(height, width) * 2 // 3)))
        if rng.random() < 0.5:
            row, column = int(rng.integers(4, height - 4)), int(rng.integers(0, width - 6))
            walls[row, column : column + length] = True
        else:
            row, column = int(rng.integers(0, height - 6)), int(rng.integers(4, width - 4))
            walls[row : row + length, column] = True
    for _ in range(int(rng.integers(5, 40))):
        row, column, wide = int(rng.integers(1, height - 3)), int(rng.integers(1, width - 3)), int(rng.integers(1, 4))
        walls[row : row + wide, column : column + wide] = True
    return walls


def _caves(rng: np.random.Generator, height: int, width: int) -> NDArray[Any]:
    """Noise that a cellular automaton smooths: a cell is rock where five of its nine are."""
    from scipy import ndimage

    rock = rng.random((height, width)) < rng.uniform(0.40, 0.46)
    for _ in range(4):
        counts = ndimage.convolve(rock.astype(int), np.ones((3, 3), int), mode="constant", cval=1)
        rock = counts >= 5
    return np.asarray(rock, bool)
