"""Bits of a diffusion model's layers: metrics, ranges of timesteps, budgets, the search, and the exported model."""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from diffusers import DDIMPipeline, DDIMScheduler, DiTPipeline, UNet2DModel  # noqa: E402

from searchlib import Candidates, Evolution, Split, search  # noqa: E402
from searchlib.additive_profile import AdditiveProfile  # noqa: E402
from searchlib.errors import InvalidSettings, UnsupportedModel  # noqa: E402
from searchlib.objectives import FrechetDistance, ImageReward, NoiseCases, PairedDistance, PipelineSampler  # noqa: E402
from searchlib.objectives.channel_balancing import ChannelBalancing  # noqa: E402
from searchlib.objectives.fake_quantize import fake_quantize  # noqa: E402
from searchlib.objectives.metric_decoupling import MIXDQ, VIDIT_Q, decoupled_allocations, decoupled_weights  # noqa: E402
from searchlib.objectives.mixed_precision import MixedPrecision, _smoke_model, _smoke_sample  # noqa: E402
from searchlib.spaces import BitPlan  # noqa: E402
from searchlib.testing import check_objective  # noqa: E402

NOISES = NoiseCases(search=6, select=4, holdout=4, conditions=(0, 1, 2))


def brightness(images, conditions):
    """A reward that knows the condition."""
    return images.mean(dim=(1, 2, 3)) * (1 + torch.tensor(list(conditions)))


def objective(**settings):
    given = {"shape": (1, 8, 8), "weight": (2, 3, 4, 8)} | settings
    return MixedPrecision(given.pop("model", _smoke_model), given.pop("sample", _smoke_sample), NOISES, **given)


def observed(opened, plans, split=Split.SEARCH):
    with opened:
        return opened.observe(plans, opened.cases(split))


def test_the_objective_keeps_the_contract():
    check_objective(MixedPrecision.smoke())


def test_activations_in_ranges_and_several_metrics_keep_the_contract_too():
    # A number between two levels may be rounded either way where sums are formed in another order.
    check_objective(
        objective(
            weight=(4, 8), activation=(6, 8), ranges=(500,), metrics={"quality": PairedDistance,
            "alignment": ImageReward(brightness)}, value={"quality": 1.0, "alignment": 0.1},
            balancing=ChannelBalancing(0.5, rotate=True),
        ),
        tolerance=2e-2,
    )  # fmt: skip


def test_the_default_metric_is_the_squared_distance_to_the_full_precision_image():
    opened = objective()
    plan = opened.space.uniform(weight=3)
    table = observed(opened, [BitPlan(), plan])
    model, twin = _smoke_model(), _smoke_model()
    for name in opened.layers:
        layer = twin.get_submodule(name)
        layer.weight.data = fake_quantize(layer.weight.data, 3)
    noise = next(iter(opened.judges.values())).noise(opened.cases(Split.SEARCH))
    with torch.inference_mode():
        full, own = (_smoke_sample(m, noise, [0, 1, 2] * 2) for m in (model, twin))
    expected = (full - own).square().mean(dim=(1, 2, 3))
    assert np.allclose(table[1, :, 0], expected, rtol=1e-4)
    assert np.allclose(table[0], 0, atol=1e-5)


def test_more_bits_are_closer_to_full_precision():
    opened = objective(activation=(4, 8, 16))
    weights = observed(opened, [opened.space.uniform(weight=bits) for bits in (2, 3, 4, 8)]).mean(axis=(1, 2))
    inputs = observed(opened, [opened.space.uniform(activation=bits) for bits in (4, 6, 8)]).mean(axis=(1, 2))
    assert (np.diff(weights) < 0).all()
    assert (np.diff(inputs) < 0).all()


