"""Exact allocations of an additive profile, then a search for what additivity misses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final, get_args

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from searchlib.additive_profile import AdditiveProfile
from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status, in_order
from searchlib.algorithms.allocation_model import AllocationModel
from searchlib.algorithms.drawn_allocations import drawn_allocations
from searchlib.algorithms.evolution import Evolution
from searchlib.allocation_space import AllocationSpace
from searchlib.arguments import check_field, instance, one_of, real_number, whole_number
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.knapsack import Allocated, Knapsack, Method, solve
from searchlib.space import Population, distinct, row_keys

__all__ = ["ExactAllocation"]

#: Budgets of alternates, as shares of what lies between the cheapest allocation and the budget.
_TIGHTER = (0.97, 0.92)
#: Misfit of alternates, as a share of each entry's loss, before any evaluation says how large it is.
_MISFIT = 0.3
#: How often a stage draws again in the place of allocations that are known.
_DRAWS = 3
#: Ids under which the evolution is told of what it did not breed: negative, and far from those of strangers.
_PICKS = -(1 << 40)


@final
@dataclass(frozen=True)
class ExactAllocation(Algorithm):
    """Allocate by a profile exactly, evaluate that and its rivals, then search what the profile's sum does not say.

    MoA (arXiv 2406.14909) and MixDQ (arXiv 2405.17873) stop at the allocation of least additive loss and pick among
    some. Here it is the first candidate; then come several alternates (losses drawn within their errors and a misfit,
    single metrics, the monotone profile, slightly smaller budgets) and the objective's seeds. Every later stage is one
    half exact allocations under losses drawn from their posterior (Thompson sampling) of a linear model of the joint
    value: its prior is the profile, its likelihood all evaluations (:mod:`searchlib.algorithms.allocation_model`). The
    other half is bred by an evolution from everything evaluated, for what no sum over parts can express. The best
    evaluated is recommended, never a prediction.

    ``result.notes`` puts the profile's promise and the truth side by side: ``additive`` (additive ``loss``, ``bound``,
    ``gap`` and ``joint`` value of the exact allocation), ``best`` (``loss`` and ``joint`` of the best evaluated, and
    which ``source`` proposed it), ``model`` (``misfit`` and ``residual`` last found) and ``evaluations``. Joint values
    are minimized ones (negated where the objective is maximized).

    Deterministic unless a time limit ends the solver of the first allocation. Worth its while where an evaluation costs
    a tenth of a second or more.

    Arguments:
        profile: of the space's parts and options; its budgets do not matter, the space's hold.
        weights: how much each metric counts in it; needed where it has several (see :meth:`AdditiveProfile.combined`).
        alternates: candidates beside the exact allocation, before the first stage.
        stage: candidates of every later stage.
        share: part of a stage that is exact allocations, in [0, 1].
        method: of the first allocation's solver. Draws are allocated by Lagrangian relaxation, in milliseconds.
        evolution: breeds the others.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Allocation
        >>> space = Allocation(("a", "b", "c"), (2, 4, 8), costs=[[[2, 4, 8]] * 3], budgets=[14])
        >>> loss = np.array([[4.0, 1, 0], [9, 2, 0], [1, 0.5, 0]])
        >>> profile = AdditiveProfile.of(space, loss, base=[2, 2, 2])
        >>> def joint(bits):
        ...     return sum(loss[part, (2, 4, 8).index(b)] for part, b in enumerate(bits)) ** 1.5
        >>> result = search(joint, ExactAllocation(profile), space=space, budget=10)
        >>> result.best, result.notes["additive"]["loss"]
        ((4, 8, 2), 2.0)
    """

    profile: AdditiveProfile
    weights: Any = None
    alternates: int = 8
    stage: int = 12
    share: float = 0.5
    method: Method = "auto"
    evolution: Evolution = field(default_factory=Evolution)

    def __post_init__(self) -> None:
        check_field(self, "profile", instance, AdditiveProfile, "an AdditiveProfile")
        check_field(self, "evolution", instance, Evolution, "an Evolution(…)")
        check_field(self, "alternates", whole_number, 0, 10**5)
        check_field(self, "stage", whole_number, 1)
        check_field(self, "share", real_number, "[0, 1]")
        check_field(self, "method", one_of, get_args(Method))
        if len(self.profile.metrics) > 1 and self.weights is None:
            raise InvalidSettings(f"say how much each metric of {list(self.profile.metrics)} counts: weights=…")
        if self.weights is not None:
            self.profile.combined(self.weights)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run, for one objective.

        Raises:
            MissingOperator: the space is no :class:`~searchlib.AllocationSpace`.
            InvalidSettings: the profile is one of other parts or options.
        """
        problem.require_one_objective(self)
        space = problem.space
        if not isinstance(space, AllocationSpace):
            raise MissingOperator(f"ExactAllocation needs an AllocationSpace, but got {type(space).__name__}")
        if space.allowed_array.shape != self.profile.loss.shape[1:]:
            raise InvalidSettings(
                f"the profile has {self.profile.loss.shape[1:]} parts and options, but the space has "
                f"{space.allowed_array.shape}"
            )
        return _ExactRun(self, space, problem, rng)


