"""CityLight: one policy for all traffic signals, of any network (arXiv 2406.02126).

https://arxiv.org/abs/2406.02126, https://github.com/tsinghua-fib-lab/CityLight.

Reproduced: one set of parameters for all intersections, whatever their number of phases and lanes; up to four upstream
neighbors with edge features, in two groups within which they compete; queues of upstream neighbors in the reward, with
weight α = 0.2; transfer to networks that were never seen. Not reproduced: MAPPO and its critic (an evolution strategy
follows the reward of whole rollouts); the MOSS simulator (here SUMO, with yellow lights and least greens); the five
cities (here the networks of RESCO, and a grid of 196 signals). With one reward for all that share the policy, the
neighbors' weight only says how much each intersection counts.

At full size: ``Traffic([TrafficNetwork("mine", "city.sumocfg")])`` takes any SUMO configuration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.objectives.pursuit_tasks import require_other_seeds
from searchlib.objectives.traffic_layout import laid_out
from searchlib.objectives.traffic_network import TrafficNetwork
from searchlib.objectives.traffic_outcome import TrafficOutcome
from searchlib.objectives.traffic_policy import TrafficNetworkPolicy
from searchlib.objectives.traffic_rules import RULES
from searchlib.objectives.traffic_settings import TrafficSettings
from searchlib.objectives.traffic_tasks import TrafficTask, task_cases, traffic_tasks
from searchlib.objectives.traffic_world import PROGRAMS, SignalController, rollout
from searchlib.space import Candidates
from searchlib.spaces import PolicyParameters

__all__ = ["Traffic"]

_MEASURES = ("reward", "delay")
#: A rollout is given up as gridlock above so many times the most vehicles that the fixed plan had inside, and some.
_GRIDLOCK, _SOME = 1.6, 30
#: Of the run of the fixed plan that others are compared with.
_PLAN_SEED = 0


@final
class Traffic(Objective):
    """How much worse than its fixed plan is a network off? The logarithm of a ratio of costs; below 0 is better.

    Candidates are rows of parameters of the policy. The cost of a rollout is the negated reward: queues before all
    signals, an intersection's own and, with a weight, the mean of its upstream neighbors', summed over time; vehicles
    that wait for insertion count as much. The reference is one rollout of the network's plan with the same settings, at
    demand 1. A gridlocked rollout is given up; it costs 1 + 2 · (share of the time that is left), or more.

    Arguments:
        networks: that are trained on.
        settings: of all rollouts.
        policy: its network.
        neighbor_weight: α of the paper, 0.2; 0: every intersection for itself.
        measure: ``"reward"``, or ``"delay"``: seconds lost per vehicle, waiting for insertion included.
        shared: whether all signals share a row; else a row holds one policy after the other, for all signals of all
            networks, and serves no other network.
        search: tasks per network, of demand 0.9 to 1.1, or the tasks themselves.
        select: tasks on which the winner is picked from the short list.
        holdout: tasks on which the winner, SUMO's programs and the rules are compared; may be of other networks.
        seed: another seed is other tasks.

    Raises:
        InvalidSettings: no networks, a measure that is none, tasks of two splits with a seed in common.
    """

    direction: Literal["minimize"] = "minimize"
    value_names = ("log cost to the fixed plan",)
    chunk_rows = 4
    batch_size = 16

    def __init__(
        self,
        networks: Sequence[TrafficNetwork],
        settings: TrafficSettings | None = None,
        *,
        policy: TrafficNetworkPolicy | None = None,
        neighbor_weight: float = 0.2,
        measure: str = "reward",
        shared: bool = True,
        search: int | Sequence[TrafficTask] = 4,
        select: int | Sequence[TrafficTask] = 0,
        holdout: int | Sequence[TrafficTask] = 3,
        seed: int = 0,
    ) -> None:
        self.networks = tuple(networks)
        if not self.networks:
            raise InvalidSettings("Traffic needs at least one network, but got none")
        if measure not in _MEASURES or not 0 <= neighbor_weight < np.inf:
            raise InvalidSettings(
                f"measure must be one of {_MEASURES} and neighbor_weight at least 0, but got {measure!r} and "
                f"{neighbor_weight!r}"
            )
        self.settings = TrafficSettings() if settings is None else settings
        self.policy = TrafficNetworkPolicy() if policy is None else policy
        self.neighbor_weight, self.measure, self.shared = float(neighbor_weight), measure, bool(shared)
        self.space = self.policy.space() if shared else self._wide_space()
        given = {Split.SEARCH: search, Split.SELECT: select, Split.HOLDOUT: holdout}
        self._splits = {
            split: traffic_tasks(self.networks, tasks, seed=seed, split=split) if isinstance(tasks, int) else (*tasks,)
            for split, tasks in given.items()
        }
        require_other_seeds(
            {split: np.unique([task.seed for task in tasks]) for split, tasks in self._splits.items()},
            "traffic_tasks draws seeds that never meet for the split= it is told",
        )
        self._plans: dict[TrafficNetwork, TrafficOutcome] = {}

    def _wide_space(self) -> PolicyParameters:
        one = self.policy.space()
        spreads = one.spread if isinstance(one.spread, tuple) else (one.spread,) * len(one.tensors)
        named = [
            (f"{network.name} {signal.name} {name}", shape)
            for network in self.networks for signal in network.signals for name, shape in one.tensors
        ]  # fmt: skip
        return PolicyParameters(tuple(named), spreads * (len(named) // len(spreads)))

    def cases(self, split: Split) -> Cases:
        """The tasks of a split."""
        return task_cases(self._splits[split])

    def controller(self, row: NDArray[Any], network: TrafficNetwork) -> SignalController:
        """All signals of a network, led by a row of parameters ``(d,)``.

        Raises:
            InvalidSettings: a policy per intersection, on a network that is not one of its own.
        """
        longest = self.settings.longest_red
        if self.shared:
            return self.policy.controller(row, longest)
        if network not in self.networks:
            raise InvalidSettings(
                f"policies of single intersections serve {', '.join(one.name for one in self.networks)} only, but "
                f"{network.name} was asked for"
            )
        rows = np.asarray(row).reshape(-1, self.policy.parameters)
        first = sum(len(one.signals) for one in self.networks[: self.networks.index(network)])
        return self.policy.controller(rows[first : first + len(network.signals)], longest)

    def outcome(
        self, who: NDArray[Any] | str, task: TrafficTask, *, stop_above: int | None = None
    ) -> TrafficOutcome:  # fmt: skip
        """All that happens when a row of parameters, or one of :meth:`references`, meets a task.

        Arguments:
            who: parameters ``(d,)``, or a name.
            task: which.
            stop_above: vehicles from which on it is given up; None: never.
        """
        leader: Any = RULES.get(who, who) if isinstance(who, str) else self.controller(who, task.network)
        return rollout(
            task.network, self.settings, leader, seed=task.seed, scale=task.scale, stop_above=stop_above
        )  # fmt: skip

    def _plan(self, network: TrafficNetwork) -> TrafficOutcome:
        if network not in self._plans:
            self._plans[network] = self.outcome("fixed plan", TrafficTask(network, _PLAN_SEED, 1.0))
        return self._plans[network]

    def value(self, outcome: TrafficOutcome, network: TrafficNetwork) -> float:
        """The score of a rollout."""
        plan = self._plan(network)
        ratio: Any
        if self.measure == "delay":
            ratio = (outcome.trips.delay + 1) / (plan.trips.delay + 1)
        else:
            weights = self.weights(network)
            ratio = (weights @ outcome.waiting + outcome.outside + 1) / (weights @ plan.waiting + plan.outside + 1)
        value = float(np.log(ratio))
        if outcome.stopped:
            value = max(value, 0.0) + 1 + 2 * (1 - outcome.seconds / self.settings.seconds)
        return value

    def weights(self, network: TrafficNetwork) -> NDArray[np.float64]:
        """How much the queue before each signal counts in the sum of all rewards, shape ``(I,)``, 1 on average at α 0.

        Every intersection's reward holds its own queue, and α times the mean of its upstream neighbors'.
        """
        layout = laid_out(network, self.settings.reach)
        there = layout.neighbors >= 0
        shares = self.neighbor_weight * there / np.maximum(there.sum(axis=1, keepdims=True), 1)
        weights = np.ones(len(there))
        np.add.at(weights, layout.neighbors[there], shares[there])
        return weights

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Log ratios, shape ``(n, c)``."""
        tasks: Sequence[TrafficTask] = cases.payload or ()
        limits = [int(_GRIDLOCK * self._plan(task.network).peak) + _SOME for task in tasks]
        return np.array([
            [
                self.value(self.outcome(row, task, stop_above=limit), task.network)
                for task, limit in zip(tasks, limits, strict=True)
            ]
            for row in candidates.array
        ]).reshape(len(candidates), len(cases))  # fmt: skip

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """Simulated seconds, as if none were given up."""
        return float(len(candidates) * len(cases) * self.settings.seconds)

    def seeds(self) -> NDArray[Any]:
        """The rule that a row of zeros is."""
        return np.zeros((1, self.space.dimension), self.space.dtype)

    def references(self) -> tuple[str, ...]:
        """SUMO's programs and the rules."""
        return (*PROGRAMS, *RULES)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Log ratios of a program or a rule, shape ``(c,)``."""
        tasks: Sequence[TrafficTask] = cases.payload or ()
        return np.array([self.value(self.outcome(name, task), task.network) for task in tasks])

    def fingerprint(self) -> Mapping[str, Any]:
        """Settings, policy and measure; the tasks are told apart by the ids of their cases."""
        return {
            "objective": "Traffic", "settings": asdict(self.settings), "hidden": list(self.policy.hidden),
            "embedding": self.policy.embedding, "neighbor_weight": self.neighbor_weight, "measure": self.measure,
            "shared": self.shared, "networks": [network.name for network in self.networks],
        }  # fmt: skip
