"""Every well-known solver as a point of the space of schedules: seeds of a search, and its baselines.

Reproduced exactly, checked against diffusers: DDIM (arXiv 2010.02502), DPM-Solver and DPM-Solver++, multistep and
single-step (arXiv 2206.00927, 2211.01095), UniPC (arXiv 2302.04867). Not reproduced: DPM-Solver-v3, which needs
statistics of the model; stochastic solvers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import final

import numpy as np

from searchlib.arguments import flag, instance, listed, whole_number
from searchlib.errors import InvalidSettings
from searchlib.objectives.noise_schedules import NoiseSchedule
from searchlib.spaces.solver_schedule import SolverSchedule, SolverStep

__all__ = ["GRIDS", "SOLVERS", "KnownSolver", "known_schedules", "noise_levels", "schedule_from_sigmas"]

FAMILIES = {"ddim": ("none",), "multistep": ("midpoint", "heun"), "singlestep": ("midpoint", "heun"),
            "unipc": ("bh1", "bh2")}  # fmt: skip
#: Diffusers lowers the last orders of multistep DPM-Solvers only below this number of steps.
FEW_STEPS = 15


@final
@dataclass(frozen=True)
class KnownSolver:
    """A solver of the literature with its settings, by the names diffusers gives them.

    Arguments:
        family: "ddim"; "multistep" or "singlestep" (DPM-Solver, DPM-Solver++); "unipc".
        order: 1 to 3; 1 for "ddim".
        prediction: "data" (DPM-Solver++; ``predict_x0=True`` of UniPC) or "noise".
        solver_type: "midpoint" or "heun" of DPM-Solver, "bh1" or "bh2" of UniPC; its first where None.
        lower_order_final: whether the last steps have lower orders.

    Raises:
        InvalidSettings: no such solver.
    """

    family: str
    order: int = 1
    _: KW_ONLY
    prediction: str = "data"
    solver_type: str | None = None
    lower_order_final: bool = True

    def __post_init__(self) -> None:
        types = FAMILIES.get(self.family)
        if types is None:
            raise InvalidSettings(f"family must be one of {tuple(FAMILIES)}, but got (family={self.family!r})")
        if self.solver_type is None:
            object.__setattr__(self, "solver_type", types[0])
        orders = (1,) if self.family == "ddim" else (1, 2, 3)
        if self.solver_type not in types or self.order not in orders or self.prediction not in ("data", "noise"):
            raise InvalidSettings(
                f"{self.family} has a solver_type of {types}, an order of {orders} and predicts data or noise, but "
                f"got (solver_type={self.solver_type!r}, order={self.order}, prediction={self.prediction!r})"
            )

    def orders(self, steps: int, ends_at_zero: bool) -> list[int]:
        """The order of every step.

        ``DPMSolverMultistepScheduler.step``, ``UniPCMultistepScheduler.step`` and
        ``DPMSolverSinglestepScheduler.get_order_list`` of diffusers.
        """
        if self.family == "singlestep":
            lower = self.lower_order_final or ends_at_zero or steps % self.order != 0
            orders = _singlestep_orders(steps, self.order, lower)
        else:
            orders = [min(self.order, index + 1) for index in range(steps)]
            if self.lower_order_final and self.family == "unipc":
                orders = [min(order, steps - index) for index, order in enumerate(orders)]
            elif self.lower_order_final and steps < FEW_STEPS:
                orders[-2:] = [min(order, limit) for order, limit in zip(orders[-2:], (2, 1)[-steps:], strict=True)]
        if ends_at_zero:
            orders[-1] = 1
        return orders

    def step(self, order: int, last: bool) -> SolverStep:
        """The decisions of a step of this order."""
        if self.family == "unipc":
            kind = str(self.solver_type)
            return SolverStep(
                order,
                self.prediction,
                relaxation=kind if order == 2 else "none",
                corrector=not last,
                corrector_relaxation=kind if order == 1 else "none",
            )
        midpoint = self.solver_type == "midpoint"
        if self.family == "singlestep":
            # Its third-order midpoint update has no second derivative: it expands to order 2.
            taylor = 2 if midpoint and order == 3 else order
            relaxation = "bh2" if midpoint and order == 2 else "none"
            return SolverStep(taylor, self.prediction, relaxation=relaxation, start=-order)
        relaxation = "bh2" if midpoint and order == 2 else "none"
        return SolverStep(order, self.prediction, relaxation=relaxation, second_scale=0.5 if order == 3 else 1.0)


def _singlestep_orders(steps: int, order: int, lower_order_final: bool) -> list[int]:
    whole, rest = divmod(steps, order)
    cycle = list(range(1, order + 1))
    if not lower_order_final or order == 1:
        return cycle * whole
    if rest:
        return cycle * whole + ([1, 2] if rest == 2 else [1])
    return cycle * (whole - 1) + ([1, 2, 1] if order == 3 else [1, 1])


def _solvers() -> dict[str, KnownSolver]:
    named = {"ddim": KnownSolver("ddim")}
    for prediction, order in itertools.product(("data", "noise"), (2, 3)):
        plus = "++" if prediction == "data" else ""
        for kind in ("midpoint", "heun"):
            for family, letter in (("multistep", "m"), ("singlestep", "s")):
                solver = KnownSolver(family, order, prediction=prediction, solver_type=kind)
                named[f"dpm{plus}{order}{letter}-{kind}"] = solver
    for prediction, order, kind in itertools.product(("data", "noise"), (1, 2, 3), ("bh1", "bh2")):
        named[f"unipc{order}-{kind}-{prediction}"] = KnownSolver(
            "unipc", order, prediction=prediction, solver_type=kind
        )
    return named


#: Solvers by name, such as "ddim", "dpm++2m-midpoint", "dpm3s-heun" (noise), "unipc3-bh2-data".
SOLVERS: dict[str, KnownSolver] = _solvers()


def schedule_from_sigmas(
    solver: str | KnownSolver, sigmas: Iterable[float], *, analytic_first_step: bool = False
) -> SolverSchedule:
    """A known solver on given noise levels σ/α, such as ``scheduler.sigmas`` of diffusers.

    Raises:
        InvalidSettings: no solver of that name.
        InvalidCandidate: the levels do not descend.

    Example:
        >>> schedule_from_sigmas("dpm++2m-midpoint", (80, 20, 5, 1, 0.0)).to_json()["steps"][1]
        {'order': 2, 'prediction': 'data', 'relaxation': 'bh2'}
    """
    if isinstance(solver, str):
        if solver not in SOLVERS:
            raise InvalidSettings(f"solver must be a KnownSolver or one of {', '.join(SOLVERS)}, but got {solver!r}")
        solver = SOLVERS[solver]
    instance("solver", solver, KnownSolver, f"a KnownSolver or one of {', '.join(SOLVERS)}")
    levels = tuple(float(sigma) for sigma in sigmas)
    count = len(levels) - 1
    orders = solver.orders(count, levels[-1] == 0) if count > 0 else []
    steps = tuple(solver.step(order, index == count - 1) for index, order in enumerate(orders))
    return SolverSchedule(levels, steps, analytic_first_step)


def _between(first: float, last: float, count: int, scale: Callable[[float], float]) -> list[float]:
    """``count`` points evenly spaced on a scale, as numbers on that scale."""
    return [float(point) for point in np.linspace(scale(first), scale(last), count)]


def _karras(noise: NoiseSchedule, count: int) -> list[float]:
    """Equation 5 of Karras et al. (arXiv 2206.00364), with their ρ = 7."""
    return [root**7 for root in _between(noise.sigma_max, noise.sigma_min, count, lambda sigma: sigma ** (1 / 7))]


def _logsnr(noise: NoiseSchedule, count: int) -> list[float]:
    """Uniform in λ, as DPM-Solver and diffusers' ``use_exponential_sigmas``."""
    return [math.exp(log) for log in _between(noise.sigma_max, noise.sigma_min, count, math.log)]


