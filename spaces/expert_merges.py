"""How each group of layers merges its experts: the second of the two search spaces of EEP (arXiv 2407.00945).

The operators are those of the released code (imagination-research/EEP, ``configs/search/search.yml``), which the paper
describes in outline only; what differs is said where it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import numbers
from searchlib.space import Population, StagedSpace
from searchlib.spaces import chance
from searchlib.spaces.arguments import fraction, positive
from searchlib.spaces.codec import stack
from searchlib.spaces.experts import ExpertSubsets

__all__ = ["ExpertMatrices", "ExpertMerges"]


@final
@dataclass(frozen=True, eq=False)
class ExpertMatrices:
    """One candidate of :class:`ExpertMerges`: W_RM and W_EM of EEP (arXiv 2407.00945, section 4.2) for every group.

    Arguments:
        router: router mapping, shape ``(groups, keep, experts)``: what each kept slot takes of the router's
            probabilities.
        merging: expert merging, the same shape: the weight of each original expert in each kept one.

    Both are kept as read-only float32; equality compares their content.

    Example:
        >>> matrices = ExpertMatrices(np.eye(2)[None], np.eye(2)[None])
        >>> matrices.merging.shape, matrices == ExpertMatrices(np.eye(2)[None], np.eye(2)[None])
        ((1, 2, 2), True)
    """

    router: NDArray[np.float32]
    merging: NDArray[np.float32]

    def __post_init__(self) -> None:
        for name in ("router", "merging"):
            given = getattr(self, name)
            plain = isinstance(given, np.ndarray) and given.dtype == np.float32
            view = given.view() if plain else numbers(f"ExpertMatrices({name}=…)", given, np.float32)
            view.flags.writeable = False
            object.__setattr__(self, name, view)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ExpertMatrices):
            return NotImplemented
        return np.array_equal(self.router, other.router) and np.array_equal(self.merging, other.merging)

    def __hash__(self) -> int:
        return hash(((self.router + 0.0).tobytes(), (self.merging + 0.0).tobytes()))


@final
@dataclass(frozen=True)
class ExpertMerges(StagedSpace):
    """How each group of layers merges its experts into ``keep``: the merging phase of EEP (arXiv 2407.00945).

    A row holds the router-mapping matrices of all groups, then their merging matrices, each ``keep`` by
    ``experts``: free finite reals. :attr:`first` is the matching :class:`ExpertSubsets`, whose rows mean one-hot
    matrices. Permuting the slots of a group in both of its matrices changes nothing about the model; ``canonical``
    sorts them by the largest entry of the merging row. ``keep == experts`` merges without pruning, which EEP uses as
    gradient-free fine-tuning. Sampling mutates a random subset once.

    Mutation: each of the ``2 * groups`` matrices is active with probability ``group_rate``, at least one; each entry
    of an active one moves with probability ``element_rate``, at least one, by a Gaussian step of standard deviation
    ``scale``; with probability ``normalize_rate`` per candidate, the rows of all its merging matrices are divided by
    their sums (unless a sum is within ±0.1). Crossover: active matrices take each row from the first parent with
    probability ``parent_rate``, the others come whole from the first parent with that probability. In the
    relaxation, 0 keeps the first ``keep`` experts as they are and one unit is ``scale``: it starts in the middle
    only where ``keep == experts``.

    Arguments:
        layers, experts, keep, groups: as in :class:`ExpertSubsets`.
        group_rate: probability of a matrix to be active (released: 0.25).
        row_rate: passed to :attr:`first`.
        element_rate: probability of an entry of an active matrix to move (released: 0.25).
        scale: standard deviation of a step (released: 0.065).
        normalize_rate: probability of a row normalization (released: 0.1).
        parent_rate: share of the first parent in crossover (released: 0.6).

    Raises:
        InvalidSettings: as :class:`ExpertSubsets`, and for rates that are no probabilities.

    Example:
        >>> space = ExpertMerges(layers=32, experts=8, keep=4, groups=4)
        >>> space.dimension, space.first
        (256, ExpertSubsets(layers=32, experts=8, keep=4, groups=4, group_rate=0.25, row_rate=None))
        >>> rows = space.embed(space.first.encode([[(0, 2, 5, 7)] * 4]))
        >>> space.decode(rows[0]).router[0].argmax(axis=1)
        array([0, 2, 5, 7])
    """

    layers: int
    experts: int
    keep: int
    groups: int
    _: KW_ONLY
    group_rate: float = 0.25
    row_rate: float | None = None
    element_rate: float = 0.25
    scale: float = 0.065
    normalize_rate: float = 0.1
    parent_rate: float = 0.6

    def __post_init__(self) -> None:
        for name in ("layers", "experts", "keep", "groups", "group_rate", "row_rate"):
            object.__setattr__(self, name, getattr(self.first, name))
        object.__setattr__(self, "element_rate", fraction("element_rate", self.element_rate))
        object.__setattr__(self, "scale", positive("scale", self.scale))
        for name in ("normalize_rate", "parent_rate"):
            object.__setattr__(self, name, fraction(name, getattr(self, name), zero=True))

    @property
    def first(self) -> ExpertSubsets:
        """The experts to keep, before merging."""
        return ExpertSubsets(
            self.layers, self.experts, self.keep, self.groups, group_rate=self.group_rate, row_rate=self.row_rate
        )

    @property
    def layer_groups(self) -> tuple[int, ...]:
        """The group of every layer."""
        return self.first.layer_groups

    @property
    def dimension(self) -> int:
        return 2 * self.groups * self.keep * self.experts

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32)

    @property
    def size(self) -> float:
        return math.inf

    def _matrices(self, population: Population) -> Population:
        """Shape ``(n, 2, groups, keep, experts)``: router mapping, then merging."""
        return population.reshape(-1, 2, self.groups, self.keep, self.experts)

    def embed(self, population: Population) -> Population:
        kept = self.first.canonical(population).reshape(-1, 1, self.groups, self.keep, 1)
        one_hot = (kept == np.arange(self.experts)).astype(np.float32)
        return np.repeat(one_hot, 2, axis=1).reshape(-1, self.dimension)

    def restrict(self, population: Population) -> tuple[Population, NDArray[np.bool_]]:
        """The experts with the largest merging weights, a repeated one moved to the next free index."""
        largest = self._matrices(population)[:, 1].argmax(axis=-1).reshape(-1, self.first.dimension)
        kept = self.first.canonical(self.first.repair(largest))
        return kept, (self.embed(kept) == self.canonical(population)).all(axis=1)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return self.mutate(rng, self.embed(self.first.sample(rng, n)))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        changed = np.array(population, np.float32, order="C")
        matrices = changed.reshape(-1, self.keep * self.experts)
        active = np.flatnonzero(chance.hits(rng, len(changed), 2 * self.groups, self.group_rate))
        entries = chance.hits(rng, len(active), matrices.shape[1], self.element_rate)
        step = self.scale * rng.standard_normal(np.count_nonzero(entries), np.float32)
        row, column = np.nonzero(entries)
        matrices[active[row], column] += step
        normalized = np.flatnonzero(rng.random(len(changed)) < self.normalize_rate)
        changed[normalized] = self._normalize(changed[normalized], population[normalized])
        return changed

    def _normalize(self, changed: Population, parents: Population) -> Population:
        """Merging rows divided by their sums, except where that would undo a mutation or overflow."""
        matrices = self._matrices(changed.copy())
        with np.errstate(over="ignore"):
            total = matrices[:, 1].sum(axis=-1, keepdims=True)
            matrices[:, 1] /= np.where((np.abs(total) < 0.1) | ~np.isfinite(total), 1, total)
        rows = matrices.reshape(changed.shape)
        keep = np.isfinite(rows).all(axis=1) & (rows != parents).any(axis=1)
        return np.where(keep[:, None], rows, changed)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        # Canonical parents have their slots in matching order.
        a, b = (self._matrices(self.canonical(parent)) for parent in (first, second))
        active = chance.hits(rng, len(a), 2 * self.groups, self.group_rate).reshape(*a.shape[:3], 1, 1)
        rows = rng.random((*a.shape[:4], 1)) < self.parent_rate
        whole_matrix = rng.random((*a.shape[:3], 1, 1)) < self.parent_rate
        return np.where(np.where(active, rows, whole_matrix), a, b).reshape(-1, self.dimension)

    def repair(self, population: Population) -> Population:
        largest = np.finfo(np.float32).max
        return np.clip(population.astype(np.float64), -largest, largest).astype(np.float32)

    def canonical(self, population: Population) -> Population:
        matrices = self._matrices(np.asarray(population, np.float32) + np.float32(0))  # no -0.0
        largest = matrices[:, 1].argmax(axis=-1)
        row, group = np.nonzero((largest[..., 1:] <= largest[..., :-1]).any(axis=-1))
        if len(row):
            order = _slot_order(matrices[row, :, group], largest[row, group])
            matrices[row, :, group] = np.take_along_axis(matrices[row, :, group], order[:, None, :, None], axis=2)
        return matrices.reshape(-1, self.dimension)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        return np.asarray((np.abs(population) <= np.finfo(np.float32).max).all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, self._genes)

    def _genes(self, value: Any) -> NDArray[Any]:
        shape = (self.groups, self.keep, self.experts)
        if not isinstance(value, ExpertMatrices) or not value.router.shape == value.merging.shape == shape:
            raise TypeError
        return np.concatenate([value.router, value.merging], axis=None)

    def decode(self, row: NDArray[Any]) -> ExpertMatrices:
        """The matrices with their slots in canonical order."""
        return ExpertMatrices(*self._matrices(self.canonical(row[None]))[0])

    def features(self, population: Population) -> NDArray[np.float64]:
        """The entries of the canonical row."""
        return self.canonical(population).astype(np.float64)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Sum of the absolute differences between the canonical rows."""
        return np.asarray(np.abs(self.features(first) - self.features(second)).sum(axis=1))

    @property
    def latent_dimension(self) -> int:
        return self.dimension

    @property
    def _origin(self) -> NDArray[np.float64]:
        kept = np.tile(np.arange(self.keep), self.groups)[None]
        return self.embed(kept).astype(np.float64)

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        reach = np.finfo(np.float32).max / max(self.scale, 1.0) / 2
        return self.repair(self._origin + self.scale * np.clip(latent, -reach, reach))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return np.asarray((population.astype(np.float64) - self._origin) / self.scale)


def _slot_order(matrices: NDArray[np.float32], largest: NDArray[np.intp]) -> NDArray[np.intp]:
    """The order of the slots of ``(t, 2, keep, experts)`` matrices: by ``largest``, then by all entries."""
    t, keep = largest.shape
    entries = np.concatenate([matrices[:, 1], matrices[:, 0]], axis=-1).reshape(t * keep, -1)
    ranked = np.lexsort((*entries.T[::-1], largest.ravel(), np.arange(t).repeat(keep)))
    return np.asarray(ranked.reshape(t, keep) - keep * np.arange(t)[:, None])
