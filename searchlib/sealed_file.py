"""A SQLite file whose rows are sealed, with one writer at a time: what a study is kept in."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import weakref
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self, final

from searchlib.errors import StudyBusy, StudyDamaged, StudyError
from searchlib.file_system import shared_file_system

try:
    import fcntl
except ImportError:  # not a POSIX system: two writers still collide on the number of their next batch
    fcntl = None  # type: ignore[assignment]

__all__ = ["SealedFile", "let_go", "sealed"]

logger = logging.getLogger("searchlib")

#: Commits closer together than this, and of less work than this, share one flush to the disk: a killed process loses
#: nothing, a power cut at most this much work.
_FLUSH_SECONDS = 0.02

#: … or than so many times what the last flush took, so that slow disks cost a search a fiftieth at most.
_FLUSH_SHARE = 50

#: How sure a commit is that is flushed and one that is not, by SQLite's journal. Without a flush a write-ahead log may
#: lose its last commits, but a rollback journal the file (https://sqlite.org/pragma.html#pragma_synchronous).
_SURE = {"WAL": ("FULL", "NORMAL"), "DELETE": ("EXTRA", "FULL")}

#: Seconds for which a lock of another process is waited for.
_PATIENCE = 5.0


@final
class SealedFile:
    """A connection that says in sentences what goes wrong, and notices rows that are not what was written.

    Once a write has failed and was reported, the file is left as it is: what comes later stays in memory, so that a
    search whose disk is full can still say what it has found.

    Arguments:
        path: of the file.
        connection: to it.
        lock: of the writer; None: it only reads.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int | None = None) -> None:
        self.path, self.connection, self.execute = path, connection, connection.execute
        self._release = weakref.finalize(self, _give_back, path, connection, lock)
        self._flushed, self._shared, self._sure = time.monotonic(), _FLUSH_SECONDS, _SURE["WAL"]
        self._given_up = self._said_so = False

    @classmethod
    def reading(cls, path: Path) -> Self:
        """Open a file that is there, to read it; its folder may be read-only.

        Raises:
            StudyError: its newest rows are in a log beside it that cannot be read in such a folder, or half a
                transaction is in the file that cannot be undone there.
        """
        address = f"{path.resolve().as_uri()}?mode=ro"
        connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=_PATIENCE)
        try:
            connection.execute("PRAGMA schema_version").fetchone()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_READONLY_ROLLBACK:
                connection.close()
                _undo_half_a_transaction(path)
                return cls(path, sqlite3.connect(address, uri=True, isolation_level=None, timeout=_PATIENCE))
            # A write-ahead log wants an index beside it even to be read. Without a log the file is all there is.
            log = Path(f"{path.resolve()}-wal")
            if os.access(path.parent, os.W_OK) or not os.access(path, os.R_OK):
                return cls(path, connection)  # something else is wrong, which the first query will say
            connection.close()
            if log.exists() and log.stat().st_size:
                raise StudyError(
                    f"the newest rows of {str(path)!r} are in {log.name!r}, which cannot be read where nothing can be "
                    f"written; copy both files to a folder of yours and open that"
                ) from None
            connection = sqlite3.connect(f"{address}&immutable=1", uri=True, isolation_level=None)
        except sqlite3.DatabaseError:
            pass
        return cls(path, connection)

    @classmethod
    def writing(cls, path: Path) -> Self:
        """Open or create a file, as its only writer.

        Raises:
            StudyBusy: another search, here or in another process, is writing.
            StudyError: it cannot be opened or created.
        """
        lock = _locked(path)
        try:
            connection = sqlite3.connect(path, isolation_level=None, timeout=_PATIENCE)
        except sqlite3.OperationalError as error:
            _unlock(path, lock)
            raise StudyError(f"cannot open or create the study {str(path)!r}: {error}") from error
        return cls(path, connection, lock)

    def choose_journal(self) -> None:
        """A write-ahead log, or a rollback journal where other machines may open the file too."""
        kind = "DELETE" if shared_file_system(self.path) else "WAL"
        with self.translated():
            if kind == "DELETE" and self.connection.execute("PRAGMA journal_mode").fetchone()[0] == "wal":
                # One that came from a local disk: in exclusive mode its log needs no shared memory.
                self.connection.execute("PRAGMA locking_mode=EXCLUSIVE")
            chosen = self.connection.execute(f"PRAGMA journal_mode={kind}").fetchone()[0]
            self.connection.execute("PRAGMA locking_mode=NORMAL")
            self.connection.execute("PRAGMA fullfsync=1")  # on a Mac a flush stops at the disk's own memory otherwise
        self._sure = _SURE[chosen.upper()]

    def flush(self) -> None:
        """Bring everything into the one file; where that fails, what is missing stays in the log beside it."""
        if self._given_up:
            return
        try:
            with self.translated():
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except StudyError as error:
            logger.warning("%s. What is not in the file yet is beside it, in %s-wal", error, self.path.name)

    def close(self) -> None:
        """Close it, and let others write; nothing happens where it is closed already."""
        self.connection.close()
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
                    f"a copy made while it was written?), in the table {_table(query)!r} of {str(row[0])[:50]!r}; go "
                    f"on from another copy, or save what is sound: searchlib repair {self.path.name} -o sound.db"
                )
        return [row[:-1] for row in rows]

    def insert(self, table: str, *row: Any, replace: bool = False) -> None:
        """Add a row, sealed."""
        marks = ", ".join("?" * (len(row) + 1))
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        self.change(f"{verb} INTO {table} VALUES ({marks})", *row, sealed(row))

    def change(self, statement: str, *values: Any) -> None:
        """Execute a statement within :meth:`transaction`."""
        if not self._given_up:
            self.connection.execute(statement, values)

    @contextmanager
    def transaction(self, work: float = 0.0) -> Iterator[None]:
        """All or nothing; commits close together share one flush to the disk.

        Arguments:
            work: seconds that it took to find out what is written; infinite where that can never be done again.

        Raises:
            StudyBusy: another process has locked the file for seconds.
            StudyError: there is no room, or no right to write. Whatever is raised, the next ones do nothing.
        """
        if self._given_up:
            if not self._said_so:
                logger.warning("%r could not be written; from here on results are in memory only", str(self.path))
            self._said_so = True
            yield
            return
        with self.translated():
            now = time.monotonic()
            flush = now - self._flushed >= self._shared or work >= self._shared
            try:
                self.connection.execute(f"PRAGMA synchronous={self._sure[not flush]}")
                self.connection.execute("BEGIN IMMEDIATE")
                yield
                began = time.monotonic()
                self.connection.execute("COMMIT")
            except BaseException as error:
                self._given_up = isinstance(error, sqlite3.Error)
                with suppress(sqlite3.Error):  # a full disk may have rolled back already
                    if self.connection.in_transaction:
                        self.connection.execute("ROLLBACK")
                raise
            if flush:
                self._flushed = now
                self._shared = max(_FLUSH_SECONDS, _FLUSH_SHARE * (time.monotonic() - began))

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Say in a sentence what SQLite says in a code."""
        name = repr(str(self.path))
        try:
            yield
        except sqlite3.IntegrityError as error:
            raise StudyBusy(f"another process is writing to {name}; stop it, or use another file") from error
        except sqlite3.OperationalError as error:
            code = error.sqlite_errorcode & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise StudyBusy(f"another process is writing to {name}; stop it, or use another file") from error
            what = _REMEDIES.get(code)
            if what is None:
                raise StudyError(f"cannot read or write the study {name}: {error}") from error
            raise StudyError(
                f"cannot read or write the study {name}: {error}; {what}, then search again with the same study: it "
                f"holds all that was finished before"
            ) from error
        except UnicodeEncodeError as error:
            raise StudyError(
                f"{error.object!r:.80} cannot be written into {name}: it is no text; use another name"
            ) from error
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            raise StudyDamaged(f"{name} cannot be read as a study: {error}") from error


#: What to do, by SQLite's primary error codes.
_REMEDIES = {
    sqlite3.SQLITE_FULL: "make room on its disk (or ask for a larger quota)",
    sqlite3.SQLITE_IOERR: "see whether its disk is full, broken or gone, or a limit on file sizes is reached",
    sqlite3.SQLITE_READONLY: "see whether file and folder may be written",
    sqlite3.SQLITE_CANTOPEN: "see whether file and folder are there and may be read and written",
}


def _undo_half_a_transaction(path: Path) -> None:
    """What a driver had begun to write with a rollback journal when it was killed; only who may write can undo it.

    Raises:
        StudyError: nobody may here.
    """
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(path, timeout=_PATIENCE)) as writing:
        writing.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        return
    raise StudyError(
        f"half a transaction is in {str(path)!r}, of a search that was killed, and cannot be undone where nothing can "
        f"be written; copy it and {path.name}-journal to a folder of yours and open that"
    )


def _table(query: str) -> str:
    """The table that a query reads."""
    return query.partition(" FROM ")[2].split()[0]


def sealed(row: Sequence[Any]) -> int:
    """A checksum of a row: SQLite notices a page that makes no sense, not one that says something else."""
    seal = 0
    for item in row:
        item = float(item) if isinstance(item, int | float) else item  # SQLite may hand back one for the other
        data = item if isinstance(item, bytes) else repr(item).encode(errors="surrogatepass")
        seal = zlib.crc32(data, zlib.crc32(str(len(data)).encode(), seal))
    return seal


def _locked(path: Path) -> int:
    """An exclusive lock beside the file, as an open file descriptor: gone with this process however it ends."""
    while True:
        try:
            lock = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StudyError(
                f"cannot open or create the study {str(path)!r}: {error}; a search needs a folder that it may write "
                f"to (Study.open reads one from anywhere)"
            ) from error
        if fcntl is not None:
            _hold(lock, path)
        if fcntl is None or _is_at(lock, f"{path}-lock"):
            return lock
        os.close(lock)  # the search before this one was just removing it


def _hold(lock: int, path: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StudyBusy(
            f"another search is writing to {str(path)!r}; stop it (or close() it, if it is in this program), or use "
            f"another file"
        ) from error
    except OSError as error:
        os.close(lock)
        raise StudyError(
            f"cannot lock the study {str(path)!r} ({error}), so that two searches might write to it at once; its file "
            f"system knows no locks: use a local disk"
        ) from error


def _is_at(lock: int, name: str) -> bool:
    """Whether an open file is still the one of this name."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(name))
    except FileNotFoundError:
        return False


def let_go(connection: sqlite3.Connection) -> None:
    """Close a file that nobody uses any more, also where nobody has said so."""
    with suppress(sqlite3.ProgrammingError):  # where it is forgotten in another thread than its own
        connection.close()


def _give_back(path: Path, connection: sqlite3.Connection, lock: int | None) -> None:
    let_go(connection)
    if lock is not None:
        _unlock(path, lock)


def _unlock(path: Path, lock: int) -> None:
    with suppress(OSError):  # a disk that has become read-only keeps the name, which holds nobody back
        Path(f"{path}-lock").unlink()
    os.close(lock)
