"""No operator of any space ever makes a candidate that breaks the space's definition.

The definitions are written down here once more, without the code of the spaces: whole numbers are counted with
Python's own, sums of shares by ``math.fsum``'s tolerance, typed values by the classes that refuse wrong ones.

By default small primitive spaces are asked for a million samples, a million mutations and a million crossovers, the
others for a few hundred to many thousand of each, fewer of wide rows. ``SEARCHLIB_SLOW=1`` asks every space for the
million (more than ten minutes).
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from searchlib.allocation_space import AllocationSpace
from searchlib.space import Population, Space
from searchlib.spaces import (
    Affine,
    Allocation,
    Binary,
    Categorical,
    CheckpointCoefficients,
    CurriculumTasks,
    EvalSubsets,
    ExemplarSets,
    ExpertMerges,
    ExpertSubsets,
    Fixed,
    Grouped,
    Integer,
    Monotone,
    Multiset,
    OneOf,
    Permutation,
    PolicyParameters,
    Product,
    Real,
    Simplex,
    SolverSchedule,
    SolverSchedules,
    Subset,
)

# Not by an import statement: the type checker knows the files of tests by their names alone.
SPACES = importlib.import_module("tests.spaces.every_space").SPACES

#: Rows of each operator.
MILLION = 10**6
#: Genes that the default run makes per space and operator, and rows at least.
GENES, FEWEST = 150_000, 400
#: What makes a million rows in less than half a second, up to this dimension.
CHEAP, NARROW = (Binary, Categorical, Integer, Real, Subset), 6
#: Genes of a population that is made at once.
AT_ONCE = 2**21

Broken = NDArray[np.bool_]


def whole(rows: Population, low: float, high: float) -> Broken:
    """Which rows hold anything but whole numbers from low to high."""
    return ~((rows >= low) & (rows <= high) & (rows % 1 == 0)).all(axis=1)


def repeated(rows: Population) -> Broken:
    ordered = np.sort(rows, axis=1)
    return (ordered[:, 1:] == ordered[:, :-1]).any(axis=1)


@functools.singledispatch
def broken(space: Space, rows: Population) -> Broken:
    """Which rows break the definition of the space."""
    raise NotImplementedError(f"write down what a candidate of {type(space)} is")


@broken.register
def _(space: Binary, rows: Population) -> Broken:
    return np.full(len(rows), rows.dtype != np.bool_ or rows.shape[1] != space.n)


@broken.register
def _(space: Subset, rows: Population) -> Broken:
    return whole(rows, 0, space.n - 1) | repeated(rows) | (rows.shape[1] != space.k)


@broken.register
def _(space: ExemplarSets, rows: Population) -> Broken:
    # Nothing but an operator of its own may bring in an exemplar that nobody has written.
    return whole(rows, 0, space.pool - 1) | repeated(rows)


@broken.register
def _(space: EvalSubsets, rows: Population) -> Broken:
    return whole(rows, 0, space.items - 1) | (rows.shape[1] != space.keep)


@broken.register
def _(space: Categorical, rows: Population) -> Broken:
    return whole(rows, 0, len(space.choices) - 1)


@broken.register
def _(space: Integer, rows: Population) -> Broken:
    return whole(rows, space.low, space.high)


@broken.register
def _(space: Real, rows: Population) -> Broken:
    return np.asarray(~((rows >= space.low) & (rows <= space.high)).all(axis=1))


@broken.register
def _(space: CurriculumTasks, rows: Population) -> Broken:
    outside = [(one < low) | (one > high) for one, low, high in zip(rows.T, space.low, space.high, strict=True)]
    return np.any(outside, axis=0) | ~np.isfinite(rows).all(axis=1)


@broken.register
def _(space: PolicyParameters, rows: Population) -> Broken:
    return ~np.isfinite(rows).all(axis=1) | np.full(len(rows), rows.dtype != np.float32)


@broken.register
def _(space: Permutation, rows: Population) -> Broken:
    return whole(rows, 0, space.n - 1) | repeated(rows)


@broken.register
def _(space: Simplex, rows: Population) -> Broken:
    return np.asarray((rows < 0).any(axis=1) | ~(np.abs(rows.sum(axis=1, dtype=np.longdouble) - 1) <= 1e-9))


@broken.register
def _(space: Affine, rows: Population) -> Broken:
    return ~(np.abs(rows.sum(axis=1, dtype=np.longdouble) - 1) <= 1e-8) | ~(np.abs(rows) <= 1000).all(axis=1)


@broken.register
def _(space: CheckpointCoefficients, rows: Population) -> Broken:
    return grouped(Affine(space.checkpoints), space.blocks, rows)


@broken.register
def _(space: Monotone, rows: Population) -> Broken:
    ascending = rows[:, ::-1] if space.descending else rows
    scaled = np.log(ascending) if space.log else ascending
    wide = np.log(space.high) - np.log(space.low) if space.log else space.high - space.low
    close = np.diff(scaled, axis=1) < (space.gap if space.whole else space.gap - 2e-9 * wide)
    step = np.diff(ascending, axis=1)
    fallen = step <= 0 if space.gap else step < 0
    outside = (rows < space.low) | (rows > space.high) | (space.whole & (rows % 1 != 0))
    return np.asarray(close.any(axis=1) | outside.any(axis=1) | fallen.any(axis=1))


@broken.register
def _(space: ExpertSubsets, rows: Population) -> Broken:
    return grouped(Subset(space.experts, space.keep), space.groups, rows)


@broken.register
def _(space: ExpertMerges, rows: Population) -> Broken:
    return np.asarray(~np.isfinite(rows).all(axis=1) | (rows.dtype != np.float32))


@broken.register
def _(space: AllocationSpace, rows: Population) -> Broken:
    allowed, parts = space.allowed_array, np.arange(rows.shape[1])
    wrong = whole(rows, 0, allowed.shape[1] - 1) | ~allowed[parts, rows].all(axis=1)
    for table, budget in zip(space.costs_array, space.budgets_array, strict=True):
        cost = table.astype(np.longdouble)[parts, rows].sum(axis=1)
        wrong |= cost > budget + 1e-10 * max(abs(budget), np.abs(table).max(axis=1).sum())
    if space.max_distinct is not None:
        group = np.zeros(len(parts)) if space.groups is None else np.array(space.groups)
        for number in np.unique(group):
            ordered = np.sort(rows[:, group == number], axis=1)
            wrong |= 1 + (np.diff(ordered, axis=1) != 0).sum(axis=1) > space.max_distinct
    return wrong


@broken.register
def _(space: SolverSchedules, rows: Population) -> Broken:
    # Building every schedule would take minutes: levels are looked at in all rows, the rest in some.
    sigmas = rows[:, 2:].reshape(len(rows), -1, 10)[:, :, 0]
    count = rows[:, 0].astype(int)
    nfe = rows[:, 0] - rows[:, 1]
    idle = np.arange(sigmas.shape[1]) >= count[:, None]
    levels = np.concatenate([np.full((len(rows), 1), space.sigma_max), np.where(idle, -1.0, sigmas)], axis=1)
    wrong = ((np.diff(levels, axis=1) >= 0) & ~idle).any(axis=1) | (nfe < (space.min_nfe or 1)) | (nfe > space.nfe)
    wrong |= (np.where(idle[:, :, None], rows[:, 2:].reshape(len(rows), -1, 10), 0) != 0).any(axis=(1, 2))
    last = sigmas[np.arange(len(rows)), count - 1]
    low, high = np.broadcast_to(space.sigma_min, 2)
    wrong |= (last != 0) & ~((last >= low) & (last <= high))
    for row in rows[~wrong][:: max(1, len(rows) // 20)]:
        assert isinstance(space.decode(row), SolverSchedule)  # its constructor refuses what is no schedule
    return np.asarray(wrong)


@broken.register
def _(space: Grouped, rows: Population) -> Broken:
    return grouped(space.part, space.groups, rows)


@broken.register
def _(space: Fixed, rows: Population) -> Broken:
    other = space.of.canonical(rows) != np.array(space.genes)
    return np.asarray(broken(space.of, rows) | other.any(axis=1))


@broken.register
def _(space: Multiset, rows: Population) -> Broken:
    return grouped(space.part, space.slots, rows)


def grouped(part: Space, groups: int, rows: Population) -> Broken:
    apart = rows.reshape(len(rows) * groups, part.dimension)
    return np.asarray(broken(part, apart).reshape(len(rows), groups).any(axis=1))


@broken.register
def _(space: Product, rows: Population) -> Broken:
    wrong, start = np.zeros(len(rows), np.bool_), 0
    for _, part in space.parts:
        wrong |= broken(part, typed(part, rows[:, start : start + part.dimension]))
        start += part.dimension
    return wrong | (rows.shape[1] != start)


@broken.register
def _(space: OneOf, rows: Population) -> Broken:
    wrong = whole(rows[:, :1], 0, len(space.branches) - 1)
    for number, (_, branch) in enumerate(space.branches):
        mine = rows[:, 0] == number
        own, idle = np.split(rows[mine, 1:], [branch.dimension], axis=1)
        wrong[mine] |= broken(branch, typed(branch, own)) | (idle != 0).any(axis=1)
    return wrong


def typed(space: Space, genes: Population) -> Population:
    """Genes in the space's own array type, which must hold them as they are."""
    rows = genes.astype(space.dtype)
    assert np.array_equal(rows, genes)
    return rows


