"""MANTM: a team explores an unknown building with a topological map (arXiv 2311.00252).

https://arxiv.org/abs/2311.00252, https://github.com/yang-xy20/mantm (authors' names of parameters in parentheses).

Reproduced: a merged map, decisions of all agents at once every few steps (``num_local_steps``), main nodes where agents
have been and ghost nodes where they might go, with the authors' distances and pruning; a planner of two levels whose
scores are multiplied, with path distances and the history of agents and goals; steps to 90 % of coverage and the
overlap of what agents saw. Not reproduced: photographs and their similarity (nodes are told apart by where they are),
noise, headings, and the attention networks: here a score of a few dozen numbers is evolved. Ghost nodes are groups of
frontier cells unless ``ExplorationSettings(ghosts="circle")`` asks for the authors' circles.

At full size: ``Exploration([load_floor_plan("plan.png", resolution=0.05, cell=0.35)], …)`` with the user's own plans.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective
from searchlib.objectives.exploration_episode import ExplorationEpisode, play, record_episode
from searchlib.objectives.exploration_maps import FloorPlan
from searchlib.objectives.exploration_planner import Planner
from searchlib.objectives.exploration_policy import ExplorationPolicy
from searchlib.objectives.exploration_rules import RULES, Rule
from searchlib.objectives.exploration_settings import ExplorationSettings
from searchlib.objectives.exploration_tasks import ExplorationTask, exploration_tasks, plans_by_name, task_cases
from searchlib.objectives.exploration_world import REACHED
from searchlib.objectives.pursuit_tasks import require_other_seeds
from searchlib.space import Candidates

__all__ = ["Exploration", "ExplorationOutcome"]

#: Shares of coverage whose steps a score is made of.
_SCORED = (0.9, 0.95)


@final
@dataclass(frozen=True, eq=False)
class ExplorationOutcome:
    """What happened in many episodes.

    Arguments:
        steps: to every share of :data:`~searchlib.objectives.exploration_world.REACHED`, ``(n, c, 5)``; the limit of
            the episode where it was not reached.
        overlap: share of the covered cells that several agents had seen by then, ``(n, c, 5)``; NaN where not reached.
    """

    steps: NDArray[np.float64]
    overlap: NDArray[np.float64]

    def steps_to(self, share: float) -> NDArray[np.float64]:
        """Steps to one of the shares, ``(n, c)``."""
        return np.asarray(self.steps[..., REACHED.index(share)])

    @property
    def scores(self) -> NDArray[np.float64]:
        """The mean of the logarithms of the steps to 90 % and to 95 % of coverage, ``(n, c)``."""
        return np.asarray(np.mean([np.log(np.maximum(1.0, self.steps_to(share))) for share in _SCORED], axis=0))


@final
class Exploration(Objective):
    """How fast does a team see (nearly) all of a building that it does not know? Less is better.

    A score is the mean of the logarithms of the steps to 90 % and to 95 % of coverage, so that a percent counts the
    same in small buildings and in large ones. Candidates are rows of parameters of the planner, which all agents share.

    Arguments:
        plans: buildings to learn in.
        unseen: buildings of the HOLDOUT split.
        settings: of all episodes.
        policy: which parts the planner has.
        agents: numbers of agents to learn with.
        unseen_agents: numbers of agents of the HOLDOUT split.
        search: how many tasks to learn on, or the tasks themselves.
        select: tasks on which the winner is picked from the short list.
        holdout: tasks on which the winner and the rules are compared; 0 where there are no unseen buildings.
        seed: another seed is other starts.

    Raises:
        InvalidSettings: a building that is in both, tasks of two splits with a seed in common, no building.

    Example:
        >>> from searchlib import search
        >>> from searchlib.objectives.exploration_maps import generated_plan
        >>> plans = [generated_plan("rooms", seed, height=24, width=30) for seed in range(4)]
        >>> team = Exploration(plans[:3], plans[3:], search=6, holdout=4)
        >>> result = search(team, budget=16, seed=0)
        >>> result.value < 6
        True
    """

    direction: Literal["minimize"] = "minimize"
    value_names = ("log steps",)

    def __init__(
        self,
        plans: Sequence[FloorPlan],
        unseen: Sequence[FloorPlan] = (),
        settings: ExplorationSettings | None = None,
        *,
        policy: ExplorationPolicy | None = None,
        agents: tuple[int, ...] = (2,),
        unseen_agents: tuple[int, ...] = (2, 4, 6),
        search: int | Sequence[ExplorationTask] = 240,
        select: int | Sequence[ExplorationTask] = 0,
        holdout: int | Sequence[ExplorationTask] = 0,
        seed: int = 0,
    ) -> None:
        self.settings = ExplorationSettings() if settings is None else settings
        self.policy = ExplorationPolicy() if policy is None else policy
        both = {plan.digest for plan in plans} & {plan.digest for plan in unseen}
        if both:
            raise InvalidSettings(
                f"unseen buildings must be others than those to learn in, but {len(both)} of them are in both"
            )
        self.plans = plans_by_name([*plans, *unseen])
        self.space = self.policy.space()
        given = {
            Split.SEARCH: (plans, agents, search), Split.SELECT: (plans, agents, select),
            Split.HOLDOUT: (unseen, unseen_agents, holdout),
        }  # fmt: skip
        whole_number("seed", seed, 0)
        tasks = {
            split: exploration_tasks(where, teams, wanted, seed=seed, split=split)
            if isinstance(wanted, int) else tuple(wanted)
            for split, (where, teams, wanted) in given.items()
        }  # fmt: skip
        require_other_seeds(
            {split: np.array([task.seed for task in some], np.int64) for split, some in tasks.items()},
            "exploration_tasks draws seeds that never meet for the split= it is told",
        )
        self._splits = {split: task_cases(self.plans, some) for split, some in tasks.items()}

    def cases(self, split: Split) -> Cases:
        """The tasks of a split."""
        return self._splits[split]

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Logarithms of steps, shape ``(n, c)``."""
        return self.outcome(candidates.array, _tasks(cases)).scores

    def outcome(
        self, rows: NDArray[Any] | Sequence[str], tasks: Sequence[ExplorationTask]
    ) -> ExplorationOutcome:  # fmt: skip
        """All that happens when every row of parameters, or every rule by its name, meets every task."""
        played = [
            [play(self.settings, self._plan(task), task.seed, task.agents, how) for task in tasks]
            for how in map(self._how, rows)
        ]
        shape = (len(played), len(tasks), 2, len(REACHED))
        both = np.array(played, np.float64).reshape(shape)
        return ExplorationOutcome(both[:, :, 0], both[:, :, 1])

    def record(self, row: NDArray[Any] | str, task: ExplorationTask) -> ExplorationEpisode:
        """Every state of one episode, for pictures.

        Arguments:
            row: parameters, shape ``(d,)``, or the name of a rule.
            task: such as ``objective.cases(Split.HOLDOUT).payload[0]``.
        """
        return record_episode(self.settings, self._plan(task), task.seed, task.agents, self._how(row))

    def _plan(self, task: ExplorationTask) -> FloorPlan:
        if task.plan not in self.plans:
            raise InvalidSettings(f"the plans are {', '.join(self.plans)}, but a task is on {task.plan!r}")
        return self.plans[task.plan]

    def _how(self, row: NDArray[Any] | str) -> Planner | Rule:
        if not isinstance(row, str):
            return self.policy.planner(row)
        if row not in RULES:
            raise InvalidSettings(f"the rules are {', '.join(RULES)}, but {row!r} was asked for")
        return RULES[row]

    def seeds(self) -> NDArray[np.float32]:
        """The planner that a search begins with, :meth:`ExplorationPolicy.prior`."""
        return self.policy.prior()[None]

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """Episodes."""
        return float(len(candidates) * len(cases))

    def references(self) -> tuple[str, ...]:
        """The planners without learning."""
        return tuple(RULES)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Logarithms of steps of a planner without learning, shape ``(c,)``."""
        return np.asarray(self.outcome((name,), _tasks(cases)).scores[0])

    def fingerprint(self) -> Mapping[str, Any]:
        """Settings and the planner's parts; buildings and starts are told apart by the ids of the cases."""
        return {"objective": "Exploration", "settings": asdict(self.settings), "policy": asdict(self.policy)}


def _tasks(cases: Cases) -> Sequence[ExplorationTask]:
    tasks = cases.payload or ()
    if not all(isinstance(task, ExplorationTask) for task in tasks):
        raise InvalidSettings("these are no tasks of an Exploration; take its cases(split)")
    return tasks