def _time(noise: NoiseSchedule, count: int) -> list[float]:
    """Uniform in the model's time."""
    return [noise.sigma(time) for time in _between(noise.sigma_max, noise.sigma_min, count, noise.time)]


def _quadratic_time(noise: NoiseSchedule, count: int) -> list[float]:
    """Uniform in the root of the model's time (DDIM, arXiv 2010.02502, appendix D.2)."""
    roots = _between(noise.sigma_max, noise.sigma_min, count, lambda sigma: math.sqrt(noise.time(sigma)))
    return [noise.sigma(root**2) for root in roots]


#: Noise levels by name, from the largest to the smallest.
GRIDS: dict[str, Callable[[NoiseSchedule, int], list[float]]] = {
    "time": _time,
    "quadratic": _quadratic_time,
    "logsnr": _logsnr,
    "karras": _karras,
}


#: Where a schedule may end.
_FINALS = ("sigma_min", "zero")


def noise_levels(
    grid: str, noise: NoiseSchedule | Sequence[float], steps: int, *, final: str = "sigma_min"
) -> tuple[float, ...]:
    """``steps + 1`` noise levels.

    Arguments:
        grid: a name of :data:`GRIDS`.
        noise: the model's noise schedule, or σ/α at its times 0, 1, 2 …
        steps: number of steps.
        final: the last level, "sigma_min" (the smallest of the model) or "zero" (after it, as Karras does).

    Raises:
        InvalidSettings: no such grid or end.
    """
    if not isinstance(grid, str) or grid not in GRIDS or not isinstance(final, str) or final not in _FINALS:
        raise InvalidSettings(
            f"grid must be one of {tuple(GRIDS)} and final 'sigma_min' or 'zero', but got ({grid=}, {final=})"
        )
    schedule = noise if isinstance(noise, NoiseSchedule) else NoiseSchedule.from_sigmas(noise)
    count = steps + (final == "sigma_min")
    levels = GRIDS[grid](schedule, count) if count > 1 else [schedule.sigma_max]
    levels[0] = schedule.sigma_max  # to the bit, so that all grids share the first evaluation
    if final == "zero":
        return (*levels, 0.0)
    return (*levels[:-1], schedule.sigma_min)


