"""Conformance of spaces, in one line of a test.

The check raises an :class:`AssertionError` whose message is a sentence; it depends on no test framework::

    from searchlib.testing import check_space

    def test_my_space_keeps_the_contract():
        check_space(MySpace(8))
"""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import flag, instance, whole_number
from searchlib.errors import InvalidCandidate, InvalidSettings, MissingOperator
from searchlib.space import Population, Space, StagedSpace, row_keys, space_from_json
from searchlib.testing.expectation import expect

__all__ = ["check_space"]

#: Spaces up to this size are sampled until every candidate must have come up.
SMALL = 64
#: Spaces up to this size are enumerated.
LISTED = 4096
#: Neighborhoods of more genes than this are looked at once.
HEAVY = 10**6
#: So many neighbors are looked at, spread over all of them.
SEEN = 500


def check_space(space: Space, *, seed: int = 0, n: int = 64, symmetric: bool = True) -> None:
    """Hold a space to the contract of :class:`searchlib.space.Space`.

    Arguments:
        space: the space; its class must be importable where this is called from.
        seed: of all randomness.
        n: candidates per population, at least 2.
        symmetric: whether neighbors, where there are any, are neighbors both ways. False for a space such as
            :class:`searchlib.spaces.OneOf`, from whose other options no single move leads back.

    Raises:
        AssertionError: the contract is broken; the message says where.

    Example:
        >>> from searchlib.spaces import Binary
        >>> check_space(Binary(3))
    """
    instance("space", space, Space, "a searchlib Space")
    seed, n, symmetric = whole_number("seed", seed, 0), whole_number("n", n, 2, 10**6), flag("symmetric", symmetric)
    rows = _frozen(space.sample(np.random.default_rng(seed), n))
    _check_is_a_value(space)
    _check_sampling(space, seed)
    for name, operator in _operators(space, seed).items():
        _check_operator(space, name, operator, rows)
        _check_operator(space, name, operator, rows[:0])
    _check_variation(space, rows, seed)
    _check_canonical(space, rows, seed)
    _check_repair(space, rows, seed)
    _check_contains(space, n)
    _check_codec(space, rows)
    _check_features(space, rows)
    _check_distance(space, rows, seed)
    _check_latent(space, rows, seed)
    _check_enumeration(space)
    _check_neighbors(space, rows, symmetric)
    if isinstance(space, StagedSpace):
        _check_stages(space, rows, seed)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array = array.copy()
    array.flags.writeable = False
    return array


def _same(space: Space, first: Population, second: Population) -> NDArray[np.bool_]:
    """Whether each pair of rows means the same candidate."""
    return np.asarray((space.canonical(first) == space.canonical(second)).all(axis=1))


def _alike(first: Any, second: Any) -> bool:
    """Whether two typed values are equal; they may be arrays, or dicts of arrays."""
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(_alike(first[name], second[name]) for name in first)
    if isinstance(first, np.ndarray):
        return bool(np.array_equal(first, second))
    return bool(first == second)


def _operators(space: Space, seed: int) -> dict[str, Callable[[Population], Population]]:
    """Everything that turns rows into rows of the space, with a fresh generator each time."""

    def crossover(rows: Population) -> Population:
        return space.crossover(np.random.default_rng(seed), rows, _frozen(rows[::-1]))

    return {
        "sample": lambda rows: space.sample(np.random.default_rng(seed), len(rows)),
        "mutate": lambda rows: space.mutate(np.random.default_rng(seed), rows),
        "crossover": crossover,
        "repair": space.repair,
        "canonical": space.canonical,
        "from_latent": lambda rows: space.from_latent(_frozen(space.to_latent(rows))),
    }


