"""Encoded solvers against the schedulers of diffusers, on the same noise levels and times."""

import itertools

import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.spaces import SolverSchedules

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from searchlib.objectives.known_solvers import (  # noqa: E402
    SOLVERS,
    KnownSolver,
    known_schedules,
    noise_levels,
    schedule_from_sigmas,
)
from searchlib.objectives.noise_schedules import NoiseSchedule, prediction_type_of  # noqa: E402
from searchlib.objectives.schedule_sampling import NoiseModel, sample_schedules  # noqa: E402

# Of diffusers' own schedulers.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*algorithm_type.*is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

DOUBLE = torch.float64
BUDGETS = (5, 7, 10, 20)


class Smooth:
    """A fixed smooth function of x and t; times rounded to the whole ones that diffusers uses."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.mix = torch.randn(16, 16, generator=generator, dtype=DOUBLE) / 4
        self.shift = torch.randn(16, generator=generator, dtype=DOUBLE)

    def __call__(self, x, t):
        t = torch.as_tensor(t).to(DOUBLE).round().reshape(-1, 1) / 1000
        return 0.8 * torch.tanh(x @ self.mix + self.shift * t) + 0.3 * x * torch.cos(3 * t)


class SmallUNet:
    """A randomly initialized network of diffusers in float64, with whole times."""

    def __init__(self):
        torch.manual_seed(0)
        self.unet = diffusers.UNet2DModel(
            sample_size=4, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8),
            norm_num_groups=4, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        ).double()  # fmt: skip

    def __call__(self, x, t):
        return self.unet(x, torch.as_tensor(t).round()).sample


NETWORKS = {"smooth": (Smooth(), (3, 16)), "unet": (SmallUNet(), (2, 1, 4, 4))}


def noise(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


@torch.no_grad()
def stock(scheduler, steps, network, x, as_shipped=False):
    """The loop of every pipeline of diffusers; its float32 noise levels are computed with in float64."""
    scheduler.set_timesteps(steps)
    if not as_shipped and hasattr(scheduler, "sigmas"):
        scheduler.sigmas = scheduler.sigmas.double()
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t), t, x).prev_sample.to(DOUBLE)
    return x


def ours(solver, sigmas, config, network, x):
    schedule = schedule_from_sigmas(solver, sigmas)
    model = NoiseModel(network, NoiseSchedule.from_config(config), prediction_type_of(config))
    return sample_schedules(model, [schedule], x).samples[0]


def error(scheduler, solver, steps, network, shape, as_shipped=False):
    """Largest difference relative to the largest value."""
    x = noise(shape)
    expected = stock(scheduler, steps, network, x, as_shipped)
    assert torch.isfinite(expected).all()
    got = ours(solver, scheduler.sigmas.tolist(), scheduler.config, network, x)
    return float((got - expected).abs().max() / expected.abs().max())


def grids(prediction):
    """Settings of a scheduler's noise levels; a noise prediction of diffusers cannot end at 0."""
    yield {"final_sigmas_type": "sigma_min"}
    if prediction == "data":
        yield {"final_sigmas_type": "zero"}
        yield {"final_sigmas_type": "zero", "use_karras_sigmas": True}
        yield {"final_sigmas_type": "zero", "timestep_spacing": "trailing"}


@pytest.mark.parametrize("steps", BUDGETS)
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("lower", [True, False])
def test_multistep_dpm_solvers_are_those_of_diffusers(prediction, lower, steps):
    for order, kind, grid in itertools.product((1, 2, 3), ("midpoint", "heun"), grids(prediction)):
        scheduler = diffusers.DPMSolverMultistepScheduler(
            solver_order=order, solver_type=kind, lower_order_final=lower,
            algorithm_type="dpmsolver++" if prediction == "data" else "dpmsolver", **grid,
        )  # fmt: skip
        solver = KnownSolver("multistep", order, prediction=prediction, solver_type=kind, lower_order_final=lower)
        # Diffusers rounds each sample to float32 on the way.
        assert error(scheduler, solver, steps, *NETWORKS["smooth"]) < 1e-5, (order, kind, grid)


