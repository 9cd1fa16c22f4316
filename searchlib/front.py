"""The front of a search with several objectives, and the rule that picks one candidate of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import shown
from searchlib.errors import InvalidSettings
from searchlib.hypervolume import hypervolume
from searchlib.objective import Direction
from searchlib.pareto import knee, minimized, normalized
from searchlib.space import Population, Space

__all__ = ["Choice", "Front", "FrontPoint", "checked_choice", "choose_row"]

#: ``"knee"``, ``"first"`` (the best of the first objective), a weight for every objective, or a function of the values
#: ``(n, objectives)``, in the objective's own directions, that gives the position of the chosen row.
Choice = Literal["knee", "first"] | Sequence[float] | Callable[[NDArray[np.float64]], int]

#: Rows of a front that are printed.
_SHOWN = 12
#: A reference point of the front's own lies so much of its range behind its worst values.
_MARGIN = 0.1


@final
@dataclass(frozen=True, eq=False)
class FrontPoint:
    """One candidate of a front.

    Arguments:
        artifact: what ``result.best`` would be for it.
        row: its genes, shape ``(d,)``.
        values: on the cases that the winner is picked on, shape ``(objectives,)``.
        holdout: on the held-out cases, shape ``(objectives,)``; None where there are none.
    """

    artifact: Any
    row: NDArray[Any]
    values: NDArray[np.float64]
    holdout: NDArray[np.float64] | None


@final
@dataclass(frozen=True, eq=False)
class Front(Sequence[FrontPoint]):
    """What nothing else dominates, the best of the first objective first; one candidate for equal values.

    A sequence of :class:`FrontPoint`; artifacts are made when a point is asked for.

    Arguments:
        space: of the rows.
        rows: shape ``(n, d)``.
        values: shape ``(n, objectives)``, on the SELECT cases (SEARCH where there are no others), in the objective's
            own directions. Optimistic, as every value that was chosen for being good.
        direction: of every objective.
        chosen: position of the winner.
        holdout: values on the held-out cases, shape ``(n, objectives)``, NaN where a candidate failed there; None
            where there are none. Choosing a point by these is one more look at them.
        names: what the objectives are called.
        make: turns a typed value into the artifact.
    """

    space: Space
    rows: Population
    values: NDArray[np.float64]
    direction: tuple[Direction, ...]
    chosen: int = 0
    holdout: NDArray[np.float64] | None = None
    names: tuple[str, ...] = ()
    make: Callable[[Any], Any] | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """The point at a position; for a slice, a list of points."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        held = None if self.holdout is None else self.holdout[place]
        return FrontPoint(self._artifact(place), self.rows[place], self.values[place], held)

    def __iter__(self) -> Iterator[FrontPoint]:
        return (self[place] for place in range(len(self)))

    @property
    def artifacts(self) -> list[Any]:
        """The artifacts of all points."""
        return [self._artifact(place) for place in range(len(self))]

    def knee(self) -> FrontPoint:
        """The point farthest from the plane through the extremes (:func:`searchlib.pareto.knee`)."""
        point: FrontPoint = self[knee(self.values, self.direction)]
        return point

    def hypervolume(self, reference: Sequence[float] | None = None) -> float:
        """The volume that the front dominates, up to a reference point in the objective's own units and directions.

        Without one, values are normalized by the front's own range and the reference lies 10 % of it behind the
        worst: a number without units, which only compares fronts of the same extremes.
        """
        if reference is not None:
            return hypervolume(self.values, reference, self.direction)
        table = normalized(minimized(self.values, self.direction))
        return hypervolume(table, np.full(table.shape[1], 1 + _MARGIN))

    def to_json(self) -> dict[str, Any]:
        """Rows and values as JSON values."""
        return {
            "rows": self.rows.tolist(),
            "values": self.values.tolist(),
            "chosen": self.chosen,
            "holdout": None if self.holdout is None else [
                [value if math.isfinite(value) else None for value in row] for row in self.holdout.tolist()
            ],
            "names": list(self.names),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any], space: Space, direction: Sequence[Direction]) -> Front:
        """Rebuild from :meth:`to_json`; artifacts are then typed values."""
        m = len(direction)
        held = data["holdout"]
        return cls(
            space,
            np.array(data["rows"], space.dtype).reshape(-1, space.dimension),
            np.array(data["values"], np.float64).reshape(-1, m),
            tuple(direction),
            data["chosen"],
            None if held is None else np.array(held, np.float64).reshape(-1, m),
            tuple(data["names"]),
        )

    def __str__(self) -> str:
        names = self.names or tuple(f"value {number}" for number in range(len(self.direction)))
        heads = [*(f"{name} ({way[:3]})" for name, way in zip(names, self.direction, strict=True))]
        if self.holdout is not None:
            heads += [f"{name} held-out" for name in names]
        wide = [max(12, len(head)) for head in heads]
        lines = [f"front      {len(self)} candidates, * the chosen one"]
        lines.append("  " + "".join(f"  {head:>{width}}" for head, width in zip(heads, wide, strict=True)))
        for place in self._shown():
            numbers = [*self.values[place], *(() if self.holdout is None else self.holdout[place])]
            cells = "".join(f"  {number:>{width}.6g}" for number, width in zip(numbers, wide, strict=True))
            lines.append(f" {'*' if place == self.chosen else ' '}{cells}")
        if len(self) > _SHOWN:
            lines.append(f"    … {len(self)} in all, every one in result.front")
        return "\n".join(lines)

    def _shown(self) -> list[int]:
        """Evenly spaced places, the ends and the chosen one among them."""
        even = np.linspace(0, len(self) - 1, min(_SHOWN, len(self))).round().astype(int)
        return sorted({*even.tolist(), *([self.chosen] if len(self) else [])})

    def _artifact(self, place: int) -> Any:
        value = self.space.decode(self.rows[place])
        return value if self.make is None else self.make(value)


