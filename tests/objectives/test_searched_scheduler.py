import json
import math

import numpy as np
import pytest

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.spaces import SolverSchedule, SolverSchedules, SolverStep

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from searchlib.objectives.known_solvers import known_schedules, noise_levels, schedule_from_sigmas  # noqa: E402
from searchlib.objectives.noise_schedules import NoiseSchedule  # noqa: E402
from searchlib.objectives.searched_scheduler import SearchedScheduler  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning"),
]

NOISE = NoiseSchedule.from_config(diffusers.DDPMScheduler().config)


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    diffusers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=4, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8),
        norm_num_groups=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def latent_parts():
    """The parts of a tiny Stable Diffusion, without its text encoder: prompts are given as embeddings."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 8),
        norm_num_groups=4, cross_attention_dim=8, attention_head_dim=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4, sample_size=8)
    return {"unet": unet.eval(), "vae": vae.eval(), "text_encoder": None, "tokenizer": None, "safety_checker": None,
            "feature_extractor": None, "requires_safety_checker": False}  # fmt: skip


def generator():
    return torch.Generator().manual_seed(3)


def prompt(batch=2):
    return {
        "prompt_embeds": torch.randn(batch, 5, 8, generator=torch.Generator().manual_seed(4)),
        "guidance_scale": 1.0,
        "output_type": "latent",
    }


def close(got, expected, tolerance=1e-4):
    assert torch.isfinite(expected).all()
    return float((got - expected).abs().max() / expected.abs().max()) < tolerance


def as_searched(scheduler, solver, steps):
    """The scheduler of diffusers, encoded at its own noise levels."""
    scheduler.set_timesteps(steps)
    schedule = schedule_from_sigmas(solver, scheduler.sigmas.tolist())
    return SearchedScheduler.from_config(scheduler.config, schedule=schedule)


def test_a_stock_pipeline_makes_the_same_images_with_the_encoded_solver(unet):
    pipe = diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler())
    stock = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config)
    images = []
    for scheduler in (stock, as_searched(stock, "dpm++2m-midpoint", 7)):
        pipe.scheduler = scheduler
        images.append(torch.tensor(pipe(3, num_inference_steps=7, generator=generator(), output_type="np").images))
    assert close(images[1], images[0])


def test_a_pipeline_made_for_ddim_runs_too(unet):
    pipe = diffusers.DDIMPipeline(unet, diffusers.DDIMScheduler())
    pipe.scheduler = SearchedScheduler.from_config(
        pipe.scheduler.config, schedule=known_schedules(5, NOISE)["unipc3-bh2-data/logsnr/zero"]
    )
    assert np.isfinite(pipe(2, num_inference_steps=5, output_type="np").images).all()


def test_text_to_image_is_that_of_the_encoded_solver(latent_parts):
    stock = diffusers.UniPCMultistepScheduler(solver_order=3, steps_offset=1)
    latents = []
    for scheduler in (stock, as_searched(stock, "unipc3-bh2-data", 6)):
        pipe = diffusers.StableDiffusionPipeline(scheduler=scheduler, **latent_parts)
        latents.append(pipe(num_inference_steps=6, generator=generator(), **prompt()).images)
    assert close(latents[1], latents[0])


@pytest.mark.parametrize("strength", [0.3, 0.6, 1.0])
def test_image_to_image_starts_in_the_middle_like_the_encoded_solver(latent_parts, strength):
    stock = diffusers.DPMSolverMultistepScheduler(steps_offset=1)
    image = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    latents = []
    for scheduler in (stock, as_searched(stock, "dpm++2m-midpoint", 10)):
        pipe = diffusers.StableDiffusionImg2ImgPipeline(scheduler=scheduler, **latent_parts)
        result = pipe(image=image, strength=strength, num_inference_steps=10, generator=generator(), **prompt())
        latents.append(result.images)
        assert scheduler.step_index == 10
    assert close(latents[1], latents[0])


@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_inpainting_changes_samples_between_steps_like_with_the_encoded_solver(latent_parts, strength):
    stock = diffusers.DPMSolverMultistepScheduler(steps_offset=1)
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    mask = torch.zeros(1, 1, 8, 8)
    mask[..., 4:] = 1
    latents = []
    for scheduler in (stock, as_searched(stock, "dpm++2m-midpoint", 8)):
        pipe = diffusers.StableDiffusionInpaintPipeline(scheduler=scheduler, **latent_parts)
        result = pipe(image=image, mask_image=mask, strength=strength, num_inference_steps=8, height=8, width=8,
                      generator=generator(), **prompt(1))  # fmt: skip
        latents.append(result.images)
    assert close(latents[1], latents[0])


def test_with_a_corrector_what_a_pipeline_changed_is_kept():
    schedule = schedule_from_sigmas("unipc2-bh2-data", noise_levels("karras", NOISE, 3))
    results = []
    for change in (0.0, 5.0):
        scheduler = SearchedScheduler(schedule)
        scheduler.set_timesteps(3)
        x = torch.ones(1, 2)
        x = scheduler.step(0.1 * x, scheduler.timesteps[0], x).prev_sample + change
        results.append(scheduler.step(torch.full((1, 2), 0.3), scheduler.timesteps[1], x).prev_sample)
    assert float((results[1] - results[0]).abs().min()) > 0.5


def test_an_analytical_first_step_costs_no_evaluation_and_needs_no_other_pipeline(latent_parts):
    """Against a network that does make the first evaluation, of data 0."""
    sigmas = noise_levels("logsnr", NOISE, 5, final="zero")
    analytic = schedule_from_sigmas("dpm++3m-midpoint", sigmas, analytic_first_step=True)
    full = schedule_from_sigmas("dpm++3m-midpoint", sigmas)
    first = NOISE.time(sigmas[0])

    def hook(module, arguments, keywords, output):
        calls.append(float(arguments[1].max()))
        if math.isclose(calls[-1], first, abs_tol=1e-3):
            _, s = NOISE.alpha_sigma(sigmas[0])
            return (arguments[0] / s,)
        return output

    latents, evaluations = [], []
    for schedule in (full, analytic):
        calls = []
        pipe = diffusers.StableDiffusionPipeline(scheduler=SearchedScheduler(schedule), **latent_parts)
        handle = pipe.unet.register_forward_hook(hook, with_kwargs=True)
        latents.append(pipe(num_inference_steps=schedule.nfe, generator=generator(), **prompt()).images)
        handle.remove()
        evaluations.append(len(calls))
    assert evaluations == [5, 4]
    assert close(latents[1], latents[0])


def test_image_to_image_does_not_mistake_noisy_data_for_an_analytical_start():
    sigmas = noise_levels("logsnr", NOISE, 4)
    scheduler = SearchedScheduler(schedule_from_sigmas("dpm++2m-heun", sigmas, analytic_first_step=True))
    plain = SearchedScheduler(schedule_from_sigmas("dpm++2m-heun", sigmas[1:]))
    data, noise = torch.randn(2, 1, 6, generator=generator()).split(1)
    results = []
    for each in (scheduler, plain):
        each.set_timesteps(3)
        each.set_begin_index(0)
        x = each.add_noise(data, noise, each.timesteps[:1])
        for t in each.timesteps:
            x = each.step(0.3 * torch.tanh(x), t, x).prev_sample
        results.append(x)
    assert torch.equal(*results)


@pytest.mark.parametrize("stock", [diffusers.DPMSolverMultistepScheduler, diffusers.UniPCMultistepScheduler])
def test_noise_is_added_as_diffusers_adds_it(stock):
    reference = stock()
    ours = as_searched(reference, "dpm++2m-midpoint", 6)
    reference.set_timesteps(6)
    ours.set_timesteps(6)
    data, noise = torch.randn(2, 3, 1, 4, 4, generator=generator()).unbind()
    expected = reference.add_noise(data, noise, reference.timesteps[[0, 2, 5]])
    assert torch.allclose(ours.add_noise(data, noise, ours.timesteps[[0, 2, 5]]), expected, atol=1e-5)
    times = torch.tensor([17, 500, 999])
    expected = diffusers.DDPMScheduler().add_noise(data, noise, times)
    assert torch.allclose(ours.add_noise(data, noise, times), expected, atol=1e-5)


def test_flow_matching_euler_is_order_1():
    stock = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    stock.set_timesteps(6)
    s = stock.sigmas.double().clamp(max=1 - 1e-6)
    schedule = schedule_from_sigmas("ddim", (s / (1 - s)).tolist())
    ours = SearchedScheduler.from_config(stock.config, schedule=schedule)
    ours.set_timesteps(6)
    assert torch.allclose(ours.timesteps, stock.timesteps, atol=2e-3)
    results = []
    for scheduler in (stock, ours):
        x = torch.randn(2, 4, generator=generator())
        for t in scheduler.timesteps:
            x = scheduler.step(torch.sin(x) - t / 1000 * x, t, x, return_dict=False)[0]
        results.append(x)
    assert close(results[1], results[0], 1e-5)


def test_what_flow_pipelines_pass_is_accepted_and_noise_scaled():
    stock = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    flow = NoiseSchedule.from_config(stock.config)
    ours = SearchedScheduler.from_config(stock.config, schedule=known_schedules(5, flow)["ddim/time/zero"])
    ours.set_timesteps(sigmas=np.linspace(1, 0.2, 5), mu=1.1)
    data, noise = torch.randn(2, 3, 4, generator=generator()).unbind()
    t = ours.timesteps[[1, 2, 3]]
    s = (t / 1000)[:, None]
    assert torch.allclose(ours.scale_noise(data, t, noise), (1 - s) * data + s * noise, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_a_saved_scheduler_comes_back_to_the_bit(tmp_path, unet, seed):
    space = SolverSchedules(6, NOISE.sigma_max, (NOISE.sigma_min, 2 * NOISE.sigma_min))
    schedule = space.decode(space.sample(np.random.default_rng(seed), 1)[0])
    replaced = diffusers.DDPMScheduler(beta_end=0.03, prediction_type="v_prediction")
    scheduler = SearchedScheduler.from_config(replaced.config, schedule=schedule)
    pipe = diffusers.DDPMPipeline(unet, replaced)
    pipe.scheduler = scheduler
    pipe.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert written["schedule"] == json.loads(json.dumps(schedule.to_json()))
    assert (written["beta_end"], written["prediction_type"]) == (0.03, "v_prediction")
    alone = SearchedScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    for back in (alone, diffusers.DDPMPipeline.from_pretrained(tmp_path).scheduler):
        assert isinstance(back, SearchedScheduler)
        assert back.schedule == schedule
        assert torch.equal(back.timesteps, scheduler.timesteps)
        assert back.init_noise_sigma == scheduler.init_noise_sigma
        assert back.noise_schedule == scheduler.noise_schedule


def test_the_replaced_scheduler_can_be_put_back():
    replaced = diffusers.DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1)
    ours = SearchedScheduler.from_config(replaced.config, schedule=known_schedules(5, NOISE)["ddim/karras/zero"])
    back = diffusers.DDIMScheduler.from_config(ours.config)
    for name in ("beta_schedule", "clip_sample", "steps_offset", "set_alpha_to_one"):
        assert back.config[name] == replaced.config[name]


def test_defaults_of_the_replaced_class_are_not_lost():
    heun = diffusers.HeunDiscreteScheduler()  # its betas end at 0.012, those of other classes at 0.02
    ours = SearchedScheduler.from_config(heun.config, schedule=known_schedules(5, NOISE)["ddim/karras/zero"])
    assert ours.config["beta_end"] == heun.config["beta_end"] == 0.012


def test_half_precision_is_computed_in_single():
    schedule = known_schedules(5, NOISE)["unipc2-bh2-data/karras/zero"]
    results = {}
    for dtype in (torch.float16, torch.float32):
        scheduler = SearchedScheduler(schedule)
        scheduler.set_timesteps(5)
        x = torch.randn(2, 4, generator=generator()).to(dtype)
        for t in scheduler.timesteps:
            x = scheduler.step((0.9 * x).to(dtype), t, x).prev_sample
            assert x.dtype == dtype
        results[dtype] = x.float()
    # ε = 0.9 x in half precision is off by 5e-4, magnified on the way down from σ = 157.
    assert close(results[torch.float16], results[torch.float32], 0.1)


def test_a_learned_variance_is_dropped():
    schedule = known_schedules(3, NOISE)["ddim/karras/zero"]
    learned = SearchedScheduler(schedule, variance_type="learned_range")
    plain = SearchedScheduler(schedule)
    x = torch.randn(2, 3, 4, 4, generator=generator())
    for scheduler in (learned, plain):
        scheduler.set_timesteps(3)
    t = plain.timesteps[0]
    both = learned.step(torch.cat([0.2 * x, x], dim=1), t, x).prev_sample
    assert torch.equal(both, plain.step(0.2 * x, t, x).prev_sample)


def test_another_number_of_steps_is_refused_with_the_right_one():
    scheduler = SearchedScheduler(known_schedules(5, NOISE)["ddim/karras/zero"])
    with pytest.raises(InvalidSettings, match="num_inference_steps=5, but got 50"):
        scheduler.set_timesteps(50)


def test_what_cannot_be_meant_is_refused():
    schedule = SolverSchedule((10.0, 1.0), (SolverStep(),))
    with pytest.raises(InvalidSettings, match="a schedule is needed"):
        SearchedScheduler.from_config(diffusers.DDIMScheduler().config)
    with pytest.raises(UnsupportedModel, match="prediction_type must be"):
        SearchedScheduler(schedule, prediction_type="score")
    with pytest.raises(InvalidSettings, match="belongs to the prediction type"):
        SearchedScheduler(schedule, use_flow_sigmas=True)
    with pytest.raises(InvalidSettings, match="set_timesteps"):
        SearchedScheduler(schedule).step(torch.ones(1), 0, torch.ones(1))
    scheduler = SearchedScheduler(schedule)
    scheduler.set_timesteps(1)
    with pytest.raises(InvalidSettings, match="eta"):
        scheduler.step(torch.ones(1), 0, torch.ones(1), eta=1.0)
