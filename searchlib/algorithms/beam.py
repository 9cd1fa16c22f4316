"""Beam search: keep the best few, expand each of them, keep the best few of all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run
from searchlib.algorithms.archive import Archive
from searchlib.arguments import check_field, shown, whole_number
from searchlib.errors import InvalidSettings
from searchlib.space import Population, distinct, row_keys

__all__ = ["Beam", "Vary"]

#: Children ``(m, d)`` of the parents ``(p, d)``, and the row of each child's parent ``(m,)``.
Vary = Callable[[np.random.Generator, Population], tuple[Population, NDArray[np.integer]]]

#: How often the mutants of a parent that are known already are drawn again.
_VARIATIONS = 8
#: How often fresh samples may turn out to be known before the space counts as exhausted.
_SAMPLINGS = 32
#: Candidates remembered; more than the beam, because the same stranger may be told many times.
_REMEMBERED = 1024


@final
@dataclass(frozen=True)
class Beam(Algorithm):
    """Keep the best ``width`` candidates; in every round expand each by up to ``expansion`` children.

    The search over exemplar sets of Learning by Teaching (arXiv 2406.14629, Algorithm A2 in Appendix C.3), which is
    ProTeGi's (Pryzant et al., arXiv 2305.03495) with another expansion. Parents stay in the pool: a round keeps the
    best of parents and children, and a parent is not evaluated again, because its value is known. (In the released
    code a round scores all of them on newly drawn examples, so that its incumbents' values are noisy.) Children that
    anybody has proposed before are dropped before they count.

    The first beam is the objective's seeds, filled up with samples to ``width``. A round in which ``vary`` yields
    nothing new is made of mutants instead, and of fresh samples where all mutants are known. Not for noisy
    objectives: a lucky value stays in the beam for good.

    Arguments:
        width: how many candidates survive a round.
        expansion: most children of one parent per round; of more than that from ``vary`` the first new ones count
            (the released code draws from them).
        rounds: expansions after the first beam; None goes on until the budget is spent.
        vary: makes children: called once per round with the run's generator and the beam ``(p, d)``, best first;
            returns canonical or other rows of the space ``(m, d)`` and the parent of each ``(m,)``. None stands for
            the space's own mutation, ``expansion`` times per parent.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Subset
        >>> result = search(sum, Beam(width=2, expansion=6), space=Subset(9, k=3), budget=60, direction="maximize")
        >>> result.best
        (6, 7, 8)
    """

    width: int = 4
    expansion: int = 8
    rounds: int | None = None
    vary: Vary | None = None

    def __post_init__(self) -> None:
        check_field(self, "width", whole_number, 1)
        check_field(self, "expansion", whole_number, 1)
        check_field(self, "rounds", whole_number, 0, optional=True)
        if self.vary is not None and not callable(self.vary):
            raise InvalidSettings(f"Beam(vary=…) must be a function of (rng, parents), but is {shown(self.vary)}")

    def __repr__(self) -> str:
        # A function's own repr is an address, by which no study could recognize it.
        own = "" if self.vary is None else f", vary={getattr(self.vary, '__qualname__', type(self.vary).__qualname__)}"
        return f"Beam(width={self.width}, expansion={self.expansion}, rounds={self.rounds}{own})"

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for one objective."""
        problem.require_one_objective(self)
        return _BeamRun(self, problem, rng)


@final
class _BeamRun(Run):
    def __init__(self, settings: Beam, problem: Problem, rng: np.random.Generator) -> None:
        self._settings, self._space, self._rng = settings, problem.space, rng
        self._archive = Archive(problem.space, max(_REMEMBERED, settings.width))
        self._known: set[bytes] = set()
        self._seeds = self._space.canonical(problem.first_rows)
        self._waiting = self._seeds[:0]  # what is left of the round
        self._asked, self._round = 0, -1

    def ask(self, n: int) -> Batch:
        self._archive.settle()
        if self._round < 0:
            self._waiting, self._round = self._first(), 0
        if not len(self._waiting) and self._round != self._settings.rounds:
            self._waiting, self._round = self._expand(), self._round + 1
        rows, self._waiting = self._waiting[:n], self._waiting[n:]
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        strangers = evidence.ids < 0
        if strangers.any():
            self._known.update(row_keys(self._space.canonical(evidence.population[strangers])))
        self._archive.add(evidence)

    def recommend(self, n: int) -> Population:
        self._archive.settle()
        return self._beam()[:n]

    def _beam(self) -> Population:
        """The best distinct candidates told so far: parents never leave but for something better."""
        return distinct(self._space.canonical(self._archive.population))[: self._settings.width]

    def _first(self) -> Population:
        seeds = self._new(self._seeds)
        return np.concatenate([seeds, self._fresh(self._settings.width - len(self._known))])

    def _expand(self) -> Population:
        beam = self._beam()
        if not len(beam):  # nothing has succeeded yet
            return self._fresh(self._settings.width)
        rows = beam[:0] if self._settings.vary is None else self._varied(self._settings.vary, beam)
        if not len(rows):
            rows = self._mutants(beam)
        return rows if len(rows) else self._fresh(len(beam) * self._settings.expansion)

    def _varied(self, vary: Vary, beam: Population) -> Population:
        given, parents = vary(self._rng, beam.copy())
        rows, parents = self._space.check(given, name="a child from vary"), np.asarray(parents)
        if parents.shape != (len(rows),) or not np.isin(parents, np.arange(len(beam))).all():
            raise InvalidSettings(
                f"vary must return the parent of each of its {len(rows)} children as a row from 0 to {len(beam) - 1}, "
                f"but returned {parents.tolist()!r:.120}"
            )
        room = np.full(len(beam), self._settings.expansion)
        return self._new(self._space.canonical(rows), parents, room)

    def _mutants(self, beam: Population) -> Population:
        room = np.full(len(beam), self._settings.expansion)
        rows = beam[:0]
        for _ in range(_VARIATIONS):
            parents = np.repeat(np.arange(len(beam)), room)
            if not len(parents):
                break
            mutants = self._space.canonical(self._space.mutate(self._rng, beam[parents]))
            rows = np.concatenate([rows, self._new(mutants, parents, room)])
        return rows

    def _fresh(self, n: int) -> Population:
        """New samples; fewer than ``n`` where the space has no more."""
        rows, room = self._seeds[:0], np.array([max(0, n)])
        for attempt in range(_SAMPLINGS):
            if not room[0] or len(self._known) >= self._space.size:
                break
            # The fewer candidates are left, the more samples it takes to meet one.
            count = min(int(room[0]) << attempt, max(int(room[0]), 4096))
            samples = self._space.canonical(self._space.sample(self._rng, count))
            rows = np.concatenate([rows, self._new(samples, np.zeros(count, np.int64), room)])
        return rows

    def _new(
        self, rows: Population, parents: NDArray[np.integer] | None = None, room: NDArray[np.int64] | None = None
    ) -> Population:
        """The rows nobody has proposed before, each once, while there is ``room`` (counted down) for its parent."""
        fresh: list[int] = []
        for index, key in enumerate(row_keys(rows)):
            if key in self._known:
                continue
            if parents is not None and room is not None:
                if not room[parents[index]]:
                    continue
                room[parents[index]] -= 1
            self._known.add(key)
            fresh.append(index)
        return rows[fresh]
