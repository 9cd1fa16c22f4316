"""The paper's loop does what the paper says, with the rates that it is given."""

from __future__ import annotations

import re

import numpy as np
import pytest

pytest.importorskip("torch")

from searchlib import search
from searchlib.algorithms.algorithm import Batch, Evidence, Problem, Status
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.objectives.checkpoint_described_loop import DescribedLoop
from searchlib.spaces import CheckpointCoefficients, Real
from searchlib.testing import check_algorithm

K = 12
GOAL = np.linspace(-0.4, 0.6, K) + 1 / K - 0.1


def told(batch: Batch, values: np.ndarray) -> Evidence:
    nothing = np.full(len(batch), np.nan)
    status = np.full(len(batch), Status.DONE, np.int8)
    return Evidence(batch.ids, batch.population, values[:, None], status, nothing, nothing[:, None])


def generations(loop: DescribedLoop, space: CheckpointCoefficients, count: int, seed: int = 0) -> list[np.ndarray]:
    """What is asked for in each generation, valued by the distance to GOAL in every block."""
    run = loop.start(Problem(space), np.random.default_rng(seed))
    asked = []
    for _ in range(count):
        batch = run.ask(1000)
        asked.append(batch.population)
        run.tell(told(batch, np.linalg.norm(space.by_block(batch.population) - GOAL, axis=(1, 2))))
    return asked


@pytest.mark.parametrize("space", [CheckpointCoefficients(6), CheckpointCoefficients(5, blocks=3)], ids=repr)
def test_the_contract_holds(space):
    check_algorithm(DescribedLoop(parents=4, children=3), space)


def test_it_starts_from_exponential_averages_at_ten_rates():
    first = generations(DescribedLoop(), CheckpointCoefficients(K), 1)[0]
    assert len(first) == len(DescribedLoop().decays) == 10
    weights = np.array([[decay ** (K - 1 - i) for i in range(K)] for decay in DescribedLoop().decays])
    np.testing.assert_allclose(first, weights / weights.sum(axis=1, keepdims=True), atol=1e-12)


def test_every_candidate_sums_to_one_in_every_block_and_signs_are_free():
    space = CheckpointCoefficients(K, blocks=2)
    rows = np.concatenate(generations(DescribedLoop(), space, 30))
    assert len(rows) == 10 + 29 * 10
    np.testing.assert_allclose(space.by_block(rows).sum(axis=2), 1)
    assert (rows[10:] < 0).any()
    assert space.contains(rows).all()


def test_children_that_only_copy_move_at_the_rate_and_by_the_scale_that_are_set():
    loop = DescribedLoop(parents=1, children=4000, uniform_rate=0, average_rate=0, decays=(1.0,))
    parent, children = _bred(loop)
    # The parent has equal coefficients, so those that did not move are the ones that are most frequent in a row.
    moved = np.abs(children - np.median(children, axis=1, keepdims=True)) > 1e-9
    assert moved.mean() == pytest.approx(0.15, abs=0.01)
    undone = children / np.median(children, axis=1, keepdims=True) * parent[0, 0]  # before the division by the sum
    assert (undone - parent[0, 0])[moved].std() == pytest.approx(0.1, rel=0.03)


def _bred(loop: DescribedLoop) -> tuple[np.ndarray, np.ndarray]:
    run = loop.start(Problem(CheckpointCoefficients(40)), np.random.default_rng(0))
    first = run.ask(1000)
    run.tell(told(first, np.zeros(len(first))))
    return first.population, run.ask(10_000).population


def test_crossover_mixes_or_averages_two_parents_as_often_as_set():
    loop = DescribedLoop(parents=2, children=6000, element_rate=0.0, decays=(0.0, 1.0))
    (last, average), children = _bred(loop)
    mean = (last + average) / 2
    means = (np.abs(children - mean) < 1e-9).all(axis=1).mean()
    copies = np.mean([(np.abs(children - one) < 1e-9).all(axis=1) for one in (last, average)], axis=1).sum()
    # Two parents are the same one half of the time, and every kind of child is then a copy.
    assert means == pytest.approx(0.35 / 2, abs=0.02)
    assert copies == pytest.approx(0.35 + 0.65 / 2, abs=0.02)


def test_only_the_best_become_parents():
    loop = DescribedLoop(parents=2, children=50, element_rate=0.0, decays=(0.0, 0.5, 0.9, 1.0))
    run = loop.start(Problem(CheckpointCoefficients(K)), np.random.default_rng(0))
    first = run.ask(10)
    run.tell(told(first, np.array([1.0, 4.0, 3.0, 2.0])))
    best = first.population[[0, 3]]
    children = run.ask(100).population
    assert len(children) == 50
    # All are affine combinations of the last checkpoint and the average: coefficients but the last are alike, or zero.
    spread = [set(np.round(row[:-1], 9)) for row in children / children.max(axis=1, keepdims=True)]
    assert all(len(values) <= 2 for values in spread)
    assert (np.abs(children[:, None] - best).max(axis=2).min(axis=1) < 1e-9).any()


def test_it_comes_closer_to_a_goal_that_no_average_reaches():
    space = CheckpointCoefficients(K)
    best = [
        min(np.linalg.norm(rows - GOAL, axis=1)) for rows in generations(DescribedLoop(), space, 60)
    ]
    assert min(best[1:]) < 0.6 * best[0]


def test_a_search_uses_it_and_counts_its_first_candidates():
    space = CheckpointCoefficients(K)
    result = search(
        lambda row: float(np.linalg.norm(np.array(row) - GOAL)), DescribedLoop(), space=space, budget=120
    )
    assert result.history.evaluations == 120
    assert result.value == pytest.approx(float(result.history.values.min()))


def test_failures_never_become_parents():
    run = DescribedLoop(decays=(1.0,)).start(Problem(CheckpointCoefficients(3)), np.random.default_rng(0))
    first = run.ask(5)
    nothing = np.full((1, 1), np.nan)
    run.tell(Evidence(first.ids, first.population, nothing, np.array([Status.FAILED], np.int8), nothing[0], nothing))
    assert len(run.recommend(5)) == 0
    assert CheckpointCoefficients(3).contains(run.ask(5).population).all()


def test_coefficients_whose_sum_is_nearly_zero_are_not_blown_up():
    space = CheckpointCoefficients(2)
    run = DescribedLoop().start(Problem(space), np.random.default_rng(0))
    fixed = space.repair(run._divided(np.array([[0.5, -0.5 + 1e-9], [3.0, 1.0]])))
    np.testing.assert_allclose(fixed, [[1.0, 0.0], [0.75, 0.25]], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"parents": 0}, "DescribedLoop(parents=…)"),
        ({"element_rate": 1.5}, "DescribedLoop(element_rate=…) must be in [0, 1], but is 1.5"),
        ({"uniform_rate": 0.7, "average_rate": 0.7}, "must not exceed 1 together, but are 0.7 and 0.7"),
        ({"scale": 0.0}, "must be a positive number, but is 0.0"),
        ({"decays": ()}, "must be rates in [0, 1], but is ()"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, sentence):
    with pytest.raises(InvalidSettings, match=re.escape(sentence)):
        DescribedLoop(**settings)


def test_a_space_without_checkpoints_is_refused():
    with pytest.raises(MissingOperator, match=r"use it on CheckpointCoefficients, and Evolution\(\) elsewhere"):
        DescribedLoop().start(Problem(Real(0.0, 1.0)), np.random.default_rng(0))
