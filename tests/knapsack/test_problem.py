"""What a problem refuses, and how it counts."""

import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.knapsack import Knapsack

LOSS = np.array([[3.0, 2.0, 1.0], [6.0, np.inf, 4.0]])
COST = np.array([[[1.0, 2.0, 3.0], [1.0, np.nan, 3.0]]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": [1, 2]}, r"loss must have shape \(parts, options\)"),
        ({"loss": np.empty((2, 0))}, "at least one of each"),
        ({"loss": [[np.nan, 0, 0], [0, 0, 0]]}, r"loss\[0, 0\] is nan"),
        ({"loss": [[0, 0, 0], [0, -np.inf, 0]]}, r"loss\[1, 1\] is -inf"),
        ({"loss": [[0, 0, 0], [np.inf] * 3]}, "part 1 has no allowed option"),
        ({"loss": "many"}, "loss must be an array of numbers"),
        ({"cost": COST[0]}, r"cost must have shape \(budgets, parts, options\), here \(1, 2, 3\)"),
        ({"cost": COST * np.inf}, r"cost\[0, 0, 0\] is inf"),
        ({"budgets": [np.nan]}, "budgets must be numbers"),
        ({"budgets": [1.5]}, "the smallest possible cost, every part at its cheapest allowed option, is 2"),
        ({"groups": [0.5, 1]}, "groups must be 2 whole numbers"),
        ({"groups": [1]}, "groups must be 2 whole numbers"),
        ({"max_distinct": 0}, "max_distinct must be a whole number of at least 1"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    Knapsack(LOSS, COST, [4])
    with pytest.raises(InvalidSettings, match=message):
        Knapsack(**{"loss": LOSS, "cost": COST, "budgets": [4], **change})


def test_choices_are_counted_in_any_number_at_once():
    problem = Knapsack(LOSS, COST, [4], groups=[7, 7], max_distinct=1)
    choices = np.array([[[0, 0], [0, 2]], [[2, 2], [0, 1]]])
    assert problem.loss_of(choices).tolist() == [[9, 7], [5, np.inf]]
    assert problem.cost_of(choices)[..., 0].tolist() == [[2, 4], [6, 1]]
    assert problem.fits(choices).tolist() == [[True, False], [False, False]]
    assert problem.unlimited().fits(choices).tolist() == [[True, True], [False, False]]


def test_rounding_does_not_exclude_what_meets_a_budget_exactly():
    costs = np.full((1, 10, 1), 0.1)
    assert np.add.reduce([0.1] * 3) > 0.3
    assert Knapsack(np.zeros((3, 1)), costs[:, :3], [0.3]).fits([0, 0, 0])


def test_arrays_are_copied_and_cannot_be_changed():
    loss = LOSS.copy()
    problem = Knapsack(loss, COST, [4])
    loss[:] = 0
    assert problem.loss[0, 0] == 3
    with pytest.raises(ValueError, match="read-only"):
        problem.loss[0, 0] = 1
