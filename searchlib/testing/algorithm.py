"""Conformance of algorithms."""

from __future__ import annotations

import dataclasses
import itertools
import json
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms import Algorithm, Evidence, Problem, Run, Status
from searchlib.arguments import instance, whole_number
from searchlib.cases import Cases, Split
from searchlib.loop import Search
from searchlib.objective import Objective
from searchlib.space import Candidates, Space, row_keys
from searchlib.testing.expectation import expect

__all__ = ["check_algorithm"]

#: Ids per ask, uneven on purpose.
_ASKS = (3, 1, 5, 4, 2)


def check_algorithm(algorithm: Algorithm, space: Space, *, seed: int = 0, rounds: int = 6) -> None:
    """Hold an algorithm to its contract on one space.

    Checks that it proposes canonical rows of the space under consecutive ids, that the seed alone decides its trace,
    that the order of tells between two asks has no effect, that it changes nothing it is given, that failed candidates
    are never recommended, that it can be asked for one more while some are not told yet (where batches are compared),
    that strangers (negative ids) are accepted, that a run goes on from the state of another one (where it has any) as
    that one does, and that a study abandoned at any batch resumes to the same history.

    Arguments:
        algorithm: settings to check.
        space: a space that the algorithm is meant to work on.
        seed: decides the toy objective and the runs.
        rounds: asks per run.

    Raises:
        AssertionError: with a sentence that says which promise is broken.
    """
    instance("algorithm", algorithm, Algorithm, "an Algorithm")
    instance("space", space, Space, "a searchlib Space")
    seed, rounds = whole_number("seed", seed, 0), whole_number("rounds", rounds, 1, 10**6)
    trace = _trace(algorithm, space, seed, rounds, "in order")
    expect(len(trace) > 0, f"{algorithm!r} proposed nothing on {space!r}")
    again = _trace(algorithm, space, seed, rounds, "in order")
    expect(again == trace, f"{algorithm!r} is not decided by its generator alone")
    for order in ("reversed", "one by one"):
        other = _trace(algorithm, space, seed, rounds, order)
        expect(other == trace, f"{algorithm!r} depends on the order of tells ({order})")
    if algorithm.compares_batches:
        _check_late_tells(algorithm, space, seed, 3 * rounds)
    _check_failures(algorithm, space, seed)
    _check_strangers(algorithm, space, seed)
    _check_state(algorithm, space, seed, rounds)
    _check_resume(algorithm, space, seed)


def _start(algorithm: Algorithm, space: Space, seed: int) -> Run:
    seeds = space.canonical(space.sample(np.random.default_rng(seed + 1), 2))[:1]
    seeds.flags.writeable = False
    return algorithm.start(Problem(space, 1, seeds, 60, 5), np.random.default_rng(seed))