def _check_is_a_value(space: Space) -> None:
    params = getattr(type(space), "__dataclass_params__", None)
    expect(params is not None and params.frozen, f"{type(space)} must be a frozen dataclass")
    known = {cls.__name__: cls for cls in (*_subclasses(Space), type(space))}
    copies = {
        "its repr": eval(repr(space), known),
        "its JSON": space_from_json(json.loads(json.dumps(space.to_json()))),
        "its pickle": pickle.loads(pickle.dumps(space)),
    }
    for source, copy in copies.items():
        equal = copy == space and hash(copy) == hash(space) and repr(copy) == repr(space)
        expect(equal, f"{space!r} rebuilt from {source} must be equal, hash and print alike, but is {copy!r}")


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _check_operator(space: Space, name: str, operator: Callable[[Population], Population], rows: Population) -> None:
    try:
        result = operator(rows)
    except ValueError as error:
        expect("read-only" not in str(error), f"{name} of {space!r} must not write into the arrays it is given")
        raise
    shape = (len(rows), space.dimension)
    expect(result.shape == shape, f"{name} of {space!r} must return shape {shape}, but returned {result.shape}")
    expect(result.dtype == space.dtype, f"{name} of {space!r} must return {space.dtype}, but returned {result.dtype}")
    fresh = result.flags.writeable and not np.shares_memory(result, rows)
    expect(fresh, f"{name} of {space!r} must return a new array")
    outside = result[~space.contains(result)]
    expect(not len(outside), f"{name} of {space!r} returned a row outside of it: {outside[:1].tolist()}")
    again = np.array_equal(operator(rows), result)
    expect(again, f"{name} of {space!r} must depend on nothing but its arguments and the generator")
    expect(space.check(result) is result, f"check of {space!r} must return rows of the space as they are")


def _check_sampling(space: Space, seed: int) -> None:
    size = space.size
    # Python does not write out whole numbers of more than 4,300 digits.
    shown = repr(size) if size < 10**100 else "10**100 or more"
    expect(size >= 1 and (size == math.inf or isinstance(size, int)), f"size of {space!r} is {shown}")
    count = 200 * int(size) if size <= SMALL else 256
    distinct = len(set(row_keys(space.canonical(space.sample(np.random.default_rng(seed), count)))))
    expect(distinct <= size, f"{space!r} of size {shown} was sampled into {distinct} distinct candidates")
    reached = distinct == size if size <= SMALL else distinct > 1
    expect(reached, f"{count} samples of {space!r}, whose size is {shown}, reach only {distinct} candidates")


def _check_variation(space: Space, rows: Population, seed: int) -> None:
    children = space.mutate(np.random.default_rng(seed), rows)
    if space.size > 1:
        unchanged = rows[_same(space, children, rows)]
        expect(not len(unchanged), f"mutate of {space!r} left a row as it was: {unchanged[:1].tolist()}")
    twins = space.crossover(np.random.default_rng(seed), rows, _frozen(space.canonical(rows)))
    expect(_same(space, twins, rows).all(), f"crossover of {space!r} must give a child of twins back as the twin")


def _check_canonical(space: Space, rows: Population, seed: int) -> None:
    children = space.mutate(np.random.default_rng(seed), rows)
    once = space.canonical(children)
    expect(np.array_equal(space.canonical(_frozen(once)), once), f"canonical of {space!r} must be idempotent")


def _check_repair(space: Space, rows: Population, seed: int) -> None:
    expect(np.array_equal(space.repair(rows), rows), f"repair of {space!r} must leave its own rows as they are")
    for kind, numbers in _finite_arrays(rows.shape, seed):
        repaired = space.repair(_frozen(numbers))
        shaped = repaired.shape == rows.shape and repaired.dtype == space.dtype
        expect(shaped and space.contains(repaired).all(), f"repair of {space!r} must map {kind} into the space")
        again = np.array_equal(space.repair(_frozen(repaired)), repaired)
        expect(again, f"repair of {space!r} must be idempotent, but is not on {kind}")


