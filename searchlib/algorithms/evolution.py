"""Evolution with an elitist archive: generational or steady state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, set_generator
from searchlib.algorithms.archive import Archive, Pool
from searchlib.algorithms.proposed import Proposed
from searchlib.arguments import check_field, flag, instance, real_number, whole_number
from searchlib.space import Population

__all__ = ["Evolution"]

#: How often a child that already exists is varied again before it is replaced by a fresh sample.
_VARIATIONS = 8


@final
@dataclass(frozen=True, kw_only=True)
class Evolution(Algorithm):
    """Breed children from the best of everything evaluated so far; no candidate is proposed twice.

    The archive is elitist and append-only (Algorithm 1 of EEP, arXiv 2407.00945, Appendix C): parents come from
    the members within a margin of the best. Ranking is by value, then by the objective's secondary score; members
    that tie are equally likely parents. The operators are the space's own.

    Arguments:
        population: candidates evaluated before breeding starts: the objective's seeds, then samples.
        offspring: children bred from one look at the archive; 1 is steady state.
        crossover_rate: share of children that are crossed before they are mutated, in [0, 1].
        mutation_pool: who may be the parent of a mutant.
        crossover_pool: who may be a parent of a cross; needs two members, else the child is a mutant.
        mutate_crosses: whether crosses are also mutated.
        secondary_weight: how much a unit of the secondary score (a loss) counts beside a unit of the value when
            candidates are ranked; 0 lets it break ties only.
        archive: how many of the best candidates to remember; beyond it the worst are forgotten as parents.

    Example:
        >>> from searchlib import search
        >>> from searchlib.spaces import Subset
        >>> result = search(sum, space=Subset(12, k=3), budget=120, direction="maximize")
        >>> result.best
        (9, 10, 11)
    """

    population: int = 24
    offspring: int = 12
    crossover_rate: float = 0.5
    mutation_pool: Pool = field(default=Pool(at_least=6))
    crossover_pool: Pool = field(default=Pool(at_least=12))
    mutate_crosses: bool = True
    secondary_weight: float = 0.0
    archive: int = 1024

    def __post_init__(self) -> None:
        for name in ("population", "offspring", "archive"):
            check_field(self, name, whole_number, 1)
        for name in ("mutation_pool", "crossover_pool"):
            check_field(self, name, instance, Pool, "a Pool(…)")
        check_field(self, "secondary_weight", real_number, "[0, inf)")
        check_field(self, "crossover_rate", real_number, "[0, 1]")
        check_field(self, "mutate_crosses", flag)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for one objective."""
        problem.require_one_objective(self)
        return _EvolutionRun(self, problem, rng)


@final
class _EvolutionRun(Run):
    def __init__(self, settings: Evolution, problem: Problem, rng: np.random.Generator) -> None:
        self._settings, self._space, self._rng = settings, problem.space, rng
        self._archive = Archive(problem.space, settings.archive, settings.secondary_weight)
        self._proposed = Proposed(problem.space)
        self._seeds = self._proposed.claim(self._space.canonical(problem.first_rows))
        self._asked = 0
        self._unbred = 0  # children that may still be bred from the present pools
        nobody = self._archive.population, self._archive.ids
        self._pools = {"mutation pool": nobody, "crossover pool": nobody}

    def ask(self, n: int) -> Batch:
        self._archive.settle()
        rows = self._initial(n)
        if not len(rows):
            rows = self._breed(n)
        ids = np.arange(self._asked, self._asked + len(rows))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        self._proposed.note_strangers(evidence)
        self._archive.add(evidence)

    def state(self) -> Mapping[str, Any]:
        pools = {name: ids for name, (_, ids) in self._pools.items()}
        return {"generator": self._rng.bit_generator.state, "unbred": self._unbred, **pools}

    def restore(self, state: Mapping[str, Any], told: Evidence) -> None:
        set_generator(self._rng, state["generator"])
        self._unbred = whole_number("unbred", state["unbred"], 0, self._settings.offspring)
        for name in self._pools:
            ids = np.asarray(state[name])
            if ids.dtype != np.int64 or ids.ndim != 1 or (ids < 0).any():
                raise ValueError(f"{name} must be ids, but is {ids.dtype} {ids.shape}")
            self._pools[name] = told.population[ids], ids
        for start in range(0, len(told), 16 * self._settings.archive):  # all at once would be sorted as a whole
            self._archive.add(told.take(slice(start, start + 16 * self._settings.archive)))
            self._archive.settle()
        self._proposed.restore(told.population)
        self._asked, self._seeds = len(told), self._seeds[len(told) :]

    def recommend(self, n: int) -> Population:
        self._archive.settle()
        return self._archive.best(n)

    def _initial(self, n: int) -> Population:
        seeds, self._seeds = self._seeds[:n], self._seeds[n:]
        missing = min(n - len(seeds), self._settings.population - len(self._proposed))
        if missing <= 0:
            return seeds
        return np.concatenate([seeds, self._proposed.samples(self._rng, missing)])

    def _breed(self, n: int) -> Population:
        if not self._unbred:
            self._unbred = self._settings.offspring
            wanted = (self._settings.mutation_pool, self._settings.crossover_pool)
            members = [self._archive.pool(pool) for pool in wanted]
            found = [(rows, self._archive.ids[: len(rows)]) for rows in members]
            self._pools = dict(zip(self._pools, found, strict=True))
        n = min(n, self._unbred)
        self._unbred -= n
        if not len(self._pools["mutation pool"][0]):  # nothing has succeeded yet
            return self._proposed.samples(self._rng, n)
        children = self._proposed.claim(self._children(n))
        for _ in range(_VARIATIONS):
            if len(children) == n:
                return children
            varied = self._space.mutate(self._rng, self._children(n - len(children)))
            children = np.concatenate([children, self._proposed.claim(self._space.canonical(varied))])
        return np.concatenate([children, self._proposed.samples(self._rng, n - len(children))])

    def _children(self, n: int) -> Population:
        space, rng = self._space, self._rng
        mutation_pool, crossover_pool = (members for members, _ in self._pools.values())
        crosses = 0
        if len(crossover_pool) > 1:
            crosses = int(rng.binomial(n, self._settings.crossover_rate))
        mutants = mutation_pool[rng.integers(len(mutation_pool), size=n - crosses)]
        if not crosses:
            return space.canonical(space.mutate(rng, mutants))
        mothers = rng.integers(len(crossover_pool), size=crosses)
        others = rng.integers(1, len(crossover_pool), size=crosses)
        fathers = (mothers + others) % len(crossover_pool)  # never the mother herself
        crossed = space.crossover(rng, crossover_pool[mothers], crossover_pool[fathers])
        if self._settings.mutate_crosses:
            return space.canonical(space.mutate(rng, np.concatenate([crossed, mutants])))
        return space.canonical(np.concatenate([crossed, space.mutate(rng, mutants)]))
