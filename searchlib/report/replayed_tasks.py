"""The tasks that a curriculum offered during a search, made again from its study."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Status
from searchlib.curriculum import Curriculum
from searchlib.errors import InvalidSettings, StudyMismatch
from searchlib.objective import Objective
from searchlib.study import StoredBatch, Study

__all__ = ["replayed_tasks"]

_Arrays = list[NDArray[np.float64]]


def replayed_tasks(study: Study, objective: Objective, curriculum: Curriculum) -> tuple[_Arrays, _Arrays]:
    """Tasks ``(n, coordinates)`` and mean success ``(n,)`` of every generation, for ``result.plot.tasks``.

    A study keeps scores and a digest of the cases that a generation met, not its tasks: these follow from the seed and
    the scores. Nothing is evaluated; every generation is checked against its digest.

    Arguments:
        study: opened for reading, of ``search(objective, cases=curriculum, …)``; the search may be running.
        objective: the same objective; its ``task_cases`` and ``success`` are called.
        curriculum: the same curriculum.

    Raises:
        StudyMismatch: with this objective and curriculum, other tasks come out than the search met.
        InvalidSettings: the study is not of a curriculum, or its curriculum follows a budget other than evaluations.
    """
    settings = study.settings
    if settings.get("case_source") != repr(curriculum) or objective.task_space is None:
        raise InvalidSettings(
            f"{study.path.name!r} was searched with cases={settings.get('case_source')!s:.200}, but the curriculum is "
            f"{curriculum!r:.200} on tasks {objective.task_space!r:.100}"
        )
    planned = settings.get("planned")
    if curriculum.follows_progress and not planned:
        raise InvalidSettings(
            f"this curriculum follows the progress of the search, which the budget {settings['budget']} does not "
            f"count in evaluations; its tasks cannot be told from the study"
        )
    # The stream that the search itself has drawn from (searchlib.sourced_rows).
    run = curriculum.start_on(objective.task_space, np.random.default_rng([settings["seed"], *b"cases"]))
    tasks: _Arrays = []
    success: _Arrays = []
    evaluated = 0
    for met, batches in groupby(study.batches(), key=lambda batch: _met(study, batch)):
        if met is None:
            break  # a batch that was interrupted before it met its cases
        offered = run.ask(curriculum.per_generation, min(1.0, evaluated / planned) if planned else 0.0)
        if objective.task_cases(offered.tasks, offered.seeds).digest != met:
            raise StudyMismatch(
                f"in generation {len(tasks)} of {study.path.name!r} other tasks come out than the search met; give the "
                f"objective and the curriculum that it had (a budget in cells or cost changes them as well)"
            )
        tasks.append(np.asarray(offered.tasks, np.float64))
        scores = []
        for batch in batches:
            scores += list(_scores(study, batch))
            evaluated += len(batch.ids)
        if scores:
            table = np.asarray(objective.success(np.concatenate(scores)), np.float64)
            success.append(table.mean(axis=0))
            run.tell(offered, table)
        else:
            success.append(np.full(len(offered), np.nan))
    return tasks, success


def _met(study: Study, batch: StoredBatch) -> str | None:
    """The digest of the cases that a batch met."""
    found = study.read_array(f"met {batch.number}")
    return None if found is None else found.astype(np.uint8).tobytes().hex()


def _scores(study: Study, batch: StoredBatch) -> Iterator[NDArray[np.float64]]:
    """Scores ``(n, c, k)`` of the candidates of a batch that succeeded."""
    chunks = list(study.chunks(batch.number))
    if not chunks:
        return
    n, c = max(part.chunk.row_end for part in chunks), max(part.chunk.case_end for part in chunks)
    width = max(part.values.shape[2] for part in chunks)
    table: NDArray[Any] = np.full((n, c, width), np.nan)
    status = np.full(n, Status.DONE, np.int8)
    for part in chunks:
        chunk = part.chunk
        if part.values.shape[2] == width:
            table[chunk.row : chunk.row_end, chunk.case : chunk.case_end] = part.values
        rows = slice(chunk.row, chunk.row_end)
        status[rows] = np.maximum(status[rows], part.status)
    done = (status == Status.DONE) & ~np.isnan(table).any(axis=(1, 2))
    if done.any():
        yield table[done]
