import math

import numpy as np
import pytest

from searchlib.errors import InvalidSettings, UnsupportedModel

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from searchlib.objectives.noise_schedules import NoiseSchedule, prediction_type_of, split_prediction  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize("betas", [{}, {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"},
                                   {"beta_schedule": "squaredcos_cap_v2"}, {"rescale_betas_zero_snr": True},
                                   {"trained_betas": [0.01] * 50, "num_train_timesteps": 50}])  # fmt: skip
def test_noise_levels_of_a_config_are_those_of_diffusers(betas):
    scheduler = diffusers.UniPCMultistepScheduler(**betas)
    schedule = NoiseSchedule.from_config(scheduler.config)
    sigmas = scheduler.sigmas.double().numpy()
    # Cut where the signal would vanish: there diffusers' levels do not even ascend.
    kept = slice(-1 if "rescale_betas_zero_snr" in betas else None)
    assert np.allclose(schedule.table[kept], sigmas[kept], rtol=1e-5)
    times = np.arange(0, len(sigmas), 7)
    assert np.allclose([schedule.time(sigma) for sigma in np.array(schedule.table)[times]], times, atol=1e-6)
    alpha, s = scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas.double()[20])
    assert np.allclose(schedule.alpha_sigma(float(sigmas[20])), (alpha, s))


def test_times_between_are_interpolated_in_log_sigma_as_diffusers_does():
    scheduler = diffusers.DPMSolverMultistepScheduler()
    schedule = NoiseSchedule.from_config(scheduler.config)
    levels = np.array([0.02, 0.31, 2.2, 57.0])
    expected = scheduler._sigma_to_t(levels, np.log(np.array(schedule.table)))
    assert np.allclose([schedule.time(level) for level in levels], expected, atol=1e-6)
    assert np.allclose([schedule.sigma(time) for time in expected], levels)


def test_flow_times_are_those_of_flow_matching():
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    schedule = NoiseSchedule.from_config(scheduler.config)
    scheduler.set_timesteps(5)
    s = scheduler.sigmas[1:-1].double().numpy()
    assert np.allclose([schedule.time(sigma) for sigma in s / (1 - s)], scheduler.timesteps[1:], rtol=1e-5)
    assert math.isclose(schedule.alpha_sigma(schedule.sigma(250.0))[1], 0.25)
    assert prediction_type_of(scheduler.config) == "flow_prediction"


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_predictions_are_split_as_the_training_target_says(kind):
    scheduler = diffusers.DDPMScheduler(prediction_type=kind)
    data, noise = torch.randn(2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).split(1)
    t = torch.tensor([300])
    x = scheduler.add_noise(data, noise, t)
    output = {"epsilon": noise, "sample": data, "v_prediction": scheduler.get_velocity(data, noise, t)}[kind]
    schedule = NoiseSchedule.from_config(scheduler.config)
    got = split_prediction(prediction_type_of(scheduler.config), output, x, *schedule.alpha_sigma(schedule.table[300]))
    assert torch.allclose(got[0], noise, rtol=1e-5, atol=1e-6)
    assert torch.allclose(got[1], data, rtol=1e-5, atol=1e-6)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InvalidSettings, match="kind must be"):
        NoiseSchedule("edm")
    with pytest.raises(InvalidSettings, match="strictly ascending"):
        NoiseSchedule.from_sigmas([2.0, 1.0])
    with pytest.raises(UnsupportedModel, match="wrap the network into a denoiser"):
        NoiseSchedule.from_config(diffusers.EDMEulerScheduler().config)
    with pytest.raises(UnsupportedModel, match="prediction_type must be"):
        prediction_type_of({"prediction_type": "score"})


def test_a_schedule_that_starts_lower_is_the_beginning_of_the_whole_one():
    whole = NoiseSchedule.from_config(diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2").config)
    part = whole.starting_at(whole.sigma(930) * 1.0001)
    assert part.table == whole.table[:931]
    assert part.sigma_max == whole.table[930]
    assert part.time(1.0) == whole.time(1.0)


@pytest.mark.parametrize("sigma", [0.0, float("nan")])
def test_a_start_below_the_lowest_levels_is_refused(sigma):
    with pytest.raises(InvalidSettings, match="starting level"):
        NoiseSchedule.from_config(diffusers.DDPMScheduler().config).starting_at(sigma)


def test_only_a_variance_preserving_schedule_can_start_lower():
    with pytest.raises(InvalidSettings, match="'vp'"):
        NoiseSchedule("flow").starting_at(10.0)
