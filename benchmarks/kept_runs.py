"""Runs of a long benchmark that are kept in a folder, so that it can be stopped, resumed, or made in parts."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from benchmarks.table import write_whole

__all__ = ["kept_run"]

_Outcome = TypeVar("_Outcome", bound=NamedTuple)


def kept_run(
    folder: Path | None, job: NamedTuple, made_by: str, run: Callable[[], _Outcome],
    read: Callable[[Mapping[str, Any]], _Outcome],
) -> _Outcome:  # fmt: skip
    """A job's outcome, from the folder where it is there, else run and put there; a reader never sees half a file.

    Arguments:
        folder: None: nothing is kept.
        job: names the file.
        made_by: all settings that decide the outcome; a file counts for those that it was made with.
        run: makes the outcome, whose fields are numbers, strings, None, and tuples of them.
        read: the outcome of these fields, with lists in the place of tuples.
    """
    if folder is None:
        return run()
    name = re.sub(r"[^a-z0-9]+", "-", " ".join(map(str, job)).lower())
    file = folder / f"{name}-{zlib.crc32(made_by.encode()):08x}.json"
    if file.exists():
        document = json.loads(file.read_text(encoding="utf-8"))
        if document["job"] == list(job) and document["made_by"] == made_by:
            return read(document["outcome"])
    outcome = run()
    text = json.dumps({"job": job, "made_by": made_by, "outcome": outcome._asdict()}, allow_nan=False) + "\n"
    write_whole(file, text)
    return outcome
