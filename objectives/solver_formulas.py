"""From the decisions of a schedule to the numbers of every update, in float64.

Notation of USF (arXiv 2312.07243, section 3.1) and DPM-Solver (arXiv 2206.00927): λ = log(α/σ), h = λ_t - λ_s,
φ_1(h) = (e^h - 1)/h, φ_{k+1}(h) = (φ_k(h) - 1/k!)/h. A step of order p from s to t expands a prediction around s::

    noise:  x_t = (α_t/α_s) x_s - σ_t Σ_{i<p} h^{i+1} φ_{i+1}(h)  ε^{(i)}(λ_s)
    data:   x_t = (σ_t/σ_s) x_s + α_t Σ_{i<p} h^{i+1} φ_{i+1}(-h) x0^{(i)}(λ_s)

Divided by α_t, no formula depends on the kind of model any more: with y = x/α and r = σ/α = e^{-λ}, which is what
a schedule calls sigma, ``y_t = y_s - r_t Σ …`` and ``y_t = (r_t/r_s) y_s + Σ …``. Derivatives are differences of
evaluations, so every update is one linear combination; :func:`compile_schedule` lists them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import final

from searchlib.errors import InvalidSettings
from searchlib.spaces.solver_schedule import SolverSchedule, SolverStep

__all__ = ["CompiledStep", "LinearUpdate", "compile_schedule", "phi", "relaxation_factor", "taylor_weights"]

# Within |h| < 1 the recursion for φ loses digits; 18 terms of its series are exact there.
SERIES_TERMS = 18


@final
@dataclass(frozen=True)
class LinearUpdate:
    """``y = scale · y[start] + Σ weights[j] · f[points[j]]`` in y = x/α, f being a prediction.

    Indices count the evaluations of the schedule from 0; ``y[start]`` is the sample that evaluation belongs to,
    after its corrector where it has one.
    """

    start: int
    scale: float
    prediction: str
    points: tuple[int, ...]
    weights: tuple[float, ...]


@final
@dataclass(frozen=True)
class CompiledStep:
    """What happens once the network was evaluated at the beginning of a step.

    First the sample is corrected where the step before has a corrector: the correction is added to the sample as it
    was handed in (``scale`` 1), which equals making the previous step again as long as nobody else has changed the
    sample, and keeps an inpainting's change where somebody has. Then the next sample is predicted.

    Arguments:
        sigma: r at the beginning of the step.
        next_sigma: r at its end.
        corrector: of the step before, or None.
        predictor: of this step.
    """

    sigma: float
    next_sigma: float
    corrector: LinearUpdate | None
    predictor: LinearUpdate


@lru_cache(maxsize=4096)
def compile_schedule(schedule: SolverSchedule, first: int = 0) -> tuple[CompiledStep, ...]:
    """The updates of every step from number ``first`` on.

    Where sampling starts in the middle (image to image), the history starts there too: orders, points and starts
    are clipped to the evaluations since ``first``.

    Raises:
        InvalidSettings: ``first`` is not the number of a step.

    Example:
        >>> ddim = SolverSchedule((4.0, 1.0, 0.0), (SolverStep(), SolverStep()))
        >>> [(step.predictor.scale, step.predictor.weights) for step in compile_schedule(ddim)]
        [(0.25, (0.75,)), (0.0, (1.0,))]
    """
    if not 0 <= first < len(schedule.steps):
        raise InvalidSettings(f"first must be a step from 0 to {len(schedule.steps) - 1}, but got (first={first})")
    compiled = []
    corrector = None
    for index in range(first, len(schedule.steps)):
        step = _clipped(schedule.steps[index], index - first + 1)
        predictor = _predictor(schedule.sigmas, step, index)
        sigma, next_sigma = schedule.sigmas[index : index + 2]
        compiled.append(CompiledStep(sigma, next_sigma, corrector, predictor))
        corrector = _corrector(schedule.sigmas, step, index, predictor) if step.corrector else None
    return tuple(compiled)


def _clipped(step: SolverStep, known: int) -> SolverStep:
    """The step with no more than ``known`` evaluations behind it."""
    if max(step.order, -step.start) <= known:
        return step
    order = min(step.order, known)
    points = min(step.points or 0, order - 1) or None
    return replace(step, order=order, points=points, start=max(step.start, -known))


def _predictor(sigmas: tuple[float, ...], step: SolverStep, index: int) -> LinearUpdate:
    """The prediction of the sample at the end of step ``index``."""
    start = index + 1 + step.start
    points = _latest(index, start, step.order - 1)
    scales = (_first_scale(step, sigmas, index, start), step.second_scale)
    estimates = (step.points or 0, step.order - 1)
    return _expand(sigmas, start, index + 1, step.prediction, points, estimates, scales)


def _corrector(sigmas: tuple[float, ...], step: SolverStep, index: int, predictor: LinearUpdate) -> LinearUpdate:
    """What the evaluation at the end of step ``index`` adds: the step made again, less the step as it was made.

    One order and one point more: the new evaluation (USF, appendix; UniC, arXiv 2302.04867, section 3.2).
    """
    start, end = predictor.start, index + 1
    points = _latest(end, start, step.order)
    h = _signed(step.prediction, math.log(sigmas[start] / sigmas[end]))
    scales = (relaxation_factor(step.corrector_relaxation, h), 1.0, 1.0)
    estimates = ((step.points or 0) + 1, step.order, step.order)
    again = _expand(sigmas, start, end, step.prediction, points, estimates, scales)
    before = dict(zip(predictor.points, predictor.weights, strict=True))
    weights = tuple(weight - before.get(point, 0.0) for point, weight in zip(again.points, again.weights, strict=True))
    return LinearUpdate(end, 1.0, step.prediction, again.points, weights)


def _latest(newest: int, start: int, count: int) -> tuple[int, ...]:
    """The ``count`` latest evaluations up to ``newest`` other than the start."""
    return tuple([point for point in range(newest, -1, -1) if point != start][:count])


def _signed(prediction: str, h: float) -> float:
    """The argument of φ: h for the noise, -h for the data prediction."""
    return h if prediction == "noise" else -h


def _first_scale(step: SolverStep, sigmas: tuple[float, ...], index: int, start: int) -> float:
    """The relaxation of the first derivative."""
    if step.order == 1:
        return 1.0
    h = math.log(sigmas[start] / sigmas[index + 1])
    if step.relaxation == "linear":
        return 1.0 + step.coefficient * h
    return relaxation_factor(step.relaxation, _signed(step.prediction, h))


def _expand(
    sigmas: tuple[float, ...],
    start: int,
    end: int,
    prediction: str,
    points: tuple[int, ...],
    estimates: tuple[int, ...],
    scales: tuple[float, ...],
) -> LinearUpdate:
    """The Taylor step from ``start`` to ``end``.

    ``points`` estimate the derivatives, one order each: the i-th (from 1) from the first ``estimates[i-1]`` of
    them, times ``scales[i-1]``.
    """
    r_s, r_t = sigmas[start], sigmas[end]
    # h φ_1(h) = e^h - 1 = r_s/r_t - 1, which has a limit at r_t = 0: where a schedule ends there, the order is 1.
    ddim = r_t - r_s if prediction == "noise" else 1 - r_t / r_s
    scale = 1.0 if prediction == "noise" else r_t / r_s
    if not points:
        return LinearUpdate(start, scale, prediction, (start,), (ddim,))
    h = math.log(r_s / r_t)
    argument = _signed(prediction, h)
    factor = -r_t if prediction == "noise" else 1.0
    distances = [math.log(r_s / sigmas[point]) for point in points]
    weights = dict.fromkeys((start, *points), 0.0)
    weights[start] = ddim
    for i in range(1, len(points) + 1):
        term = factor * h ** (i + 1) * phi(i + 1, argument) * scales[i - 1]
        for point, weight in zip(points, taylor_weights(tuple(distances[: estimates[i - 1]]), i), strict=False):
            weights[point] += term * weight
            weights[start] -= term * weight
    return LinearUpdate(start, scale, prediction, tuple(weights), tuple(weights.values()))


def phi(k: int, h: float) -> float:
    """φ_k(h) = Σ_n h^n / (n + k)!, for k from 1.

    Example:
        >>> phi(1, 0.0), phi(2, 0.0), round(phi(1, 1.0) - (math.e - 1), 12)
        (1.0, 0.5, 0.0)
    """
    if abs(h) < 1:
        total = term = 1 / math.factorial(k)
        for n in range(1, SERIES_TERMS):
            term *= h / (n + k)
            total += term
        return total
    value = math.expm1(h) / h
    for j in range(1, k):
        value = (value - 1 / math.factorial(j)) / h
    return value


def relaxation_factor(kind: str, h: float) -> float:
    """UniPC's B(h) as a factor on the first derivative; ``h`` has the sign that φ sees.

    "bh1", B(h) = h: ½h²/(e^h - 1 - h) = ½/φ_2(h). "bh2", B(h) = e^h - 1: ½h(e^h - 1)/(e^h - 1 - h) = ½φ_1(h)/φ_2(h).
    """
    if kind == "bh1":
        return 0.5 / phi(2, h)
    return 0.5 * phi(1, h) / phi(2, h) if kind == "bh2" else 1.0


def taylor_weights(distances: tuple[float, ...], derivative: int) -> tuple[float, ...]:
    """Weights of f(s + d_m) - f(s) in the estimate of a derivative of f at s ("Taylor difference").

    They solve Σ_m a_m d_m^r / r! = [r = derivative] for r = 1 … k, with k distances; equivalently, the derivative of
    the polynomial through all points.

    Example:
        >>> taylor_weights((-1.0, 1.0), 1), taylor_weights((-1.0, 1.0), 2)
        ((-0.5, 0.5), (1.0, 1.0))
    """
    weights = []
    for m, own in enumerate(distances):
        # Coefficients, ascending, of d Π_{n≠m} (d - d_n), which is 0 at s and at all other points.
        coefficients = [0.0, 1.0]
        value = own
        for n, other in enumerate(distances):
            if n != m:
                value *= own - other
                shifted = [0.0, *coefficients]
                coefficients = [high - other * low for high, low in zip(shifted, [*coefficients, 0.0], strict=True)]
        weights.append(math.factorial(derivative) * coefficients[derivative] / value)
    return tuple(weights)
