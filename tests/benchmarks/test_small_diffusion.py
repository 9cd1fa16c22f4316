"""The small generative models: the same weights every time, and what diffusers would make of them."""

from __future__ import annotations

import gc
import json
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("sklearn")

from benchmarks import small_diffusion  # noqa: E402
from benchmarks.checkpoint_combination import Sampler  # noqa: E402
from benchmarks.small_diffusion import EMA_RATES, DigitFeatures, Recipe, digits, trained  # noqa: E402
from searchlib.errors import InvalidSettings  # noqa: E402

TINY = Recipe(steps=8, window=(2, 6), interval=2, batch=16)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that holds a tiny run of each kind."""
    folder = tmp_path_factory.mktemp("cache")
    for kind in ("diffusion", "consistency"):
        trained(replace(TINY, kind=kind), folder)
    return folder


def run(cache, kind="diffusion"):
    return trained(replace(TINY, kind=kind), cache)


def weights(folder):
    return diffusers.UNet2DModel.from_pretrained(folder).state_dict()


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("kind", ["diffusion", "consistency"])
def test_training_twice_gives_the_same_weights(cache, tmp_path, kind):
    torch.manual_seed(99)
    first, second = run(cache, kind), run(tmp_path, kind)
    assert first.folder != second.folder
    for one, other in zip([*first.checkpoints, first.last], [*second.checkpoints, second.last], strict=True):
        assert same(weights(one), weights(other))
    assert not same(weights(first.checkpoints[0]), weights(first.last)), "something was learned"


def test_another_seed_is_another_model(cache, tmp_path):
    other = trained(replace(TINY, seed=1), tmp_path)
    assert not same(weights(run(cache).last), weights(other.last))
    assert len(list(tmp_path.iterdir())) == 1


def test_all_folders_are_models_of_diffusers(cache):
    found = run(cache)
    assert [path.name for path in found.checkpoints] == ["step-00002", "step-00004", "step-00006"]
    assert found.last.name == "step-00008"
    averages = [found.ema(rate, step) for rate in EMA_RATES for step in (6, 8)]
    for folder in [*found.checkpoints, found.last, *averages]:
        model = diffusers.UNet2DModel.from_pretrained(folder)
        assert sum(tensor.numel() for tensor in model.parameters()) > 100_000
        assert model(torch.zeros(1, 1, 8, 8), 0).sample.shape == (1, 1, 8, 8)


def test_the_cache_is_read_without_training(cache, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("trained although the cache has it")

    monkeypatch.setattr(small_diffusion, "_train", refuse)
    assert run(cache).last.is_dir()


@pytest.mark.parametrize("kind", ["diffusion", "consistency"])
def test_the_online_average_is_that_of_a_loop_by_hand(tmp_path, kind):
    recipe = replace(TINY, kind=kind, window=(1, 8), interval=1)
    found = trained(recipe, tmp_path)
    torch.manual_seed(recipe.seed)
    for rate in EMA_RATES:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            average = {name: value.double() for name, value in small_diffusion.new_model().state_dict().items()}
        for step, folder in enumerate(found.checkpoints, start=1):
            warm = min(rate, (1 + step) / (10 + step))
            average = {name: warm * average[name] + (1 - warm) * value for name, value in weights(folder).items()}
        saved = weights(found.ema(rate, 8))
        assert saved.keys() == average.keys()
        for name, value in average.items():
            torch.testing.assert_close(saved[name].double(), value, rtol=1e-5, atol=1e-6)


def test_one_step_of_a_consistency_model_is_that_of_diffusers(cache):
    unet = diffusers.UNet2DModel.from_pretrained(run(cache, "consistency").last).eval()
    pipe = diffusers.ConsistencyModelPipeline(unet, diffusers.CMStochasticIterativeScheduler())
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(
        batch_size=5, num_inference_steps=1, generator=torch.Generator().manual_seed(3), output_type="np"
    ).images
    noise = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        ours = Sampler("consistency")(unet, noise)
    assert ours.abs().max() <= 1
    assert ours.std() > 0.1
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1).numpy() / 2 + 0.5, theirs, atol=2e-5)


def test_five_steps_of_a_diffusion_model_are_those_of_diffusers(cache):
    unet = diffusers.UNet2DModel.from_pretrained(run(cache).last).eval()
    scheduler = diffusers.DDIMScheduler.from_config(small_diffusion.noise_scheduler().config, clip_sample=False)
    pipe = diffusers.DDIMPipeline(unet, scheduler)
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(batch_size=5, num_inference_steps=5, generator=torch.Generator().manual_seed(3), output_type="np")
    noise = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        ours = Sampler("diffusion", 5)(unet, noise)
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1).numpy() / 2 + 0.5, theirs.images, atol=2e-5)


def test_a_consistency_model_leaves_images_without_noise_as_they_are(cache):
    unet = diffusers.UNet2DModel.from_pretrained(run(cache, "consistency").last).eval()
    scheduler = diffusers.CMStochasticIterativeScheduler()
    images = torch.from_numpy(digits()[:4])
    with torch.inference_mode():
        lowest = torch.full((4,), float(scheduler.config.sigma_min))
        kept = small_diffusion.denoised(unet, images, lowest, scheduler)
    torch.testing.assert_close(kept, images, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["diffusion", "consistency"])
def test_training_keeps_no_graph_of_past_steps(tmp_path, kind):
    gc.collect()
    before = sum(tensor.numel() for tensor in _tensors())
    trained(replace(TINY, kind=kind, steps=4, window=(4, 4)), tmp_path)
    gc.collect()
    assert sum(tensor.numel() for tensor in _tensors()) - before < 50_000, "less than a third of one model is left"


def test_averages_have_no_history_of_gradients(cache, monkeypatch, tmp_path):
    seen = []
    save = small_diffusion._save_averages

    def watched(averages, found, step):
        seen.extend(tensor.grad_fn for average in averages.values() for tensor in average)
        seen.extend(tensor.requires_grad for average in averages.values() for tensor in average)
        save(averages, found, step)

    monkeypatch.setattr(small_diffusion, "_save_averages", watched)
    trained(replace(TINY, steps=2, window=(1, 1)), tmp_path)
    assert len(seen) > 100
    assert not any(seen)


def _tensors():
    # By type, for looking at an attribute wakes lazy modules that warn.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]


def test_training_leaves_threads_and_random_state_as_they_were(tmp_path):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    trained(replace(TINY, steps=1, window=(1, 1)), tmp_path)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    assert digits().shape == (1797, 1, 8, 8)
    np.testing.assert_allclose((digits()[:, 0] + 1) * 8, load_digits().images)


def test_features_are_32_numbers_per_image():
    assert DigitFeatures()(torch.from_numpy(digits()[:7])).shape == (7, 32)


def test_the_manifest_names_every_file(cache):
    folder = run(cache).folder
    listed = json.loads((folder / "complete.json").read_text())
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(listed) == files - {"complete.json"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"kind": "flow"}, "kind must be 'diffusion' or 'consistency', but is 'flow'"),
        ({"window": (5, 2)}, r"window must lie in 1\.\.12000, but is \(5, 2\)"),
    ],
)
def test_recipes_that_cannot_be_meant_are_refused(settings, sentence):
    with pytest.raises(InvalidSettings, match=sentence):
        Recipe(**settings)
