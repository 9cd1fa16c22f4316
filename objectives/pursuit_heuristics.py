"""Pursuers that need no learning: the baselines of DualCL, as its authors coded them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

from searchlib.errors import InvalidSettings
from searchlib.objectives.pursuit_arena import over_agents, over_axes
from searchlib.objectives.pursuit_settings import PursuitSettings
from searchlib.objectives.pursuit_tasks import PursuitTasks
from searchlib.objectives.pursuit_world import Pursuers, PursuitSight, rollout

__all__ = ["Angelani", "HeuristicPursuers", "Janosov", "PotentialField", "tuned_potential_field"]

Floats = NDArray[np.float32]


class HeuristicPursuers(Pursuers):
    """Pursuers drawn by a force, pushed away by obstacles and walls, always at full speed.

    The constants are those of the authors' branch ``baseline`` (``hideandseek_circle_eval.py``).
    """

    #: Weight of what pushes away from obstacles and walls.
    mu: float

    @abstractmethod
    def force(self, chase: Floats, sight: PursuitSight) -> Floats:
        """The force without obstacles and walls, given unit vectors to the evader."""

    @final
    def command(self, sight: PursuitSight) -> Floats:
        """The direction of the whole force."""
        chase, away = _chase_and_caution(sight)
        return _unit(self.force(chase, sight) + np.float32(self.mu) * away)


def _chase_and_caution(sight: PursuitSight) -> tuple[Floats, Floats]:
    """Unit vectors to the evader, and what pushes away from walls and obstacles."""
    away = sight.arena.inward(sight.pursuers)
    if sight.gaps[1].shape[1]:
        away += sight.arena.repulsion(*sight.gaps)
    return sight.to_evader / (sight.distance + np.float32(1e-5)), away


def _unit(vectors: Floats) -> Floats:
    # Forces may be as long as 1e9, the squares of which float32 still holds.
    return np.asarray(vectors / (np.sqrt(over_axes(vectors * vectors)) + np.float32(1e-9)))


@final
@dataclass(frozen=True)
class Janosov(HeuristicPursuers):
    """Chase, and keep a distance to the mates (Janosov et al., *Group chasing tactics*, 2017).

    Arguments:
        weight: C of keeping the distance.
        spacing: r, the distance to keep, in m.
        gain: of chase and spacing.
        mu: weight of obstacles and walls.
    """

    weight: float = 0.5
    spacing: float = 0.4
    gain: float = 6.0
    mu: float = 1.0

    def force(self, chase: Floats, sight: PursuitSight) -> Floats:
        """Chase + C · unit(−Σ(Δ − r Δ̂))."""
        offsets, apart = sight.mates
        towards = over_agents(offsets * (np.float32(self.spacing) / (apart + np.float32(1e-5)) - 1))
        return np.float32(self.gain) * (chase + np.float32(self.weight) * _unit(towards))


@final
@dataclass(frozen=True)
class Angelani(HeuristicPursuers):
    """Chase and avoid mates nearby (Angelani, *Collective predation and escape strategies*, 2012).

    The alignment with the mates' mean velocity has weight 0 in the authors' code and is left out.

    Arguments:
        weight: of avoiding.
        reach: r_f, the distance at which avoiding has half its strength, in m.
        width: σ of its decline, in m.
        gain: of both.
        mu: weight of obstacles and walls.
    """

    weight: float = 0.25
    reach: float = 0.4
    width: float = 0.5
    gain: float = 7.0
    mu: float = 1.0

    def force(self, chase: Floats, sight: PursuitSight) -> Floats:
        """Chase + weight · Σ Δ̂ / (1 + exp((|Δ| − r_f) / σ))."""
        offsets, apart = sight.mates
        decline = 1 + np.exp((apart - np.float32(self.reach)) / np.float32(self.width))
        avoid = over_agents(offsets / ((apart + np.float32(1e-5)) * decline))
        return np.float32(self.gain) * (chase + np.float32(self.weight) * avoid)


@final
@dataclass(frozen=True)
class PotentialField(HeuristicPursuers):
    """An artificial potential field: chase, attract far mates and repel near ones.

    Arguments:
        mu: weight of obstacles and walls.
        lam: λ; mates closer than 2λ repel each other, in m.
        gain: of all but obstacles and walls.
    """

    mu: float = 1.0
    lam: float = 0.2
    gain: float = 7.0

    def force(self, chase: Floats, sight: PursuitSight) -> Floats:
        """Chase − Σ (0.5 − λ / |Δ|) Δ̂."""
        return _potential(chase, sight, np.float32(self.lam), self.gain)


def _potential(chase: Floats, sight: PursuitSight, lam: np.float32 | Floats, gain: float) -> Floats:
    offsets, apart = sight.mates
    apart = apart + np.float32(1e-5)
    return np.float32(gain) * (chase + over_agents(offsets * ((lam / apart - np.float32(0.5)) / apart)))


@final
class _ManyFields(Pursuers):
    """A potential field of its own for every world: μ and λ of shape ``(n,)``."""

    def __init__(self, mu: Floats, lam: Floats) -> None:
        self._mu, self._lam = mu, lam

    def take(self, worlds: NDArray[np.intp]) -> _ManyFields:
        return _ManyFields(self._mu[worlds], self._lam[worlds])

    def command(self, sight: PursuitSight) -> Floats:
        chase, away = _chase_and_caution(sight)
        return _unit(_potential(chase, sight, self._lam, PotentialField.gain) + self._mu * away)


def tuned_potential_field(
    settings: PursuitSettings,
    tasks: PursuitTasks,
    *,
    mus: Sequence[float] = (0.01, 0.1, 0.3, 1.0, 3.0),
    lams: Sequence[float] = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8),
) -> PotentialField:
    """The potential field whose (μ, λ) catches most on the tasks; the smaller mean distance decides between equals.

    It stands for DACOOP, where a learned policy picks the pair at every step from two lists (six values of λ). Tune on
    tasks of the SEARCH split, as anything that is compared later.

    Raises:
        InvalidSettings: no tasks or an empty list.

    Example:
        >>> tasks = PursuitTasks([[1.2, 0.5, 1.0, 0.15]] * 4, range(4))
        >>> tuned_potential_field(PursuitSettings(steps=50), tasks, mus=[1.0], lams=[0.0, 0.2]).mu
        1.0
    """
    if not len(tasks) or not mus or not lams:
        raise InvalidSettings(f"tuning needs tasks and values, but got {len(tasks)} tasks, mus={mus!r}, lams={lams!r}")
    pairs = np.array([(mu, lam) for mu in mus for lam in lams], np.float32)
    every = pairs.repeat(len(tasks), axis=0)
    worlds = np.tile(np.arange(len(tasks)), len(pairs))
    outcome = rollout(settings, tasks, _ManyFields(every[:, 0], every[:, 1]), worlds=worlds, stop_at_capture=True)
    caught, distance = (part.reshape(len(pairs), -1).mean(axis=1) for part in (outcome.captured, outcome.min_distance))
    mu, lam = pairs[np.lexsort((distance, -caught))[0]].tolist()
    return PotentialField(mu, lam)
