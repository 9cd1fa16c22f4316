"""Which experts of a mixture-of-experts model to keep: the first of the two search spaces of EEP (arXiv 2407.00945).

Layers share one choice per group of consecutive layers; the experts that are kept (:class:`ExpertSubsets`) are
searched first, then the matrices that merge experts and map the router's probabilities
(:class:`~searchlib.spaces.ExpertMerges`). The operators are those of the released code (imagination-research/EEP,
``configs/search/search.yml``), which the paper describes in outline only; what differs is said where it does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.space import Population, Space
from searchlib.spaces import chance, k_of_n
from searchlib.spaces.arguments import fraction, whole
from searchlib.spaces.codec import stack
from searchlib.spaces.grouped import Grouped
from searchlib.spaces.subset import Subset

__all__ = ["ExpertSubsets"]


@final
@dataclass(frozen=True)
class ExpertSubsets(Space):
    """Which ``keep`` of ``experts`` experts each group of layers keeps: the pruning phase of EEP (arXiv 2407.00945).

    A row holds ``groups`` times ``keep`` expert indices; their order within a group means nothing. A value is one
    ascending tuple of indices per group. Mutation: each group is active with probability ``group_rate``, at least
    one; each expert of an active group is replaced with probability ``row_rate``, at least one in all, by one that
    the group did not keep. (The released code may redraw the same expert and may change nothing.) Crossover, which
    EEP has in its second phase only: half of the groups come whole from one parent, the others keep what both
    parents keep and fill up with what one of them keeps. The relaxation holds one score per group and expert.

    A neighbor has one expert of one group swapped for one that the group did not keep.

    Arguments:
        layers: number of mixture-of-experts layers.
        experts: experts per layer, at most 32,768.
        keep: experts kept per layer, from 1 to ``experts``.
        groups: groups of consecutive layers that share a choice, from 1 to ``layers``; EEP uses 4, or one per layer.
        group_rate: probability of a group to be active in a mutation (released: 0.25).
        row_rate: probability of an expert of an active group to be replaced (released: 0.15). None means
            max(0.15, 1/keep), so that one expert per active group changes on average where few are kept.

    Raises:
        InvalidSettings: not such numbers, ``keep > experts`` or ``groups > layers``.

    Example:
        >>> space = ExpertSubsets(layers=32, experts=8, keep=4, groups=4)
        >>> space.size, space.layer_groups[7:9]
        (24010000, (0, 1))
        >>> rows = space.encode([[(7, 5, 2, 0), (0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 3)]])
        >>> space.decode(rows[0])[0]
        (0, 2, 5, 7)
    """

    layers: int
    experts: int
    keep: int
    groups: int
    _: KW_ONLY
    group_rate: float = 0.25
    row_rate: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "experts", whole("experts", self.experts, high=2**15))
        for name in ("layers", "keep", "groups"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        if self.keep > self.experts:
            raise InvalidSettings(f"`keep <= experts` must hold, but got (keep={self.keep}, experts={self.experts})")
        if self.groups > self.layers:
            raise InvalidSettings(f"`groups <= layers` must hold, but got (groups={self.groups}, layers={self.layers})")
        object.__setattr__(self, "group_rate", fraction("group_rate", self.group_rate))
        if self.row_rate is not None:
            object.__setattr__(self, "row_rate", fraction("row_rate", self.row_rate))

    @property
    def layer_groups(self) -> tuple[int, ...]:
        """The group of every layer: consecutive layers, the first groups one larger where they cannot be equal."""
        sizes = [len(part) for part in np.array_split(np.arange(self.layers), self.groups)]
        return tuple(np.repeat(np.arange(self.groups), sizes).tolist())

    @property
    def dimension(self) -> int:
        return self.groups * self.keep

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int16)

    @property
    def size(self) -> float:
        return int(math.comb(self.experts, self.keep) ** self.groups)

    def _by_group(self, population: Population) -> Population:
        """One row per candidate and group, sorted."""
        return np.sort(population.reshape(-1, self.keep), axis=1)

    def _by_candidate(self, rows: Population) -> Population:
        return rows.reshape(-1, self.dimension).astype(np.int16, copy=False)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        return self._by_candidate(k_of_n.draw(rng, n * self.groups, self.experts, self.keep))

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        if self.size == 1:
            return self.canonical(population)
        slots = self._slots(rng, len(population)).reshape(-1, self.keep)
        return self._by_candidate(k_of_n.replace(rng, self._by_group(population), slots, self.experts))

    def _slots(self, rng: np.random.Generator, n: int) -> NDArray[np.bool_]:
        """Which slots a mutation replaces, shape ``(n, groups * keep)``, at least one per candidate."""
        rate = max(0.15, 1 / self.keep) if self.row_rate is None else self.row_rate
        active = np.repeat(chance.hits(rng, n, self.groups, self.group_rate), self.keep, axis=1)
        slots = active & (rng.random(active.shape) < rate)
        idle = np.flatnonzero(~slots.any(axis=1))
        slots[idle, chance.pick(rng, active[idle])] = True
        return slots

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        a, b = self._by_group(first), self._by_group(second)
        mixed, which = chance.coins(rng, (2, len(a)))
        child = np.where(which[:, None], a, b)
        child[mixed] = k_of_n.mix(rng, a[mixed], b[mixed])
        return self._by_candidate(child)

    def repair(self, population: Population) -> Population:
        inside = self.contains(population)[:, None]
        nearest = k_of_n.nearest(population.reshape(-1, self.keep), self.experts)
        return np.where(inside, population, self._by_candidate(nearest)).astype(np.int16)

    def canonical(self, population: Population) -> Population:
        return self._by_candidate(self._by_group(population))

    def contains(self, population: Population) -> NDArray[np.bool_]:
        inside = k_of_n.contains(population.reshape(-1, self.keep), self.experts)
        return np.asarray(inside.reshape(-1, self.groups).all(axis=1))

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, self._genes)

    def _genes(self, value: Any) -> NDArray[Any]:
        kept = np.asarray([tuple(group) for group in value])
        if kept.shape != (self.groups, self.keep):
            raise ValueError
        return kept.ravel()

    def decode(self, row: NDArray[Any]) -> tuple[tuple[int, ...], ...]:
        return tuple(map(tuple, self._by_group(row).tolist()))

    @property
    def _plain(self) -> Grouped:
        """The same candidates, without layers."""
        return Grouped(Subset(self.experts, self.keep), self.groups)

    def _every_row(self, limit: int) -> Population:
        return self._plain.enumerate(limit).astype(np.int16)

    def _near(self, row: NDArray[Any]) -> Population:
        return self._plain.neighbors(row).astype(np.int16)

    def features(self, population: Population) -> NDArray[np.float64]:
        """One indicator per group and expert, shape ``(n, groups * experts)``."""
        kept = k_of_n.mask(population.reshape(-1, self.keep), self.experts)
        return np.asarray(kept.reshape(-1, self.latent_dimension), np.float64)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Number of experts that would have to be replaced, over all groups."""
        shared = k_of_n.shared(first.reshape(-1, self.keep), second.reshape(-1, self.keep))
        return np.asarray((self.keep - shared).reshape(-1, self.groups).sum(axis=1), np.float64)

    @property
    def latent_dimension(self) -> int:
        return self.groups * self.experts

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        return self._by_candidate(k_of_n.top(latent.reshape(-1, self.experts), self.keep))

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return 2 * self.features(population) - 1
