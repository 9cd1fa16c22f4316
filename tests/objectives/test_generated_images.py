"""Judging what samples images: by a function, and by a stock pipeline."""

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel

from searchlib import Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.generated_images import GeneratedImages, PipelineSampler
from searchlib.objectives.image_scores import FrechetDistance, ImageReward
from searchlib.objectives.noise_cases import NoiseCases


@pytest.fixture(scope="module")
def pipe():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), layers_per_block=1,
        )  # fmt: skip
    return DDIMPipeline(unet.eval(), DDIMScheduler(clip_sample=False))


def ddim(model, noise, conditions):
    """The pipeline's loop, written out."""
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(3)
    images = noise
    for t in scheduler.timesteps:
        images = scheduler.step(model(images, t).sample, t, images).prev_sample
    return (images / 2 + 0.5).clamp(0, 1)


def flat(images):
    return images.flatten(1)


def reference():
    return np.random.default_rng(0).uniform(size=(200, 64))


def test_a_pipeline_and_its_loop_written_out_observe_the_same(pipe):
    noises = NoiseCases(search=5, holdout=2)
    by_pipe = GeneratedImages(
        PipelineSampler(pipe, batch=2, num_inference_steps=3), FrechetDistance(flat, reference()), noises
    )
    by_hand = GeneratedImages(ddim, FrechetDistance(flat, reference()), noises, shape=(1, 8, 8))
    cases = by_pipe.cases(Split.SEARCH)
    theirs, ours = by_pipe.observe(pipe.unet, cases), by_hand.observe(pipe.unet, cases)
    assert ours.shape == (5, 64)
    np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_a_case_of_several_images_is_worth_the_distance_of_its_set(pipe):
    apart = GeneratedImages(ddim, FrechetDistance(flat, reference()), NoiseCases(search=8, holdout=0), shape=(1, 8, 8))
    sets = GeneratedImages(
        ddim, FrechetDistance(flat, reference()), NoiseCases(search=8, holdout=0, images_per_case=4), shape=(1, 8, 8)
    )
    features = apart.observe(pipe.unet, apart.cases(Split.SEARCH))
    distances = sets.observe(pipe.unet, sets.cases(Split.SEARCH))
    assert sets.additive
    assert not apart.additive
    assert distances.shape == (2, 1)
    assert distances[1, 0] == pytest.approx(apart.aggregate(features[None, 4:])[0, 0], rel=1e-4)
    assert sets.aggregate(distances[None])[0, 0] == pytest.approx(distances.mean())


def test_conditions_reach_the_function_and_the_score_image_by_image():
    noises = NoiseCases(search=4, holdout=0, conditions=(1.0, 2.0), images_per_case=2)
    told = []

    def sample(model, noise, conditions):
        told.extend(conditions)
        return torch.tensor(conditions)[:, None]

    judge = GeneratedImages(sample, ImageReward(lambda images, c: images[:, 0] * torch.tensor(c)), noises, shape=(1,))
    observed = judge.observe(None, judge.cases(Split.SEARCH))
    assert told == [1.0, 1.0, 2.0, 2.0]
    assert observed[:, 0].tolist() == [1.0, 4.0]


def test_a_function_without_a_shape_is_refused():
    with pytest.raises(InvalidSettings, match="shape="):
        GeneratedImages(ddim, FrechetDistance(flat, reference()), NoiseCases(search=4, holdout=0))


def test_the_progress_bar_of_a_pipeline_is_as_it_was(pipe):
    pipe.set_progress_bar_config(disable=False, desc="mine")
    PipelineSampler(pipe, num_inference_steps=1).draw(NoiseCases(search=2, holdout=0).of(Split.SEARCH))
    assert pipe._progress_bar_config == {"disable": False, "desc": "mine"}
