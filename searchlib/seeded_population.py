"""A generation of very many weights, kept as a center, a spread and the numbers of its members' noise."""

from __future__ import annotations

import hashlib
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import numbers, shown
from searchlib.errors import InvalidSettings, StudyError
from searchlib.noise_table import NOISES, noise

__all__ = ["SeededPopulation", "as_seeded", "bits_of", "read_bits"]

#: Weights that are worked on at once, so that they stay in the processor's cache.
_BLOCK = 2**15
#: How the bytes of a seeded population begin.
_MARK = b"seeded population"


@final
class SeededPopulation:
    """Rows ``center + sign · sigma · noise(seed)``, made when somebody looks at them.

    It stands where a population array ``(n, d)`` does: it has a length, a shape and a dtype, and indexing with a
    slice, a mask or positions gives a part of it, still unmade. ``np.asarray(population)`` makes the rows; evaluation
    does so for one chunk at a time, so a generation of 256 policies of a million weights takes one chunk and two
    vectors, not a gigabyte. A study keeps the seeds.

    Arguments:
        center: shape ``(d,)``, float32; None where only a study's seeds are known.
        sigma: standard deviation of the noise, one number or shape ``(d,)``.
        seeds: numbers of noise vectors (:func:`searchlib.noise_table.noise`), shape ``(n,)``.
        signs: -1, 0 or 1, shape ``(n,)``; antithetic pairs share a seed.
        digest: of center and sigma, where they are None.
        dimension: d, where the center is None.

    Example:
        >>> pair = SeededPopulation(np.ones(4, np.float32), 0.5, np.array([3, 3]), np.array([1, -1]))
        >>> pair.shape, np.asarray(pair).mean(axis=0).tolist()
        ((2, 4), [1.0, 1.0, 1.0, 1.0])
    """

    ndim = 2
    dtype = np.dtype(np.float32)

    def __init__(
        self,
        center: NDArray[np.float32] | None,
        sigma: NDArray[np.float32] | float,
        seeds: NDArray[np.int64],
        signs: NDArray[np.int64],
        *,
        digest: bytes = b"",
        dimension: int = 0,
    ) -> None:
        self.seeds, self.signs = _whole("seeds", seeds), _whole("signs", signs)
        if self.seeds.ndim != 1 or self.seeds.shape != self.signs.shape:
            raise InvalidSettings(f"every member has a seed and a sign, but got {self.seeds.shape}, {self.signs.shape}")
        if not (((self.seeds >= 0) & (self.seeds < NOISES) & (np.abs(self.signs) <= 1)).all()):
            raise InvalidSettings(
                f"seeds must be at least 0 and below 2**62, and signs -1, 0 or 1, but are {shown(seeds)} and "
                f"{shown(signs)}"
            )
        self.center = None if center is None else _floats("center", center)
        if self.center is not None and self.center.ndim != 1:
            raise InvalidSettings(f"center must have one axis, but has shape {self.center.shape}")
        self.sigma = sigma if isinstance(sigma, int | float) else _floats("sigma", sigma)
        self._dimension = dimension if self.center is None else len(self.center)
        self._digest = digest

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, d)``."""
        return len(self.seeds), self._dimension

    @property
    def digest(self) -> bytes:
        """16 bytes that tell centers and spreads apart."""
        if not self._digest:
            content = hashlib.blake2b(np.ascontiguousarray(self.center).data, digest_size=16)
            content.update(np.ascontiguousarray(self.sigma, np.float32).data)
            self._digest = content.digest()
        return self._digest

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, rows: Any) -> Any:
        """Some of the members, unmade; of a single number its row."""
        if np.ndim(rows) == 0 and not isinstance(rows, slice):
            return self[[rows]].rows()[0]
        return SeededPopulation(
            self.center, self.sigma, self.seeds[rows], self.signs[rows], digest=self.digest, dimension=self._dimension
        )  # fmt: skip

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("the rows of a seeded population are made when they are asked for, so they are a copy")
        return self.rows().astype(dtype or self.dtype, copy=False)

    def rows(self, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The rows, shape ``(n, d)``, written into ``out`` where it is given.

        Raises:
            StudyError: the center is not known, because the population comes from a study's file.
        """
        if self.center is None:
            raise StudyError(
                "a history keeps the seeds of such candidates, not their weights; the winner's are in result.row"
            )
        out = np.empty(self.shape, np.float32) if out is None else out
        d = self._dimension
        noises = [noise(seed, d) for seed in self.seeds.tolist()]
        for start in range(0, d, _BLOCK):
            part = slice(start, start + _BLOCK)
            sigma = self.sigma[part] if isinstance(self.sigma, np.ndarray) else np.float32(self.sigma)
            scales, center = (None, sigma, -sigma), self.center[part]  # by sign, the last for -1
            for row, one, sign in zip(out, noises, self.signs.tolist(), strict=True):
                block, scale = row[part], scales[sign]
                if scale is None:
                    block[...] = center
                else:
                    np.multiply(one[part], scale, out=block)
                    block += center
        return out

    def keys(self) -> list[bytes]:
        """One key per member: equal keys are equal rows."""
        numbers = np.stack([self.seeds * np.abs(self.signs), self.signs], axis=1)
        return [self.digest + row.tobytes() for row in numbers]

    def without_center(self) -> SeededPopulation:
        """The same members by their numbers alone: what a history keeps of them."""
        return SeededPopulation(None, 0.0, self.seeds, self.signs, digest=self.digest, dimension=self._dimension)

    def __repr__(self) -> str:
        return f"SeededPopulation({len(self)} of {self._dimension} weights)"


def as_seeded(population: object) -> SeededPopulation | None:
    """The population, where it is a seeded one; algorithms hand it over in the place of an array."""
    return population if isinstance(population, SeededPopulation) else None


def bits_of(population: Any) -> bytes:
    """What tells populations of one shape apart, and what a study writes: every bit, or the numbers of the members."""
    seeded = as_seeded(population)
    if seeded is not None:
        return _MARK + seeded.digest + seeded.seeds.tobytes() + seeded.signs.tobytes()
    return np.ascontiguousarray(population).tobytes()


def _whole(name: str, given: Any) -> NDArray[np.int64]:
    plain = isinstance(given, np.ndarray) and given.dtype == np.int64
    return given if plain else numbers(name, given, np.int64)


def _floats(name: str, given: Any) -> NDArray[np.float32]:
    plain = isinstance(given, np.ndarray) and given.dtype == np.float32
    return given if plain else numbers(name, given, np.float32)


def read_bits(data: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> Any:
    """The population whose :func:`bits_of` these are; a seeded one without its center."""
    if data.startswith(_MARK) and len(data) == len(_MARK) + 16 * (shape[0] + 1):
        digest, numbers = data[len(_MARK) :][:16], np.frombuffer(data[len(_MARK) + 16 :], np.int64).reshape(2, -1)
        return SeededPopulation(None, 0.0, numbers[0], numbers[1], digest=digest, dimension=shape[1])
    return np.frombuffer(data, dtype).reshape(shape)
