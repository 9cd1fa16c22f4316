"""Search on the score table itself: model every observation, not only the value that they reduce to."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.algorithms.algorithm import Algorithm, Batch, Evidence, Problem, Run, Status, in_order
from searchlib.algorithms.archive import Archive
from searchlib.arguments import check_field, real_number, whole_number
from searchlib.errors import MissingOperator
from searchlib.space import Population, distinct

__all__ = ["GaussNewton"]

Slope = Callable[[NDArray[Any]], tuple[float, NDArray[Any]]]

#: Trust in a step: above the first the radius grows, below the second it shrinks and the step counts as failed.
_GOOD, _POOR = 0.6, 0.25
_GROW, _SHRINK = 1.6, 0.5
#: Failed steps until directions are probed again.
_PATIENCE = 2
#: What a difference of observations over a distance d says about the slope, as variances: rounding, and curvature.
_ROUNDING, _CURVATURE = 1e-3, 5e-3
#: How much the slope forgets per squared step of the center, and before directions are probed again.
_DRIFT, _FORGET, _UNKNOWN = 0.02, 0.3, 1.3
_TRIES = 10
_ITERATIONS = 25


@final
@dataclass(frozen=True, kw_only=True)
class GaussNewton(Algorithm):
    """A trust region in which all observations of all cases are linear, and their value is what it is.

    A Fréchet distance over 1000 images is one number, but an evaluation brings home 1000 × k: how the features of every
    image move with every coordinate of the relaxation is learned by recursive least squares from all evaluations, and
    the distance of the features so predicted is minimized within a radius. A derivative-free Gauss-Newton method
    (Cartis and Roberts, Mathematical Programming Computation 11, 2019, there for sums of squares) whose unknown slope
    is probed where it is most uncertain. It needs an objective that can say how its value changes with its observations
    (:attr:`searchlib.Objective.differentiable`), and real coordinates; about as many evaluations as there are
    coordinates; and values that do not change when a candidate is evaluated again. Elsewhere use :class:`CMAES`.

    The seeds are evaluated first. Its state cannot be exported: a study resumes by replay.

    Arguments:
        radius: of the first trust region, in units of the relaxation.
        probe: length of a probing step, in the same units.
        probes: directions probed before steps are taken, and whenever they fail; half of the coordinates where None.
        archive: how many of the best candidates to remember.
    """

    radius: float = 3.0
    probe: float = 0.3
    probes: int | None = None
    archive: int = 64

    def __post_init__(self) -> None:
        check_field(self, "radius", real_number, "(0, inf)")
        check_field(self, "probe", real_number, "(0, inf)")
        check_field(self, "probes", whole_number, 1, optional=True)
        check_field(self, "archive", whole_number, 1)

    def start(self, problem: Problem, rng: np.random.Generator) -> Run:
        """Begin a run.

        Raises:
            MissingOperator: the objective does not say how its value changes with its observations.
        """
        problem.require_one_objective(self)
        if problem.slope is None:
            raise MissingOperator(
                "GaussNewton needs an objective whose value has a slope in its observations "
                "(Objective.differentiable), such as a Fréchet distance with one image per case; use CMAES() instead"
            )
        return _GaussNewtonRun(self, problem, problem.slope, rng)


@final
class _GaussNewtonRun(Run):
    def __init__(self, settings: GaussNewton, problem: Problem, slope: Slope, rng: np.random.Generator) -> None:
        self._settings, self._space, self._slope, self._rng = settings, problem.space, slope, rng
        self._archive = Archive(problem.space, settings.archive)
        self._queue = problem.space.to_latent(distinct(problem.space.canonical(problem.first_rows)))
        self._width = problem.space.latent_dimension
        if not len(self._queue):
            self._queue = problem.space.to_latent(problem.space.canonical(problem.space.sample(rng, 1)))
        self._pending: dict[int, NDArray[np.float64]] = {}
        self._waiting: list[Evidence] = []
        self._seen: list[tuple[float, NDArray[np.float64], NDArray[np.float32]]] = []
        self._model: _LinearTable | None = None
        self._radius, self._failures = settings.radius, 0
        self._step_id, self._predicted = -1, math.nan  # the step that is waiting for its answer
        self._asked = self._steps = self._taken = 0

    def ask(self, n: int) -> Batch:
        self._settle()
        if not len(self._queue) and not self._pending:
            self._queue = self._next()
        if not len(self._queue):  # answers are missing: look around meanwhile
            self._queue = self._around(1)
        latents, self._queue = self._queue[:n], self._queue[n:]
        rows = self._space.canonical(self._space.from_latent(latents))
        ids = np.arange(self._asked, self._asked + len(rows))
        self._pending.update(zip(ids.tolist(), self._space.to_latent(rows), strict=True))
        self._asked += len(rows)
        return Batch(ids, rows)

    def tell(self, evidence: Evidence) -> None:
        self._archive.add(evidence)
        self._waiting.append(evidence)

    def recommend(self, n: int) -> Population:
        self._settle()
        return self._archive.best(n)

    def notes(self) -> dict[str, Any]:
        """Steps tried and taken, and the last radius."""
        return {"steps": self._steps, "taken": self._taken, "radius": self._radius}

    def _settle(self) -> None:
        """Learn in the order of ids, whatever order evidence came in."""
        self._archive.settle()
        told, self._waiting = in_order(self._waiting), []
        for evidence, row in told:
            index = int(evidence.ids[row])
            latent = self._pending.pop(index, None)
            if latent is None:  # a stranger
                continue
            is_step = index == self._step_id
            table = None if evidence.observations is None else evidence.observations[row]
            if evidence.status[row] != Status.DONE or table is None or np.isnan(table).any():
                self._judge(math.inf, latent, None, is_step)
            else:
                self._judge(float(evidence.values[row, 0]), latent, table.astype(np.float32), is_step)

    def _judge(
        self, value: float, latent: NDArray[np.float64], table: NDArray[np.float32] | None, is_step: bool
    ) -> None:
        model = self._model
        if model is None:
            if table is not None:
                self._seen.append((value, latent, table))
            return
        step = latent - model.center
        length = float(np.linalg.norm(step))
        expected, gained = model.value - self._predicted, model.value - value
        if table is not None and length > 0:
            model.observe(step, table)
        if is_step:
            self._step_id = -1
            self._steps += 1
            trust = gained / max(expected, 1e-12)
            if not trust >= _POOR:
                self._radius, self._failures = self._radius * _SHRINK, self._failures + 1
            elif trust > _GOOD:
                self._radius *= _GROW
        if gained > 0 and table is not None:
            self._taken += is_step
            model.move(latent, value, table)

    def _next(self) -> NDArray[np.float64]:
        if self._model is None:
            if not self._seen:  # no seed has succeeded
                return self._space.to_latent(self._space.canonical(self._space.sample(self._rng, 1)))
            value, latent, table = min(self._seen, key=lambda seen: seen[0])
            self._model = _LinearTable(latent, value, table)
            for _, other, seen in self._seen:
                if other is not latent:
                    self._model.observe(other - latent, seen)
            self._seen = []
            return self._probes()
        if self._failures >= _PATIENCE:
            self._failures = 0
            self._radius = max(self._radius, self._settings.probe)
            self._model.forget()
            return self._probes()
        latent, self._predicted = self._model.step(self._slope, self._radius)
        self._step_id = self._asked
        return latent[None]

    def _probes(self) -> NDArray[np.float64]:
        assert self._model is not None
        count = self._settings.probes or math.ceil(self._width / 2)
        return self._model.center + self._settings.probe * self._model.unknown(min(count, self._width))

    def _around(self, n: int) -> NDArray[np.float64]:
        center = self._model.center if self._model is not None else np.zeros(self._width)
        return center + self._settings.probe * self._rng.standard_normal((n, self._width)) / math.sqrt(self._width)


@final
class _LinearTable:
    """Observations as a linear function of the coordinates around a center, learned by recursive least squares."""

    def __init__(self, center: NDArray[np.float64], value: float, table: NDArray[np.float32]) -> None:
        self.center, self.value, self._table = center, value, table
        self._slopes = np.zeros((len(center), table.size), np.float32)
        self._covariance = np.eye(len(center))

    def observe(self, step: NDArray[np.float64], table: NDArray[np.float32]) -> None:
        """Learn from the observations at ``center + step``."""
        square = float(step @ step)
        noise = _ROUNDING * square + _CURVATURE * square**2
        spread = self._covariance @ step
        gain = spread / (step @ spread + noise)
        missed = (table - self._table).ravel() - step.astype(np.float32) @ self._slopes
        self._slopes += gain.astype(np.float32)[:, None] * missed
        self._covariance -= np.outer(gain, spread)
        # Slopes change along the way.
        self._covariance += _DRIFT * min(square, 1.0) * np.eye(len(step))

    def move(self, center: NDArray[np.float64], value: float, table: NDArray[np.float32]) -> None:
        """Take another point as the center."""
        self.center, self.value, self._table = center, value, table

    def forget(self) -> None:
        """Trust all slopes less."""
        self._covariance += _FORGET * np.eye(len(self.center))
        excess = max(1.0, float(np.linalg.eigvalsh(self._covariance)[-1]) / _UNKNOWN)
        self._covariance /= excess

    def unknown(self, n: int) -> NDArray[np.float64]:
        """The ``n`` orthonormal directions in which the slope is least certain, shape ``(n, coordinates)``."""
        return np.asarray(np.linalg.eigh(self._covariance)[1][:, ::-1][:, :n].T)

    def step(self, slope: Slope, radius: float) -> tuple[NDArray[np.float64], float]:
        """The best point within the radius, and the value that is expected there."""
        from scipy.optimize import minimize

        def damped(step: NDArray[np.float64], damping: float) -> tuple[float, NDArray[np.float64]]:
            predicted = self._table.ravel() + step.astype(np.float32) @ self._slopes
            value, gradient = slope(predicted.reshape(self._table.shape))
            pulled = self._slopes @ np.asarray(gradient, np.float32).ravel()
            return value + damping * float(step @ step), pulled.astype(np.float64) + 2 * damping * step

        low, high, best, inside = 1e-6, 1e3, np.zeros(len(self.center)), False
        scale = max(abs(self.value), 1e-12) / radius**2  # damping in units of the value
        for _ in range(_TRIES):
            damping = math.sqrt(low * high)
            found = minimize(
                damped, best, args=(damping * scale,), jac=True, method="L-BFGS-B", options={"maxiter": _ITERATIONS}
            ).x
            length = float(np.linalg.norm(found))
            if length <= radius:
                high, best, inside = damping, found, True
            else:
                low = damping
                best = best if inside else found * (radius / length)
        return self.center + best, damped(best, 0.0)[0]
