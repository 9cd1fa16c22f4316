"""Every adapter that runs a model: on a GPU it finds what it finds on the processor, and keeps the contract there."""

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

from searchlib import Candidates, Cases, Objective, RandomSearch, Split, Status, search  # noqa: E402
from searchlib.objectives import (  # noqa: E402
    CaseLoss,
    CheckpointCombination,
    CheckpointStore,
    ExpertPruning,
    MixedPrecision,
    NoiseCases,
    NoiseModel,
    PairedDistance,
    PipelineSampler,
    QuantizedLLM,
    SolverSearch,
    SparseAttention,
)
from searchlib.objectives.expert_pruning import _smoke_model as small_mixtral  # noqa: E402
from searchlib.objectives.mixed_precision import _smoke_model as small_dit  # noqa: E402
from searchlib.objectives.quantized_llm import _smoke_model as small_llama  # noqa: E402
from searchlib.objectives.sparse_attention import _smoke_cases as answers  # noqa: E402
from searchlib.objectives.sparse_attention import _smoke_model as small_grouped_llama  # noqa: E402
from searchlib.spaces import Binary, Integer  # noqa: E402
from searchlib.testing import check_objective  # noqa: E402

pytestmark = [
    pytest.mark.usefixtures("_one_thread"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]


def experts(place):
    model, _ = small_mixtral()
    return ExpertPruning(model.to(place), None, ExpertPruning.smoke()._parts, keep=2)


def spans(place):
    model, _ = small_grouped_llama()
    return SparseAttention(model.to(place), None, answers(), sink=1)


def bits_of_a_language_model(place):
    return QuantizedLLM(
        small_llama().to(place), QuantizedLLM.smoke()._parts, weight=(2, 4, 8), kv=(4, 16), mean_bits=4,
        metric="kl", batch=4,
    )  # fmt: skip


def bits_of_a_diffusion_model(place):
    def sample(model, noise, conditions):
        scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
        scheduler.set_timesteps(3)
        x, labels = noise.to(place), torch.tensor(list(conditions), device=place)
        for step in scheduler.timesteps:
            predicted = model(x, timestep=step.to(place).expand(len(x)), class_labels=labels).sample
            x = scheduler.step(predicted, step, x).prev_sample
        return x

    noises = NoiseCases(search=6, select=4, holdout=4, conditions=(0, 1, 2))
    model = small_dit().to(place)
    return MixedPrecision(model, sample, noises, shape=(1, 8, 8), weight=(2, 3, 4, 8), mean_bits=3)


def unet():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return diffusers.UNet2DModel(
            sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8, 16), layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"), up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4, attention_head_dim=4,
        ).eval()  # fmt: skip


def long_trajectory(place):
    scheduler = diffusers.DDIMScheduler(num_train_timesteps=1000, clip_sample=False)

    def sample(noise, conditions):
        del conditions
        network, x = unet().to(place), noise.to(place)
        scheduler.set_timesteps(20)
        with torch.inference_mode():
            for time in scheduler.timesteps:
                x = scheduler.step(network(x, time.to(place)).sample, time, x).prev_sample
        return x.cpu()

    return sample


def solvers_on_a_network(place):
    config = diffusers.DDIMScheduler(num_train_timesteps=1000).config
    model = NoiseModel.from_diffusers(unet().to(place), config)
    noises = NoiseCases(search=8, holdout=8)
    return SolverSearch(model, 4, PairedDistance(long_trajectory(place)), noises, shape=(1, 8, 8), device=place)


def solvers_in_a_pipeline(place):
    pipe = diffusers.DDIMPipeline(unet(), diffusers.DDIMScheduler(num_train_timesteps=1000, clip_sample=False))
    pipe.set_progress_bar_config(disable=True)
    sampler = PipelineSampler(pipe.to(place), num_inference_steps=4)
    noises = NoiseCases(search=4, holdout=4)
    return SolverSearch(sampler, 4, PairedDistance(long_trajectory(place)), noises, shape=(1, 8, 8))


