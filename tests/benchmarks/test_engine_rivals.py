"""Every row of the engine's suite keeps the rules: all of its budget, feasible candidates, a recommendation."""

from __future__ import annotations

import contextlib
import importlib.util

import numpy as np
import pytest

from benchmarks.engine import encodings, papers
from benchmarks.engine.families import FAMILIES
from benchmarks.engine.instance import Instance, Meter, Spent
from benchmarks.engine.methods import METHODS, available
from searchlib.spaces import Affine, Allocation, Binary, Categorical, Integer, Product, Real, Simplex, Subset

ROWS = [(family, name) for family, methods in METHODS.items() for name in methods]
#: Probes of one part at a time, which the rule allows, may cost more than the budget of parts.
PROBES = {"additive program, then switches"}


def watched(instance, rows_seen):
    def truth(rows):
        rows_seen.append(np.array(rows))
        return instance.truth(rows)

    return Instance(instance.problem, instance.number, instance.space, truth, instance.noise)


def spent(method, instance, budget, seed=0):
    seen = []
    meter = Meter(watched(instance, seen), budget, np.random.default_rng(seed))
    with contextlib.suppress(Spent):
        method(meter, np.random.default_rng([1, seed]))
    return meter, np.concatenate(seen)


def an_instance_for(family, name):
    """The first problem that the row is made for, and for which its packages are here."""
    known = FAMILIES[family]
    for problem in (*known.train, *known.test):
        try:
            instance = known.make(problem, 0)
        except ModuleNotFoundError:
            continue
        if name in available(family, type(instance.space).__name__, instance.space.latent_dimension):
            return instance
    raise AssertionError(f"no problem of {family} is one for {name}")


