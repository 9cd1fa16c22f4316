"""A model that computes as if it were quantized, and is itself again afterwards."""

import contextlib
import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from torch import nn  # noqa: E402

from searchlib.errors import InvalidSettings, UnsupportedModel  # noqa: E402
from searchlib.objectives.channel_balancing import ChannelBalancing, measure_inputs  # noqa: E402
from searchlib.objectives.fake_quantization import FakeQuantization  # noqa: E402
from searchlib.objectives.fake_quantize import fake_quantize  # noqa: E402
from searchlib.objectives.quantizable_layers import (  # noqa: E402
    DIFFUSION_FULL,
    LANGUAGE_FULL,
    count_tokens,
    find_layers,
    layer_sizes,
)
from searchlib.spaces import BitPlan  # noqa: E402


@pytest.fixture(scope="module")
def dit():
    torch.manual_seed(0)
    return diffusers.DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=1, num_layers=2, sample_size=8,
        patch_size=2, num_embeds_ada_norm=1000,
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 16),
        norm_num_groups=4, cross_attention_dim=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def run_dit(model, time=500, batch=3):
    x = torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    times, labels = torch.full((batch,), time), torch.arange(batch)
    with torch.inference_mode():
        return model(x, timestep=times, class_labels=labels).sample


def run_unet(model, batch=3):
    x = torch.randn(batch, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    text = torch.randn(batch, 4, 8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        return model(x, torch.tensor(10), text).sample


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_a_dit_has_its_projections_and_feed_forward_layers_quantized(dit):
    names = list(find_layers(dit, DIFFUSION_FULL))
    blocks = ["attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2"]
    assert names == [f"transformer_blocks.{i}.{name}" for i in range(2) for name in blocks]


def test_a_unet_keeps_its_ends_and_its_time_embedding_in_full_precision(unet):
    names = list(find_layers(unet, DIFFUSION_FULL))
    every = [name for name, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    full = {"conv_in", "conv_out", "time_embedding.linear_1", "time_embedding.linear_2"}
    assert set(every) - set(names) == full
    assert "down_blocks.1.attentions.0.proj_out" in names


def test_names_are_compared_as_a_whole_never_by_substring():
    model = nn.ModuleDict({"attn": nn.Linear(2, 2), "cross_attn": nn.Linear(2, 2), "attn_temp": nn.Linear(2, 2)})
    assert list(find_layers(model, "attn")) == ["cross_attn", "attn_temp"]
    gates = nn.ModuleDict({"gate": nn.Linear(2, 2), "gate_proj": nn.Linear(2, 2), "lm_head": nn.Linear(2, 2)})
    assert list(find_layers(gates, LANGUAGE_FULL)) == ["gate_proj"]


def test_layers_that_cannot_be_quantized_are_refused_by_name():
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    for full in ("", "1"):  # rounded for the one, it would be rounded for the other
        with pytest.raises(UnsupportedModel, match="1 and 0 share a weight"):
            find_layers(tied, full)
    assert list(find_layers(nn.Sequential(*tied, nn.Linear(2, 2)), "0|1")) == ["2"]
    experts = nn.Module()
    experts.gate_up_proj = nn.Parameter(torch.zeros(2, 4, 4))
    with pytest.raises(UnsupportedModel, match="many experts in one tensor"):
        find_layers(nn.ModuleDict({"experts": experts, "q": nn.Linear(2, 2)}))
    with pytest.raises(InvalidSettings, match="no layer to quantize"):
        find_layers(nn.ReLU())


def test_a_plan_computes_what_rounded_weights_and_inputs_compute(dit):
    """Against a copy of the model with rounded weights, and layers of our own that round their input."""
    layers = find_layers(dit, DIFFUSION_FULL)
    plan = BitPlan(weight=dict.fromkeys(layers, "3@8"), activation=dict.fromkeys(layers, 4))
    twin = copy.deepcopy(dit)

    class Rounding(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return nn.functional.linear(fake_quantize(x, 4), self.layer.weight, self.layer.bias)

    for name in layers:
        parent, _, last = name.rpartition(".")
        layer = twin.get_submodule(name)
        layer.weight.data = fake_quantize(layer.weight.data, 3, group=8)
        setattr(twin.get_submodule(parent), last, Rounding(layer))
    expected = run_dit(twin)
    with FakeQuantization(dit, layers) as quantized:
        quantized.set(plan)
        made = run_dit(dit)
    assert torch.equal(made, expected)
    assert not torch.allclose(made, run_dit(dit), atol=1e-3)


def test_the_model_is_bit_identical_afterwards_also_after_an_error(dit, unet):
    for model, run in ((dit, run_dit), (unet, run_unet)):
        before, pointers = state(model), [p.data_ptr() for p in model.parameters()]
        output = run(model)
        layers = find_layers(model, DIFFUSION_FULL)
        with contextlib.suppress(ZeroDivisionError), FakeQuantization(model, layers) as quantized:
            quantized.set(BitPlan(weight=dict.fromkeys(layers, 2), activation=dict.fromkeys(layers, 4)))
            assert not torch.equal(run(model), output)
            raise ZeroDivisionError
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert pointers == [p.data_ptr() for p in model.parameters()]
        assert torch.equal(run(model), output)
        assert not any(module._forward_pre_hooks for module in model.modules())


def test_full_precision_changes_nothing_and_other_plans_leave_no_trace(dit):
    layers = find_layers(dit, DIFFUSION_FULL)
    output = run_dit(dit)
    first = BitPlan(weight=dict.fromkeys(layers, 4))
    with FakeQuantization(dit, layers) as quantized:
        quantized.set(BitPlan())
        assert torch.equal(run_dit(dit), output)
        quantized.set(first)
        four = run_dit(dit)
        quantized.set(BitPlan(weight={next(iter(layers)): 2}, activation=dict.fromkeys(layers, 8)))
        run_dit(dit)
        quantized.set(BitPlan(activation=dict.fromkeys(layers, 16)))
        assert torch.equal(run_dit(dit), output)
        quantized.set(first)
        assert torch.equal(run_dit(dit), four)


def test_another_plan_copies_nothing(dit):
    layers = find_layers(dit, DIFFUSION_FULL)
    plans = [BitPlan(weight=dict.fromkeys(layers, bits)) for bits in (4, 8)]
    with FakeQuantization(dit, layers) as quantized:
        seen = []
        for plan in (*plans, *plans):
            quantized.set(plan)
            seen.append([layer.weight.data_ptr() for layer in layers.values()])
        assert seen[:2] == seen[2:]
        assert seen[0] != seen[1]
        assert quantized.kept_bytes == 2 * sum(layer.weight.numel() * 4 for layer in layers.values())


def test_it_works_in_inference_mode(dit):
    layers = find_layers(dit, DIFFUSION_FULL)
    with torch.inference_mode(), FakeQuantization(dit, layers) as quantized:
        quantized.set(BitPlan(weight=dict.fromkeys(layers, 4)))
        run_dit(dit)
    assert not any(p.is_inference() for p in dit.parameters())


def test_tokens_do_not_depend_on_who_shares_the_batch(dit):
    layers = find_layers(dit, DIFFUSION_FULL)
    with FakeQuantization(dit, layers) as quantized:
        quantized.set(BitPlan(activation=dict.fromkeys(layers, 4)))
        together = run_dit(dit, batch=3)
        assert torch.allclose(run_dit(dit, batch=1), together[:1], atol=1e-5)


def test_the_timestep_of_the_model_decides_the_range(dit):
    layers = find_layers(dit, DIFFUSION_FULL)
    ranged = BitPlan(activation=dict.fromkeys(layers, (16, 8, 4)), ranges=(600, 300))
    with FakeQuantization(dit, layers) as quantized:
        for time, bits in ((601, 16), (600, 8), (301, 8), (300, 4), (0, 4)):
            quantized.set(ranged)
            made = run_dit(dit, time)
            quantized.set(BitPlan(activation=dict.fromkeys(layers, bits)))
            assert torch.equal(made, run_dit(dit, time)), time
        quantized.set(ranged)
        with pytest.raises(InvalidSettings, match="timesteps in several ranges"):
            dit(torch.zeros(2, 1, 8, 8), timestep=torch.tensor([700, 100]), class_labels=torch.tensor([0, 1]))


def test_a_model_without_timesteps_is_told_the_range():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8))
    x = torch.randn(4, 8)
    with FakeQuantization(model, find_layers(model)) as quantized:
        quantized.set(BitPlan(activation={"0": (16, 2)}, ranges=(500,)))
        with quantized.at(700):
            assert torch.equal(model(x), nn.functional.linear(x, model[0].weight, model[0].bias))
        with quantized.at(100):
            rounded = nn.functional.linear(fake_quantize(x, 2), model[0].weight, model[0].bias)
            assert torch.equal(model(x), rounded)


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize("kind", ["linear", "convolution"])
def test_balancing_changes_nothing_before_rounding_and_helps_where_channels_differ(rotate, kind):
    generator = torch.Generator().manual_seed(0)
    linear = kind == "linear"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(48, 32) if linear else nn.Conv2d(48, 8, 3, padding=1))
    model.double().requires_grad_(False)
    x = torch.randn((64, 48) if linear else (4, 48, 6, 6), generator=generator, dtype=torch.float64)
    spread = torch.exp(2 * torch.randn(48, generator=generator, dtype=torch.float64))
    x = x * (spread if linear else spread[:, None, None])
    layers = find_layers(model)
    ranges = measure_inputs(layers, lambda: model(x))
    assert torch.allclose(ranges.largest["0"].double(), x.abs().movedim(1, -1).reshape(-1, 48).amax(0), rtol=1e-6)
    balances = {"0": ChannelBalancing(alpha=0.5, rotate=rotate).of(model[0], ranges.largest["0"])}
    exact = model(x).detach()
    errors = []
    for chosen in ({}, balances):
        with FakeQuantization(model, layers, balances=chosen) as quantized:
            quantized.set(BitPlan(weight={"0": 15}, activation={"0": 15}))
            assert torch.allclose(model(x), exact, atol=2e-2 * float(exact.std()))
            quantized.set(BitPlan(weight={"0": 4}, activation={"0": 4}))
            errors.append(float((model(x) - exact).square().mean()))
            quantized.set(BitPlan())
            assert torch.equal(model(x), exact)
    assert errors[1] < 0.7 * errors[0]


def test_a_channel_that_is_always_zero_is_left_as_it_is():
    layer = nn.Linear(4, 3)
    layer.weight.data[:, 1] = 0
    balance = ChannelBalancing().of(layer, torch.tensor([0.0, 1.0, 2.0, 3.0]))
    assert balance.scale[:2].tolist() == [1, 1]
    assert torch.isfinite(balance.rows(layer)).all()


def test_a_rotation_is_orthogonal_and_the_same_every_time():
    balance = [ChannelBalancing(rotate=True, seed=3).of(nn.Linear(24, 2), torch.ones(24)) for _ in range(2)]
    rotation = balance[0].rotation
    assert rotation.shape == (8, 8)  # the largest power of two that divides 24
    assert torch.allclose(rotation @ rotation.T, torch.eye(8), atol=1e-6)
    assert torch.equal(rotation, balance[1].rotation)
    assert not torch.equal(rotation, ChannelBalancing(rotate=True).of(nn.Linear(24, 2), torch.ones(24)).rotation)


def test_static_activations_are_cut_at_the_measured_range():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4))
    x = torch.randn(16, 8)
    layers = find_layers(model)
    ranges = measure_inputs(layers, lambda: model(x))
    with FakeQuantization(model, layers, static=ranges) as quantized:
        quantized.set(BitPlan(activation={"0": 8}))
        rounded = fake_quantize(x.flatten(), 8).reshape(x.shape)  # one scale for the whole tensor
        assert torch.allclose(model(x), nn.functional.linear(rounded, model[0].weight, model[0].bias), atol=1e-6)
        assert torch.equal(model(100 * x.abs().max() * torch.ones(1, 8)), model(x.max() * torch.ones(1, 8)))


