"""One option for every part, under linear budgets: the multiple-choice knapsack as a search space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.allocation_space import AllocationSpace
from searchlib.arguments import shown
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import Population
from searchlib.spaces import allocation_count, allocation_moves, chance
from searchlib.spaces.allocation_arguments import checked_fields
from searchlib.spaces.allocation_ledger import Ledger

__all__ = ["Allocation"]

#: How often a mutation that came to nothing is drawn again before every single change is looked at.
_TRIES = 3
#: Share of samples and mutants that are filled up to the budgets.
_FILLED = 0.75
#: Partial candidates held at most while the space is enumerated, per candidate that may come out.
_PARTIAL = 8
#: Latent coordinates are cut off here, so that differences of them are finite.
_FAR = 1e150


@final
@dataclass(frozen=True)
class Allocation(AllocationSpace):
    """One option per part (head, layer, tensor), such that every budget holds: sum over parts of cost <= budget.

    The search space that MoA (arXiv 2406.14909, section 4.3), MixDQ (arXiv 2405.17873) and mixed-precision quantization
    share, without gradients. A value is the tuple of options, in the order of ``parts``. With ``max_distinct`` no group
    (layer) holds more than so many different options, as kernels want it.

    **Budgets are exact by construction.** Costs are held as whole numbers of a tiny power of two (2**-50 of the largest
    sum), whose sums float64 represents exactly in any order. Every operator ends in the same repair, over the whole
    population at once: parts move to cheaper options until all budgets hold, and rows that this does not help (budgets
    in conflict) take options of a known feasible row, part by part, at the latest all of them. Costs that are multiples
    of that unit (bytes, bits, tokens) are held to the last digit; others (0.1, bits / parts) to one unit per part, less
    than 1e-10 of the budget, so that four bits everywhere meet a budget of 4.0.

    Samples spread over the feasible set, from cheap to dear parts; three in four are filled up to the budgets, where
    good candidates are. Spaces of up to 4,096 candidates are listed and sampled uniformly. Mutation gives one or a few
    parts another option; others pay for it, and three in four times what is left is spent on one to three others: an
    exchange.
    Crossover takes every part (under ``max_distinct`` every group) from either parent, and where that is too dear, more
    of one of them. The relaxation holds a score per part and option; the largest wins, and where budgets do not allow
    it, parts change in the order of the score that they lose per cost.

    ``size`` is exact where candidates or sums of costs are few; otherwise it is an upper bound (the smallest of those
    that each budget alone implies, on a grid of costs).

    A neighbor has one part switched, or two of which one could not switch alone: an exchange (``allocation_moves``).

    Arguments:
        parts: distinct names.
        options: distinct JSON scalars (str, int, finite float, bool, None).
        costs: ``costs[budget][part][option]``, finite.
        budgets: one upper limit per table of costs.
        allowed: ``allowed[part][option]``; None: every part may have every option. The cost of others has no meaning.
        groups: the number of the group of every part, for ``max_distinct``; None: all parts are one group.
        max_distinct: the most different options in a group; None: no limit.

    Raises:
        InvalidSettings: tables of another shape, or limits that no candidate meets.

    Example:
        >>> bits = (2, 4, 8)
        >>> space = Allocation(("q", "k", "v"), bits, costs=((bits, bits, bits),), budgets=(12.0,))
        >>> space.decode(space.repair(space.unlimited.encode([(8, 8, 8)]))[0])
        (4, 4, 4)
        >>> rows = space.sample(np.random.default_rng(0), 100)
        >>> float(space.cost_of(rows).max()), space.size
        (12.0, 11)
    """

    parts: tuple[str, ...]
    options: tuple[str | int | float | bool | None, ...]
    costs: tuple[tuple[tuple[float, ...], ...], ...] = ()
    budgets: tuple[float, ...] = ()
    allowed: tuple[tuple[bool, ...], ...] | None = None
    groups: tuple[int, ...] | None = None
    max_distinct: int | None = None

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name, value in checked_fields(**given).items():
            object.__setattr__(self, name, value)
        if self._floor is None:
            raise InvalidSettings(
                f"no allocation meets the limits: (budgets={self.budgets}, max_distinct={self.max_distinct}); "
                f"each budget alone needs at least {self._least()}"
            )

    def _least(self) -> list[float]:
        costs = np.where(self.allowed_array, self.costs_array, np.inf)
        return [float(number) for number in costs.min(axis=2).sum(axis=1)]

    @property
    def allocation(self) -> Allocation:
        """The space itself; spaces that decode the same rows otherwise have theirs here."""
        return self

    @property
    def part_names(self) -> tuple[str, ...]:
        return self.parts

    @cached_property
    def option_names(self) -> tuple[str, ...]:
        return tuple(str(option) for option in self.options)

    @cached_property
    def costs_array(self) -> NDArray[np.float64]:
        shape = (len(self.budgets), len(self.parts), len(self.options))
        return _frozen(np.asarray(self.costs, np.float64).reshape(shape))

    @cached_property
    def budgets_array(self) -> NDArray[np.float64]:
        return _frozen(np.asarray(self.budgets, np.float64))

    @cached_property
    def allowed_array(self) -> NDArray[np.bool_]:
        shape = (len(self.parts), len(self.options))
        return _frozen(np.ones(shape, np.bool_) if self.allowed is None else np.asarray(self.allowed, np.bool_))

    @property
    def unlimited(self) -> Allocation:
        return Allocation(self.parts, self.options, allowed=self.allowed)

    @cached_property
    def _ledger(self) -> Ledger:
        group = np.zeros(len(self.parts), np.intp)
        if self.groups is not None:
            group = np.unique(self.groups, return_inverse=True)[1].reshape(-1)
        return Ledger(self.costs_array, self.budgets_array, self.allowed_array, group, self.max_distinct)

    @cached_property
    def _floor(self) -> Population | None:
        """A known feasible row."""
        return allocation_count.feasible_row(self._ledger)

    @cached_property
    def _listed(self) -> Population | None:
        """All candidates where they are few."""
        return allocation_count.enumerated(self._ledger)

    @property
    def dimension(self) -> int:
        return len(self.parts)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.int16)

    @cached_property
    def size(self) -> float:
        return allocation_count.count(self._ledger) if self._listed is None else len(self._listed)

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        if self._listed is not None:
            return np.asarray(self._listed[rng.integers(len(self._listed), size=n)])
        ledger = self._ledger
        # One exponent per row: from rows of mostly cheap options to rows of mostly dear ones.
        skew = np.exp(rng.uniform(-math.log(8), math.log(8), (n, 1))).astype(np.float32)
        rank = (rng.random((n, self.dimension), np.float32) ** skew * ledger.count).astype(np.intp)
        rows = self._ranked(np.minimum(rank, ledger.count - 1))
        if self.max_distinct is not None:
            kept = rng.random((n, ledger.groups, ledger.options))
            rows = ledger.limited(rows, kept, self._known)
        rows = ledger.repaired(rows, self._known, rng.random(rows.shape, np.float32), rng=rng)
        return self._spent(rng, rows)

    @property
    def _known(self) -> Population:
        assert self._floor is not None  # refused by __post_init__
        return self._floor

    def _ranked(self, rank: NDArray[np.intp]) -> Population:
        """Options by their place from the cheapest to the dearest, all budgets taken together."""
        return np.asarray(self._ledger.sorted_options[-1].ravel().take(rank + self._ledger.starts), np.int16)

    def _spent(self, rng: np.random.Generator, rows: Population) -> Population:
        """Most rows with what is left of the budgets spent on dearer options."""
        rows, ledger = rows.copy(), self._ledger
        chosen = np.flatnonzero(rng.random(len(rows)) < (_FILLED if len(self.budgets) else 0))
        for _ in range(2):
            part = rows[chosen]
            keys = rng.random(part.shape, np.float32)
            rows[chosen] = ledger.filled(part, self._dearer(rng, part), keys)
        return rows

    def _exchanged(self, rng: np.random.Generator, rows: Population, fixed: NDArray[np.bool_]) -> Population:
        """Most rows with one to three parts that are not fixed given a dearer option, where the budgets allow it."""
        rows = rows.copy()
        if len(self.budgets):
            chosen = np.flatnonzero(rng.random(len(rows)) < _FILLED)
            part = rows[chosen]
            tried = np.zeros(part.shape, np.bool_)
            tried[np.arange(len(part))[:, None], rng.integers(self.dimension, size=(len(part), 3))] = True
            targets = np.where(tried & ~fixed[chosen], self._dearer(rng, part), part)
            keys = rng.random(part.shape, np.float32)
            rows[chosen] = self._ledger.filled(part, targets, keys)
        return rows

    def _dearer(self, rng: np.random.Generator, rows: Population) -> Population:
        """A random dearer option for every part; under ``max_distinct`` one that its group has, or its own."""
        ledger = self._ledger
        place = ledger.place.ravel().take(rows + ledger.starts)
        above = rng.random(rows.shape, np.float32) * (ledger.count - 1 - place)
        targets = self._ranked(np.minimum(place + np.ceil(above).astype(np.intp), ledger.count - 1))
        if self.max_distinct is None:
            return targets
        used = (ledger.used(rows) > 0)[:, ledger.group]
        return np.where(np.take_along_axis(used, targets[:, :, None].astype(np.intp), axis=2)[:, :, 0], targets, rows)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        rows = self.canonical(population)
        changed = rows.copy()
        left = np.arange(len(rows))
        for _ in range(_TRIES):
            if not len(left) or not (self._ledger.count > 1).any():
                break
            changed[left] = self._switched(rng, rows[left])
            left = left[(changed[left] == rows[left]).all(axis=1)]
        if len(left):
            changed[left] = self._neighbors(rng, rows[left])
        return changed

    def _switched(self, rng: np.random.Generator, rows: Population) -> Population:
        """One mutation, which may come to nothing."""
        ledger = self._ledger
        free = np.flatnonzero(ledger.count > 1)
        hit = np.zeros(rows.shape, np.bool_)
        hit[:, free] = chance.hits(rng, len(rows), len(free), 1 / len(free))
        row, part = np.nonzero(hit)
        place = ledger.place[part, rows[row, part]]
        place = (place + rng.integers(1, ledger.count[part])) % ledger.count[part]
        changed = rows.copy()
        changed[row, part] = ledger.sorted_options[-1][part, place]
        if self.max_distinct is not None:
            changed = self._few(rng, rows, changed, hit)
        keys = rng.random(rows.shape, np.float32) + 2 * hit
        changed = ledger.repaired(changed, self._known, keys, rng=rng)
        return self._exchanged(rng, changed, hit)

    def _few(
        self, rng: np.random.Generator, rows: Population, changed: Population, hit: NDArray[np.bool_]
    ) -> Population:
        """Mutants within ``max_distinct``: half of them by an option that the group has, half by giving up another."""
        ledger = self._ledger
        used = ledger.used(rows) > 0
        others = used[:, ledger.group] & ledger.allowed
        np.put_along_axis(others, rows[:, :, None].astype(np.intp), False, axis=2)
        row, part = np.nonzero(hit & others.any(axis=2) & (rng.random((len(rows), 1)) < 0.5))
        changed[row, part] = chance.pick(rng, others[row, part])
        prefer = ledger.used(changed) + rng.random(used.shape)
        row, part = np.nonzero(hit)
        prefer[row, ledger.group[part], changed[row, part]] += self.dimension + 1
        return ledger.limited(changed, prefer, self._known)

    def _neighbors(self, rng: np.random.Generator, rows: Population) -> Population:
        """The first feasible row on the way from each row to another one, part by part (group by group) at random."""
        ledger, by_group = self._ledger, self.max_distinct is not None
        others = self._others(rng, rows)
        keys = rng.random(rows.shape)
        differs = others != rows
        if by_group:
            keys = keys[:, ledger.firsts][:, ledger.group]
            differs = ((differs @ ledger.member) > 0)[:, ledger.group]
        keys = np.where(differs, keys, 2.0)
        child = np.where(differs & (keys == keys.min(axis=1, keepdims=True)), others, rows)
        bad = np.flatnonzero(~ledger.affordable(child))
        child[bad] = ledger.moved(child[bad], others[bad], keys[bad], by_group)
        return child

    def _others(self, rng: np.random.Generator, rows: Population) -> Population:
        """Another candidate for every row, wherever one is known."""
        if self._listed is not None:
            count = len(self._listed)
            own = (self._listed[None] == rows[:, None]).all(axis=2).argmax(axis=1)
            return np.asarray(self._listed[(own + rng.integers(1, max(count, 2), len(rows))) % count])
        others = self.sample(rng, len(rows))
        same = (others == rows).all(axis=1, keepdims=True)
        return np.where(same, self._known, others)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        ledger = self._ledger
        first, second = self.canonical(first), self.canonical(second)
        coins = chance.coins(rng, (len(first), self.dimension if self.max_distinct is None else ledger.groups))
        child = np.where(coins if self.max_distinct is None else coins[:, ledger.group], first, second)
        bad = np.flatnonzero(~ledger.affordable(child))
        if len(bad):
            toward = np.where(chance.coins(rng, (len(bad), 1)), first[bad], second[bad])
            keys = rng.random((len(bad), self.dimension), np.float32)
            child[bad] = ledger.moved(child[bad], toward, keys, by_group=self.max_distinct is not None)
        return child

    def repair(self, population: Population) -> Population:
        ledger, options = self._ledger, len(self.options)
        rows = np.rint(np.clip(population.astype(np.float64), 0, options - 1)).astype(np.intp)
        # The nearest allowed option, the lower one of two.
        far = np.abs(np.arange(options)[:, None] - np.arange(options))
        nearest = np.where(self.allowed_array[:, None], far, options + 1).argmin(axis=2)
        rows = np.take_along_axis(nearest, rows.T, axis=1).T.astype(np.int16)
        rows = ledger.limited(rows, ledger.used(rows).astype(np.float64), self._known)
        keys = np.broadcast_to(_spread(self.dimension), rows.shape)
        return ledger.repaired(rows, self._known, keys)

    def canonical(self, population: Population) -> Population:
        return np.array(population, np.int16)

    def contains(self, population: Population) -> NDArray[np.bool_]:
        with np.errstate(invalid="ignore"):
            inside = (population >= 0) & (population < len(self.options)) & (population == np.floor(population))
            rows = np.where(inside, population, 0).astype(np.intp)
        inside &= self.allowed_array[np.arange(self.dimension), rows]
        return np.asarray(inside.all(axis=1) & self._ledger.affordable(rows) & self._ledger.few_enough(rows))

    def encode(self, values: Sequence[Any]) -> Population:
        index = {option: place for place, option in enumerate(self.options)}
        rows = np.zeros((len(values), self.dimension), np.int16)
        for number, value in enumerate(values):
            try:
                genes = [index[option] for option in value]
            except (TypeError, LookupError) as reason:
                raise InvalidCandidate(f"values[{number}] = {shown(value)} holds no options of this space") from reason
            if len(genes) != self.dimension:
                raise InvalidCandidate(f"values[{number}] must hold {self.dimension} options, but is {shown(value)}")
            rows[number] = genes
        inside = self.contains(rows)
        if not inside.all():
            number = int(np.flatnonzero(~inside)[0])
            raise InvalidCandidate(
                f"values[{number}] = {values[number]!r:.200} costs {self.cost_of(rows)[number].tolist()}; it breaks "
                f"a budget of {list(self.budgets)}, has an option that its part may not have, or more than "
                f"{self.max_distinct} options in a group; space.repair(space.unlimited.encode(…)) moves it inside"
            )
        return rows

    def decode(self, row: NDArray[Any]) -> tuple[Any, ...]:
        return tuple(self.options[gene] for gene in row.astype(np.int64).tolist())

    def _every_row(self, limit: int) -> Population:
        rows = self._listed
        if rows is None:
            rows = allocation_count.enumerated(self._ledger, limit, _PARTIAL * limit)
        if rows is None:
            raise InvalidSettings(f"{self!r:.200} has budgets in conflict: too many of its candidates begin alike")
        return np.array(rows)

    def _near(self, row: NDArray[Any]) -> Population:
        return allocation_moves.moves(self._ledger, row)

    def features(self, population: Population) -> NDArray[np.float64]:
        """One indicator per part and option, and the costs, each as part of the span from all cheap to all dear."""
        hot = self.one_hot(population).reshape(len(population), self.latent_dimension)
        cost = self._ledger.cost(population.astype(np.intp)) / self._ledger.scale
        return np.asarray(np.concatenate([hot, cost], axis=1), np.float64)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """The number of parts whose options differ."""
        return np.asarray((first != second).sum(axis=1), np.float64)

    @property
    def latent_dimension(self) -> int:
        return len(self.parts) * len(self.options)

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        ledger = self._ledger
        scores = np.clip(np.asarray(latent, np.float64), -_FAR, _FAR).reshape(len(latent), ledger.parts, ledger.options)
        rows = np.where(ledger.allowed, scores, -np.inf).argmax(axis=2).astype(np.int16)
        if self.max_distinct is not None:
            prefer = np.zeros((len(rows), ledger.groups, ledger.options))
            tie = np.tanh(scores) + 2  # how much a part wants its option, bounded so that counts decide
            row, part = np.indices(rows.shape)
            np.add.at(prefer, (row, ledger.group[part], rows), tie[row, part, rows])
            rows = ledger.limited(rows, prefer, self._known)
        return ledger.repaired(rows, self._known, np.zeros(rows.shape), scores=scores)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        hot = self.one_hot(population).reshape(len(population), self.latent_dimension)
        return np.where(hot, 1.0, -1.0)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.flags.writeable = False
    return array


def _spread(n: int) -> NDArray[np.float64]:
    """Keys that visit n parts far apart one after the other (multiples of the golden ratio)."""
    return np.asarray(np.arange(n) * ((math.sqrt(5) - 1) / 2) % 1.0, np.float64)