@pytest.mark.parametrize(("family", "name"), ROWS, ids=lambda word: word.replace(" ", "-"))
def test_a_row_spends_its_budget_on_feasible_candidates_and_recommends_one(family, name):
    missing = [package for package in METHODS[family][name].needs if importlib.util.find_spec(package) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed")
    instance, budget = an_instance_for(family, name), 11 if METHODS[family][name].slow else 33
    meter, rows = spent(METHODS[family][name].run, instance, budget)
    assert len(meter.curve) == budget
    if name not in PROBES:
        assert instance.space.contains(rows[:budget].astype(instance.space.dtype)).all()
    assert np.isfinite(meter.outcome())
    if meter.recommended is not None:
        assert instance.space.contains(np.asarray(meter.recommended)[None].astype(instance.space.dtype)).all()


SPACES = {
    "subset": Subset(12, k=5), "bits": Binary(7), "weights": Simplex(6),
    "allocation": Allocation(
        tuple("abcd"), (2, 4, 8), costs=(tuple((2.0 * n, 4.0 * n, 8.0 * n) for n in (1, 3, 2, 5)),), budgets=(44.0,)
    ),
    "mixed": Product(
        method=Categorical(("a", "b", "c"), length=2), level=Integer(-1, 4, length=3), rate=Real(0.5, 2.0, length=2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize("encoding", ["native", "latent", "divided", "exponential"])
def test_all_that_an_encoding_can_say_is_in_the_space(name, encoding):
    space = SPACES[name]
    if encoding in ("divided", "exponential") and name != "weights":
        pytest.skip("two ways to weights")
    seen, rng = encodings.codec(space, encoding), np.random.default_rng(0)
    low, high = np.array([(variable.low, variable.high) for variable in seen.variables]).T
    whole = np.array([variable.kind != "real" for variable in seen.variables])
    points = rng.uniform(low, high, (200, len(low)))
    points[:, whole] = np.floor(rng.uniform(low, high + 1, (200, len(low))))[:, whole]
    points[0], points[1] = low, high
    rows = seen.decode(points)
    assert space.contains(rows.astype(space.dtype)).all()
    assert len(np.unique(rows, axis=0)) > 20
    assert len({variable.name for variable in seen.variables}) == len(seen.variables)


def test_bits_of_a_whole_subset_and_levels_within_a_budget_are_taken_as_they_are():
    subset = SPACES["subset"]
    kept = subset.sample(np.random.default_rng(0), 20)
    bits = np.zeros((20, 12))
    np.put_along_axis(bits, kept.astype(int), 1.0, axis=1)
    np.testing.assert_array_equal(encodings.codec(subset, "native").decode(bits), kept)
    allocation = SPACES["allocation"]
    levels = allocation.sample(np.random.default_rng(0), 20)
    np.testing.assert_array_equal(encodings.codec(allocation, "native").decode(levels.astype(float)), levels)


def test_the_exponential_encoding_is_uniform_on_the_simplex():
    """Uniform numbers must become Dirichlet(1, …, 1): the mean of a weight is 1/n, its variance (n − 1)/(n²(n + 1))."""
    n, rng = 5, np.random.default_rng(0)
    weights = encodings.codec(Simplex(n), "exponential").decode(rng.random((40_000, n)))
    np.testing.assert_allclose(weights.mean(axis=0), 1 / n, atol=3e-3)
    np.testing.assert_allclose(weights.var(axis=0), (n - 1) / (n**2 * (n + 1)), rtol=0.03)


def test_eep_starts_from_31_subsets_and_changes_fifteen_in_a_hundred_members():
    space = Subset(200, k=100)
    truth = lambda rows: -np.asarray(rows, float).sum(axis=1)  # noqa: E731
    _, rows = spent(papers.eep, Instance("sum", 0, space, truth), 331)
    assert len(np.unique(rows[:31], axis=0)) == 31
    nearest = [max(len(np.intersect1d(rows[at], parent)) for parent in rows[:at]) for at in range(31, len(rows))]
    # 15 of 100 are drawn anew from 101 to 115 others each: few come back.
    assert 100 - np.mean(nearest) == pytest.approx(15, abs=1.5)


@pytest.mark.parametrize("space", [Simplex(30), Affine(30)], ids=["simplex", "affine"])
def test_lcsc_starts_from_exponential_averages_and_finds_better_weights(space):
    wanted = np.random.default_rng(3).dirichlet(np.ones(30))
    truth = lambda rows: ((np.asarray(rows) - wanted) ** 2).sum(axis=1)  # noqa: E731
    meter, rows = spent(papers.lcsc, Instance("near", 0, space, truth), 400)
    np.testing.assert_allclose(rows[0], np.eye(30)[-1], err_msg="rate 0: the last one")
    np.testing.assert_allclose(rows[9], 1 / 30, err_msg="rate 1: all alike")
    ages = np.arange(30)[::-1]
    np.testing.assert_allclose(rows[4], 0.9**ages / (0.9**ages).sum())
    assert (rows.min() < 0) == isinstance(space, Affine)
    assert meter.outcome() < truth(rows[:10]).min()


def test_s3_takes_the_best_levels_of_a_sum():
    space = Product(
        method=Categorical(tuple("abcd"), length=4), level=Integer(0, 7, length=3), rate=Real(0, 1, length=2)
    )  # fmt: skip
    best = np.array([3, 1, 0, 2, 5, 7, 0, 0.3, 0.9])

    def truth(rows):
        rows = np.asarray(rows, float)
        return (rows[:, :4] != best[:4]).sum(axis=1) + np.abs(rows[:, 4:] - best[4:]).sum(axis=1)

    meter, rows = spent(papers.s3, Instance("sum", 0, space, truth), 600)
    assert meter.outcome() < 0.5 * np.median(truth(rows[:40]))
    parent_genes = np.array([(np.abs(rows[:at] - rows[at]) < 1e-12).sum(axis=1).max() for at in range(40, 600)])
    assert 4 < parent_genes.mean() < 8, "three in ten of nine genes change, some of them to what they were"
