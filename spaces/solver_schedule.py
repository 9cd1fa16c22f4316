"""One sampling schedule of a diffusion model: at which noise levels it steps, and with which solver each step.

The decisions of the unified sampling framework (USF, arXiv 2312.07243, section 3): every step is a Taylor expansion
of the noise or the data prediction in the half log-SNR λ = log(α/σ), whose derivatives are estimated from earlier
evaluations. Noise levels are σ/α = exp(-λ), so that one schedule serves variance-preserving, variance-exploding and
flow-matching models alike. :mod:`searchlib.objectives.solver_formulas` turns a schedule into numbers.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, final

import numpy as np

from searchlib.arguments import listed, shown
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.json_data import json_object, parsed_json

__all__ = ["CORRECTOR_RELAXATIONS", "PREDICTIONS", "RELAXATIONS", "SolverSchedule", "SolverStep"]

PREDICTIONS = ("data", "noise")
RELAXATIONS = ("none", "linear", "bh1", "bh2")
CORRECTOR_RELAXATIONS = ("none", "bh1", "bh2")
MAX_ORDER = 3


@final
@dataclass(frozen=True)
class SolverStep:
    """The decisions of one step.

    Fields that mean nothing beside the others are set to their defaults, so that equal steps compare equal: a step
    of order 1 has no derivatives to relax.

    Arguments:
        order: order of the Taylor expansion, 1 to 3; the i-th step (from 0) has i + 1 evaluations to use.
        prediction: what is expanded, "data" (DPM-Solver++) or "noise" (DPM-Solver).
        points: evaluations beside the start that estimate the first derivative, 1 to order - 1 (all of them where
            None); 1 at order 3 is the low-order estimate of USF.
        relaxation: factor on the first derivative: "none"; "linear", 1 + c·h with the step h in λ; "bh1" or "bh2",
            those of UniPC (arXiv 2302.04867). "bh2" at order 2 is DPM-Solver's "midpoint", "none" its "heun".
        coefficient: c of the linear relaxation, within ±1e3.
        second_scale: factor on the second derivative, within ±1e3: 1 is Taylor's, 0.5 DPM-Solver's third-order
            multistep update.
        corrector: after the evaluation at the step's end, which the next step needs anyway, the step is made again
            with that evaluation as one more point and one order higher (UniC, free of cost).
        corrector_relaxation: "none", "bh1" or "bh2" on the first derivative of the corrector. UniPC has it where
            the step's order is 1.
        start: evaluation to expand around, -1 the latest to -3; older ones make the single-step solvers.

    Raises:
        InvalidCandidate: not such decisions.

    Example:
        >>> SolverStep(order=1, relaxation="bh2") == SolverStep(order=1)
        True
        >>> SolverStep(order=2, relaxation="bh2").to_json()
        {'order': 2, 'prediction': 'data', 'relaxation': 'bh2'}
    """

    order: int = 1
    prediction: str = "data"
    _: KW_ONLY
    points: int | None = None
    relaxation: str = "none"
    coefficient: float = 0.0
    second_scale: float = 1.0
    corrector: bool = False
    corrector_relaxation: str = "none"
    start: int = -1

    def __post_init__(self) -> None:
        self._set("order", _whole("order", self.order, 1, MAX_ORDER))
        self._set("start", _whole("start", self.start, -MAX_ORDER, -1))
        _among("prediction", self.prediction, PREDICTIONS)
        _among("relaxation", self.relaxation, RELAXATIONS)
        _among("corrector_relaxation", self.corrector_relaxation, CORRECTOR_RELAXATIONS)
        _among("corrector", self.corrector, (False, True))
        for name in ("coefficient", "second_scale"):
            self._set(name, _bounded(name, getattr(self, name)))
        if self.order == 1:
            self._set("points", 0)
            self._set("relaxation", "none")
        else:
            most = self.order - 1
            self._set("points", most if self.points is None else _whole("points", self.points, 1, most))
        if self.relaxation != "linear":
            self._set("coefficient", 0.0)
        if self.order < MAX_ORDER:
            self._set("second_scale", 1.0)
        if not self.corrector:
            self._set("corrector_relaxation", "none")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def to_json(self) -> dict[str, Any]:
        """The order, the prediction, and every other field that differs from its default."""
        default = SolverStep(self.order)
        fields = [field.name for field in dataclasses.fields(self)]
        kept = [name for name in fields if name in ("order", "prediction") or self._differs(name, default)]
        return {name: getattr(self, name) for name in kept}

    def _differs(self, name: str, default: SolverStep) -> bool:
        return bool(getattr(self, name) != getattr(default, name))


@final
@dataclass(frozen=True)
class SolverSchedule:
    """Noise levels and the solver of each step between them.

    A step of order 1 without a corrector, from a sample that was not corrected, is DDIM for either prediction; it is
    written as "data". (At a corrected sample the two differ: both predictions belong to the sample before.)

    Arguments:
        sigmas: σ/α before the first step, between steps and at the end: one more than steps, finite, strictly
            descending; the last may be 0, which makes the last step return its data prediction.
        steps: one :class:`SolverStep` each. The i-th (from 0) has order and start within i + 1; the last one has
            no corrector, and order 1 where it ends at 0.
        analytic_first_step: the first evaluation is not made: there the data prediction is 0 and the noise
            prediction x/σ (the analytical first step of arXiv 2206.05564, with data of mean 0).

    Raises:
        InvalidCandidate: not such a schedule; the message says which step.

    Example:
        >>> schedule = SolverSchedule((80.0, 5.0, 0.5, 0.0), (SolverStep(), SolverStep(2), SolverStep()))
        >>> schedule.nfe, SolverSchedule.from_json(schedule.to_json()) == schedule
        (3, True)
    """

    sigmas: tuple[float, ...]
    steps: tuple[SolverStep, ...]
    analytic_first_step: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigmas", tuple(_number(sigma) for sigma in _several("sigmas", self.sigmas)))
        object.__setattr__(self, "steps", _several("steps", self.steps))
        _among("analytic_first_step", self.analytic_first_step, (False, True))
        self._check_sigmas()
        self._check_steps()
        object.__setattr__(self, "steps", tuple(map(self._plain, range(len(self.steps)))))
        # Schedules are keys of caches and prefix trees; the fields are hashed once.
        object.__setattr__(self, "_hash", hash((self.sigmas, self.steps, self.analytic_first_step)))

    def __hash__(self) -> int:
        return int(self._hash)  # type: ignore[attr-defined]

    def __reduce__(self) -> tuple[Any, ...]:
        # Hashes of strings differ between processes: the copy computes its own.
        return SolverSchedule, (self.sigmas, self.steps, self.analytic_first_step)

    def _check_sigmas(self) -> None:
        sigmas = self.sigmas
        if len(sigmas) != len(self.steps) + 1:
            raise InvalidCandidate(
                f"a schedule has one sigma more than steps, but got {len(sigmas)} sigmas and {len(self.steps)} steps"
            )
        if self.nfe < 1:
            raise InvalidCandidate(f"a schedule needs at least 1 evaluation of the network, but has {self.nfe}")
        descending = all(before > after for before, after in itertools.pairwise(sigmas))
        if not descending or not math.isfinite(sigmas[0]) or sigmas[-1] < 0:
            raise InvalidCandidate(
                f"sigmas must be finite, strictly descending and not negative, but got {sigmas}; a flow model's "
                f"first noise level of 1 is sigma = 1/0 and has to be cut, for instance at 1 - 1e-6"
            )

    def _check_steps(self) -> None:
        for index, step in enumerate(self.steps):
            if not isinstance(step, SolverStep):
                raise InvalidCandidate(f"steps[{index}] must be a SolverStep, but got {shown(step)}")
            if max(step.order, -step.start) > index + 1:
                raise InvalidCandidate(
                    f"steps[{index}] has {index + 1} evaluations to use, but got (order={step.order}, "
                    f"start={step.start})"
                )
        last = self.steps[-1]
        if last.corrector:
            raise InvalidCandidate("the last step has no corrector: no evaluation follows it")
        if self.sigmas[-1] == 0 and last.order != 1:
            raise InvalidCandidate(f"a step to sigma = 0 has order 1, but got (order={last.order})")

    def _plain(self, index: int) -> SolverStep:
        """The step with the prediction "data" where that means nothing."""
        step = self.steps[index]
        start = index + 1 + step.start
        corrected = start > 0 and self.steps[start - 1].corrector
        ddim = step.order == 1 and not step.corrector and not corrected
        return dataclasses.replace(step, prediction="data") if ddim else step

    @property
    def nfe(self) -> int:
        """Evaluations of the network: one per step, none for an analytical first step; correctors are free."""
        return len(self.steps) - self.analytic_first_step

    def to_json(self) -> dict[str, Any]:
        """The schedule as plain JSON values: ``sigmas``, ``analytic_first_step``, and ``steps`` as dicts."""
        return {
            "sigmas": list(self.sigmas),
            "analytic_first_step": self.analytic_first_step,
            "steps": [step.to_json() for step in self.steps],
        }

    @staticmethod
    def from_json(data: Mapping[str, Any] | str) -> SolverSchedule:
        """Rebuild a schedule from :meth:`to_json`, or from its text.

        Raises:
            InvalidCandidate: missing or unknown fields, or not a schedule.
        """
        try:
            fields = json_object("it", parsed_json("it", data) if isinstance(data, str) else dict(data))
            steps = tuple(SolverStep(**json_object("a step", step)) for step in fields["steps"])
            first = fields.get("analytic_first_step", False)
            return SolverSchedule(tuple(fields["sigmas"]), steps, first)
        except (TypeError, KeyError, ValueError) as reason:
            if isinstance(reason, InvalidCandidate):
                raise
            raise InvalidCandidate(
                f"a schedule is a dict of sigmas, steps and analytic_first_step as SolverSchedule.to_json() makes "
                f"it, but got {shown(data)} ({reason})"
            ) from reason


def _whole(name: str, value: Any, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidCandidate(f"{name} must be a whole number from {low} to {high}, but got ({name}={shown(value)})")
    return value


def _number(value: Any) -> float:
    try:
        if isinstance(value, str | bytes | bool | np.ndarray | np.complexfloating):
            raise TypeError(type(value))
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidCandidate(f"sigmas must be numbers, but one is {shown(value)}") from None


def _several(name: str, value: Any) -> tuple[Any, ...]:
    try:
        return listed(name, value)
    except InvalidSettings as refusal:
        raise InvalidCandidate(str(refusal)) from refusal


def _bounded(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e3:
        raise InvalidCandidate(f"{name} must be a number within ±1e3, but got ({name}={shown(value)})")
    return float(value) + 0.0


def _among(name: str, value: Any, options: tuple[Any, ...]) -> None:
    if type(value) is not type(options[0]) or value not in options:
        raise InvalidCandidate(f"{name} must be one of {options}, but got ({name}={shown(value)})")
