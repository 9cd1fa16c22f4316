"""Distances between sets of images, against their definitions."""

import numpy as np
import pytest
import torch
from scipy import linalg

from searchlib.errors import InvalidSettings
from searchlib.objectives.image_scores import FrechetDistance, ImageReward, KernelDistance, PairedDistance


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def flat(images):
    return images.flatten(1)


def test_the_frechet_distance_is_that_of_the_definition_with_a_matrix_square_root(rng):
    reference, own = rng.normal(size=(300, 6)), rng.normal(size=(2, 200, 6)) @ rng.normal(size=(6, 6)) + 0.3
    values = FrechetDistance(flat, reference).aggregate(own)
    for value, sample in zip(values, own, strict=True):
        first, second = np.cov(sample, rowvar=False), np.cov(reference, rowvar=False)
        root = linalg.sqrtm(first @ second)
        apart = ((sample.mean(0) - reference.mean(0)) ** 2).sum()
        assert value == pytest.approx(apart + np.trace(first + second - 2 * np.real(root)), rel=1e-9)


def test_the_frechet_distance_of_the_reference_to_itself_is_zero(rng):
    images = torch.from_numpy(rng.normal(size=(50, 1, 2, 2)))
    score = FrechetDistance(flat, images)
    assert score.aggregate(score.observe(images, None, ())[None])[0] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(("images", "features"), [(40, 6), (12, 3)])
def test_the_slope_of_the_frechet_distance_is_that_of_finite_differences(rng, images, features):
    score = FrechetDistance(flat, rng.normal(size=(300, features)))
    own = rng.normal(size=(images, features)) @ rng.normal(size=(features, features)) + 0.5
    value, slope = score.slope(own)
    assert value == pytest.approx(score.aggregate(own[None])[0], rel=1e-12)
    moves = np.eye(own.size).reshape(own.size, *own.shape) * 1e-5
    differences = (score.aggregate(own + moves) - score.aggregate(own - moves)) / 2e-5
    np.testing.assert_allclose(slope.ravel(), differences, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("images", [200, 20])
def test_the_slope_in_single_precision_is_that_in_double(rng, images):
    """With fewer images than features too, where directions without images have no slope."""
    score = FrechetDistance(flat, rng.normal(size=(300, 32)))
    own = (rng.normal(size=(images, 32)) + 3.0).astype(np.float32)
    value, slope = score.slope(own)
    exact, wanted = score.slope(own.astype(np.float64))
    assert slope.dtype == np.float32
    assert value == pytest.approx(exact, rel=1e-3)
    assert np.abs(slope - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_the_slope_in_single_precision_keeps_directions_of_little_variance(rng):
    scales = np.geomspace(1, 1e-2, 16)  # the product of both covariances spans eight decades
    score = FrechetDistance(flat, rng.normal(size=(300, 16)) * scales)
    own = ((rng.normal(size=(200, 16)) + 0.5) * scales).astype(np.float32)
    slope, wanted = score.slope(own)[1], score.slope(own.astype(np.float64))[1]
    assert (np.abs(slope - wanted).max(axis=0) < 1e-2 * np.abs(wanted).max(axis=0)).all()


def test_the_slope_is_a_number_where_the_reference_has_no_spread(rng):
    reference = rng.normal(size=(50, 4))
    reference[:, 2] = 0.5
    score = FrechetDistance(flat, reference)
    for own in (rng.normal(size=(30, 4)), np.tile(rng.normal(size=4), (30, 1))):
        value, slope = score.slope(own)
        assert value == pytest.approx(score.aggregate(own[None])[0], rel=1e-6)
        assert np.isfinite(slope).all()
        step = -1e-3 * slope
        assert score.slope(own + step)[0] < value


def test_scores_without_a_slope_say_so():
    with pytest.raises(NotImplementedError, match="KernelDistance"):
        KernelDistance(flat, np.eye(3)).slope(np.eye(3))


def test_the_kernel_distance_is_the_unbiased_estimate_written_out(rng):
    reference, own = rng.normal(size=(7, 3)), rng.normal(size=(5, 3)) + 0.5
    kernel = lambda x, y: (x @ y / 3 + 1) ** 3  # noqa: E731
    within = [np.mean([kernel(a, b) for i, a in enumerate(part) for j, b in enumerate(part) if i != j])
              for part in (reference, own)]  # fmt: skip
    across = np.mean([kernel(a, b) for a in own for b in reference])
    assert KernelDistance(flat, reference).aggregate(own[None])[0] == pytest.approx(sum(within) - 2 * across)


def test_few_images_raise_the_frechet_distance_but_not_the_kernel_distance(rng):
    reference, own = rng.normal(size=(4000, 8)), rng.normal(size=(40, 60, 8))
    frechet, kernel = FrechetDistance(flat, reference), KernelDistance(flat, reference)
    assert frechet.aggregate(own).mean() > 10 * frechet.aggregate(own.reshape(1, -1, 8))[0]
    few = kernel.aggregate(own)
    assert abs(few.mean()) < 3 * few.std(ddof=1) / np.sqrt(len(few))


def test_a_paired_distance_compares_every_image_with_that_of_its_own_noise():
    asked = []

    def finer(noise, conditions):
        asked.append(len(noise))
        return 2 * noise + torch.tensor(conditions)[:, None, None, None]

    score = PairedDistance(finer)
    noise = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    images = 2 * noise + torch.tensor([0.0, 1.0, 3.0])[:, None, None, None]
    found = score.observe(images, noise, [0.0, 0.0, 1.0])
    assert found[:, 0] == pytest.approx([0, 1, 2], abs=1e-6)
    assert score.observe(images[1:], noise[1:], [0.0, 1.0])[:, 0] == pytest.approx([1, 2], abs=1e-6)
    assert asked == [3]


def test_a_reward_is_averaged_over_images():
    score = ImageReward(lambda images, prompts: images.flatten(1).mean(1) + torch.tensor([len(p) for p in prompts]))
    observed = score.observe(torch.ones(2, 1, 2, 2), None, ["a", "abc"])
    assert score.direction == "maximize"
    assert score.aggregate(observed[None])[0] == 3


@pytest.mark.parametrize("reference", [np.zeros((1, 3)), np.zeros(4), np.full((5, 2), np.nan)])
def test_a_reference_that_has_no_covariance_is_refused(reference):
    with pytest.raises(InvalidSettings, match="reference"):
        FrechetDistance(flat, reference)


def test_a_paired_distance_without_noise_and_a_reward_of_the_wrong_shape_are_refused():
    with pytest.raises(InvalidSettings, match="noise"):
        PairedDistance(lambda noise, conditions: noise).observe(torch.ones(1, 1, 2, 2), None, [None])
    with pytest.raises(InvalidSettings, match="2 numbers"):
        ImageReward(lambda images, conditions: images).observe(torch.ones(2, 1), None, [None, None])
