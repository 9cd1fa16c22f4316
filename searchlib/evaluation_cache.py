"""Scores on file that any search of the same objective may use: an evaluation is never paid for twice.

A cell of the score table is a pure function of candidate and case, so it can be named by its content: space, objective
(both as a study writes them down, :mod:`searchlib.description`), chunk size, threads, canonical genes, case. One SQLite
file holds the cells of any number of objectives; many processes may read and write it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.arguments import file_path, instance
from searchlib.case_overlap import case_keys
from searchlib.cases import Cases
from searchlib.chunks import Chunk, ChunkScores
from searchlib.errors import CacheError, InvalidSettings
from searchlib.file_system import shared_file_system
from searchlib.objective import Objective
from searchlib.sealed_file import let_go
from searchlib.space import Population, row_keys

__all__ = ["CachedCells", "EvaluationCache", "ObjectiveCache"]

logger = logging.getLogger("searchlib")

#: "This SQLite file is an evaluation cache" (SQLite's application id), and the version of its format.
_MAGIC, _FORMAT = 0x5EA2C4CE, 1

#: Keys per query; SQLite of old allows 999.
_KEYS = 900

#: Seconds for which new scores may wait in memory for a shared commit, and for which a locked file is waited for.
_WAIT, _LOCKED = 0.25, 30.0

_SCHEMA = """
CREATE TABLE IF NOT EXISTS block (number INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, cases BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS score (
    candidate BLOB NOT NULL, block INTEGER NOT NULL REFERENCES block (number), status INTEGER NOT NULL,
    scores BLOB NOT NULL, secondary BLOB, PRIMARY KEY (candidate, block)
) WITHOUT ROWID;
"""


@final
@dataclass(frozen=True, eq=False)
class CachedCells:
    """What is on file about n candidates on c cases.

    Arguments:
        values: shape ``(n, c, k)``; NaN where a cell is not on file or its candidate is infeasible.
        secondary: shape ``(n, c)``; NaN where there is none.
        status: shape ``(n, c)`` of :class:`~searchlib.algorithms.Status`: PENDING where a cell is not on file.
    """

    values: NDArray[np.float64]
    secondary: NDArray[np.float64]
    status: NDArray[np.int8]

    @property
    def complete(self) -> NDArray[np.bool_]:
        """Which candidates have all their cells on file, shape ``(n,)``."""
        return np.asarray((self.status != Status.PENDING).all(axis=1))

    def answers(self, chunks: Sequence[Chunk], order: NDArray[np.intp]) -> list[ChunkScores]:
        """The chunks that are on file whole, their rows counted along ``order`` ``(n,)`` (positions of candidates)."""
        found = []
        for chunk in chunks:
            rows, columns = order[chunk.row : chunk.row_end], slice(chunk.case, chunk.case_end)
            cells = self.status[rows, columns]
            if (cells != Status.PENDING).all():
                nothing = ("",) * len(rows)
                values, secondary = self.values[rows, columns], self.secondary[rows, columns]
                found.append(ChunkScores(chunk, values, secondary, cells.max(axis=1), nothing, 0.0))
        return found


@final
class EvaluationCache:
    """A file of scores, shared by searches, seeds and processes: ``search(..., cache="scores.db")``.

    Only what succeeded (or is infeasible) is kept, never a failure. What a search finds here costs it no budget; each
    such candidate is new to the search, so there are at most as many of them as the file holds. Where the file cannot
    be written any more (a full disk, a lock that is held for half a minute), searches go on without adding to it. Do
    not share a file between versions of a model or a library that the objective's fingerprint cannot tell apart. On a
    network file system it has a rollback journal, which is slower and needs locks that work.

    Arguments:
        path: the file; created where there is none. Its folder must exist.
        scope: part of every key: a name for what an objective's fingerprint cannot see (weights, globals of a plain
            function). Change it when they change.

    Raises:
        CacheError: the file is something else, is damaged, or cannot be opened.

    Example:
        >>> import tempfile
        >>> from searchlib import search
        >>> from searchlib.spaces import Subset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     cache = f"{folder}/scores.db"
        ...     runs = [search(lambda kept: sum(kept), space=Subset(8, k=2), budget=28, cache=cache) for _ in "ab"]
        >>> [(run.history.evaluations, run.cache_hits, run.outcome.name) for run in runs]
        [(28, 0, 'EVALUATIONS'), (0, 28, 'EXHAUSTED')]
    """

    def __init__(self, path: str | Path, *, scope: str = "") -> None:
        self.path, self.scope = file_path("cache", path), instance("scope", scope, str, "a text")
        self._numbers: dict[bytes, int] = {}
        if self.path.is_file() and _begins(self.path) not in (b"", b"SQLite format 3\0"):
            raise CacheError(f"{str(path)!r} is not an evaluation cache; pass another path")
        with self._translated():
            self._connection = sqlite3.connect(self.path, isolation_level=None, timeout=_LOCKED)
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise
        weakref.finalize(self, let_go, self._connection)

    def of(self, objective: Objective, settings: Mapping[str, Any]) -> ObjectiveCache:
        """The part of the file that belongs to an objective, under settings as a study writes them down.

        These are :func:`searchlib.description.identity` and the number of threads.

        Raises:
            InvalidSettings: scores of this objective cannot be shared, or its fingerprint says too little.
        """
        name = type(objective).__name__
        if not objective.shareable:
            raise InvalidSettings(
                f"{name} says that its rows mean something else in another search (shareable=False), so its scores "
                f"cannot be shared; leave cache=… out (a study still resumes it)"
            )
        if objective.recomputable:
            raise InvalidSettings(f"{name} is cheap to evaluate again (recomputable=True); leave cache=… out")
        unseen = objective.unseen()
        if unseen and not self.scope:
            raise InvalidSettings(
                f"the fingerprint of {name} does not show {', '.join(unseen)}, so a cache could not tell when that "
                f"changes; pass cache=EvaluationCache(path, scope='…') with a name for its present state (or give the "
                f"objective a fingerprint() and unseen() that say all)"
            )
        return ObjectiveCache(self, objective, json.dumps({**settings, "scope": self.scope}, sort_keys=True))

    def __len__(self) -> int:
        """How many entries (one candidate on one block of cases each) are on file."""
        with self._translated():
            return int(self._connection.execute("SELECT COUNT(*) FROM score").fetchone()[0])

    def close(self) -> None:
        """Close the file; nothing happens where it is closed already."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, keys: Sequence[bytes]) -> Iterator[tuple[bytes, int, int, bytes, bytes | None]]:
        """Entries ``(candidate, block, status, scores, secondary)`` with these candidate keys, in any order."""
        with self._translated():
            for start in range(0, len(keys), _KEYS):
                part = keys[start : start + _KEYS]
                marks = ",".join("?" * len(part))
                yield from self._connection.execute(f"SELECT * FROM score WHERE candidate IN ({marks})", part)

    def block(self, number: int) -> bytes:
        """Keys of the cases of a block, one behind the other."""
        with self._translated():
            row = self._connection.execute("SELECT cases FROM block WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise CacheError(f"{str(self.path)!r} is damaged (no block {number}); delete it and begin another cache")
        return bytes(row[0])

    def write(self, cases: bytes, entries: Sequence[tuple[bytes, int, bytes, bytes | None]]) -> None:
        """Commit entries ``(candidate, status, scores, secondary)`` of one block; what is on file stays."""
        with self._translated():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                number = self._number(cases)
                rows = [(candidate, number, *rest) for candidate, *rest in entries]
                self._connection.executemany("INSERT OR IGNORE INTO score VALUES (?, ?, ?, ?, ?)", rows)
                self._connection.execute("COMMIT")
            except BaseException:
                self._numbers.clear()  # of blocks that were to be written
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _number(self, cases: bytes) -> int:
        digest = hashlib.blake2b(cases, digest_size=16).digest()
        if digest not in self._numbers:
            self._connection.execute("INSERT OR IGNORE INTO block (digest, cases) VALUES (?, ?)", (digest, cases))
            found = self._connection.execute("SELECT number FROM block WHERE digest = ?", (digest,)).fetchone()
            self._numbers[digest] = int(found[0])
        return self._numbers[digest]

    def _prepare(self) -> None:
        connection = self._connection
        until = time.monotonic() + _LOCKED
        journal = "DELETE" if shared_file_system(self.path) else "WAL"
        while True:  # the switch to a write-ahead log does not wait for another process that makes it
            magic, version, tables = self._signature()
            if tables and (magic, version) != (_MAGIC, _FORMAT):
                what = f"of format {version}, not {_FORMAT}" if magic == _MAGIC else "not an evaluation cache"
                raise CacheError(f"{str(self.path)!r} is {what}; pass another path")
            try:
                chosen = connection.execute(f"PRAGMA journal_mode={journal}").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > until:
                    raise
                time.sleep(0.01)
        # A power cut may cost the last commits, never the file.
        connection.execute(f"PRAGMA synchronous={'NORMAL' if chosen == 'wal' else 'FULL'}")
        if not tables:
            connection.executescript(
                f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id={_MAGIC}; PRAGMA user_version={_FORMAT}; COMMIT;"
            )

    def _signature(self) -> tuple[int, int, int]:
        """Application, format and number of tables, all of one moment: another process may be making them."""
        connection = self._connection
        queries = ("PRAGMA application_id", "PRAGMA user_version", "SELECT COUNT(*) FROM sqlite_master")
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()  # the moment begins with the first read
            magic, version, tables = (int(connection.execute(query).fetchone()[0]) for query in queries)
        finally:
            connection.execute("ROLLBACK")
        return magic, version, tables

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in a sentence what SQLite says in a code."""
        name = repr(str(self.path))
        try:
            yield
        except sqlite3.OperationalError as error:
            raise CacheError(f"the evaluation cache {name} cannot be read or written: {error}") from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise CacheError(
                f"{name} is damaged or not an evaluation cache ({error}); pass another path, or delete the file"
            ) from error


def _begins(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(16)


@final
class ObjectiveCache:
    """The cells of one objective in an :class:`EvaluationCache`.

    Arguments:
        cache: the file.
        objective: whose cells.
        identity: all that decides a cell besides genes and case, as text.
    """

    def __init__(self, cache: EvaluationCache, objective: Objective, identity: str) -> None:
        self._cache, self._space = cache, objective.space
        self._salt = hashlib.blake2b(identity.encode(), digest_size=16).digest()
        self._cases: dict[int, tuple[Cases, list[bytes]]] = {}
        self._places: dict[tuple[int, int], tuple[NDArray[np.intp], NDArray[np.intp], int]] = {}
        self._waiting: dict[bytes, list[tuple[bytes, int, bytes, bytes | None]]] = {}
        self._written, self._given_up = time.monotonic(), False

    def keys(self, rows: Population) -> list[bytes]:
        """The 128-bit name of every candidate, under this objective."""
        digest, salt = hashlib.blake2b, self._salt
        return [digest(key, digest_size=16, key=salt).digest() for key in row_keys(self._space.canonical(rows))]

    def find(self, keys: Sequence[bytes], cases: Cases) -> CachedCells | None:
        """What is on file about candidates with these keys on the cases; None where it is nothing."""
        rows = {key: row for row, key in enumerate(keys)}
        groups: dict[tuple[int, int, int, bool], list[tuple[int, bytes, bytes | None]]] = {}
        for key, block, status, scores, secondary in self._cache.read(list(rows)):
            group = groups.setdefault((block, status, len(scores), secondary is None), [])
            group.append((rows[key], scores, secondary))
        if not groups:
            return None
        n, c = len(keys), len(cases)
        table = np.full((n, c, 1), np.nan)
        second, states = np.full((n, c), np.nan), np.full((n, c), Status.PENDING, np.int8)
        for (block, status, _, single), entries in groups.items():
            source, target, width = self._place(block, cases)
            cells = np.ix_(np.array([row for row, _, _ in entries], np.intp), target)
            if status == Status.DONE:
                values = self._numbers([scores for _, scores, _ in entries], width)[:, source]
                if values.shape[2] != table.shape[2]:
                    if (states == Status.DONE).any():
                        continue  # another number of observations: of no use beside the others
                    table = np.full((n, c, values.shape[2]), np.nan)
                table[cells] = values
            if not single:
                parts = [part for _, _, part in entries if part is not None]
                second[cells] = self._numbers(parts, width)[:, source, 0]
            states[cells] = status
        return CachedCells(table, second, states) if (states != Status.PENDING).any() else None

    def add(self, keys: Sequence[bytes], order: NDArray[np.intp], cases: Cases, scores: ChunkScores) -> None:
        """Keep what has become of a chunk whose rows count along ``order`` (positions of ``keys``).

        It reaches the file soon, at the latest with :meth:`flush`.
        """
        if self._given_up:
            return
        chunk = scores.chunk
        block = b"".join(self._keys_of(cases)[chunk.case : chunk.case_end])
        single = bool(np.isnan(scores.secondary).all())
        waiting = self._waiting.setdefault(block, [])
        for row in np.flatnonzero((scores.status == Status.DONE) | (scores.status == Status.INFEASIBLE)):
            status = int(scores.status[row])
            values = np.ascontiguousarray(scores.values[row]).tobytes() if status == Status.DONE else b""
            secondary = None if single or status != Status.DONE else scores.secondary[row].tobytes()
            waiting.append((keys[order[chunk.row + row]], status, values, secondary))
        if time.monotonic() - self._written > _WAIT:
            self.flush()

    def flush(self) -> None:
        """Commit what waits; what cannot be written is not kept, because a cache is nothing that a search needs."""
        while self._waiting:
            try:
                self._cache.write(*self._waiting.popitem())
            except CacheError as error:
                if not isinstance(error.__cause__, sqlite3.OperationalError):
                    raise
                logger.warning("%s; the search goes on without adding to it", error)
                self._given_up = True
                self._waiting.clear()
        self._written = time.monotonic()

    def _keys_of(self, cases: Cases) -> list[bytes]:
        if id(cases) not in self._cases:
            self._cases[id(cases)] = (cases, case_keys(cases))  # keeps the cases, so that the id stays theirs
        return self._cases[id(cases)][1]

    def _place(self, block: int, cases: Cases) -> tuple[NDArray[np.intp], NDArray[np.intp], int]:
        """Which of a block's cases are wanted, which columns they are, and how many cases the block has."""
        if (block, id(cases)) not in self._places:
            columns = {key: column for column, key in enumerate(self._keys_of(cases))}
            joined = self._cache.block(block)
            parts = [joined[start : start + 16] for start in range(0, len(joined), 16)]
            pairs = [(place, columns[part]) for place, part in enumerate(parts) if part in columns]
            wanted = np.array(pairs, np.intp).reshape(-1, 2)
            self._places[block, id(cases)] = (wanted[:, 0], wanted[:, 1], len(parts))
        return self._places[block, id(cases)]

    def _numbers(self, parts: list[bytes], cases: int) -> NDArray[np.float64]:
        """Equal blobs as an array ``(entries, cases, k)``."""
        try:
            return np.frombuffer(b"".join(parts), np.float64).reshape(len(parts), cases, -1)
        except ValueError as error:
            raise CacheError(
                f"{str(self._cache.path)!r} is damaged (an entry has a wrong length); delete it and begin another cache"
            ) from error