def checkpoints(place):
    def loss(model, cases):
        inputs = torch.tensor(cases, device=place)
        return (model(inputs)[:, 0] - inputs.sum(dim=1)) ** 2

    model = torch.nn.Linear(3, 1)
    generator = torch.Generator().manual_seed(0)
    saved = [
        {"weight": 0.1 * i * torch.ones(1, 3) + 0.1 * torch.randn(1, 3, generator=generator), "bias": torch.zeros(1)}
        for i in range(6)
    ]
    store = CheckpointStore.open(saved).load(place)
    draws = torch.randn(30, 3, generator=generator).tolist()
    cases = {"search": draws[:10], "select": draws[10:20], "holdout": draws[20:]}
    return CheckpointCombination(model.to(place), store, CaseLoss(loss, cases))


ADAPTERS = [
    experts, spans, bits_of_a_language_model, bits_of_a_diffusion_model, solvers_on_a_network, solvers_in_a_pipeline,
    checkpoints,
]  # fmt: skip


def scores(objective, rows):
    with objective:
        found = objective.evaluate(Candidates(objective.space, rows), objective.cases(Split.SEARCH))
    return np.asarray(getattr(found, "secondary", found) if getattr(found, "secondary", None) is not None else found)


@pytest.mark.parametrize("make", ADAPTERS, ids=lambda make: make.__name__)
def test_a_gpu_finds_what_the_processor_finds(make):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    here, there = make("cpu"), make("cuda")
    rows = here.space.sample(np.random.default_rng(0), 6)
    expected, found = scores(here, rows), scores(there, rows)
    assert np.ptp(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("make", ADAPTERS, ids=lambda make: make.__name__)
def test_a_search_on_a_gpu_ends_with_a_winner_and_its_held_out_values(make):
    result = search(make("cuda"), budget=24, seed=0)
    assert np.isfinite(result.value)
    assert result.holdout.rows


def experts_on_a_gpu():
    return small_mixtral()[0].cuda(), None


def llama_on_a_gpu():
    return small_llama().cuda()


def grouped_llama_on_a_gpu():
    return small_grouped_llama()[0].cuda(), None


def test_the_contract_holds_on_a_gpu():
    check_objective(ExpertPruning(experts_on_a_gpu, None, ExpertPruning.smoke()._parts, keep=2), tolerance=1e-3)
    check_objective(SparseAttention(grouped_llama_on_a_gpu, None, answers(), sink=1), tolerance=1e-3)
    check_objective(
        QuantizedLLM(llama_on_a_gpu, QuantizedLLM.smoke()._parts, weight=(2, 4, 8), kv=(4, 16), metric="kl", batch=4),
        tolerance=1e-3,
    )


class Hanging(Objective):
    """Takes two gigabytes of the GPU for every candidate; one of them never gives them back."""

    space, chunk_rows = Integer(0, 7), 1

    def cases(self, split):
        return Cases(("a",)) if split is Split.SEARCH else Cases.none()

    def seeds(self):
        return np.arange(8)[:, None]

    def evaluate(self, candidates, cases):
        held = torch.ones(2**29, device="cuda")
        if candidates.array[0, 0] == 5:
            time.sleep(600)
        return candidates.array * float(held[0])


def test_a_candidate_that_hangs_gives_its_memory_back():
    free, _ = torch.cuda.mem_get_info()
    history = search(Hanging(), RandomSearch(), budget=8, workers=2, timeout=20.0).history
    assert (history.status == Status.FAILED).tolist() == (history.population[:, 0] == 5).tolist()
    until = time.monotonic() + 30
    while torch.cuda.mem_get_info()[0] < free - 2**32 and time.monotonic() < until:
        time.sleep(0.5)  # the workers that go on hold theirs
    assert torch.cuda.mem_get_info()[0] >= free - 2**32


@pytest.mark.parametrize("place", ["cuda", "cpu"])
def test_scores_that_are_on_a_gpu_fail_with_the_way_out(place):
    def score(population):
        return torch.from_numpy(population.sum(axis=1)).to(place)

    history = search(score, RandomSearch(), space=Binary(6), budget=5, batched=True, max_failures=6).history
    assert (history.status == Status.DONE).all() == (place == "cpu")
    assert all(("cpu()" in error) == (place == "cuda") for error in history.errors)
