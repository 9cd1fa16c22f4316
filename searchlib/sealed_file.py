"""A SQLite file whose rows are sealed, with one writer at a time: what a study is kept in."""

from __future__ import annotations

import os
import sqlite3
import time
import weakref
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, final

from searchlib.errors import StudyBusy, StudyDamaged, StudyError

try:
    import fcntl
except ImportError:  # not a POSIX system: two writers still collide on the number of their next batch
    fcntl = None  # type: ignore[assignment]

__all__ = ["SealedFile", "sealed"]

#: Commits closer together than this share one flush to the disk: a killed process loses nothing, a power cut at
#: most this much work.
_FLUSH_SECONDS = 0.02


@final
class SealedFile:
    """A connection that says in sentences what goes wrong, and notices rows that are not what was written.

    Arguments:
        path: of the file.
        connection: to it.
        lock: of the writer; None: it only reads.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int | None = None) -> None:
        self.path, self.connection, self.execute = path, connection, connection.execute
        self._release = None if lock is None else weakref.finalize(self, _unlock, path, lock)
        self._flushed = time.monotonic()

    @classmethod
    def reading(cls, path: Path) -> Self:
        """Open a file that is there, to read it."""
        return cls(path, sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, isolation_level=None))

    @classmethod
    def writing(cls, path: Path) -> Self:
        """Open or create a file, as its only writer.

        Raises:
            StudyBusy: another search, here or in another process, is writing.
            StudyError: it cannot be opened or created.
        """
        lock = _locked(path)
        try:
            connection = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        except sqlite3.OperationalError as error:
            _unlock(path, lock)
            raise StudyError(f"cannot open or create the study {str(path)!r}: {error}") from error
        return cls(path, connection, lock)

    def close(self) -> None:
        """Close it, and let others write; nothing happens where it is closed already."""
        self.connection.close()
        if self._release is not None:
            self._release()

    def one(self, query: str) -> Any:
        """A number that SQLite counts."""
        with self.translated():
            return self.connection.execute(query).fetchone()[0]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows without their seals, which are the last column.

        Raises:
            StudyDamaged: a seal is not that of its row.
        """
        with self.translated():
            rows = self.connection.execute(query, values).fetchall()
        for *row, seal in rows:
            if sealed(row) != seal:
                raise StudyDamaged(
                    f"{str(self.path)!r} is damaged: what it says is not what was written (a disk that lost power, or "
                    f"a copy made while it was written?); go on from another copy, or begin another study"
                )
        return [row[:-1] for row in rows]

    def insert(self, table: str, *row: Any, replace: bool = False) -> None:
        """Add a row, sealed."""
        marks = ", ".join("?" * (len(row) + 1))
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        self.connection.execute(f"{verb} INTO {table} VALUES ({marks})", (*row, sealed(row)))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; commits close together share one flush to the disk."""
        with self.translated():
            now = time.monotonic()
            flush = now - self._flushed >= _FLUSH_SECONDS
            self.connection.execute(f"PRAGMA synchronous={'FULL' if flush else 'NORMAL'}")
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise
            if flush:
                self._flushed = now

    @contextmanager
    def translated(self) -> Iterator[None]:
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


def sealed(row: Sequence[Any]) -> int:
    """A checksum of a row: SQLite notices a page that makes no sense, not one that says something else."""
    seal = 0
    for item in row:
        item = float(item) if isinstance(item, int | float) else item  # SQLite may hand back one for the other
        data = item if isinstance(item, bytes) else repr(item).encode()
        seal = zlib.crc32(data, zlib.crc32(str(len(data)).encode(), seal))
    return seal


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
