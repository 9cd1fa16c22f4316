"""Assignments beside all permutations, and Sinkhorn's plan beside its definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from searchlib.objectives.navigation_assignment import (
    ASSIGNMENTS,
    bottleneck,
    greedy,
    hungarian,
    random_assignment,
    round_greedily,
    sinkhorn,
)

COSTS = np.random.default_rng(0).random((12, 6, 6))
EVERY = np.array(list(itertools.permutations(range(6))))


def taken(costs, found):
    return np.take_along_axis(costs, found[..., None], axis=2)[..., 0]


def of_all(costs):
    """Costs of every permutation, shape ``(n, permutations, agents)``."""
    return costs[:, np.arange(6), EVERY]


def test_every_assignment_uses_every_goal_once():
    assert len(ASSIGNMENTS) == 4
    for assign in ASSIGNMENTS.values():
        np.testing.assert_array_equal(np.sort(assign(COSTS), axis=1), np.tile(np.arange(6), (12, 1)))


def test_the_hungarian_total_is_the_least_of_all_permutations():
    np.testing.assert_allclose(taken(COSTS, hungarian(COSTS)).sum(axis=1), of_all(COSTS).sum(axis=2).min(axis=1))
    squares = ASSIGNMENTS["hungarian, squares"](COSTS)
    np.testing.assert_allclose(
        (taken(COSTS, squares) ** 2).sum(axis=1), (of_all(COSTS) ** 2).sum(axis=2).min(axis=1)
    )  # fmt: skip


def test_the_bottleneck_is_the_least_of_all_permutations_and_its_ties_go_to_the_least_squares():
    found, every = taken(COSTS, bottleneck(COSTS)), of_all(COSTS)
    largest = every.max(axis=2)
    np.testing.assert_allclose(found.max(axis=1), largest.min(axis=1))
    among = np.where(np.isclose(largest, largest.min(axis=1, keepdims=True)), (every**2).sum(axis=2), np.inf)
    np.testing.assert_allclose((found**2).sum(axis=1), among.min(axis=1))
    assert (found.sum(axis=1) > taken(COSTS, hungarian(COSTS)).sum(axis=1) + 1e-9).any()


def test_equal_costs_everywhere_are_no_trouble():
    same = np.zeros((2, 3, 3))
    for assign in ASSIGNMENTS.values():
        np.testing.assert_array_equal(np.sort(assign(same), axis=1), [[0, 1, 2]] * 2)


def test_greedy_takes_the_cheapest_pair_that_is_left():
    for costs, found in zip(COSTS, greedy(COSTS), strict=True):
        left = costs.copy()
        for _ in range(6):
            agent, goal = np.unravel_index(left.argmin(), left.shape)
            assert found[agent] == goal
            left[agent], left[:, goal] = np.inf, np.inf


def test_chance_is_the_seeds_alone():
    found = random_assignment(COSTS, np.array([3, 4] * 6))
    np.testing.assert_array_equal(found[0], found[2])
    assert (found[0] != found[1]).any()
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(6), (12, 1)))


def test_a_plan_is_doubly_stochastic_and_keeps_the_products_of_scores():
    plan = sinkhorn(COSTS, temperature=0.3, rounds=200)
    np.testing.assert_allclose(plan.sum(axis=1), 1, atol=1e-9)
    np.testing.assert_allclose(plan.sum(axis=2), 1, atol=1e-6)
    assert (plan > 0).all()
    # Scaling rows and columns leaves all such ratios as they were.
    logs = np.log(plan)
    crossed = logs[:, 0, 0] + logs[:, 1, 1] - logs[:, 0, 1] - logs[:, 1, 0]
    given = (COSTS[:, 0, 0] + COSTS[:, 1, 1] - COSTS[:, 0, 1] - COSTS[:, 1, 0]) / 0.3
    np.testing.assert_allclose(crossed, given, atol=1e-6)


def test_a_plan_forgets_what_is_added_to_rows_and_columns_and_so_does_the_assignment():
    rng = np.random.default_rng(1)
    moved = COSTS + rng.random((12, 6, 1)) + rng.random((12, 1, 6))
    np.testing.assert_allclose(sinkhorn(moved, rounds=400), sinkhorn(COSTS, rounds=400), atol=1e-4)
    np.testing.assert_array_equal(hungarian(-moved), hungarian(-COSTS))
    np.testing.assert_array_equal(hungarian(-np.log(sinkhorn(COSTS, temperature=0.3))), hungarian(-COSTS))


@pytest.mark.parametrize("temperature", [1e-3, 0.3])
def test_a_cold_plan_rounded_greedily_is_the_best_assignment_and_a_warm_one_a_permutation(temperature):
    found = round_greedily(sinkhorn(COSTS, temperature=temperature, rounds=500))
    np.testing.assert_array_equal(np.sort(found, axis=1), np.tile(np.arange(6), (12, 1)))
    best = (found == hungarian(-COSTS)).all(axis=1).mean()
    assert best >= 0.9 if temperature < 0.01 else best < 0.9