def test_sizes_are_those_of_the_weights_and_of_what_flows(dit, unet):
    layers = find_layers(dit, DIFFUSION_FULL)
    tokens = count_tokens(dit, layers, run_dit)
    assert set(tokens.values()) == {16}
    sizes = layer_sizes(layers, ("weight", "activation"), tokens)
    weights = [size for size in sizes if size.kind == "weight"]
    assert sum(size.elements for size in weights) == sum(layer.weight.numel() for layer in layers.values())
    first = next(size for size in sizes if size.kind == "activation")
    assert (first.rows, first.columns, first.macs) == (16, 16, 16 * 16 * 16)
    convolutions = find_layers(unet, DIFFUSION_FULL)
    pixels = count_tokens(unet, convolutions, run_unet)
    assert pixels["down_blocks.0.resnets.0.conv1"] == 64
    sizes = layer_sizes(convolutions, ("activation",), pixels)
    down = [size for size in sizes if size.name == "down_blocks.0.downsamplers.0.conv"]
    assert down[0].macs == 16 * 8 * 8 * 9  # a quarter of the pixels


def test_transposed_linear_layers_are_rounded_per_output():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    layer = transformers.pytorch_utils.Conv1D(6, 4)
    model = nn.Sequential(layer)
    with FakeQuantization(model, find_layers(model)) as quantized:
        quantized.set(BitPlan(weight={"0": 2}))
        assert [len(np.unique(column.numpy())) <= 4 for column in layer.weight.data.T] == [True] * 6
        expected = fake_quantize(quantized._own["0"].T, 2).T
        assert torch.equal(layer.weight.data, expected)


