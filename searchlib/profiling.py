"""Measure an additive profile: every option of every part alone, without gradients."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from searchlib.additive_profile import AdditiveProfile, Weights
from searchlib.algorithms.algorithm import Status
from searchlib.algorithms.one_at_a_time import OneAtATime
from searchlib.allocation_space import AllocationSpace
from searchlib.arguments import file_path, instance, listed, numbers, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.history import History
from searchlib.knapsack.relaxation import relax
from searchlib.objective import Objective, Scores
from searchlib.scoretable import signs
from searchlib.space import Candidates, Population
from searchlib.whole_search import search

__all__ = ["Unlimited", "dearest", "matters", "measure_profile"]

logger = logging.getLogger("searchlib")


@final
class Unlimited(Objective):
    """An objective on its space without budgets, scored relative to a base row on the same case.

    A cell is the candidate's score minus the base's; of an objective that is not additive over its cases it is the
    candidate's observation beside the base's, and the value is the difference of the two aggregates. The base is scored
    once per chunk of cases and kept.

    Arguments:
        objective: scored on an :class:`~searchlib.AllocationSpace`.
        base: shape ``(parts,)``, a row of ``objective.space.unlimited``.
        columns: positions of the SEARCH cases to use; None: all.
    """

    recomputable = False
    differentiable = False

    def __init__(self, objective: Objective, base: Population, columns: NDArray[np.intp] | None = None) -> None:
        space = objective.space
        if not isinstance(space, AllocationSpace):
            raise InvalidSettings(f"a profile needs an AllocationSpace, but got {space!r:.100}")
        self.objective, self.columns = objective, columns
        self.space = space.unlimited
        self.base = self.space.check(np.asarray(base)[None], name="base")[0]
        self.direction, self.additive = objective.direction, objective.additive
        self.chunk_rows, self.chunk_cases = objective.chunk_rows, objective.chunk_cases
        self.shareable = objective.shareable
        self.batch_size = objective.batch_size
        self._kept: dict[tuple[str | int, ...], NDArray[np.float64]] = {}

    def cases(self, split: Split) -> Cases:
        """The chosen SEARCH cases; nothing is selected or held out."""
        if split is not Split.SEARCH:
            return Cases.none()
        cases = self.objective.cases(split)
        return cases if self.columns is None else cases.take(self.columns)

    def evaluate(self, candidates: Candidates, cases: Cases) -> Scores:
        """Paired differences (or pairs of observations), shape ``(n, c, k)``."""
        base = self._kept.get(cases.ids)
        rows = candidates.array if base is not None else np.concatenate([self.base[None], candidates.array])
        values, infeasible = self._scores(rows, cases)
        if base is None:
            if infeasible[0] or not np.isfinite(values[0]).all():
                raise InvalidSettings("the base itself could not be scored, so nothing can be compared with it")
            base = self._kept[cases.ids] = values[0]
            values, infeasible = values[1:], infeasible[1:]
        if self.additive:
            return Scores(values - base, infeasible=infeasible)
        pairs = [values, np.broadcast_to(base, values.shape)]
        return Scores(np.concatenate(pairs, axis=2), infeasible=infeasible)

    def _scores(self, rows: Population, cases: Cases) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        given = self.objective.evaluate(Candidates(self.space, rows), cases)
        scores = given if isinstance(given, Scores) else Scores(given)
        nothing = np.zeros(len(rows), np.bool_)
        infeasible = nothing if scores.infeasible is None else np.asarray(scores.infeasible)
        values = np.asarray(scores.values, np.float64).reshape(len(rows), len(cases), -1)
        return values, infeasible

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean difference, or the difference of the aggregates."""
        if self.additive:
            return np.asarray(self.objective.aggregate(scores))
        own, base = np.split(scores, 2, axis=2)
        difference: NDArray[np.float64] = self.objective.aggregate(own) - self.objective.aggregate(base)
        return difference

    def seeds(self) -> Population:
        """The base, which :class:`~searchlib.OneAtATime` changes."""
        return np.array(self.base[None])

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """What the objective says."""
        return self.objective.cost(candidates, cases)

    def fingerprint(self) -> Mapping[str, Any]:
        """The objective's, and the base."""
        return {"objective": "profile of", "of": dict(self.objective.fingerprint()), "base": self.base.tolist()}

    def unseen(self) -> tuple[str, ...]:
        """The objective's."""
        return self.objective.unseen()

    def remember(self, memo: Any) -> None:
        """Handed on."""
        self.objective.remember(memo)

    def __enter__(self) -> Unlimited:
        self.objective.__enter__()
        return self

    def __exit__(self, *reason: Any) -> None:
        self.objective.__exit__(*reason)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}}


