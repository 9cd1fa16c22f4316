"""What was made once and is never made again: proposals from outside the generator, and texts that no array can hold.

A generator's numbers can be drawn again; a language model's rewrite cannot. It is written down before it is used, and
a resumed search reads it back. Candidates refer to such texts by their place in a list that only grows.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, final

from searchlib.errors import InvalidSettings

__all__ = ["Memo"]

#: Kinds of entry, as a study stores them.
_MADE, _ITEM = "made", "item"


@final
class Memo:
    """An append-only map from keys to JSON values, and an append-only list of distinct texts.

    In memory by default. A search hands its objective (:meth:`searchlib.Objective.remember`) the memo of its study,
    which commits every entry before anybody sees it.

    Arguments:
        entries: what is on file: triples (kind, key, value as JSON), in the order of their making.
        write: stores another such triple; None keeps it in memory only.

    Example:
        >>> memo = Memo()
        >>> memo.recall("a rewrite", lambda: ["made", "once"]), memo.recall("a rewrite", lambda: ["never", "made"])
        (['made', 'once'], ['made', 'once'])
        >>> memo.intern("first"), memo.intern("second"), memo.intern("first"), memo.item(1)
        (0, 1, 0, 'second')
    """

    def __init__(
        self, entries: Iterable[tuple[str, str, str]] = (), write: Callable[[str, str, str], None] | None = None
    ) -> None:
        self._write = write
        self._made: dict[str, str] = {}
        self._ids: dict[str, int] = {}
        for kind, key, value in entries:
            if kind == _ITEM:
                self._ids[key] = json.loads(value)
            else:
                self._made[key] = value
        self._items = sorted(self._ids, key=self._ids.__getitem__)

    def recall(self, key: str, make: Callable[[], Any]) -> Any:
        """What is stored under ``key``; where nothing is, what ``make`` returns, once it is stored.

        ``make`` must not draw from a generator that is used afterwards: a resumed search does not call it, and would
        go on with other numbers. Draw a seed before.

        Arguments:
            key: names the proposal; what decides it should be part of the key.
            make: called without arguments; returns JSON values (None, bool, int, finite float, str, list, dict).

        Returns:
            the value as it comes back from JSON (a tuple as a list), the first time like every other time.

        Raises:
            InvalidSettings: ``key`` is no string, or ``make`` returned something else than JSON values.
        """
        if key not in self._made:
            self._store(_MADE, _text("key", key), _as_json(key, make()))
        return json.loads(self._made[key])

    def intern(self, text: str) -> int:
        """The id of a text: 0, 1, 2 … in the order in which they were first interned."""
        if text not in self._ids:
            self._store(_ITEM, _text("text", text), json.dumps(len(self._items)))
        return self._ids[text]

    def item(self, number: int) -> str:
        """The text with this id.

        Raises:
            InvalidSettings: no text has this id.
        """
        if not 0 <= number < len(self._items):
            raise InvalidSettings(f"no text has the id {number!r}: {len(self._items)} were interned, counted from 0")
        return self._items[number]

    @property
    def items(self) -> tuple[str, ...]:
        """All interned texts, in the order of their ids."""
        return tuple(self._items)

    def _store(self, kind: str, key: str, value: str) -> None:
        if self._write is not None:
            self._write(kind, key, value)
        if kind == _ITEM:
            self._ids[key] = len(self._items)
            self._items.append(key)
        else:
            self._made[key] = value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidSettings(f"{name} must be a string, but is {value!r:.120}")
    return value


def _as_json(key: str, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidSettings(
            f"what is remembered must be JSON values, but for {key!r:.80} there is {value!r:.120} ({error})"
        ) from error
