"""The noise of a generation: as an array where rows are short, as numbers of noise vectors where they are long."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, final

import numpy as np
import scipy.linalg.blas
from numpy.typing import NDArray

from searchlib.noise_table import NOISES, noise
from searchlib.seeded_population import SeededPopulation
from searchlib.space import Population, Space, WeightSpace

__all__ = ["DenseNoise", "GenerationNoise", "SeededNoise"]

Vector = NDArray[Any]

#: Weights that are summed at once, so that they stay in the processor's cache.
_BLOCK = 2**15


class GenerationNoise(ABC):
    """Draws members around a center, and sums their noise again once they are told."""

    @abstractmethod
    def start(self, row: NDArray[Any] | None) -> Vector:
        """The center that is the candidate ``row``, or the middle of the space."""

    @abstractmethod
    def unit(self) -> Vector | float:
        """A natural step of every coordinate of a center."""

    @abstractmethod
    def draw(self, n: int, mirrored: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Handles and signs ``(n,)`` of new members; of a pair ±noise both have one handle."""

    @abstractmethod
    def rows(
        self, center: Vector, sigma: Vector | float, handles: NDArray[np.int64], signs: NDArray[np.int64]
    ) -> Population:
        """The members as candidates, shape ``(n, d)``."""

    @abstractmethod
    def candidate(self, center: Vector) -> Population:
        """A center as a candidate, shape ``(1, d)``."""

    @abstractmethod
    def sums(
        self, handles: NDArray[np.int64], signs: NDArray[np.int64], weights: NDArray[np.float64], squares: bool
    ) -> tuple[Vector, Vector | None]:
        """Σ weight · sign · noise and, where wanted, Σ weight · noise², over members."""

    def forget(self) -> None:  # noqa: B027  nothing is kept by default
        """A generation is over: its handles are not used any more."""


@final
class DenseNoise(GenerationNoise):
    """On the real relaxation of any space."""

    def __init__(self, space: Space, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng
        self._noise: NDArray[np.float64] = np.empty((0, space.latent_dimension))

    def start(self, row: NDArray[Any] | None) -> Vector:
        if row is None:
            return np.zeros(self._space.latent_dimension)
        return np.asarray(self._space.to_latent(row[None])[0])

    def unit(self) -> float:
        return 1.0

    def draw(self, n: int, mirrored: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        fresh = -(-n // 2) if mirrored else n
        handles = len(self._noise) + np.arange(fresh)
        self._noise = np.concatenate([self._noise, self._rng.standard_normal((fresh, self._noise.shape[1]))])
        return _paired(handles, n, mirrored)

    def rows(
        self, center: Vector, sigma: Vector | float, handles: NDArray[np.int64], signs: NDArray[np.int64]
    ) -> Population:
        steps = signs[:, None] * (self._noise[handles] * sigma)
        return self._space.canonical(self._space.from_latent(center + steps))

    def candidate(self, center: Vector) -> Population:
        return self._space.canonical(self._space.from_latent(center[None]))

    def sums(
        self, handles: NDArray[np.int64], signs: NDArray[np.int64], weights: NDArray[np.float64], squares: bool
    ) -> tuple[Vector, Vector | None]:
        # Of a pair first: what cancels must be gone.
        signed = np.bincount(handles, weights * signs, len(self._noise))
        plain = np.bincount(handles, weights, len(self._noise))
        return signed @ self._noise, plain @ self._noise**2 if squares else None

    def forget(self) -> None:
        self._noise = self._noise[:0]


@final
class SeededNoise(GenerationNoise):
    """On rows of weights, which are never all made at once."""

    def __init__(self, space: WeightSpace, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng

    def start(self, row: NDArray[Any] | None) -> Vector:
        return np.zeros(self._space.dimension, np.float32) if row is None else np.array(row, np.float32)

    def unit(self) -> Vector | float:
        unit = self._space.unit
        return unit if isinstance(unit, np.ndarray) else float(unit)

    def draw(self, n: int, mirrored: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return _paired(self._rng.integers(NOISES, size=-(-n // 2) if mirrored else n), n, mirrored)

    def rows(
        self, center: Vector, sigma: Vector | float, handles: NDArray[np.int64], signs: NDArray[np.int64]
    ) -> Population:
        population: Any = SeededPopulation(center, sigma, handles, signs)
        return population  # type: ignore[no-any-return]

    def candidate(self, center: Vector) -> Population:
        return np.array(center[None])

    def sums(
        self, handles: NDArray[np.int64], signs: NDArray[np.int64], weights: NDArray[np.float64], squares: bool
    ) -> tuple[Vector, Vector | None]:
        d, (seeds, place) = self._space.dimension, np.unique(handles, return_inverse=True)
        signed, plain = (np.bincount(place, weights=one).tolist() for one in (weights * signs, weights))
        noises = [noise(seed, d) for seed in seeds.tolist()]
        total, second = np.zeros(d, np.float32), np.zeros(d if squares else 0, np.float32)
        square = np.empty(_BLOCK, np.float32)
        for start in range(0, d, _BLOCK):
            block, spread = total[start : start + _BLOCK], second[start : start + _BLOCK]
            for one, weight, of_square in zip(noises, signed, plain, strict=True):
                part = one[start : start + _BLOCK]
                scipy.linalg.blas.saxpy(part, block, a=weight)
                if squares:
                    scipy.linalg.blas.saxpy(np.multiply(part, part, out=square[: len(part)]), spread, a=of_square)
        return total, second if squares else None


def _paired(fresh: NDArray[np.int64], n: int, mirrored: bool) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if not mirrored:
        return fresh, np.ones(n, np.int64)
    return np.repeat(fresh, 2)[:n], np.tile(np.array([1, -1]), len(fresh))[:n]
