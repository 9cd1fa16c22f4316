import numpy as np
import pytest
from scipy import optimize, stats

from searchlib.errors import InvalidSettings
from searchlib.objectives.item_response import binarized, fit_2pl


def simulated(models, items, seed=0, negative=0.0):
    """Responses of a two-parameter logistic model, and the parameters they come from."""
    rng = np.random.default_rng(seed)
    slopes = rng.lognormal(0.2, 0.4, items) * np.where(rng.random(items) < negative, -1, 1)
    intercepts, abilities = rng.normal(size=items), rng.normal(size=models)
    chance = 1 / (1 + np.exp(-(abilities[:, None] * slopes + intercepts)))
    return (rng.random(chance.shape) < chance).astype(float), slopes, intercepts, abilities


def penalized(parameters, responses):
    """Minus the penalized marginal log-likelihood, integrated over a fine grid of abilities."""
    items = responses.shape[1]
    slopes, intercepts = parameters[:items], parameters[items:]
    grid = np.linspace(-8, 8, 801)
    density = stats.norm.pdf(grid) * (grid[1] - grid[0])
    chance = 1 / (1 + np.exp(-(grid[:, None] * slopes + intercepts)))
    likelihood = np.prod(np.where(responses[:, None, :] == 1, chance, 1 - chance), axis=2) @ density
    prior = stats.norm.logpdf(slopes, scale=0.75).sum() + stats.norm.logpdf(intercepts, scale=3).sum()
    free = items * (stats.norm.logpdf(0, scale=0.75) + stats.norm.logpdf(0, scale=3))
    return -(np.log(likelihood).sum() + prior - free)


def test_the_fit_is_the_maximum_that_scipy_finds():
    responses, *_ = simulated(40, 4, seed=1)
    fitted = fit_2pl(responses, steps=5000, tolerance=1e-14)
    found = optimize.minimize(penalized, np.concatenate([np.ones(4), np.zeros(4)]), args=(responses,), tol=1e-10)
    np.testing.assert_allclose(np.concatenate([fitted.slopes, fitted.intercepts]), found.x, atol=2e-3)
    assert fitted.objective[-1] == pytest.approx(-found.fun, abs=1e-5)


def test_the_parameters_of_a_simulation_are_recovered():
    responses, slopes, intercepts, abilities = simulated(600, 60, negative=0.2)
    fitted = fit_2pl(responses, steps=200)
    assert (slopes < 0).sum() > 5
    assert np.corrcoef(fitted.slopes, slopes)[0, 1] > 0.97
    assert np.corrcoef(fitted.intercepts, intercepts)[0, 1] > 0.97
    assert np.corrcoef(fitted.abilities, abilities)[0, 1] > 0.95
    assert np.abs(fitted.intercepts - intercepts).mean() < 0.15
    assert np.abs(fitted.slopes - slopes).mean() < 0.25


def test_items_that_rank_models_upside_down_have_negative_slopes():
    responses, slopes, *_ = simulated(600, 60, seed=3, negative=0.2)
    clear = np.abs(slopes) > 0.7
    assert (slopes[clear] < 0).any()
    np.testing.assert_array_equal(np.sign(fit_2pl(responses).slopes[clear]), np.sign(slopes[clear]))


@pytest.mark.parametrize("seed", range(6))
def test_the_likelihood_never_falls(seed):
    rng = np.random.default_rng(seed)
    responses = (rng.random((int(rng.integers(3, 30)), int(rng.integers(2, 80)))) < rng.random()).astype(float)
    objective = fit_2pl(responses, steps=80, tolerance=0.0).objective
    assert len(objective) > 2
    assert (np.diff(objective) >= -1e-9 * np.abs(objective[:-1])).all()


def test_items_that_all_or_no_models_solve_have_finite_parameters():
    responses, *_ = simulated(20, 10)
    responses[:, 0], responses[:, 1] = 1.0, 0.0
    fitted = fit_2pl(responses)
    assert all(np.isfinite(part).all() for part in fitted)
    assert fitted.intercepts[0] > fitted.intercepts[2:].max()
    assert fitted.intercepts[1] < fitted.intercepts[2:].min()
    assert np.isfinite(fit_2pl(np.ones((5, 4))).abilities).all()


@pytest.mark.parametrize(("responses", "message"), [
    (np.array([[0.0, 0.5], [1.0, 1.0]]), r"shape \(2, 2\) and hold 0.5; pass binarized\(scores\)"),
    (np.array([[0.0, np.nan], [1.0, 1.0]]), "hold nan"),
    (np.array([0.0, 1.0]), r"have shape \(2,\)"),
])  # fmt: skip
def test_other_responses_are_refused(responses, message):
    with pytest.raises(InvalidSettings, match=message):
        fit_2pl(responses)


@pytest.mark.parametrize("steps", [0, 2.5, True])
def test_no_steps_are_no_fit(steps):
    with pytest.raises(InvalidSettings, match="steps must be a whole number of at least 1"):
        fit_2pl(np.eye(3), steps=steps)


def test_continuous_scores_keep_their_mean_as_zeros_and_ones():
    scores = np.random.default_rng(0).normal(size=(30, 200)) * np.arange(1, 201)
    scaled = (scores - scores.min(axis=0)) / np.ptp(scores, axis=0)
    binary = binarized(scores)
    assert set(np.unique(binary)) == {0.0, 1.0}
    assert binary.mean() == pytest.approx(scaled.mean(), abs=1 / scores.size)
    assert scaled[binary == 1].min() > scaled[binary == 0].max()  # one threshold for all


def test_graded_scores_keep_their_mean_as_far_as_ties_allow():
    rng = np.random.default_rng(1)
    for chances in ([0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.3, 0.4, 0.3]):
        scores = rng.choice([0.0, 0.5, 1.0], p=chances, size=(50, 40))
        scores[:2] = [[0.0] * 40, [1.0] * 40]  # so that items are on one scale already
        possible = [(scores >= threshold).mean() for threshold in (0.5, 1.0)]
        nearest = min(possible, key=lambda mean: abs(mean - scores.mean()))
        assert abs(binarized(scores).mean() - scores.mean()) <= abs(nearest - scores.mean()) + 1 / scores.size


def test_right_and_wrong_stay_and_items_without_differences_are_unsolved():
    responses = np.array([[0.0, 1.0], [1.0, 1.0]])
    np.testing.assert_array_equal(binarized(responses), responses)
    assert binarized(np.full((3, 4), 0.7)).sum() == 0
