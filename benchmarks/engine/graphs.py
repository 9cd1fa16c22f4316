"""Submodular problems on real graphs (Neumann et al., GECCO 2023), by the GRAPH suite of IOHprofiler's ``ioh``.

Maximum cut is a mask, maximum coverage with at most ten vertices a subset of ten: more never cover less. Instances with
chance constraints are no exact subsets; maximum influence (4,039 vertices) is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.engine.instance import Instance, Values
from searchlib.space import Population
from searchlib.spaces import Binary, Subset

__all__ = ["COVERAGES", "CUTS", "coverage", "cut"]

#: Numbers of the suite. An instance is one of these graphs: every fifth cut and fourth coverage is the same one.
CUTS = {"maximum cut": range(2000, 2005)}
COVERAGES = {"maximum coverage": range(2100, 2104)}
_KEPT = 10


def cut(problem: str, number: int) -> Instance:
    """The vertices of one side, on a graph of 800."""
    function = _graph(CUTS[problem], number)
    return Instance(problem, number, Binary(function.meta_data.n_variables), _negative(function))


def coverage(problem: str, number: int) -> Instance:
    """Ten vertices of a graph of 450 to 760, and what they and their neighbors weigh."""
    function = _graph(COVERAGES[problem], number)
    n = function.meta_data.n_variables
    of_mask = _negative(function)

    def truth(rows: Population) -> Values:
        mask = np.zeros((len(rows), n), np.int64)
        np.put_along_axis(mask, np.asarray(rows, np.int64), 1, axis=1)
        return of_mask(mask)

    return Instance(problem, number, Subset(n, k=_KEPT), truth)


def _graph(which: Sequence[int], number: int) -> Any:
    import ioh

    return ioh.get_problem(which[number % len(which)], 1, problem_class=ioh.ProblemClass.GRAPH)


def _negative(function: Any) -> Callable[[Population], Values]:
    def truth(rows: Population) -> Values:
        return -np.array(function(np.asarray(rows, np.int64).tolist()), np.float64)

    return truth
