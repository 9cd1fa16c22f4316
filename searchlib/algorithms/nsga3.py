"""NSGA-III: survival by rank, then by reference directions."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Problem, Run
from searchlib.algorithms.front_evolution import FrontRun, Survival, default_population
from searchlib.arguments import check_field, real_number, whole_number

__all__ = ["NSGA3", "reference_directions"]


@final
@dataclass(frozen=True, kw_only=True)
class NSGA3(Algorithm):
    """A front of many objectives by nondominated sorting and reference directions.

    Deb and Jain, *An evolutionary many-objective optimization algorithm using reference-point-based nondominated
    sorting approach, part I*, IEEE Transactions on Evolutionary Computation 18(4), 2014: of the front that does not
    fit whole, those survive that are closest to directions which few survivors serve, after values are normalized by
    the ideal point and the intercepts of the plane through the extreme points. Parents are drawn evenly; everything
    else is as in :class:`NSGA2`, which is better for two objectives.

    Arguments:
        population: how many survive; by default a tenth of the budget, from 20 to 100.
        divisions: of each axis of the simplex of reference directions (Das and Dennis 1998); by default the most that
            give no more directions than survivors. Where these are fewer than objectives, all directions lie on
            the boundary, and a second, inner layer is added.
        crossover_rate: share of children that are crossed, in [0, 1].
        mutation_rate: share of crossed children that are also mutated; the others always are.

    Example:
        >>> from searchlib import NSGA3, search
        >>> from searchlib.spaces import Simplex
        >>> shares = lambda x: x
        >>> result = search(shares, NSGA3(), space=Simplex(4), direction=("maximize",) * 4, budget=200)
        >>> result.front.values.shape
        (200, 4)
    """

    population: int | None = None
    divisions: int | None = None
    crossover_rate: float = 0.9
    mutation_rate: float = 0.63

    def __post_init__(self) -> None:
        check_field(self, "population", whole_number, 2, 10**6, optional=True)
        check_field(self, "divisions", whole_number, 1, 1000, optional=True)
        check_field(self, "crossover_rate", real_number, "[0, 1]")
        check_field(self, "mutation_rate", real_number, "[0, 1]")

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run; works on every space, for any number of objectives."""
        size = self.population or default_population(problem)
        directions = reference_directions(problem.objectives, self.divisions or _most_divisions(problem, size))
        survival = _ReferenceDirections(directions, rng)
        return FrontRun(problem, rng, survival, size, self.crossover_rate, self.mutation_rate)


