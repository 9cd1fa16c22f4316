"""The suite: seven families of problems, those that the engine's rules were made on apart from those that test them.

The families a1 to f are the structures that recur: masks, exact subsets, allocations under a budget, mixtures, mixed
schedules, noise, and many reals. Everything is generated from a seed; the pseudo-Boolean functions come from
IOHprofiler's ``ioh``, which carries no data either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from benchmarks.engine import allocations, many_reals, masks, mixtures, noisy, schedules, subsets
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


FAMILIES: Mapping[str, Family] = {
    "a1": Family("binary masks", masks.TRAIN, masks.TEST, masks.make),
    "a2": Family("exact-k subsets", subsets.TRAIN, subsets.TEST, subsets.make),
    "b": Family("allocation under a budget", allocations.TRAIN, allocations.TEST, allocations.make),
    "c": Family("mixtures on the simplex", mixtures.TRAIN, mixtures.TEST, mixtures.make),
    "d": Family("mixed schedules", schedules.TRAIN, schedules.TEST, schedules.make),
    "e": Family("noisy evaluations", noisy.TRAIN, noisy.TEST, noisy.make),
    "f": Family("many reals", many_reals.TRAIN, many_reals.TEST, many_reals.make, (1000, 3000, 10_000)),
}