def checked_choice(choose: Any, objectives: int) -> Choice | None:
    """``choose`` as it is meant: a rule, by default the knee; None for one objective.

    Raises:
        InvalidSettings: no such rule, weights that are none, or a rule although there is only one objective.
    """
    if objectives == 1:
        if choose is not None:
            raise InvalidSettings(
                f"choose={shown(choose)} picks from the front of several objectives, but this objective has one; "
                f"leave it out"
            )
        return None
    if choose is None or choose in ("knee", "first") if isinstance(choose, str | None) else callable(choose):
        rule: Choice = "knee" if choose is None else choose
        return rule
    weights = None if isinstance(choose, str) else _weights(choose)
    if weights is None or len(weights) != objectives or not (weights >= 0).all() or not 0 < weights.sum() < math.inf:
        raise InvalidSettings(
            f"choose must be 'knee', 'first', {objectives} weights (one per objective, 0 or more, not all 0), or a "
            f"function of the front's values (n, {objectives}) that returns a row number, but is {shown(choose)}"
        )
    return tuple(weights.tolist())


def choose_row(values: NDArray[np.float64], direction: tuple[Direction, ...], choose: Choice) -> int:
    """The position that a rule picks from a front.

    Weights are those of the objectives after each was normalized to the front's range, 0 its best and 1 its worst;
    the row with the least weighted sum is picked.

    Raises:
        InvalidSettings: a function that returns no position.
    """
    table = minimized(values, direction)
    if choose == "first":
        return int(np.lexsort(table.T[::-1])[0])
    if choose == "knee":
        return knee(table)
    if not callable(choose):
        return int((normalized(table) @ np.asarray(choose, np.float64)).argmin())
    picked = choose(values.copy())
    if isinstance(picked, bool) or not isinstance(picked, int | np.integer) or not 0 <= picked < len(values):
        raise InvalidSettings(
            f"the function in choose= must return a row number from 0 to {len(values) - 1}, but returned {picked!r:.80}"
        )
    return int(picked)


def _weights(choose: Any) -> NDArray[np.float64] | None:
    try:
        weights = np.asarray(choose, np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return weights if weights.ndim == 1 and np.isfinite(weights).all() else None
