"""This library's algorithms on an instance, through their ask and tell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.engine.instance import Meter
from searchlib import Algorithm
from searchlib.algorithms import Evidence, Problem, Status

__all__ = ["searched"]


def searched(algorithm: Callable[[], Algorithm], *, batch: int = 1) -> Callable[[Meter, np.random.Generator], None]:
    """Run an algorithm of the library; what it recommends is what counts."""

    def run(meter: Meter, rng: np.random.Generator) -> None:
        instance = meter.instance
        problem = Problem(
            instance.space, evaluations=meter.budget, batch_size=batch, noisy=instance.noise is not None
        )
        going = algorithm().start(problem, rng)
        while meter.left:
            asked = going.ask(min(batch, meter.left))
            if not len(asked):
                break  # it has nothing new to propose
            values = meter(asked.population)
            nothing = np.full(len(asked), np.nan)
            going.tell(
                Evidence(
                    asked.ids, asked.population, values[:, None], np.full(len(asked), Status.DONE, np.int8), nothing,
                    nothing[:, None],
                )
            )  # fmt: skip
        best = going.recommend(1)
        if len(best):
            meter.recommended = best[0]

    return run
