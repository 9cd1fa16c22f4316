"""OPEN: three quadrotors catch a faster evader among cylinders, with thrust and body rates (arXiv 2409.15866).

https://arxiv.org/abs/2409.15866, https://github.com/thu-uav/Multi-UAV-pursuit-evasion.

Reproduced: the arena, the cylinders, who sees whom, the evader's forces, capture only with free sight, what counts as a
collision, the uniform generator of tasks and the four scenarios of the evaluation; a network that predicts the evader
from ten frames, trained apart from the policy. Rotors, rigid body and rate controller are those of the ``crazyflow``
package, at 500 Hz. Not reproduced: MAPPO and its reward. Here an evolution strategy ranks policies by captures without
a collision; a policy gives velocity commands, on top of a chase that it tunes, and an inner loop, which was evolved
before, makes them thrust and body rates; a layer for safety bends commands that lead into something. The heuristics are
flown by the same inner loop and layer.

At full size: ``UavPursuit(predictor=predictor, inner_loop=law)`` with an evolved law and a fitted predictor, which
``benchmarks/uav_recipes.py`` makes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objective import Objective, Scores
from searchlib.objectives.pursuit_tasks import require_other_seeds, seeds_of
from searchlib.objectives.uav_heuristics import HEURISTICS
from searchlib.objectives.uav_outcome import UavOutcome
from searchlib.objectives.uav_policy import UavNetwork
from searchlib.objectives.uav_predictor import UavPredictor
from searchlib.objectives.uav_settings import UavSettings
from searchlib.objectives.uav_tasks import UavTasks, UavTaskSpace, uniform_tasks
from searchlib.objectives.uav_world import GROUPS, WIDTH, UavPaths, UavTeams, rollout
from searchlib.space import Candidates

__all__ = ["UavPursuit"]


@final
class UavPursuit(Objective):
    """Does a team of three drones catch the evader, and touch nothing in the whole episode? 1 or 0 per task.

    Candidates are rows of parameters of the policy that the drones share. What breaks ties (secondary scores) is a sum:
    when the first capture was, as a share of the episode, 1 for a collision, and the least distance in m.

    Arguments:
        settings: of all worlds.
        inner_loop: numbers of the law that turns velocities to thrust and body rates, shape ``(40,)``;
            such as :func:`~searchlib.objectives.uav_inner_loop.linearized`, or what an evolution makes of it
            (``benchmarks/uav_recipes.py``).
        predictor: where the evader will be; None: policies know only where it was last seen.
        hidden: widths of the policy's hidden layers.
        safe: whether commands pass the layer for safety, the heuristics' too.
        search: how many uniform tasks to learn on, or the tasks themselves; a curriculum brings its own.
        select: tasks on which the winner is picked from the short list.
        holdout: tasks on which the winner and the heuristics are compared, such as ``scenario_tasks("wall", 500)``.
        seed: another seed is other tasks.

    Raises:
        InvalidSettings: an inner loop of another length, or tasks of two splits with a seed in common.
    """

    direction: Literal["maximize"] = "maximize"
    value_names = ("captured without collision",)
    chunk_rows = GROUPS
    chunk_cases = WIDTH

    def __init__(
        self,
        settings: UavSettings | None = None,
        *,
        inner_loop: NDArray[Any],
        predictor: UavPredictor | None = None,
        hidden: tuple[int, ...] = (16,),
        safe: bool = True,
        search: int | UavTasks = WIDTH,
        select: int | UavTasks = 0,
        holdout: int | UavTasks = 512,
        seed: int = 0,
    ) -> None:
        self.settings = UavSettings() if settings is None else settings
        self.network = UavNetwork(tuple(hidden))
        self.predictor, self.safe = predictor, bool(safe)
        self.inner_loop = np.asarray(inner_loop, np.float32)
        if self.inner_loop.shape != (40,) or not np.isfinite(self.inner_loop).all():
            raise InvalidSettings(f"inner_loop must be 40 finite numbers, but has shape {self.inner_loop.shape}")
        self.space = self.network.space()
        given = {Split.SEARCH: search, Split.SELECT: select, Split.HOLDOUT: holdout}
        self._splits = {split: self._drawn(split, amount, seed) for split, amount in given.items()}
        require_other_seeds(
            {split: tasks.seeds for split, tasks in self._splits.items()},
            "uniform_tasks and scenario_tasks draw seeds that never meet for the split= they are told",
        )
        #: What a curriculum makes tasks of: OPEN's generator.
        self.task_space = UavTaskSpace.default()

    def _drawn(self, split: Split, amount: int | UavTasks, seed: int) -> UavTasks:
        if isinstance(amount, UavTasks):
            return amount
        count = whole_number(split.value, amount, 1 if split is Split.SEARCH else 0)
        rng = np.random.default_rng([whole_number("seed", seed, 0), list(Split).index(split)])
        return uniform_tasks(rng, count, split=split)

    def cases(self, split: Split) -> Cases:
        """The tasks of a split."""
        return self._splits[split].cases()

    def task_cases(self, tasks: NDArray[Any], seeds: NDArray[np.int64]) -> Cases:
        """Cases of a curriculum's tasks; their seeds are ones that SELECT and HOLDOUT never have."""
        return UavTasks(tasks, seeds_of(Split.SEARCH, seeds)).cases()

    def teams(self, rows: NDArray[Any] | tuple[str, ...]) -> UavTeams:
        """Teams that follow rows of parameters ``(n, parameters)``, or heuristics by name."""
        given = rows if isinstance(rows, tuple) else np.asarray(rows, np.float32)
        return UavTeams(self.network, given, self.inner_loop, self.predictor, self.safe)

    def evaluate(self, candidates: Candidates, cases: Cases) -> Scores:
        """Captures without collision, shape ``(n, c)``, with how late the capture was as secondary scores."""
        outcome = self.outcome(candidates.array, UavTasks.of(cases.payload or ()))
        shape = (len(candidates), len(cases))
        late = outcome.first_capture_step / self.settings.steps + outcome.collided + outcome.min_distance
        return Scores(outcome.success.reshape(shape).astype(np.float64), secondary=late.reshape(shape))

    def outcome(self, rows: NDArray[Any] | tuple[str, ...], tasks: UavTasks) -> UavOutcome:
        """All that happens when every row (or heuristic) meets every task, worlds in the order row by row."""
        return rollout(self.settings, tasks, self.teams(rows))[0]

    def paths(self, rows: NDArray[Any] | tuple[str, ...], tasks: UavTasks) -> UavPaths:
        """Where everything was in the same worlds, for pictures."""
        return rollout(self.settings, tasks, self.teams(rows))[1]

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """Simulated control steps."""
        return float(len(candidates) * len(cases) * self.settings.steps)

    def references(self) -> tuple[str, ...]:
        """The heuristics."""
        return tuple(HEURISTICS)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Captures of a heuristic without collision, shape ``(c,)``."""
        return self.outcome((name,), UavTasks.of(cases.payload or ())).success.astype(np.float64)

    def fingerprint(self) -> Mapping[str, Any]:
        """Settings, networks, layer and inner loop; the tasks are told apart by the ids of their cases."""
        learned = [self.inner_loop, *(() if self.predictor is None else self.predictor.weights)]
        return {
            "objective": "UavPursuit", "settings": json.loads(json.dumps(asdict(self.settings))),
            "hidden": list(self.network.hidden), "safe": self.safe, "predicts": self.predictor is not None,
            "learned": zlib.crc32(b"".join(part.tobytes() for part in learned)),
        }  # fmt: skip
