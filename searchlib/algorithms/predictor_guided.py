"""Evolution guided by a predictor that is retrained at every stage, and not trusted before it has proved itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import threadpoolctl
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status, succeeded
from searchlib.algorithms.evolution import Evolution
from searchlib.algorithms.gaussian_process import GaussianProcess
from searchlib.algorithms.predictor import FittedPredictor, Predictor
from searchlib.arguments import check_field, instance, real_number, whole_number
from searchlib.space import Population, Space, distinct, row_keys

__all__ = ["PredictorGuided"]

#: Candidates per generation of the evolution on predictions.
_GENERATION = 100
#: Folds of the cross-validation after the first stage, which no predictor has predicted.
_FOLDS = 5
#: Evaluated candidates that the evolution on predictions starts from.
_PARENTS = 256
#: Ids under which the evolution is told of the predictor's picks: negative, and far from those of other strangers.
_PICKS = -(1 << 40)


@final
@dataclass(frozen=True, kw_only=True)
class PredictorGuided(Algorithm):
    """Evaluate a stage, train a predictor on all that is known, evolve on its predictions, evaluate what it picks.

    The multi-stage search of S³ (Unified Sampling Framework, arXiv 2312.07243, Algorithm 2), whose predictor is that of
    OMS-DPM (arXiv 2306.08860). It pays where an evaluation costs seconds or more: every stage spends about a second on
    training and on thousands of predictions. Where it costs less, use :class:`Evolution`.

    The first stage is the evolution's initial population. Every later one consists of the predictor's picks and of
    children that the evolution breeds without it, so that the predictor also meets what it would not have picked.
    Before it is trained on a stage, its predictions are compared with what came out (Kendall's tau); where they are no
    better than chance, the next stage is left to the evolution. After the first stage cross-validation decides. With a
    predictor that is never trusted this is :class:`Evolution`, candidate by candidate.

    ``result.notes["stages"]`` lists for every judgment the ``evaluations`` known by then, the ``n`` candidates it was
    judged on, ``tau`` (None where undefined), its one-sided ``p_value``, whether it was ``cross_validated``, and
    whether the stage after it was ``guided``.

    Arguments:
        population: candidates of the first stage (it replaces the evolution's own setting).
        stage: candidates of every later stage.
        predicted: predictions per stage.
        share: part of a guided stage that the predictor picks, in (0, 1]; the evolution breeds the others.
        significance: level of the one-sided test of tau at which the predictor is trusted, in (0, 1]; 1 always
            trusts it.
        predictor: what is trained; default :class:`GaussianProcess`.
        evolution: breeds the children, and its settings but for the population guide the evolution on predictions.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Subset
        >>> result = search(sum, PredictorGuided(), space=Subset(40, k=4), budget=72, direction="maximize")
        >>> result.best, [stage["guided"] for stage in result.notes["stages"]]
        ((36, 37, 38, 39), [True, True, True, True])
    """

    population: int = 24
    stage: int = 12
    predicted: int = 500
    share: float = 0.5
    significance: float = 0.2
    predictor: Predictor = field(default_factory=GaussianProcess)
    evolution: Evolution = field(default_factory=Evolution)

    def __post_init__(self) -> None:
        for name, least in (("population", 2), ("stage", 1), ("predicted", 1)):
            check_field(self, name, whole_number, least)
        for name in ("share", "significance"):
            check_field(self, name, real_number, "(0, 1]")
        check_field(self, "predictor", instance, Predictor, "a Predictor")
        check_field(self, "evolution", instance, Evolution, "an Evolution(…)")

    @property
    def picks(self) -> int:
        """How many candidates of a guided stage the predictor picks."""
        return math.ceil(self.share * self.stage)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for one objective.

        Raises:
            MissingDependency: the predictor needs a library that is not installed.
            InvalidSettings: the predictor is meant for candidates with other features.
        """
        problem.require_one_objective(self)
        self.predictor.check(problem.space.features(problem.space.sample(np.random.default_rng(0), 1)).shape[1])
        return _GuidedRun(self, problem, rng)


@final
class _GuidedRun(Run):
    def __init__(self, settings: PredictorGuided, problem: Problem, rng: np.random.Generator) -> None:
        self._settings, self._space = settings, problem.space
        # A stream of its own, so that the evolution draws the same numbers with a predictor and without.
        self._rng = rng.spawn(1)[0]
        self._evolution = replace(settings.evolution, population=settings.population).start(problem, rng)
        self._seeds_left = len(distinct(problem.space.canonical(problem.first_rows)))
        self._table = _Table(problem.space, settings.evolution.secondary_weight)
        self._known: set[bytes] = set()
        self._waiting: list[Evidence] = []
        self._queue = Batch(np.empty(0, np.int64), problem.first_rows[:0])  # under the evolution's ids, or -1 for picks
        self._bred: dict[int, int] = {}  # our id of a child → the evolution's
        self._asked = self._left = 0  # how much of a stage is left to the evolution alone
        self._fitted: FittedPredictor | None = None
        self._judged = 0  # rows of the table that the predictor knows
        self._stages: list[dict[str, Any]] = []

    def ask(self, n: int) -> Batch:
        self._settle()
        if not len(self._queue):
            self._queue = self._next(n)
        taken, self._queue = _split(self._queue, n)
        ids = np.arange(self._asked, self._asked + len(taken))
        self._bred.update((ours, own) for ours, own in zip(ids.tolist(), taken.ids.tolist(), strict=True) if own >= 0)
        self._known.update(row_keys(taken.population))
        self._seeds_left = max(0, self._seeds_left - len(taken))
        self._asked += len(taken)
        return Batch(ids, taken.population)

    def tell(self, evidence: Evidence) -> None:
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        return self._evolution.recommend(n)

    def notes(self) -> Mapping[str, Any]:
        return {"stages": [dict(stage) for stage in self._stages]}

    def _settle(self) -> None:
        for evidence in self._waiting:
            own = [self._bred.pop(index, index if index < 0 else _PICKS + index) for index in evidence.ids.tolist()]
            self._known.update(row_keys(self._space.canonical(evidence.population)))
            self._evolution.tell(replace(evidence, ids=np.array(own, np.int64)))
        self._table.add(self._waiting)
        self._waiting = []

    def _next(self, n: int) -> Batch:
        if self._seeds_left or len(self._known) < self._settings.population:
            return self._evolution.ask(n)
        if not self._left:
            with threadpoolctl.threadpool_limits(1):  # sums must not depend on the number of cores
                picks = self._begin_stage()
            if len(picks):
                return self._mixed(picks)
            self._left = self._settings.stage
        bred = self._evolution.ask(min(n, self._left))
        self._left -= len(bred)
        return bred

    def _mixed(self, picks: Population) -> Batch:
        """A guided stage: the evolution's children, and picks that are not among them."""
        count = self._settings.stage - self._settings.picks
        bred = Batch(np.empty(0, np.int64), picks[:0])
        while len(bred) < count and len(more := self._evolution.ask(count - len(bred))):
            bred = _joined(bred, more)
        known = set(row_keys(bred.population))
        picks = picks[[key not in known for key in row_keys(picks)]][: self._settings.stage - len(bred)]
        return _joined(Batch(np.full(len(picks), -1), picks), bred)

    def _begin_stage(self) -> Population:
        """Judge the predictor on what it has not seen, train it on everything, and return its picks, best first."""
        features, values = self._space.features(self._table.population), self._table.values
        new = slice(self._judged, None)
        predicted = None if self._fitted is None else self._fitted.predict(features[new])
        judged, cross = values[new], predicted is None
        if predicted is None:
            predicted, judged = self._cross_validated(features, values), values
        tau, p_value = _agreement(predicted, judged)
        self._fitted, self._judged = self._fit(features, values), len(values)
        guided = self._fitted is not None and p_value <= self._settings.significance
        self._stages.append({
            "evaluations": len(values), "n": len(judged), "tau": None if math.isnan(tau) else tau, "p_value": p_value,
            "cross_validated": cross, "guided": guided,
        })  # fmt: skip
        return self._picks(self._fitted, features) if guided and self._fitted is not None else self._queue.population

    def _fit(self, features: NDArray[np.float64], values: NDArray[np.float64]) -> FittedPredictor | None:
        if len(values) < 2 or values.min() == values.max():
            return None
        return self._settings.predictor.fit(features, values, self._rng)

    def _cross_validated(self, features: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Predictions for every candidate from the others, on one scale over the folds."""
        predicted = np.zeros(len(values))
        fold = self._rng.permutation(len(values)) % _FOLDS
        for number in range(min(_FOLDS, len(values))):
            out = fold == number
            fitted = self._fit(features[~out], values[~out])
            if fitted is not None:
                known = fitted.predict(features[~out])
                predicted[out] = (fitted.predict(features[out]) - known.mean()) / (known.std() or 1.0)
        return predicted

    def _picks(self, fitted: FittedPredictor, features: NDArray[np.float64]) -> Population:
        """Evolve on predictions, from what has been evaluated; new candidates, those to evaluate first.

        One pick comes from each of as many successive parts of that evolution as there are picks: late ones are the
        best by the predictor, early ones lie near what has been evaluated, where its errors are small.
        """
        order = np.argsort(self._table.values, kind="stable")[:_PARENTS]
        parents, scores = self._table.population[order], fitted.predict(features[order])
        settings = replace(self._settings.evolution, population=1, offspring=_GENERATION, secondary_weight=0.0)
        run = settings.start(Problem(self._space, batch_size=_GENERATION), self._rng)
        run.tell(_evidence(-1 - np.arange(len(parents)), parents, scores))
        found, predicted, left = [parents[:0]], [scores[:0]], self._settings.predicted
        while left > 0 and len(batch := run.ask(min(left, _GENERATION))):
            left -= len(batch)
            scores = fitted.predict(self._space.features(batch.population))
            run.tell(_evidence(batch.ids, batch.population, scores))
            new = [key not in self._known for key in row_keys(batch.population)]
            found.append(batch.population[new])
            predicted.append(scores[new])
        rows, scores = np.concatenate(found), np.concatenate(predicted)
        parts = np.array_split(np.arange(len(rows)), self._settings.picks)
        firsts = [part[np.argmin(scores[part])] for part in reversed(parts) if len(part)]
        others = np.setdiff1d(np.argsort(scores, kind="stable")[: 2 * self._settings.stage], firsts)
        chosen = np.concatenate([np.array(firsts, np.int64), others[np.argsort(scores[others], kind="stable")]])
        return np.asarray(rows[chosen])


@final
class _Table:
    """Everything that was evaluated, in the order it came in; failed candidates left out."""

    def __init__(self, space: Space, secondary_weight: float) -> None:
        self._weight = secondary_weight
        self.population: Population = np.empty((0, space.dimension), space.dtype)
        self.values: NDArray[np.float64] = np.empty(0)

    def add(self, waiting: list[Evidence]) -> None:
        """Append what was told since the last call, by id, whatever order it came in."""
        if not waiting:
            return
        _, rows, values, secondary = succeeded(waiting)
        if self._weight:
            values = values + self._weight * np.nan_to_num(secondary)
        self.population, self.values = np.concatenate([self.population, rows]), np.append(self.values, values)


def _split(batch: Batch, n: int) -> tuple[Batch, Batch]:
    return Batch(batch.ids[:n], batch.population[:n]), Batch(batch.ids[n:], batch.population[n:])


def _joined(first: Batch, second: Batch) -> Batch:
    return Batch(np.append(first.ids, second.ids), np.concatenate([first.population, second.population]))


def _evidence(ids: NDArray[np.int64], population: Population, scores: NDArray[np.float64]) -> Evidence:
    nothing = np.full(len(ids), np.nan)
    status = np.full(len(ids), Status.DONE, np.int8)
    return Evidence(ids, population, scores[:, None], status, nothing, nothing[:, None])


def _agreement(predicted: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    """Kendall's tau-b, NaN where all is tied, and its one-sided p-value."""
    from scipy.stats import kendalltau

    if len(values) < 2:
        return math.nan, 1.0
    found = kendalltau(predicted, values, alternative="greater")
    return float(found.statistic), 1.0 if math.isnan(found.pvalue) else float(found.pvalue)
