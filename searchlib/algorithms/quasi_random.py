"""Quasi-random search: samples that cover the space more evenly than independent ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run
from searchlib.algorithms.archive import Archive
from searchlib.algorithms.proposed import Proposed
from searchlib.arguments import check_field, whole_number
from searchlib.errors import MissingOperator
from searchlib.space import Population, Space

__all__ = ["QuasiRandom"]

#: Points of the sequence are drawn in blocks of this size; a power of two keeps them balanced.
_BLOCK = 64
#: Blocks that may hold nothing new before independent samples take over.
_PATIENCE = 8
#: The most coordinates that SciPy's direction numbers cover (Joe and Kuo 2008).
_WIDEST = 21201
#: Samples that show how far a latent coordinate reaches.
_SAMPLES = 256
#: How far the relaxation of a bounded gene reaches from zero.
_REACH = 2.0


@final
@dataclass(frozen=True)
class QuasiRandom(Algorithm):
    """Scrambled Sobol points through the space's relaxation, after the objective's seeds; no candidate twice.

    Sobol, *USSR Computational Mathematics and Mathematical Physics* 7 (1967), with Owen's scrambling, direction numbers
    of Joe and Kuo (2008), all from ``scipy.stats.qmc``. A latent coordinate that stays within ±2 over the space (a
    bounded gene; scores of options, of which only the order counts) is spread uniformly over that range, another one
    like a standard normal variable. So real and integer genes are covered evenly, and categories are balanced; on
    budgets, shares and other couplings the points only inherit some of the evenness. On a space of few candidates the
    sequence soon repeats itself; then what is left is sampled. A baseline, and a first design for others; for any
    number of objectives, of which the first orders :meth:`Run.recommend`.

    Arguments:
        archive: how many of the best candidates to remember for :meth:`Run.recommend`.

    Raises:
        InvalidSettings: ``archive`` is not a whole number of at least 1.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Real
        >>> result = search(lambda x: abs(x - 0.3), QuasiRandom(), space=Real(0, 1), budget=64)
        >>> result.value < 1 / 64
        True
    """

    archive: int = 64

    def __post_init__(self) -> None:
        check_field(self, "archive", whole_number, 1)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space with up to 21,201 latent coordinates, for any number of objectives."""
        width = problem.space.latent_dimension
        if width > _WIDEST:
            raise MissingOperator(
                f"QuasiRandom needs direction numbers for every latent coordinate and there are {_WIDEST}, but "
                f"{problem.space!r:.200} has {width}; use RandomSearch there"
            )
        return _QuasiRandomRun(self, problem, rng)


@final
class _QuasiRandomRun(Run):
    def __init__(self, settings: QuasiRandom, problem: Problem, rng: np.random.Generator) -> None:
        self._space, self._rng = problem.space, rng
        self._archive, self._proposed = Archive(problem.space, settings.archive), Proposed(problem.space)
        self._queue = self._proposed.claim(problem.space.canonical(problem.first_rows))
        self._bounded = _bounded(problem.space)
        self._sequence = _sobol(problem.space.latent_dimension, rng)
        self._asked = 0

    def ask(self, n: int) -> Batch:
        for _ in range(_PATIENCE):
            if len(self._queue) >= n or len(self._proposed) >= self._space.size:
                break
            fresh = [self._proposed.claim(self._block()) for _ in range(-(-(n - len(self._queue)) // _BLOCK))]
            self._queue = np.concatenate([self._queue, *fresh])
        if not len(self._queue):
            self._queue = self._proposed.samples(self._rng, n)
        rows, self._queue = self._queue[:n], self._queue[n:]
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        self._proposed.note_strangers(evidence)
        self._archive.add(evidence)

    def recommend(self, n: int) -> Population:
        self._archive.settle()
        return self._archive.best(n)

    def _block(self) -> Population:
        """The next points of the sequence as canonical rows."""
        from scipy.special import ndtri

        uniform = np.clip(self._sequence.random(_BLOCK), 2.0**-31, 1 - 2.0**-31) if len(self._bounded) else 0.5
        latent = np.broadcast_to(uniform, (_BLOCK, len(self._bounded)))
        latent = np.where(self._bounded, 2 * _REACH * latent - _REACH, ndtri(latent))
        return self._space.canonical(self._space.from_latent(latent))


def _bounded(space: Space) -> NDArray[np.bool_]:
    """Which latent coordinates stay within ±2 over the space, by a look at samples of it."""
    latent = space.to_latent(space.sample(np.random.default_rng(0), _SAMPLES))
    return np.asarray((np.abs(latent) <= _REACH).all(axis=0))


def _sobol(width: int, rng: np.random.Generator) -> Any:
    """A scrambled sequence of points in the unit cube."""
    from scipy.stats import qmc

    return qmc.Sobol(max(width, 1), seed=int(rng.integers(2**31)))
