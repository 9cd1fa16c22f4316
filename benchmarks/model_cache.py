"""Where trained small models are kept: whole folders with a manifest, written beside their place and renamed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["is_complete", "store", "user_cache"]

_MANIFEST = "complete.json"


def user_cache() -> Path:
    """``$XDG_CACHE_HOME/searchlib``, or ``~/.cache/searchlib``."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "searchlib"


def is_complete(folder: Path) -> bool:
    """Whether every file is there as it was written; a crash or a full disk may have torn the folder."""
    try:
        return bool(json.loads((folder / _MANIFEST).read_text()) == _digests(folder))
    except (OSError, ValueError):
        return False


def store(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a new folder, then give it its name: a reader sees all of it or nothing."""
    if is_complete(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".writing-") as temporary:
        fresh = Path(temporary) / folder.name
        fresh.mkdir()
        write(fresh)
        (fresh / _MANIFEST).write_text(json.dumps(_digests(fresh)))
        if folder.exists() and not is_complete(folder):
            shutil.rmtree(folder)
        # Another process may have finished the same checkpoint meanwhile; its bytes are as good as ours.
        with contextlib.suppress(FileExistsError, OSError):
            fresh.rename(folder)
    if not is_complete(folder):
        raise OSError(f"could not write the checkpoint {folder.name} into the cache; is the disk full?")


def _digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _MANIFEST
    }
