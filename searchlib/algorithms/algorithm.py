"""The contract between a search and whoever proposes the candidates."""

from __future__ import annotations

import dataclasses
import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import check_field, flag, instance, whole_number
from searchlib.errors import MissingOperator
from searchlib.space import Population, Space

__all__ = ["Algorithm", "Batch", "Evidence", "Problem", "Run", "Status", "in_order", "set_generator", "succeeded"]


class Status(enum.IntEnum):
    """What became of a candidate."""

    PENDING = 0
    DONE = 1
    INFEASIBLE = 2  #: it broke a constraint that only evaluation could show
    FAILED = 3  #: it raised, returned a number that is not finite, ran out of time or killed its worker


@final
@dataclass(frozen=True, eq=False)
class Problem:
    """What an algorithm may know before it starts.

    Arguments:
        space: what may vary.
        objectives: how many numbers a candidate's value has; all are minimized inside the engine.
        seeds: feasible candidates to try first, shape ``(m, d)``, canonical and distinct.
        evaluations: budget in evaluations, or None where another limit stops the search.
        batch_size: the most candidates that the search asks for at once.
        batch_given: whether the user has said how many; where not, the search asks for no more than
            :attr:`Run.at_once`.
        noisy: whether a second look at a candidate may give another value.
        changing: whether every generation meets other cases, so that values of different generations say little about
            each other; such problems are noisy.
        slope: of one candidate's observations ``(c, k)``: its value, minimized, and the derivative ``(c, k)``; None
            where the objective does not know it.
    """

    space: Space
    objectives: int = 1
    seeds: Population | None = None
    evaluations: int | None = None
    batch_size: int = 64
    noisy: bool = False
    changing: bool = False
    slope: Callable[[NDArray[Any]], tuple[float, NDArray[Any]]] | None = None
    batch_given: bool = True

    def __post_init__(self) -> None:
        check_field(self, "space", instance, Space, "a searchlib Space")
        check_field(self, "objectives", whole_number, 1)
        check_field(self, "evaluations", whole_number, 0, optional=True)
        check_field(self, "batch_size", whole_number, 1)
        for name in ("noisy", "changing", "batch_given"):
            check_field(self, name, flag)
        seeds = np.empty((0, self.space.dimension), self.space.dtype) if self.seeds is None else self.seeds
        object.__setattr__(self, "seeds", self.space.check(seeds, name="seeds"))

    @property
    def first_rows(self) -> Population:
        """``seeds`` as an array that is always there."""
        assert self.seeds is not None  # filled in by __post_init__
        return self.seeds

    def require_one_objective(self, algorithm: Algorithm) -> None:
        """Refuse several objectives on behalf of an algorithm that ranks by one number."""
        if self.objectives != 1:
            raise MissingOperator(
                f"{type(algorithm).__name__} ranks by one number, but the objective has {self.objectives}; "
                f"weigh them in the objective, or use an algorithm for several objectives"
            )


@final
@dataclass(frozen=True, eq=False)
class Batch:
    """Candidates to evaluate: ``ids`` (n,) counted up from 0 over the run, ``population`` (n, d)."""

    ids: NDArray[np.int64]
    population: Population

    def __len__(self) -> int:
        return len(self.ids)


@final
@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known about some candidates.

    Arguments:
        ids: shape ``(n,)``; ids of the run's own batches, or negative ones for candidates from elsewhere.
        population: their rows ``(n, d)``.
        values: shape ``(n, objectives)``, minimized; NaN exactly where ``status`` is not DONE.
        status: shape ``(n,)`` of :class:`Status`.
        secondary: shape ``(n,)``; breaks ties between equal values, lower is better; NaN where unknown.
        standard_error: shape ``(n, objectives)`` of the values over their cases; NaN where unknown.
        observations: the scores themselves, shape ``(n, c, k)``, in the objective's own direction; NaN for candidates
            that were not evaluated now (duplicates, failures). None unless the objective is differentiable.
    """

    ids: NDArray[np.int64]
    population: Population
    values: NDArray[np.float64]
    status: NDArray[np.int8]
    secondary: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    observations: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: NDArray[Any] | slice) -> Evidence:
        """The evidence on some of the rows (positions, a mask, or a slice)."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        taken: dict[str, Any] = {name: None if part is None else part[rows] for name, part in parts.items()}
        return Evidence(**taken)


