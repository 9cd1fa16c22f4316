# mypy: allow-untyped-defs
# Compiled functions have no annotations: numba infers their types.
"""What a lidar sees on a grid: rays as a tree of cells, what they reveal, and what they would reveal."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

__all__ = ["FREE", "UNKNOWN", "WALL", "ray_tree", "reveal", "unseen_from"]

#: States of a cell of the map that a team makes.
UNKNOWN = 0
FREE = 1
WALL = 2


@cache
def ray_tree(radius: float, rays: int = 144) -> NDArray[np.int32]:
    """All rays from the middle of a cell as one tree, in the order in which it is walked, shape ``(k, 3)``.

    Rays that begin alike share these cells, so that each is looked at once. A line says how far a cell is off (rows,
    columns), and at which line to go on where it blocks the sight.

    Arguments:
        radius: in cells; a ray ends at the last cell whose middle is that near.
        rays: evenly spaced, none of them through corners of cells.

    Example:
        >>> ray_tree(1.0, 4).tolist()
        [[0, 1, 1], [1, 0, 2], [0, -1, 3], [-1, 0, 4]]
    """
    tree: dict[tuple[int, int], Any] = {}
    for angle in (np.arange(rays) + (0.5 if rays > 4 else 0.0)) * (2 * np.pi / rays):
        branch = tree
        for cell in _ray(float(np.sin(angle)), float(np.cos(angle)), radius):
            branch = branch.setdefault(cell, {})
    lines: list[list[int]] = []

    def walk(branch: dict[tuple[int, int], Any]) -> None:
        for (row, column), beyond in branch.items():
            line = [row, column, 0]
            lines.append(line)
            walk(beyond)
            line[2] = len(lines)

    walk(tree)
    return np.array(lines, np.int32)


def _ray(down: float, right: float, radius: float) -> list[tuple[int, int]]:
    """The cells that a ray crosses, in order (Amanatides and Woo, *A fast voxel traversal algorithm*, 1987)."""
    cells: list[tuple[int, int]] = []
    row, column = 0, 0
    to_row = 0.5 / abs(down) if abs(down) > 1e-9 else np.inf
    to_column = 0.5 / abs(right) if abs(right) > 1e-9 else np.inf
    per_row, per_column = 2 * to_row, 2 * to_column
    while True:
        if to_row < to_column:
            row, to_row = row + (1 if down > 0 else -1), to_row + per_row
        else:
            column, to_column = column + (1 if right > 0 else -1), to_column + per_column
        if row * row + column * column > radius * radius + 1e-9:
            if min(to_row, to_column) > radius + 1.5:
                return cells
            continue
        cells.append((row, column))


@njit(cache=True, nogil=True)
def reveal(walls, known, seen, agent, place, width, tree):
    """Write into the map what an agent sees from a cell; returns how many free cells were new.

    Arguments:
        walls: of the building, flat.
        known: the team's map, flat, written.
        seen: which agents have seen a cell, as bits, flat, written.
        agent: which looks.
        place: where from, a flat index.
        width: of the grid.
        tree: as of :func:`ray_tree`.
    """
    bit = np.uint8(1 << agent)
    new = 0
    if known[place] == UNKNOWN:
        known[place] = FREE
        new += 1
    seen[place] |= bit
    line = 0
    while line < len(tree):
        cell = place + tree[line, 0] * width + tree[line, 1]
        if walls[cell]:
            known[cell] = WALL
            line = tree[line, 2]
            continue
        if known[cell] == UNKNOWN:
            known[cell] = FREE
            new += 1
        seen[cell] |= bit
        line += 1
    return new


@njit(cache=True, nogil=True)
def unseen_from(known, place, width, tree, stamps, stamp):
    """How many unknown cells would be in sight of a cell if all of them were free.

    Arguments:
        known: the team's map, flat.
        place: where from, a flat index.
        width: of the grid.
        tree: as of :func:`ray_tree`.
        stamps: as long as the map, written: cells that were counted get ``stamp``, a number never used before.
        stamp: that number.
    """
    count = 0
    line = 0
    while line < len(tree):
        cell = place + tree[line, 0] * width + tree[line, 1]
        if known[cell] == WALL:
            line = tree[line, 2]
            continue
        if known[cell] == UNKNOWN and stamps[cell] != stamp:
            stamps[cell] = stamp
            count += 1
        line += 1
    return count
