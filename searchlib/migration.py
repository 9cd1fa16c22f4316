"""Studies of older formats, brought to the present one: all at once or not at all, and the old file is kept.

Every format has one function that takes a file from it to the next; a newer searchlib adds a function and changes none.
"""

from __future__ import annotations

import filecmp
import math
import os
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

from searchlib.arguments import file_path
from searchlib.errors import StudyDamaged, StudyError
from searchlib.sealed_file import SealedFile, sealed
from searchlib.study import FORMAT, check_format

__all__ = ["STEPS", "Migrated", "migrate"]


@final
@dataclass(frozen=True)
class Migrated:
    """What :func:`migrate` has done.

    Arguments:
        study: the file.
        old, new: its format before and now.
        kept: the file as it was before; None where there was nothing to do.
    """

    study: Path
    old: int
    new: int
    kept: Path | None

    def __str__(self) -> str:
        if self.kept is None:
            return f"{self.study} has format {self.new}: there is nothing to migrate"
        return f"{self.study} now has format {self.new}; as it was, in format {self.old}, it is kept in {self.kept}"


def migrate(study: str | Path) -> Migrated:
    """Bring a study to the format that this version of searchlib reads and writes.

    The file as it was is kept beside it, as ``NAME.format1.bak``. The new one takes its place in one transaction:
    whatever happens in between, the study is the old one or the new one. Everything that a search has found can be read
    afterwards. Whether the search can also go on is decided where it is resumed: by the settings on file, which must be
    those of the search that asks.

    Arguments:
        study: path of the file; no search may be writing to it.

    Raises:
        StudyDamaged: there is no such file, it is no study, or of a format that cannot be migrated.
        StudyBusy: a search is writing to it.
        StudyError: there is no room or no right to write, or another file has the name of the copy.

    Example:
        >>> import tempfile
        >>> from searchlib import search
        >>> from searchlib.spaces import Binary
        >>> path = Path(tempfile.mkdtemp()) / "ones.db"
        >>> result = search(sum, space=Binary(3), budget=8, study=path)
        >>> migrate(path).kept is None  # it is of the present format already
        True
    """
    path = file_path("the path of a study", study)
    if not path.is_file():
        raise StudyDamaged(f"there is no study at {str(path)!r}")
    with closing(SealedFile.writing(path)) as file:
        old = file.one("PRAGMA user_version")
        if not 0 < old < FORMAT:
            check_format(file)
            return Migrated(path, old, FORMAT, None)
        if old not in STEPS:
            raise StudyDamaged(
                f"{str(path)!r} has format {old}, which is too old to be migrated (formats from {min(STEPS)} on are); "
                f"read it with an older searchlib, or begin another study"
            )
        file.choose_journal()
        kept = _kept(file, old)
        with file.transaction(math.inf):
            for number in range(old, FORMAT):
                STEPS[number](file)
            file.change(f"PRAGMA user_version={FORMAT}")
        file.flush()
    return Migrated(path, old, FORMAT, kept)


def _kept(file: SealedFile, old: int) -> Path:
    """A copy of the file as it is, whole or not there at all."""
    kept, part = (Path(f"{file.path}.format{old}.bak{end}") for end in ("", "-part"))
    try:
        part.unlink(missing_ok=True)  # of a migration that was interrupted
        with file.translated(), closing(sqlite3.connect(part)) as copy:
            copy.execute("PRAGMA journal_mode=OFF")  # half a copy is thrown away
            file.connection.backup(copy)
        _flush(part)
        if not kept.exists():
            part.replace(kept)
            _flush(kept.parent)
        elif not filecmp.cmp(part, kept, shallow=False):
            raise StudyError(
                f"{str(kept)!r} is there already and holds something else than {str(file.path)!r} does now; move it "
                f"away, then migrate again"
            )
    except OSError as error:
        raise StudyError(
            f"cannot keep the study as it is in {str(kept)!r}: {error}; make room for a copy of it, then migrate again"
        ) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return kept


def _flush(path: Path) -> None:
    """Bring a file, or the names in a folder, onto the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


#: Tables of format 1 with their columns. The first searches had no memo and no digests.
_UNSEALED: Mapping[str, tuple[str, ...]] = {
    "setting": ("name", "value"),
    "array": ("name", "dtype", "shape", "data"),
    "batch": ("number", "label", "asked", "rows", "ids", "population", "fresh"),
    "chunk": ("batch", "row", "row_end", "case_start", "case_end", "width", "scores", "secondary", "status", "errors",
              "seconds"),
    "told": ("batch", "vals", "secondary", "standard_error", "status", "errors", "seconds"),
    "reference": ("name", "split", "width", "scores"),
    "memo": ("number", "kind", "key", "value"),
    "digest": ("batch", "omitted", "value"),
}  # fmt: skip

_ADDED_LATER = """
CREATE TABLE IF NOT EXISTS memo (
    number INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, UNIQUE (kind, key)
)""", """
CREATE TABLE IF NOT EXISTS digest (
    batch INTEGER PRIMARY KEY REFERENCES batch (number), omitted INTEGER NOT NULL, value TEXT NOT NULL
)"""


def _seal_rows(file: SealedFile) -> None:
    """From 1 to 2: every row gets a checksum. What is on file is taken as it is: nothing tells whether it was whole."""
    file.connection.create_function("sealed", -1, lambda *row: sealed(row), deterministic=True)
    for table in _ADDED_LATER:
        file.change(table)
    for name, columns in _UNSEALED.items():
        there = tuple(row[1] for row in file.execute(f"PRAGMA table_info({name})"))
        if there != columns:
            raise StudyDamaged(
                f"{str(file.path)!r} says that it has format 1, but its table {name!r} has the columns {there} instead "
                f"of {columns}; no search has written it"
            )
        row = columns[1:] if name == "memo" else columns  # a memo's number is not sealed
        file.change(f"ALTER TABLE {name} ADD COLUMN seal INTEGER NOT NULL DEFAULT 0")
        file.change(f"UPDATE {name} SET seal = sealed({', '.join(row)})")


#: What takes a file from the format of this number to the next, within a transaction.
STEPS: Mapping[int, Callable[[SealedFile], None]] = {1: _seal_rows}
