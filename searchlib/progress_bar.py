"""A line on the terminal, or a bar in a notebook, that says where a search stands."""

from __future__ import annotations

import math
import sys
from types import TracebackType
from typing import Any, Self, TextIO, final

from searchlib.standing import Standing, duration

__all__ = ["ProgressBar"]


@final
class ProgressBar:
    """Shows a search as it goes on: by tqdm, which also works in notebooks, or without it by a line of our own.

    Arguments:
        shown: whether it is; None: where standard error is a terminal, or this is a notebook.
        stream: where to; by default standard error.

    Example:
        >>> from searchlib import RandomSearch, Search
        >>> from searchlib.spaces import Binary
        >>> run = Search(sum, RandomSearch(), space=Binary(8), budget=20)
        >>> with ProgressBar(shown=False) as bar:
        ...     for _ in run:
        ...         bar.show(run.standing)
    """

    def __init__(self, shown: bool | None = None, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shown = _notebook() or self._stream.isatty() if shown is None else shown
        self._bar: Any = None
        self._found, self._width = "", 0

    def __enter__(self) -> Self:
        return self

    def show(self, standing: Standing) -> None:
        """Say where it stands now."""
        if not self._shown:
            return
        if self._bar is None and not self._width:
            self._bar = _tqdm(standing, self._stream)
        if self._bar is None:
            line = str(standing)
            if line != self._found:
                print(f"\r{line:<{self._width}}", end="", file=self._stream, flush=True)
            self._found, self._width = line, max(1, len(line))
            return
        self._found = standing.found
        self._bar.n = standing.evaluations
        self._bar.set_postfix_str(_rest(standing), refresh=False)
        self._bar.update(0)

    def say(self, what: str) -> None:
        """What is being done beside the search."""
        if self._bar is not None:
            self._bar.set_postfix_str(f"{self._found}  {what}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._width:
            print(file=self._stream)


def _rest(standing: Standing) -> str:
    left = standing.seconds[1]
    return "  ".join([standing.found, f"{duration(left)} left"] if math.isfinite(left) else [standing.found])


def _tqdm(standing: Standing, stream: TextIO) -> Any:
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    total = int(standing.planned) if math.isfinite(standing.planned) else None
    shape = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}" if total else "{n_fmt}{postfix}"
    return tqdm(total=total, file=stream, bar_format=shape, dynamic_ncols=True, mininterval=0.2)


def _notebook() -> bool:
    kernel = sys.modules.get("IPython")
    shell = None if kernel is None else kernel.get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
