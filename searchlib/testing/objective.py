"""Conformance of objectives."""

from __future__ import annotations

import json
import pickle

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import flag, instance, real_number, whole_number
from searchlib.cases import Cases, Split
from searchlib.objective import Objective, Scores
from searchlib.scoretable import signs
from searchlib.space import Candidates, Population
from searchlib.testing.expectation import expect

__all__ = ["check_objective"]


def check_objective(
    objective: Objective,
    *,
    seed: int = 0,
    candidates: int = 4,
    cases: int = 6,
    tolerance: float = 1e-5,
    pickles: bool = True,
) -> None:
    """Hold an objective to its contract.

    Checks the shapes and finiteness of scores; that a cell depends on nothing but its candidate and case (alone, in
    another order, twice, after closing and opening again); that splits do not overlap; that seeds lie in the space and
    references are scored; that candidates are not changed; and that it survives pickling, as process workers need.

    Arguments:
        objective: not entered yet; it is opened and closed several times.
        seed: decides the candidates.
        candidates: how many to score.
        cases: how many of the SEARCH cases to use.
        tolerance: how far scores of the same cell may differ (batched floating-point arithmetic is not exact).
        pickles: whether it should survive ``pickle``.

    Raises:
        AssertionError: with a sentence that says which promise is broken.
    """
    name = type(instance("objective", objective, Objective, "an Objective")).__name__
    seed, pickles = whole_number("seed", seed, 0), flag("pickles", pickles)
    candidates, cases = whole_number("candidates", candidates, 1, 10**6), whole_number("cases", cases, 1)
    tolerance = real_number("tolerance", tolerance, "[0, 1e9]")
    expect(len(signs(objective)) >= 1, f"{name} has no direction")
    json.dumps(dict(objective.fingerprint()), allow_nan=False)
    with objective:
        columns = objective.cases(Split.SEARCH)
        expect(len(columns) > 0, f"{name} has no SEARCH cases")
        _check_splits(objective)
        part = columns.take(range(min(cases, len(columns))))
        rows = _rows(objective, np.random.default_rng(seed), candidates)
        scores = _scores(objective, rows, part)
        _check_cells(objective, rows, part, scores, tolerance)
        _check_aggregate(objective, rows, part)
        _check_references(objective)
    with objective:
        again = _scores(objective, rows, part)
        expect(_close(again, scores, tolerance), f"{name} scores differently after it was closed and opened again")
    if pickles:
        with pickle.loads(pickle.dumps(objective)) as copy:
            expect(_close(_scores(copy, rows, part), scores, tolerance), f"a pickled copy of {name} scores differently")


def _rows(objective: Objective, rng: np.random.Generator, n: int) -> Population:
    space = objective.space
    seeds = space.check(objective.seeds(), name="seeds")
    return space.canonical(np.concatenate([space.sample(rng, n), seeds[:2]]))


def _scores(objective: Objective, rows: Population, cases: Cases) -> NDArray[np.float64]:
    before = rows.copy()
    given = objective.evaluate(Candidates(objective.space, rows), cases)
    expect(np.array_equal(before, rows), f"{type(objective).__name__} changed its candidates")
    scores = given if isinstance(given, Scores) else Scores(given)
    values = np.asarray(scores.values, np.float64)
    expect(
        values.ndim in (2, 3) and values.shape[:2] == (len(rows), len(cases)),
        f"evaluate of {type(objective).__name__} must return shape ({len(rows)}, {len(cases)}[, k]), "
        f"but returned {values.shape}",
    )
    feasible = np.ones(len(rows), bool) if scores.infeasible is None else ~np.asarray(scores.infeasible)
    expect(bool(np.isfinite(values[feasible]).all()), f"{type(objective).__name__} returned scores that are not finite")
    parts: list[NDArray[np.float64]] = [values.reshape(len(rows), len(cases), -1)]
    if scores.secondary is not None:
        expect(np.shape(scores.secondary) == values.shape[:2], "secondary scores must have shape (n, c)")
        parts.append(np.asarray(scores.secondary, np.float64)[:, :, None])
    return np.concatenate(parts, axis=2)


def _close(first: NDArray[np.float64], second: NDArray[np.float64], tolerance: float) -> bool:
    return bool(np.allclose(first, second, rtol=tolerance, atol=tolerance, equal_nan=True))


def _check_cells(
    objective: Objective, rows: Population, cases: Cases, scores: NDArray[np.float64], tolerance: float
) -> None:
    name = type(objective).__name__
    again = _scores(objective, rows, cases)
    expect(_close(again, scores, tolerance), f"{name} scores the same cells differently twice")
    turned = _scores(objective, rows[::-1].copy(), cases.take(range(len(cases))[::-1]))
    turned = turned[::-1, ::-1]
    expect(_close(turned, scores, tolerance), f"scores of {name} depend on the order of candidates and cases")
    for row in range(min(2, len(rows))):
        column = row % len(cases)
        alone = _scores(objective, rows[row : row + 1], cases.take([column]))
        same = _close(alone[0, 0], scores[row, column], tolerance)
        expect(same, f"a cell of {name} scores differently alone than in company")


def _check_splits(objective: Objective) -> None:
    seen: dict[str | int, Split] = {}
    for split in Split:
        for case in objective.cases(split).ids:
            expect(case not in seen, f"case {case!r} is in both {seen.get(case)} and {split}")
            seen[case] = split


def _check_aggregate(objective: Objective, rows: Population, cases: Cases) -> None:
    given = objective.evaluate(Candidates(objective.space, rows), cases)
    table = np.asarray(given.values if isinstance(given, Scores) else given, np.float64)
    shape = np.shape(objective.aggregate(table.reshape(len(rows), len(cases), -1)))
    expected = (len(rows), len(signs(objective)))
    expect(shape == expected, f"aggregate of {type(objective).__name__} must return shape {expected}, not {shape}")


def _check_references(objective: Objective) -> None:
    holdout = objective.cases(Split.HOLDOUT)
    for name in objective.references() if len(holdout) else ():
        part = holdout.take(range(min(3, len(holdout))))
        given = np.asarray(objective.evaluate_reference(name, part), np.float64)
        expect(given.shape[:1] == (len(part),), f"reference {name!r} must give one score per case, not {given.shape}")
        expect(bool(np.isfinite(given).all()), f"reference {name!r} gave scores that are not finite")