def _finite_arrays(shape: tuple[int, ...], seed: int) -> Iterator[tuple[str, NDArray[Any]]]:
    rng = np.random.default_rng(seed)
    yield "normal numbers", 3 * rng.standard_normal(shape)
    yield "huge numbers", rng.choice([-1e300, -1e30, 0.0, 1e30, 1e300], shape)
    yield "the largest floats", np.where(rng.random(shape) < 0.5, -1, 1) * np.finfo(np.float64).max
    yield "whole numbers", rng.integers(-100, 100, shape)
    yield "equal numbers", np.full(shape, 0.25)
    yield "bits", rng.random(shape) < 0.5


def _check_contains(space: Space, n: int) -> None:
    if space.dimension:
        nothing = np.full((n, space.dimension), np.nan)
        expect(not space.contains(nothing).any(), f"contains of {space!r} must be False for NaN")


def _check_codec(space: Space, rows: Population) -> None:
    canonical, values = space.canonical(rows), [space.decode(row) for row in rows]
    encoded = space.encode(values)
    expect(np.array_equal(encoded, canonical), f"encode of decoded rows must give canonical rows back in {space!r}")
    expect(encoded.dtype == space.dtype, f"encode of {space!r} must return {space.dtype}, not {encoded.dtype}")
    for value, row in zip(values, encoded, strict=True):
        back = space.decode(row)
        same = _alike(back, value)
        expect(same, f"decode of the encoded value {value!r} of {space!r} must be equal, but is {back!r}")
    empty = space.encode([])
    expect(empty.shape == (0, space.dimension), f"encode of no values of {space!r} must have shape (0, d)")
    try:
        space.encode([object()])
        refused = False
    except InvalidCandidate:
        refused = True
    except Exception:
        refused = False
    expect(refused, f"encode of {space!r} must refuse an object that is no value with InvalidCandidate")


def _check_features(space: Space, rows: Population) -> None:
    width = space.features(rows[:1]).shape[1]
    for part in (rows, rows[:1], rows[:0]):
        features = space.features(part)
        shaped = features.shape == (len(part), width) and features.dtype == np.float64
        expect(shaped, f"features of {space!r} must be ({len(part)}, {width}) floats, but are {features.shape}")
        expect(np.isfinite(features).all(), f"features of {space!r} must be finite")


def _check_distance(space: Space, rows: Population, seed: int) -> None:
    children = _frozen(space.mutate(np.random.default_rng(seed), rows))
    for other in (children, _frozen(rows[::-1]), _frozen(space.canonical(rows))):
        there, back = space.distance(rows, other), space.distance(other, rows)
        expect(there.shape == (len(rows),), f"distance of {space!r} must have shape (n,), but has {there.shape}")
        expect(np.array_equal(there, back), f"distance of {space!r} must be symmetric")
        expect((there >= 0).all() and np.isfinite(there).all(), f"distance of {space!r} must be finite, not negative")
        zero = (there == 0) == _same(space, rows, other)
        expect(zero.all(), f"distance of {space!r} must be zero exactly between rows of the same candidate")
    expect(space.distance(rows[:0], rows[:0]).shape == (0,), f"distance of {space!r} must accept no rows")


def _check_latent(space: Space, rows: Population, seed: int) -> None:
    latent = space.to_latent(rows)
    shape = (len(rows), space.latent_dimension)
    expect(latent.shape == shape, f"to_latent of {space!r} must return shape {shape}, but returned {latent.shape}")
    expect(np.isfinite(latent).all(), f"to_latent of {space!r} must be finite")
    back, canonical = space.canonical(space.from_latent(_frozen(latent))), space.canonical(rows)
    exact = space.dtype.kind != "f"  # real genes may be rounded on the way
    equal = np.array_equal(back, canonical) if exact else np.allclose(back, canonical, rtol=1e-6, atol=1e-9)
    expect(equal, f"from_latent of {space!r} must map to_latent back to the same candidates")
    for kind, numbers in _finite_arrays(shape, seed):
        inside = space.contains(space.from_latent(_frozen(numbers.astype(np.float64))))
        expect(inside.all(), f"from_latent of {space!r} must map {kind} into the space")
    expect(space.contains(space.from_latent(np.zeros((1, shape[1])))).all(), f"latent zero is outside of {space!r}")


