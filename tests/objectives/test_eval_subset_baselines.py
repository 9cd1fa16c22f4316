import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import KMeans

from searchlib.errors import InvalidSettings
from searchlib.objectives import eval_subset_baselines as baselines
from searchlib.objectives.item_response import binarized, fit_2pl
from searchlib.objectives.rank_agreement import kendall_tau

DATA = Path(__file__).parents[3] / "shared" / "data" / "flasheval_diffusiondb.npz"

#: Training models of FlashEval's released random split (train_id.pth).
TRAIN = [23, 20, 47, 15, 61, 57, 13, 37, 71, 49, 9, 66, 11, 43, 53, 40, 24, 51, 69, 54, 77, 17, 30, 38, 7, 26, 0, 59,
         12, 72, 45, 67, 56, 22, 1, 29, 27, 74, 52]  # fmt: skip

EVERY = [
    baselines.random_items, baselines.best_single_items, baselines.best_random_set, baselines.greedy_mean_matching,
    baselines.kmedoid_items, baselines.irt_anchor_items,
]  # fmt: skip


@pytest.fixture(scope="module")
def released():
    """CLIP scores of the training models and of the test models."""
    if not DATA.is_file():
        pytest.skip("the scores of FlashEval are not here (../shared/data/flasheval_diffusiondb.npz)")
    with np.load(DATA, allow_pickle=False) as data:
        scores = data["scores"][[str(name) for name in data["metrics"]].index("CLIP")].astype(np.float64)
    return scores[TRAIN], np.delete(scores, TRAIN, axis=0)


def table(models=12, items=60, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(models, 1)) * rng.normal(0.6, 0.6, (1, items)) + rng.normal(size=(models, items))


def tau(anchors, scores, margin=4.6905e-6):
    return kendall_tau((scores[:, anchors.items] @ anchors.weights)[None], scores.mean(axis=1), margin)[0]


@pytest.mark.parametrize("choose", EVERY)
@pytest.mark.parametrize("size", [1, 2, 7, 60])
def test_weights_sum_to_one_and_a_seed_decides(choose, size):
    scores = table()
    first, second = (choose(scores, size, np.random.default_rng(3)) for _ in range(2))
    assert first.items.shape == first.weights.shape == (size,)
    assert first.weights.sum() == pytest.approx(1.0)
    assert (first.weights > 0).all()
    assert ((first.items >= 0) & (first.items < 60)).all()
    np.testing.assert_array_equal(first.items, second.items)
    if choose is not baselines.best_random_set:
        assert len(set(first.items.tolist())) == size


@pytest.mark.parametrize("choose", EVERY)
@pytest.mark.parametrize("size", [0, 61, 2.0, True, "5"])
def test_a_size_that_cannot_be_meant_is_refused(choose, size):
    with pytest.raises(InvalidSettings, match=r"size must be a whole number"):
        choose(table(), size, np.random.default_rng(0))


@pytest.mark.parametrize("choose", EVERY)
@pytest.mark.parametrize("scores", [
    (table() > 0).astype(float),
    np.concatenate([table(items=2)] * 20, axis=1),
    np.concatenate([np.ones((12, 30)), table(items=10)], axis=1),
    np.ones((12, 40)),
    np.round(table()),
], ids=["right and wrong", "copies", "constant items", "constant", "whole numbers"])  # fmt: skip
def test_tables_with_ties_and_copies_are_no_problem(choose, scores):
    for size in (2, 10, 30):
        anchors = choose(scores, size, np.random.default_rng(0))  # warnings are errors here
        assert anchors.items.shape == (size,)
        assert np.isfinite(anchors.weights).all()
        assert anchors.weights.sum() == pytest.approx(1.0)


def test_random_items_are_uniform():
    seen = np.zeros(10)
    for seed in range(2000):
        seen[baselines.random_items(np.zeros((3, 10)), 3, np.random.default_rng(seed)).items] += 1
    assert stats.chisquare(seen).pvalue > 1e-3


