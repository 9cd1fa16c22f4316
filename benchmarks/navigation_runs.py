"""One run of the navigation benchmark: both halves trained with five agents, or rivals tuned, then judged."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from benchmarks.kept_runs import kept_run
from benchmarks.uav_recipes import evolved_inner_loop
from searchlib import Budget, EvolutionStrategy, FreshCases, Split, search
from searchlib.objectives.navigation import INFORMED, RANDOM, Navigation
from searchlib.objectives.navigation_assignment import ASSIGNMENTS
from searchlib.objectives.navigation_controller import ProportionalSteering
from searchlib.objectives.navigation_executor import NavigationExecutor
from searchlib.objectives.navigation_layouts import NavigationLayouts, authors_layouts, random_layouts
from searchlib.objectives.navigation_matcher import GoalMatcher
from searchlib.objectives.navigation_orca import OrcaSteering
from searchlib.objectives.navigation_pictures import NavigationEpisode
from searchlib.objectives.navigation_settings import NavigationSettings
from searchlib.objectives.navigation_world import SteeringLaw
from searchlib.objectives.uav_settings import UavSettings

__all__ = [
    "ARENAS", "BY_ORCA", "BY_RULE", "GREEDY_ROUNDING", "OURS", "OUR_EXECUTOR", "OUR_MATCHER", "RIVALS",
    "Arena", "Effort", "Job", "Judged", "Outcome", "authors_folder", "every", "inner_law", "judged_layouts", "paths_of",
    "run_job", "stored", "task",
]  # fmt: skip

#: Jobs: what learns, and all that is tuned or not even that.
OURS, RIVALS = "ours", "rivals"
BY_RULE, BY_ORCA = "proportional", "ORCA"
OUR_EXECUTOR, OUR_MATCHER = "our executor", "our matcher"
GREEDY_ROUNDING = "ours, plan rounded greedily"
_LAYOUT = 2
#: Rivals that decide again, too.
_AGAIN = ("hungarian", "hungarian, squares", "bottleneck", *INFORMED)
#: With which push away from mates the executor begins, beside the tuned controller.
_PUSH = 1.5
#: Of the held-out layouts; nothing was chosen by them. Some of 20 and 21 were seen while the recipe was made.
_HELD_OUT = 22


def every(method: str) -> str:
    """The name of a row in which goals are decided on again every five steps."""
    return f"{method}, every 5 steps"


@final
@dataclass(frozen=True)
class Arena:
    """A setting in which teams are trained and judged.

    Arguments:
        settings: of its worlds.
        sizes: team sizes that are judged.
        training_steps: of the episodes that are learned from.
        scale: of the generations, and of the layouts that a generation meets.
        safe: whether our executor corrects ORCA, instead of a proportional controller.
    """

    settings: NavigationSettings
    sizes: tuple[int, ...] = (5, 10, 20, 50)
    training_steps: int = 30
    scale: tuple[float, float] = (1.0, 1.0)
    safe: bool = False

    @property
    def assigned(self) -> tuple[str, ...]:
        """The assignments that are judged; the informed ones where straight lines say little."""
        informed = INFORMED if self.settings.start_speed or self.settings.pillars else ()
        return (*ASSIGNMENTS, *informed, RANDOM)


ARENAS: Mapping[str, Arena] = {
    "open": Arena(NavigationSettings()),
    "thrown": Arena(NavigationSettings(start_speed=2.0)),
    "pillars": Arena(NavigationSettings(start_speed=1.0, pillars=4), training_steps=40, scale=(0.7, 1.0), safe=True),
    "flight": Arena(NavigationSettings.flying(), (5, 20), 35, (0.4, 0.5)),
}  # fmt: skip


@final
@dataclass(frozen=True)
class Effort:
    """How much is run.

    Arguments:
        strategy: by which both halves are found; a generation has ``strategy.population`` members.
        generations: of the controller, of the executor, and of the matcher.
        layouts: that a generation meets.
        judged: held-out layouts of every size.
        arenas: in which.
        sizes: of the teams that are judged; None: those of the arena.
        rules: by which rivals steer.
        authors: whether the authors' layouts are judged, too, where they are there.
        agents: of the teams that learn.
        collision_steps: a pair that overlaps for a step costs as many steps, to what steers and to matchers. Matchers
            cannot do much about it but shorten the sum of the ways, which costs fifty agents more than five.
    """

    strategy: EvolutionStrategy
    generations: tuple[int, int, int]
    layouts: int = 32
    judged: int = 500
    arenas: tuple[str, ...] = tuple(ARENAS)
    sizes: tuple[int, ...] | None = None
    rules: tuple[str, ...] = (BY_RULE, BY_ORCA)
    authors: bool = True
    agents: int = 5
    collision_steps: tuple[float, float] = (3.0, 1.0)

    @property
    def members(self) -> int:
        """Of a generation."""
        assert self.strategy.population is not None
        return self.strategy.population

    def sizes_of(self, arena: Arena) -> tuple[int, ...]:
        """Team sizes that are judged; the largest is the one that claims are about."""
        return arena.sizes if self.sizes is None else self.sizes

    def generations_of(self, arena: Arena) -> tuple[int, int, int]:
        """Of the controller, of the executor, and of the matcher, at least 2."""
        first, second, third = (max(2, round(arena.scale[0] * count)) for count in self.generations)
        return first, second, third

    def layouts_of(self, arena: Arena) -> int:
        """That a generation meets, at least 2."""
        return max(2, round(arena.scale[1] * self.layouts))

    def rollouts(self, arena: Arena) -> int:
        """Episodes that ours learns from, the same for every seed."""
        return (sum(self.generations_of(arena)) * self.members + 1) * self.layouts_of(arena)


class Job(NamedTuple):
    """An arena, what is run in it, and a seed; rivals have seed 0."""

    arena: str
    what: str
    seed: int


class Judged(NamedTuple):
    """A row of a table.

    Arguments:
        task: arena and team size.
        method: who goes where, and how.
        reached: worlds in which all goals were occupied at once.
        steps: until then, of every world.
        collisions: overlapping pairs, summed over those steps, of every world.
        decision_ms: for the goals of one team, in ms of processor time.
    """

    task: str
    method: str
    reached: int
    steps: tuple[int, ...]
    collisions: tuple[int, ...]
    decision_ms: float


class Outcome(NamedTuple):
    """What came of a job.

    Arguments:
        judged: all rows.
        rollouts: episodes spent on learning.
        seconds: of processor time.
        executor: parameters of the executor, or gains of the proportional controller.
        matcher: parameters of the matcher, or gains of ORCA; empty where it does not fly.
    """

    judged: tuple[Judged, ...]
    rollouts: int
    seconds: float
    executor: tuple[float, ...]
    matcher: tuple[float, ...]


def task(arena: str, agents: int) -> str:
    """What a row's task is called."""
    return f"{arena}, {agents} agents"