def _check_listed(space: Space, rows: Population, what: str) -> None:
    shaped = rows.ndim == 2 and rows.shape[1] == space.dimension and rows.dtype == space.dtype
    expect(shaped, f"{what} must be {space.dtype} rows of {space.dimension} genes, but are {rows.dtype} {rows.shape}")
    outside = rows[~space.contains(rows)]
    expect(not len(outside), f"{what} must lie in it, but one does not: {outside[:1].tolist()}")
    expect(np.array_equal(space.canonical(rows), rows), f"{what} must be canonical")
    expect(len(set(row_keys(rows))) == len(rows), f"{what} must be distinct")


def _check_enumeration(space: Space) -> None:
    size, limit = space.size, LISTED
    if size <= LISTED:
        try:
            every = space.enumerate()
        except MissingOperator as error:
            raise AssertionError(str(error)) from error
        _check_listed(space, every, f"the rows of enumerate() of {space!r}")
        found = len(every)
        expect(found == size, f"enumerate() of {space!r} of size {size} must list all of it, but lists {found} rows")
        expect(np.array_equal(space.enumerate(), every), f"enumerate() of {space!r} must always have the same order")
        limit = int(size) - 1
    wrong = MissingOperator if size == math.inf else InvalidSettings
    try:
        space.enumerate(limit)
        refused = False
    except wrong:
        refused = True
    expect(refused, f"enumerate({limit}) of {space!r} must raise {wrong.__name__}, for there are more candidates")


def _check_neighbors(space: Space, rows: Population, symmetric: bool) -> None:
    own = space.canonical(rows[:1])
    try:
        near = space.neighbors(rows[0])
    except MissingOperator:
        return  # none offered
    some = near[:: max(1, len(near) // SEEN)]
    _check_listed(space, some, f"neighbors of {space!r}")
    expect(not _same(space, some, np.repeat(own, len(some), axis=0)).any(), f"no row of {space!r} is its own neighbor")
    if near.size > HEAVY:
        return
    again = space.neighbors(own[0])
    expect(np.array_equal(again, near), f"neighbors of {space!r} must depend on nothing but the candidate")
    if symmetric:
        back = [set(row_keys(space.neighbors(row))) for row in some[:: max(1, len(some) // 4)]]
        expect(all(row_keys(own)[0] in keys for keys in back), f"neighbors of {space!r} must be neighbors both ways")
    if space.size <= SMALL:
        reached = _reached(space, own)
        expect(reached == space.size, f"moves to neighbors in {space!r} reach {reached} of {space.size} candidates")


def _reached(space: Space, start: Population) -> int:
    """How many candidates moves to neighbors reach."""
    known, front = set(row_keys(start)), list(start)
    while front:
        near = space.neighbors(front.pop())
        for row, key in zip(near, row_keys(near), strict=True):
            if key not in known:
                known.add(key)
                front.append(row)
    return len(known)


def _check_stages(space: StagedSpace, rows: Population, seed: int) -> None:
    coarse = _frozen(space.first.sample(np.random.default_rng(seed), len(rows)))
    embedded = _frozen(space.embed(coarse))
    _check_operator(space, "embed", lambda part: space.embed(coarse[: len(part)]), rows)
    expect(space.embed(coarse[:0]).shape == (0, space.dimension), f"embed of {space!r} must accept no rows")
    kept, exact = space.restrict(embedded)
    expect(_same(space.first, kept, coarse).all(), f"restrict of {space!r} must undo embed")
    expect(exact.dtype == np.bool_ and exact.all(), f"restrict of {space!r} must call embedded rows the same")
    kept, exact = space.restrict(rows)
    expect(space.first.contains(kept).all(), f"restrict of {space!r} must return rows of {space.first!r}")
    honest = np.array_equal(exact, _same(space, space.embed(kept), rows))
    expect(honest, f"restrict of {space!r} must say exactly which rows embed gives back")
