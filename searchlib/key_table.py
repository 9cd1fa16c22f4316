"""Where keys were seen first: a dictionary for millions of them, in a tenth of the memory."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["KeyTable"]

#: Keys that are looked up in a dictionary, at 200 bytes each; earlier ones lie in sorted arrays, at 20 to 24.
_RECENT = 16_384


@final
class KeyTable:
    """Numbers keys in the order in which they come.

    Of keys of up to 16 bytes every bit counts, of longer ones a hash of 128 bits. All keys of a table are equally long.

    Example:
        >>> table = KeyTable()
        >>> table.add([b"one", b"two"], 0), table.add([b"six", b"two", b"six"], 2), table.find([b"six", b"ten"])
        (array([-1, -1]), array([-1,  1,  2]), array([ 2, -1]))
    """

    def __init__(self) -> None:
        self._recent: dict[bytes, int] = {}
        self._earlier: list[_Places] = []  # each at least twice as long as the next

    def __len__(self) -> int:
        return len(self._recent) + sum(len(places.position) for places in self._earlier)

    def find(self, keys: list[bytes]) -> NDArray[np.int64]:
        """For every key the number under which it was added first, or -1; shape ``(n,)``."""
        found = np.array([self._recent.get(key, -1) for key in keys], np.int64)
        return np.maximum(found, self._find_earlier(keys)) if self._earlier else found

    def claim(self, keys: list[bytes], limit: int | None = None) -> NDArray[np.intp]:
        """Where the first ``limit`` unknown keys are, each once; they are numbered by how many there were before."""
        known = (self._find_earlier(keys) >= 0).tolist() if self._earlier else None
        claimed: list[int] = []
        start, most = len(self), len(keys) if limit is None else limit
        for place, key in enumerate(keys):
            if len(claimed) >= most:
                break
            if key not in self._recent and not (known and known[place]):
                self._recent[key] = start + len(claimed)
                claimed.append(place)
        if len(self._recent) >= _RECENT:
            self._put_away()
        return np.array(claimed, np.intp)

    def add(self, keys: list[bytes], start: int) -> NDArray[np.int64]:
        """Add keys under the numbers ``start…``; gives the first number of those that were known, else -1."""
        found = self._find_earlier(keys) if self._earlier else np.full(len(keys), -1)
        for index in np.flatnonzero(found < 0).tolist() if self._earlier else range(len(keys)):
            first = self._recent.setdefault(keys[index], start + index)
            if first != start + index:
                found[index] = first
        if len(self._recent) >= _RECENT:
            self._put_away()
        return found

    def _find_earlier(self, keys: list[bytes]) -> NDArray[np.int64]:
        mixed, rest = _mixed(keys)
        found: NDArray[np.int64] = np.full(len(keys), -1)
        for places in self._earlier:
            found = np.maximum(found, places.find(mixed, rest))
        return found

    def _put_away(self) -> None:
        places = _Places.of(*_mixed(list(self._recent)), np.fromiter(self._recent.values(), np.int64))
        self._recent = {}
        while self._earlier and len(self._earlier[-1].position) < 2 * len(places.position):
            before = self._earlier.pop()
            places = _Places.of(*(
                np.concatenate([getattr(before, field.name), getattr(places, field.name)]) for field in fields(_Places)
            ))  # fmt: skip
        self._earlier.append(places)


@final
@dataclass(frozen=True, eq=False)
class _Places:
    """Numbers of keys, sorted by a half of the key (``mixed``); the other half is ``rest``."""

    mixed: NDArray[np.uint64]
    rest: NDArray[np.uint64]
    position: NDArray[Any]

    @classmethod
    def of(cls, mixed: NDArray[np.uint64], rest: NDArray[np.uint64], position: NDArray[Any]) -> Self:
        order = np.argsort(mixed)
        kind = np.int32 if int(position.max()) < 2**31 else np.int64
        return cls(mixed[order], rest[order], position[order].astype(kind))

    def find(self, mixed: NDArray[np.uint64], rest: NDArray[np.uint64]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = np.full(len(mixed), -1)
        at, rows = np.searchsorted(self.mixed, mixed), np.arange(len(mixed))
        while len(rows):  # more than once only where half of two keys is the same by chance
            rows = rows[at[rows] < len(self.mixed)]
            rows = rows[self.mixed[at[rows]] == mixed[rows]]
            whole = self.rest[at[rows]] == rest[rows]
            found[rows[whole]] = self.position[at[rows[whole]]]
            rows = rows[~whole]
            at[rows] += 1
        return found


def _mixed(keys: list[bytes]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Keys as two numbers each, of which the first is spread evenly; both together are the key."""
    if keys and len(keys[0]) > 16:
        keys = [hashlib.blake2b(key, digest_size=16).digest() for key in keys]
    words = np.frombuffer(b"".join(key.ljust(16, b"\0") for key in keys), "<u8").astype(np.uint64).reshape(-1, 2)
    rest = words[:, 1].copy()
    return _spread(words[:, 0] ^ _spread(rest)), rest


def _spread(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A one-to-one map of whole numbers to evenly spread ones.

    The finalizer of SplitMix64: Steele, Lea and Flood, *Fast splittable pseudorandom number generators*, OOPSLA 2014.
    """
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
