"""Allocation from nothing but evaluations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from searchlib import ProbedAllocation, search
from searchlib.errors import InvalidSettings, MissingOperator
from searchlib.spaces import Allocation, Binary
from searchlib.testing import check_algorithm

BITS = (2, 3, 4, 6, 8)


def layers(n, mean=4.0, seed=0):
    """A space of n layers of unequal size, and what each loses at each width: a quarter per bit."""
    rng = np.random.default_rng(seed)
    sizes = np.round(rng.lognormal(0, 0.7, n) * 20).clip(1)
    costs = tuple(tuple(float(size * bits) for bits in BITS) for size in sizes)
    names = tuple(f"layer {i}" for i in range(n))
    space = Allocation(names, BITS, costs=(costs,), budgets=(float(mean * sizes.sum()),))
    loss = rng.lognormal(0, 1.2, n)[:, None] * 4.0 ** -np.array(BITS, float)
    return space, loss


def total(loss):
    return lambda bits: float(sum(loss[part, BITS.index(width)] for part, width in enumerate(bits)))


@pytest.mark.parametrize(
    "space",
    [
        layers(5)[0],
        Allocation(tuple("abcd"), BITS, costs=((BITS,) * 4,), budgets=(16.0,), groups=(0, 0, 1, 1), max_distinct=1),
        Allocation(tuple("abc"), ("x", "y")),
        Allocation(tuple("abc"), BITS, costs=((BITS,) * 3,), budgets=(12.0,), allowed=((True,) * 5, (False,) * 2 + (
            True,) * 3, (True, False) * 2 + (True,))),
    ],
    ids=["budget", "two rules", "no budget", "not everything allowed"],
)  # fmt: skip
def test_the_contract_holds(space):
    check_algorithm(ProbedAllocation(), space)


def test_it_finds_the_optimum_that_brute_force_finds():
    space, loss = layers(6, seed=3)
    function = total(loss)
    best = min(
        function(bits) for bits in itertools.product(BITS, repeat=6) if space.contains(_row(space, bits))[0]
    )
    found = search(function, ProbedAllocation(), space=space, budget=60)
    assert found.value == pytest.approx(best, rel=1e-9)


def _row(space, bits):
    return np.array([[BITS.index(width) for width in bits]])


def test_a_sum_is_solved_as_soon_as_the_parts_were_probed():
    """Forty layers, a hundred evaluations: within five percent of the integer program that knows every loss."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    for seed in range(3):
        space, loss = layers(40, seed=seed)
        costs = space.costs_array[0]
        n, m = costs.shape
        exact = milp(
            loss.ravel(), integrality=np.ones(n * m), bounds=Bounds(0, 1),
            constraints=[
                LinearConstraint(np.kron(np.eye(n), np.ones(m)), 1, 1),
                LinearConstraint(costs.reshape(1, -1), -np.inf, space.budgets_array[0]),
            ],
        )  # fmt: skip
        found = search(total(loss), ProbedAllocation(), space=space, budget=100, seed=seed)
        assert found.value <= 1.05 * exact.fun
        assert (space.cost_of(found.history.population) <= space.budgets_array).all(), "the probes too"


def test_the_notes_say_what_was_probed_and_put_promise_and_truth_side_by_side():
    space, loss = layers(10)
    notes = search(total(loss), ProbedAllocation(), space=space, budget=60).notes
    assert 10 <= notes["probes"] <= 36
    exact = notes["portfolio"][0]["notes"]["additive"]
    assert exact["bound"] <= exact["loss"]
    assert exact["joint"] is not None


def test_it_resumes_to_the_bit(tmp_path):
    space, loss = layers(8)
    whole = search(total(loss), ProbedAllocation(), space=space, budget=64, batch_size=8)
    search(total(loss), ProbedAllocation(), space=space, budget=64, batch_size=8, study=tmp_path / "a.db")
    again = search(total(loss), ProbedAllocation(), space=space, budget=64, batch_size=8, study=tmp_path / "a.db")
    assert again.history.digest == whole.history.digest
    assert len(whole.history) == 64


def test_other_spaces_are_refused():
    with pytest.raises(MissingOperator, match="AllocationSpace"):
        search(sum, ProbedAllocation(), space=Binary(4), budget=4)


@pytest.mark.parametrize("settings", [{"share": 0.0}, {"share": 1.0}, {"local": 3}])
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(InvalidSettings, match=next(iter(settings))):
        ProbedAllocation(**settings)
