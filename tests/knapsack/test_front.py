"""The front over one budget is the Pareto front of all choices."""

import itertools

import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.knapsack import Knapsack, front


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(5)
    cost = rng.integers(1, 9, (2, 5, 4)).astype(float)
    return Knapsack(1 / cost[0] + 0.05 * rng.random((5, 4)), cost, [20, 28])


def pareto(problem):
    """Cost and loss of the choices that no other one is as good as in both, the second budget met."""
    rows = np.array(list(itertools.product(range(problem.options), repeat=problem.parts)))
    rows = rows[problem.cost_of(rows)[:, 1] <= problem.budgets[1]]
    points = sorted(set(zip(problem.cost_of(rows)[:, 0].tolist(), problem.loss_of(rows).tolist(), strict=True)))
    kept = []
    for cost, loss in points:
        if not kept or loss < kept[-1][1] - 1e-12:
            kept.append((cost, loss))
    return kept


def test_a_front_over_all_values_is_the_pareto_front(problem):
    expected = pareto(problem)
    assert len(expected) > 5
    found = front(problem, values=np.arange(expected[0][0], 41), gap=0)
    np.testing.assert_allclose([(one.cost[0], one.loss) for one in found], expected)
    assert all(one.cost[1] <= 28 for one in found)


def test_a_number_of_values_spans_the_front_from_end_to_end(problem):
    expected = pareto(problem)
    found = front(problem, values=9, gap=0)
    points = [(one.cost[0], one.loss) for one in found]
    assert points[0] == pytest.approx(expected[0])
    assert points[-1] == pytest.approx(expected[-1])
    assert 3 < len(points) <= 9
    costs, losses = zip(*points, strict=True)
    assert list(costs) == sorted(set(costs))
    assert list(losses) == sorted(set(losses), reverse=True)


def test_values_that_cannot_be_met_and_budgets_that_are_not_there_are_refused(problem):
    with pytest.raises(InvalidSettings, match="smallest possible cost"):
        front(problem, values=[1.0])
    with pytest.raises(InvalidSettings, match="number of one of 2 budgets"):
        front(problem, budget=2)
    with pytest.raises(InvalidSettings, match="values must be"):
        front(problem, values=[])
