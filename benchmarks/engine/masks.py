"""Binary masks (a1): pseudo-Boolean functions of IOHprofiler's PBO suite, and pruning masks with a price per bit."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.engine.instance import Instance, Values
from searchlib.space import Population
from searchlib.spaces import Binary

__all__ = ["TEST", "TRAIN", "make"]

#: Numbers of the suite (Doerr et al., *Benchmarking discrete optimization heuristics with IOHprofiler*, 2020).
_PBO = {
    "OneMax, rugged": 8, "OneMax, rugged 2": 9, "OneMax, rugged 3": 10, "LeadingOnes, epistasis": 14, "LABS": 18,
    "Ising ring": 19, "Ising torus": 20, "Ising triangular": 21, "independent set": 22, "N queens": 23,
    "concatenated trap": 24, "NK landscape": 25,
}  # fmt: skip
_PRICED = "priced mask"
#: Rules are made on every second function.
TRAIN = ("OneMax, rugged", "OneMax, rugged 3", "Ising ring", "independent set", "NK landscape", _PRICED)
TEST = ("OneMax, rugged 2", "LeadingOnes, epistasis", "LABS", "Ising torus", "N queens", "concatenated trap")
_BITS = 64


def make(problem: str, number: int) -> Instance:
    """An instance: the suite's own transformation of that number, or a mask drawn from the seed."""
    if problem == _PRICED:
        return _priced(number)
    import ioh

    function: Any = ioh.get_problem(_PBO[problem], number + 1, _BITS, ioh.ProblemClass.PBO)

    def truth(rows: Population) -> Values:
        return -np.array(function(np.asarray(rows, np.int64).tolist()), np.float64)

    return Instance(problem, number, Binary(_BITS), truth)


def _priced(number: int) -> Instance:
    """Which of 64 blocks to keep: what each is worth, what pairs are worth together, and a price for every block."""
    rng = np.random.default_rng([1, number])
    worth = rng.lognormal(0, 1, _BITS)
    pairs = np.triu(rng.normal(0, 1, (_BITS, _BITS)) * (rng.random((_BITS, _BITS)) < 0.08), 1)
    price = float(np.median(worth))

    def truth(rows: Population) -> Values:
        x = np.asarray(rows, np.float64)
        return np.asarray(price * x.sum(axis=1) - x @ worth - ((x @ pairs) * x).sum(axis=1))

    return Instance(_PRICED, number, Binary(_BITS), truth)