@pytest.mark.parametrize("steps", BUDGETS)
@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("lower", [True, False])
def test_unipc_is_that_of_diffusers(prediction, lower, steps):
    for order, kind, grid in itertools.product((1, 2, 3), ("bh1", "bh2"), grids(prediction)):
        if grid["final_sigmas_type"] == "zero" and (kind == "bh1" or not lower):
            continue  # diffusers returns NaN there
        scheduler = diffusers.UniPCMultistepScheduler(
            solver_order=order, solver_type=kind, lower_order_final=lower, predict_x0=prediction == "data", **grid
        )
        solver = KnownSolver("unipc", order, prediction=prediction, solver_type=kind, lower_order_final=lower)
        assert error(scheduler, solver, steps, *NETWORKS["smooth"]) < 1e-11, (order, kind, grid)


@pytest.mark.parametrize("steps", BUDGETS)
def test_as_shipped_in_float32_diffusers_stays_within_its_rounding(steps):
    bounds = {"unipc3-bh2-data": 1e-5, "unipc3-bh1-noise": 1e-4, "unipc2-bh2-noise": 1e-4}
    for name, bound in bounds.items():
        family, kind, prediction = name.split("-")
        scheduler = diffusers.UniPCMultistepScheduler(
            solver_order=int(family[-1]),
            solver_type=kind,
            predict_x0=prediction == "data",
            final_sigmas_type="sigma_min",
        )
        assert error(scheduler, name, steps, *NETWORKS["smooth"], as_shipped=True) < bound, name
    for order, bound in ((1, 1e-6), (2, 1e-5), (3, 1e-4)):
        scheduler = diffusers.DPMSolverMultistepScheduler(solver_order=order)
        assert error(scheduler, KnownSolver("multistep", order), steps, *NETWORKS["smooth"], as_shipped=True) < bound


@pytest.mark.parametrize("steps", BUDGETS)
@pytest.mark.parametrize("prediction", ["data", "noise"])
def test_singlestep_dpm_solvers_are_those_of_diffusers(prediction, steps):
    for order, kind, lower, grid in itertools.product(
        (1, 2, 3), ("midpoint", "heun"), (True, False), grids(prediction)
    ):
        if "timestep_spacing" in grid or (not lower and (steps % order or grid["final_sigmas_type"] == "zero")):
            continue  # not offered, or lowered anyway with a warning
        scheduler = diffusers.DPMSolverSinglestepScheduler(
            solver_order=order, solver_type=kind, lower_order_final=lower,
            algorithm_type="dpmsolver++" if prediction == "data" else "dpmsolver", **grid,
        )  # fmt: skip
        solver = KnownSolver("singlestep", order, prediction=prediction, solver_type=kind, lower_order_final=lower)
        assert error(scheduler, solver, steps, *NETWORKS["smooth"]) < 1e-11, (order, kind, lower, grid)


@pytest.mark.parametrize("steps", BUDGETS)
@pytest.mark.parametrize("to_one", [True, False])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_ddim_is_that_of_diffusers(prediction_type, to_one, steps):
    network, shape = NETWORKS["smooth"]
    scheduler = diffusers.DDIMScheduler(
        clip_sample=False, set_alpha_to_one=to_one, prediction_type=prediction_type, timestep_spacing="leading"
    )
    x = noise(shape)
    expected = stock(scheduler, steps, network, x)
    bars = scheduler.alphas_cumprod.double()[scheduler.timesteps]
    sigmas = ((1 - bars) / bars).sqrt().tolist()
    if to_one:
        sigmas.append(0.0)  # otherwise the last step of diffusers goes from t = 0 to t = 0
    got = ours("ddim", sigmas, scheduler.config, network, x)
    assert float((got - expected).abs().max() / expected.abs().max()) < 1e-5