def known_schedules(
    nfe: int,
    noise: NoiseSchedule | Sequence[float],
    *,
    solvers: Iterable[str] = tuple(SOLVERS),
    grids: Iterable[str] = ("time", "logsnr", "karras"),
    finals: Iterable[str] = ("sigma_min", "zero"),
    analytic_first_step: bool = False,
) -> dict[str, SolverSchedule]:
    """Known solvers × grids × ends with ``nfe`` evaluations, by names like "unipc2-bh2-data/karras/zero".

    Where two names mean the same schedule (a solver of order 3 within 2 steps), only the first is kept.

    Arguments:
        nfe: evaluations of the network.
        noise: the model's noise schedule, or σ/α at its times 0, 1, 2 …
        solvers: names of :data:`SOLVERS`.
        grids: names of :data:`GRIDS`.
        finals: "sigma_min", "zero" or both.
        analytic_first_step: make the first step without the network, which buys one more step.

    Example:
        >>> import numpy as np
        >>> schedules = known_schedules(5, np.geomspace(0.01, 100, 1000), solvers=["ddim", "dpm++2m-midpoint"])
        >>> len(schedules), [round(sigma, 6) for sigma in schedules["ddim/logsnr/zero"].sigmas]
        (12, [100.0, 10.0, 1.0, 0.1, 0.01, 0.0])
    """
    steps = whole_number("nfe", nfe, 1, 1000) + flag("analytic_first_step", analytic_first_step)
    chosen = listed("solvers", solvers)
    named: dict[SolverSchedule, str] = {}
    for grid, end in itertools.product(listed("grids", grids), listed("finals", finals)):
        levels = noise_levels(grid, noise, steps, final=end)
        for solver in chosen:
            schedule = schedule_from_sigmas(solver, levels, analytic_first_step=analytic_first_step)
            named.setdefault(schedule, f"{solver}/{grid}/{end}")
    return {name: schedule for schedule, name in named.items()}