def test_single_items_are_sorted_by_scipys_tau():
    scores = table()
    taus = np.array([stats.kendalltau(column, scores.mean(axis=1)).statistic for column in scores.T])
    kept = baselines.best_single_items(scores, 8, np.random.default_rng(0)).items
    np.testing.assert_allclose(taus[kept], np.sort(taus)[:-9:-1], atol=1e-12)


@pytest.mark.parametrize("replacement", [True, False])
def test_the_best_of_many_random_sets_is_the_best_of_all_sets(replacement):
    scores = table(models=9, items=7, seed=2)
    truth = scores.mean(axis=1)
    sets = itertools.combinations_with_replacement if replacement else itertools.combinations
    best = max(stats.kendalltau(scores[:, list(kept)].mean(axis=1), truth).statistic for kept in sets(range(7), 3))
    found = baselines.best_random_set(scores, 3, np.random.default_rng(0), sets=10_000, replacement=replacement)
    assert tau(found, scores, 0.0) == pytest.approx(best)
    assert replacement or len(set(found.items.tolist())) == 3


def distance(scores, kept):
    """How far subset means are from full means, up to an offset that all models share."""
    error = scores[:, kept].mean(axis=1) - scores.mean(axis=1)
    return ((error - error.mean()) ** 2).sum()


@pytest.mark.parametrize("seed", range(5))
def test_every_greedy_step_is_the_best_of_all_items(seed):
    scores = table(models=8, items=25, seed=seed)
    kept = baselines.greedy_mean_matching(scores, 6, np.random.default_rng(0)).items.tolist()
    for step in range(6):
        rest = [item for item in range(25) if item not in kept[:step]]
        assert kept[step] == min(rest, key=lambda item: distance(scores, [*kept[:step], item]))