def test_the_model_is_bit_identical_afterwards():
    model = _smoke_model().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    opened = objective(model=model, activation=(4, 8), balancing=ChannelBalancing(rotate=True), ranges=(500,))
    observed(opened, [opened.space.decode(row) for row in opened.space.sample(np.random.default_rng(0), 3)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_ranges_weigh_by_how_often_the_model_is_called_in_them():
    opened = objective(activation=(8, 16), ranges=(600,))  # three steps at 666, 333 and 0
    assert opened.space.shares == pytest.approx((1 / 3, 2 / 3))
    late = BitPlan(activation=[(name, (16, 4)) for name in opened.layers], ranges=(600,))
    always = opened.space.uniform(activation=4)
    means = observed(opened, [late, always]).mean(axis=(1, 2))
    assert 0 < means[0] < means[1]
    with pytest.raises(InvalidSettings, match="choose boundaries between"):
        objective(activation=(8, 16), ranges=(999,))


def test_several_metrics_are_several_objectives_or_one_weighted_sum():
    metrics = {"quality": PairedDistance, "alignment": ImageReward(brightness)}
    both = objective(metrics=metrics)
    assert both.direction == ("minimize", "maximize")
    table = observed(both, [both.space.uniform(weight=2)])
    assert table.shape == (1, 6, 2)
    assert both.aggregate(table).tolist() == [table[0].mean(axis=0).tolist()]
    weighted = objective(metrics=metrics, value={"quality": 2.0, "alignment": 0.5})
    assert weighted.direction == "minimize"
    quality, alignment = table[0].mean(axis=0)
    assert weighted.aggregate(table)[0, 0] == pytest.approx(2 * quality - 0.5 * alignment)
    assert objective(metrics=metrics, value="alignment").direction == "maximize"


def test_a_search_is_better_than_uniform_bits_within_the_same_memory():
    opened = objective(mean_bits=3)
    result = search(opened, Evolution(population=16, offspring=8), budget=120, seed=0)
    assert result.best.memory <= opened.space.memory
    assert result.holdout.against("best uniform").difference < 0
    assert result.holdout.against("full precision").difference > 0


def test_profiles_have_one_table_per_metric_and_are_allocated_exactly():
    from searchlib import measure_profile

    metrics = {"quality": PairedDistance, "alignment": ImageReward(brightness)}
    opened = objective(metrics=metrics, mean_bits=3)
    profile = measure_profile(opened, metrics=("quality", "alignment"))
    assert profile.loss.shape == (2, 12, 4)
    assert profile.part_names[0] == "transformer_blocks.0.attn1.to_q:weight"
    rows = decoupled_allocations(profile, MIXDQ, tilts=(0.5, 2.0))
    assert len(rows) >= 1
    assert opened.space.contains(rows).all()
    found = opened.space.decode(profile.allocate(weights={"quality": 1.0}).choice)
    table = observed(opened, [found, opened.space.uniform(weight=3)], Split.HOLDOUT)
    assert table[0, :, 0].mean() < table[1, :, 0].mean()


def test_every_layer_is_judged_by_its_own_metric():
    names = ("blocks.0.attn.q", "blocks.0.cross_attn.q_linear", "blocks.0.attn_temp.q", "blocks.0.mlp.fc1")
    loss = np.ones((3, 4, 2)) * np.array([2.0, 0.0]) * np.array([1.0, 10.0, 100.0])[:, None, None]
    profile = AdditiveProfile(
        loss, [[[1.0, 2.0]] * 4], [6.0], metrics=("quality", "alignment", "temporal"),
        part_names=tuple(f"{name}:weight" for name in names),
    )  # fmt: skip
    weights = decoupled_weights(profile, VIDIT_Q)
    assert {m: np.flatnonzero(w).tolist() for m, w in weights.items()} == {
        "quality": [0, 3], "alignment": [1], "temporal": [2],
    }  # fmt: skip
    combined = profile.combined(weights).loss[0, :, 0]
    assert combined.tolist() == [0.5, 1.0, 1.0, 0.5]  # every metric would lose 1 in all
    rows = decoupled_allocations(profile, VIDIT_Q, tilts=(0.1, 1.0, 10.0))
    assert {tuple(row) for row in rows.tolist()} >= {(0, 1, 1, 0), (1, 0, 0, 1)}


def test_a_pipeline_is_sampled_by_its_own_scheduler():
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, layers_per_block=1,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    pipe = DDIMPipeline(unet, DDIMScheduler())
    noises = NoiseCases(search=4, holdout=2)
    sampler = PipelineSampler(pipe, num_inference_steps=2)
    opened = MixedPrecision(None, sampler, noises, shape=(1, 8, 8), weight=(2, 4, 8))
    table = observed(opened, [BitPlan(), *(opened.space.uniform(weight=bits) for bits in (8, 2))]).mean(axis=(1, 2))
    assert table[0] == 0 < table[1] < table[2]
    check_objective(opened, pickles=False)


def test_transformers_of_pipelines_are_found():
    pipe = DiTPipeline(_smoke_model(), _vae(), DDIMScheduler())
    sampler = PipelineSampler(pipe, prompt="class_labels", num_inference_steps=2, guidance_scale=1.0)
    opened = MixedPrecision(None, sampler, NOISES, shape=(1, 8, 8), weight=(2, 4))
    assert opened.model is pipe.transformer
    assert len(opened.layers) == 12
    with pytest.raises(UnsupportedModel, match="neither transformer nor unet"):
        MixedPrecision(None, PipelineSampler(object()), NOISES, shape=(1, 8, 8), weight=(2, 4))


def _vae():
    torch.manual_seed(0)
    return diffusers.AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=1, block_out_channels=(8,), norm_num_groups=4, sample_size=8
    )


def test_video_transformers_are_quantized_by_structure():
    torch.manual_seed(0)
    video = diffusers.LatteTransformer3DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=1, num_layers=1, sample_size=8,
        patch_size=2, cross_attention_dim=16, caption_channels=8, video_length=3, norm_type="ada_norm_single",
        num_embeds_ada_norm=None, norm_elementwise_affine=False,
    )  # fmt: skip

    def sample(model, noise, conditions):
        text = torch.ones(len(noise), 2, 8)
        for time in (900, 300):
            times = torch.full((len(noise),), time)
            noise = noise - 0.5 * model(noise, timestep=times, encoder_hidden_states=text).sample
        return noise

    def frame_changes(videos):
        return videos.diff(dim=2).flatten(1)

    opened = MixedPrecision(
        video, sample, NoiseCases(search=2, holdout=2), shape=(1, 3, 8, 8), weight=(2, 4, 8), activation=(6, 8),
        ranges=(500,),
        metrics={"quality": PairedDistance, "temporal": lambda full: PairedDistance(full, features=frame_changes)},
    )  # fmt: skip
    names = list(opened.layers)
    assert any("temporal_transformer_blocks" in name for name in names)
    assert not any("embed" in name or name.startswith(("adaln", "caption", "proj_out")) for name in names)
    table = observed(opened, [opened.space.uniform(weight=bits) for bits in (2, 8)])
    assert (table[0] > table[1]).all()


