"""How to combine the checkpoints of one training run: coefficients that sum to one, of either sign."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.space import Population, Space, distinct
from searchlib.spaces import chance
from searchlib.spaces.affine import LARGEST, Affine
from searchlib.spaces.arguments import fraction, positive, real, whole
from searchlib.spaces.codec import stack
from searchlib.spaces.grouped import Grouped

__all__ = ["CheckpointCoefficients"]

# Rates of the EMA* baseline's grid, per checkpoint: horizons from 2 to 100 checkpoints.
DECAYS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
SMOOTHEST = 8.0


@final
@dataclass(frozen=True)
class CheckpointCoefficients(Space):
    """``checkpoints`` coefficients per block of parameters, oldest checkpoint first, that sum to one in every block.

    The search space of LCSC (arXiv 2404.02241): theta(alpha) = sum of alpha_i theta_i over the K checkpoints of one
    trajectory, where alpha_i may be negative or above 1, other than in every moving average (EMA, SWA). The paper has
    one block, whose value is a tuple of K floats; with more ``blocks`` (layers, stages) a value is a tuple of such
    tuples. A row holds the blocks side by side. No coefficient is beyond ±1000.

    The paper starts from exponential moving averages of several rates and its code was never released; its operators
    here follow the released search of EEP (arXiv 2407.00945), by the same authors. Sampling draws an exponential
    average, its horizon log-uniform from a fraction of a checkpoint to all of them, and mutates it once in every
    block. Mutation adds Gaussian noise to a random subset of the coefficients of a block, at least one, and projects
    orthogonally onto sum one; a block is mutated with probability 1/blocks, at least one is. Crossover takes, block by
    block, a point between the parents or, with probability ``mix_rate``, each coefficient from either, projected.

    The relaxation is linear and smooth in training time: coordinates in the orthonormal cosine basis (DCT-II) over the
    checkpoints, whose constant direction the sum fixes, so K - 1 per block. The scale of frequency f decays like
    ``1 / (1 + f) ** smoothness``: neighboring checkpoints are nearly interchangeable, so a step that gives them alike
    coefficients changes the model more than one that alternates. Zero is the uniform average (SWA); coordinates that
    are standard normal give coefficients of standard deviation ``spread`` around it, on average over checkpoints.
    Predictors see these coordinates as features.

    Arguments:
        checkpoints: number of checkpoints K, at least 1.
        blocks: number of blocks of parameters that have coefficients of their own, at least 1.
        element_rate: probability of a coefficient of a mutated block to move, in (0, 1] (EEP: 0.25).
        scale: standard deviation of such a move (EEP: 0.065).
        mix_rate: probability of a block to be mixed coefficient by coefficient in crossover, in [0, 1].
        spread: size of one unit of the relaxation, see above; 1/K where None.
        smoothness: how fast the scale of high frequencies decays, from 0 (white: all alike) to 8.

    Raises:
        InvalidSettings: not such numbers.

    Example:
        >>> space = CheckpointCoefficients(4)
        >>> space.decode(space.average(window=2))
        (0.0, 0.0, 0.5, 0.5)
        >>> space.decode(space.ema(0.5)) == (1 / 15, 2 / 15, 4 / 15, 8 / 15)
        True
        >>> space.from_latent(np.zeros((1, 3))).tolist()
        [[0.25, 0.25, 0.25, 0.25]]
        >>> CheckpointCoefficients(2, blocks=2).decode(np.array([0.0, 1.0, -0.5, 1.5]))
        ((0.0, 1.0), (-0.5, 1.5))
    """

    checkpoints: int
    blocks: int = 1
    _: KW_ONLY
    element_rate: float = 0.25
    scale: float = 0.065
    mix_rate: float = 0.5
    spread: float | None = None
    smoothness: float = 1.0

    def __post_init__(self) -> None:
        for name in ("checkpoints", "blocks"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        object.__setattr__(self, "element_rate", fraction("element_rate", self.element_rate))
        object.__setattr__(self, "scale", positive("scale", self.scale))
        object.__setattr__(self, "mix_rate", fraction("mix_rate", self.mix_rate, zero=True))
        if self.spread is not None:
            object.__setattr__(self, "spread", positive("spread", self.spread))
        object.__setattr__(self, "smoothness", real("smoothness", self.smoothness))
        if not 0 <= self.smoothness <= SMOOTHEST:
            raise InvalidSettings(f"smoothness must be from 0 to {SMOOTHEST:g}, but got (smoothness={self.smoothness})")

    @property
    def _plane(self) -> Affine:
        """The coefficients of one block, without an order in time."""
        return Affine(self.checkpoints)

    @property
    def _planes(self) -> Grouped:
        return Grouped(self._plane, self.blocks)

    @property
    def dimension(self) -> int:
        return self.blocks * self.checkpoints

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    @property
    def size(self) -> float:
        return self._planes.size

    def by_block(self, population: Population) -> Population:
        """The coefficients as ``(n, blocks, checkpoints)``."""
        return population.reshape(-1, self.blocks, self.checkpoints)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        horizon = self.checkpoints ** rng.uniform(-0.5, 1, (n, 1))
        averages = np.repeat(_exponential(self.checkpoints, np.exp(-1 / horizon)), self.blocks, axis=0)
        return self._jolt(rng, averages).reshape(n, self.dimension)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        changed = np.array(population, np.float64).reshape(-1, self.checkpoints)
        chosen = chance.hits(rng, len(population), self.blocks, 1 / self.blocks).ravel()
        changed[chosen] = self._jolt(rng, changed[chosen])
        return changed.reshape(len(population), self.dimension)

    def _jolt(self, rng: np.random.Generator, rows: Population) -> Population:
        """A Gaussian step in a random subset of each of these blocks' coefficients, ``(m, checkpoints)``."""
        moved = chance.hits(rng, len(rows), self.checkpoints, self.element_rate)
        return self._plane.repair(rows + self.scale * moved * rng.standard_normal(rows.shape))

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        a, b = (parent.reshape(-1, self.checkpoints) for parent in (first, second))
        mixed = rng.random((len(a), 1)) < self.mix_rate
        between = self._plane.crossover(rng, a, b)
        either = np.where(chance.coins(rng, a.shape), a, b)
        return self._plane.repair(np.where(mixed, either, between)).reshape(len(first), self.dimension)

    def repair(self, population: Population) -> Population:
        return self._planes.repair(population)

    def canonical(self, population: Population) -> Population:
        return self._planes.canonical(population)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        return self._planes.contains(population)

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, self._genes)

    def _genes(self, value: Any) -> NDArray[Any]:
        genes = np.asarray(tuple(value))
        if genes.shape != ((self.checkpoints,) if self.blocks == 1 else (self.blocks, self.checkpoints)):
            raise ValueError
        return genes.ravel()

    def decode(self, row: NDArray[Any]) -> tuple[Any, ...]:
        """A tuple of floats; with several blocks a tuple of such tuples."""
        blocks = tuple(map(tuple, self.by_block(row)[0].tolist()))
        return blocks if self.blocks > 1 else blocks[0]

    def features(self, population: Population) -> NDArray[np.float64]:
        """The coordinates of the relaxation."""
        return self.to_latent(population)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Half the sum of the absolute differences: the weight that would have to move, over all blocks."""
        return self._planes.distance(first, second)

    @property
    def latent_dimension(self) -> int:
        return self.blocks * (self.checkpoints - 1)

    @property
    def _units(self) -> NDArray[np.float64]:
        """What one unit of every frequency's coordinate is, in coefficients' Euclidean norm."""
        decay = (1.0 + np.arange(1, self.checkpoints)) ** -self.smoothness
        spread = 1 / self.checkpoints if self.spread is None else self.spread
        # The basis is orthonormal: standard normal coordinates give a squared norm of sum(units**2) on average.
        return np.asarray(spread * math.sqrt(self.checkpoints) * decay / (np.linalg.norm(decay) or 1))

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        units = self._units
        reach = 2 * LARGEST * math.sqrt(self.checkpoints) / units  # beyond any row's coordinate
        coordinates = latent.reshape(len(latent) * self.blocks, self.checkpoints - 1)
        step = (units * np.clip(coordinates, -reach, reach)) @ _cosines(self.checkpoints)
        return self._plane.repair(1 / self.checkpoints + step).reshape(len(latent), self.dimension)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        step = population.reshape(-1, self.checkpoints) - 1 / self.checkpoints
        coordinates = step @ _cosines(self.checkpoints).T / self._units
        return np.asarray(coordinates.reshape(len(population), self.latent_dimension))

    def last(self) -> NDArray[np.float64]:
        """The row of the newest checkpoint alone."""
        return self.average(window=1)

    def average(self, window: int | None = None) -> NDArray[np.float64]:
        """The row of the uniform average (SWA, arXiv 1803.05407) of the newest ``window`` checkpoints; of all if None.

        Raises:
            InvalidSettings: ``window`` is not a whole number from 1 to ``checkpoints``.
        """
        window = self.checkpoints if window is None else whole("window", window, high=self.checkpoints)
        weights = np.arange(self.checkpoints) >= self.checkpoints - window
        return np.tile(weights / window, self.blocks)

    def ema(self, decay: float) -> NDArray[np.float64]:
        """The row of the exponential moving average over checkpoints: alpha_i proportional to ``decay ** (K - i)``.

        ``decay`` is per checkpoint, not per training step: 0 is the newest checkpoint, 1 the uniform average.

        Raises:
            InvalidSettings: ``decay`` is not in [0, 1].
        """
        decay = fraction("decay", decay, zero=True)
        return np.tile(_exponential(self.checkpoints, np.full((1, 1), decay))[0], self.blocks)

    def baselines(self) -> dict[str, NDArray[np.float64]]:
        """What is used without a search, as rows by name: the last checkpoint, averages of windows, EMAs of a grid."""
        rows = {"last": self.last(), "average": self.average()}
        windows = {self.checkpoints >> halvings for halvings in range(1, self.checkpoints.bit_length())} - {0, 1}
        rows |= {f"average of last {window}": self.average(window) for window in sorted(windows)}
        return rows | {f"EMA {decay:g}": self.ema(decay) for decay in DECAYS}

    def seed_population(self) -> Population:
        """The distinct baselines as a first population, ``(m, dimension)``; the paper starts from several EMAs."""
        return distinct(np.stack(list(self.baselines().values())))


def _exponential(checkpoints: int, decay: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normalized exponential weights, newest last, one row per decay of ``(n, 1)``."""
    weights = decay ** np.arange(checkpoints - 1, -1, -1)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


@functools.lru_cache(maxsize=8)
def _cosines(checkpoints: int) -> NDArray[np.float64]:
    """The orthonormal DCT-II basis without its constant, ``(checkpoints - 1, checkpoints)``, low frequencies first."""
    frequency = np.arange(1, checkpoints)[:, None]
    basis = np.cos(math.pi / checkpoints * frequency * (np.arange(checkpoints) + 0.5)) * math.sqrt(2 / checkpoints)
    basis.flags.writeable = False
    return basis
