"""Whatever is raised inside a model that an objective holds, closing it leaves the model as it was found."""

import contextlib
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")

from torch import nn  # noqa: E402
from torch.nn.modules.module import register_module_forward_pre_hook  # noqa: E402
from transformers import AttentionInterface  # noqa: E402
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS  # noqa: E402
from transformers.masking_utils import AttentionMaskInterface  # noqa: E402

from searchlib import Candidates, Split, Status, search  # noqa: E402
from searchlib.objectives import (  # noqa: E402
    CaseLoss,
    CausalTextModel,
    ChannelBalancing,
    CheckpointCombination,
    ExpertPruning,
    FrechetDistance,
    MixedPrecision,
    NoiseCases,
    PipelineSampler,
    Prompt,
    QuantizedLLM,
    Sampling,
    SolverSearch,
    SparseAttention,
    checkpoint_combination,
    expert_pruning,
    mixed_precision,
    quantized_llm,
    sparse_attention,
)

MANY = os.environ.get("SEARCHLIB_SLOW") == "1"


class Trip:
    """Raises when the n-th module from now on is called, at whatever depth; without n it only counts."""

    def __init__(self, at=None, error=None):
        self.at, self.error, self.calls = at, error, 0

    def __enter__(self):
        self.handle = register_module_forward_pre_hook(self.called)
        return self

    def __exit__(self, *_):
        self.handle.remove()

    def called(self, module, arguments):
        self.calls += 1
        if self.calls == self.at:
            raise self.error


