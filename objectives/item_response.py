"""Item response theory: how hard an item is, and how sharply it tells models apart.

A fit of our own: py-irt, which tinyBenchmarks uses, does not install beside the versions that this library is tested
with. Its newest release (0.7.1) demands pandas < 3, rich < 14, typer < 0.15 and Python < 3.12.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings

__all__ = ["ItemResponses", "binarized", "fit_2pl"]

#: Abilities are integrated over these nodes of a standard normal distribution.
_NODES = 31
#: Standard deviations of the normal priors that keep items from running away: log-discrimination, difficulty · slope.
_SLOPE_PRIOR, _INTERCEPT_PRIOR = 0.75, 3.0


class ItemResponses(NamedTuple):
    """A fitted two-parameter logistic model, P(model m solves item i) = σ(slopeᵢ · abilityₘ + interceptᵢ).

    ``slopes`` (discrimination) and ``intercepts`` (easiness) have shape ``(items,)``; ``abilities`` ``(models,)`` are
    posterior means; ``objective`` holds the penalized log-likelihood after each step, never falling.
    """

    slopes: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    abilities: NDArray[np.float64]
    objective: NDArray[np.float64]


def binarized(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Scores as 0 and 1; those that are so already stay.

    Continuous ones are scaled to [0, 1] item by item, and one threshold is chosen so that the mean stays what it was,
    as far as ties allow, as tinyBenchmarks (arXiv 2402.14992, Section 3) does for metrics that are not binary.

    Example:
        >>> binarized(np.array([[0.1, 7.0], [0.3, 9.0], [0.15, 9.0]])).tolist()
        [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0]]
    """
    if np.isin(scores, (0.0, 1.0)).all():
        return np.asarray(scores, np.float64)
    low, high = scores.min(axis=0), scores.max(axis=0)
    scaled = (scores - low) / np.where(high > low, high - low, 1.0)
    count = round(float(scaled.sum()))
    threshold = np.partition(scaled.ravel(), scaled.size - max(count, 1))[scaled.size - max(count, 1)]
    among, above = scaled >= threshold, scaled > threshold
    nearer = among if abs(int(among.sum()) - count) <= abs(int(above.sum()) - count) else above
    return nearer.astype(np.float64)


def fit_2pl(responses: NDArray[np.floating[Any]], *, steps: int = 60, tolerance: float = 1e-6) -> ItemResponses:
    """Fit a two-parameter logistic model by marginal maximum likelihood (Bock and Aitkin, 1981), all items at once.

    Abilities are standard normal and integrated over; slopes and intercepts have weak normal priors, without which an
    item that all models solve would have no estimate. Slopes may be negative: such an item ranks models upside down.

    Arguments:
        responses: 0 and 1, shape ``(models, items)``.
        steps: most steps of expectation and maximization.
        tolerance: relative gain of the penalized likelihood below which it stops.

    Raises:
        InvalidSettings: something else than 0 and 1.
    """
    y = np.asarray(responses, np.float64)
    if y.ndim != 2 or not np.isin(y, (0.0, 1.0)).all():
        other = y[~np.isin(y, (0.0, 1.0))].ravel()[:1].tolist()
        raise InvalidSettings(
            f"responses must be 0 and 1, models x items, but have shape {y.shape}"
            + (f" and hold {other[0]}; pass binarized(scores)" if other else "")
        )
    steps = whole_number("steps", steps, 1)
    nodes, mass = np.polynomial.hermite_e.hermegauss(_NODES)
    mass = mass / mass.sum()
    solved = np.clip(y.mean(axis=0), 0.02, 0.98)
    slopes, intercepts = _sign_of_the_total(y), np.log(solved / (1 - solved))
    history: list[float] = []
    posterior = np.zeros((len(y), _NODES))
    for _ in range(steps):
        logits = slopes[:, None] * nodes + intercepts[:, None]  # items × nodes
        joint = y @ special.log_expit(logits) + (1 - y) @ special.log_expit(-logits) + np.log(mass)
        evidence = special.logsumexp(joint, axis=1, keepdims=True)
        penalty = (slopes**2).sum() / (2 * _SLOPE_PRIOR**2) + (intercepts**2).sum() / (2 * _INTERCEPT_PRIOR**2)
        history.append(float(evidence.sum() - penalty))
        posterior = np.exp(joint - evidence)  # models × nodes
        if len(history) > 1 and history[-1] - history[-2] <= tolerance * abs(history[-2]):
            break
        slopes, intercepts = _maximized(slopes, intercepts, nodes, posterior.sum(axis=0), y.T @ posterior)
    return ItemResponses(slopes, intercepts, posterior @ nodes, np.array(history))


def _sign_of_the_total(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Starting slopes: correlation with the mean response, so that ability means what the benchmark measures."""
    total = y.mean(axis=1)
    total = (total - total.mean()) / max(float(total.std()), 1e-9)
    return np.asarray(1.5 * (y - y.mean(axis=0)).T @ total / len(y) / 0.5)


def _maximized(
    slopes: NDArray[np.float64], intercepts: NDArray[np.float64], nodes: NDArray[np.float64],
    models: NDArray[np.float64], solved: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """A few Newton steps of every item's penalized logistic regression on the nodes; a step that loses is halved."""

    def value(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        logits = a[:, None] * nodes + b[:, None]
        gain = solved * special.log_expit(logits) + (models - solved) * special.log_expit(-logits)
        return np.asarray(gain.sum(axis=1) - a**2 / (2 * _SLOPE_PRIOR**2) - b**2 / (2 * _INTERCEPT_PRIOR**2))

    now = value(slopes, intercepts)
    for _ in range(3):
        p = special.expit(slopes[:, None] * nodes + intercepts[:, None])
        rest, weight = solved - models * p, models * p * (1 - p)
        by_slope = rest @ nodes - slopes / _SLOPE_PRIOR**2
        by_intercept = rest.sum(axis=1) - intercepts / _INTERCEPT_PRIOR**2
        aa, ab, bb = weight @ nodes**2 + _SLOPE_PRIOR**-2, weight @ nodes, weight.sum(axis=1) + _INTERCEPT_PRIOR**-2
        determinant = aa * bb - ab**2
        step_a = (bb * by_slope - ab * by_intercept) / determinant
        step_b = (aa * by_intercept - ab * by_slope) / determinant
        size = np.ones_like(slopes)
        for _ in range(6):
            then = value(slopes + size * step_a, intercepts + size * step_b)
            worse = then < now - 1e-12
            if not worse.any():
                break
            size[worse] /= 2
        size[value(slopes + size * step_a, intercepts + size * step_b) < now] = 0.0
        slopes, intercepts = slopes + size * step_a, intercepts + size * step_b
        now = value(slopes, intercepts)
    return slopes, intercepts
