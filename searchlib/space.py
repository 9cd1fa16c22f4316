"""What may vary: a space is an immutable value with operators over whole populations.

A *population* is one array of shape ``(n, d)``: ``n`` candidates of ``d`` genes each, with the space's fixed
``dimension`` d and ``dtype``. A *value* is what one candidate means to an objective (a tuple of kept indices,
a dict of settings); ``encode`` and ``decode`` translate. Spaces are declared, never sampled by rejection:
every operator returns rows that lie in the space.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final, overload

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import instance, shown
from searchlib.errors import InvalidCandidate, InvalidSettings, MissingOperator
from searchlib.operator_arguments import OPERATORS, as_array, blaming

__all__ = [
    "Candidates", "ItemSpace", "Population", "Space", "StagedSpace", "WeightSpace", "distinct", "row_keys",
    "space_from_json",
]  # fmt: skip

Population = NDArray[Any]

#: Rounds of sampling and mutation without a new candidate after which a space counts as listed, complete or not.
_PATIENCE = 20


class Space(ABC):
    """A declared set of candidates.

    Subclasses are frozen dataclasses whose fields are JSON values, tuples of them, or other spaces; equality,
    hash, a ``repr`` that rebuilds the space, and :meth:`to_json` follow from that. All randomness comes from
    the generator that is passed in; no operator changes the arrays it is given; every operator returns a new
    array of shape ``(n, dimension)`` and the space's ``dtype`` whose rows satisfy :meth:`contains`.

    Two hooks may be overridden: ``_every_row(limit)``, behind :meth:`enumerate` (by default small spaces are listed by
    drawing until :attr:`size` candidates are known), and ``_near(row)``, behind :meth:`neighbors` (by default none).

    ``searchlib.testing.check_space`` holds a space to this contract.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in OPERATORS:
            if name in vars(cls) and not getattr(vars(cls)[name], "__isabstractmethod__", False):
                setattr(cls, name, blaming(vars(cls)[name]))

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Number of genes d of one candidate."""

    @property
    @abstractmethod
    def dtype(self) -> np.dtype[Any]:
        """Array type of a population."""

    @property
    @abstractmethod
    def size(self) -> float:
        """Number of distinct candidates (canonical rows): an int, or ``math.inf`` where genes are real."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, n: int) -> Population:
        """Draw ``n`` candidates from the space's reference distribution (uniform where that exists)."""

    @abstractmethod
    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        """Return one small random change of every row. Changes each row wherever the space has another candidate."""

    @abstractmethod
    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        """Return row by row a child of ``first[i]`` and ``second[i]``; a child of twins is the twin itself."""

    @abstractmethod
    def repair(self, population: Population) -> Population:
        """Map any array of shape ``(n, d)`` of finite numbers onto the space; idempotent, and the identity on it."""

    @abstractmethod
    def canonical(self, population: Population) -> Population:
        """Map rows that mean the same candidate to one and the same row; idempotent."""

    @abstractmethod
    def contains(self, population: Population) -> NDArray[np.bool_]:
        """Say for every row whether it lies in the space, shape ``(n,)``. Never raises on a ``(n, d)`` array."""

    @abstractmethod
    def encode(self, values: Sequence[Any]) -> Population:
        """Turn typed values into a canonical population.

        Raises:
            InvalidCandidate: a value does not lie in the space; the message names it.
        """

    @abstractmethod
    def decode(self, row: NDArray[Any]) -> Any:
        """Turn one row of shape ``(d,)`` into its typed value; ``encode([decode(row)])[0]`` is its canonical row."""

    @abstractmethod
    def features(self, population: Population) -> NDArray[np.float64]:
        """Describe every row by a fixed number of real features for predictors, shape ``(n, p)``."""

    @abstractmethod
    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Row-wise distance, shape ``(n,)``: zero exactly for the same candidate, symmetric."""

    @property
    @abstractmethod
    def latent_dimension(self) -> int:
        """Number of real coordinates of the relaxation that :meth:`from_latent` reads."""

    @abstractmethod
    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        """Map any finite real array ``(n, latent_dimension)`` onto the space (random keys, soft-max, threshold …).

        Zero is the middle of the relaxation and one its natural step, so that an optimizer of unbounded reals
        can search any space.
        """

    @abstractmethod
    def to_latent(self, population: Population) -> NDArray[np.float64]:
        """A right inverse of :meth:`from_latent`: finite coordinates that map back to the same candidates."""

    @final
    def enumerate(self, limit: int = 10**6) -> Population:
        """Every candidate once, as canonical rows in an order that is always the same, shape ``(size, d)``.

        Arguments:
            limit: the most rows that may come back.

        Raises:
            MissingOperator: the space is infinite.
            InvalidSettings: it has more than ``limit`` candidates; the message says how many.

        Example:
            >>> from searchlib.spaces import Subset
            >>> Subset(4, k=2).enumerate().tolist()
            [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
        """
        size = self.size
        if size == math.inf:
            raise MissingOperator(f"{self!r:.200} cannot be enumerated: it has real genes; sample it instead")
        if size > limit:
            # Python does not write out whole numbers of more than 4,300 digits.
            shown = f"{size:,}" if size < 10**100 else "more than 10**100"
            raise InvalidSettings(
                f"{self!r:.200} has {shown} candidates, more than limit={limit:,}; raise the limit or sample it instead"
            )
        return self._every_row(limit)

    @final
    def neighbors(self, row: Any) -> Population:
        """Every candidate one smallest move away from ``row`` (shape ``(d,)``), as canonical rows, shape ``(m, d)``.

        What the smallest move is, each space says: one bit flipped, one item swapped, the next whole number. The rows
        are distinct, in an order that is always the same, and ``row`` itself is not among them.

        Raises:
            InvalidCandidate: ``row`` does not lie in the space.
            MissingOperator: the space has no finite neighborhoods, such as all with real genes.

        Example:
            >>> from searchlib.spaces import Subset
            >>> Subset(4, k=2).neighbors([0, 1]).tolist()
            [[1, 2], [1, 3], [0, 2], [0, 3]]
        """
        given = as_array("row", row)
        if given.shape != (self.dimension,):
            raise InvalidCandidate(f"row must have shape ({self.dimension},) for {self!r}, but is {shown(row)}")
        own = self.canonical(self.check(given[None], name="row"))
        return own[:0] if self.size == 1 else self._near(own[0])

    def _every_row(self, limit: int) -> Population:
        """What :meth:`enumerate` returns, where there are at most ``limit`` rows."""
        del limit
        rng = np.random.default_rng(0)
        rows, idle = self.canonical(self.sample(rng, 1)), 0
        while len(rows) < self.size and idle < _PATIENCE:
            drawn = (rows, self.sample(rng, max(64, len(rows))), self.mutate(rng, rows))
            known, rows = len(rows), distinct(self.canonical(np.concatenate(drawn)))
            idle = idle + 1 if len(rows) == known else 0
        if len(rows) != self.size:
            raise MissingOperator(
                f"{self!r:.200} cannot be enumerated: its operators reach {len(rows)} of its {self.size} candidates; "
                f"override _every_row(limit) in {type(self).__name__}"
            )
        return np.asarray(rows[np.lexsort(rows.T[::-1])] if self.dimension else rows)

    def _near(self, row: NDArray[Any]) -> Population:
        """What :meth:`neighbors` returns for a canonical row of a space with more than one candidate."""
        del row
        raise MissingOperator(f"{self!r:.200} offers no neighbors(); use mutate, which makes small random changes")

    @final
    def check(self, population: Any, *, name: str = "population") -> Population:
        """Return ``population`` as an array of this space's dtype, or say what is wrong with it.

        Raises:
            InvalidCandidate: wrong shape, or a row that lies outside; the message names the first such row.
        """
        array = as_array(name, population)
        if array.ndim != 2 or array.shape[1] != self.dimension:
            raise InvalidCandidate(
                f"{name} must have shape (n, {self.dimension}) for {self!r}, but has shape {array.shape}; "
                f"one candidate alone is {name}[None, :]"
            )
        if array.dtype != self.dtype:
            numbers = array.dtype.kind in "biuf"
            with np.errstate(invalid="ignore", over="ignore"):
                typed = array.astype(self.dtype) if numbers else array
            if not numbers or (self.dtype.kind != "f" and not np.array_equal(typed, array)):
                raise InvalidCandidate(f"{name} must hold {self.dtype} genes for {self!r}, but holds {array.dtype}")
            array = typed
        inside = self.contains(array)
        if not inside.all():
            row = int(np.flatnonzero(~inside)[0])
            raise InvalidCandidate(
                f"{name}[{row}] = {array[row].tolist()} does not lie in {self!r}; space.repair(...) maps rows onto it"
            )
        return array

    @final
    def to_json(self) -> dict[str, Any]:
        """The space as JSON values; :func:`space_from_json` rebuilds it."""
        own: Any = self
        if not dataclasses.is_dataclass(own):
            raise InvalidSettings(f"a space must be a frozen dataclass to be written down, but {type(self)} is not")
        fields = {field.name: _jsonable(getattr(own, field.name)) for field in dataclasses.fields(own) if field.init}
        return {"space": type(self).__name__, **fields}

    @final
    def to_nevergrad(self) -> Any:
        """The space as a parameter of nevergrad's; see :func:`searchlib.exchange.to_nevergrad`."""
        return importlib.import_module("searchlib.exchange").to_nevergrad(self)


class StagedSpace(Space):
    """A space that contains a coarser one, which is searched first.

    The rows of :attr:`first` mean candidates of this space too, so what was learned about them carries over
    (:class:`searchlib.Stages`).
    """

    @property
    @abstractmethod
    def first(self) -> Space:
        """The coarser space."""

    @abstractmethod
    def embed(self, population: Population) -> Population:
        """Rows of :attr:`first`, shape ``(n, first.dimension)``, as the rows of this space that mean the same."""

    @abstractmethod
    def restrict(self, population: Population) -> tuple[Population, NDArray[np.bool_]]:
        """The nearest rows of :attr:`first`, and for each whether it is the same candidate."""


class ItemSpace(Space):
    """A space of collections of numbered items: every gene is the number of an item, in any order.

    What distinguishes it is that it can be narrowed to a pool of items (:class:`searchlib.ShrinkingPool`).
    """

    @property
    @abstractmethod
    def item_count(self) -> int:
        """How many items there are to choose from; they are numbered from 0."""

    @abstractmethod
    def sample_from(self, rng: np.random.Generator, n: int, pool: NDArray[np.integer[Any]]) -> Population:
        """Draw ``n`` candidates as :meth:`sample` does, as if only the distinct items of ``pool`` existed.

        ``pool`` is at least as large as a candidate needs it to be (``dimension``).
        """


class WeightSpace(Space):
    """A space whose rows are weights: float32 numbers without bounds that matter, latent coordinate by coordinate.

    What distinguishes it is that a generation around a center can be kept as the seeds of its noise
    (:class:`searchlib.SeededPopulation`).
    """

    @property
    @abstractmethod
    def unit(self) -> NDArray[np.float32] | np.float32:
        """A natural step of every weight, shape ``(d,)``; a single number where all are alike."""


@final
class Candidates(Sequence[Any]):
    """A population seen as typed values: a lazy sequence over :attr:`array`.

    Nothing is built per candidate unless it is indexed, so an objective that can work on whole arrays reads
    ``candidates.array`` (shape ``(n, d)``, read-only) and pays nothing per candidate.
    """

    __slots__ = ("array", "space")

    def __init__(self, space: Space, array: Population) -> None:
        view = as_array("Candidates(array=…)", array).view()
        view.flags.writeable = False
        self.space = instance("Candidates(space=…)", space, Space, "a searchlib Space")
        self.array: Population = view

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Candidates: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Candidates(self.space, self.array[index])
        return self.space.decode(self.array[index])

    def __iter__(self) -> Iterator[Any]:
        return (self.space.decode(row) for row in self.array)

    def __repr__(self) -> str:
        return f"Candidates({len(self)} of {self.space!r})"


def row_keys(population: Population) -> list[bytes]:
    """One short key per row, equal exactly for equal rows (up to a 128-bit hash); independent of the process."""
    rows = np.ascontiguousarray(population)
    if rows.dtype.kind == "f":
        rows = rows + 0.0  # -0.0 and 0.0 are one candidate
    width = rows.shape[1] * rows.dtype.itemsize
    buffer = rows.tobytes()
    if width <= 16:
        return [buffer[start : start + width] for start in range(0, len(buffer), width)] if width else [b""] * len(rows)
    digest = hashlib.blake2b
    return [digest(buffer[start : start + width], digest_size=16).digest() for start in range(0, len(buffer), width)]


def distinct(population: Population) -> Population:
    """The rows without repetitions, each where it came first."""
    first: dict[bytes, int] = {}
    for index, key in enumerate(row_keys(population)):
        first.setdefault(key, index)
    return population[list(first.values())]


def space_from_json(data: Mapping[str, Any]) -> Space:
    """Rebuild a space from :meth:`Space.to_json`.

    Only classes that the program has imported already are considered; a name in a file is never imported.

    Raises:
        InvalidSettings: no imported space has that name.
    """
    known = {cls.__name__: cls for cls in _subclasses(Space)}
    name = data.get("space") if isinstance(data, Mapping) else None
    if not isinstance(name, str) or name not in known:
        raise InvalidSettings(
            f"no imported space is called {shown(name)}; import its module first (of ours: searchlib.spaces)"
        )
    try:
        space: Space = known[name](**{key: _from_jsonable(item) for key, item in data.items() if key != "space"})
    except TypeError as error:
        raise InvalidSettings(f"{shown(data)} does not describe a {name}: {error}") from error
    return space


def _subclasses(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Space):
        return value.to_json()
    if isinstance(value, tuple | list):
        return [_jsonable(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    return value


def _from_jsonable(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_from_jsonable(item) for item in value)
    if isinstance(value, Mapping):
        return space_from_json(value) if "space" in value else {k: _from_jsonable(v) for k, v in value.items()}
    return value
