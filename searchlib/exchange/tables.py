"""A study's history as a table for other programs: plain rows, or one Parquet file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from searchlib.algorithms.algorithm import Status
from searchlib.arguments import file_path
from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.exchange.opened_study import opened
from searchlib.history import History
from searchlib.study import Study

__all__ = ["history_rows", "plain", "to_parquet"]

#: Settings of a study that its Parquet file carries along.
_TOLD = ("objective", "space", "direction", "algorithm", "budget", "seed", "versions")


def plain(value: Any) -> Any:
    """A typed value as JSON values; what has no such form as its ``repr``.

    Example:
        >>> plain({"kept": (1, 2), "weights": np.ones(2)})
        {'kept': [1, 2], 'weights': [1.0, 1.0]}
    """
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def history_rows(history: History) -> list[dict[str, Any]]:
    """The history as JSON values, one dict per candidate told.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Binary
        >>> history_rows(search(sum, space=Binary(2), budget=1).history)[0]["status"]
        'DONE'
    """
    columns = (history.ids, history.batch, history.status, history.values, history.secondary, history.fresh)
    return [
        {
            "id": int(index),
            "batch": int(batch),
            "status": Status(status).name,
            "value": None if np.isnan(value).any() else float(value[0]) if len(value) == 1 else value.tolist(),
            "secondary": None if np.isnan(secondary) else float(secondary),
            "fresh": bool(fresh),
            "candidate": None if row is None else plain(history.space.decode(row)),
            "genes": None if row is None else row.tolist(),
            "error": error,
        }
        for index, batch, status, value, secondary, fresh, row, error in zip(
            *columns, history.rows(), history.errors, strict=True
        )
    ]


def to_parquet(study: Study | str | Path, path: str | Path) -> Path:
    """Write a study's history as one Parquet file; returns where.

    Columns are those of :meth:`searchlib.History.to_frame`, with the candidate as JSON text, and ``genes``, a list of
    numbers (null where only a seed is known). Numbers stay what they are to the last bit. What was searched and how
    stands as JSON under ``searchlib`` in the file's metadata.

    Arguments:
        study: a study or its path; its search may be running.
        path: the file; its folder must exist, and what was there is replaced.

    Raises:
        MissingDependency: pandas or pyarrow is not installed.
        InvalidSettings: there is no file to be written there.
        StudyError: the study cannot be read.

    Example:
        >>> import tempfile
        >>> from searchlib import search
        >>> from searchlib.spaces import Binary
        >>> folder = Path(tempfile.mkdtemp())
        >>> result = search(sum, space=Binary(3), budget=8, study=folder / "sum.db")
        >>> import pandas
        >>> float(pandas.read_parquet(to_parquet(folder / "sum.db", folder / "sum.parquet")).value.max())
        3.0
    """
    target = file_path("path", path)
    if str(target) == "-":
        raise InvalidSettings("Parquet is no text for the console: path='-' must be the path of a file")
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependency("Parquet needs pyarrow: pip install 'searchlib[report]'") from error
    with opened(study) as own:
        if target.exists() and target.samefile(own.path):
            raise InvalidSettings(f"path={str(path)!r} is the study itself; write its table to another file")
        history, settings = own.history(), own.settings
    frame = history.to_frame()
    rows = list(history.rows())
    frame["candidate"] = [None if row is None else json.dumps(plain(history.space.decode(row))) for row in rows]
    numbers = pyarrow.list_(pyarrow.from_numpy_dtype(history.space.dtype))
    genes = pyarrow.array([None if row is None else row.tolist() for row in rows], numbers)
    table = pyarrow.Table.from_pandas(frame, preserve_index=False).append_column("genes", genes)
    about = json.dumps({name: settings[name] for name in _TOLD if name in settings})
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"searchlib": about.encode()})
    try:
        parquet.write_table(table, target)
    except OSError as error:
        raise InvalidSettings(f"{str(path)!r} cannot be written: {error}; its folder must exist") from error
    return target