def _values(space: Space, population: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """A toy objective: squared distance of the features from a hidden target."""
    features = space.features(population)
    target = space.features(space.canonical(space.sample(np.random.default_rng(seed + 2), 1)))
    return np.asarray(((features - target) ** 2).sum(axis=1, keepdims=True))


def _evidence(ids: NDArray[Any], population: NDArray[Any], values: NDArray[np.float64], failed: Any) -> Evidence:
    status = np.where(failed, Status.FAILED, Status.DONE).astype(np.int8)
    values = np.where(np.asarray(failed)[:, None], np.nan, values)
    nothing = np.full(len(ids), np.nan)
    evidence = Evidence(ids, population.copy(), values, status, nothing, np.full_like(values, np.nan))
    for array in (evidence.population, evidence.values, evidence.status, evidence.secondary):
        array.flags.writeable = False
    return evidence


def _orders(n: int, order: str) -> Iterable[list[int]]:
    if order == "in order":
        return [list(range(n))]
    return [list(range(n))[::-1]] if order == "reversed" else [[i] for i in reversed(range(n))]


def _trace(algorithm: Algorithm, space: Space, seed: int, rounds: int, order: str) -> list[bytes]:
    run, proposed, asked = _start(algorithm, space, seed), [], 0
    for n in itertools.islice(itertools.cycle(_ASKS), rounds):
        batch = run.ask(n)
        if not len(batch):
            break
        expect(len(batch) <= n, f"ask({n}) of {algorithm!r} gave {len(batch)} candidates")
        expect(
            batch.ids.tolist() == list(range(asked, asked + len(batch))),
            f"ids of {algorithm!r} must count up from {asked}, but are {batch.ids.tolist()}",
        )
        asked += len(batch)
        population = np.asarray(batch.population)  # it may be one that is not made yet
        space.check(population, name=f"a proposal of {algorithm!r}")
        canonical = space.canonical(population)
        expect(np.array_equal(canonical, population), f"{algorithm!r} proposes rows that are not canonical")
        proposed.extend(row_keys(population))
        values = _values(space, population, seed)
        for rows in _orders(len(batch), order):
            run.tell(_evidence(batch.ids[rows], population[rows], values[rows], np.zeros(len(rows), bool)))
    short = run.recommend(3)
    expect(len(short) <= 3, f"recommend(3) of {algorithm!r} gave {len(short)} candidates")
    space.check(short, name=f"a recommendation of {algorithm!r}")
    return proposed + row_keys(short)


def _check_late_tells(algorithm: Algorithm, space: Space, seed: int, asks: int) -> None:
    """Three candidates are under way at any time, and the one to be told is drawn."""
    run, rng = _start(algorithm, space, seed), np.random.default_rng(seed)
    flying: list[tuple[NDArray[np.int64], NDArray[Any]]] = []
    for _ in range(asks):
        batch = run.ask(1)
        if not len(batch) and not flying:
            break  # it has no more to propose
        population = np.asarray(batch.population)
        space.check(population, name=f"a proposal of {algorithm!r}")
        if len(batch):
            flying.append((batch.ids, population))
        if len(flying) == 3 or not len(batch):
            ids, rows = flying.pop(rng.integers(len(flying)))
            run.tell(_evidence(ids, rows, _values(space, rows, seed), np.zeros(1, bool)))
    expect(len(run.recommend(1)) == 1, f"{algorithm!r} recommends nothing although candidates came back late")


def _check_failures(algorithm: Algorithm, space: Space, seed: int) -> None:
    run = _start(algorithm, space, seed)
    failed_keys: set[bytes] = set()
    done_keys: set[bytes] = set()
    for n in _ASKS:
        batch = run.ask(n)
        if not len(batch):
            break
        population = np.asarray(batch.population)
        keys = row_keys(population)
        failed = np.array([(hash_ % 2 == 0) for hash_ in (int.from_bytes(key, "little") for key in keys)])
        run.tell(_evidence(batch.ids, population, _values(space, population, seed), failed))
        failed_keys.update(key for key, bad in zip(keys, failed, strict=True) if bad)
        done_keys.update(key for key, bad in zip(keys, failed, strict=True) if not bad)
    recommended = set(row_keys(run.recommend(4)))
    expect(not recommended & (failed_keys - done_keys), f"{algorithm!r} recommends a candidate that failed")
    if done_keys:
        expect(bool(recommended), f"{algorithm!r} recommends nothing although candidates succeeded")


def _check_strangers(algorithm: Algorithm, space: Space, seed: int) -> None:
    run = _start(algorithm, space, seed)
    rows = space.canonical(space.sample(np.random.default_rng(seed + 3), 4))
    run.tell(_evidence(-1 - np.arange(4), rows, _values(space, rows, seed), np.zeros(4, bool)))
    expect(len(run.ask(2)) > 0 or space.size <= 4, f"{algorithm!r} proposes nothing after it was told of strangers")


def _check_state(algorithm: Algorithm, space: Space, seed: int, rounds: int) -> None:
    """A run that is given the state of another one and what was asked there goes on like that one, at any moment."""
    asks = list(itertools.islice(itertools.cycle(_ASKS), 2 * rounds))
    for place in range(rounds):
        first, second = _start(algorithm, space, seed), _start(algorithm, space, seed)
        nothing = np.empty((0, space.dimension), space.dtype)
        told = [_evidence(np.empty(0, np.int64), nothing, np.empty((0, 1)), np.empty(0, np.bool_))]
        told += [_asked_and_told(first, space, seed, n) for n in asks[:place]]
        state = first.state()
        if state is None:
            return
        names = [field.name for field in dataclasses.fields(Evidence) if field.name != "observations"]
        whole = {name: np.concatenate([getattr(one, name) for one in told]) for name in names}
        second.restore(_through_a_file(state), Evidence(**whole))
        for n in asks[place:]:
            one, other = (_asked_and_told(run, space, seed, n) for run in (first, second))
            expect(
                row_keys(one.population) == row_keys(other.population),
                f"{algorithm!r} proposes other candidates when it goes on from its state after {place} asks",
            )
        short, shorter = first.recommend(3), second.recommend(3)
        expect(row_keys(short) == row_keys(shorter), f"{algorithm!r} recommends others when it goes on from its state")


def _asked_and_told(run: Run, space: Space, seed: int, n: int) -> Evidence:
    batch = run.ask(n)
    rows = np.asarray(batch.population)
    failed = np.array([key[0] % 4 == 3 for key in row_keys(rows)], np.bool_)
    evidence = _evidence(batch.ids, rows, _values(space, rows, seed), failed)
    run.tell(evidence)
    return evidence


def _through_a_file(state: Mapping[str, Any]) -> dict[str, Any]:
    arrays = {name: item.copy() for name, item in state.items() if isinstance(item, np.ndarray)}
    values = {name: item for name, item in state.items() if name not in arrays}
    return {**json.loads(json.dumps(values, allow_nan=False)), **arrays}


class _Toy(Objective):
    """The toy objective as a table of three cases, of which one candidate in four raises."""

    direction = "minimize"
    chunk_rows = 2

    def __init__(self, space: Space, seed: int) -> None:
        self.space, self.seed = space, seed

    def cases(self, split: Split) -> Cases:
        return Cases.of([1.0, 2.0, 3.0]) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        for key in row_keys(candidates.array):
            if key[0] % 4 == 3:
                raise ValueError("this candidate always fails")
        assert cases.payload is not None
        return np.asarray(_values(self.space, candidates.array, self.seed) * np.array(cases.payload))


def _check_resume(algorithm: Algorithm, space: Space, seed: int) -> None:
    toy = _Toy(space, seed)
    with tempfile.TemporaryDirectory() as folder:

        def run(name: str, stop_after: int | None = None) -> str:
            study = str(Path(folder) / name)
            search = Search(toy, algorithm, budget=20, seed=seed, study=study, batch_size=5, max_failures=10**6)
            for number, _ in enumerate(search, start=1):
                if number == stop_after:
                    break
            return search.history.digest

        whole = run("whole.db")
        for stop in (1, 3):
            run(f"stopped-{stop}.db", stop)
            expect(run(f"stopped-{stop}.db") == whole, f"{algorithm!r} resumes to another history after batch {stop}")
