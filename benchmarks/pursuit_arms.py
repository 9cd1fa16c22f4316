"""Problems of pursuit, and the curricula that are compared on them.

Policies are ranked by success alone, as sparse as the authors' fitness is, but for one arm: there the least distance
to the evader, which simulators know, ranks members of equal success.

Problems, thresholds and the strategy were chosen with seeds from 1000 on: a target is one that training on it alone has
not learned at half the budget, while a ladder has.

Where an arm is somebody's method, its numbers are the authors' but for two, which no short run could keep: a ladder's
next rung is reached at a success of 0.6 (DualCL: 0.98), because what is counted here is the success of noisy members
and not of the policy; and TaskFlex Solver's grid is played ten times in a run (theirs: every 100 iterations of 15,000
and more).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, final

from searchlib import Curriculum, Ladder, TaskArchive
from searchlib.objectives import PursuitRange, PursuitSettings
from searchlib.objectives.pursuit_tasks import TASK_AXES

__all__ = [
    "ARMS", "CURRICULA", "CYLINDER_TARGET", "DUALCL", "ON_TARGET", "OURS", "PROBLEMS", "SHAPED", "TARGET", "UNIFORM",
    "Problem", "Training",
]  # fmt: skip

TARGET, SHAPED, UNIFORM = "target only", "target only, distance breaks ties", "uniform"
DUALCL, OURS = "DualCL ladders", "ladder, learnability and uniform"
#: Where success of the members takes a ladder to its next rung, and how many there are (DualCL: 10).
_THRESHOLD, _RUNGS = 0.6, 10
#: The first where other tasks than the hardest are met, too.
_SOONER = 0.4


@final
@dataclass(frozen=True)
class Problem:
    """What a policy is to learn.

    Arguments:
        settings: of all worlds.
        tasks: what there is to train on.
        widest: capture radius at which ladders begin.
        generations: how long, in the presets that make claims.
        is_target: whether the policy is judged on one task, the hardest of ``tasks`` (the fastest evader in the largest
            arena, to be caught within the smallest radius), or on a grid of all of them.
        hidden: layers of the policy.
    """

    settings: PursuitSettings
    tasks: PursuitRange
    widest: float
    generations: int
    is_target: bool
    hidden: tuple[int, ...] = (16, 16)

    @property
    def hardest(self) -> PursuitRange:
        """The one task."""
        speed, size, obstacle_speed, _ = self.tasks.high.tolist()
        return PursuitRange.only(speed, size, obstacle_speed, float(self.tasks.low[3]))

    @property
    def varied(self) -> tuple[str, ...]:
        """The axes of the tasks that are not fixed, and the capture radius, on which ladders go."""
        free = dict(zip(TASK_AXES, self.tasks.low < self.tasks.high, strict=True))
        return tuple(name for name in TASK_AXES if free[name] or name == "capture_radius")


class Training(NamedTuple):
    """Where tasks are drawn from, which ones are, and whether the least distance ranks members of equal success."""

    tasks: PursuitRange
    curriculum: Curriculum
    distance: bool = False


Arm = Callable[[Problem, int], Training]

#: Speed of obstacles where it does not vary, in m/s.
_STEADY = (1.0, 1.0)


def _target(problem: Problem, generations: int) -> Training:
    del generations
    return Training(problem.hardest, Curriculum(share=0.0))


def _shaped(problem: Problem, generations: int) -> Training:
    return _target(problem, generations)._replace(distance=True)


def _uniform(problem: Problem, generations: int) -> Training:
    del generations
    return Training(problem.tasks, Curriculum(share=0.0))


def _taskflex(problem: Problem, generations: int) -> Training:
    free = int((problem.tasks.low < problem.tasks.high).sum())
    return Training(
        problem.tasks,
        Curriculum(
            low=0.5, high=0.95, share=0.9, decay=2.0, repeat=True, grid=(4,) * free, every=max(1, generations // 10)
        ),
    )


def _open(problem: Problem, generations: int) -> Training:
    """Its noise is 0.1 m in an arena 1.8 m wide."""
    del generations
    archive = TaskArchive(capacity=5000)
    return Training(problem.tasks, Curriculum(low=0.5, high=0.9, share=0.7, expansion=0.055, archive=archive))


def _learnability(problem: Problem, generations: int) -> Training:
    del generations
    return Training(
        problem.tasks, Curriculum(low=0.15, high=0.85, share=0.7, weights="learnability", expansion=0.05, forget=True)
    )


def _radius(problem: Problem, threshold: float = _THRESHOLD) -> Ladder:
    return Ladder("capture_radius", problem.widest, float(problem.tasks.low[3]), _RUNGS, threshold)


def _ladders(problem: Problem, generations: int) -> Training:
    """The capture radius, then the evader's speed; over a range, where speed is part of the task, the radius alone."""
    del generations
    if not problem.is_target:
        return Training(problem.tasks, Curriculum(share=0.0, ladders=(_radius(problem),)))
    low, high = float(problem.tasks.low[0]), float(problem.tasks.high[0])
    speed = Ladder("evader_speed", low, high, _RUNGS, _THRESHOLD)
    return Training(problem.hardest, Curriculum(share=0.0, ladders=(_radius(problem), speed)))