def test_a_plan_for_other_layers_is_refused(dit):
    layers = find_layers(dit, DIFFUSION_FULL)
    with FakeQuantization(dit, layers) as quantized, pytest.raises(InvalidSettings, match="none of the 12 layers"):
        quantized.set(BitPlan(weight={"proj_out_1": 4}))
    with pytest.raises(InvalidSettings, match="enter the quantization first"):
        FakeQuantization(dit, layers).set(BitPlan())


def test_a_head_that_shares_its_weight_with_an_embedding_is_refused():
    model = nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4), nn.Linear(4, 8, bias=False))
    model[2].weight = model[0].weight
    with pytest.raises(UnsupportedModel, match="0 and 2 share a weight"):
        find_layers(model)
    assert list(find_layers(model, full="2")) == ["1"]


@pytest.mark.parametrize("batch", [1, 2])
def test_tokens_of_a_video_are_counted_per_example_whatever_the_batch_of_a_layer(batch):
    torch.manual_seed(0)
    video = diffusers.LatteTransformer3DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=2, out_channels=2, num_layers=1, sample_size=4,
        patch_size=2, cross_attention_dim=8, caption_channels=8, norm_type="ada_norm_single", video_length=3,
        num_embeds_ada_norm=10,
    ).eval()  # fmt: skip
    layers = find_layers(video, DIFFUSION_FULL)
    latents, text = torch.randn(batch, 2, 3, 4, 4), torch.randn(batch, 5, 8)
    found = count_tokens(video, layers, lambda model: model(latents, torch.zeros(batch).long(), text))
    places, frames = 4, 3
    assert found["transformer_blocks.0.attn1.to_q"] == places * frames
    assert found["temporal_transformer_blocks.0.attn1.to_q"] == places * frames
    assert found["transformer_blocks.0.attn2.to_k"] == 5 * frames  # the text, once for every frame