def test_an_exported_model_computes_what_was_searched_and_is_loaded_back(tmp_path):
    pytest.importorskip("torchao")
    from searchlib.objectives.torchao_export import stored_bytes

    opened = objective(activation=(8, 16))
    names = list(opened.layers)
    plan = BitPlan(
        weight={name: (2, 4, 8, "3@8")[i % 4] for i, name in enumerate(names)},
        activation={name: (8, 16)[i // 6] for i, name in enumerate(names)},
    )
    found = opened.artifact(plan)
    model = _smoke_model()
    noise = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        full = _smoke_sample(model, noise, [0, 1, 2])
        with found.attached(model):
            fake = _smoke_sample(model, noise, [0, 1, 2])
    exported = found.export(copy.deepcopy(model))
    with torch.inference_mode():
        real = _smoke_sample(exported, noise, [0, 1, 2])
    assert torch.allclose(real, fake, atol=1e-4)
    assert not torch.allclose(real, full, atol=1e-2)
    torch.save(exported.state_dict(), tmp_path / "weights.pt")
    back = copy.deepcopy(model)
    back.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True), assign=True)
    with torch.inference_mode():
        assert torch.equal(_smoke_sample(back, noise, [0, 1, 2]), real)
    # One byte per weight, whatever its bits: torchao packs nothing here. Scales and zero points come on top.
    weights = sum(layer.weight.numel() for layer in opened.layers.values())
    saved = stored_bytes(model) - stored_bytes(exported)
    assert 0.75 * 3 * weights < saved <= 3 * weights
    assert found.memory < weights


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (BitPlan(weight={"transformer_blocks.0.attn1.to_q": 12}), "weights of 2 to 8 bits"),
        (BitPlan(activation={"transformer_blocks.0.attn1.to_q": 8}), "weights of 2 to 8 bits"),
        (BitPlan(weight={"transformer_blocks.0.attn1.to_q": "4@5"}), "do not divide"),
        (BitPlan(weight={"transformer_blocks.0.attn1.nothing": 4}), "no module of the model"),
        (BitPlan(kv={"transformer_blocks.0.attn1": 4}), "no caches"),
    ],
)
def test_what_torchao_has_no_layer_for_is_refused_and_changes_nothing(plan, message):
    pytest.importorskip("torchao")
    from searchlib.objectives.torchao_export import export

    model = _smoke_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InvalidSettings, match=message):
        export(plan, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metrics": {"quality": 3}}, "must be an ImageScore"),
        ({"value": "speed"}, "value must be among"),
        ({"metrics": {"fd": FrechetDistance(torch.nn.Flatten(), np.random.default_rng(0).normal(size=(80, 64)))}},
         "images_per_case"),
        ({"full": ".*"}, "no layer to quantize"),
        ({"mean_bits": 1}, "no allocation meets"),
        ({"balancing": ChannelBalancing(), "static": True}, "not both"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(InvalidSettings, match=message):
        objective(**settings)


def test_static_activations_are_worse_than_dynamic_ones_where_tokens_differ():
    plans = objective().space.uniform(activation=4)
    dynamic = observed(objective(activation=(4, 8)), [plans]).mean()
    static = observed(objective(activation=(4, 8), static=True), [plans]).mean()
    assert static > dynamic


def test_candidates_are_scored_in_one_call_as_alone():
    opened = objective()
    rows = opened.space.sample(np.random.default_rng(0), 3)
    with opened:
        cases = opened.cases(Split.SEARCH)
        together = opened.evaluate(Candidates(opened.space, rows), cases)
        alone = [opened.evaluate(Candidates(opened.space, row[None]), cases)[0] for row in rows]
    assert np.array_equal(together, np.stack(alone))


def test_every_module_is_in_its_own_mode_afterwards_and_labels_are_not_dropped_before():
    model = _smoke_model().train()
    model.transformer_blocks[0].eval()
    modes = [module.training for module in model.modules()]
    made = [objective(model=model, balancing=ChannelBalancing(0.5)) for _ in range(2)]
    name = next(iter(made[0].layers))
    assert torch.equal(*(own.quantized.layers.balances[name].scale for own in made))
    with made[0]:
        assert not any(module.training for module in model.modules())
    assert [module.training for module in model.modules()] == modes


def test_the_winner_of_a_search_with_static_inputs_has_static_inputs(tmp_path):
    model = _smoke_model()
    own = objective(model=model, weight=(), activation=(4, 8), static=True)
    plan, some = own.space.uniform(activation=4), own.cases(Split.SEARCH)
    with own:
        own.quantized.set(plan)
        scored = own._images(some)[0]
    found = own.artifact(plan)
    with found.attached(model):
        assert torch.equal(own._images(some)[0], scored)
    with pytest.raises(InvalidSettings, match="static"):
        found.export(model)
    found.save(tmp_path / "bits.json")
    with pytest.raises(InvalidSettings, match="static"):
        type(found).load(tmp_path / "bits.json")


def test_other_weights_are_another_objective():
    model = _smoke_model()
    before = objective(model=model).fingerprint()
    assert before == objective().fingerprint()
    with torch.no_grad():
        model.transformer_blocks[0].attn1.to_q.weight.mul_(1.1)
    assert objective(model=model).fingerprint() != before
