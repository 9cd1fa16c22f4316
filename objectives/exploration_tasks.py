"""Tasks of an exploration: which building, how many agents, and a seed for where they start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.exploration_maps import FloorPlan
from searchlib.objectives.pursuit_tasks import split_seeds

__all__ = ["MOST_AGENTS", "ExplorationTask", "exploration_tasks", "plans_by_name", "task_cases"]

#: Agents of a team; a cell keeps a bit for each.
MOST_AGENTS = 8


class ExplorationTask(NamedTuple):
    """One episode, as the payload of a case: the name of a plan, how many agents, and a seed for their starts."""

    plan: str
    agents: int
    seed: int


def plans_by_name(plans: Sequence[FloorPlan]) -> dict[str, FloorPlan]:
    """Plans under their names.

    Raises:
        InvalidSettings: two of the same name.
    """
    found = {plan.name: plan for plan in plans}
    if len(found) != len(plans):
        raise InvalidSettings(f"plans must have distinct names, but are {[plan.name for plan in plans]!r:.200}")
    return found


def exploration_tasks(
    plans: Sequence[FloorPlan], agents: Sequence[int], count: int, *, seed: int = 0, split: Split = Split.SEARCH
) -> tuple[ExplorationTask, ...]:
    """``count`` tasks: all plans with all numbers of agents in turn, each time with another start.

    Arguments:
        plans: where.
        agents: numbers of agents, 1 to 8.
        count: how many; those of one plan and one number of agents are ``count // (plans * agents)`` or one more.
        seed: another seed is other starts.
        split: whose seeds they get; those of two splits never meet.

    Example:
        >>> from searchlib.objectives.exploration_maps import generated_plan
        >>> [task[:2] for task in exploration_tasks([generated_plan("caves", 0)], (2, 4), 3)]
        [('caves 0', 2), ('caves 0', 4), ('caves 0', 2)]
    """
    for number in agents:
        if not 1 <= whole_number("agents", number, 1) <= MOST_AGENTS:
            raise InvalidSettings(f"a team has 1 to {MOST_AGENTS} agents, but {number!r} were asked for")
    every = [(plan.name, int(number)) for plan in plans for number in agents]
    if not every and count:
        raise InvalidSettings("tasks need a plan and a number of agents, but there is none")
    rng = np.random.default_rng([whole_number("seed", seed, 0), list(Split).index(split)])
    seeds = split_seeds(split, rng, whole_number("count", count, 0)).tolist()
    return tuple(ExplorationTask(*every[i % len(every)], number) for i, number in enumerate(seeds))


def task_cases(plans: Mapping[str, FloorPlan], tasks: Sequence[ExplorationTask]) -> Cases:
    """Tasks as cases; an id says all that decides an episode, the walls included.

    Raises:
        InvalidSettings: a task of a plan that is not there.
    """
    for task in tasks:
        if task.plan not in plans:
            raise InvalidSettings(f"the plans are {', '.join(plans)}, but a task is on {task.plan!r}")
    return Cases(tuple(f"{task.plan} {plans[task.plan].digest} {task.agents} #{task.seed}" for task in tasks), tasks)
