"""How often an evader is caught within smaller and smaller radii: a trained policy beside the heuristics."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from benchmarks.pursuit_arms import CYLINDER_TARGET, PROBLEMS
from benchmarks.pursuit_runs import Effort, Job, Outcome
from benchmarks.table import Table
from searchlib import Split
from searchlib.objectives import Pursuit, PursuitRange
from searchlib.objectives.pursuit_world import rollout

__all__ = ["RADII", "by_radius"]

#: In m, as the authors plotted them.
RADII = (0.5, 0.4, 0.3, 0.2, 0.12)
#: At which the tuned field is tuned.
_TUNED_AT = 0.2


def by_radius(table: Table, effort: Effort, outcomes: Mapping[Job, Outcome]) -> None:
    """Add the rows of all policies that were trained in the cylinder, and of the heuristics, in the authors' episodes.

    These last 800 steps of 0.016 s; training was shorter, in longer steps. All meet the same worlds.
    """
    problem = PROBLEMS[CYLINDER_TARGET]
    settings = replace(problem.settings, steps=effort.steps, dt=0.016)
    speed, size = problem.tasks.high[:2].tolist()
    objective = Pursuit(
        PursuitRange.only(speed, size, 0.0, _TUNED_AT), settings, hidden=problem.hidden,
        search=max(1, effort.judged // 10), select=0, holdout=0,
    )  # fmt: skip
    jobs = [job for job in outcomes if job.problem == CYLINDER_TARGET]
    centers = np.array([outcomes[job].center for job in jobs], np.float32)
    found: dict[tuple[str, int], list[float]] = {}
    for radius in RADII:
        row = f"captures within {radius:g} m, evader at {speed:g} m/s"
        tasks = PursuitRange.only(speed, size, 0.0, radius)
        worlds = tasks.uniform(np.random.default_rng(2), max(1, effort.judged // 5), split=Split.HOLDOUT)
        for name in objective.references():
            caught = rollout(settings, worlds, objective.heuristic(name), stop_at_capture=True).captured
            found.setdefault((name, 0), []).append(float(caught.mean()))
            table.add(row, name, captures=float(caught.mean()))
        rates = objective.outcome(centers, worlds, stop_at_capture=True).captured.reshape(len(jobs), -1).mean(axis=1)
        for job, rate in zip(jobs, rates.tolist(), strict=True):
            found.setdefault((job.arm, job.seed), []).append(rate)
            table.add(row, f"trained: {job.arm}", captures=rate)
    steps = [less - more for rates in found.values() for more, less in itertools.pairwise(rates)]
    table.claim(
        "nobody catches more within a smaller radius", value=max(steps), bound=0.0, n=len(found),
        test="largest gain from a radius to the next, over all pursuers", holds=max(steps) <= 0,
    )  # fmt: skip
