"""A study, whether it came open or as a path."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import searchlib.spaces  # noqa: F401  so that a study's space is known by its name
from searchlib.arguments import file_path
from searchlib.study import Study

__all__ = ["opened"]


@contextlib.contextmanager
def opened(study: Study | str | Path) -> Iterator[Study]:
    """The study itself, or the one at a path, which is closed again.

    Raises:
        InvalidSettings: neither a study nor a path.
        StudyError: there is no study that can be read.
    """
    if isinstance(study, Study):
        yield study
        return
    with Study.open(file_path("study", study)) as own:
        yield own
