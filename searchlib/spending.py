"""What a search has spent of its budget, and what is left for the next batch."""

from __future__ import annotations

import math
from typing import final

from searchlib.budget import Budget
from searchlib.result import Outcome

__all__ = ["Spending"]

#: Duplicates in a row after which the algorithm has nothing more to say: so many, and so many full batches.
_STALE, _STALE_BATCHES = 1000, 20


@final
class Spending:
    """Counts what a search uses up.

    Attributes:
        evaluations: distinct candidates evaluated.
        hits: distinct candidates whose scores were in an evaluation cache; they use up nothing.
        duplicates: candidates that were known already.
        cells: scores computed.
        cost: in the objective's own unit.
        seconds: wall-clock time in batches.
        best: best value so far, minimized; infinite before the first.
    """

    def __init__(self, budget: Budget, sign: float, batch_size: int, space_size: float) -> None:
        self._budget, self._sign = budget, sign
        self._batch_size, self._space_size = batch_size, space_size
        self.evaluations = self.hits = self.duplicates = self.cells = self._stale = 0
        self.cost = self.seconds = 0.0
        self.best = math.inf

    @property
    def best_value(self) -> float:
        """Best value so far in the objective's own direction; NaN before the first."""
        return math.nan if math.isinf(self.best) else self._sign * self.best

    def add(self, candidates: int, duplicates: int, cells: int, cost: float, hits: int = 0) -> None:
        """Count a batch.

        A search that only meets ``hits`` goes on: each is another candidate, so there are no more than the cache holds.
        """
        self.evaluations += candidates
        self.hits += hits
        self.duplicates += duplicates
        self.cells += cells
        self.cost += cost
        self._stale = 0 if candidates or hits else self._stale + duplicates

    def outcome(self, known: int) -> Outcome:
        """Why the search is over, or RUNNING; ``known`` distinct candidates have been seen."""
        budget = self._budget
        spent = (
            (Outcome.EVALUATIONS, self.evaluations, budget.evaluations),
            (Outcome.CELLS, self.cells, budget.cells),
            (Outcome.COST, self.cost, budget.cost),
            (Outcome.SECONDS, self.seconds, budget.seconds),
        )
        for outcome, used, limit in spent:
            if limit is not None and used >= limit:
                return outcome
        if budget.target is not None and self.best <= self._sign * budget.target:
            return Outcome.TARGET
        if known >= self._space_size:
            return Outcome.EXHAUSTED
        return Outcome.NOTHING_NEW if self._stale >= max(_STALE, _STALE_BATCHES * self._batch_size) else Outcome.RUNNING

    def progress(self, planned: int | None) -> float:
        """What of the budget is spent, from 0 to 1; of ``planned`` evaluations, or else of cells or cost."""
        used = ((self.evaluations, planned), (self.cells, self._budget.cells), (self.cost, self._budget.cost))
        shares = [spent / limit for spent, limit in used if limit is not None]
        return min(1.0, max(shares, default=0.0))

    def whole(self, candidates: int, cells: int, cost: float, seconds: float) -> tuple[float, float]:
        """Evaluations and seconds that the whole budget buys, judged by what its first ``candidates`` have used.

        Both are infinite where only a target limits the search; a target beside other limits may end it sooner.
        """
        budget = self._budget
        used = ((budget.cells, cells), (budget.cost, cost), (budget.seconds, seconds))
        bought = [candidates * limit / spent for limit, spent in used if limit is not None and spent > 0]
        if budget.evaluations is not None:
            bought.append(budget.evaluations)
        least = min(bought, default=math.inf)
        if math.isinf(least) or not candidates:
            return math.inf, math.inf
        evaluations = min(math.ceil(least), self._space_size)
        return evaluations, min(evaluations * seconds / candidates, budget.seconds or math.inf)

    def allowance(self) -> int:
        """How many candidates the next batch may have while the search is running."""
        limit = self._budget.evaluations
        return self._batch_size if limit is None else min(self._batch_size, limit - self.evaluations)