def in_order(told: Sequence[Evidence]) -> list[tuple[Evidence, int]]:
    """Every candidate of some evidence, as (evidence, position in it), by id, whatever order it came in."""
    places = [(evidence, row) for evidence in told for row in range(len(evidence))]
    return sorted(places, key=lambda place: int(place[0].ids[place[1]]))


def set_generator(rng: np.random.Generator, state: Any) -> None:
    """Put a generator where another one with the same seed was (``rng.bit_generator.state``).

    Raises:
        LookupError, TypeError, ValueError: it is the state of no such generator. Any other increment of numpy's PCG64
            than the seed's own could be one with which it goes round in circles.
    """
    now = rng.bit_generator.state
    if state["bit_generator"] != now["bit_generator"] or state["state"].get("inc") != now["state"].get("inc"):
        raise ValueError("the state of another generator")
    rng.bit_generator.state = state


def succeeded(
    told: Sequence[Evidence],
) -> tuple[NDArray[np.int64], Population, NDArray[np.float64], NDArray[np.float64]]:
    """What succeeded of some evidence, by id, whatever order it came in: ids, rows, first values, secondary scores."""
    ids = np.concatenate([evidence.ids for evidence in told])
    done = np.concatenate([evidence.status for evidence in told]) == Status.DONE
    order: NDArray[np.intp] = np.argsort(ids, kind="stable")
    order = order[done[order]]
    rows = np.concatenate([evidence.population for evidence in told])[order]
    values = np.concatenate([evidence.values[:, 0] for evidence in told])[order]
    return ids[order], rows, values, np.concatenate([evidence.secondary for evidence in told])[order]


class Run(ABC):
    """One run of an algorithm: the state behind ask and tell."""

    #: For how many candidates it should be asked where nobody has said; None: for any number.
    at_once: int | None = None

    @abstractmethod
    def ask(self, n: int) -> Batch:
        """Propose at least one and at most ``n`` candidates; none means that the algorithm has no more to propose."""

    @abstractmethod
    def tell(self, evidence: Evidence) -> None:
        """Learn from evidence on any subset of ids, in any order; between two asks the order has no effect.

        Negative ids are injections: candidates that this run did not propose. Never changes the arrays it is given.
        """

    @abstractmethod
    def recommend(self, n: int) -> Population:
        """A short list ``(m, d)``, ``m <= n``, best first, of what this run would hand over now."""

    @property
    def generation(self) -> int:
        """Which candidates are compared with each other: those of one generation, counted up; the last asked one's.

        Only of algorithms that do not compare batches (:attr:`Algorithm.compares_batches`).
        """
        raise NotImplementedError(f"{type(self).__name__} does not say which of its candidates it compares")

    def state(self) -> Mapping[str, Any] | None:
        """All that asks and tells have left in this run, as arrays and JSON values, from which :meth:`restore` goes on.

        None, the default: nobody can take it over, and a resumed search makes it again by asking and telling.
        """
        return None

    def restore(self, state: Mapping[str, Any], told: Evidence) -> None:
        """Go on where another run of the same settings on the same problem had this :meth:`state`.

        Called before anything else. The state may come from a file that anybody has written; what follows from the
        evidence should not be in it.

        Arguments:
            state: from the other run.
            told: all that the other run had been asked for and told, by id, from 0 on.

        Raises:
            InvalidSettings, LookupError, TypeError, ValueError: it is no such state.
        """
        raise NotImplementedError(f"{type(self).__name__} has no state to go on from")

    def notes(self) -> Mapping[str, Any]:
        """What a user may want to know about this run afterwards, as JSON values; nothing by default.

        The search hands it on as ``result.notes``. It follows from what was asked and told, so that a resumed run
        notes the same.
        """
        return {}


class Algorithm(ABC):
    """Settings of a search method: a frozen dataclass whose ``start`` gives a :class:`Run`."""

    #: Whether candidates of different batches are compared, so that all must have met the same cases. Where they are
    #: not, runs say to which :attr:`Run.generation` a batch belongs.
    compares_batches: ClassVar[bool] = True

    @abstractmethod
    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin on a problem; all randomness comes from ``rng``.

        Raises:
            MissingOperator: the space or the objectives do not suit this algorithm; the message says what is missing.
        """
