import numpy as np
import pytest
from scipy import linalg
from sklearn.decomposition import TruncatedSVD

from searchlib.errors import InvalidSettings
from searchlib.objectives.score_noise import ScoreNoise


def factors(models, items, directions, noise, seed=0):
    """Scores of a few strong common directions, and noise of a known standard deviation per item."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(models, directions)) @ rng.normal(size=(directions, items))
    return common, common + rng.normal(size=(models, items)) * noise


@pytest.mark.parametrize("shrinkage", [0.0, 0.3, 1.0])
def test_the_systematic_part_is_scikit_learns_truncated_svd(shrinkage):
    _, scores = factors(20, 150, 3, 1.0)
    shrunk, _ = ScoreNoise(rank=0.2, shrinkage=shrinkage).split(scores)
    centered = scores - scores.mean(axis=0)
    svd = TruncatedSVD(4, algorithm="arpack", random_state=0)
    systematic = svd.inverse_transform(svd.fit_transform(centered))
    np.testing.assert_allclose(shrunk, systematic + (1 - shrinkage) * (centered - systematic), atol=1e-8)


def test_the_noise_of_every_item_is_found_where_the_systematic_rank_is_right():
    noise = np.where(np.arange(3000) % 2, 0.5, 2.0)
    _, scores = factors(100, 3000, 2, noise)
    _, variance = ScoreNoise(rank=0.02, scale=1.0).split(scores)
    for level in (0.5, 2.0):
        assert variance[noise == level].mean() == pytest.approx(level**2, rel=0.03)


def test_the_scale_counts_standard_deviations():
    _, scores = factors(12, 40, 2, 1.0)
    _, once = ScoreNoise(scale=1.0).split(scores)
    _, thrice = ScoreNoise(scale=3.0).split(scores)
    np.testing.assert_allclose(thrice, 9 * once)


def test_dropping_the_remainder_brings_scores_nearer_to_what_is_systematic():
    common, scores = factors(40, 500, 2, 1.0)
    truth = common - common.mean(axis=0)
    errors = [np.linalg.norm(ScoreNoise(rank=0.05, shrinkage=s).split(scores)[0] - truth) for s in (0.0, 0.5, 1.0)]
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]


def test_an_offset_of_an_item_changes_nothing():
    _, scores = factors(12, 40, 2, 1.0)
    offset = np.random.default_rng(1).normal(scale=100, size=40)
    for one, other in zip(ScoreNoise().split(scores), ScoreNoise().split(scores + offset), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_the_directions_are_orthogonal_to_what_is_left():
    _, scores = factors(12, 40, 2, 1.0)
    systematic, _ = ScoreNoise(shrinkage=1.0).split(scores)
    remainder = scores - scores.mean(axis=0) - systematic
    assert np.linalg.matrix_rank(systematic, tol=1e-8) == round(0.36 * 12)
    assert np.abs(linalg.orth(systematic, rcond=1e-8).T @ remainder).max() < 1e-8


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_no_item_is_without_noise_even_where_all_items_agree(scale):
    ability = np.arange(8.0)[:, None] * scale
    scores = np.concatenate([np.repeat(ability, 10, axis=1), np.zeros((8, 3))], axis=1)
    shrunk, variance = ScoreNoise().split(scores)
    assert (variance > 0).all()
    assert variance.max() < 1e-9 * scale**2
    np.testing.assert_allclose(shrunk, scores - scores.mean(axis=0), atol=1e-9 * scale)


def test_an_item_that_all_models_solve_counts_as_a_twentieth_of_the_mean_noise():
    _, scores = factors(12, 40, 2, 1.0)
    scores[:, 7] = 1.0
    _, variance = ScoreNoise(scale=1.0).split(scores)
    floor = variance[7]
    assert floor == variance.min()
    assert floor == pytest.approx(0.05 * variance.mean(), rel=0.05)


@pytest.mark.parametrize("settings", [
    {"rank": 0}, {"rank": 1}, {"rank": float("nan")}, {"shrinkage": -0.1}, {"shrinkage": 1.1}, {"scale": 0},
    {"scale": float("inf")}, {"scale": float("nan")},
])  # fmt: skip
def test_settings_that_cannot_be_meant_are_named(settings):
    (name, value), = settings.items()
    with pytest.raises(InvalidSettings, match=rf"ScoreNoise\({name}=…\).* is {value!r}"):
        ScoreNoise(**settings)


def test_too_few_models_and_gaps_are_refused():
    with pytest.raises(InvalidSettings, match="at least 3 models to be seen, but there are 2"):
        ScoreNoise().split(np.zeros((2, 5)))
    with pytest.raises(InvalidSettings, match=r"some are missing; pass ScoreMatrix.filled\(\)"):
        ScoreNoise().split(np.full((5, 5), np.nan))
