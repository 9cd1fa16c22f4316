"""Scoring candidates end to end on the small Mixtral: a whole search against the released way, forward pass included.

The released way gets the candidates that the search has asked for, in its order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import small_mixtral
from benchmarks.speed_clock import Spent, timed
from benchmarks.speed_released import ReleasedScoring, ReleasedWeights
from benchmarks.table import Table
from searchlib import Search, Split
from searchlib.objectives import ExpertPruning

__all__ = ["GENERATE", "PREFILL", "CandidatesSize", "Scored", "measure"]

#: The released way with the same scoring as searchlib's, and with generation, as it really works.
PREFILL, GENERATE = "released way, prefill", "released way, generate"

_KEEP = 4


@dataclass(frozen=True)
class CandidatesSize:
    """How much is scored per repetition.

    Arguments:
        steps: training steps of the model.
        task: what is asked, one that the model has learned after so many steps.
        cases: questions.
        candidates: by a search; the released way scores all of them by prefill.
        generated: how many of them the released way scores by generating, as it really does.
    """

    steps: int = 2500
    task: str = "sort"
    cases: int = 128
    candidates: int = 200
    generated: int = 10


class Scored(NamedTuple):
    """What the claims need, and the searches.

    Arguments:
        cpu_seconds: per candidate by method, one per repetition.
        difference: largest one between the ways' accuracies of a candidate.
        histories: of each search all candidates, in order, ``(candidates, 2, groups, keep, experts)``.
    """

    cpu_seconds: dict[str, list[float]]
    difference: float
    histories: list[NDArray[np.float32]]


def measure(table: Table, size: CandidatesSize, repetitions: int) -> Scored:
    """Add the rows of this part to the table."""
    load = partial(small_mixtral.load, size.steps)
    cases = small_mixtral.cases(size.task, size.cases)
    objective = ExpertPruning(load, None, {Split.SEARCH: cases}, keep=_KEEP, end=small_mixtral.END)
    with objective:
        objective.seeds()  # the heuristics behind the seeds are computed once, whatever follows
    model, tokenizer = load()
    scoring = ReleasedScoring(model, tokenizer, cases, end=small_mixtral.END)
    task = f"score a candidate, small Mixtral, {size.cases} cases"
    spent: dict[str, list[float]] = {"searchlib": [], PREFILL: [], GENERATE: []}
    difference, histories = 0.0, []
    for seed in range(repetitions):
        search = Search(objective, budget=size.candidates, batch_size=4, seed=seed)
        seconds = timed(lambda search=search: list(search))
        values = [objective.space.decode(row) for row in search.history.population]
        histories.append(np.array([(value.router, value.merging) for value in values]))
        ours = search.history.values[:, 0]
        _add(table, task, "searchlib", seconds.per(len(values)), spent)
        with ReleasedWeights(model, _KEEP) as released:
            groups = objective.space.layer_groups
            for method, score, n in (
                (PREFILL, scoring.prefill, len(values)), (GENERATE, scoring.generate, size.generated)
            ):  # fmt: skip
                chosen = values[len(values) - n :]
                accuracies: list[float] = []
                seconds = timed(partial(_score_all, released, groups, score, chosen, accuracies))
                _add(table, task, method, seconds.per(n), spent)
                difference = max(difference, np.abs(np.array(accuracies) - ours[len(values) - n :]).max())
    for method in (PREFILL, GENERATE):
        for theirs, own in zip(spent[method], spent["searchlib"], strict=True):
            table.add(task, f"ratio, {method}", ratio=theirs / own)
    return Scored(spent, float(difference), histories)


def _score_all(
    released: ReleasedWeights, groups: Any, score: Callable[[], NDArray[np.bool_]], chosen: Any, into: list[float]
) -> None:
    for value in chosen:
        released.apply(value.router, value.merging, groups)
        into.append(float(score().mean()))


def _add(table: Table, task: str, method: str, spent: Spent, into: dict[str, list[float]]) -> None:
    into[method].append(spent.cpu_seconds)
    table.add(task, method, seconds=spent.seconds, cpu_seconds=spent.cpu_seconds,
              candidates_per_second=1 / spent.seconds)  # fmt: skip