def measure_profile(
    objective: Objective,
    *,
    base: Any = None,
    rounds: int = 1,
    budgets: ArrayLike | None = None,
    weights: Weights | None = None,
    sigmas: float = 3.0,
    metrics: Sequence[str] | None = None,
    seed: int = 0,
    study: str | Path | None = None,
    workers: int = 1,
    **options: Any,
) -> AdditiveProfile:
    """Measure the loss of every (part, option) alone, relative to a base, with its standard error.

    Entries are scored on SEARCH cases as differences from the base on the same case, so their standard errors over
    cases are paired. With several ``rounds`` the cases are cut into as many parts: the first round scores every entry
    on the first part, later rounds only the entries that may still matter for the allocation (see :func:`matters`), and
    none of a part for which only one option may. An objective that is not additive over its cases (a Fréchet distance)
    has no error over cases; its entries get theirs from the spread over rounds, so that races begin after the second
    and ``rounds=1`` leaves errors unknown (NaN). Such values on fewer cases may be biased.

    Every round is one :func:`searchlib.search`: it runs on workers, journals in ``study`` (further rounds in files
    beside it, ``NAME-round2.db`` …) and resumes from there.

    Arguments:
        objective: its space is an :class:`~searchlib.AllocationSpace`; several objectives are several metrics.
        base: a value of ``space.unlimited`` or a row of it; None: every part's dearest option, over all budgets (a
            space without budgets needs one).
        rounds: parts of the cases.
        budgets: limits at which entries matter, shape ``(budgets,)`` or ``(n, budgets)``; None: the space's own.
        weights: how much each metric counts in that, as for :meth:`AdditiveProfile.combined`; None: every metric alone
            may make an entry matter.
        sigmas: standard errors within which the truth is taken to lie; ``math.inf`` drops no entry.
        metrics: one name per objective.
        seed: shuffles the cases.
        study: file that journals the first round.
        workers, options: as for :func:`searchlib.search`.

    Returns:
        the profile; its ``cases`` say on how many cases each entry was measured.

    Raises:
        InvalidSettings: no allocation space, fewer cases than rounds, or a base that cannot be scored.
    """
    space = instance("objective", objective, Objective, "an Objective").space
    if not isinstance(space, AllocationSpace):
        raise InvalidSettings(f"a profile needs an AllocationSpace, but got {space!r:.100}")
    row = _base_row(space, base)
    count = len(objective.cases(Split.SEARCH))
    if whole_number("rounds", rounds, 1) > count:
        raise InvalidSettings(f"rounds={rounds} parts of the cases need as many cases, but there are {count}")
    columns = np.random.default_rng(whole_number("seed", seed, 0)).permutation(count)
    table = _Rounds(space, row, signs(objective), objective.additive)
    names = _metric_names(metrics, len(signs(objective)))
    nothing = np.zeros((len(signs(objective)), *space.allowed_array.shape))
    # What cannot be meant is refused before anything is measured.
    _questions(AdditiveProfile.of(space, nothing, metrics=names), budgets, weights)
    alive = space.allowed_array.copy()
    alive[np.arange(len(row)), row] = False
    for number in range(rounds):
        entries = tuple((int(part), int(option)) for part, option in np.argwhere(alive))
        if not entries:
            break
        part = np.sort(columns[number::rounds])
        found = search(
            Unlimited(objective, row, part), OneAtATime(entries, ask_base=False), budget=len(entries), seed=seed,
            study=_study(study, number), workers=workers, **options,
        )  # fmt: skip
        table.add(found.history, len(part))
        if number + 1 < rounds and (objective.additive or number):
            profile = table.profile(names)
            still = matters(profile, budgets, weights, sigmas=sigmas)
            alive &= still & (still.sum(axis=1, keepdims=True) > 1)  # where one option is left, the part is decided
            logger.info("round %d: %d of %d entries go on", number + 1, alive.sum(), len(entries))
    return table.profile(names)


