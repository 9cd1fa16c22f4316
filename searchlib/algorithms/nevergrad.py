"""Any optimizer of nevergrad on any of our spaces."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, final

import numpy as np

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status, in_order
from searchlib.algorithms.archive import Archive
from searchlib.arguments import check_field, instance, whole_number
from searchlib.errors import InvalidSettings, MissingDependency
from searchlib.space import Population

__all__ = ["Nevergrad"]


@final
@dataclass(frozen=True)
class Nevergrad(Algorithm):
    """An optimizer from nevergrad's registry, by name, on the space's real relaxation.

    nevergrad (Bennet, Doerr, Moreau, Rapin, Teytaud and Teytaud, SIGEVOlution 14(1), 2021) sees an unbounded array
    of ``space.latent_dimension`` reals with step 1; ``space.from_latent`` turns every proposal into a feasible
    candidate, so nothing infeasible is ever evaluated. Its state cannot be exported: a study resumes by replay.

    Arguments:
        name: a key of ``nevergrad.optimizers.registry``, for example ``"NGOpt"``, ``"CMA"``, ``"TwoPointsDE"``.
        archive: how many of the best candidates to remember for :meth:`Run.recommend`.
    """

    name: str = "NGOpt"
    archive: int = 64

    def __post_init__(self) -> None:
        check_field(self, "name", instance, str, "the name of an optimizer")
        check_field(self, "archive", whole_number, 1)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run.

        Raises:
            MissingDependency: nevergrad is not installed.
            InvalidSettings: nevergrad has no optimizer of this name.
        """
        problem.require_one_objective(self)
        try:
            import nevergrad

            from searchlib.algorithms.nevergrad_parameters import latent_array
        except ImportError as error:
            raise MissingDependency("Nevergrad needs nevergrad: pip install 'searchlib[nevergrad]'") from error
        registry = nevergrad.optimizers.registry
        if self.name not in registry:
            close = sorted(name for name in registry if self.name.lower() in name.lower())[:8]
            raise InvalidSettings(f"nevergrad has no optimizer {self.name!r}; similar names: {close}")
        parametrization = latent_array(problem.space)
        parametrization.random_state = np.random.RandomState(rng.integers(2**32, dtype=np.uint32))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # nevergrad warns about its own choices, not about ours
            optimizer = registry[self.name](parametrization, problem.evaluations, num_workers=problem.batch_size)
        return _NevergradRun(optimizer, problem, Archive(problem.space, self.archive))


@final
class _NevergradRun(Run):
    def __init__(self, optimizer: Any, problem: Problem, archive: Archive) -> None:
        self._optimizer, self._space, self._archive = optimizer, problem.space, archive
        self._pending: dict[int, Any] = {}
        self._waiting: list[Evidence] = []
        self._asked = 0
        for latent in self._space.to_latent(problem.first_rows):
            optimizer.suggest(latent)

    def ask(self, n: int) -> Batch:
        self._settle()
        proposals: list[Any] = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(n):
                proposal = self._optimizer.ask()
                self._pending[self._asked + len(proposals)] = proposal
                proposals.append(proposal.value)
        ids = np.arange(self._asked, self._asked + n)
        self._asked += n
        return Batch(ids, self._space.canonical(self._space.from_latent(np.stack(proposals))))

    def tell(self, evidence: Evidence) -> None:
        self._archive.add(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        best = self._archive.best(n)
        if not len(best):
            return best
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            own = self._optimizer.provide_recommendation().value
        row = self._space.canonical(self._space.from_latent(own[None, :]))
        return np.concatenate([best, row])[:n] if n > len(best) else np.concatenate([best[: n - 1], row])

    def _settle(self) -> None:
        """Tell nevergrad in the order of ids, whatever order the evidence came in."""
        self._archive.settle()
        told, self._waiting = in_order(self._waiting), []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for evidence, row in told:
                proposal = self._pending.pop(int(evidence.ids[row]), None)
                if evidence.status[row] != Status.DONE:
                    continue  # nevergrad has no word for a failure; to it the proposal stays open
                if proposal is None:
                    latent = self._space.to_latent(evidence.population[row][None, :])[0]
                    proposal = self._optimizer.parametrization.spawn_child(new_value=latent)
                self._optimizer.tell(proposal, float(evidence.values[row, 0]))
