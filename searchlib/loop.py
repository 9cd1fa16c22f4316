"""The one loop: ask → evaluate → record → tell."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib import algorithms
from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status
from searchlib.arguments import flag, instance, whole_number
from searchlib.asked import Asked
from searchlib.batch_journal import BatchJournal, replayed
from searchlib.budget import Budget
from searchlib.case_overlap import overlaps
from searchlib.case_source import CaseSource
from searchlib.cases import Cases, Split
from searchlib.committed_state import CommittedState, in_batches
from searchlib.description import FIXED, describe, identity
from searchlib.duplicates import Known, told
from searchlib.errors import InvalidSettings
from searchlib.evaluation import Evaluator
from searchlib.evaluation_cache import EvaluationCache, ObjectiveCache
from searchlib.failure_count import FailureCount
from searchlib.front import Choice, checked_choice
from searchlib.history import History, Told, kept_rows
from searchlib.in_flight import Flight, InFlight
from searchlib.memo import Memo
from searchlib.objective import Direction, Objective
from searchlib.raced_rows import CaseRacing, RacedRows
from searchlib.result import Outcome, Record, Result
from searchlib.scoretable import ScoreTable, directions, signs
from searchlib.scoring import Scorer
from searchlib.search_arguments import (
    as_objective,
    encoded_seeds,
    how_long,
    require_one_by_one,
    require_references,
    told_apart,
)
from searchlib.seeded_population import as_seeded
from searchlib.sourced_rows import SourcedRows
from searchlib.space import Candidates, Population, Space, distinct
from searchlib.spending import Spending
from searchlib.standing import Standing, duration
from searchlib.study import ASKED, GIVEN_SEEDS, StoredBatch, Study
from searchlib.winner import Finals

__all__ = ["Search"]

logger = logging.getLogger("searchlib")

#: Candidates whose keys are looked up at a time.
_ROWS = 16_384


@final
class Search:
    """A search as an iterator of records: one per batch.

    Iterating opens the objective, runs the batches and closes the objective again; :meth:`result` then picks the
    winner and compares it on held-out cases. :func:`search` does both.

    Arguments:
        objective: an :class:`~searchlib.Objective`, or a plain function of one candidate together with ``space=``
            (``batched=True``: of a whole population array), or None to evaluate outside through :meth:`ask` and
            :meth:`tell`.
        algorithm: who proposes; by default what the objective recommends, else :class:`~searchlib.Auto`, which chooses
            by space and budget and says in ``result.notes`` what and why.
        space: what may vary, for a plain function or for ask and tell.
        direction: ``"minimize"`` or ``"maximize"``, for a plain function or for ask and tell.
        batched: whether a plain function takes a population array ``(n, d)`` and returns ``(n,)``.
        budget: evaluations, or a :class:`~searchlib.Budget`.
        seed: decides every random choice.
        study: file that journals the search; where it exists, the search resumes from it.
        workers: worker processes; 1 evaluates in this process. The history does not depend on it.
        threads: BLAS and OpenMP threads per chunk; the history may depend on it, so it is never chosen by workers.
        timeout: seconds per candidate, kept by killing its worker (``workers >= 2``).
        batch_size: the most candidates asked for at once; by default what the objective says (64), or fewer where the
            algorithm learns more from smaller batches (:class:`~searchlib.Auto`): give it where many workers are to
            be kept busy.
        seeds: candidates to try first, as typed values, before the objective's own seeds.
        shortlist: how many recommended candidates compete on the SELECT cases: 8, with several objectives 64.
        choose: with several objectives, which candidate of the front is ``result.best``: ``"knee"`` (the default; see
            :func:`searchlib.pareto.knee`), ``"first"`` (the best of the first objective), a weight for each objective
            (of its values as shares of the front's range), or a function of the front's values ``(n, objectives)``
            that returns a row number. It only decides at the end, so it may change when a study is resumed.
        max_failures: failed candidates in a row after which the search stops with the first traceback.
        racing: how to stop candidates before they have met all SEARCH cases, where they are surely behind
            (:class:`searchlib.CaseRacing`); by default all meet all.
        cache: file of scores that searches of the same objective share, or an :class:`~searchlib.EvaluationCache`.
            What is found there costs no budget: values are those of a search without it, which then goes on longer.
        cases: where the SEARCH cases of every generation come from, :class:`searchlib.FreshCases` or a
            :class:`searchlib.Curriculum`; by default all candidates meet the same. Only for algorithms that compare the
            candidates of one generation with each other (:class:`searchlib.EvolutionStrategy`, then the default); the
            winner is picked on the SELECT cases, which do not change.
        asynchronous: ask for one candidate whenever a worker is free and tell of each as it comes back, instead of
            waiting for the slowest of a batch: for evaluation times that differ. The history then depends on the
            workers and on time, but is on file in its order, so that a study resumes exactly.
        devices: GPUs by number, instead of workers: each has one worker process that sees no other
            (``CUDA_VISIBLE_DEVICES``), so that the objective's device is just ``"cuda"``.

    Example:
        >>> from searchlib import Evolution, Search
        >>> from searchlib.spaces import Subset
        >>> run = Search(lambda kept: sum(kept), space=Subset(8, k=2), budget=28, direction="maximize")
        >>> [record.evaluations for record in run][-1], run.result().best
        (28, (6, 7))
    """

    def __init__(
        self,
        objective: Objective | Callable[[Any], Any] | None = None,
        algorithm: Algorithm | None = None,
        *,
        space: Space | None = None,
        direction: Direction | tuple[Direction, ...] | None = None,
        batched: bool = False,
        budget: int | Budget,
        seed: int = 0,
        study: str | Path | None = None,
        workers: int = 1,
        threads: int = 1,
        timeout: float | None = None,
        batch_size: int | None = None,
        seeds: Any = None,
        shortlist: int | None = None,
        choose: Choice | None = None,
        max_failures: int = 25,
        racing: CaseRacing | None = None,
        cache: str | Path | EvaluationCache | None = None,
        cases: CaseSource | None = None,
        asynchronous: bool = False,
        devices: Sequence[int | str] | None = None,
    ) -> None:
        self.objective = as_objective(objective, space, direction, batched)
        self.budget = Budget.of(budget)
        self.seed = whole_number("seed", seed, 0)
        usual_size = 1 if flag("asynchronous", asynchronous) else self.objective.batch_size
        self._batch_size = whole_number("batch_size", usual_size if batch_size is None else batch_size, 1)
        self._batch_given = asynchronous or batch_size is not None
        self._signs = signs(self.objective)
        several = len(self._signs) > 1
        self._shortlist = whole_number("shortlist", (64 if several else 8) if shortlist is None else shortlist, 1)
        self._choose = checked_choice(choose, len(self._signs))
        self._failing = FailureCount(whole_number("max_failures", max_failures, 1), forgiving=objective is None)
        whole_number(f"{type(self.objective).__name__}.chunk_rows", self.objective.chunk_rows, 1)
        if self.objective.chunk_cases is not None:
            whole_number(f"{type(self.objective).__name__}.chunk_cases", self.objective.chunk_cases, 1)
        if objective is None and study is not None:
            raise InvalidSettings("a study belongs to a search that evaluates by itself; ask and tell journal nothing")
        self._external = objective is None
        self._cases = {split: self.objective.cases(split) for split in Split}
        if not len(self._cases[Split.SEARCH]):
            raise InvalidSettings(f"{type(self.objective).__name__} has no SEARCH cases, so nothing can be scored")
        require_references(self.objective)
        self._overlaps = () if self._external else overlaps(self._cases)
        for overlap in self._overlaps:
            logger.warning("%s, so their values say too much good of what was chosen by them", overlap)
        if algorithm is None and cases is None:
            algorithm = self.objective.algorithm(self.budget.evaluations)
        usual = algorithms.Auto if cases is None else algorithms.EvolutionStrategy
        chosen = usual() if algorithm is None else algorithm
        self.algorithm = instance("algorithm", chosen, Algorithm, "an Algorithm such as Evolution(…)")
        self._given = encoded_seeds(self.objective.space, seeds)
        self._evaluator = Evaluator(self.objective, workers=workers, threads=threads, timeout=timeout, devices=devices)
        self._study: Study | None = None
        self._cache: EvaluationCache | None = None
        own: ObjectiveCache | None = None
        compared = racing is not None or cache is not None or self._external or self.budget.target is not None
        if cases is not None and compared:
            raise InvalidSettings(
                "cases that change cannot be raced, cached, evaluated outside or searched for a target value, because "
                "values of different generations are not compared; leave cases=… or the other one out"
            )
        if asynchronous:
            require_one_by_one({
                "racing=…": racing, "cache=…": cache, "cases=…": cases, "batch_size=…": batch_size,
                "ask and tell": self._external, "an objective that is recomputed": self.objective.recomputable,
            })  # fmt: skip
        if cache is not None:
            self._cache, own = self._shared(cache, racing, threads)
        if study is not None:
            self._study = self._on_file(study, threads, racing, cases, asynchronous)
        self._journal = None if self._study is None else BatchJournal(self._study, self.objective, self._signs)
        self._memo = Memo() if self._study is None else self._study.memo()
        self._stored = iter(()) if self._study is None else self._study.batches()
        self.history = History(self.objective.space, len(self._signs))
        self.outcome = Outcome.RUNNING
        self._scorer = Scorer(self.objective, self._evaluator, self._cases, self._study, own)
        self._raced = None
        if racing is not None:
            search_cases = self._cases[Split.SEARCH]
            self._raced = RacedRows(racing, self.objective, self._scorer, search_cases, self.seed)
        self._sourced = None
        if cases is not None:
            self._sourced = SourcedRows(
                cases, self.objective, self.algorithm, self._scorer, self._study, self.seed, self.budget
            )
        self._flights = None
        if asynchronous:
            self._flights = InFlight(self.objective, self._evaluator, self._cases[Split.SEARCH], self._study)
        self._unjournaled = Scorer(self.objective, self._evaluator, self._cases, None)
        self._open = ExitStack()
        self._states: CommittedState | None = None
        self._depth = self._asked_n = 0
        self._planned: int | None = None  # evaluations, when the search began
        self._run: Run | None = None
        self._known = Known(self.objective.space)
        self._spent = Spending(self.budget, float(self._signs[0]), self._batch_size, self.objective.space.size)
        self._halfway = False  # whether a batch was asked for and never told
        self._observations: NDArray[np.float64] | None = None  # of the batch that is about to be told
        self._asked, self._began = Asked(len(self._signs)), time.monotonic()
        # Whatever else decides what a batch is told has a state of its own, or other rows on file.
        plain = racing is None and cases is None and cache is None and not asynchronous
        if self._study is not None and plain and not self.objective.recomputable:
            self._states = CommittedState(self._study, self.objective, self._scorer, self._signs)
        sizes = {split: 0 if self._external else len(cases) for split, cases in self._cases.items()}
        self._finals = Finals(
            self.objective, self._scorer, self.history, sizes, choose=self._choose, shortlist=self._shortlist,
            seed=self.seed, on_file=self._study is not None,
        )  # fmt: skip
        self._replaying = self._study is not None

    def _shared(
        self, cache: str | Path | EvaluationCache, racing: CaseRacing | None, threads: int
    ) -> tuple[EvaluationCache | None, ObjectiveCache]:
        """The cache, where it is this search's to close, and the part of it that belongs to the objective."""
        if self._external or racing is not None:
            why = "ask and tell evaluate nothing" if self._external else "a race leaves rows incomplete"
            raise InvalidSettings(f"cache=… keeps what a search evaluates whole, but {why}; leave one of them out")
        settings = {**identity(self.objective), "threads": int(threads)}
        if isinstance(cache, EvaluationCache):
            return None, cache.of(self.objective, settings)
        opened = EvaluationCache(cache)
        try:
            return opened, opened.of(self.objective, settings)
        except BaseException:
            opened.close()
            raise

    def _on_file(
        self, path: str | Path, threads: int, racing: CaseRacing | None, cases: CaseSource | None, asynchronous: bool
    ) -> Study:
        """The study of this search, begun or resumed."""
        numbers = {"seed": self.seed, "batch_size": self._batch_size, "batch_given": self._batch_given,
                   "threads": int(threads),
                   "racing": None if racing is None else repr(racing),
                   "case_source": None if cases is None else repr(cases),
                   "asynchronous": asynchronous or None,
                   "task_space": None if cases is None else repr(self.objective.task_space),
                   "task_names": None if cases is None else list(getattr(self.objective.task_space, "names", ())),
                   **self._at_the_end(), "given_seeds": told_apart(self._given)}  # fmt: skip
        settings = describe(self.objective, self.algorithm, self._cases, self.budget, **numbers)
        study = Study.create_or_resume(path, settings, FIXED)
        if not isinstance(settings["given_seeds"], list):
            study.write_array(GIVEN_SEEDS, self._given)
        return study

    def __enter__(self) -> Self:
        """Open the objective and the workers; they stay open until the outermost ``with`` ends."""
        if not self._depth:
            with ExitStack() as opening:
                opening.enter_context(self.objective)
                opening.enter_context(self._evaluator)
                self.objective.remember(self._memo)
                if self._flights is not None:
                    opening.callback(self._flights.let_go)
                self._started()
                self._open = opening.pop_all()
        self._depth += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._depth -= 1
        if not self._depth:
            if self._study is not None:
                self._study.flush()
            self._open.__exit__(kind, error, trace)

    def __iter__(self) -> Iterator[Record]:
        if self._external:
            raise InvalidSettings("a search without an objective cannot run by itself; use ask and tell")
        if self._halfway:
            raise InvalidSettings("this search was interrupted within a batch; go on with a new Search on its study")
        with self:
            try:
                while (record := self._step()) is not None:
                    yield record
            except KeyboardInterrupt:
                self.outcome = Outcome.INTERRUPTED

    def ask(self, n: int | None = None) -> Batch:
        """Propose up to ``n`` candidates to be evaluated outside; empty when the search is over.

        ``searchlib.Candidates(space, batch.population)`` gives them as typed values. Nothing is journaled: a study
        belongs to a search that evaluates by itself.
        """
        if not self._external:
            raise InvalidSettings("this search evaluates by itself; iterate over it, or pass no objective to use ask")
        if n is not None:
            n = whole_number("n", n, 1)
        run = self._started()
        self._spent.seconds = time.monotonic() - self._began
        self.outcome = self._spent.outcome(len(self._known))
        if self.outcome is not Outcome.RUNNING:
            return _nothing(self.objective.space)
        batch = run.ask(min(n or self._usual_batch(run), self._spent.allowance()))
        if not len(batch):
            self.outcome = Outcome.EXHAUSTED
        self._asked.add(batch)
        self._spent.add(len(batch), 0, len(batch), 0.0)
        return batch

    def tell(self, ids: Any, values: Any) -> None:
        """Report values (in the direction of the search) of asked candidates; NaN marks a failed one.

        Raises:
            InvalidTell: an id was not asked or is told twice, or a value is infinite or missing.
        """
        ids, rows, table, status = self._asked.take(ids, values)
        nothing = np.full(len(ids), np.nan)
        errors = tuple("told NaN" if bad else "" for bad in status == Status.FAILED)
        fresh = self._known.add(rows, len(self.history)) < 0
        self._learn(Told(ids, rows, table, nothing, np.full_like(table, np.nan), status, fresh, errors))

    def select(self) -> float:
        """Let the recommended candidates compete, and return the best value on the SELECT cases.

        :meth:`result` does that by itself, and goes on to the held-out cases. The value is that on the SEARCH cases
        where the objective has no others, and NaN where nobody has succeeded; :attr:`standing` says it from then on.
        """
        with ExitStack() as stack:
            if not self._external:
                stack.enter_context(self)
            picked = self._finals.pick(self._started(), self._known)
        return math.nan if picked is None else picked.value

    def result(self) -> Result:
        """Pick the winner on the SELECT cases and compare it with the references on the HOLDOUT cases."""
        with ExitStack() as stack:
            if not self._external:
                stack.enter_context(self)
            won = self._finals.decide(self._started(), self._known)
        best = None if won.row is None else self.objective.artifact(self.objective.space.decode(won.row))
        result = Result(
            best, won.row, won.value, won.holdout, self.history, self.outcome, repr(self.algorithm),
            self._spent.seconds, self._notes(), won.front, won.optimism, won.corrected, self._overlaps,
            directions(self.objective),
        )  # fmt: skip
        if self._study is not None:
            # A dry run, or a search that has not caught up with its file, knows less than the file.
            if not self._replaying and self.outcome is not Outcome.DRY_RUN:
                self._study.write_result(result)
            self._study.flush()
        return result

    def _notes(self) -> Mapping[str, Any]:
        notes = self._started().notes()
        if self._sourced is not None:
            notes = {**notes, "cases": self._sourced.notes()}
        return notes if self._raced is None else {**notes, "racing": self._raced.notes()}

    def close(self) -> None:
        """Close the study, if there is one; a search cannot go on afterwards, a new one on the same file can."""
        if self._study is not None:
            self._study.close()
        if self._cache is not None:
            self._cache.close()

    def estimate(self) -> float:
        """Time one chunk of first candidates and return the seconds that the whole search will take.

        A limit in cells or cost counts by what that chunk used (the batch that crosses it is finished, which is not
        counted); a limit in seconds is itself the most that the search takes. Infinite where the budget is only a
        target: nobody knows how many candidates that takes.
        """
        return self.forecast()[0]

    def forecast(self) -> tuple[float, str]:
        """What :meth:`estimate` says, as seconds and as a sentence."""
        with self:
            run = self.algorithm.start(self._problem(), np.random.default_rng(self.seed))
            usual = self._usual_batch(run)
            most = min(usual, self.objective.chunk_rows, self.budget.evaluations or usual)
            rows = run.ask(most).population
            cases, some = self._cases[Split.SEARCH], None
            if self._sourced is not None:
                cases = some = cases.take(range(min(len(cases), self._sourced.per_generation)))
            chunks = self._scorer.chunks(len(rows), Split.SEARCH, some)
            start = time.perf_counter()
            for _ in self._evaluator.run(rows, Split.SEARCH, cases, chunks, some):
                pass
            seconds = time.perf_counter() - start
            cost = self._cost(rows, cases) / max(1, len(rows))
            evaluations, whole = self._spent.whole(len(rows), len(rows) * len(cases), cost * len(rows), seconds)
        return whole, how_long(self.budget, seconds / max(1, len(rows)), evaluations, whole, cost)

    @property
    def standing(self) -> Standing:
        """Where the search stands: for a line of one's own in a loop over records."""
        spent, raced = self._spent, 0 if self._raced is None else self._raced.whole - self._raced.cells
        planned, seconds = spent.whole(spent.evaluations, spent.cells, spent.cost, spent.seconds)
        return Standing(
            spent.evaluations, planned, spent.best_value, self._failing.total, spent.duplicates, raced, spent.hits,
            (spent.seconds, max(0.0, seconds - spent.seconds)), self._finals.selected,
        )  # fmt: skip

    def _at_the_end(self) -> dict[str, Any]:
        """Settings that decide nothing but the winner, for the study; a function is not written down."""
        return {"shortlist": self._shortlist, "choose": None if callable(self._choose) else self._choose}

    def _started(self) -> Run:
        if self._run is None:
            self._run = self.algorithm.start(self._problem(), np.random.default_rng(self.seed))
        return self._run

    def _problem(self) -> Problem:
        space, planned = self.objective.space, self.budget.evaluations
        seeds = None
        if self._study is not None:
            seeds, planned = self._study.read_array("seeds"), self._study.settings.get("planned", planned)
        self._planned = planned
        if seeds is None:
            seeds = distinct(space.canonical(np.concatenate([self._given, space.check(self.objective.seeds())])))
            if self._study is not None:
                self._study.write_array("seeds", seeds)
        slope = self._slope if self.objective.differentiable and len(self._signs) == 1 else None
        changing = self._sourced is not None
        noisy = self.objective.noisy or changing
        return Problem(
            space, len(self._signs), seeds, planned, self._batch_size, noisy, changing=changing, slope=slope,
            batch_given=self._batch_given,
        )  # fmt: skip

    def _usual_batch(self, run: Run) -> int:
        """How many candidates to ask for where nobody says."""
        size = self._batch_size
        return size if self._batch_given or run.at_once is None else min(size, run.at_once)

    def _slope(self, scores: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.floating[Any]]]:
        """The objective's slope, minimized."""
        value, gradient = self.objective.slope(scores)
        return float(self._signs[0] * value), self._signs[0] * gradient

    def _step(self) -> Record | None:
        """One batch; None when the search is over."""
        start = time.perf_counter()
        if self._states is not None and not len(self.history):
            record = self._restored()
            if record is not None:
                return record
        if self._flights is None:
            stored: StoredBatch | None = next(self._stored, None)
            batch = self._propose(stored)
            if batch is None:
                return None
            news, number = self._evaluate(batch, stored)
        else:
            flight = self._flights.next(self._launch)
            if flight is None:
                return None
            self._halfway, batch, stored, number = True, flight.batch, flight.stored, flight.number
            news = self._landed(flight)
        if self._journal is not None:
            place = None if self._flights is None else self._flights.place
            self._journal.write(news, number, stored, self._asked_n, time.perf_counter() - start, place)
        self._learn(news)
        if self._states is not None and self._run is not None:
            self._states.write_if_due(self._run, number, len(self.history))
        self._halfway = False
        elapsed = time.perf_counter() - start
        self._spent.seconds += elapsed
        if len(self.history) == len(batch):
            spent = self._spent
            left = spent.whole(spent.evaluations, spent.cells, spent.cost, elapsed)[1] - elapsed
            if math.isfinite(left):
                logger.info("first batch took %.1f s; the search will take about %s more", elapsed, duration(left))
        return Record(
            self._spent.evaluations, self._spent.best_value, news.ids, news.population, news.values, news.status,
            elapsed, stored is not None, self._spent.hits,
        )  # fmt: skip

    def _restored(self) -> Record | None:
        """All batches until the last committed state, as one; None: there is no state."""
        assert self._states is not None
        assert self._study is not None
        assert self._run is not None
        start = time.perf_counter()
        self._halfway = True
        found = self._states.restore(self._run)
        self._halfway = found is not None
        if found is None:
            return None
        number, news, sizes = found
        self._stored = self._study.batches(after=number)
        for start_row in range(0, len(news.ids), _ROWS):  # keys of all at once would be as large as the history
            self._known.add(news.population[start_row : start_row + _ROWS], start_row)
        for batch in in_batches(sizes):
            rows, fresh = news.population[batch], news.fresh[batch]
            self._spend(rows[fresh], len(rows))
            self._failing.count(news.status[batch], news.errors[batch], fresh)
        self.history.append(news, sizes=sizes)
        done = news.status == Status.DONE
        if done.any():
            self._spent.best = float((news.values[done, 0] * self._signs[0]).min())
        self._halfway = False
        self._spent.seconds += (elapsed := time.perf_counter() - start)
        return Record(
            self._spent.evaluations, self._spent.best_value, news.ids, news.population, news.values, news.status,
            elapsed, True, self._spent.hits,
        )  # fmt: skip

    def _propose(self, stored: StoredBatch | None) -> Batch | None:
        assert self._run is not None
        if stored is None:
            if self._replaying and self._study is not None:
                self._replaying = False
                self._study.write_settings({"budget": repr(self.budget), **self._at_the_end()})
            under_way = 0 if self._flights is None else len(self._flights)
            self.outcome = self._spent.outcome(len(self._known) + under_way)
            if self.outcome is not Outcome.RUNNING:
                return None
        n = min(self._usual_batch(self._run), self._spent.allowance()) if stored is None else stored.asked
        self._halfway = True
        batch = self._run.ask(n)
        if stored is not None and not stored.digest:
            return replayed(stored, batch)
        if not len(batch) and stored is None:
            self.outcome, self._halfway = Outcome.NOTHING_NEW, False
            return None
        self._asked_n = n
        return batch

    def _evaluate(self, batch: Batch, stored: StoredBatch | None) -> tuple[Told, int]:
        """Score a batch and say its number on file; rows that are known already are answered from the history."""
        if self.objective.recomputable:
            return self._compute(batch), -1 if stored is None else stored.number
        if self._sourced is None:
            source = self._known.add(batch.population, len(self.history))
        else:  # a candidate that comes again meets other cases
            source = np.full(len(batch), -1)
        fresh = source < 0
        number = self._number(batch, stored, fresh)
        rows = batch.population if fresh.all() else batch.population[fresh]
        table = self._table(rows, number)
        if self.objective.differentiable:  # nobody else looks at them, and some algorithms keep what they are told
            self._observations = np.full((len(batch), *table.scores.shape[1:]), np.nan)
            self._observations[fresh] = table.scores
        filled = self._raced or self._sourced
        parts, hits = None if filled is None else filled.parts, int(table.cached.sum())
        if hits:
            parts = [(rows[~table.cached], self._cases[Split.SEARCH])]
        self._spend(rows, len(batch), parts, hits)
        return told(batch.ids, batch.population, source, table, self.history), number

    def _number(self, batch: Batch, stored: StoredBatch | None, fresh: NDArray[np.bool_]) -> int:
        """The number of a batch on file, where it is written down before it is evaluated; -1 without a study."""
        if stored is not None:
            return stored.number
        if self._study is None:
            return -1
        return self._study.write_batch(ASKED, self._asked_n, batch.ids, batch.population, fresh)

    def _launch(self, stored: StoredBatch | None) -> bool:
        """Ask for one candidate that is evaluated while others are, or go over one on file; False: there is none."""
        assert self._flights is not None
        batch = self._propose(stored)
        if batch is None:
            return False
        known = self._known.find(batch.population) >= 0
        number = self._number(batch, stored, ~known)
        fresh = self._flights.add(number, batch, stored, bool(known[0]))
        self._spend(batch.population if fresh else batch.population[:0], 1)
        self._halfway = False
        return True

    def _landed(self, flight: Flight) -> Told:
        """What is told of a candidate that has come back."""
        population = flight.batch.population
        source = np.array([-1]) if flight.fresh else self._known.find(population)
        if flight.fresh:
            self._known.add(population, len(self.history))
        if self.objective.differentiable:
            self._observations = flight.table.scores
        return told(flight.batch.ids, population, source, flight.table, self.history)

    def _compute(self, batch: Batch) -> Told:
        """Score a batch without looking up or writing down its candidates."""
        table = self._unjournaled.score(batch.population, Split.SEARCH, -1)
        self._spend(batch.population, len(batch))
        columns = (table.values, table.secondary, table.standard_error, table.status)
        return Told(batch.ids, batch.population, *columns, np.ones(len(batch), np.bool_), tuple(table.errors))

    def _table(self, rows: Population, number: int) -> ScoreTable:
        if self._raced is not None:
            return self._raced.score(rows, number)
        if self._sourced is None:
            return self._scorer.score(rows, Split.SEARCH, number)
        assert self._run is not None
        return self._sourced.score(rows, number, self._run.generation, self._spent.progress(self._planned))

    def _spend(
        self, rows: Population, asked: int, parts: list[tuple[Population, Cases]] | None = None, hits: int = 0
    ) -> None:
        """Count a batch; ``parts`` are the rows and cases that met, by default all; ``hits`` rows cost nothing."""
        parts = [(rows, self._cases[Split.SEARCH])] if parts is None else parts
        cells = sum(len(part) * len(met) for part, met in parts)
        cost = 0.0 if self.budget.cost is None else sum(self._cost(*part) for part in parts)
        self._spent.add(len(rows) - hits, asked - len(rows), cells, cost, hits)

    def _cost(self, rows: Population, cases: Cases) -> float:
        """What the rows cost on these cases."""
        step = self.objective.chunk_rows
        if as_seeded(rows) is None:
            return self.objective.cost(Candidates(self.objective.space, rows), cases)
        parts = (rows[start : start + step] for start in range(0, len(rows), step))  # made a chunk at a time
        return sum(self.objective.cost(Candidates(self.objective.space, part), cases) for part in parts)

    def _learn(self, told: Told) -> None:
        """Tell the algorithm, in its own (minimized) numbers."""
        assert self._run is not None
        for array in (told.ids, told.population, told.values, told.secondary, told.standard_error, told.status):
            if isinstance(array, np.ndarray):
                array.flags.writeable = False  # the history's own, also in the records that users get
        if self.objective.recomputable:
            kept = told.take(kept_rows(told, self._signs))
            self.history.append(kept, len(told.ids) - len(kept.ids), told.digest)
        else:
            self.history.append(told)
        minimized = told.values * self._signs
        done = told.status == Status.DONE
        if done.any():
            self._spent.best = min(self._spent.best, float(minimized[done, 0].min()))
        self._run.tell(
            Evidence(
                told.ids, told.population, minimized, told.status, told.secondary, told.standard_error,
                self._observations,
            )
        )  # fmt: skip
        self._observations = None
        self._failing.count(told.status, told.errors, told.fresh)


def _nothing(space: Space) -> Batch:
    return Batch(np.empty(0, np.int64), np.empty((0, space.dimension), space.dtype))
