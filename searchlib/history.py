"""Everything a search was told, as arrays."""

from __future__ import annotations

import array
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.pareto import nondominated
from searchlib.seeded_population import as_seeded, bits_of
from searchlib.space import Population, Space

if TYPE_CHECKING:
    import pandas

__all__ = ["History", "Told", "kept_rows"]


@final
@dataclass(frozen=True, eq=False)
class Told:
    """What was told about the n candidates of one batch.

    Arguments:
        ids: shape ``(n,)``.
        population: shape ``(n, d)``.
        values: shape ``(n, objectives)``, in the objective's own direction; NaN where status is not DONE.
        secondary: shape ``(n,)``; NaN where the objective gives none.
        standard_error: shape ``(n, objectives)``; NaN where there is no estimate.
        status: shape ``(n,)`` of :class:`~searchlib.algorithms.Status`.
        fresh: shape ``(n,)``; False where a duplicate was answered from what was known already.
        errors: one text per candidate, empty where nothing went wrong.
        stopped: shape ``(n,)``; True where a race stopped the candidate early, so that its value is an estimate. None:
            nobody was stopped.
        cached: shape ``(n,)``; True where an evaluation cache has answered a new candidate. None: nobody was. It is no
            part of the digest, because it says what was paid and not what was found.
    """

    ids: NDArray[np.int64]
    population: Population
    values: NDArray[np.float64]
    secondary: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    status: NDArray[np.int8]
    fresh: NDArray[np.bool_]
    errors: tuple[str, ...]
    stopped: NDArray[np.bool_] | None = None
    cached: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        for name in ("stopped", "cached"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.zeros(len(self.ids), np.bool_))

    def take(self, rows: NDArray[np.intp]) -> Told:
        """What was told about some of the candidates (positions)."""
        columns = {f.name: getattr(self, f.name)[rows] for f in fields(self) if f.name != "errors"}
        return Told(**columns, errors=tuple(self.errors[row] for row in rows))

    @property
    def digest(self) -> str:
        """A fingerprint of the candidates and of what was told about them."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("ids", "population", "values", "secondary", "standard_error", "status", "fresh"):
            digest.update(bits_of(getattr(self, name)))
        return digest.hexdigest()


#: How many of the best candidates of a batch are kept where evaluating again is cheap.
_KEPT = 16


def kept_rows(told: Told, signs: NDArray[np.float64]) -> NDArray[np.intp]:
    """Positions of what is kept of a batch that can be recomputed: its best candidates, its front, all that failed."""
    done = np.flatnonzero(told.status == Status.DONE)
    best = done[np.argsort(told.values[done, 0] * signs[0], kind="stable")[:_KEPT]]
    if len(signs) > 1:
        best = np.union1d(best, done[nondominated(told.values[done] * signs)])
    return np.sort(np.concatenate([best, np.flatnonzero(told.status == Status.FAILED)]))


#: Candidates of small batches that are put into one set of arrays, because an array of its own costs 100 bytes.
_BLOCK = 4096


@final
class History:
    """All candidates told, in order; failed ones and duplicates included. ``len(history)`` counts them.

    The arrays are those of :class:`Told`, over all batches; ``batch`` numbers the batch that each row came in. Of an
    objective that is cheap to recompute only the best candidates of every batch and the failed ones are held;
    ``omitted`` counts the others. Columns that say the same of everybody (no secondary scores, nobody failed) take no
    memory until they are looked at.
    """

    def __init__(self, space: Space, objectives: int) -> None:
        self.space = space
        self.objectives = objectives
        self._blocks: list[Told] = []
        self._small: list[Told] = []  # not yet in a block
        self._sizes = array.array("q")  # of all batches
        self._errors: dict[int, str] = {}  # by row
        self._length = self._held = self._waiting = 0
        self._digests: list[str] = []
        self._joined: dict[str, Any] = {}
        #: Candidates told (each new, none failed) that the arrays do not hold.
        self.omitted = 0

    def append(
        self, told: Told, omitted: int = 0, digest: str = "", sizes: Sequence[int] | None = None
    ) -> None:  # fmt: skip
        """Add a batch, or what is kept of it: without ``omitted`` candidates, all of it having the ``digest``.

        With ``sizes`` it is several batches of so many candidates each.
        """
        seeded: Any = as_seeded(told.population)
        if seeded is not None:  # a center for every generation would add up
            told = replace(told, population=seeded.without_center())
        self._sizes.extend([len(told.ids)] if sizes is None else sizes)
        self._errors.update((self._held + row, error) for row, error in enumerate(told.errors) if error)
        told = replace(told, errors=())
        if seeded is not None or len(told.ids) >= _BLOCK:
            self._close_block()
            self._blocks.append(_slim(told))
        else:
            self._small.append(told)
            self._waiting += max(1, len(told.ids))  # batches without candidates take room, too
            if self._waiting >= _BLOCK:
                self._close_block()
        self._held += len(told.ids)
        self._length += len(told.ids) + omitted
        self.omitted += omitted
        if digest:
            self._digests.append(digest)
        self._joined.clear()

    def _close_block(self) -> None:
        if self._small:
            columns = {name: np.concatenate([getattr(told, name) for told in self._small]) for name in _COLUMNS}
            self._blocks.append(_slim(Told(**columns, errors=())))
            self._small, self._waiting = [], 0

    def __len__(self) -> int:
        return self._length

    @property
    def ids(self) -> NDArray[np.int64]:
        """Shape ``(n,)``."""
        return np.asarray(self._join("ids", np.empty(0, np.int64)))

    @property
    def population(self) -> Population:
        """Shape ``(n, d)``; not to be had of generations that are kept as seeds (:class:`EvolutionStrategy`).

        Raises:
            StudyError: only seeds are known.
        """
        return np.asarray(self._join("population", np.empty((0, self.space.dimension), self.space.dtype)))

    def rows(self) -> Iterator[NDArray[Any] | None]:
        """The population one by one, None for candidates of which only seeds are known."""
        for told in (*self._blocks, *self._small):
            yield from (None for _ in told.ids) if as_seeded(told.population) is not None else told.population

    @property
    def values(self) -> NDArray[np.float64]:
        """Shape ``(n, objectives)``, in the objective's own direction; NaN where a candidate is not DONE."""
        return np.asarray(self._join("values", np.empty((0, self.objectives))))

    @property
    def secondary(self) -> NDArray[np.float64]:
        """Shape ``(n,)``."""
        return np.asarray(self._join("secondary", np.empty(0)))

    @property
    def standard_error(self) -> NDArray[np.float64]:
        """Shape ``(n, objectives)``."""
        return np.asarray(self._join("standard_error", np.empty((0, self.objectives))))

    @property
    def status(self) -> NDArray[np.int8]:
        """Shape ``(n,)``."""
        return np.asarray(self._join("status", np.empty(0, np.int8)))

    @property
    def fresh(self) -> NDArray[np.bool_]:
        """Shape ``(n,)``."""
        return np.asarray(self._join("fresh", np.empty(0, np.bool_)))

    @property
    def stopped(self) -> NDArray[np.bool_]:
        """Shape ``(n,)``: whose value is an estimate, because a race (``racing=``) stopped it before the last case."""
        return np.asarray(self._join("stopped", np.empty(0, np.bool_)))

    @property
    def cached(self) -> NDArray[np.bool_]:
        """Shape ``(n,)``; True where an evaluation cache has answered a new candidate."""
        return np.asarray(self._join("cached", np.empty(0, np.bool_)))

    @property
    def batch(self) -> NDArray[np.int64]:
        """Shape ``(n,)``: the number of the batch that each candidate came in."""
        return np.repeat(np.arange(len(self._sizes)), np.array(self._sizes, np.int64))

    @property
    def errors(self) -> tuple[str, ...]:
        """One text per candidate; empty where nothing went wrong."""
        errors = [""] * self._held
        for row, error in self._errors.items():
            errors[row] = error
        return tuple(errors)

    @property
    def evaluations(self) -> int:
        """Distinct candidates evaluated; those that an evaluation cache has answered are not."""
        return int((self.fresh & ~self.cached).sum()) + self.omitted

    @property
    def failures(self) -> int:
        """Candidates that failed."""
        return int((self.status == Status.FAILED).sum())

    @property
    def digest(self) -> str:
        """A fingerprint of every bit told: equal for equal histories."""
        digest = hashlib.blake2b(digest_size=16)
        for name in ("ids", "population", "values", "secondary", "standard_error", "status", "fresh", "batch"):
            if name == "population":
                for told in (*self._blocks, *self._small):
                    digest.update(bits_of(told.population))
                continue
            digest.update(np.ascontiguousarray(getattr(self, name)).tobytes())
        digest.update("".join(self._digests).encode())
        return digest.hexdigest()

    def to_frame(self) -> pandas.DataFrame:
        """The history as a DataFrame, one row per candidate with its decoded value (needs pandas)."""
        import pandas

        columns: dict[str, Any] = {"id": self.ids, "batch": self.batch, "status": [Status(s).name for s in self.status]}
        names = ["value"] if self.objectives == 1 else [f"value_{i}" for i in range(self.objectives)]
        for column, name in enumerate(names):
            columns[name] = self.values[:, column]
        columns["secondary"] = self.secondary
        columns["fresh"] = self.fresh
        columns["cached"] = self.cached
        columns["candidate"] = [None if row is None else self.space.decode(row) for row in self.rows()]
        columns["error"] = self.errors
        return pandas.DataFrame(columns)

    def at(self, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Some rows ``(r,)`` of one of the columns, without putting all of it together where it is long."""
        if name in self._joined or self._held <= _BLOCK:
            return np.asarray(getattr(self, name)[rows])
        parts = [getattr(told, name) for told in (*self._blocks, *self._small)]
        ends = np.cumsum([len(part) for part in parts])
        found = np.empty((len(rows), *parts[0].shape[1:]), parts[0].dtype)
        where = np.searchsorted(ends, rows, "right")
        for place in np.unique(where).tolist():
            mine = where == place
            found[mine] = parts[place][rows[mine] - ends[place] + len(parts[place])]
        return found

    def _join(self, name: str, empty: Any) -> Any:
        if name not in self._joined:
            assert name in _COLUMNS
            parts = [getattr(told, name) for told in (*self._blocks, *self._small)]
            joined = np.concatenate(parts, dtype=np.int64 if name == "ids" else None) if parts else empty
            joined.flags.writeable = False
            self._joined[name] = joined
        return self._joined[name]


_COLUMNS = tuple(field.name for field in fields(Told) if field.name != "errors")


def _slim(told: Told) -> Told:
    """The same, with columns that say the same of everybody as one number each, and short ids."""
    slim: dict[str, Any] = {}
    for name in _COLUMNS:
        column = getattr(told, name)
        if name == "ids" and len(column) and abs(column).max() < 2**31:
            slim[name] = column.astype(np.int32)
        if name in ("population", "ids", "values") or not len(column):
            continue
        same = np.isnan(column).all() if column.dtype.kind == "f" else (column == column[0]).all()
        if same:
            slim[name] = np.broadcast_to(column.ravel()[0].copy(), column.shape)
    return replace(told, **slim)
