"""Bayesian optimization against scipy, scikit-learn, mpmath and the algorithms that it is to beat."""

import numpy as np
import pytest
from scipy import optimize

from searchlib import BayesianOptimization, LocalSearch, Problem, RandomSearch, search
from searchlib.algorithms.bayesian_optimization import _log_improvement
from searchlib.algorithms.matern_process import MaternProcess, _factor
from searchlib.errors import InvalidSettings
from searchlib.spaces import Binary, Categorical, Integer, Product, Real
from searchlib.testing import check_algorithm

MIXED = Product(mode=Categorical(("a", "b", "c")), steps=Integer(1, 8), rate=Real(0.0, 1.0, length=3))


def made(n=25, width=3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (n, width))
    return x, (x**2).sum(axis=1) + np.sin(5 * x[:, 0])


def test_the_gradient_of_the_likelihood_is_that_of_finite_differences():
    process = MaternProcess(*made())
    for seed in range(5):
        at = process.parameters + 0.5 * np.random.default_rng(seed).standard_normal(5)
        apart = optimize.check_grad(lambda t: process._loss(t)[0], lambda t: process._loss(t)[1], at)
        assert apart < 1e-4 * np.linalg.norm(process._loss(at)[1])


def test_the_posterior_is_scikit_learns_with_the_same_kernel():
    kernels = pytest.importorskip("sklearn.gaussian_process.kernels", exc_type=ImportError)
    regression = pytest.importorskip("sklearn.gaussian_process", exc_type=ImportError)
    x, y = made()
    new = np.random.default_rng(1).uniform(-1, 1, (40, 3))
    process = MaternProcess(x, y)
    inverse, (signal, noise) = np.exp(process.parameters[:-2]), np.exp(process.parameters[-2:])
    lengths = x.std(axis=0) / 0.3 / np.sqrt(inverse)
    kernel = kernels.ConstantKernel(signal) * kernels.Matern(lengths, nu=2.5)
    clipped = np.minimum(y, np.median(y) + 3 * (np.median(y) - y.min()))
    peer = regression.GaussianProcessRegressor(kernel, alpha=noise + 1e-8, optimizer=None)
    peer.fit(x, (clipped - clipped.mean()) / clipped.std())
    mean, deviation = process.predict(new)
    expected, spread = peer.predict(new, return_std=True)
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(deviation, spread, rtol=1e-4)
    assert process.value(mean[0]) == pytest.approx(clipped.mean() + clipped.std() * expected[0])


def test_features_that_do_not_matter_get_long_lengths():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (60, 4))
    inverse = MaternProcess(x, np.sin(3 * x[:, 0]) + x[:, 1] ** 2).parameters[:-2]
    assert inverse[:2].min() > inverse[2:].max() + 1


def test_candidates_that_are_nearly_the_same_do_not_end_a_search():
    x = np.array([[0.5], [0.5 + 1e-13], [0.5 - 1e-13], [0.9]])
    start = np.array([-7.0, 5.0, np.log(1e-6)])  # the longest length and the least noise
    for begin in (None, start):
        mean, deviation = MaternProcess(x, np.array([0.0, 1.0, 2.0, 3.0]), begin).predict(x)
        assert np.isfinite(mean).all()
        assert (deviation > 0).all()
    ones = np.ones((6, 6))
    factor = _factor(148 * ones - 1e-5 * np.eye(6), 1e-9)
    np.testing.assert_allclose(factor @ factor.T, 148 * ones, atol=1e-3)


def test_the_logarithm_of_the_improvement_is_mpmaths():
    mpmath = pytest.importorskip("mpmath")
    for z in (-5.9, -4.0, 0.0, 3.0):
        exact = mpmath.log(mpmath.npdf(z) + z * mpmath.ncdf(z))
        assert _log_improvement(np.array([z]))[0] == pytest.approx(float(exact), abs=1e-9)
    far = np.array([-6.0, -8.0, -20.0, -40.0])
    exact = [float(mpmath.log(mpmath.npdf(z) + z * mpmath.ncdf(z))) for z in far]
    np.testing.assert_allclose(_log_improvement(far), exact, atol=0.1)
    assert (np.diff(_log_improvement(np.linspace(-60, 5, 4000))) > 0).all()


@pytest.mark.parametrize("space", [Binary(12), MIXED, Real(-1.0, 1.0, length=3), Real(2.0, 2.0)], ids=repr)
def test_it_keeps_the_contract_of_algorithms(space):
    check_algorithm(BayesianOptimization(initial=4, rounds=2, width=12), space)


def rugged(value):
    rate = np.asarray(value["rate"])
    return float(((rate - 0.3) ** 2).sum() + 0.1 * abs(value["steps"] - 5) + (value["mode"] != "b"))


def test_it_finds_a_mixed_optimum_in_a_third_of_the_evaluations_of_local_search():
    ours, local, blind = (
        [search(rugged, algorithm, space=MIXED, budget=n, seed=seed).value for seed in range(3)]
        for algorithm, n in ((BayesianOptimization(), 40), (LocalSearch(), 120), (RandomSearch(), 400))
    )
    assert np.median(ours) < np.median(local) < np.median(blind)
    assert max(ours) < 0.02


def test_what_comes_back_together_is_proposed_apart():
    run = BayesianOptimization(initial=3).start(Problem(Real(0.0, 1.0)), np.random.default_rng(0))
    assert run.at_once == 1
    found = search(lambda x: (x - 0.4) ** 2, BayesianOptimization(), space=Real(0.0, 1.0), budget=30, batch_size=5)
    rows = found.history.population[10:15]
    assert len(np.unique(rows)) == 5
    assert abs(found.best - 0.4) < 0.01


def test_noise_is_averaged_in_what_is_recommended():
    """A line under noise that is wider than its slope: the luckiest candidate lies anywhere, the best mean does not."""
    errors = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        problem = Problem(Real(-1.0, 1.0), noisy=True)
        run = BayesianOptimization(rounds=5, width=30).start(problem, np.random.default_rng(seed))
        rows = played(run, lambda x, rng=rng: (x - 0.5) ** 2 + rng.normal(0, 0.3, len(x)), 60)
        assert len(rows) == 60
        errors.append(abs(float(run.recommend(1)[0, 0]) - 0.5))
    assert np.median(errors) < 0.25


def played(run, function, n):
    from searchlib.algorithms import Evidence, Status

    rows = []
    for _ in range(n):
        batch = run.ask(1)
        values, nothing = function(batch.population[:, 0])[:, None], np.full((1, 1), np.nan)
        status = np.full(1, Status.DONE, np.int8)
        run.tell(Evidence(batch.ids, batch.population, values, status, nothing[0], nothing))
        rows.append(batch.population)
    return np.concatenate(rows)


def test_equal_values_teach_nothing_and_a_small_space_is_exhausted():
    result = search(lambda mask: 1.0, BayesianOptimization(), space=Binary(4), budget=100)
    assert result.history.evaluations == 16


@pytest.mark.parametrize(
    ("field", "value"), [("initial", 1), ("rounds", -1), ("width", 2), ("most", 1), ("archive", 0), ("width", 2.5)]
)
def test_settings_out_of_range_are_refused(field, value):
    with pytest.raises(InvalidSettings, match=field):
        BayesianOptimization(**{field: value})
