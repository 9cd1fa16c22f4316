"""An estimation of distribution over items: sample sets, keep the best, shrink the pool to what they have in common."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run
from searchlib.algorithms.archive import Archive
from searchlib.arguments import check_field, listed, one_of, real_number, whole_number
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import ItemSpace, Population

__all__ = ["ShrinkingPool", "pool_schedule"]

#: Pool sizes of FlashEval's released configurations (configs/search.yaml), for 5,000 items and for 40,504.
_DIFFUSIONDB = (4000, 3000, 2000, 1500, 1000, 500, 300, 200)
_COCO = (30000, 20000, 15000, 12000, 10000, 8000, 5000, 3000, 2000, 1000, 500, 200)


def pool_schedule(items: int, keep: int) -> tuple[int, ...]:
    """The pool sizes of FlashEval's released code, scaled to ``items``, as far as they leave room for a choice.

    Example:
        >>> pool_schedule(5000, 50)
        (4000, 3000, 2000, 1500, 1000, 500, 300, 200)
        >>> pool_schedule(500, 50)
        (400, 300, 200, 150, 100)
    """
    items, keep = whole_number("items", items, 1), whole_number("keep", keep, 0)
    released, of = (_DIFFUSIONDB, 5000) if items <= 10_000 else (_COCO, 40_504)
    sizes = (round(size * items / of) for size in released)
    return tuple(dict.fromkeys(size for size in sizes if keep < size < items))


@final
@dataclass(frozen=True, kw_only=True)
class ShrinkingPool(Algorithm):
    """FlashEval's search (arXiv 2403.16379, Algorithm 1), followed by exchanges of single items.

    Every generation draws sets from the pool; the pool of the next one is the items that occur most often in the top
    share of them (the paper's *frequency-based selection*; a univariate marginal distribution with truncation). After
    the last pool the best set is polished: each of its items in turn is exchanged for whichever item of the last pool
    is best in its place, until a whole round changes nothing. The paper does not polish, and its released code draws
    with replacement, 3,000,000 sets a generation.

    Works on spaces of items (:class:`searchlib.spaces.Subset`, :class:`searchlib.spaces.EvalSubsets`). It needs
    generations of thousands of sets to see frequencies, so use it where an evaluation costs microseconds.

    Arguments:
        schedule: pool sizes after each generation, falling; None: :func:`pool_schedule`. Empty: best of random sets.
        samples: sets per generation; None: the evaluations of the budget in equal parts, or 100,000 without a budget.
        top: share of a generation that is counted, in (0, 1]; 1/30 in the released code.
        polish: share of the budget's evaluations that is set aside for the exchanges, in [0, 1); 0: no exchanges.
        level: ``"set"``: the answer is the best set found. ``"item"``: it is the items that are most frequent in the
            best sets, a last pool of the size of one set, whatever its own value; there are no exchanges then.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Subset
        >>> far = lambda rows: rows.sum(axis=1)
        >>> space = Subset(200, k=4)
        >>> algorithm = ShrinkingPool(schedule=(100, 40), samples=300)
        >>> search(far, algorithm, space=space, direction="maximize", batched=True, budget=3000).best
        (196, 197, 198, 199)
    """

    schedule: tuple[int, ...] | None = None
    samples: int | None = None
    top: float = 1 / 30
    polish: float = 0.3
    level: str = "set"

    def __post_init__(self) -> None:
        if self.schedule is not None:
            sizes = listed("ShrinkingPool(schedule=…)", self.schedule)
            object.__setattr__(
                self, "schedule", tuple(whole_number("ShrinkingPool(schedule=…)", size, 1) for size in sizes)
            )
            if any(after >= before for before, after in itertools.pairwise(self.schedule)):
                raise InvalidSettings(f"ShrinkingPool(schedule=…) must fall from pool to pool, but is {self.schedule}")
        check_field(self, "samples", whole_number, 1, optional=True)
        check_field(self, "top", real_number, "(0, 1]")
        check_field(self, "polish", real_number, "[0, 1)")
        check_field(self, "level", one_of, ("set", "item"))

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run.

        Raises:
            MissingOperator: the space cannot be narrowed to a pool of items.
            InvalidSettings: a pool is too small to draw from, or no smaller than what there is.
        """
        problem.require_one_objective(self)
        space = problem.space
        if not isinstance(space, ItemSpace):
            raise MissingOperator(
                f"ShrinkingPool narrows a space of items to a pool (ItemSpace.sample_from), which {space!r} does not "
                f"offer; use it on Subset or EvalSubsets"
            )
        schedule = pool_schedule(space.item_count, space.dimension) if self.schedule is None else self.schedule
        wrong = [size for size in schedule if not space.dimension <= size < max(space.item_count, 1)]
        if wrong:
            raise InvalidSettings(
                f"a pool must hold at least the {space.dimension} items of a set and fewer than all "
                f"{space.item_count}, but ShrinkingPool's schedule has {wrong[0]}"
            )
        if self.level == "item":
            if not 1 <= space.dimension < space.item_count:
                raise InvalidSettings(f"ShrinkingPool(level='item') needs items to leave out of {space!r}")
            schedule = (*(size for size in schedule if size > space.dimension), space.dimension)
        return _ShrinkingPoolRun(self, schedule, self._samples(problem, len(schedule)), problem, space, rng)

    def _samples(self, problem: Problem, pools: int) -> int:
        if self.samples is not None:
            return self.samples
        if problem.evaluations is None:
            return 100_000
        if self.level == "item":
            return max(1, (problem.evaluations - 1) // pools)  # of the last pool there is one set only
        return max(1, int(problem.evaluations * (1 - self.polish)) // (pools + 1))


@final
class _ShrinkingPoolRun(Run):
    def __init__(
        self, settings: ShrinkingPool, schedule: tuple[int, ...], samples: int, problem: Problem, space: ItemSpace,
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._space, self._rng, self._samples = space, rng, samples
        self._pool: NDArray[np.int64] = np.arange(space.item_count)
        self._sizes = list(schedule)
        self._counted = max(1, math.ceil(settings.top * samples))
        self._best = Archive(space, 64)
        self._generation = Archive(space, self._counted)
        self._seeds, self._asked, self._left = problem.first_rows, 0, samples
        self._by_item = settings.level == "item"
        self._polishing = _Exchanges(space, rng) if settings.polish > 0 and not self._by_item else None

    def ask(self, n: int) -> Batch:
        self._best.settle()
        if not self._left and self._sizes:
            self._shrink()
        if self._left and self._answered:
            rows, self._left = self._answer(), 0
        else:
            rows = self._drawn(min(n, self._left)) if self._left else self._exchanged(n)
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        self._best.add(evidence)
        self._generation.add(evidence)

    def recommend(self, n: int) -> Population:
        self._best.settle()
        return self._answer() if self._answered else self._best.best(n)

    @property
    def _answered(self) -> bool:
        """Whether the pool is the answer."""
        return self._by_item and not self._sizes

    def _answer(self) -> Population:
        return self._space.canonical(self._pool[None].astype(self._space.dtype))

    def _drawn(self, n: int) -> Population:
        seeds, self._seeds = self._seeds[:n], self._seeds[n:]
        self._left -= n
        self._generation.settle()  # only the top share of what was told stays in memory
        fresh = self._space.sample_from(self._rng, n - len(seeds), self._pool)
        return self._space.canonical(np.concatenate([seeds, fresh]))

    def _shrink(self) -> None:
        """Next generation: the pool becomes the items most frequent in the best sets of this one."""
        self._generation.settle()
        count = np.bincount(self._generation.population.ravel(), minlength=self._space.item_count)
        order = np.argsort(-count[self._pool], kind="stable")
        self._pool = np.sort(self._pool[order[: self._sizes.pop(0)]])
        self._generation = Archive(self._space, self._counted)
        self._left = self._samples

    def _exchanged(self, n: int) -> Population:
        if self._polishing is None or not len(self._best):
            return self._best.population[:0]
        return self._polishing.ask(n, self._best.population[0], self._pool)


@final
class _Exchanges:
    """Steepest exchanges of one item at a time, over the places of the best set in random order."""

    def __init__(self, space: ItemSpace, rng: np.random.Generator) -> None:
        self._space, self._rng = space, rng
        self._center: NDArray[Any] | None = None
        self._places: list[int] = []  # of the center, still to be tried in this round
        self._waiting: Population | None = None  # exchanges of one place that did not fit into the last batch

    def ask(self, n: int, best: NDArray[Any], pool: NDArray[np.int64]) -> Population:
        """Up to ``n`` candidates that differ from the best one in one place; none when it cannot be improved so."""
        if self._waiting is None or not len(self._waiting):
            self._waiting = self._next_place(best, pool)
        rows, self._waiting = self._waiting[:n], self._waiting[n:]
        return rows

    def _next_place(self, best: NDArray[Any], pool: NDArray[np.int64]) -> Population:
        if self._center is None or not np.array_equal(best, self._center):
            # A better set: every place may be worth trying again, those that were not tried yet first.
            untried = [] if self._center is None else [int(self._center[place]) for place in self._places]
            self._center = best.copy()
            order = self._rng.permutation(len(best))
            fresh = np.isin(best[order], untried)
            self._places = [*order[fresh].tolist(), *order[~fresh].tolist()]
        while self._places:
            place = self._places.pop(0)
            rows: Population = np.repeat(self._center[None, :], len(pool), axis=0)
            rows[:, place] = pool
            rows = self._space.canonical(rows[self._space.contains(rows)])
            rows = rows[(rows != self._center).any(axis=1)]
            if len(rows):
                return rows
        nothing: Population = np.empty((0, len(best)), best.dtype)
        return nothing
