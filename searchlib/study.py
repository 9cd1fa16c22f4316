"""The journal of a search: one SQLite file from which it resumes bit for bit.

A batch's candidates are committed before they are evaluated, a chunk's scores before they are told. To resume, the
loop asks and tells again what is on file and evaluates only what is missing. A study is data: opening one runs
nothing from it.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.arguments import file_path, whole_number
from searchlib.case_overlap import Overlap
from searchlib.cases import Split
from searchlib.chunks import Chunk, ChunkScores
from searchlib.damage import expected, reading
from searchlib.errors import StudyDamaged, StudyMismatch
from searchlib.front import Front
from searchlib.history import History, Told
from searchlib.holdout import Holdout
from searchlib.memo import Memo
from searchlib.result import Outcome, Result
from searchlib.sealed_file import SealedFile, sealed
from searchlib.seeded_population import bits_of, read_bits
from searchlib.selection_bias import Estimate
from searchlib.space import Population, Space, space_from_json

__all__ = [
    "ASKED", "FORMAT", "GIVEN_SEEDS", "ONCE_UNKNOWN", "PLACE", "RESULT_ROW", "SCHEMA", "STATE", "STATE_ARRAY", "TABLES",
    "StoredBatch", "Study", "check_format",
]  # fmt: skip

#: Version of the file format; :mod:`searchlib.migration` takes files from every older one to this.
FORMAT = 2

#: Label of the batches that the algorithm was asked for.
ASKED = "asked"

#: Name of the array of the given seeds, where these are too many for a setting.
GIVEN_SEEDS = "given seeds"

#: Name of the array of a winner's row, where it has more genes than are stored as text.
RESULT_ROW = "result row"
_LONG_ROW = 10_000

#: What the names of arrays begin with that say in which order batches were told.
PLACE = "told "

#: What early searches did not write down; the numbers of candidates that they asked for are on file.
ONCE_UNKNOWN = ("batch_given",)

#: Name of the setting of the last committed state, and what the names of its arrays begin with.
STATE = "state"
STATE_ARRAY = "state "

#: In which order tables refer to each other.
TABLES = ("setting", "array", "batch", "chunk", "told", "reference", "memo", "digest")

SCHEMA = """
CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL, seal INTEGER NOT NULL);
CREATE TABLE array (
    name TEXT PRIMARY KEY, dtype TEXT NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL, seal INTEGER NOT NULL
);
CREATE TABLE batch (
    number INTEGER PRIMARY KEY, label TEXT NOT NULL, asked INTEGER NOT NULL, rows INTEGER NOT NULL,
    ids BLOB NOT NULL, population BLOB NOT NULL, fresh BLOB NOT NULL, seal INTEGER NOT NULL
);
CREATE TABLE chunk (
    batch INTEGER NOT NULL REFERENCES batch (number), row INTEGER NOT NULL, row_end INTEGER NOT NULL,
    case_start INTEGER NOT NULL, case_end INTEGER NOT NULL, width INTEGER NOT NULL, scores BLOB NOT NULL,
    secondary BLOB, status BLOB NOT NULL, errors TEXT, seconds REAL NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (batch, row, case_start)
);
CREATE TABLE told (
    batch INTEGER PRIMARY KEY REFERENCES batch (number), vals BLOB NOT NULL, secondary BLOB NOT NULL,
    standard_error BLOB NOT NULL, status BLOB NOT NULL, errors TEXT, seconds REAL NOT NULL, seal INTEGER NOT NULL
);
CREATE TABLE reference (
    name TEXT NOT NULL, split TEXT NOT NULL, width INTEGER NOT NULL, scores BLOB NOT NULL, seal INTEGER NOT NULL,
    PRIMARY KEY (name, split)
);
CREATE TABLE memo (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, seal INTEGER NOT NULL,
    UNIQUE (kind, key)
);
CREATE TABLE digest (
    batch INTEGER PRIMARY KEY REFERENCES batch (number), omitted INTEGER NOT NULL, value TEXT NOT NULL,
    seal INTEGER NOT NULL
);
"""


def check_format(file: SealedFile) -> None:
    """Refuse what is not a study of the present format.

    Raises:
        StudyDamaged: it is of another format, which the message names with what to do, or no study at all.
    """
    with file.translated():
        version = file.execute("PRAGMA user_version").fetchone()[0]
        tables = {row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    name = repr(str(file.path))
    if version > FORMAT:
        raise StudyDamaged(
            f"{name} has format {version}, but this version of searchlib reads format {FORMAT}; use a newer searchlib, "
            f"or begin another study"
        )
    if 0 < version < FORMAT:
        raise StudyDamaged(
            f"{name} has format {version}, but this version of searchlib reads format {FORMAT}; bring it there with "
            f"`python -m searchlib migrate {shlex.quote(str(file.path))}`, which keeps the old file beside it"
        )
    missing = set(TABLES) - tables
    if missing or version < 1:
        raise StudyDamaged(f"{name} is a SQLite file but not a study (no table {sorted(missing)})")


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

    def __init__(self, file: SealedFile) -> None:
        self.path, self._file = file.path, file
        self._next = 0  # number of the next batch

    @classmethod
    def open(cls, path: str | Path) -> Study:
        """Open an existing study for reading.

        Raises:
            StudyDamaged: there is no such file, or it is not a study of this version.
        """
        path = file_path("the path of a study", path)
        if not path.is_file():
            raise StudyDamaged(f"there is no study at {str(path)!r}")
        study = cls(SealedFile.reading(path))
        try:
            if study._file.one("PRAGMA user_version") or study._file.one("SELECT COUNT(*) FROM sqlite_master"):
                check_format(study._file)
            if not study._has("setting") or "space" not in study.settings:
                raise StudyDamaged(f"{str(path)!r} is empty: its search has had no time to begin; search again")
        except BaseException:
            study.close()
            raise
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
        study = cls(SealedFile.writing(file_path("study", path)))
        try:
            study._prepare(settings, fixed)
        except BaseException:
            study.close()
            raise
        return study

    def _prepare(self, settings: Mapping[str, Any], fixed: tuple[str, ...]) -> None:
        connection = self._file.connection
        with self._file.translated():
            new = not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
            if not new:
                check_format(self._file)
            self._file.choose_journal()
            if new:
                connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={FORMAT}; COMMIT;")
            begun = connection.execute("SELECT 1 FROM batch LIMIT 1").fetchone()
        if begun:
            self._compare(settings, fixed)
        else:  # nothing was evaluated yet, so there is nothing to contradict
            with self._file.transaction():
                self._file.change("DELETE FROM array")
                if self._differences(settings, fixed):
                    self._file.change("DELETE FROM memo")
            self.write_settings(settings)
        # Counted from here on, not on file: another writer, where locks hold nobody, then collides instead of mingling.
        self._next = self._file.one("SELECT COALESCE(MAX(number) + 1, 0) FROM batch")

    def flush(self) -> None:
        """Bring everything into the one file, so that it can be copied."""
        self._file.flush()

    def close(self) -> None:
        """Close the file; the object cannot be used any more. Nothing happens where it is closed already."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    @reading
    def settings(self) -> dict[str, Any]:
        """What the search was started with, and (under ``"result"``) how it ended."""
        rows = self._file.rows("SELECT name, value, seal FROM setting")
        return {name: json.loads(value) for name, value in rows}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Store JSON values under their names, replacing what was there."""
        rows = [(name, json.dumps(value, allow_nan=False)) for name, value in settings.items()]
        with self._file.transaction(math.inf):
            for row in rows:
                self._file.insert("setting", *row, replace=True)

    @reading
    def read_array(self, name: str) -> NDArray[Any] | None:
        """A stored array, or None."""
        for _, dtype, shape, data in self._file.rows("SELECT * FROM array WHERE name = ?", name):
            return np.frombuffer(data, np.dtype(dtype)).reshape(json.loads(shape)).copy()
        return None

    def write_array(self, name: str, array: NDArray[Any]) -> None:
        """Store an array."""
        with self._file.transaction():
            self._insert_array(name, array)

    def _insert_array(self, name: str, array: NDArray[Any]) -> None:
        data = np.ascontiguousarray(array)
        self._file.insert("array", name, data.dtype.str, json.dumps(data.shape), data.tobytes(), replace=True)

    @reading
    def batches(self, label: str = ASKED, after: int = -1) -> Iterator[StoredBatch]:
        """The batches with a label and a number beyond ``after``, in order; by default all that were asked for."""
        settings = self.settings
        dtype, dimension = np.dtype(settings["dtype"]), settings["dimension"]
        rows = self._file.rows("SELECT * FROM batch WHERE label = ? AND number > ? ORDER BY number", label, after)
        if self._file.one("SELECT COUNT(*) - COALESCE(MAX(number) + 1, 0) FROM batch"):
            raise StudyDamaged(f"{str(self.path)!r} is damaged: a batch is missing; begin another study")
        digests = self._digests()
        for number, _, asked, n, ids, population, fresh in rows:
            expected(isinstance(asked, int) and min(asked, n) >= 0, f"asked for {asked!r:.50}, got {n!r:.50}")
            expected((len(ids), len(fresh)) == (8 * n, n), f"{len(ids)} bytes of ids for {n} rows")
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
        number = self._next
        with self._file.transaction():
            self._file.insert(
                "batch", number, label, asked, len(ids), np.ascontiguousarray(ids, np.int64).tobytes(),
                bits_of(population), np.ascontiguousarray(fresh, np.bool_).tobytes(),
            )  # fmt: skip
            if digest:
                self._file.insert("digest", number, omitted, digest)
        self._next += 1
        return number

    @reading
    def chunks(self, batch: int) -> Iterator[ChunkScores]:
        """The finished chunks of a batch."""
        rows = self._file.rows("SELECT * FROM chunk WHERE batch = ? ORDER BY row, case_start", batch)
        for _, row, row_end, case, case_end, width, scores, secondary, status, errors, seconds in rows:
            n, c = row_end - row, case_end - case
            expected(row >= 0 < n and case >= 0 < c and width >= 0, "a chunk of no rows or cases")
            expected(len(status) == n and max(status) <= max(Status), f"status {status!r:.50}")
            expected(errors is None or len(json.loads(errors)) == n, f"errors {errors!r:.50}")
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
        with self._file.transaction(scores.seconds):
            self._file.insert("chunk", *columns)
            if hits is not None:
                self._insert_array(f"hits {batch}", hits)

    def hits(self, batch: int) -> NDArray[np.bool_] | None:
        """Which new rows of a batch an evaluation cache has answered, or None where it has not answered any."""
        return self.read_array(f"hits {batch}")

    def write_told(self, batch: int, told: Told, seconds: float, place: tuple[int, int] | None = None) -> None:
        """Commit what the algorithm is about to be told about a batch.

        Where batches are not told in the order in which they were asked for, ``place`` says how many were told and how
        many had been asked for before.
        """
        columns = (told.values, told.secondary, told.standard_error)
        blobs = [np.ascontiguousarray(column, np.float64).tobytes() for column in columns]
        errors = json.dumps(told.errors) if any(told.errors) else None
        with self._file.transaction():
            self._file.insert("told", batch, *blobs, told.status.astype(np.int8).tobytes(), errors, seconds)
            if place is not None:
                self._insert_array(f"{PLACE}{place[0]:09d}", np.array([batch, place[1]]))
        if told.stopped is not None and told.stopped.any():
            self.write_array(f"stopped {batch}", told.stopped)

    @reading
    def tells(self) -> list[tuple[int, int]]:
        """In the order of telling, batches and how many had been asked for before; empty where both orders are one."""
        rows = self._file.rows("SELECT * FROM array WHERE name GLOB ? ORDER BY name", f"{PLACE}*")
        return [(int(batch), int(asked)) for batch, asked in (np.frombuffer(row[3], row[1]) for row in rows)]

    @reading
    def told(self, batch: StoredBatch) -> Told | None:
        """What was told about a batch, or None where it was not finished."""
        rows = self._file.rows("SELECT * FROM told WHERE batch = ?", batch.number)
        if not rows:
            return None
        n, (_, *blobs, status, errors, _) = len(batch.ids), rows[0]
        vals, secondary, error = (np.frombuffer(blob, np.float64) for blob in blobs)
        return Told(
            batch.ids,
            batch.population,
            vals.reshape(n, -1),
            secondary,
            error.reshape(n, -1),
            np.frombuffer(status, np.int8),
            batch.fresh,
            ("",) * n if errors is None else tuple(json.loads(errors)),
            self.read_array(f"stopped {batch.number}"),
            self._cached(batch),
        )

    @reading
    def told_until(self, last: int) -> tuple[Told, dict[int, int]]:
        """All that was told about the batches up to number ``last``, as one, and the candidates of each by its number.

        Of searches whose every batch is on file whole and was met by no race and no cache.
        """
        settings = self.settings
        objectives = 1 if isinstance(settings["direction"], str) else len(settings["direction"])
        dtype, dimension = np.dtype(settings["dtype"]), settings["dimension"]
        asked = self._file.rows("SELECT * FROM batch WHERE label = ? AND number <= ? ORDER BY number", ASKED, last)
        told = self._file.rows("SELECT * FROM told WHERE batch <= ? ORDER BY batch", last)
        numbers = [row[0] for row in asked]
        expected(bool(numbers) and numbers[-1] == last, f"batch {last!r:.50} is none of its search")
        expected(numbers == [row[0] for row in told], "batches without what was told")
        errors: list[str] = []
        for (*_, size, ids, rows, fresh), told_row in zip(asked, told, strict=True):
            _, vals, secondary, error, status, texts, _ = told_row
            lengths = [len(part) for part in (ids, fresh, status, secondary, vals, error, rows)]
            wide = 8 * size * objectives
            right = [8 * size, size, size, 8 * size, wide, wide, size * dimension * dtype.itemsize]
            expected(lengths == right, f"{lengths} bytes for {size!r:.50} candidates")
            errors += [""] * size if texts is None else json.loads(texts)

        def joined(rows: list[tuple[Any, ...]], column: int, dtype: Any, *shape: int) -> NDArray[Any]:
            return np.frombuffer(b"".join(row[column] for row in rows), dtype).reshape(len(errors), *shape)

        values, error = joined(told, 1, np.float64, objectives), joined(told, 3, np.float64, objectives)
        status = joined(told, 4, np.int8)
        expected(len(status) == 0 or 0 <= status.min() <= status.max() <= max(Status), "status of no kind")
        return Told(
            joined(asked, 4, np.int64), joined(asked, 5, dtype, dimension), values, joined(told, 2, np.float64), error,
            status, joined(asked, 6, np.bool_), tuple(errors),
        ), {row[0]: row[3] for row in asked}  # fmt: skip

    @reading
    def read_state(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """The last committed state, as :meth:`write_state` was given it, or None where there is none."""
        stored = self.settings.get(STATE)
        if stored is None:
            return None
        arrays = {name: self.read_array(f"{STATE_ARRAY}{name}") for name in stored["arrays"]}
        expected(all(array is not None for array in arrays.values()), "a state without its arrays")
        return stored["search"], {**stored["values"], **arrays}

    @property
    @reading
    def told_in_part(self) -> bool:
        """Whether a race has stopped candidates, or an evaluation cache has answered some."""
        return bool(self._file.one("SELECT COUNT(*) FROM array WHERE name GLOB 'hits *' OR name GLOB 'stopped *'"))

    def write_state(self, search: Mapping[str, Any], run: Mapping[str, Any]) -> None:
        """Commit a state in place of the one before.

        Arguments:
            search: JSON values of the search itself.
            run: arrays and JSON values of its algorithm, by their names.
        """
        arrays = {name: item for name, item in run.items() if isinstance(item, np.ndarray)}
        values = {name: item for name, item in run.items() if name not in arrays}
        data = json.dumps({"search": search, "arrays": list(arrays), "values": values}, allow_nan=False)
        with self._file.transaction():
            for name, array in arrays.items():
                self._insert_array(f"{STATE_ARRAY}{name}", array)
            self._file.insert("setting", STATE, data, replace=True)

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

    @reading
    def history(self) -> History:
        """Everything told so far, exactly as the search itself has it."""
        direction = self.settings["direction"]
        history = History(self.space, 1 if isinstance(direction, str) else len(direction))
        batches: Iterable[StoredBatch] = self.batches()
        if tells := self.tells():
            by_number = {batch.number: batch for batch in batches}
            if unknown := [number for number, _ in tells if number not in by_number]:
                raise StudyDamaged(f"{str(self.path)!r} is damaged: batch {unknown[0]} was told, but is missing")
            batches = [by_number[number] for number, _ in tells]
        for batch in batches:
            told = self.told(batch)
            if told is not None:
                history.append(told, batch.omitted, batch.digest)
        return history

    @reading
    def best(self, n: int = 1) -> list[Any]:
        """The best ``n`` different candidates told so far, as typed values: ``seeds=`` of another search.

        By their value on the SEARCH cases; of several objectives by the first.

        Raises:
            InvalidSettings: ``n`` is no whole number of at least 1.
        """
        n, history = whole_number("n", n, 1), self.history()
        direction = self.settings["direction"]
        sign = -1.0 if (direction if isinstance(direction, str) else direction[0]) == "maximize" else 1.0
        values = sign * history.values[:, 0]
        order = np.argsort(values, kind="stable")
        able = order[(history.fresh & ~history.stopped & (history.status == Status.DONE))[order]][:n]
        return [self.space.decode(row) for row in history.population[able]]

    @reading
    def result(self) -> Result:
        """The result as far as it is on file; ``best`` is the winner's typed value, not the objective's artifact."""
        settings, space = self.settings, self.space
        stored = settings.get("result", {})
        row = self.read_array(RESULT_ROW) if stored.get("row") is None else np.array(stored["row"], space.dtype)
        seconds = self._file.one("SELECT COALESCE(SUM(seconds), 0) FROM told")
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
            direction=tuple(np.atleast_1d(settings["direction"]).tolist()),
        )

    def write_result(self, result: Result) -> None:
        """Store how the search ended."""
        data = result.to_json()
        if result.row is not None and len(result.row) > _LONG_ROW:
            data["row"] = None
            self.write_array(RESULT_ROW, result.row)
        self.write_settings({"result": data})

    @reading
    def reference(self, name: str, split: Split) -> NDArray[np.float64] | None:
        """The scores ``(c, k)`` of a reference, or None where they are not on file."""
        for row in self._file.rows("SELECT * FROM reference WHERE name = ? AND split = ?", name, split.value):
            return np.frombuffer(row[3], np.float64).reshape(-1, row[2])
        return None

    def write_reference(self, name: str, split: Split, scores: NDArray[np.float64]) -> None:
        """Commit the scores ``(c, k)`` of a reference."""
        with self._file.transaction(math.inf):
            data = np.ascontiguousarray(scores, np.float64).tobytes()
            self._file.insert("reference", name, split.value, scores.shape[1], data, replace=True)

    @reading
    def memo(self) -> Memo:
        """What the search must not make twice; in a study that was opened for writing it takes new entries."""
        entries = self._file.rows("SELECT kind, key, value, seal FROM memo ORDER BY number")
        return Memo(entries, self._write_memo)

    def _write_memo(self, kind: str, key: str, value: str) -> None:
        with self._file.transaction(math.inf):
            row = (kind, key, value)
            self._file.change("INSERT INTO memo (kind, key, value, seal) VALUES (?, ?, ?, ?)", *row, sealed(row))

    def _digests(self) -> dict[int, tuple[int, str]]:
        return {batch: (omitted, value) for batch, omitted, value in self._file.rows("SELECT * FROM digest")}

    def _has(self, table: str) -> bool:
        return bool(self._file.one(f"SELECT COUNT(*) FROM sqlite_master WHERE name = '{table}'"))

    def _differences(self, settings: Mapping[str, Any], fixed: tuple[str, ...]) -> list[str]:
        stored = self.settings
        now = json.loads(json.dumps({name: settings[name] for name in fixed}))
        return [f"{name}: {stored.get(name)!r:.500} on file, {now[name]!r:.500} now" for name in fixed
                if stored.get(name) != now[name] and not (name in ONCE_UNKNOWN and name not in stored)]  # fmt: skip

    def _compare(self, settings: Mapping[str, Any], fixed: tuple[str, ...]) -> None:
        different = self._differences(settings, fixed)
        if different:
            raise StudyMismatch(
                f"{str(self.path)!r} holds another search; use another file, or make these agree:\n  "
                + "\n  ".join(different)
            )
