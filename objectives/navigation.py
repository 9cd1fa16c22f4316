"""MASP: who goes where and how, for teams of any size, learned with five agents (arXiv 2312.02522).

https://arxiv.org/abs/2312.02522; the runnable precursor is https://github.com/yang-xy20/mage-x.

Reproduced: a Goal Matcher over the graph of agents and goals, with Sinkhorn's plan and a rounding; a Coordinated Action
Executor with attention in an agent's own group and all others fused, so that any number of agents works; the physics,
radii and layouts of MAGE-X, and quadrotors in three dimensions. Not reproduced: PPO and its rewards. Here an evolution
strategy ranks policies by the steps until all goals are occupied; both halves begin with something that works, a
proportional controller and the sum of squared distances. The matcher's attention is one round in which pairs hear how
contested a goal is.

At full size: ``Navigation(NavigationSettings.flying(), inner_loop=law)`` with the law of ``benchmarks/uav_recipes.py``.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import instance, numbers, one_of, real_number, shown, whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.objectives.navigation_assignment import ASSIGNMENTS, random_assignment
from searchlib.objectives.navigation_distances import distances, informed_distances
from searchlib.objectives.navigation_executor import NavigationExecutor
from searchlib.objectives.navigation_layouts import NavigationLayouts, random_layouts
from searchlib.objectives.navigation_matcher import GoalMatcher
from searchlib.objectives.navigation_orca import OrcaSteering
from searchlib.objectives.navigation_outcome import NavigationOutcome
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_world import Decide, NavigationPaths, Steering, SteeringLaw, navigate
from searchlib.objectives.pursuit_tasks import require_other_seeds
from searchlib.space import Candidates

__all__ = ["INFORMED", "RANDOM", "Navigation"]

#: The assignment by chance, beside those of :data:`~searchlib.objectives.navigation_assignment.ASSIGNMENTS`.
RANDOM = "random"
#: Assignments of :func:`~searchlib.objectives.navigation_distances.informed_distances`, and of which of the others.
INFORMED: Mapping[str, str] = {f"{name}, informed": name for name in ("hungarian, squares", "bottleneck")}
_ROWS, _CASES = 32, 16


@final
class Navigation(Objective):
    """How many steps until all goals are occupied at once, with a surcharge for collisions; smaller is better.

    Candidates are rows of parameters of one half, the executor or the matcher, while the other half is as it is.

    Arguments:
        settings: of all worlds.
        agents: of the layouts to learn from.
        learns: which half candidates are: ``"executor"`` or ``"matcher"``.
        executor: law that steers: a network, or a rule (a proportional controller, ORCA) whose two gains are tuned
            alike. None: a network.
        steering: its row where candidates are matchers; None: zeros, which is a proportional controller.
        matcher: who goes where while candidates are executors: a row of the matcher, or the name of an assignment of
            straight-line distances (``"hungarian"``, ``"hungarian, squares"``, ``"bottleneck"``, ``"greedy"``,
            ``"random"``); or of informed ones, such as ``"bottleneck, informed"``.
        inner_loop: of flights: numbers of the law that turns velocities to thrust and body rates, shape ``(40,)``.
        collision_steps: a pair that overlaps for a step costs as many steps as this, per five agents.
        every: steps after which goals are decided on again; None: never.
        search: how many layouts to learn on, or the layouts themselves.
        select: layouts on which the winner is picked from the short list.
        holdout: layouts on which the winner and the assignments are compared, of any team size.
        seed: another seed is other layouts.

    Raises:
        InvalidSettings: an unknown half or assignment, flights without an inner loop or with ORCA, layouts of two
            splits with a seed in common.
    """

    direction: Literal["minimize"] = "minimize"
    value_names = ("steps and collisions",)
    chunk_rows = _ROWS
    chunk_cases = _CASES

    def __init__(
        self,
        settings: NavigationSettings | None = None,
        agents: int = 5,
        *,
        learns: str = "executor",
        executor: SteeringLaw | None = None,
        steering: NDArray[Any] | None = None,
        matcher: NDArray[Any] | str = "hungarian, squares",
        inner_loop: NDArray[Any] | None = None,
        collision_steps: float = 2.0,
        every: int | None = None,
        search: int | NavigationLayouts = 2048,
        select: int | NavigationLayouts = 0,
        holdout: int | NavigationLayouts = 256,
        seed: int = 0,
    ) -> None:
        self.settings = NavigationSettings() if settings is None else settings
        instance("settings", self.settings, NavigationSettings, "NavigationSettings(…)")
        self.executor = NavigationExecutor(self.settings.pillars > 0) if executor is None else executor
        self.matcher = GoalMatcher()
        self.agents = whole_number("agents", agents, 2, 10_000)
        one_of("learns", learns, ("executor", "matcher"))
        if not isinstance(getattr(self.executor, "parameters", None), int):
            raise InvalidSettings(f"executor must be a law such as NavigationExecutor(…), but is {shown(executor)}")
        if isinstance(matcher, str) and matcher not in (*ASSIGNMENTS, *INFORMED, RANDOM):
            known = "; ".join((*ASSIGNMENTS, *INFORMED, RANDOM))
            raise InvalidSettings(f"the assignments are {known}, but got {matcher!r}")
        plane = isinstance(self.executor, OrcaSteering)
        if isinstance(self.executor, NavigationExecutor):
            plane = self.executor.safe
        if self.settings.flight is not None and (inner_loop is None or plane):
            raise InvalidSettings("flights need inner_loop= (40 numbers, such as linearized()), and ORCA is for discs")
        self.learns = learns
        self.inner_loop = numbers("inner_loop", np.zeros(40) if inner_loop is None else inner_loop, np.float32)
        if self.inner_loop.shape != (40,) or not np.isfinite(self.inner_loop).all():
            raise InvalidSettings(f"inner_loop must be 40 finite numbers, but has shape {self.inner_loop.shape}")
        zeros = np.zeros(self.executor.parameters, np.float32)
        self.steering = zeros if steering is None else numbers("steering", steering, np.float32)
        self.assigned = matcher if isinstance(matcher, str) else numbers("matcher", matcher, np.float32)
        self.collision_steps, self.every = float(real_number("collision_steps", collision_steps)), every
        self.space = self.executor.space() if learns == "executor" else self.matcher.space()
        given = {Split.SEARCH: search, Split.SELECT: select, Split.HOLDOUT: holdout}
        self._splits = {split: self._drawn(split, amount, seed) for split, amount in given.items()}
        require_other_seeds(
            {split: layouts.seeds for split, layouts in self._splits.items()},
            "random_layouts draws seeds that never meet for the split= it is told",
        )

    def _drawn(self, split: Split, amount: int | NavigationLayouts, seed: int) -> NavigationLayouts:
        if isinstance(amount, NavigationLayouts):
            return amount
        count = whole_number(split.value, amount, 1 if split is Split.SEARCH else 0)
        rng = np.random.default_rng([whole_number("seed", seed, 0), list(Split).index(split)])
        return random_layouts(self.settings, self.agents, count, rng, split=split)

    def cases(self, split: Split) -> Cases:
        """The layouts of a split."""
        return self._splits[split].cases()

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Steps and collisions, shape ``(n, c)``."""
        outcome, _ = self.play(NavigationLayouts.of(cases.payload or ()), candidates.array)
        return self.value(outcome, NavigationLayouts.of(cases.payload or ()).agents).reshape(len(candidates), -1)

    def value(self, outcome: NavigationOutcome, agents: int) -> NDArray[np.float64]:
        """What :meth:`evaluate` makes of an outcome, shape ``(n,)``."""
        return np.asarray(outcome.steps + self.collision_steps * 5 / agents * outcome.collisions, np.float64)

    def play(
        self, layouts: NavigationLayouts, rows: NDArray[Any] | None = None, *,
        matcher: NDArray[Any] | str | None = None, steering: NDArray[Any] | None = None, record: bool = False,
    ) -> tuple[NavigationOutcome, NavigationPaths | None]:  # fmt: skip
        """All that happens when every row meets every layout, worlds in the order row by row.

        Arguments:
            layouts: of any team size.
            rows: candidates ``(n, d)`` of the half that learns; None: one team of the halves that are given.
            matcher, steering: in the place of this objective's.
            record: whether paths are kept.
        """
        given = self.assigned if matcher is None else matcher
        row = self.steering if steering is None else np.asarray(steering, np.float32)
        if rows is None:
            return self._played(layouts, row[None], given, record)
        rows = np.asarray(rows, np.float32)
        if self.learns == "executor":
            return self._played(layouts, rows, given, record)
        return self._played(layouts, np.repeat(row[None], len(rows), axis=0), rows, record)

    def _played(
        self, layouts: NavigationLayouts, steering: NDArray[np.float32], matcher: NDArray[Any] | str, record: bool
    ) -> tuple[NavigationOutcome, NavigationPaths | None]:  # fmt: skip
        if isinstance(self.executor, NavigationExecutor):
            steering = self.executor.rows(steering)
        laws = Steering(self.executor, steering, self.inner_loop)
        return navigate(self.settings, layouts, laws, self.decide(matcher), every=self.every, record=record)

    def decide(self, matcher: NDArray[Any] | str) -> Decide:
        """Who goes where, as a function: an assignment by name, or matchers ``(d,)`` or, per team, ``(n, d)``."""
        if isinstance(matcher, str):
            return functools.partial(_assigned, matcher, self.settings)
        return functools.partial(self._matched, np.atleast_2d(matcher))

    def _matched(
        self, rows: NDArray[Any], position: NDArray[np.float32], velocity: NDArray[np.float32],
        layouts: NavigationLayouts, teams: NDArray[np.intp],
    ) -> NDArray[np.intp]:  # fmt: skip
        own = rows[teams] if len(rows) > 1 else np.repeat(rows, len(teams), axis=0)
        return self.matcher.decide(own, position, velocity, layouts, self.settings)

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """Simulated steps, as if no world were over before its time."""
        return float(len(candidates) * len(cases) * self.settings.steps)

    def references(self) -> tuple[str, ...]:
        """The assignments, with the executor that is given (a learned one where candidates are matchers)."""
        return (*ASSIGNMENTS, *INFORMED, RANDOM)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Steps and collisions of an assignment, shape ``(c,)``."""
        layouts = NavigationLayouts.of(cases.payload or ())
        return self.value(self.play(layouts, matcher=name)[0], layouts.agents)

    def fingerprint(self) -> Mapping[str, Any]:
        """Settings, both halves and the inner loop; layouts are told apart by the ids of their cases."""
        assigned = [] if isinstance(self.assigned, str) else [self.assigned]
        fixed = [self.inner_loop, self.steering, *assigned]
        return {
            "objective": "Navigation", "settings": json.loads(json.dumps(asdict(self.settings))), "learns": self.learns,
            "halves": [repr(self.executor), repr(self.matcher), "" if assigned else self.assigned],
            "collision steps": self.collision_steps, "every": self.every,
            "fixed": zlib.crc32(b"".join(part.tobytes() for part in fixed)),
        }  # fmt: skip


def _assigned(
    name: str, settings: NavigationSettings, position: NDArray[np.float32], velocity: NDArray[np.float32],
    layouts: NavigationLayouts, teams: NDArray[np.intp],
) -> NDArray[np.intp]:  # fmt: skip
    del teams
    if name in INFORMED:
        return ASSIGNMENTS[INFORMED[name]](informed_distances(position, velocity, layouts, settings))
    apart = distances(position, layouts.goals)
    return random_assignment(apart, layouts.seeds) if name == RANDOM else ASSIGNMENTS[name](apart)
