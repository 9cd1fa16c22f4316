"""Conformance checks that anyone can import: a plug-in's test is one call."""

from searchlib.testing.algorithm import check_algorithm
from searchlib.testing.objective import check_objective
from searchlib.testing.space import check_space

__all__ = ["check_algorithm", "check_objective", "check_space"]