def authors_folder() -> Path:
    """Where the authors' layouts would lie."""
    return Path(os.environ.get("MASP_LAYOUTS", Path(__file__).parents[2] / "shared" / "data" / "masp_layouts"))


def judged_layouts(effort: Effort, arena: str) -> dict[str, NavigationLayouts]:
    """The held-out layouts of an arena, by task; with the open one come those of the authors, where they are there."""
    found = {}
    for agents in effort.sizes_of(ARENAS[arena]):
        rng = np.random.default_rng([_HELD_OUT, agents, list(ARENAS).index(arena)])
        found[task(arena, agents)] = random_layouts(
            ARENAS[arena].settings, agents, effort.judged, rng, split=Split.HOLDOUT
        )  # fmt: skip
    if arena == "open" and effort.authors and authors_folder().is_dir():
        found |= {task("authors' layouts", agents): authors_layouts(authors_folder(), agents) for agents in (20, 50)}
    return found


def inner_law(arena: Arena) -> NDArray[np.float32] | None:
    """By which drones of an arena follow velocities; None where nobody flies."""
    return None if arena.settings.flight is None else evolved_inner_loop(UavSettings())


def _objective(effort: Effort, arena: Arena, *, training: bool, **given: Any) -> Navigation:
    steps = min(arena.training_steps, arena.settings.steps) if training else arena.settings.steps
    settings = arena.settings
    flight = None if settings.flight is None else replace(settings.flight, steps=steps * settings.flight.decide_every)
    given.setdefault("executor", NavigationExecutor(settings.pillars > 0, arena.safe))
    return Navigation(
        replace(settings, steps=steps, flight=flight), effort.agents, inner_loop=inner_law(arena),
        collision_steps=effort.collision_steps[given.get("learns") == "matcher"], select=0, holdout=0, **given,
    )  # fmt: skip


