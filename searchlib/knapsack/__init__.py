"""One option for every part within linear budgets: the multiple-choice knapsack, with a bound on what could be better.

Sparse attention (a rule for every head), mixed precision (bits for every layer) and pruning (a width for every block)
are this problem once losses are known, or assumed, to add up.
"""

from searchlib.knapsack.front import front
from searchlib.knapsack.problem import Allocated, Knapsack
from searchlib.knapsack.solve import Method, solve

__all__ = ["Allocated", "Knapsack", "Method", "front", "solve"]
