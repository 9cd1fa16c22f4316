"""How candidates are scored: an objective fills the table candidates × cases."""

from __future__ import annotations

import functools
import hashlib
import types
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import flag, instance, listed, one_of, shown
from searchlib.captured import captured
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.memo import Memo
from searchlib.space import Candidates, Population, Space

__all__ = ["Direction", "FunctionObjective", "Objective", "Scores"]

Direction = Literal["minimize", "maximize"]


@final
@dataclass(frozen=True, eq=False)
class Scores:
    """What :meth:`Objective.evaluate` may return instead of a plain array.

    Arguments:
        values: shape ``(n, c)``, or ``(n, c, k)`` where every case gives an observation of k numbers (or a score
            per objective).
        secondary: shape ``(n, c)``; its mean breaks ties between equal values, lower is better (a loss beside an
            accuracy). None: ties stay ties.
        infeasible: shape ``(n,)``; True marks candidates that broke a constraint which only evaluation could
            show. Their values are ignored.
    """

    values: NDArray[Any]
    secondary: NDArray[Any] | None = None
    infeasible: NDArray[np.bool_] | None = None


class Objective(ABC):
    """A declared space and a way to score its candidates on cases.

    A subclass sets :attr:`space` and :attr:`direction` and implements :meth:`cases` and :meth:`evaluate`; every
    other method is a hook with a default that suits a plain model. An objective is a context manager: what it
    installs into a model on entry (hooks, tensors) is gone on exit. To run on worker processes it must pickle
    as a recipe (how to load, not the weights); each worker opens its own copy once.

    A cell must be a pure function of (candidate, case): the same score alone, in any company, twice.
    ``searchlib.testing.check_objective`` holds an objective to this contract.
    """

    #: What may vary.
    space: Space
    #: ``"minimize"`` or ``"maximize"``; a tuple of them for several objectives.
    direction: Direction | tuple[Direction, ...] = "minimize"
    #: What the values are called in reports, one name per direction; empty: they are numbered.
    value_names: tuple[str, ...] = ()
    #: Whether the value of a candidate is the mean over its cases, so that intervals over cases are exact.
    additive: bool = True
    #: Whether :meth:`slope` says how the value changes with the observations, so that an algorithm may model these.
    differentiable: bool = False
    #: Whether another look at the same candidate may give another value, so that the best value seen is the luckiest.
    noisy: bool = False
    #: Candidates per call of :meth:`evaluate`. Part of the result to the last bit, so never chosen by workers.
    chunk_rows: int = 16
    #: Cases per call of :meth:`evaluate`; None means all.
    chunk_cases: int | None = None
    #: Candidates asked for at once where the caller of the search names no number.
    batch_size: int = 64
    #: Whether evaluating again costs next to nothing (a million candidates per minute). A study then keeps a digest
    #: and the best candidates of every batch, and resumes by evaluating again; the history holds those candidates
    #: only, and duplicates are not looked up.
    recomputable: bool = False
    #: Whether a row of genes means the same in every search, so that an evaluation cache may share its scores. Not
    #: where genes are numbers of texts that a search makes on its way, or where a score is no function of the row.
    shareable: bool = True

    #: The tasks that SEARCH cases can be made of to order (:meth:`task_cases`), a
    #: :class:`searchlib.spaces.CurriculumTasks`; None where cases are what they are.
    task_space: Any = None

    @abstractmethod
    def cases(self, split: Split) -> Cases:
        """The cases of a split; ``Cases.none()`` where the objective has none (SEARCH must have at least one)."""

    def task_cases(self, tasks: Population, seeds: NDArray[np.int64]) -> Cases:
        """SEARCH cases for tasks ``(n, t)`` of :attr:`task_space`, with seeds ``(n,)`` below 2**60 for their chance.

        What they draw must never be what SELECT or HOLDOUT cases draw. Ids say all that decides a score.
        """
        raise NotImplementedError(f"{type(self).__name__} has a task_space but makes no cases of its tasks")

    def success(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far scores ``(n, c, k)`` are a success, shape ``(n, c)``, from 0 to 1: what a curriculum judges tasks by.

        The scores themselves, where there is one per case and more is better; override it otherwise.
        """
        if self.direction != "maximize" or scores.shape[2] != 1:
            raise InvalidSettings(
                f"a curriculum judges tasks by success from 0 to 1, which scores of {type(self).__name__} are not "
                f"(direction={self.direction!r}, {scores.shape[2]} number(s) per case); override success(scores)"
            )
        if not ((scores >= 0) & (scores <= 1)).all():
            raise InvalidSettings(
                f"success lies from 0 to 1, but scores of {type(self).__name__} reach from {scores.min():g} to "
                f"{scores.max():g}; override success(scores)"
            )
        return np.asarray(scores[:, :, 0])

    @abstractmethod
    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[Any] | Scores:
        """Score every candidate on every case.

        Arguments:
            candidates: ``n`` candidates; ``candidates[i]`` is a typed value, ``candidates.array`` all rows at once.
            cases: ``c`` cases.

        Returns:
            finite scores of shape ``(n, c)`` (or ``(n, c, k)``), in the objective's own direction. A candidate
            with a NaN or infinite score counts as failed.
        """

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reduce scores ``(n, c)`` or ``(n, c, k)`` to values ``(n, objectives)``; the mean over cases by default."""
        return np.asarray(scores.reshape(*scores.shape[:2], -1).mean(axis=1))

    def slope(self, scores: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.floating[Any]]]:
        """The value of one candidate's scores ``(c, k)`` and its derivative ``(c, k)`` with respect to them.

        For objectives that are :attr:`differentiable` in their observations (not in their candidates).
        """
        raise NotImplementedError(f"{type(self).__name__} does not know the slope of its value")

    def seeds(self) -> Population:
        """Feasible candidates, shape ``(m, d)``, that start the first population. None by default."""
        return np.empty((0, self.space.dimension), self.space.dtype)

    def references(self) -> tuple[str, ...]:
        """Names of the things the winner is compared with on the held-out cases; they need not be in the space."""
        return ()

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[Any]:
        """Score one of :meth:`references` on the cases, shape ``(c,)`` or ``(c, k)``."""
        raise NotImplementedError(f"{type(self).__name__} names the reference {name!r} but does not score it")

    def remember(self, memo: Memo) -> None:  # noqa: B027  an empty default: most objectives have nothing to keep
        """Called before the first ask with the memo of the study (in memory where there is none).

        An objective keeps it to write down what it must not make twice: proposals from outside the generator, and
        texts that its candidates refer to by id. Worker processes have no memo.
        """

    def algorithm(self, evaluations: int | None) -> Any:
        """The algorithm to use where the caller names none; None leaves the choice to the library."""
        del evaluations
        return None

    def artifact(self, value: Any) -> Any:
        """What ``result.best`` is for the winner's typed value: something that can be applied or saved."""
        return value

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """What evaluating these cells costs, in the unit that ``Budget(cost=…)`` counts; cells by default."""
        return float(len(candidates) * len(cases))

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that say which objective this is; a study refuses to resume with another one."""
        return {"objective": type(self).__name__}

    def unseen(self) -> tuple[str, ...]:
        """Names of what decides a score and does not show in :meth:`fingerprint`; a shared cache asks about them.

        By default nothing, or, where :meth:`fingerprint` is the inherited one, the objective itself.
        """
        return (type(self).__name__,) if type(self).fingerprint is Objective.fingerprint else ()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


@final
class FunctionObjective(Objective):
    """A plain function as an objective with a single case.

    Arguments:
        function: of one typed value (``batched=False``), or of a population array ``(n, d)`` returning ``(n,)``
            (``batched=True``). Returns finite numbers.
        space: what may vary.
        direction: ``"minimize"`` or ``"maximize"``, or a tuple of them for a function that returns several numbers.
        noisy: whether it may return another value for the same candidate; algorithms then average instead of trusting
            the best value seen.

    Example:
        >>> from searchlib.spaces import Binary
        >>> ones = FunctionObjective(lambda mask: sum(mask), Binary(5), direction="maximize")
        >>> ones.evaluate(Candidates(ones.space, ones.space.encode([(1, 1, 0, 0, 1)])), ones.cases(Split.SEARCH))
        array([[[3.]]])
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        space: Space,
        direction: Direction | tuple[Direction, ...] = "minimize",
        *,
        batched: bool = False,
        noisy: bool = False,
    ) -> None:
        if not callable(function):
            raise InvalidSettings(f"function must be callable, but is {shown(function)}")
        self.function = function
        self.space = instance("space", space, Space, "a searchlib Space")
        ways = (direction,) if isinstance(direction, str) else listed("direction", direction)
        for way in ways:
            one_of("direction", way, ("minimize", "maximize"))
        if not ways:
            raise InvalidSettings(f"direction must name one objective or more, but is {shown(direction)}")
        self.direction = direction if isinstance(direction, str) else ways
        self.batched = flag("batched", batched)
        self.noisy = flag("noisy", noisy)
        self.chunk_rows = 1024 if batched else 1

    def cases(self, split: Split) -> Cases:
        """The one case of a plain function; there is nothing to hold out."""
        return Cases(("value",)) if split is Split.SEARCH else Cases.none()

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Call the function, once per chunk or once per candidate."""
        n = len(candidates)
        given = self.function(candidates.array) if self.batched else [self.function(value) for value in candidates]
        scores = np.asarray(given)
        if scores.dtype.kind not in "fiu" or scores.shape[:1] != (n,):
            expected = f"{n} numbers (or rows of numbers)" if self.batched else "a number"
            raise InvalidSettings(f"the function must return {expected}, but returned {_shown(given, self.batched)}")
        return scores.astype(np.float64).reshape(n, len(cases), -1)

    def fingerprint(self) -> Mapping[str, Any]:
        """Name, code, constants, defaults and simple closure values of the function: another body is another one."""
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        body = hashlib.blake2b(repr(_described(self.function)).encode(), digest_size=8).hexdigest()
        return {"objective": "function", "name": name, "body": body, "batched": self.batched}

    def unseen(self) -> tuple[str, ...]:
        """Globals, and closure values that are no plain values."""
        return captured(self.function)


def _described(value: Any) -> Any:
    """What tells two functions apart, as values whose ``repr`` is the same in every process."""
    if isinstance(value, functools.partial):
        return ("partial", _described(value.func), _described(value.args), _described(value.keywords))
    if isinstance(value, types.CodeType):
        return (value.co_code.hex(), _described(value.co_consts), value.co_names)
    if isinstance(value, types.FunctionType):
        closure = [_cell(cell) for cell in value.__closure__ or ()]
        return (_described(value.__code__), _described(value.__defaults__), closure)
    if isinstance(value, tuple | list):
        return [_described(item) for item in value]
    if isinstance(value, frozenset | set):
        return sorted(map(repr, value))
    if isinstance(value, Mapping):
        return [(str(key), _described(item)) for key, item in value.items()]
    return value if isinstance(value, str | bytes | int | float | bool | None) else type(value).__qualname__


def _cell(cell: types.CellType) -> Any:
    try:
        held = cell.cell_contents
    except ValueError:  # not filled yet
        return None
    return held.__code__.co_code.hex() if isinstance(held, types.FunctionType) else _described(held)


def _shown(given: Any, batched: bool) -> str:
    value = given if batched else given[0]
    return f"an array of shape {value.shape}" if isinstance(value, np.ndarray) and value.ndim else f"{value!r:.200}"