def matters(
    profile: AdditiveProfile, budgets: ArrayLike | None = None, weights: Weights | None = None, *, sigmas: float = 3.0
) -> NDArray[np.bool_]:
    """Which entries may be part of the best allocation if every true loss lies within ``sigmas`` standard errors.

    The prices of the budgets (the dual of the linear relaxation) turn losses and costs into one number; an entry is out
    where that number, its loss taken as small as it may be, is above that of another option of the same part, its loss
    taken as large as it may be, by more than the gap that the relaxation leaves. The prices themselves are those of the
    measured losses. Under ``max_distinct`` an option also stays wherever its group uses it in the best allocation by
    the measured losses, and entries of options that other parts of their group may have to share are judged with a
    margin of twice the errors. Entries of unknown error stay.

    Returns:
        shape ``(parts, options)``.
    """
    if math.isinf(sigmas):
        return profile.allowed
    keep = np.zeros(profile.loss.shape[1:], np.bool_)
    for single, limit in _questions(profile, budgets, weights):
        keep |= _may_win(single, limit, sigmas)
    return np.asarray(keep & profile.allowed)


def _questions(
    profile: AdditiveProfile, budgets: ArrayLike | None, weights: Weights | None
) -> list[tuple[AdditiveProfile, NDArray[np.float64]]]:
    """The knapsacks in which entries may matter: profiles of one metric, and limits.

    Raises:
        InvalidSettings: unknown metrics, or limits that nothing meets.
    """
    limits = profile.budgets[None] if budgets is None else np.atleast_2d(numbers("budgets", budgets))
    chosen: list[Weights] = [{name: 1.0} for name in profile.metrics] if weights is None else [weights]
    asked = [(profile.combined(weight), limit) for weight in chosen for limit in limits]
    for single, limit in asked:
        single.problem(limit)
    return asked


def _may_win(profile: AdditiveProfile, limit: NDArray[np.float64], sigmas: float) -> NDArray[np.bool_]:
    problem = profile.problem(limit)
    relaxed = relax(problem.unlimited(), 1e-4)
    price = np.tensordot(relaxed.multipliers, profile.costs, 1)
    shared = profile.max_distinct is not None
    error = np.where(np.isnan(profile.errors[0]), np.inf, profile.errors[0]) * sigmas * (2 if shared else 1)
    assert profile.base is not None
    error[np.arange(len(error)), profile.base] = 0.0
    with np.errstate(invalid="ignore"):
        least, most = problem.loss - error + price, problem.loss + error + price
    gap = max(relaxed.allocated.loss - relaxed.allocated.bound, 0.0)
    keep: NDArray[np.bool_] = least <= np.where(problem.allowed, most, np.inf).min(axis=1, keepdims=True) + gap
    keep[np.arange(len(keep)), relaxed.allocated.choice] = True
    if shared:
        choice = profile.allocate(limit).choice
        for members in problem.members():
            keep[np.ix_(members, np.unique(choice[members]))] = True
    return keep


