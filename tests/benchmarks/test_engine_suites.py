"""The public suites: our instances say what the packages say."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.engine import coco, graphs

RNG = np.random.default_rng(5)


@pytest.mark.parametrize("problem", [*coco.MIXED, *coco.LARGE])
def test_a_function_of_coco_has_the_values_of_its_suite_within_its_bounds(problem):
    cocoex = pytest.importorskip("cocoex")
    instance = (coco.mixed if problem in coco.MIXED else coco.large)(problem, 4)
    number = (coco.MIXED | coco.LARGE)[problem]
    name, n = problem.split(",")[0], 20 if problem in coco.MIXED else 640
    suite = cocoex.Suite(name, "", f"function_indices: {number} dimensions: {n}")
    theirs = suite.get_problem_by_function_dimension_instance(number, n, 5)
    rows = instance.space.sample(RNG, 8)
    np.testing.assert_allclose(instance.truth(rows), [theirs(row.astype(float)) for row in rows])
    low, high = np.asarray(theirs.lower_bounds), np.asarray(theirs.upper_bounds)
    many = instance.space.sample(RNG, 4000).astype(float)
    assert (many >= low).all()
    assert (many <= high).all()
    np.testing.assert_allclose(many.max(axis=0), high, atol=0.05 * 10)
    if problem in coco.MIXED:
        assert theirs.number_of_integer_variables == 16
        np.testing.assert_array_equal(many[:, :16].max(axis=0), high[:16])


@pytest.mark.parametrize(("kind", "theirs"), [("gaussian", 107), ("uniform", 108), ("cauchy", 109)])
def test_the_noise_is_that_of_bbob_noisy(kind, theirs):
    """On the sphere, whose noise-free values are those of bbob: quantiles of what is shown, over 3,000 points."""
    cocoex = pytest.importorskip("cocoex")
    from cocoex.bare_problem import BareProblem

    quiet = BareProblem("bbob", 1, 10, 3)
    suite = cocoex.Suite("bbob-noisy", "instances: 3", "dimensions: 10")
    loud = suite.get_problem_by_function_dimension_instance(theirs, 10, 3)
    points = RNG.uniform(-4.9, 4.9, (3000, 10))
    above = np.array([quiet(point) for point in points]) - quiet.best_value()
    shown = np.array([loud(point) for point in points]) - quiet.best_value()
    ours = coco._NOISE[kind](np.random.default_rng(1), above, 10)
    marks = [0.1, 0.25, 0.5, 0.75, 0.9]
    ratio = np.quantile(ours, marks) / np.quantile(shown, marks)
    # the package's generator gives fewer small numbers than a uniform one; a factor of 1.4 is a tenth of what it adds
    np.testing.assert_allclose(np.log(ratio), 0, atol=0.5 if kind == "uniform" else 0.15)


@pytest.mark.parametrize("problem", coco.NOISY)
def test_a_noisy_function_shows_other_values_than_its_true_ones_and_never_better_than_the_optimum(problem):
    pytest.importorskip("cocoex")
    instance = coco.noisy(problem, 2)
    rows = instance.space.sample(RNG, 50)
    true = instance.truth(rows)
    first, second = (instance.noise(np.random.default_rng(seed), true) for seed in (0, 1))
    assert (first != true).all()
    assert (first != second).mean() > 0.15, "Cauchy noise strikes a fifth"
    np.testing.assert_array_equal(instance.truth(rows), true)


def test_a_cut_is_that_of_its_graph_from_either_side():
    pytest.importorskip("ioh")
    instance = graphs.cut("maximum cut", 1)
    rows = instance.space.sample(RNG, 20)
    values = instance.truth(rows)
    np.testing.assert_array_equal(values, instance.truth(1 - rows))
    assert (values < 0).all()
    assert instance.truth(np.zeros((1, 800), int))[0] == 0, "no edge is cut"
    assert len({graphs.cut("maximum cut", number).truth(rows).tobytes() for number in range(6)}) == 5


def test_ten_vertices_are_within_the_suites_own_constraint_and_eleven_are_not():
    ioh = pytest.importorskip("ioh")
    for number in range(4):
        instance = graphs.coverage("maximum coverage", number)
        rows = instance.space.sample(RNG, 10)
        assert (instance.truth(rows) < 0).all(), "minus what is covered"
        function = ioh.get_problem(2100 + number, 1, problem_class=ioh.ProblemClass.GRAPH)
        mask = np.zeros(instance.space.n, int)
        mask[rows[0]] = 1
        assert function(mask.tolist()) == -instance.truth(rows[:1])[0]
        mask[np.flatnonzero(mask == 0)[0]] = 1
        assert function(mask.tolist()) == -1.0, "the violation"
