import itertools

import numpy as np
import pytest
from scipy import stats

from searchlib.objectives.item_design import ItemDesign


def table(models=9, items=12, seed=0):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(models, 2)) @ rng.normal(size=(2, items)) + rng.normal(size=(models, items))
    return scores - scores.mean(axis=0), rng.uniform(0.2, 2.0, items)


def explained_by_hand(centered, noise, kept):
    """Conditioning a multivariate normal distribution, without any of the design's shortcuts."""
    covariance = centered.T @ centered / (len(centered) - 1)
    mean = np.full(len(noise), 1 / len(noise))
    kept = list(kept)
    known = covariance[np.ix_(kept, kept)] + np.diag(noise[kept])
    reach = covariance[kept] @ mean
    return reach @ np.linalg.solve(known, reach) / (mean @ covariance @ mean)


@pytest.mark.parametrize(("size", "sets_in_all"), [(1, 12), (4, 495), (10, 66), (12, 1)])
def test_what_a_set_explains_is_what_conditioning_a_normal_distribution_says(size, sets_in_all):
    centered, noise = table()
    sets = np.array(list(itertools.combinations(range(12), size)))
    explained = ItemDesign(centered, noise).explained(sets)
    assert len(sets) == sets_in_all
    np.testing.assert_allclose(explained, [explained_by_hand(centered, noise, kept) for kept in sets], atol=1e-10)
    assert ((explained > 0) & (explained < 1)).all()


def test_it_is_what_ridge_regression_explains():
    centered, noise = table()
    kept = [1, 4, 7]
    full = centered.mean(axis=1)
    x = centered[:, kept]
    weights = np.linalg.solve(x.T @ x / 8 + np.diag(noise[kept]), x.T @ full / 8)
    missed, cost = ItemDesign(centered, noise).residuals(np.array([kept]))
    np.testing.assert_allclose(missed[0], full - x @ weights, atol=1e-10)
    np.testing.assert_allclose(cost[0], (noise[kept] * weights**2).sum(), atol=1e-10)


@pytest.mark.parametrize("seed", range(12))
def test_the_best_design_is_nearly_the_best_of_all_sets(seed):
    centered, noise = table(seed=seed)
    design = ItemDesign(centered, noise)
    sets = np.array(list(itertools.combinations(range(12), 4)))
    explained = design.explained(sets)
    found = design.explained(design.best(4)[None, :])[0]
    assert found > np.quantile(explained, 0.98)
    assert found > 0.97 * explained.max()


def test_no_exchange_of_one_item_improves_the_best_design():
    centered, noise = table(models=20, items=200, seed=3)
    design = ItemDesign(centered, noise)
    best = design.best(10)
    assert len(set(best.tolist())) == 10
    others = np.setdiff1d(np.arange(200), best)
    exchanged = np.array([np.append(np.delete(best, place), item) for place in range(10) for item in others])
    assert len(exchanged) == 1900
    assert design.explained(exchanged).max() <= design.explained(best[None, :])[0] + 1e-12


def test_more_items_explain_more_and_all_items_are_a_design():
    centered, noise = table()
    design = ItemDesign(centered, noise)
    explained = [design.explained(design.best(size)[None, :])[0] for size in range(1, 13)]
    assert (np.diff(explained) > 0).all()
    assert design.best(12).tolist() == list(range(12))


def test_an_item_that_is_kept_twice_is_measured_twice():
    centered, noise = table()
    halved = noise.copy()
    halved[3] /= 2  # the mean of two measurements
    twice = ItemDesign(centered, noise).explained(np.array([[3, 3, 5]]))
    np.testing.assert_allclose(twice, ItemDesign(centered, halved).explained(np.array([[3, 5]])), atol=1e-10)


def test_models_of_the_same_kind_are_ranked_better_by_the_design_than_by_random_items():
    rng = np.random.default_rng(0)
    loadings, ability = rng.normal(0.3, 0.5, (3, 400)), rng.normal(size=(60, 3))
    scores = ability @ loadings + rng.normal(size=(60, 400))
    seen, new = scores[:30], scores[30:]
    design = ItemDesign(seen - seen.mean(axis=0), np.ones(400))
    full = new.mean(axis=1)
    ours = stats.kendalltau(new[:, design.best(12)].mean(axis=1), full).statistic
    drawn = [stats.kendalltau(new[:, rng.choice(400, 12, False)].mean(axis=1), full).statistic for _ in range(200)]
    assert ours > np.quantile(drawn, 0.95)