@final
class _ExactRun(Run):
    def __init__(
        self, settings: ExactAllocation, space: AllocationSpace, problem: Problem, rng: np.random.Generator
    ) -> None:
        self._settings, self._space = settings, space
        self._rng = rng.spawn(1)[0]
        self._evolution = replace(settings.evolution, population=1).start(Problem(space), rng)
        self._profile = settings.profile if settings.weights is None else settings.profile.combined(settings.weights)
        self._loss = _finite(self._profile.loss[0], space.allowed_array)
        assert self._profile.base is not None
        error = self._profile.errors[0]
        usual = np.median(np.abs(self._loss[space.allowed_array]))
        self._model = AllocationModel(self._loss, np.where(np.isfinite(error), error, usual), self._profile.base)
        self._known: set[bytes] = set()
        self._sources: dict[bytes, str] = {}
        self._waiting: list[Evidence] = []
        self._rows: Population = problem.first_rows[:0]
        self._values: NDArray[np.float64] = np.empty(0)
        with threadpoolctl.threadpool_limits(1):  # sums must not depend on the number of cores
            self._exact = self._solved()
            self._choice = self._inside(self._exact)
            first, sources = self._first(problem.first_rows)
        self._queue, self._queued = Batch(np.full(len(first), -1), first), sources
        self._bred: dict[int, int] = {}  # our id of a child → the evolution's
        self._asked = 0
        self._fitted: dict[str, float] = {}

    def ask(self, n: int) -> Batch:
        self._settle()
        if not len(self._queue):
            with threadpoolctl.threadpool_limits(1):
                self._queue, self._queued = self._stage()
        taken = Batch(self._queue.ids[:n], self._queue.population[:n])
        keys = row_keys(taken.population)
        self._known.update(keys)
        for key, source in zip(keys, self._queued, strict=False):
            self._sources.setdefault(key, source)
        self._queue = Batch(self._queue.ids[n:], self._queue.population[n:])
        self._queued = self._queued[n:]
        ids = np.arange(self._asked, self._asked + len(taken))
        self._bred.update((ours, own) for ours, own in zip(ids.tolist(), taken.ids.tolist(), strict=True) if own >= 0)
        self._asked += len(taken)
        return Batch(ids, taken.population)

    def tell(self, evidence: Evidence) -> None:
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        return self._evolution.recommend(n)

    def notes(self) -> Mapping[str, Any]:
        self._settle()
        best = self._evolution.recommend(1)
        notes: dict[str, Any] = {
            "additive": {
                "loss": self._exact.loss, "bound": self._exact.bound, "gap": self._exact.gap,
                "method": self._exact.method, "joint": self._joint(self._choice),
            },
            "best": None, "model": dict(self._fitted), "evaluations": len(self._values),
        }  # fmt: skip
        if len(best):
            source = self._sources.get(row_keys(best)[0], "elsewhere")
            notes["best"] = {"loss": self._additive(best[0]), "joint": self._joint(best[0]), "source": source}
        return notes

    def _joint(self, row: Population) -> float | None:
        """What was told about a row."""
        where = np.flatnonzero((self._rows == row).all(axis=1))
        return float(self._values[where].min()) if len(where) else None

    def _additive(self, row: Population) -> float:
        return float(self._loss[np.arange(len(row)), row].sum())

    def _settle(self) -> None:
        for evidence in self._waiting:
            own = [self._bred.pop(index, index if index < 0 else _PICKS + index) for index in evidence.ids.tolist()]
            self._known.update(row_keys(self._space.canonical(evidence.population)))
            self._evolution.tell(replace(evidence, ids=np.array(own, np.int64)))
        done = [(e.population[i], e.values[i, 0]) for e, i in in_order(self._waiting) if e.status[i] == Status.DONE]
        self._waiting = []
        if done:
            self._rows = np.concatenate([self._rows, np.stack([row for row, _ in done])])
            self._values = np.append(self._values, [value for _, value in done])

    def _solved(self) -> Allocated:
        """The best allocation by the profile, with its certificate."""
        space = self._space
        groups = None if space.groups is None else np.asarray(space.groups)
        table = np.where(space.allowed_array, self._loss, np.inf)
        problem = Knapsack(
            table, space.costs_array, space.budgets_array, groups=groups, max_distinct=space.max_distinct
        )  # fmt: skip
        return solve(problem, self._settings.method)

    def _inside(self, allocated: Allocated) -> Population:
        """The row of an allocation; where the solver rounds more generously than the space, the nearest within."""
        row = allocated.choice[None].astype(self._space.dtype)
        inside = row if self._space.contains(row)[0] else self._space.repair(row)
        return np.asarray(self._space.canonical(inside)[0])

    def _first(self, seeds: Population) -> tuple[Population, list[str]]:
        """The exact allocation, alternates and seeds, each once, and who proposed them."""
        rows, names = [self._choice], ["exact"]
        for row in self._alternates():
            if len(rows) > self._settings.alternates:
                break
            if not any(np.array_equal(row, other) for other in rows):
                rows.append(row)
                names.append("alternate")
        for row in self._space.canonical(seeds):
            if not any(np.array_equal(row, other) for other in rows):
                rows.append(row)
                names.append("seed")
        return np.stack(rows), names

    def _alternates(self) -> Population:
        """Allocations by each metric alone, by the monotone profile, under smaller budgets, and by losses drawn."""
        allowed, profile = self._space.allowed_array, self._settings.profile
        losses = [_finite(table, allowed) for table in profile.loss] if len(profile.metrics) > 1 else []
        if len(self._space.budgets_array):
            losses.append(_finite(self._profile.monotone().loss[0], allowed))
        shares = np.append(np.ones(len(losses)), _TIGHTER)
        losses += [self._loss] * len(_TIGHTER)
        losses += [self._model.prior_draw(self._rng, _MISFIT) for _ in range(2 * self._settings.alternates)]
        return self._allocated(losses, np.append(shares, np.ones(len(losses) - len(shares))))

    def _allocated(
        self, losses: Sequence[NDArray[np.float64]], shares: NDArray[np.float64] | None = None
    ) -> Population:
        """An allocation within the space for every table of losses, without a certificate."""
        if not losses:
            return self._rows[:0]
        rows = drawn_allocations(self._space, np.stack(losses), self._choice, shares)
        return np.asarray(self._space.canonical(rows))

    def _stage(self) -> tuple[Batch, list[str]]:
        """Exact allocations under drawn losses, and the evolution's children."""
        stage = self._settings.stage
        wanted = round(self._settings.share * stage) if len(self._values) else 0
        picks = self._drawn(wanted)
        bred = Batch(np.empty(0, np.int64), self._rows[:0])
        while len(bred) < stage - len(picks) and len(more := self._evolution.ask(stage - len(picks) - len(bred))):
            bred = Batch(np.append(bred.ids, more.ids), np.concatenate([bred.population, more.population]))
        taken = set(row_keys(bred.population))
        picks = picks[[key not in taken for key in row_keys(picks)]]
        ids = np.append(np.full(len(picks), -1), bred.ids)
        names = ["posterior"] * len(picks) + ["evolution"] * len(bred)
        return Batch(ids, np.concatenate([picks, bred.population])), names

    def _drawn(self, wanted: int) -> Population:
        """Up to ``wanted`` new exact allocations: of the posterior's mean, then of draws from it."""
        if not wanted:
            return self._rows[:0]
        fitted = self._model.fit(self._rows, self._values)
        self._fitted = {"misfit": fitted.misfit, "residual": fitted.residual}
        rows, seen = self._rows[:0], set(self._known)
        for attempt in range(_DRAWS):
            missing = wanted - len(rows)
            draws = [fitted.draw(self._rng) for _ in range(missing - (not attempt))]
            found = distinct(self._allocated([*([] if attempt else [fitted.mean()]), *draws]))
            found = found[[key not in seen for key in row_keys(found)]]
            seen.update(row_keys(found))
            rows = np.concatenate([rows, found])
            if len(rows) == wanted:
                break
        return rows


def _finite(loss: NDArray[np.float64], allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Losses in which what the profile excludes, but the space allows, is worse than all that it measured together."""
    known = np.isfinite(loss) & allowed
    worst = 1 + np.where(known, np.abs(loss), 0.0).sum()
    return np.where(known, loss, np.where(allowed, worst, 0.0))