def _ours(problem: Problem, generations: int) -> Training:
    del generations
    return Training(
        problem.tasks,
        Curriculum(
            low=0.05, high=0.95, share=0.5, weights="learnability", expansion=0.1, forget=True,
            ladders=(_radius(problem, _SOONER),),
        ),
    )  # fmt: skip


ARMS: Mapping[str, Arm] = {
    TARGET: _target,
    SHAPED: _shaped,
    UNIFORM: _uniform,
    "TFS archive": _taskflex,
    "OPEN archive": _open,
    "learnability archive": _learnability,
    DUALCL: _ladders,
    OURS: _ours,
}
#: Those that make sense only where there is a target.
ON_TARGET = (TARGET, SHAPED)
#: Those that decide by success what comes next.
CURRICULA = tuple(arm for arm in ARMS if arm not in (*ON_TARGET, UNIFORM))

#: The name of the problem whose policies are judged on all capture radii.
CYLINDER_TARGET = "target in a cylinder"

PROBLEMS: Mapping[str, Problem] = {
    "target for two": Problem(
        PursuitSettings(pursuers=2),
        PursuitRange(evader_speed=(1.0, 3.5), half_size=(0.5, 1.8), obstacle_speed=_STEADY, capture_radius=(0.06, 0.6)),
        widest=0.6, generations=80, is_target=True,
    ),
    "target in 3-D": Problem(
        PursuitSettings(dimension=3, obstacles=5),
        PursuitRange(evader_speed=(1.3, 2.4), half_size=(0.5, 0.8), obstacle_speed=_STEADY, capture_radius=(0.15, 0.5)),
        widest=0.5, generations=80, is_target=True,
    ),
    CYLINDER_TARGET: Problem(
        PursuitSettings(dimension=3, pursuers=4, obstacles=0, arena="cylinder", steps=200, collision_radius=0.05),
        PursuitRange(
            evader_speed=(1.3, 2.4), half_size=(0.9, 0.9), obstacle_speed=(0.0, 0.0), capture_radius=(0.12, 0.5)
        ),
        widest=0.5, generations=80, is_target=True,
    ),
    "range": Problem(
        PursuitSettings(),
        PursuitRange(evader_speed=(1.0, 3.5), half_size=(0.5, 2.2), obstacle_speed=(0.5, 2.0)),
        widest=0.4, generations=60, is_target=False,
    ),
    "sparse range for two": Problem(
        PursuitSettings(pursuers=2),
        PursuitRange(
            evader_speed=(1.0, 4.0), half_size=(0.5, 2.2), obstacle_speed=(0.5, 2.0), capture_radius=(0.08, 0.08)
        ),
        widest=0.6, generations=60, is_target=False,
    ),
}  # fmt: skip
