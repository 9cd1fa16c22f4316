"""Which solver, and which noise level, at every step of a diffusion sampler: the search space of USF and S³.

The unified sampling framework (arXiv 2312.07243, section 3) and the evolution of its released code
(thu-nics/USF, ``search_utils.py``). Not here: orders above 3, the DPM-Solver-v3 prediction, which needs statistics of
the model, and multipliers of U-Net skip connections.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import listed, one_of
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import Population, Space
from searchlib.spaces import chance
from searchlib.spaces.arguments import flag, fraction, positive, whole
from searchlib.spaces.codec import stack
from searchlib.spaces.solver_genes import Gene, clean, draw, genes_of, schedule_of, step_distance, step_features
from searchlib.spaces.solver_latent import SlotLatent
from searchlib.spaces.solver_schedule import MAX_ORDER, SolverSchedule
from searchlib.spaces.solver_times import NoiseLevels
from searchlib.spaces.solver_variation import (
    change_of_count,
    change_one_decision,
    mix_decisions,
    mix_times,
    move_one_time,
    resize,
    vary_decisions,
    vary_times,
)

__all__ = ["SolverSchedules"]

FINALS = ("sigma_min", "zero", "either")
PARTS = ("times", "decisions")
#: Least distance of two noise levels in λ, where there is room for it.
LEAST_GAP = 0.01
#: A last level below this fraction of the lowest allowed one is read as 0.
ZERO_BELOW = 0.5


@final
@dataclass(frozen=True)
class SolverSchedules(Space):
    """Schedules of at most ``nfe`` evaluations of the network; a value is a :class:`SolverSchedule`.

    Every row is canonical: the number of steps, whether the first is analytic, then ten genes per step
    (:class:`~searchlib.spaces.solver_genes.Gene`), 0 where a gene means nothing. Variation is that of the released
    search with its rates, in λ instead of time (:mod:`searchlib.spaces.solver_variation`). The relaxation is
    continuous in noise levels and real genes, with thresholds and arg-maxes for the rest.

    Arguments:
        nfe: evaluations of the network at most; steps, where the first is not analytic. Correctors are free.
        sigma_max: σ/α to start from, the same for all.
        sigma_min: range of the last σ/α that is not 0 (released: [0.002, 0.003] for EDM), or one number.
        min_nfe: evaluations at least; 2 fewer than ``nfe`` where None.
        final: end at "sigma_min", at "zero", or "either".
        analytic_first_step: whether schedules may begin with an analytical first step, which is free.
        max_order: largest order, 2 or 3.
        correctors: whether steps may have correctors.
        vary: ("times", "decisions"), or one of them; the other, and the number of steps, are then those of ``base``.
        base: a schedule, or its JSON text, with ``nfe`` evaluations from ``sigma_max``; None where both vary.
        rate: probability of every decision and time to change in a mutation (released: 0.3).
        count_rate: probability of a mutation to add, and to remove, a step (released: 0.2).
        time_scale: standard deviation of a changed λ (released: 0.08 for EDM; 0.03 to 0.08 of the time axis
            elsewhere, which is about 0.3 in λ).
        coefficient_scale: standard deviation of a changed coefficient (released: 0.03 or 0.06).
        deep_rate: probability of a crossover to mix decisions step by step (released: 0.5).

    Raises:
        InvalidSettings: not such numbers, or nothing left that varies.

    Example:
        >>> from searchlib.spaces.solver_schedule import SolverStep
        >>> space = SolverSchedules(5, 80.0, (0.002, 0.003), final="either")
        >>> row = space.encode([SolverSchedule((80.0, 5.0, 0.5, 0.0), (SolverStep(), SolverStep(2), SolverStep()))])
        >>> space.decode(row[0]).nfe, row.shape, space.features(row).shape
        (3, (1, 62), (1, 125))
    """

    nfe: int
    sigma_max: float
    sigma_min: tuple[float, float] | float
    _: KW_ONLY
    min_nfe: int | None = None
    final: str = "either"
    analytic_first_step: bool = True
    max_order: int = 3
    correctors: bool = True
    vary: tuple[str, ...] = PARTS
    base: SolverSchedule | str | None = None
    rate: float = 0.3
    count_rate: float = 0.2
    time_scale: float = 0.2
    coefficient_scale: float = 0.03
    deep_rate: float = 0.5

    def __post_init__(self) -> None:
        self._set("nfe", whole("nfe", self.nfe, high=1000))
        least = max(1, self.nfe - 2) if self.min_nfe is None else whole("min_nfe", self.min_nfe, high=self.nfe)
        self._set("min_nfe", least)
        self._set("sigma_max", positive("sigma_max", self.sigma_max))
        ends = self.sigma_min if isinstance(self.sigma_min, tuple | list) else (self.sigma_min, self.sigma_min)
        self._set("sigma_min", tuple(positive("sigma_min", sigma) for sigma in ends))
        self._set("max_order", whole("max_order", self.max_order, low=2, high=MAX_ORDER))
        for name in ("analytic_first_step", "correctors"):
            flag(name, getattr(self, name))
        for name in ("rate", "count_rate", "deep_rate"):
            self._set(name, fraction(name, getattr(self, name), zero=name != "rate"))
        for name in ("time_scale", "coefficient_scale"):
            self._set(name, positive(name, getattr(self, name)))
        if len(ends) != 2 or not self._ends[0] <= self._ends[1] < self.sigma_max:
            raise InvalidSettings(
                f"sigma_min must be a range (low, high) below sigma_max, but got (sigma_min={self.sigma_min}, "
                f"sigma_max={self.sigma_max})"
            )
        one_of("final", self.final, FINALS)
        chosen = [one_of("each of vary", part, PARTS) for part in listed("vary", self.vary)]
        self._set("vary", tuple(part for part in PARTS if part in chosen))
        self._set("base", _text(self.base))
        self._check_vary()

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_vary(self) -> None:
        both = self.vary == PARTS
        if not self.vary or both != (self.base is None):
            raise InvalidSettings(
                f"vary must be of {PARTS}, with a base schedule exactly where one of them is left out, but got "
                f"(vary={self.vary}, base={self.base})"
            )
        base = self._base_schedule
        if base is not None and (base.nfe != self.nfe or base.sigmas[0] != self.sigma_max):
            raise InvalidSettings(
                f"base must have {self.nfe} evaluations from sigma_max = {self.sigma_max}, but has {base.nfe} from "
                f"{base.sigmas[0]}"
            )
        steps = len(base.steps) if base else self.nfe
        zero = base.sigmas[-1] == 0 if base else self.final != "sigma_min"
        if steps < 2 + (zero and self.vary == ("decisions",)):
            raise InvalidSettings(f"hardly anything varies with {steps} steps; raise (nfe={self.nfe})")

        if base is not None and self._fixed is None:
            raise InvalidSettings(f"base must be a schedule that the other settings allow, but got {self.base}")

    @cached_property
    def _levels(self) -> NoiseLevels:
        low, high = self._ends
        gap = min(LEAST_GAP, math.log(self.sigma_max / high) / (4 * self.max_steps))
        return NoiseLevels(self.sigma_max, low, high, gap)

    @property
    def _ends(self) -> tuple[float, float]:
        """The range of the last level that is not 0, as the constructor leaves it."""
        return self.sigma_min if isinstance(self.sigma_min, tuple) else (self.sigma_min, self.sigma_min)

    @cached_property
    def _base_schedule(self) -> SolverSchedule | None:
        return SolverSchedule.from_json(self.base) if isinstance(self.base, str) else None

    @cached_property
    def _fixed(self) -> tuple[int, bool, NDArray[np.float64]] | None:
        """Number of steps, start and genes of the base; None without one, or where it is not allowed."""
        base = self._base_schedule
        if base is None or len(base.steps) > self.max_steps:
            return None
        slots, count = genes_of(base, self.max_steps), np.array([len(base.steps)])
        allowed = np.array_equal(self._clean(slots[None], count)[0], slots)
        if "times" in self.vary:
            allowed &= bool(self._levels.contains(slots[None, :, Gene.SIGMA], count)[0])
        return (len(base.steps), base.analytic_first_step, slots) if allowed else None

    @property
    def _least(self) -> int:
        return self.min_nfe or 1

    @property
    def max_steps(self) -> int:
        """Steps that a row has room for."""
        return self.nfe + self.analytic_first_step

    @property
    def dimension(self) -> int:
        return 2 + self.max_steps * len(Gene)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float64)

    @property
    def size(self) -> float:
        return math.inf

    def _split(self, population: Population) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        """Number of steps, analytic first step (0 or 1) and genes per step, as copies."""
        count, analytic = population[:, 0].astype(np.intp), population[:, 1].astype(np.intp)
        return count, analytic, population[:, 2:].reshape(-1, self.max_steps, len(Gene)).copy()

    def _join(self, count: NDArray[Any], analytic: NDArray[Any], slots: NDArray[np.float64]) -> Population:
        """Rows with legal decisions, the base where that does not vary, from legal noise levels."""
        count, analytic, slots = self._impose(count, analytic, slots)
        slots = self._clean(slots, count)
        columns = (count[:, None], analytic[:, None], slots.reshape(-1, self.dimension - 2))
        return np.concatenate(columns, axis=1, dtype=np.float64)

    def _clean(self, slots: NDArray[np.float64], count: NDArray[Any]) -> NDArray[np.float64]:
        return clean(slots, count, max_order=self.max_order, correctors=self.correctors)

    def _impose(
        self, count: NDArray[Any], analytic: NDArray[Any], slots: NDArray[np.float64]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
        if self._fixed is None:
            return count, analytic, slots
        steps, first, genes = self._fixed
        slots, columns = slots.copy(), slice(1, None) if "times" in self.vary else slice(0, 1)
        slots[:, :, columns] = genes[:, columns]
        return np.full(len(slots), steps), np.full(len(slots), int(first)), slots

    def _may_end_at(self, zero: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``zero`` where a row may choose how it ends."""
        if self._fixed is not None:
            steps, _, genes = self._fixed
            return np.full(len(zero), genes[steps - 1, Gene.SIGMA] == 0)
        return zero if self.final == "either" else np.full(len(zero), self.final == "zero")

    def sample(self, rng: np.random.Generator, n: int) -> Population:
        """Random times and decisions; the number of evaluations is uniform, analytic starts and ends at 0 are even."""
        analytic: NDArray[Any] = rng.integers(0, 1 + self.analytic_first_step, n)
        count: NDArray[Any] = rng.integers(self._least, self.nfe + 1, n) + analytic
        slots = draw(rng, (n, self.max_steps))
        zero = self._may_end_at(chance.coins(rng, (n,)))
        count, analytic, slots = self._impose(count, analytic, slots)
        slots[..., Gene.SIGMA] = self._levels.draw(rng, count, zero, self.max_steps)
        return self._join(count, analytic, slots)

    def mutate(self, rng: np.random.Generator, population: Population) -> Population:
        """Add and remove steps, then change times and decisions of each, with the rates of the released search."""
        count, analytic, slots = self._split(population)
        if self._fixed is None:
            flips = (rng.random(len(count)) < self.rate / 2) & self.analytic_first_step
            first = np.where(flips, 1 - analytic, analytic)
            change = change_of_count(rng, len(count), self.count_rate)
            wanted = np.clip(count - analytic + change, self._least, self.nfe) + first
            count, slots = resize(rng, self._levels, slots, count, wanted)
            analytic = first
        if "times" in self.vary:
            ends_at_zero = slots[np.arange(len(slots)), count - 1, Gene.SIGMA] == 0
            zero = self._may_end_at(ends_at_zero ^ (rng.random(len(slots)) < self.rate / 2))
            slots = vary_times(rng, self._levels, slots, count, zero, self.rate, self.time_scale)
        if "decisions" in self.vary:
            slots = vary_decisions(rng, slots, self.rate, self.coefficient_scale)
        children = self._join(count, analytic, slots)
        same = np.flatnonzero((children == population).all(axis=1))
        children[same] = self._surely(rng, population[same])
        return children

    def _surely(self, rng: np.random.Generator, population: Population) -> Population:
        """A change of one time or decision that cannot come to nothing."""
        count, analytic, slots = self._split(population)
        if "times" in self.vary:
            count, slots = move_one_time(rng, self._levels, slots, count)
        else:
            slots = change_one_decision(rng, slots, count)
        return self._join(count, analytic, slots)

    def crossover(self, rng: np.random.Generator, first: Population, second: Population) -> Population:
        """Times of one parent, decisions of both by kind or by step; times alone are mixed by step."""
        flip = chance.coins(rng, (len(first), 1))
        count, analytic, slots = self._split(np.where(flip, second, first))
        mate_count, _, mate = self._split(np.where(flip, first, second))
        if "decisions" in self.vary:
            slots = mix_decisions(rng, slots, mate, np.minimum(count, mate_count), self.deep_rate)
        else:
            slots[..., Gene.SIGMA] = mix_times(rng, self._levels, slots[..., Gene.SIGMA], mate[..., Gene.SIGMA], count)
        return self._join(count, analytic, slots)

    def repair(self, population: Population) -> Population:
        """Numbers rounded and clipped, noise levels sorted and spread; the last is 0 where it is below half of low."""
        inside = self.contains(population)[:, None]
        rows = np.asarray(population, np.float64)
        analytic: NDArray[Any] = np.rint(np.clip(rows[:, 1], 0, self.analytic_first_step)).astype(np.intp)
        count: NDArray[Any] = np.rint(np.clip(rows[:, 0], self._least + analytic, self.nfe + analytic)).astype(int)
        slots: NDArray[np.float64] = rows[:, 2:].reshape(-1, self.max_steps, len(Gene)).copy()
        count, analytic, slots = self._impose(count, analytic, slots)
        if "times" in self.vary:
            active = np.arange(self.max_steps) < count[:, None]
            lowest = np.where(active, slots[..., Gene.SIGMA], np.inf).min(axis=1)
            zero = self._may_end_at(lowest < ZERO_BELOW * self._ends[0])
            slots[..., Gene.SIGMA] = self._levels.nearest(slots[..., Gene.SIGMA], count, zero)
        return np.where(inside, rows, self._join(count, analytic, slots))

    def canonical(self, population: Population) -> Population:
        return np.asarray(population, np.float64) + 0.0  # every row of the space is; -0.0 and 0.0 are one candidate

    def contains(self, population: Population) -> NDArray[np.bool_]:
        rows = np.asarray(population, np.float64)
        finite = np.isfinite(rows).all(axis=1)
        analytic = (rows[:, 1] == 0) | (rows[:, 1] == self.analytic_first_step)
        nfe = np.where(finite & analytic, rows[:, 0], 0.0) - np.where(analytic, rows[:, 1], 0.0)
        inside = finite & analytic & (nfe == np.rint(nfe)) & (nfe >= self._least) & (nfe <= self.nfe)
        if self._fixed is not None:
            inside &= (rows[:, 0] == self._fixed[0]) & (rows[:, 1] == self._fixed[1])
        count, analytic, slots = self._split(rows[inside])
        imposed = self._impose(count, analytic, slots)[2]
        legal = ((self._clean(slots, count) == slots) & (imposed == slots)).all(axis=(1, 2))
        zero = slots[np.arange(len(slots)), count - 1, Gene.SIGMA] == 0
        if "times" in self.vary:
            legal &= self._levels.contains(slots[..., Gene.SIGMA], count)
        inside[np.flatnonzero(inside)] = legal & (self._may_end_at(zero) == zero)
        return np.asarray(inside)

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, self._genes)

    def _genes(self, value: Any) -> NDArray[np.float64]:
        if not isinstance(value, SolverSchedule) or len(value.steps) > self.max_steps:
            raise TypeError(f"a value is a SolverSchedule of at most {self.max_steps} steps")
        if value.sigmas[0] != self.sigma_max:
            raise ValueError(f"a value starts at {self.sigma_max}")
        slots = genes_of(value, self.max_steps)
        return np.concatenate([[len(value.steps), value.analytic_first_step], slots.ravel()])

    def decode(self, row: NDArray[Any]) -> SolverSchedule:
        count, analytic, slots = self._split(row[None])
        return schedule_of(self.sigma_max, slots[0, : count[0]], bool(analytic[0]))

    @property
    def features_per_step(self) -> int:
        """Columns of :func:`~searchlib.spaces.solver_genes.step_features`, which describe one step."""
        return 20

    @property
    def global_features(self) -> int:
        """Columns after those of the steps."""
        return 5

    def features(self, population: Population) -> NDArray[np.float64]:
        """Steps, then globals; ``[:, :-5].reshape(n, max_steps, 20)`` is what a sequence model reads.

        The globals: steps and evaluations as fractions of their maxima, whether the first step is analytic, whether
        the end is 0, and where the last step ends.
        """
        count, analytic, slots = self._split(population)
        position = self._position(slots)
        steps = step_features(slots, position).reshape(len(slots), self.max_steps * self.features_per_step)
        rows, last = np.arange(len(slots)), count - 1
        whole_row = (count / self.max_steps, (count - analytic) / self.nfe, analytic,
                     slots[rows, last, Gene.SIGMA] == 0, position[rows, last])  # fmt: skip
        return np.column_stack([steps, *whole_row]).astype(np.float64)

    def _position(self, slots: NDArray[np.float64]) -> NDArray[np.float64]:
        """Where every step ends, as a fraction of the way in λ; a level of 0 lies one even step beyond it."""
        return self._levels.position(slots[..., Gene.SIGMA], 1 + 1 / self.max_steps)

    def distance(self, first: Population, second: Population) -> NDArray[np.float64]:
        """Ways in λ between the noise levels, a quarter for each decision that differs, and the real genes' gaps."""
        (_, analytic, slots), (_, others, mates) = self._split(first), self._split(second)
        steps = step_distance(slots, mates, np.abs(self._position(slots) - self._position(mates)))
        return np.asarray(steps + (analytic != others) / 4)

    @property
    def _relaxation(self) -> SlotLatent:
        return SlotLatent(self._levels, self.max_steps, self._least, self.nfe, self.max_order)

    @property
    def latent_dimension(self) -> int:
        return self._relaxation.dimension

    def from_latent(self, latent: NDArray[np.float64]) -> Population:
        count, analytic, slots, ends = self._relaxation.read(latent, self.analytic_first_step)
        zero = self._may_end_at(ends == 0)
        count, analytic, slots = self._impose(count, analytic, slots)
        if "times" in self.vary:
            slots[..., Gene.SIGMA] = self._relaxation.levels_of(latent, count, zero)
        return self._join(count, analytic, slots)

    def to_latent(self, population: Population) -> NDArray[np.float64]:
        return self._relaxation.write(*self._split(population))


def _text(base: Any) -> str | None:
    """A schedule, or its JSON text, as the one text that :class:`SolverSchedules` keeps."""
    if base is None:
        return None
    try:
        schedule = base if isinstance(base, SolverSchedule) else SolverSchedule.from_json(base)
    except InvalidCandidate as reason:
        raise InvalidSettings(f"base must be a SolverSchedule or its JSON text: {reason}") from reason
    return json.dumps(schedule.to_json())
