"""Our algorithms as a sampler of Optuna's, for objectives that say on the way what may vary."""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from searchlib.algorithms import Auto
from searchlib.algorithms.algorithm import Algorithm, Evidence, Problem, Run, Status
from searchlib.arguments import shown, whole_number
from searchlib.errors import InvalidSettings
from searchlib.exchange.optuna_space import OptunaSpace, part_of

__all__ = ["SearchlibSampler"]

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
#: The best of fewer trials than these, which are random ones, is a worse place to begin than an algorithm's own: a run
#: is told of them after its first proposal (CMAES on Rosenbrock's function, 60 trials: median 4.7 instead of 32.7).
_FEW = 5


@final
class SearchlibSampler(BaseSampler):
    """Proposes the trials of an Optuna study by any algorithm of this library.

    What is searched are the parameters that every finished trial has had (Optuna's intersection search space), as a
    :class:`~searchlib.spaces.Product` of numbers and options; all others, and the first trial, are drawn at random.
    Where that space changes, as conditional parameters show up, a new run of the algorithm begins and is told the
    trials so far as candidates from elsewhere. The same happens on a study that was stored, with trials that were
    enqueued, and with those of other processes: what is finished is told before the next trial is asked for.

    A trial that failed, or returned a value that is not finite, is a failed candidate. A pruned one counts with the
    value that it reported last, as in Optuna itself, and as failed where it reported none or there are several
    objectives. Threads (``n_jobs=…``) share the run behind a lock; with ``n_jobs=1`` the same seed gives the same
    trials. On another study a sampler begins anew; a pickled one keeps its settings and learns from the study again.

    Arguments:
        algorithm: by default :class:`~searchlib.Auto`, which chooses by the space and the number of evaluations.
        seed: of every random choice, with the number of the trial; 0 or more.
        evaluations: how many trials there will be, as far as that is known: ``Auto`` chooses by it.

    Raises:
        MissingOperator: when the first trial is asked for: the algorithm cannot search such parameters, or so many
            objectives.

    Example:
        >>> import optuna
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(sampler=SearchlibSampler(seed=1, evaluations=20))
        >>> study.optimize(lambda trial: (trial.suggest_float("x", -5, 5) - 2) ** 2, n_trials=20)
        >>> study.best_value < 0.01
        True
    """

    def __init__(self, algorithm: Algorithm | None = None, seed: int = 0, *, evaluations: int | None = None) -> None:
        given: Any = Auto() if algorithm is None else algorithm
        if not isinstance(given, Algorithm):
            raise InvalidSettings(f"algorithm must be an algorithm such as searchlib.CMAES(), but is {shown(given)}")
        self.algorithm: Algorithm = given
        self.seed = whole_number("seed", seed, 0)
        self.evaluations = None if evaluations is None else whole_number("evaluations", evaluations, 1)
        self._lock = threading.RLock()
        self._begin("")

    def _begin(self, study_name: str) -> None:
        self._study_name = study_name
        self._common = IntersectionSearchSpace()
        self._driven: _DrivenRun | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"algorithm": self.algorithm, "seed": self.seed, "evaluations": self.evaluations}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._lock = threading.RLock()
        self._begin("")

    def __repr__(self) -> str:
        return f"SearchlibSampler({self.algorithm!r}, {self.seed}, evaluations={self.evaluations})"

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters of all finished trials, without those that cannot vary."""
        del trial
        with self._lock:
            if study.study_name != self._study_name:
                self._begin(study.study_name)
            common = self._common.calculate(study)
        return {name: distribution for name, distribution in common.items() if part_of(distribution) is not None}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """One candidate of the run; nothing where it has no more, so that all parameters are drawn at random.

        What has finished since the last call is told before, but a handful of trials after the first proposal.
        """
        if not search_space:
            return {}
        with self._lock:
            finished = study.get_trials(deepcopy=False, states=_FINISHED)
            early: dict[str, Any] | None = None
            if self._driven is None or self._driven.space.distributions != search_space:
                self._driven = self._started(study, trial, search_space)
                early = self._driven.propose(trial.number) if len(finished) < _FEW else None
            for each in finished:
                self._driven.learn(each, each.state, each.values)
            return self._driven.propose(trial.number) if early is None else early

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A random value; it depends on the seed, the number of the trial and the name alone."""
        words = (self.seed, trial.number, zlib.crc32(param_name.encode()))
        drawn = RandomSampler(seed=int(np.random.SeedSequence(words).generate_state(1)[0]))
        return drawn.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Tell the run what became of a trial that it proposed."""
        del study
        with self._lock:
            if self._driven is not None and self._driven.proposed(trial.number):
                self._driven.learn(trial, state, values)

    def _started(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> _DrivenRun:
        space = OptunaSpace(search_space)
        problem = Problem(
            space.space, objectives=len(study.directions), evaluations=self.evaluations, batch_size=1
        )
        # Another stream for every run: one that begins anew must not propose again what the last one began with.
        rng = np.random.default_rng((self.seed, trial.number))
        signs = [-1.0 if way == StudyDirection.MAXIMIZE else 1.0 for way in study.directions]
        return _DrivenRun(space, self.algorithm.start(problem, rng), np.array(signs))


@final
class _DrivenRun:
    """A run that is asked for one candidate at a time, and told of trials by their numbers."""

    def __init__(self, space: OptunaSpace, run: Run, signs: NDArray[np.float64]) -> None:
        self.space, self._run, self._signs = space, run, signs
        self._asked: dict[int, tuple[int, NDArray[Any]]] = {}  # by trial: our id and row
        self._told: set[int] = set()

    def proposed(self, number: int) -> bool:
        """Whether a trial has parameters of this run."""
        return number in self._asked

    def propose(self, number: int) -> dict[str, Any]:
        """Parameters for a trial; none where the algorithm has no more."""
        batch = self._run.ask(1)
        if not len(batch):
            return {}
        self._asked[number] = int(batch.ids[0]), batch.population[0]
        return self.space.parameters(batch.population[0])

    def learn(self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Tell what became of a trial, once."""
        if trial.number in self._told:
            return
        self._told.add(trial.number)
        index, asked = self._asked.pop(trial.number, (None, None))
        row = self.space.row(trial.params, trial.distributions)
        value = self._value(trial, state, values)
        if index is not None and asked is not None and (row is None or not np.array_equal(row, asked)):
            # A fixed parameter took the place of ours, or the trial broke off before it had them all.
            self._tell(index, asked, None)
            index = None
        if row is not None:
            self._tell(-1 - trial.number if index is None else index, row, value)

    def _value(
        self, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> NDArray[np.float64] | None:
        """Minimized; None for a failure."""
        if state == TrialState.PRUNED and not values and trial.last_step is not None:
            values = [trial.intermediate_values[trial.last_step]]
        if state == TrialState.FAIL or not values or len(values) != len(self._signs):
            return None
        return self._signs * values if all(map(math.isfinite, values)) else None

    def _tell(self, index: int, row: NDArray[Any], value: NDArray[np.float64] | None) -> None:
        nothing = np.full((1, len(self._signs)), np.nan)
        self._run.tell(
            Evidence(
                np.array([index]), row[None], nothing if value is None else value[None],
                np.array([Status.FAILED if value is None else Status.DONE], np.int8), nothing[:, 0], nothing,
            )
        )  # fmt: skip
