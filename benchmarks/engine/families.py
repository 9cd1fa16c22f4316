"""The suite: seven families of problems, those that the engine's rules were made on apart from those that test them.

The families a1 to f are the structures that recur: masks, exact subsets, allocations under a budget, mixtures, mixed
schedules, noise, and many reals. Everything is generated from a seed, but for the public suites: pseudo-Boolean
functions and graphs of IOHprofiler's ``ioh``, and bbob-mixint, bbob-noisy and bbob-largescale of COCO's
``coco-experiment``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks.engine import allocations, coco, graphs, many_reals, masks, mixtures, noisy, schedules, subsets
from benchmarks.engine.instance import Instance

__all__ = ["FAMILIES", "Family"]


class Family(NamedTuple):
    """Problems of one kind.

    Arguments:
        title: what they have in common.
        train, test: names of the problems that rules may be made on, and of those that they are judged on.
        make: of a name and a number, the instance.
        budgets: evaluations.
    """

    title: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    make: Callable[[str, int], Instance]
    budgets: tuple[int, ...] = (100, 300, 1000)


def _with(
    public: Mapping[str, object], of_suite: Callable[[str, int], Instance], generated: Callable[[str, int], Instance]
) -> Callable[[str, int], Instance]:
    """Problems of a public suite beside those that are generated."""
    return lambda problem, number: (of_suite if problem in public else generated)(problem, number)


FAMILIES: Mapping[str, Family] = {
    "a1": Family(
        "binary masks", masks.TRAIN, (*masks.TEST, *graphs.CUTS), _with(graphs.CUTS, graphs.cut, masks.make)
    ),
    "a2": Family(
        "exact-k subsets", subsets.TRAIN, (*subsets.TEST, *graphs.COVERAGES),
        _with(graphs.COVERAGES, graphs.coverage, subsets.make),
    ),
    "b": Family("allocation under a budget", allocations.TRAIN, allocations.TEST, allocations.make),
    "c": Family("mixtures on the simplex", mixtures.TRAIN, mixtures.TEST, mixtures.make),
    "d": Family(
        "mixed schedules", schedules.TRAIN, (*schedules.TEST, *coco.MIXED),
        _with(coco.MIXED, coco.mixed, schedules.make),
    ),
    "e": Family(
        "noisy evaluations", noisy.TRAIN, (*noisy.TEST, *coco.NOISY), _with(coco.NOISY, coco.noisy, noisy.make)
    ),
    "f": Family(
        "many reals", many_reals.TRAIN, (*many_reals.TEST, *coco.LARGE), _with(coco.LARGE, coco.large, many_reals.make),
        (1000, 3000, 10_000),
    ),
}  # fmt: skip