def state(model):
    """All that could have been left behind: numbers and where they lie, hooks, modes, attributes, configurations."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    numbers = {
        name: (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.requires_grad, tensor.grad is None,
               tensor.detach().numpy().tobytes())
        for name, tensor in tensors.items()
    }  # fmt: skip
    modules = {
        name: (id(module), type(module), module.training, sorted(vars(module)), list(module._modules),
               *(len(hooks) for key, hooks in sorted(vars(module).items()) if key.endswith("_hooks")),
               getattr(module, "num_experts", None), getattr(module, "top_k", None))
        for name, module in model.named_modules()
    }  # fmt: skip
    configs = {name: repr(vars(module.config)) for name, module in model.named_modules()
               if hasattr(module, "config") and hasattr(module.config, "__dict__")}  # fmt: skip
    interfaces = (AttentionInterface, AttentionMaskInterface)
    names = [dict(interface._global_mapping) for interface in interfaces]
    names.append(dict(ALL_EXPERTS_FUNCTIONS._global_mapping))
    return {"tensors": numbers, "modules": modules, "configs": configs, "names": names,
            "threads": torch.get_num_threads(), "gradients": torch.is_grad_enabled()}  # fmt: skip


def answers():
    made = ExpertPruning.smoke()
    return {split: list(made.cases(split).payload) for split in Split}


def pruned(lazy=False):
    return expert_pruning._smoke_model()[0], lambda model: ExpertPruning(model, None, answers(), keep=2, lazy=lazy)


def pruned_lazily():
    return pruned(lazy=True)


def quantized():
    made = QuantizedLLM.smoke()
    settings = {"weight": (2, 4, 8), "kv": (4, 16), "mean_bits": 4, "metric": "kl", "balancing": ChannelBalancing()}
    cases = {split: list(made.cases(split).payload) for split in Split}
    return quantized_llm._smoke_model(), lambda model: QuantizedLLM(model, cases, **settings)


def generating():
    noises = NoiseCases(search=4, holdout=2, conditions=(0, 1))
    settings = {"shape": (1, 8, 8), "weight": (2, 4), "activation": (8,), "ranges": (500.0,), "static": True}
    return mixed_precision._smoke_model(), lambda model: MixedPrecision(
        model, mixed_precision._smoke_sample, noises, **settings
    )


def sparse():
    return sparse_attention._smoke_model()[0], lambda model: SparseAttention(
        model, None, sparse_attention._smoke_cases(), sink=1, supervision="model"
    )


def combined():
    judge = CaseLoss(checkpoint_combination._smoke_loss, checkpoint_combination._smoke_cases())
    stages = checkpoint_combination._smoke_checkpoints()
    model = nn.Sequential(nn.Linear(3, 1), nn.Identity())
    named = [{f"0.{name}": tensor for name, tensor in stage.items()} for stage in stages]
    return model, lambda model: CheckpointCombination(model, named, judge)


def sampled():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = diffusers.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4,
            layers_per_block=1, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
        )  # fmt: skip

    def build(model):
        pipe = diffusers.DDIMPipeline(model, diffusers.DDIMScheduler())
        score = FrechetDistance(first_pixels, torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(0)))
        noises = NoiseCases(search=4, holdout=2)
        return SolverSearch(PipelineSampler(pipe, batch=4), 3, score, noises)

    return unet, build


def first_pixels(images):
    return images.flatten(1)[:, :4]


ADAPTERS = pytest.mark.parametrize(
    "adapter", [pruned, pruned_lazily, quantized, generating, sparse, combined, sampled], ids=lambda made: made.__name__
)


def in_mixed_modes(model):
    """As a training loop may leave a model."""
    model.train()
    next(module for module in model.modules() if not list(module.children())).eval()
    return model


def made(adapter):
    model, build = adapter()
    return in_mixed_modes(model), build


def scored(objective):
    cases = objective.cases(Split.SEARCH)
    rows = objective.space.canonical(objective.space.sample(np.random.default_rng(0), 3))
    given = objective.evaluate(Candidates(objective.space, rows), cases.take(range(min(4, len(cases)))))
    return np.asarray(getattr(given, "values", given))


def depths(calls, most=40):
    """At which calls to raise: all over the model with ``make soak``."""
    return range(1, calls + 1, max(1, calls // most)) if MANY else [max(1, 2 * calls // 3)]


@ADAPTERS
def test_an_exception_inside_a_model_leaves_it_bit_identical_and_the_next_candidate_is_scored_right(adapter):
    model, build = made(adapter)
    objective, before = build(model), state(model)
    assert len(before["tensors"]) >= 2
    with objective:
        expected = scored(objective)
        with Trip() as counted:
            assert np.array_equal(scored(objective), expected)
    assert state(model) == before
    assert counted.calls >= 2
    for place, depth in enumerate(depths(counted.calls)):
        error = (RuntimeError, KeyboardInterrupt, MemoryError)[place % 3]("tripped")
        with pytest.raises(type(error), match="tripped"), objective, Trip(depth, error):
            scored(objective)
        assert state(model) == before, (depth, error)
        with objective:
            with pytest.raises(type(error), match="tripped"), Trip(depth, error):
                scored(objective)
            assert np.array_equal(scored(objective), expected), (depth, error)
        assert state(model) == before, (depth, error)


@ADAPTERS
def test_an_exception_while_an_objective_is_made_leaves_its_model_bit_identical(adapter):
    """Some look at the model first: they calibrate, count tokens, or write down its own answers."""
    model, build = made(adapter)
    before = state(model)
    with Trip() as counted:
        build(model)
    assert state(model) == before
    for depth in depths(counted.calls) if counted.calls else ():
        with pytest.raises(KeyboardInterrupt), Trip(depth, KeyboardInterrupt()):
            build(model)
        assert state(model) == before, depth
    assert counted.calls or adapter not in (quantized, generating, sparse)


@ADAPTERS
def test_an_exception_at_any_time_of_a_search_leaves_the_model_bit_identical(adapter):
    """Seeds, candidates, the held-out comparison and its references all run the model."""
    if adapter not in (pruned, quantized, sparse) and not MANY:
        pytest.skip("make soak")
    settings = {"budget": 2, "batch_size": 2, "shortlist": 1}
    model, build = made(adapter)
    objective, before = build(model), state(model)
    with Trip() as counted:
        result = search(objective, **settings)
    assert (result.history.status == Status.DONE).all()
    assert state(model) == before
    for depth in depths(counted.calls, most=10):
        objective = build(model)
        with contextlib.suppress(KeyboardInterrupt), Trip(depth, KeyboardInterrupt()) as trip:
            search(objective, **settings)
        assert trip.calls >= depth  # it is interrupted there, and ends with the best so far
        assert state(model) == before, depth


def letters():
    tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")
    known = {word: place for place, word in enumerate(("<pad>", "</s>", *"abcdefgh"))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(known, unk_token="<pad>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), behavior="isolated")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>")


def test_an_exception_while_text_is_written_leaves_the_model_bit_identical():
    model = in_mixed_modes(expert_pruning._smoke_model()[0])
    writer, before = CausalTextModel(model, letters()), state(model)
    prompts, sampling = [Prompt("abc"), Prompt("ad", "a")], Sampling(max_tokens=3)
    with Trip() as counted:
        expected = writer(prompts, sampling, seeds=[0, 1])
    assert state(model) == before
    for depth in depths(counted.calls):
        with pytest.raises(ValueError, match="tripped"), Trip(depth, ValueError("tripped")):
            writer(prompts, sampling, seeds=[0, 1])
        assert state(model) == before, depth
        assert writer(prompts, sampling, seeds=[0, 1]) == expected
