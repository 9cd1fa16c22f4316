"""Change one part at a time: the rows that an additive profile is measured with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run
from searchlib.algorithms.archive import Archive
from searchlib.allocation_space import AllocationSpace
from searchlib.arguments import check_field, flag, listed, shown, whole_number
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.space import Population

__all__ = ["OneAtATime"]


@final
@dataclass(frozen=True)
class OneAtATime(Algorithm):
    """The base with one part changed, for every option that the part may have; then it has nothing more to propose.

    The base is the objective's first seed (every part's first option where there is none). Rows that the space does not
    contain (beyond a budget) are left out, so this belongs on ``space.unlimited``;
    :func:`searchlib.measure_profile` uses it there.

    Arguments:
        entries: (part, option) pairs to ask, in this order; None: all but the base's own, part by part.
        ask_base: whether the base itself is asked first.

    Raises:
        InvalidSettings: an entry that the space does not have.
    """

    entries: tuple[tuple[int, int], ...] | None = None
    ask_base: bool = True

    def __post_init__(self) -> None:
        check_field(self, "ask_base", flag)
        if self.entries is not None:
            pairs = [listed("each of OneAtATime(entries=…)", pair) for pair in listed("entries", self.entries)]
            if any(len(pair) != 2 for pair in pairs):
                given = shown(self.entries)
                raise InvalidSettings(f"OneAtATime(entries=…) must be (part, option) pairs, but are {given}")
            numbers = tuple(tuple(whole_number("a part or option", one, 0) for one in pair) for pair in pairs)
            object.__setattr__(self, "entries", numbers)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on spaces of allocations, for any number of objectives."""
        if not isinstance(problem.space, AllocationSpace):
            raise MissingOperator(f"OneAtATime needs an AllocationSpace, but got {type(problem.space).__name__}")
        first = problem.first_rows
        if not len(first):
            first = problem.space.repair(np.zeros((1, problem.space.dimension)))
        return _OneAtATimeRun(self, problem.space, first[0])


@final
class _OneAtATimeRun(Run):
    def __init__(self, settings: OneAtATime, space: AllocationSpace, base: Population) -> None:
        self._space, self._archive, self._asked = space, Archive(space, 64), 0
        self._rows = _rows(settings, space, base)

    def ask(self, n: int) -> Batch:
        rows = self._rows[self._asked : self._asked + n]
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        self._archive.add(evidence)

    def recommend(self, n: int) -> Population:
        self._archive.settle()
        return self._archive.best(n)


def _rows(settings: OneAtATime, space: AllocationSpace, base: Population) -> Population:
    allowed = space.allowed_array
    if settings.entries is None:
        part, option = np.nonzero(allowed)
    else:
        part, option = np.array(settings.entries, np.intp).reshape(-1, 2).T
        inside = (part >= 0) & (part < allowed.shape[0]) & (option >= 0) & (option < allowed.shape[1])
        if not inside.all():
            pair = settings.entries[int(np.flatnonzero(~inside)[0])]
            raise InvalidSettings(f"there is no entry {pair} in a space of {allowed.shape} parts and options")
    changed = option != base[part]
    part, option = part[changed], option[changed]
    rows = np.repeat(base[None], len(part), axis=0)
    rows[np.arange(len(rows)), part] = option
    if settings.ask_base:
        rows = np.concatenate([base[None], rows])
    return space.canonical(rows[space.contains(rows)])
