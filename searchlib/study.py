"""The journal of a search: one SQLite file from which it resumes bit for bit.

A batch's candidates are committed before they are evaluated, a chunk's scores before they are told. To resume, the
loop asks and tells again what is on file and evaluates only what is missing. A study is data: opening one runs
nothing from it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.case_overlap import Overlap
from searchlib.cases import Split
from searchlib.errors import StudyBusy, StudyDamaged, StudyError, StudyMismatch
from searchlib.evaluation import Chunk, ChunkScores
from searchlib.front import Front
from searchlib.history import History, Told
from searchlib.holdout import Holdout
from searchlib.memo import Memo
from searchlib.result import Outcome, Result
from searchlib.seeded_population import bits_of, read_bits
from searchlib.selection_bias import Estimate
from searchlib.space import Population, Space, space_from_json

try:
    import fcntl
except ImportError:  # not a POSIX system: two writers still collide on the number of their next batch
    fcntl = None  # type: ignore[assignment]

__all__ = ["ASKED", "FORMAT", "GIVEN_SEEDS", "StoredBatch", "Study"]

#: Version of the file format.
FORMAT = 1

#: Label of the batches that the algorithm was asked for.
ASKED = "asked"

#: Commits closer together than this share one flush to the disk: a killed process loses nothing, a power cut at
#: most this much work.
_FLUSH_SECONDS = 0.02

#: Name of the array of the given seeds, where these are too many for a setting.
GIVEN_SEEDS = "given seeds"

#: Genes of a winner beyond which its row is stored as an array, under this name, and not as text.
_LONG_ROW, _RESULT_ROW = 10_000, "result row"

_SCHEMA = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE array (name TEXT PRIMARY KEY, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL);
CREATE TABLE batch (
    number INTEGER PRIMARY KEY, label TEXT NOT NULL, asked INTEGER NOT NULL, rows INTEGER NOT NULL,
    ids BLOB NOT NULL, population BLOB NOT NULL, fresh BLOB NOT NULL
);
CREATE TABLE chunk (
    batch INTEGER NOT NULL REFERENCES batch (number), row INTEGER NOT NULL, row_end INTEGER NOT NULL,
    case_start INTEGER NOT NULL, case_end INTEGER NOT NULL, width INTEGER NOT NULL, scores BLOB NOT NULL,
    secondary BLOB, status BLOB NOT NULL, errors TEXT, seconds REAL NOT NULL,
    PRIMARY KEY (batch, row, case_start)
);
CREATE TABLE told (
    batch INTEGER PRIMARY KEY REFERENCES batch (number), vals BLOB NOT NULL, secondary BLOB NOT NULL,
    standard_error BLOB NOT NULL, status BLOB NOT NULL, errors TEXT, seconds REAL NOT NULL
);
CREATE TABLE reference (
    name TEXT NOT NULL, split TEXT NOT NULL, width INTEGER NOT NULL, scores BLOB NOT NULL, PRIMARY KEY (name, split)
);
CREATE TABLE memo (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (kind, key)
);
CREATE TABLE digest (
    batch INTEGER PRIMARY KEY REFERENCES batch (number), omitted INTEGER NOT NULL, value TEXT NOT NULL
);
"""


@final
@dataclass(frozen=True, eq=False)
class StoredBatch:
    """A batch on file: what for (``label``), the n of ``ask(n)`` (``asked``), which rows are new (``fresh``).

    Where the objective is cheap to recompute, ``digest`` is that of the whole batch, and ``omitted`` of its candidates
    are not on file.
    """

    number: int
    label: str
    asked: int
    ids: NDArray[np.int64]
    population: Population
    fresh: NDArray[np.bool_]
    omitted: int = 0
    digest: str = ""