def made(space: Space, count: int, seed: int = 0) -> Iterator[tuple[str, Population]]:
    """``count`` rows of each operator in chunks: every chunk is sampled, crossed with the last one, and mutated."""
    rng = np.random.default_rng(seed)
    chunk = min(count, max(1, AT_ONCE // (space.dimension + 1)), 50_000)
    mates = space.sample(rng, chunk)
    for start in range(0, count, chunk):
        n = min(chunk, count - start)
        rows = space.sample(rng, n)
        yield "sample", rows
        children = space.crossover(rng, rows, mates[:n])
        yield "crossover", children
        mates = np.concatenate([space.mutate(rng, children), mates[n:]])
        yield "mutate", mates[:n]


def rows_of(space: Space) -> int:
    if os.environ.get("SEARCHLIB_SLOW") == "1" or (isinstance(space, CHEAP) and space.dimension <= NARROW):
        return MILLION
    return max(FEWEST, GENES // (space.dimension + 1))


@pytest.mark.parametrize("space", SPACES, ids=repr)
def test_no_operator_makes_a_candidate_that_breaks_the_definition(space: Space) -> None:
    wanted = rows_of(space)
    seen = dict.fromkeys(("sample", "crossover", "mutate"), 0)
    for operator, rows in made(space, wanted):
        wrong = broken(space, rows)
        assert wrong.shape == (len(rows),)
        assert not wrong.any(), f"{operator} of {space!r} made {rows[wrong][0].tolist()}"
        seen[operator] += len(rows)
    assert seen == dict.fromkeys(seen, wanted)


BITS = (2, 4, 8)
BAD: list[tuple[Space, list[Any]]] = [
    (Subset(4, 2), [1, 1]),
    (Subset(4, 2), [0, 4]),
    (ExemplarSets(3, 2, capacity=9), [0, 3]),
    (EvalSubsets(4, 2), [-1, 0]),
    (Categorical(("a", "b")), [2]),
    (Integer(0, 3), [4]),
    (Real(0, 1), [1.0000000000000002]),
    (Permutation(3), [0, 1, 1]),
    (PolicyParameters(2), [0.0, np.inf]),
    (CurriculumTasks(("a", "b"), (0.0, 1.0), (1.0, 2.0)), [0.5, 2.5]),
    (Simplex(3), [0.5, 0.5, 1e-6]),
    (Simplex(3), [0.5, 0.6, -0.1]),
    (Affine(2), [0.5, 0.6]),
    (CheckpointCoefficients(2, 2), [0.5, 0.5, 0.5, 0.4]),
    (Monotone(3, 0.0, 1.0, gap=0.1), [0.0, 0.09, 0.5]),
    (Monotone(2, 0, 9, whole=True, descending=True), [1, 2]),
    (ExpertSubsets(4, 4, 2, 2), [0, 1, 3, 3]),
    (ExpertMerges(1, 1, 1, 1), [np.nan, 1.0]),
    (Allocation(("q", "k"), BITS, costs=((BITS, BITS),), budgets=(8.0,)), [1, 2]),
    (Allocation(("q", "k"), BITS, allowed=((True, True, False), (True, True, True))), [2, 0]),
    (Allocation(("q", "k"), BITS, max_distinct=1), [0, 1]),
    (SolverSchedules(5, 80.0, (0.002, 0.003)), [3, 0, *([1.0, 1] + [0] * 8) * 6]),
    (Grouped(Subset(3, 2), 2), [0, 1, 2, 2]),
    (Multiset(Subset(3, 2), 2), [0, 1, 2, 2]),
    (Product(a=Integer(0, 1), b=Integer(0, 1)), [0, 2]),
    (OneOf(a=Binary(1), b=Integer(0, 5, 2)), [0, 1, 1]),
]


@pytest.mark.parametrize(("space", "row"), BAD, ids=lambda item: repr(item)[:60])
def test_every_definition_notices_a_row_that_breaks_it(space: Space, row: list[Any]) -> None:
    assert broken(space, np.array([row], space.dtype)).tolist() == [True]
