"""Studies that somebody has tampered with: every cell replaced, sealed again, so that no checksum tells."""

import contextlib
import sqlite3

import numpy as np

from searchlib import Cases, Objective, RandomSearch, Split, Study, search
from searchlib.sealed_file import sealed
from searchlib.spaces import Binary

__all__ = ["CELLS", "JUNK", "Tiny", "made", "read_all", "resume", "tampered"]


class Tiny(Objective):
    """Counts bits; has held-out cases and a reference, so that its study has a row in nearly every table."""

    space, direction, chunk_rows = Binary(7), "maximize", 2

    def cases(self, split):
        return Cases(tuple(f"{split.value} {number}" for number in range(2)))

    def evaluate(self, candidates, cases):
        if (candidates.array.sum(axis=1) > 5).any():
            raise ValueError("too many")
        return candidates.array.sum(axis=1)[:, None] + np.zeros(len(cases))

    def references(self):
        return ("none",)

    def evaluate_reference(self, name, cases):
        return np.zeros(len(cases))

    def remember(self, memo):
        memo.recall("a rewrite", lambda: ["once"])
        memo.intern("a text")


def resume(path):
    return search(Tiny(), RandomSearch(), budget=8, seed=0, batch_size=4, study=path)


def made(path):
    """A finished study, in one file."""
    resume(path)
    return path


#: Every column of a study but the seals.
CELLS = {
    "setting": ("name", "value"),
    "array": ("name", "dtype", "shape", "data"),
    "batch": ("number", "label", "asked", "rows", "ids", "population", "fresh"),
    "chunk": ("batch", "row", "row_end", "case_start", "case_end", "width", "scores", "secondary", "status", "errors",
              "seconds"),
    "told": ("batch", "vals", "secondary", "standard_error", "status", "errors", "seconds"),
    "reference": ("name", "split", "width", "scores"),
    "memo": ("number", "kind", "key", "value"),
}  # fmt: skip

_CODE = "__import__('pathlib').Path('canary').touch()"
_PICKLE = b"cpathlib\nPath\n(S'canary'\ntR(dS'touch'\nN0."

#: What a cell is replaced by.
JUNK = {
    "nothing": "",
    "a word": "nonsense",
    "code": _CODE,
    "code as JSON": f'"{_CODE}"',
    "half of JSON": '{"a": [1, ',
    "a JSON list": "[]",
    "a JSON object": "{}",
    "JSON's null": "null",
    "a JSON number": "-1",
    "NaN in JSON": "NaN",
    "infinity in JSON": "[1e999]",
    "deep JSON": "[" * 100_000,
    "a huge number in JSON": "1" * 5000,
    "negative shapes in JSON": "[-1, -1]",
    "a huge shape in JSON": "[1099511627776, 1099511627776]",
    "a space of code in JSON": f'{{"space": "Product", "parts": [["{_CODE}", {{"space": "Binary", "n": "{_CODE}"}}]]}}',
    "a space that nobody knows": '{"space": "os.system", "n": 1}',
    "a space without end": '{"space": "Binary", "n": 2147483647}',
    "the type of objects": "|O",
    "a type that is no type": "zz",
    "a record type": "[('a', 'O')]",
    "a path upwards": "../../../canary",
    "an absolute path": "/etc/passwd",
    "half a character as JSON": '"\\ud800"',
    "a NUL": "a\0b",
    "a pickle": _PICKLE,
    "bytes": b"\xff\xfe\xfd",
    "many bytes": bytes(1 << 20),
    "no bytes": b"",
    "minus one": -1,
    "zero": 0,
    "a large number": 2**62,
    "a float": 0.5,
    "infinity": float("inf"),
    "missing": None,
}


def tampered(path, table, column, value, row=0):
    """Put a value into a cell and seal its row again. False where the table has no such row or takes no such value."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows = connection.execute(f"SELECT rowid, * FROM {table}").fetchall()
        if row >= len(rows):
            return False
        connection.execute("PRAGMA journal_mode=DELETE")
        names = [one[1] for one in connection.execute(f"PRAGMA table_info({table})")]
        connection.execute("PRAGMA ignore_check_constraints=1")
        try:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rows[row][0]))
            key = connection.execute(f"SELECT * FROM {table} WHERE rowid = ?", (rows[row][0],)).fetchone()
        except (sqlite3.IntegrityError, UnicodeEncodeError):
            return False
        if key is None:  # the number of a row is its name
            key = connection.execute(f"SELECT * FROM {table} WHERE {column} IS ?", (value,)).fetchone()
        seal = sealed(key[:-1])
        where = " AND ".join(f"{name} IS ?" for name in names[:-1])
        connection.execute(f"UPDATE {table} SET seal = ? WHERE {where}", (seal, *key[:-1]))
    return True


def read_all(path):
    """Everything that a study can be asked for."""
    with Study.open(path) as study:
        assert isinstance(study.settings, dict)
        for batch in study.batches():
            list(study.chunks(batch.number))
            study.told(batch)
            study.hits(batch.number)
        study.tells()
        study.memo()
        for split in Split:
            study.reference("none", split)
        study.history()
        return study.result()
