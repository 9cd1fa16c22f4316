"""Accuracy versus size: an objective with further numbers that the candidate alone decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.allocation_space import AllocationSpace
from searchlib.arguments import flag, instance, listed, numbers, one_of, shown
from searchlib.captured import captured
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.memo import Memo
from searchlib.objective import Direction, FunctionObjective, Objective, Scores
from searchlib.space import Candidates, Population, Space, distinct

__all__ = ["WithCost"]

#: Rows with the same option everywhere that start a search of allocations.
UNIFORM = 8


@final
class WithCost(Objective):
    """An objective beside what its candidates cost: bytes, kept experts, the mean span, a latency from a table.

    The search then gives a front (``result.front``) instead of the best candidate within a budget, so leave the budget
    of the space free. Costs need no case: they are worked out from the candidates, and are the same on all splits.

    Arguments:
        objective: what is scored; all that it has (cases, references, seeds, artifacts) stays, except the algorithm it
            recommends.
        cost: of one typed value (``batched=False``), or of a population array ``(n, d)`` (``batched=True``): a finite
            number, or one for each of ``names``.
        name: what the cost is called, or the names of several.
        value_name: what the objective's own value is called, or its values; by default what the objective calls them.
        direction: of the cost, or of each.
        batched: whether ``cost`` takes a population array.
        reference_costs: the cost (or costs) of references of the objective, by name; of the others it is unknown.
        space: another space to search, whose rows ``translate`` turns into rows of the objective's; by default the
            objective's own.
        translate: of a population ``(n, d)`` of ``space`` to one of the objective's space.
        seeds: rows of ``space`` that start the first population; the objective's own are left out there.

    Raises:
        InvalidSettings: not an objective, names or directions that do not fit, costs of references that there are not,
            or another space without a translation (or the other way around).

    Example:
        >>> from searchlib import FunctionObjective, search
        >>> from searchlib.spaces import Binary
        >>> error = FunctionObjective(lambda mask: 1 / (1 + sum(i * on for i, on in enumerate(mask))), Binary(6))
        >>> result = search(WithCost(error, sum, name="kept"), budget=64)
        >>> [point.artifact for point in result.front][:2], result.front.names
        ([(0, 1, 1, 1, 1, 1), (0, 0, 1, 1, 1, 1)], ('value', 'kept'))
    """

    def __init__(
        self,
        objective: Objective,
        cost: Callable[[Any], Any],
        *,
        name: str | tuple[str, ...] = "cost",
        value_name: str | tuple[str, ...] | None = None,
        direction: Direction | tuple[Direction, ...] = "minimize",
        batched: bool = False,
        reference_costs: Mapping[str, Any] | None = None,
        space: Space | None = None,
        translate: Callable[[Population], Population] | None = None,
        seeds: Population | None = None,
    ) -> None:
        if not isinstance(objective, Objective):
            raise InvalidSettings(
                f"objective must be an Objective, but is {shown(objective)}; a plain function that returns several "
                f"numbers needs no wrapper, only direction=('minimize', 'minimize')"
            )
        if not callable(cost):
            raise InvalidSettings(f"cost must be a function of a candidate, but is {shown(cost)}")
        if space is not None:
            instance("space", space, Space, "a searchlib Space")
        if translate is not None and not callable(translate):
            raise InvalidSettings(f"translate must be a function of a population, but is {shown(translate)}")
        flag("batched", batched)
        if (translate is None) != (space is None) or (seeds is not None and space is None):
            raise InvalidSettings(
                f"another space needs a translation into the objective's: pass both space= and translate= (and only "
                f"there seeds=), but they are {shown(space)}, {shown(translate)} and {shown(seeds)}"
            )
        names = (name,) if isinstance(name, str) else tuple(map(str, listed("name", name)))
        ways: Any = (direction,) * len(names) if isinstance(direction, str) else listed("direction", direction)
        for way in ways:
            one_of("direction", way, ("minimize", "maximize"))
        if not names or len(ways) != len(names):
            raise InvalidSettings(
                f"there must be one direction per cost, but name={shown(name)}, direction={shown(direction)}"
            )
        own = (objective.direction,) if isinstance(objective.direction, str) else tuple(objective.direction)
        if value_name is None:
            numbered = tuple(f"value {number}" for number in range(len(own)))
            value_name = objective.value_names or (numbered if len(own) > 1 else "value")
        known = (value_name,) if isinstance(value_name, str) else tuple(map(str, listed("value_name", value_name)))
        if len(known) != len(own):
            raise InvalidSettings(f"the objective has {len(own)} value(s), but value_name={shown(value_name)}")
        self.objective, self._cost, self._batched, self._names = objective, cost, batched, names
        self.space: Space = objective.space if space is None else space
        self._translate, self._seeds = translate, seeds
        self.direction: tuple[Direction, ...] = (*own, *ways)
        self.value_names = (*known, *names)
        self.additive = objective.additive
        self.chunk_rows, self.chunk_cases = objective.chunk_rows, objective.chunk_cases
        self.shareable = objective.shareable
        self.noisy, self.task_space = objective.noisy, objective.task_space
        self.batch_size, self.recomputable = objective.batch_size, objective.recomputable
        given_costs = {} if reference_costs is None else reference_costs
        instance("reference_costs", given_costs, Mapping, "costs by the name of a reference")
        self._references = {key: self._numbers(given) for key, given in given_costs.items()}
        unknown = [key for key in self._references if key not in objective.references()]
        if unknown:
            raise InvalidSettings(
                f"reference_costs has {unknown}, but the references are {list(objective.references())}"
            )

    def cases(self, split: Split) -> Cases:
        """Those of the objective."""
        return self.objective.cases(split)

    def task_cases(self, tasks: Population, seeds: NDArray[np.int64]) -> Cases:
        """Those of the objective."""
        return self.objective.task_cases(tasks, seeds)

    def evaluate(self, candidates: Candidates, cases: Cases) -> Scores:
        """The objective's observations ``(n, c, k)``, and behind them the costs, the same for every case."""
        given = self.objective.evaluate(self._inner(candidates), cases)
        scores = given if isinstance(given, Scores) else Scores(given)
        values = np.asarray(scores.values, np.float64).reshape(len(candidates), len(cases), -1)
        costs = np.repeat(self.costs(candidates)[:, None], len(cases), axis=1)
        return Scores(np.concatenate([values, costs], axis=2), scores.secondary, scores.infeasible)

    def costs(self, candidates: Candidates) -> NDArray[np.float64]:
        """The costs ``(n, names)`` of candidates."""
        if not self._batched:
            return np.stack([self._numbers(self._cost(value)) for value in candidates]).reshape(len(candidates), -1)
        given = numbers("what cost returns", self._cost(candidates.array))
        if given.shape[:1] != (len(candidates),) or given.size != len(candidates) * len(self._names):
            raise InvalidSettings(
                f"cost must return {len(candidates)} numbers for each of {self._names}, but returned {given!r:.200}"
            )
        return given.reshape(len(candidates), -1)

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The objective's own values, and the costs, ``(n, objectives)``."""
        width = len(self._names)
        values = np.asarray(self.objective.aggregate(scores[:, :, :-width]))
        return np.concatenate([values, scores[:, 0, -width:]], axis=1)

    def seeds(self) -> Population:
        """The objective's own in its own space; in another one those that were given.

        On a space of allocations, also the same option everywhere, from the cheapest to the dearest: budgets no longer
        say where to look, so the search begins all along the front.
        """
        rows = self._seeds
        if rows is None:
            rows = self.objective.seeds() if self._translate is None else super().seeds()
        if not isinstance(self.space, AllocationSpace):
            return rows
        options = np.arange(self.space.allowed_array.shape[1])
        uniform = distinct(self.space.repair(np.repeat(options[:, None], self.space.dimension, axis=1)))
        order = np.argsort(self.costs(Candidates(self.space, uniform))[:, 0], kind="stable")
        even = np.linspace(0, len(order) - 1, min(UNIFORM, len(order))).round().astype(int)
        return np.concatenate([rows, uniform[order[even]]])

    def references(self) -> tuple[str, ...]:
        """Those of the objective."""
        return self.objective.references()

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Its observations ``(c, k)`` and its costs; NaN where these are unknown."""
        values = np.asarray(self.objective.evaluate_reference(name, cases), np.float64).reshape(len(cases), -1)
        costs = self._references.get(name, np.full(len(self._names), np.nan))
        return np.concatenate([values, np.repeat(costs[None], len(cases), axis=0)], axis=1)

    def remember(self, memo: Memo) -> None:
        """Hand the memo on."""
        self.objective.remember(memo)

    def artifact(self, value: Any) -> Any:
        """What the objective makes of the value, or of its translation."""
        if self._translate is not None:
            value = self._inner(Candidates(self.space, self.space.encode([value])))[0]
        return self.objective.artifact(value)

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """What evaluating costs, as the objective counts it."""
        return self.objective.cost(self._inner(candidates), cases)

    def unseen(self) -> tuple[str, ...]:
        """The objective's, and the costs' functions'."""
        functions = [function for function in (self._cost, self._translate) if function is not None]
        return (*self.objective.unseen(), *(name for function in functions for name in captured(function)))

    def fingerprint(self) -> Mapping[str, Any]:
        """The objective's, with the costs' functions by name and body."""
        parts = {"cost": self._cost, "translate": self._translate}
        bodies = {
            key: dict(FunctionObjective(function, self.space).fingerprint())
            for key, function in parts.items() if function is not None
        }  # fmt: skip
        references = {name: costs.tolist() for name, costs in self._references.items()}
        of = dict(self.objective.fingerprint())
        return {"objective": "WithCost", "of": of, "names": list(self._names), "references": references, **bodies}

    def __enter__(self) -> Self:
        self.objective.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.objective.__exit__(kind, error, trace)

    def _inner(self, candidates: Candidates) -> Candidates:
        """What the objective sees."""
        if self._translate is None:
            return candidates
        space = self.objective.space
        return Candidates(space, space.check(self._translate(candidates.array), name="translate's population"))

    def _numbers(self, given: Any) -> NDArray[np.float64]:
        costs = np.atleast_1d(numbers(f"a cost must be a finite number for each of {self._names}: it", given))
        if costs.shape != (len(self._names),) or not np.isfinite(costs).all():
            raise InvalidSettings(f"a cost must be a finite number for each of {self._names}, but is {shown(given)}")
        return costs