@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize("order", [2, 3])
def test_flow_matching_unipc_is_that_of_diffusers(order, steps):
    class RoundTimes:
        def __call__(self, x, t):
            return NETWORKS["smooth"][0](x, torch.as_tensor(t).double().add(1e-4).floor())  # diffusers cuts times

    for shift in (1.0, 3.0):
        scheduler = diffusers.UniPCMultistepScheduler(
            solver_order=order, use_flow_sigmas=True, flow_shift=shift, prediction_type="flow_prediction"
        )
        x = noise((3, 16))
        expected = stock(scheduler, steps, RoundTimes(), x)
        s = scheduler.sigmas.double()
        got = ours(f"unipc{order}-bh2-data", (s / (1 - s)).tolist(), scheduler.config, RoundTimes(), x)
        # From s = 1 - 1e-6, whose α has two digits in float32.
        assert float((got - expected).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.parametrize("steps", [5, 10])
@pytest.mark.parametrize(
    ("solver", "scheduler"),
    [
        ("dpm++3m-midpoint", {"cls": "DPMSolverMultistepScheduler", "solver_order": 3}),
        ("dpm++2m-heun", {"cls": "DPMSolverMultistepScheduler", "solver_order": 2, "solver_type": "heun"}),
        ("dpm++3s-midpoint", {"cls": "DPMSolverSinglestepScheduler", "solver_order": 3, "lower_order_final": True}),
        ("unipc3-bh2-data", {"cls": "UniPCMultistepScheduler", "solver_order": 3}),
        ("unipc2-bh1-noise", {"cls": "UniPCMultistepScheduler", "solver_type": "bh1", "predict_x0": False,
                              "final_sigmas_type": "sigma_min"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_they_agree_on_a_real_network(solver, scheduler, prediction_type, steps):
    settings = dict(scheduler)
    stocked = getattr(diffusers, settings.pop("cls"))(prediction_type=prediction_type, **settings)
    assert error(stocked, solver, steps, *NETWORKS["unet"]) < 1e-5


def test_a_wrong_solver_does_not_pass_for_the_right_one():
    scheduler = diffusers.UniPCMultistepScheduler(solver_order=2)
    network, shape = NETWORKS["smooth"]
    for other in ("unipc2-bh1-data", "unipc3-bh2-data", "dpm++2m-midpoint", "ddim", "unipc2-bh2-noise"):
        assert error(scheduler, other, 7, network, shape) > 1e-3


def sigmas_of_model():
    bars = diffusers.DDPMScheduler().alphas_cumprod.double()
    return ((1 - bars) / bars).sqrt().tolist()


def test_grids_are_those_of_diffusers():
    scheduler = diffusers.DPMSolverMultistepScheduler(use_karras_sigmas=True)
    scheduler.set_timesteps(7)
    assert np.allclose(noise_levels("karras", sigmas_of_model(), 7, final="zero"), scheduler.sigmas, rtol=1e-4)
    scheduler = diffusers.DPMSolverMultistepScheduler(use_exponential_sigmas=True)
    scheduler.set_timesteps(7)
    assert np.allclose(noise_levels("logsnr", sigmas_of_model(), 7, final="zero"), scheduler.sigmas, rtol=1e-4)
    scheduler = diffusers.DPMSolverMultistepScheduler(final_sigmas_type="sigma_min")
    scheduler.set_timesteps(9)  # 999 / 9 is whole: nothing is rounded
    assert np.allclose(noise_levels("time", sigmas_of_model(), 9), scheduler.sigmas, rtol=1e-4)


@pytest.mark.parametrize("nfe", [1, 2, 5, 16])
@pytest.mark.parametrize("analytic", [False, True])
def test_every_known_schedule_has_the_budget_and_lies_in_the_space(nfe, analytic):
    sigmas = sigmas_of_model()
    schedules = known_schedules(nfe, sigmas, analytic_first_step=analytic)
    assert {schedule.nfe for schedule in schedules.values()} == {nfe}
    assert len(set(schedules.values())) == len(schedules)
    if nfe > 1:
        space = SolverSchedules(nfe, sigmas[-1], sigmas[0])
        assert space.contains(space.encode(list(schedules.values()))).all()
    if nfe == 5:
        assert {name.split("/")[0] for name in schedules} == set(SOLVERS)


def test_what_is_unknown_is_refused_by_name():
    with pytest.raises(InvalidSettings, match=r"ddim, dpm\+\+2m-midpoint"):
        schedule_from_sigmas("euler", (1.0, 0.5))
    with pytest.raises(InvalidSettings, match="solver_type of"):
        KnownSolver("unipc", 2, solver_type="heun")
    with pytest.raises(InvalidSettings, match="grid must be"):
        noise_levels("cosine", sigmas_of_model(), 5)