def test_the_greedy_set_is_near_the_best_of_all_sets():
    scores = table(models=8, items=14, seed=1)
    kept = baselines.greedy_mean_matching(scores, 4, np.random.default_rng(0)).items.tolist()
    every = sorted(distance(scores, list(some)) for some in itertools.combinations(range(14), 4))
    assert distance(scores, kept) <= every[len(every) // 20]


def clusters(seed=0):
    """Items in six groups far apart, of different sizes, and the group of each."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(6), [3, 5, 8, 10, 14, 20])
    return rng.normal(scale=5, size=(12, 6))[:, group] + rng.normal(scale=0.1, size=(12, 60)), group


def test_medoids_are_the_items_nearest_to_the_centers_of_scikit_learn():
    scores, _ = clusters()
    points = scores.T
    scaled = (points - points.mean(axis=0)) / points.std(axis=0)
    fitted = KMeans(6, n_init=20, random_state=0).fit(scaled)
    nearest = ((scaled[None] - fitted.cluster_centers_[:, None]) ** 2).sum(axis=2).argmin(axis=1)
    sizes = np.bincount(fitted.labels_)
    # of several starts the best one, as scikit-learn takes it
    drawn = [baselines.kmedoid_items(scores, 6, np.random.default_rng(seed)) for seed in range(20)]
    assert any(
        dict(zip(anchors.items.tolist(), anchors.weights.round(6).tolist(), strict=True))
        == dict(zip(nearest.tolist(), (sizes / 60).round(6).tolist(), strict=True))
        for anchors in drawn
    )


def test_one_medoid_is_the_item_nearest_to_the_mean():
    scores = table()
    scaled = (scores.T - scores.T.mean(axis=0)) / scores.T.std(axis=0)
    anchors = baselines.kmedoid_items(scores, 1, np.random.default_rng(0))
    assert anchors.items.tolist() == [np.linalg.norm(scaled, axis=1).argmin()]


def test_fewer_kinds_of_items_than_medoids_are_all_there_with_the_weight_of_their_kind():
    kinds = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
    scores = kinds[:, [0, 0, 0, 0, 0, 0, 1, 1, 1, 2]]
    anchors = baselines.kmedoid_items(scores, 5, np.random.default_rng(0))
    assert len(set(anchors.items.tolist())) == 5
    kind = np.repeat([0, 1, 2], [6, 3, 1])[anchors.items]
    assert set(kind[:3].tolist()) == {0, 1, 2}
    share = anchors.weights[:3] / anchors.weights[:3].sum()
    assert dict(zip(kind[:3].tolist(), share.round(6).tolist(), strict=True)) == {0: 0.6, 1: 0.3, 2: 0.1}


def test_anchors_of_item_response_theory_spread_over_difficulties():
    rng = np.random.default_rng(0)
    difficulty = np.repeat([-1.5, 1.5], [90, 30])
    chance = 1 / (1 + np.exp(-1.5 * (rng.normal(size=(200, 1)) - difficulty)))
    responses = (rng.random(chance.shape) < chance).astype(float)
    anchors = baselines.irt_anchor_items(responses, 2, rng)
    assert sorted(difficulty[anchors.items].tolist()) == [-1.5, 1.5]
    assert sorted(anchors.weights.round(2).tolist()) == pytest.approx([0.25, 0.75], abs=0.03)


def test_anchors_are_nearest_to_centers_in_the_plane_of_slope_and_intercept():
    scores = table(40, 60)
    fitted = fit_2pl(binarized(scores))
    plane = np.stack([fitted.slopes, fitted.intercepts], axis=1)
    scaled = (plane - plane.mean(axis=0)) / plane.std(axis=0)
    anchors = baselines.irt_anchor_items(scores, 5, np.random.default_rng(0))
    owner = ((scaled[:, None] - scaled[anchors.items][None]) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_allclose(np.bincount(owner, minlength=5) / 60, anchors.weights, atol=0.12)


# ---- FlashEval's scores of DiffusionDB: what flasheval.md measured with other code (its Section 2.7)


@pytest.mark.parametrize(("size", "train", "test"), [(5, 0.381, 0.368), (50, 0.681, 0.679), (100, 0.755, 0.754)])
def test_random_subsets_of_the_real_scores_rank_as_reported(released, size, train, test):
    rng = np.random.default_rng(0)
    drawn = [baselines.random_items(released[0], size, rng) for _ in range(400)]
    for scores, expected in zip(released, (train, test), strict=True):
        estimates = np.stack([scores[:, anchors.items].mean(axis=1) for anchors in drawn])
        assert kendall_tau(estimates, scores.mean(axis=1), 4.6905e-6).mean() == pytest.approx(expected, abs=0.03)


def test_the_best_single_items_of_the_real_scores_rank_as_reported(released):
    anchors = baselines.best_single_items(released[0], 5, np.random.default_rng(0))
    assert tau(anchors, released[0]) == pytest.approx(0.714, abs=0.02)
    assert tau(anchors, released[1]) == pytest.approx(0.740, abs=0.02)


def test_the_best_of_random_sets_overfits_the_real_scores_as_reported(released):
    found = [baselines.best_random_set(released[0], 5, np.random.default_rng(seed), sets=32_000) for seed in range(3)]
    train, test = (np.mean([tau(anchors, scores) for anchors in found]) for scores in released)
    assert train == pytest.approx(0.774, abs=0.03)
    assert test == pytest.approx(0.675, abs=0.08)
    assert train > test


def test_greedy_matching_of_the_real_scores_ranks_as_reported(released):
    anchors = baselines.greedy_mean_matching(released[0], 100, np.random.default_rng(0))
    assert tau(anchors, released[0]) == pytest.approx(0.964, abs=0.015)
    assert tau(anchors, released[1]) == pytest.approx(0.875, abs=0.015)


def test_clustered_items_of_the_real_scores_beat_random_ones(released):
    rng = np.random.default_rng(0)
    random = np.mean([tau(baselines.random_items(released[0], 50, rng), released[1]) for _ in range(100)])
    assert random == pytest.approx(0.679, abs=0.03)
    assert tau(baselines.kmedoid_items(released[0], 50, rng), released[1]) > random
