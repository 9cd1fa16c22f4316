"""What is sound of a damaged study, as a study of its own."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np

from searchlib.arguments import file_path
from searchlib.damage import reading
from searchlib.description import FIXED
from searchlib.errors import StudyDamaged, StudyError
from searchlib.sealed_file import SealedFile, sealed
from searchlib.study import (
    ASKED,
    FORMAT,
    GIVEN_SEEDS,
    ONCE_UNKNOWN,
    PLACE,
    RESULT_ROW,
    SCHEMA,
    STATE,
    STATE_ARRAY,
    TABLES,
    Study,
    check_format,
)

__all__ = ["Repaired", "repaired"]

#: Settings without which nothing else can be read, and that are there once a batch is.
_NEEDED = {"space", "dtype", "dimension", "direction", "algorithm", "planned", *FIXED} - {*ONCE_UNKNOWN}

#: What the names of arrays begin with that belong to one batch: without them its scores are somebody else's.
_OF_A_BATCH = ("hits ", "stopped ")

Rows = list[tuple[Any, ...]]


@final
@dataclass(frozen=True)
class Repaired:
    """What became of a damaged study.

    Arguments:
        path: the copy.
        batches: that are in it, of those that the algorithm was asked for.
        candidates: that are in it with all that was told of them.
        left_out: rows of the file that are not: damaged ones, and those that follow from what was lost.
    """

    path: Path
    batches: int
    candidates: int
    left_out: int

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.candidates} candidates of {self.batches} batches are sound, {self.left_out} rows of "
            f"the file were left out; search again with this study, and only what is missing is evaluated"
        )


def repaired(path: str | Path, to: str | Path) -> Repaired:
    """Write what is sound of a study into another file, from which its search goes on.

    Rows with a wrong checksum, or on pages that cannot be read, are left out; so are all batches from the first one on
    that is itself lost, because nobody knows any more what the algorithm asked for. Scores that are lost are evaluated
    again when the search goes on. The damaged file stays as it is.

    Arguments:
        path: the damaged study.
        to: a file that is not there yet.

    Raises:
        StudyDamaged: it is no study of this version, or what describes its search is lost, or something that cannot be
            made again: the seeds, or what a language model wrote.
        StudyError: there is a file at ``to``, or it cannot be written.
    """
    path, to = file_path("the path of a study", path), file_path("to", to)
    if to.exists():
        raise StudyError(f"{str(to)!r} is there already; name a file that is not, so that nothing is overwritten")
    if not path.is_file():
        raise StudyDamaged(f"there is no study at {str(path)!r}")
    salvage = _Salvage(path)
    kept = salvage.kept()
    _write(to, kept)
    with Study.open(to) as study:
        batches, history = list(study.batches()), study.history()
    found = sum(len(table.rows) + len(table.bad) for table in salvage.tables.values())
    return Repaired(to, len(batches), len(history), found - sum(map(len, kept.values())))


def _write(path: Path, tables: dict[str, Rows]) -> None:
    file = SealedFile.writing(path)
    try:
        with file.translated():
            file.connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={FORMAT}; COMMIT;")
        with file.transaction():
            for table, rows in tables.items():
                for row in rows:
                    file.insert(table, *row) if table != "memo" else _insert_memo(file, *row)
        file.flush()
    finally:
        file.close()


def _insert_memo(file: SealedFile, *row: Any) -> None:
    file.change("INSERT INTO memo VALUES (?, ?, ?, ?, ?)", *row, sealed(row[1:]))  # sealed without its number


@final
@dataclass(frozen=True)
class _Table:
    """Rows whose seals are theirs, others, and whether some lie on pages that cannot be read."""

    rows: Rows
    bad: Rows
    unreadable: bool

    @property
    def lost(self) -> bool:
        return self.unreadable or bool(self.bad)

    @classmethod
    def read(cls, connection: sqlite3.Connection, name: str) -> _Table:
        """The table of this name; a page that cannot be read hides only what lies on it."""
        found: dict[int, tuple[Any, ...]] = {}
        errors = 0
        for order in ("ASC", "DESC"):
            cursor = connection.execute(f"SELECT rowid, * FROM {name} NOT INDEXED ORDER BY rowid {order}")
            try:
                for number, *row in cursor:  # one by one, since those before the error count
                    found[number] = tuple(row)
            except sqlite3.DatabaseError:
                errors += 1
        rows = [found[number] for number in sorted(found)]
        whole = [sealed(row[name == "memo" : -1]) == row[-1] for row in rows]
        sound = [row[:-1] for row, good in zip(rows, whole, strict=True) if good]
        return cls(sound, [row[:-1] for row, good in zip(rows, whole, strict=True) if not good], errors > 0)


@final
class _Salvage:
    """The sound rows of a file, and which of them can be gone on from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: dict[str, Any] = {}
        file = SealedFile.reading(path)
        try:
            check_format(file)
            with file.translated():
                self.tables = {name: _Table.read(file.connection, name) for name in TABLES}
        finally:
            file.close()

    @reading
    def kept(self) -> dict[str, Rows]:
        """What goes into the copy, by table.

        Raises:
            StudyDamaged: nothing can.
        """
        self.settings = {name: json.loads(value) for name, value in self.tables["setting"].rows}
        self._require_what_cannot_be_made_again()
        batches = min(self._batches(), self._first_without_its_array())
        told = {row[0] for row in self.tables["told"].rows if row[0] < batches and self._is_whole(row[0])}
        places = self._places(told)
        if places is not None:
            told = {number for number, _ in places}
            batches = min(batches, places[-1][1] if places else 0)
        kept = {name: table.rows for name, table in self.tables.items()}
        kept["setting"] = [row for row in kept["setting"] if row[0] not in ("result", STATE)]
        for name in ("batch", "chunk", "digest"):
            kept[name] = [row for row in kept[name] if row[0] < batches]
        kept["told"] = [row for row in kept["told"] if row[0] in told and row[0] < batches]
        kept["array"] = [row for row in kept["array"] if _stays(row[0], batches, told, places)]
        return kept

    def _require_what_cannot_be_made_again(self) -> None:
        arrays = {row[0] for row in self.tables["array"].rows}
        missing = sorted(_NEEDED - set(self.settings))
        if self.tables["batch"].rows and "seeds" not in arrays:
            missing.append("seeds")
        if isinstance(self.settings.get("given_seeds"), dict) and GIVEN_SEEDS not in arrays:
            missing.append(GIVEN_SEEDS)
        if self.tables["memo"].lost:
            missing.append("what a language model wrote")
        if self._lost_whose_scores_they_are(arrays):
            missing.append("whose some of its scores are")
        if missing:
            raise StudyDamaged(
                f"{str(self.path)!r} cannot be repaired, because nothing else in it says what is lost: "
                f"{', '.join(missing)}; go on from another copy, or begin another study"
            )

    def _lost_whose_scores_they_are(self, sound: set[str]) -> bool:
        """Whether an array is lost of which nobody knows which one it was, where it may be one of a batch."""
        array, ours = self.tables["array"], (*_OF_A_BATCH, PLACE)
        others = ("seeds", GIVEN_SEEDS, RESULT_ROW, STATE_ARRAY)
        nameless = any(not str(row[0]).startswith((*ours, *others)) for row in array.bad)
        return nameless or (array.unreadable and any(name.startswith(ours) for name in sound))

    def _batches(self) -> int:
        """How many there are before the first one that is lost."""
        digests = {row[0] for row in self.tables["digest"].rows}
        # Of a recomputable objective only a digest says what a whole batch was.
        readable = {row[0] for row in self.tables["batch"].rows if not digests or row[1] != ASKED or row[0] in digests}
        return next(number for number in range(len(readable) + 1) if number not in readable)

    def _first_without_its_array(self) -> float:
        names = [str(row[0]) for row in self.tables["array"].bad]
        return min((int(name.split()[1]) for name in names if name.startswith(_OF_A_BATCH)), default=math.inf)

    def _is_whole(self, number: int) -> bool:
        """Whether no scores of a batch are missing, as far as one can tell; else its values are computed anew."""
        if not self.tables["chunk"].lost:
            return True
        (fresh,) = (row[6] for row in self.tables["batch"].rows if row[0] == number)
        chunks = [row[1:5] for row in self.tables["chunk"].rows if row[0] == number]
        cells = sum((row_end - row) * (case_end - case) for row, row_end, case, case_end in chunks)
        return bool(cells == np.frombuffer(fresh, np.bool_).sum() * self.settings["cases"]["search"][0])

    def _places(self, told: Iterable[int]) -> list[tuple[int, int]] | None:
        """Of an asynchronous search, batches in the order of telling and how many were asked for, up to the first gap.

        None where batches are told in the order in which they were asked for.
        """
        if not self.settings.get("asynchronous"):
            return None
        places = {row[0]: np.frombuffer(row[3], row[1]).tolist() for row in self.tables["array"].rows
                  if row[0].startswith(PLACE)}  # fmt: skip
        found: list[tuple[int, int]] = []
        while (place := places.get(f"{PLACE}{len(found):09d}")) is not None and place[0] in told:
            found.append((place[0], place[1]))
        return found


def _stays(name: str, batches: float, told: set[int], places: list[tuple[int, int]] | None) -> bool:
    """Whether an array belongs to what is kept."""
    kind, _, number = name.partition(" ")
    if f"{kind} " == STATE_ARRAY:  # of batches that may be lost; it is only there to go on sooner
        return False
    if f"{kind} " == PLACE:
        return places is not None and int(number) < len(places)
    if f"{kind} " == "stopped ":
        return int(number) in told
    return f"{kind} " not in _OF_A_BATCH or int(number) < batches
