"""The tasks that a curriculum offered during a search, as its study has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from searchlib.damage import expected, reading
from searchlib.study import Study

__all__ = ["stored_tasks"]

_Arrays = list[NDArray[np.float64]]


def stored_tasks(study: Study) -> tuple[_Arrays, _Arrays]:
    """Tasks ``(n, coordinates)`` and mean success ``(n,)`` of every generation, for ``result.plot.tasks``.

    Both are empty where the search was not on a curriculum. The success of the last generation may be missing: it is
    known once there is a next one.

    Arguments:
        study: opened for reading; its search may be running.

    Raises:
        StudyDamaged: what is on file makes no sense.
    """
    tasks: _Arrays = []
    success: _Arrays = []
    for batch in study.batches():
        offered = study.read_array(f"tasks {batch.number}")
        if offered is None:
            continue  # the generation has met them in an earlier batch, or is of no curriculum
        known = study.read_array(f"success {batch.number}")
        _check(study, offered, known, tasks[0] if tasks else offered)
        tasks.append(offered)
        success.append(np.full(len(offered), np.nan) if known is None else known)
    return tasks, success


@reading
def _check(
    study: Study, offered: NDArray[np.float64], known: NDArray[np.float64] | None, first: NDArray[np.float64]
) -> None:
    alike = offered.ndim == first.ndim == 2 and offered.shape[1] == first.shape[1]
    expected(alike and offered.size > 0 and offered.dtype == np.float64, f"tasks of shape {offered.shape}")
    fits = known is None or (known.shape == offered.shape[:1] and known.dtype == np.float64)
    expected(fits, "not one success per task")