def _found(
    effort: Effort, arena: Arena, objective: Navigation, generations: int, seed: int,
    start: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:  # fmt: skip
    """The strategy's center after so many generations, whatever luck its members had."""
    budget = Budget(evaluations=generations * effort.members + (start is not None))
    result = search(
        objective, effort.strategy, seed=seed, batch_size=effort.members, shortlist=1, budget=budget,
        cases=FreshCases(effort.layouts_of(arena)), seeds=() if start is None else [start],
    )  # fmt: skip
    assert result.row is not None
    return np.asarray(result.row, np.float32)


def run_job(effort: Effort, job: Job) -> Outcome:
    """Tune a rule, begin with it to train the executor, then train the matcher with the executor frozen.

    Or tune the rivals' rules alike; and judge.
    """
    start, arena = time.process_time(), ARENAS[job.arena]
    if job.what == RIVALS:
        rules: dict[str, SteeringLaw] = {BY_RULE: ProportionalSteering()}
        if BY_ORCA in effort.rules and arena.settings.flight is None:
            rules[BY_ORCA] = OrcaSteering()
        rows = {}
        for name, law in rules.items():
            objective = _objective(effort, arena, training=True, executor=law, seed=job.seed)
            rows[name] = _found(effort, arena, objective, effort.generations_of(arena)[0], job.seed)
        judged = _rivals(effort, job.arena, rules, rows)
        told = (tuple(rows[name].tolist()) if name in rows else () for name in (BY_RULE, BY_ORCA))
        return Outcome(tuple(judged), 0, round(time.process_time() - start, 1), *told)
    first, second, third = effort.generations_of(arena)
    rule: SteeringLaw = OrcaSteering() if arena.safe else ProportionalSteering()
    controlled = _objective(effort, arena, training=True, executor=rule, seed=job.seed)
    gains = _found(effort, arena, controlled, first, job.seed)
    steered = _objective(effort, arena, training=True, seed=job.seed)
    start_row = np.zeros(steered.space.dimension, np.float32)
    start_row[[0, 6] if arena.safe else [0, 1]] = gains
    start_row[2] = 0.0 if arena.safe else _PUSH
    executor = _found(effort, arena, steered, second, job.seed, start_row)
    objective = _objective(effort, arena, training=True, learns="matcher", steering=executor, seed=job.seed)
    matcher = _found(effort, arena, objective, third, job.seed)
    judged = _ours(effort, job.arena, gains, executor, matcher)
    seconds = round(time.process_time() - start, 1)
    return Outcome(
        tuple(judged), effort.rollouts(arena), seconds, tuple(executor.tolist()), tuple(matcher.tolist())
    )  # fmt: skip


def _rivals(
    effort: Effort, arena: str, rules: Mapping[str, SteeringLaw], rows: Mapping[str, NDArray[np.float32]]
) -> list[Judged]:  # fmt: skip
    """Every assignment with every rule; with ORCA in the largest teams only; there some decide again, too."""
    found = []
    for name, law in rules.items():
        objective = _objective(effort, ARENAS[arena], training=False, executor=law, steering=rows[name])
        for said, layouts in judged_layouts(effort, arena).items():
            largest = layouts.agents == max(effort.sizes_of(ARENAS[arena]))
            if name == BY_ORCA and not largest:
                continue
            methods = [(f"{assigned}, {name}", assigned, None) for assigned in ARENAS[arena].assigned]
            if largest:
                methods += [(every(method), assigned, 5) for method, assigned, _ in methods if assigned in _AGAIN]
            found += [_judge(objective, said, method, layouts, one, again) for method, one, again in methods]
    return found


def _ours(
    effort: Effort, arena: str, gains: NDArray[Any], executor: NDArray[Any], matcher: NDArray[Any]
) -> list[Judged]:  # fmt: skip
    """Both halves; in the largest teams also each alone, and the plan rounded as agents could among themselves."""
    given = ARENAS[arena]
    rule: SteeringLaw = OrcaSteering() if given.safe else ProportionalSteering()
    ours = _objective(effort, given, training=False, learns="matcher", steering=executor)
    alone = _objective(effort, given, training=False, learns="matcher", executor=rule, steering=gains)
    apart = _objective(effort, given, training=False, learns="matcher", steering=executor)
    apart.matcher = GoalMatcher("greedy")
    found = []
    for said, layouts in judged_layouts(effort, arena).items():
        found.append(_judge(ours, said, OURS, layouts, matcher))
        if layouts.agents == max(effort.sizes_of(given)):
            found += [
                _judge(ours, said, every(OURS), layouts, matcher, 5),
                _judge(apart, said, GREEDY_ROUNDING, layouts, matcher),
                _judge(alone, said, f"{OUR_MATCHER}, {BY_ORCA if given.safe else BY_RULE}", layouts, matcher),
                *(_judge(ours, said, f"{assigned}, {OUR_EXECUTOR}", layouts, assigned) for assigned in given.assigned),
            ]
    return found


def _judge(
    objective: Navigation, said: str, method: str, layouts: NavigationLayouts, matcher: NDArray[Any] | str,
    again: int | None = None,
) -> Judged:  # fmt: skip
    objective.every = again
    outcome, _ = objective.play(layouts, matcher=matcher)
    return Judged(
        said, method, int(outcome.success.sum()), tuple(outcome.steps.tolist()), tuple(outcome.collisions.tolist()),
        _decision_ms(objective, layouts, matcher),
    )  # fmt: skip


def _decision_ms(objective: Navigation, layouts: NavigationLayouts, matcher: NDArray[Any] | str) -> float:
    """Median over some layouts."""
    decide, taken = objective.decide(matcher), []
    for world in range(min(20, len(layouts))):
        one = layouts.take([world])
        told = (np.asarray(part, np.float32) for part in (one.starts, one.velocities))
        start = time.perf_counter()
        decide(*told, one, np.zeros(1, np.intp))
        taken.append(time.perf_counter() - start)
    return float(np.round(1000 * np.median(taken), 3))


def paths_of(effort: Effort, arena: str, outcome: Outcome, layouts: NavigationLayouts) -> NavigationEpisode:
    """Ours in one layout, for pictures."""
    objective = _objective(effort, ARENAS[arena], training=False, learns="matcher", steering=np.array(outcome.executor))
    _, paths = objective.play(layouts, matcher=np.array(outcome.matcher, np.float32), record=True)
    assert paths is not None
    return NavigationEpisode(objective.settings, layouts, paths)


def stored(folder: Path | None, effort: Effort, job: Job) -> Outcome:
    """A job's outcome, kept for the settings that it was made with."""
    arena = ARENAS[job.arena]
    told = replace(effort, arenas=(), authors=effort.authors and authors_folder().is_dir())
    if job.what == RIVALS:
        steered = (effort.collision_steps[0], 0.0)
        told = replace(told, generations=(effort.generations[0], 0, 0), collision_steps=steered)
    made_by = repr((_LAYOUT, arena, told))
    return kept_run(folder, job, made_by, lambda: run_job(effort, job), _outcome)


def _outcome(document: Mapping[str, Any]) -> Outcome:
    judged = tuple(
        Judged(*one[:3], tuple(one[3]), tuple(one[4]), one[5]) for one in document["judged"]
    )  # fmt: skip
    halves = {name: tuple(document[name]) for name in ("executor", "matcher")}
    return Outcome(**{**document, "judged": judged, **halves})
