"""evotorch (Toklu et al., 2023): search distributions that follow an estimated gradient, for many reals."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.engine.instance import Meter, Spent
from searchlib.spaces import Real

__all__ = ["pgpe_clipup", "snes"]

Run = Callable[[Meter, np.random.Generator], None]


def pgpe_clipup(*, deviation: float = 0.3, population: int | None = None, speed: float = 10.0) -> Run:
    """PGPE with symmetric samples and centered ranks, and ClipUp, by evotorch's functional interface.

    As Toklu et al. (PPSN 2020, section 3) recommend, the largest step is in proportion to the radius of the first
    search distribution, and half of it is the learning rate; .1 for the deviations. They take a fifteenth; a tenth did
    better on the training problems within 1,000 to 3,000 evaluations.

    Arguments:
        deviation: of the first distribution, in tenths of the range.
        population: how many a generation; None for 4 + 3 ln n as evotorch's SNES has it, made even.
        speed: radius over the largest step.
    """

    def run(meter: Meter, rng: np.random.Generator) -> None:
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it compiles scripts, which torch no longer wants
            from evotorch.algorithms.functional import pgpe, pgpe_ask, pgpe_tell

        space = _real(meter)
        n, unit = space.dimension, (space.high - space.low) / 10
        torch.manual_seed(int(rng.integers(2**31)))
        members = population or 2 * ((5 + int(3 * np.log(n))) // 2)
        radius = deviation * unit * float(np.sqrt(n))
        state = pgpe(
            center_init=torch.full((n,), (space.low + space.high) / 2, dtype=torch.float64), radius_init=radius,
            center_learning_rate=radius / speed / 2, optimizer="clipup", optimizer_config={"max_speed": radius / speed},
            stdev_learning_rate=0.1, objective_sense="min",
        )  # fmt: skip
        while True:
            points = pgpe_ask(state, popsize=members)
            values = meter(np.clip(points.numpy(), space.low, space.high))
            if len(values) < members:
                raise Spent
            state = pgpe_tell(state, points, torch.as_tensor(values))

    return run


def snes(*, deviation: float = 0.2) -> Run:
    """Separable natural evolution strategies (Schaul et al., GECCO 2011), evotorch's class at its defaults.

    Arguments:
        deviation: of the first distribution, in tenths of the range.
    """

    def run(meter: Meter, rng: np.random.Generator) -> None:
        import torch

        logging.getLogger("evotorch").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it compiles scripts, which torch no longer wants
            from evotorch import Problem
            from evotorch.algorithms import SNES

        space = _real(meter)

        def values(points: Any) -> Any:
            shown = meter(np.clip(points.numpy(), space.low, space.high))
            if len(shown) < len(points):
                raise Spent
            return torch.as_tensor(shown)

        problem = Problem(
            "min", values, solution_length=space.dimension, initial_bounds=(space.low, space.high),
            dtype=torch.float64, vectorized=True, seed=int(rng.integers(2**31)),
        )  # fmt: skip
        searcher = SNES(
            problem, stdev_init=deviation * (space.high - space.low) / 10,
            center_init=torch.full((space.dimension,), (space.low + space.high) / 2, dtype=torch.float64),
        )  # fmt: skip
        while True:
            searcher.step()

    return run


def _real(meter: Meter) -> Real:
    space = meter.instance.space
    assert isinstance(space, Real)
    return space
