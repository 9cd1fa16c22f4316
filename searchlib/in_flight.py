"""Candidates that are being evaluated while others are asked for: no worker waits for a slow one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import final

from searchlib.algorithms.algorithm import Batch
from searchlib.cases import Cases, Split
from searchlib.chunks import Chunk, ChunkScores, plan_chunks
from searchlib.errors import InvalidSettings, StudyDamaged
from searchlib.evaluation import Evaluator
from searchlib.executors import Scored, abandon, all_of, arrived, next_of, sent
from searchlib.objective import Objective
from searchlib.scoretable import ScoreTable
from searchlib.space import row_keys
from searchlib.study import StoredBatch, Study
from searchlib.worker import Task

__all__ = ["Flight", "InFlight"]


@final
@dataclass(eq=False)
class Flight:
    """A candidate that was asked for and not told.

    Arguments:
        number: of its batch, on file where there is a study.
        key: tells its row from others.
        batch: the candidate alone.
        stored: what is on file of it, from a run that went before.
        fresh: whether it is evaluated; where not, another one has been or is the same.
        table: its scores as they come in.
        missing: chunks that have not come in.
    """

    number: int
    key: bytes
    batch: Batch
    stored: StoredBatch | None
    fresh: bool
    table: ScoreTable
    missing: set[Chunk] = field(default_factory=set)


@final
class InFlight:
    """Keeps every worker at a candidate, and the order in which candidates are told, which is on file.

    One candidate more than there are workers is under way, so that a worker that has finished finds the next.

    Arguments:
        objective: of which every candidate is cut into chunks of its own.
        evaluator: where they are evaluated.
        cases: the SEARCH cases.
        study: where chunks are kept; what is told and what is asked comes back in the order in which it came before.
    """

    def __init__(self, objective: Objective, evaluator: Evaluator, cases: Cases, study: Study | None) -> None:
        self._objective, self._evaluator, self._cases, self._study = objective, evaluator, cases, study
        self._stored = iter(()) if study is None else study.batches()
        self._tells = deque(() if study is None else study.tells())
        self._most = evaluator.workers + (evaluator.workers > 1)
        self._flights: dict[int, Flight] = {}
        self._landed: deque[int] = deque()
        self._futures: dict[Scored, tuple[Flight, Task]] = {}
        self._executor: Executor | None = None
        self.launched = self._told = 0

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def place(self) -> tuple[int, int]:
        """How many candidates were told before the last one taken, and how many had been asked for by then."""
        return self._told - 1, self.launched

    def next(self, launch: Callable[[StoredBatch | None], bool]) -> Flight | None:
        """The next candidate to be told, complete; None when there is none.

        Arguments:
            launch: asks for a candidate, or goes over one on file, and calls :meth:`add`; False: there are no more.
        """
        while self._tells:
            number, launched = self._tells[0]
            stored = next(self._stored, None) if self.launched < launched else None
            if stored is not None:
                launch(stored)
                continue
            self._tells.popleft()
            if number not in self._landed:
                raise StudyDamaged(
                    f"the study says that batch {number} was told, but its scores are not there; begin another one"
                )
            self._landed.remove(number)
            return self._taken(number)
        for stored in self._stored:  # asked for, but never told
            launch(stored)
        while len(self._flights) < self._most and launch(None):
            pass
        while self._flights and not self._landed:
            for flight, scores in self._arrivals():
                self._enter(flight, scores)
        return self._taken(self._landed.popleft()) if self._flights else None

    def add(self, number: int, batch: Batch, stored: StoredBatch | None, known: bool) -> bool:
        """Take a candidate; says whether it is to be evaluated, which a ``known`` one and one under way are not."""
        cases, objective = len(self._cases), self._objective
        (key,) = row_keys(objective.space.canonical(batch.population))
        same = known or any(other.key == key for other in self._flights.values())
        table = ScoreTable(objective, 1, cases)
        flight = Flight(number if number >= 0 else self.launched, key, batch, stored, not same, table)
        self._flights[flight.number] = flight
        self.launched += 1
        if flight.fresh:
            flight.missing = set(plan_chunks(1, cases, 1, objective.chunk_cases))
            found = () if stored is None or self._study is None else self._study.chunks(number)
            for scores in found:
                self._enter(flight, scores, journal=False)
        elif known:
            self._landed.append(flight.number)
        return flight.fresh

    def let_go(self) -> None:
        """Give up what the workers have not finished; :meth:`next` would send it again."""
        if self._executor is not None:
            abandon(self._executor, self._futures)
        self._executor, self._futures = None, {}

    def _taken(self, number: int) -> Flight:
        flight = self._flights.pop(number)
        self._told += 1
        twins = [other.number for other in self._flights.values() if other.key == flight.key]
        self._landed.extend(twin for twin in twins if twin not in self._landed)
        return flight

    def _enter(self, flight: Flight, scores: ChunkScores, *, journal: bool = True) -> None:
        if journal and self._study is not None:
            self._study.write_chunk(flight.number, scores)
        flight.table.fill(scores)
        flight.missing.discard(scores.chunk)
        if not flight.missing:
            flight.table.reduce()
            self._landed.append(flight.number)

    def _arrivals(self) -> Iterator[tuple[Flight, ChunkScores]]:
        """Chunks as they come in, at least one."""
        if self._evaluator.workers == 1:
            flight = next(flight for flight in self._flights.values() if flight.missing)
            chunks = sorted(flight.missing, key=lambda chunk: chunk.case)
            for scores in self._evaluator.run(flight.batch.population, Split.SEARCH, self._cases, chunks):
                yield flight, scores
            return
        self._send()
        executor = self._executor
        assert executor is not None
        landed = {future: arrived(executor, future) for future in next_of(executor, self._futures)}
        if any(isinstance(came, Exception) for came in landed.values()):
            # Whoever is tried again is to be alone, so that no other one's death is taken for its own.
            landed = {future: arrived(executor, future) for future in all_of(executor, self._futures)}
            self._executor = None
        for future in sorted(landed, key=lambda future: self._futures[future][0].number):
            (flight, task), came = self._futures.pop(future), landed[future]
            yield flight, self._evaluator.alone(task) if isinstance(came, Exception) else came[0]

    def _send(self) -> None:
        """Hand the workers what they do not have."""
        under_way = {(flight.number, task.chunk) for flight, task in self._futures.values()}
        for flight in self._flights.values():
            for chunk in sorted(flight.missing, key=lambda chunk: chunk.case):
                if (flight.number, chunk) in under_way:
                    continue
                self._executor = self._executor or self._evaluator.executor()
                if self._executor is None:
                    raise InvalidSettings(
                        "asynchronous=True works on joblib's loky, threading, dask and ray backends; leave it out here"
                    )
                task = self._evaluator.task(flight.batch.population, Split.SEARCH, chunk)
                self._futures[sent(self._executor, (task,))] = (flight, task)