def reference_directions(objectives: int, divisions: int) -> NDArray[np.float64]:
    """Directions spread evenly over the simplex, shape ``(n, objectives)``, each summing to one (Das and Dennis 1998).

    With fewer divisions than objectives, followed by the same points drawn halfway to the center (Deb and Jain 2014,
    section V), which lie inside.

    Example:
        >>> reference_directions(2, 4)[:, 0].tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    whole_number("objectives", objectives, 1)
    whole_number("divisions", divisions, 1)
    # Stars and bars: where the bars stand among the stars.
    slots = divisions + objectives - 1
    bars = np.array(list(itertools.combinations(range(slots), objectives - 1)), np.intp)
    edges = np.concatenate([np.full((len(bars), 1), -1), bars, np.full((len(bars), 1), slots)], axis=1)
    outer = (np.diff(edges, axis=1) - 1) / divisions
    if divisions >= objectives or objectives < 3:
        return outer
    return np.concatenate([outer, outer / 2 + 1 / (2 * objectives)])


def _most_divisions(problem: Problem, size: int) -> int:
    m, divisions = problem.objectives, 1
    if m == 1:
        return 1
    while math.comb(divisions + m, m - 1) <= size:
        divisions += 1
    return divisions


@final
class _ReferenceDirections(Survival):
    """The state of the normalization, and the niches."""

    def __init__(self, directions: NDArray[np.float64], rng: np.random.Generator) -> None:
        self._directions, self._rng = directions, rng
        self._units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        m = directions.shape[1]
        self._ideal, self._worst = np.full(m, np.inf), np.full(m, -np.inf)
        self._extremes = np.empty((0, m))

    def survive(
        self, values: NDArray[np.float64], ranks: NDArray[np.int64], n: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float64] | None]:
        self._ideal = np.minimum(self._ideal, values.min(axis=0))
        self._worst = np.maximum(self._worst, values.max(axis=0))
        nadir = self._nadir(values, ranks)
        order = np.argsort(ranks, kind="stable")
        if len(values) <= n:
            return order, None
        split = ranks[order[n - 1]]
        taken, last = np.flatnonzero(ranks < split), np.flatnonzero(ranks == split)
        if len(taken) + len(last) > n:
            niche, distance = self._niches(values, nadir)
            last = self._fill(last, np.bincount(niche[taken], minlength=len(self._units)), niche, distance,
                              n - len(taken))  # fmt: skip
        return np.concatenate([taken, last]), None

    def _nadir(self, values: NDArray[np.float64], ranks: NDArray[np.int64]) -> NDArray[np.float64]:
        """The intercepts of the plane through the extreme points (algorithm 2); the worst seen where there is none."""
        m, front = values.shape[1], values[ranks == 0]
        candidates = np.concatenate([self._extremes, front])
        shifted = candidates - self._ideal
        shifted[shifted < 1e-3] = 0.0  # as the authors: nearly equal values are equal, or outliers become extreme
        axes = np.where(np.eye(m) > 0, 1.0, 1e6)
        self._extremes = candidates[(shifted[:, None] * axes).max(axis=2).argmin(axis=0)]
        worst_of_front, worst = front.max(axis=0), values.max(axis=0)
        nadir = worst_of_front
        try:
            plane = np.linalg.solve(self._extremes - self._ideal, np.ones(m))
            with np.errstate(divide="ignore"):
                intercepts = self._ideal + 1.0 / plane
            if (plane > 0).all() and (intercepts - self._ideal > 1e-6).all():
                nadir = np.minimum(intercepts, self._worst)
        except np.linalg.LinAlgError:
            pass
        narrow = nadir - self._ideal <= 1e-6
        return np.asarray(np.where(narrow, worst, nadir))

    def _niches(
        self, values: NDArray[np.float64], nadir: NDArray[np.float64]
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """The direction closest to every row (algorithm 3), and the squared distance to it."""
        span = nadir - self._ideal
        scaled = (values - self._ideal) / np.where(span > 0, span, 1.0)
        along = scaled @ self._units.T  # nowhere negative: the closest direction is the one it is longest on
        niche = along.argmax(axis=1)
        return niche, (scaled**2).sum(axis=1) - along[np.arange(len(values)), niche] ** 2

    def _fill(
        self, last: NDArray[np.intp], count: NDArray[np.intp], niche: NDArray[np.intp], distance: NDArray[np.float64],
        n: int,
    ) -> NDArray[np.intp]:  # fmt: skip
        """``n`` of the last front, one by one for the niche with the fewest survivors (algorithm 4)."""
        shuffled = self._rng.permutation(last)
        shuffled = shuffled[np.argsort(distance[shuffled], kind="stable")]
        waiting: dict[int, list[int]] = {}  # of every niche, the closest row first
        for row, own in zip(shuffled.tolist(), niche[shuffled].tolist(), strict=True):
            waiting.setdefault(own, []).append(row)
        served = {index: int(count[index]) for index in waiting}
        chosen: list[int] = []
        while len(chosen) < n:
            fewest = min(served.values())
            ties = [index for index, many in served.items() if many == fewest]
            for index in self._rng.permutation(ties)[: n - len(chosen)].tolist():
                rows = waiting[index]
                # A niche that nobody serves yet takes its closest row, any other one takes any row.
                place = 0 if not served[index] else int(self._rng.integers(len(rows)))
                chosen.append(rows.pop(place))
                served[index] += 1
                if not rows:
                    del served[index]
        return np.array(chosen, np.intp)