@final
class Study:
    """One search on file. ``Study.open(path)`` reads it; ``search(..., study=path)`` writes and resumes it."""

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int | None = None) -> None:
        self.path = path
        self._release = None if lock is None else weakref.finalize(self, _unlock, path, lock)
        self._connection = connection
        self._flushed = time.monotonic()
        self._next = -1  # number of the next batch, once it is known

    @classmethod
    def open(cls, path: str | Path) -> Study:
        """Open an existing study for reading.

        Raises:
            StudyDamaged: there is no such file, or it is not a study of this version.
        """
        path = Path(path)
        if not path.is_file():
            raise StudyDamaged(f"there is no study at {str(path)!r}")
        study = cls(path, sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None))
        study._check_format()
        return study

    @classmethod
    def create_or_resume(cls, path: str | Path, settings: Mapping[str, Any], fixed: tuple[str, ...]) -> Study:
        """Open a study for writing, creating it where there is none.

        Arguments:
            path: the file; its folder must exist.
            settings: JSON values that describe the search.
            fixed: names of the settings that must be the same as on file.

        Raises:
            StudyMismatch: the file holds another search; the message lists what differs.
            StudyBusy: another search, here or in another process, is writing.
        """
        path = Path(path)
        lock = _locked(path)
        try:
            connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        except sqlite3.OperationalError as error:
            _unlock(path, lock)
            raise StudyError(f"cannot open or create the study {str(path)!r}: {error}") from error
        study = cls(path, connection, lock)
        try:
            study._prepare(settings, fixed)
        except BaseException:
            study.close()
            raise
        return study

    def _prepare(self, settings: Mapping[str, Any], fixed: tuple[str, ...]) -> None:
        connection = self._connection
        with self._translated():
            new = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            if not new:
                self._check_format()
            connection.execute("PRAGMA journal_mode=WAL")
            if new:
                connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version={FORMAT}; COMMIT;")
            begun = connection.execute("SELECT 1 FROM batch LIMIT 1").fetchone()
        if begun:
            self._compare(settings, fixed)
        else:  # nothing was evaluated yet, so there is nothing to contradict
            with self._transaction():
                connection.execute("DELETE FROM array")
                if self._differences(settings, fixed):
                    connection.execute("DELETE FROM memo")
            self.write_settings(settings)

    def flush(self) -> None:
        """Bring everything into the one file, so that it can be copied."""
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the file; the object cannot be used any more. Nothing happens where it is closed already."""
        self._connection.close()
        if self._release is not None:
            self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def settings(self) -> dict[str, Any]:
        """What the search was started with, and (under ``"result"``) how it ended."""
        with self._translated():
            rows = self._connection.execute("SELECT name, value FROM setting").fetchall()
        return {name: json.loads(value) for name, value in rows}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Store JSON values under their names, replacing what was there."""
        rows = [(name, json.dumps(value, allow_nan=False)) for name, value in settings.items()]
        with self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO setting VALUES (?, ?)", rows)

    def read_array(self, name: str) -> NDArray[Any] | None:
        """A stored array, or None."""
        row = self._connection.execute("SELECT dtype, shape, data FROM array WHERE name = ?", (name,)).fetchone()
        return None if row is None else np.frombuffer(row[2], np.dtype(row[0])).reshape(json.loads(row[1])).copy()

    def write_array(self, name: str, array: NDArray[Any]) -> None:
        """Store an array."""
        with self._transaction():
            self._insert_array(name, array)

    def _insert_array(self, name: str, array: NDArray[Any]) -> None:
        data = np.ascontiguousarray(array)
        row = (name, data.dtype.str, json.dumps(data.shape), data.tobytes())
        self._connection.execute("INSERT OR REPLACE INTO array VALUES (?, ?, ?, ?)", row)

    def batches(self, label: str = ASKED) -> Iterator[StoredBatch]:
        """The batches with a label, in order; by default those that the algorithm was asked for."""
        settings = self.settings
        dtype, dimension = np.dtype(settings["dtype"]), settings["dimension"]
        query = "SELECT number, asked, rows, ids, population, fresh FROM batch WHERE label = ? ORDER BY number"
        with self._translated():
            rows = self._connection.execute(query, (label,)).fetchall()
        digests = self._digests()
        for number, asked, n, ids, population, fresh in rows:
            yield StoredBatch(
                number,
                label,
                asked,
                np.frombuffer(ids, np.int64),
                read_bits(population, (n, dimension), dtype),
                np.frombuffer(fresh, np.bool_),
                *digests.get(number, ()),
            )

    def write_batch(
        self, label: str, asked: int, ids: NDArray[np.int64], population: Population, fresh: NDArray[np.bool_],
        omitted: int = 0, digest: str = "",
    ) -> int:  # fmt: skip
        """Commit the candidates of a new batch, or what is kept of them, and return its number."""
        if self._next < 0:
            self._next = self._connection.execute("SELECT COALESCE(MAX(number) + 1, 0) FROM batch").fetchone()[0]
        number = self._next  # counted here, not on file: another writer then collides instead of mingling
        with self._transaction():
            self._connection.execute(
                "INSERT INTO batch VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    label,
                    asked,
                    len(ids),
                    np.ascontiguousarray(ids, np.int64).tobytes(),
                    bits_of(population),
                    np.ascontiguousarray(fresh, np.bool_).tobytes(),
                ),
            )
            if digest:
                self._connection.execute("INSERT INTO digest VALUES (?, ?, ?)", (number, omitted, digest))
        self._next += 1
        return number

    def chunks(self, batch: int) -> Iterator[ChunkScores]:
        """The finished chunks of a batch."""
        query = "SELECT * FROM chunk WHERE batch = ? ORDER BY row, case_start"
        with self._translated():
            rows = self._connection.execute(query, (batch,)).fetchall()
        for _, row, row_end, case, case_end, width, scores, secondary, status, errors, seconds in rows:
            n, c = row_end - row, case_end - case
            yield ChunkScores(
                Chunk(row, row_end, case, case_end),
                np.frombuffer(scores, np.float64).reshape(n, c, width),
                np.full((n, c), np.nan) if secondary is None else np.frombuffer(secondary, np.float64).reshape(n, c),
                np.frombuffer(status, np.int8),
                ("",) * n if errors is None else tuple(json.loads(errors)),
                seconds,
            )

    def write_chunk(self, batch: int, scores: ChunkScores, hits: NDArray[np.bool_] | None = None) -> None:
        """Commit the scores of a chunk; beside the first that a cache has answered, which new rows it knows whole."""
        chunk, secondary = scores.chunk, scores.secondary
        values = np.ascontiguousarray(scores.values)
        columns = (
            *(batch, chunk.row, chunk.row_end, chunk.case, chunk.case_end, values.shape[2], values.tobytes()),
            None if np.isnan(secondary).all() else np.ascontiguousarray(secondary).tobytes(),
            scores.status.tobytes(),
            json.dumps(scores.errors) if any(scores.errors) else None,
            scores.seconds,
        )
        with self._transaction():
            self._connection.execute("INSERT INTO chunk VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", columns)
            if hits is not None:
                self._insert_array(f"hits {batch}", hits)

    def hits(self, batch: int) -> NDArray[np.bool_] | None:
        """Which new rows of a batch an evaluation cache has answered, or None where it has not answered any."""
        return self.read_array(f"hits {batch}")

    def write_told(self, batch: int, told: Told, seconds: float) -> None:
        """Commit what the algorithm is about to be told about a batch."""
        columns = (told.values, told.secondary, told.standard_error)
        blobs = [np.ascontiguousarray(column, np.float64).tobytes() for column in columns]
        errors = json.dumps(told.errors) if any(told.errors) else None
        with self._transaction():
            self._connection.execute(
                "INSERT INTO told VALUES (?, ?, ?, ?, ?, ?, ?)",
                (batch, *blobs, told.status.astype(np.int8).tobytes(), errors, seconds),
            )
        if told.stopped is not None and told.stopped.any():
            self.write_array(f"stopped {batch}", told.stopped)

    def told(self, batch: StoredBatch) -> Told | None:
        """What was told about a batch, or None where it was not finished."""
        query = "SELECT vals, secondary, standard_error, status, errors FROM told WHERE batch = ?"
        row = self._connection.execute(query, (batch.number,)).fetchone()
        if row is None:
            return None
        n = len(batch.ids)
        vals, secondary, error = (np.frombuffer(blob, np.float64) for blob in row[:3])
        return Told(
            batch.ids,
            batch.population,
            vals.reshape(n, -1),
            secondary,
            error.reshape(n, -1),
            np.frombuffer(row[3], np.int8),
            batch.fresh,
            ("",) * n if row[4] is None else tuple(json.loads(row[4])),
            self.read_array(f"stopped {batch.number}"),
            self._cached(batch),
        )

    def _cached(self, batch: StoredBatch) -> NDArray[np.bool_] | None:
        hits = self.hits(batch.number)
        if hits is None:
            return None
        cached = np.zeros(len(batch.ids), np.bool_)
        cached[np.flatnonzero(batch.fresh)] = hits
        return cached

    @property
    def space(self) -> Space:
        """The space that was searched.

        Raises:
            InvalidSettings: its class has not been imported (``import searchlib.spaces`` for the built-in ones).
        """
        return space_from_json(self.settings["space"])

    def history(self) -> History:
        """Everything told so far, exactly as the search itself has it."""
        direction = self.settings["direction"]
        history = History(self.space, 1 if isinstance(direction, str) else len(direction))
        for batch in self.batches():
            told = self.told(batch)
            if told is not None:
                history.append(told, batch.omitted, batch.digest)
        return history

    def result(self) -> Result:
        """The result as far as it is on file; ``best`` is the winner's typed value, not the objective's artifact."""
        settings, space = self.settings, self.space
        stored = settings.get("result", {})
        row = self.read_array(_RESULT_ROW) if stored.get("row") is None else np.array(stored["row"], space.dtype)
        seconds = self._connection.execute("SELECT COALESCE(SUM(seconds), 0) FROM told").fetchone()[0]
        return Result(
            best=None if row is None else space.decode(row),
            row=row,
            value=float("nan") if stored.get("value") is None else stored["value"],
            holdout=None if stored.get("holdout") is None else Holdout.from_json(stored["holdout"]),
            history=self.history(),
            outcome=Outcome[stored.get("outcome", "RUNNING")],
            algorithm=settings["algorithm"],
            seconds=seconds,
            notes=stored.get("notes", {}),
            front=Front.from_json(stored["front"], space, settings["direction"]) if "front" in stored else None,
            optimism=Estimate.from_json(stored.get("optimism")),
            corrected=Estimate.from_json(stored.get("corrected")),
            overlaps=tuple(map(Overlap.from_json, stored.get("overlaps", ()))),
        )

    def write_result(self, result: Result) -> None:
        """Store how the search ended."""
        data = result.to_json()
        if result.row is not None and len(result.row) > _LONG_ROW:
            data["row"] = None
            self.write_array(_RESULT_ROW, result.row)
        self.write_settings({"result": data})

    def reference(self, name: str, split: Split) -> NDArray[np.float64] | None:
        """The scores ``(c, k)`` of a reference, or None where they are not on file."""
        query = "SELECT width, scores FROM reference WHERE name = ? AND split = ?"
        row = self._connection.execute(query, (name, split.value)).fetchone()
        return None if row is None else np.frombuffer(row[1], np.float64).reshape(-1, row[0])

    def write_reference(self, name: str, split: Split, scores: NDArray[np.float64]) -> None:
        """Commit the scores ``(c, k)`` of a reference."""
        with self._transaction():
            self._connection.execute(
                "INSERT OR REPLACE INTO reference VALUES (?, ?, ?, ?)",
                (name, split.value, scores.shape[1], np.ascontiguousarray(scores, np.float64).tobytes()),
            )

    def memo(self) -> Memo:
        """What the search must not make twice; in a study that was opened for writing it takes new entries."""
        with self._translated():
            entries = self._connection.execute("SELECT kind, key, value FROM memo ORDER BY number").fetchall()
        return Memo(entries, self._write_memo)

    def _write_memo(self, kind: str, key: str, value: str) -> None:
        with self._transaction():
            self._connection.execute("INSERT INTO memo (kind, key, value) VALUES (?, ?, ?)", (kind, key, value))

    def _digests(self) -> dict[int, tuple[int, str]]:
        rows = self._connection.execute("SELECT batch, omitted, value FROM digest").fetchall()
        return {batch: (omitted, value) for batch, omitted, value in rows}

    def _check_format(self) -> None:
        with self._translated():
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            tables = {row[0] for row in self._connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if version > FORMAT:
            raise StudyDamaged(
                f"{str(self.path)!r} has format {version}, but this version of searchlib reads format {FORMAT}; "
                f"use a newer searchlib"
            )
        missing = {"setting", "array", "batch", "chunk", "told", "reference", "memo", "digest"} - tables
        if missing or version < 1:
            raise StudyDamaged(f"{str(self.path)!r} is a SQLite file but not a study (no table {sorted(missing)})")

    def _differences(self, settings: Mapping[str, Any], fixed: tuple[str, ...]) -> list[str]:
        stored = self.settings
        now = json.loads(json.dumps({name: settings[name] for name in fixed}))
        return [f"{name}: {stored.get(name)!r:.500} on file, {now[name]!r:.500} now" for name in fixed
                if stored.get(name) != now[name]]  # fmt: skip

    def _compare(self, settings: Mapping[str, Any], fixed: tuple[str, ...]) -> None:
        different = self._differences(settings, fixed)
        if different:
            raise StudyMismatch(
                f"{str(self.path)!r} holds another search; use another file, or make these agree:\n  "
                + "\n  ".join(different)
            )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._translated():
            now = time.monotonic()
            flush = now - self._flushed >= _FLUSH_SECONDS
            self._connection.execute(f"PRAGMA synchronous={'FULL' if flush else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise
            if flush:
                self._flushed = now

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in a sentence what SQLite says in a code."""
        name = repr(str(self.path))
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise StudyBusy(f"another process is writing to {name}; stop it, or use another file") from error
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StudyBusy(f"another process is writing to {name}; stop it, or use another file") from error
            raise StudyError(f"cannot read or write the study {name}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise StudyDamaged(f"{name} cannot be read as a study: {error}") from error


def _locked(path: Path) -> int:
    """An exclusive lock beside the file, as an open file descriptor: gone with this process however it ends."""
    try:
        lock = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise StudyError(f"cannot open or create the study {str(path)!r}: {error}") from error
    if fcntl is not None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise StudyBusy(
                f"another search is writing to {str(path)!r}; stop it (or close() it, if it is in this program), "
                f"or use another file"
            ) from error
    return lock


def _unlock(path: Path, lock: int) -> None:
    Path(f"{path}-lock").unlink(missing_ok=True)
    os.close(lock)
