"""What a multi-UAV pursuit needs before its search: an inner loop and a predictor, made once and kept in the cache."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.model_cache import is_complete, store, user_cache
from searchlib import Budget, EvolutionStrategy, search
from searchlib.objectives.uav_heuristics import HEURISTICS
from searchlib.objectives.uav_inner_loop import VelocityTracking, linearized
from searchlib.objectives.uav_policy import UavNetwork
from searchlib.objectives.uav_predictor import UavPredictor, frames_and_futures
from searchlib.objectives.uav_settings import UavSettings
from searchlib.objectives.uav_tasks import uniform_tasks
from searchlib.objectives.uav_world import UavTeams, rollout

__all__ = ["evolved_inner_loop", "examples", "fitted_predictor"]

_STRATEGY = EvolutionStrategy(method="openai", population=32, sigma=0.2)
_LAYOUT = 2


def evolved_inner_loop(settings: UavSettings, *, generations: int = 60) -> NDArray[np.float32]:
    """The law that an evolution strategy makes of the linearized geometric one, shape ``(40,)``."""

    def make() -> dict[str, NDArray[Any]]:
        objective = VelocityTracking(settings)
        members = _STRATEGY.population or 0
        result = search(
            objective, _STRATEGY, budget=Budget(evaluations=members * generations + 1), seed=0, batch_size=members,
            shortlist=1, seeds=[linearized()],
        )  # fmt: skip
        assert result.row is not None
        return {"law": result.row}

    return np.asarray(_kept("uav-inner-loop", (settings, generations), make)["law"], np.float32)


def examples(settings: UavSettings, law: NDArray[np.float32], worlds: int, seed: int) -> tuple[Any, Any]:
    """Frames and true displacements from rollouts of the chase and the heuristics, ``worlds`` uniform tasks each."""
    network = UavNetwork()
    tasks = uniform_tasks(np.random.default_rng([seed, 9]), worlds)
    found = []
    for rows in (np.zeros((1, network.parameters), np.float32), tuple(HEURISTICS)):
        _, paths = rollout(settings, tasks, UavTeams(network, rows, law))
        found.append(frames_and_futures(paths.evader, paths.seen, paths.drones, paths.believed))
    frames, moved = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return frames, moved


def fitted_predictor(settings: UavSettings, law: NDArray[np.float32], *, worlds: int = 256) -> UavPredictor:
    """The predictor that has learned from such rollouts; every third example is used."""

    def make() -> dict[str, NDArray[Any]]:
        frames, moved = examples(settings, law, worlds, seed=0)
        return {f"{i}": part for i, part in enumerate(UavPredictor.fit(frames[::3], moved[::3]).weights)}

    kept = _kept("uav-predictor", (settings, worlds, law.tobytes().hex()), make)
    return UavPredictor((kept["0"], kept["1"], kept["2"], kept["3"]))


def _kept(name: str, made_by: tuple[Any, ...], make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """The arrays of a recipe: from the cache, or made now."""
    versions = {package: importlib.metadata.version(package) for package in ("jax", "crazyflow", "numpy")}
    settings, *others = made_by
    told = json.dumps([asdict(settings), others, versions, repr(_STRATEGY), platform.machine(), _LAYOUT])
    folder = user_cache() / f"{name}-{hashlib.sha256(told.encode()).hexdigest()[:20]}"

    def write(fresh: Path) -> None:
        for part, array in make().items():
            np.save(fresh / f"{part}.npy", array)

    if not is_complete(folder):
        store(folder, write)
    return {file.stem: np.load(file, allow_pickle=False) for file in sorted(folder.glob("*.npy"))}