@final
class _Rounds:
    """Values and errors of every entry, round by round."""

    def __init__(self, space: AllocationSpace, base: Population, sign: NDArray[np.float64], additive: bool) -> None:
        self._space, self._base, self._sign, self._additive = space, base, sign, additive
        self._values: list[NDArray[np.float64]] = []  # (metrics, parts, options), NaN where not asked
        self._errors: list[NDArray[np.float64]] = []
        self._counts: list[int] = []
        self._failed = np.zeros(space.allowed_array.shape, np.bool_)

    def add(self, history: History, cases: int) -> None:
        shape = (len(self._sign), *self._space.allowed_array.shape)
        values, errors = np.full(shape, np.nan), np.full(shape, np.nan)
        rows = history.population
        part = (rows != self._base).argmax(axis=1)
        option = rows[np.arange(len(rows)), part].astype(np.intp)
        done = history.status == Status.DONE
        self._failed[part[~done], option[~done]] = True
        values[:, part, option] = (history.values * self._sign).T
        errors[:, part, option] = history.standard_error.T
        self._values.append(values)
        self._errors.append(errors)
        self._counts.append(cases)

    def profile(self, metrics: tuple[str, ...]) -> AdditiveProfile:
        values, errors = np.stack(self._values), np.stack(self._errors)
        asked = ~np.isnan(values)
        weight = np.array(self._counts, np.float64)[:, None, None, None] * asked
        total = np.maximum(weight.sum(axis=0), 1)
        loss = (weight * np.nan_to_num(values)).sum(axis=0) / total
        spread = weight * np.where(asked, values - loss, 0.0) ** 2
        seen = asked.sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            between = np.sqrt(spread.sum(axis=0) / total / (seen - 1))
            within = np.sqrt(((weight * np.nan_to_num(errors)) ** 2).sum(axis=0)) / total
        known = (asked <= np.isfinite(errors)).all(axis=0) & self._additive
        error = np.where(known, within, np.where(seen > 1, between, np.nan))
        parts = np.arange(len(self._base))
        loss[:, parts, self._base], error[:, parts, self._base] = 0.0, 0.0
        never = (seen == 0).any(axis=0)
        never[parts, self._base] = False
        loss[:, self._failed | never] = np.inf
        error[:, self._failed | never] = np.nan
        cases = weight[:, 0].sum(axis=0).astype(np.int64)
        cases[parts, self._base] = sum(self._counts)
        return AdditiveProfile.of(self._space, loss, error=error, base=self._base, metrics=metrics, cases=cases)


def dearest(space: AllocationSpace) -> Population:
    """Every part's dearest option, all budgets taken together, shape ``(parts,)``; the first one without budgets."""
    costs, allowed = space.costs_array, space.allowed_array
    low, high = costs.min(axis=2, initial=np.inf, where=allowed), costs.max(axis=2, initial=-np.inf, where=allowed)
    span = (high - low).sum(axis=1)
    told = span > 0  # a budget on which all options cost the same ranks none
    size = (costs[told] / span[told, None, None]).sum(axis=0)
    return np.asarray(np.where(allowed, size, -np.inf).argmax(axis=1), space.dtype)


def _base_row(space: AllocationSpace, base: Any) -> Population:
    unlimited = space.unlimited
    if base is None and not len(space.budgets_array):
        raise InvalidSettings("the space has no budgets, so no option is the dearest: pass base=, a value or a row")
    if base is None:
        return dearest(space)
    if isinstance(base, np.ndarray):
        return np.asarray(unlimited.check(base[None], name="base")[0])
    try:
        return np.asarray(unlimited.encode([base])[0])
    except InvalidCandidate as reason:
        raise InvalidSettings(f"base must be a value or a row of the space without budgets: {reason}") from reason


def _metric_names(metrics: Sequence[str] | None, count: int) -> tuple[str, ...]:
    if metrics is not None:
        return tuple(map(str, listed("metrics", metrics)))
    return ("loss",) if count == 1 else tuple(f"objective {number}" for number in range(count))


def _study(study: str | Path | None, number: int) -> Path | None:
    if study is None:
        return None
    path = file_path("study", study)
    return path if not number else path.with_name(f"{path.stem}-round{number + 1}{path.suffix}")
