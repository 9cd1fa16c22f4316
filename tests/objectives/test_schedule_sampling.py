import numpy as np
import pytest

from searchlib.errors import InvalidSettings
from searchlib.spaces import SolverSchedule, SolverSchedules, SolverStep

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from searchlib.objectives.known_solvers import known_schedules  # noqa: E402
from searchlib.objectives.noise_schedules import NoiseSchedule  # noqa: E402
from searchlib.objectives.schedule_sampling import NoiseModel, sample_schedules  # noqa: E402
from searchlib.objectives.searched_scheduler import SearchedScheduler  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    return diffusers.UNet2DModel(
        sample_size=4, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(8, 8),
        norm_num_groups=4, num_class_embeds=3, down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip


def config(**settings):
    return diffusers.DDPMScheduler(**settings).config


@pytest.fixture(scope="module")
def noises():
    return torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


LABELS = {"class_labels": torch.tensor([0, 2, 1])}


def random_schedules(n, nfe=5, seed=0):
    noise = NoiseSchedule.from_config(config())
    space = SolverSchedules(nfe, noise.sigma_max, (noise.sigma_min, 2 * noise.sigma_min))
    rng = np.random.default_rng(seed)
    return [space.decode(row) for row in space.mutate(rng, space.sample(rng, n))]


@torch.no_grad()
def one_by_one(unet, scheduler_config, schedule, x):
    """The loop of a pipeline with the schedule as its scheduler."""
    scheduler = SearchedScheduler.from_config(scheduler_config, schedule=schedule)
    scheduler.set_timesteps(schedule.nfe)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(unet(x, t, **LABELS).sample, t, x, return_dict=False)[0]
    return x


def close(got, expected, tolerance=2e-5):
    scale = expected.abs().amax(dim=tuple(range(1, expected.ndim)), keepdim=True)
    return bool(((got - expected).abs() <= tolerance * scale).all())


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_all_at_once_is_each_one_through_the_scheduler(unet, noises, prediction_type):
    scheduler_config = config(prediction_type=prediction_type)
    schedules = random_schedules(20) + list(known_schedules(4, NoiseSchedule.from_config(config())).values())[::9]
    assert {schedule.analytic_first_step for schedule in schedules} == {False, True}
    assert any(step.corrector for schedule in schedules for step in schedule.steps)
    model = NoiseModel.from_diffusers(unet, scheduler_config)
    sampled = sample_schedules(model, schedules, noises, conditioning=LABELS)
    expected = torch.stack([one_by_one(unet, scheduler_config, schedule, noises) for schedule in schedules])
    assert torch.isfinite(expected).all()
    # Single precision: a noise prediction from σ = 157 magnifies rounding by up to that.
    assert close(sampled.samples, expected, 5e-4)
    assert sampled.unshared == 3 * sum(schedule.nfe for schedule in schedules)
    assert sampled.evaluations < 0.9 * sampled.unshared


def test_in_float64_they_agree_to_its_rounding(unet, noises):
    double, noises = unet.double(), noises.double()
    schedules = random_schedules(10)

    class Rounded(torch.nn.Module):  # the scheduler's times are float32
        def forward(self, x, t, **conditioning):
            return double(x, t.float(), **conditioning).sample

    model = NoiseModel(Rounded(), NoiseSchedule.from_config(config()))
    sampled = sample_schedules(model, schedules, noises, conditioning=LABELS)
    expected = torch.stack([one_by_one(double, config(), schedule, noises) for schedule in schedules])
    unet.float()
    assert close(sampled.samples, expected, 1e-9)


@pytest.mark.parametrize("batch", [1, 4, 1000])
def test_a_schedule_samples_the_same_in_any_company(unet, noises, batch):
    model = NoiseModel.from_diffusers(unet, config())
    schedules = random_schedules(8)
    together = sample_schedules(model, schedules, noises, conditioning=LABELS, batch=batch).samples
    for index in (0, 3, 7):
        alone = sample_schedules(model, [schedules[index]], noises, conditioning=LABELS).samples[0]
        assert close(together[index], alone, 5e-4)
        part = {name: rows[1:2] for name, rows in LABELS.items()}
        single = sample_schedules(model, [schedules[index]], noises[1:2], conditioning=part).samples[0]
        assert close(together[index][1:2], single, 5e-4)


class Counting:
    """A linear network that remembers the times and numbers of images it was asked for."""

    def __init__(self):
        self.calls = []

    def __call__(self, x, t):
        self.calls.append(t.tolist())
        return 0.1 * x


STEPS = (SolverStep(), SolverStep(2), SolverStep(3), SolverStep(2), SolverStep(2))
PARENT = SolverSchedule((80.0, 20.0, 5.0, 1.0, 0.3, 0.1), STEPS)


def evaluations(*schedules, count=2):
    network = Counting()
    sampled = sample_schedules(NoiseModel(network, NoiseSchedule("ve")), schedules, torch.ones(count, 3))
    assert sampled.evaluations == sum(len(times) for times in network.calls)
    return sampled.evaluations // count


@pytest.mark.parametrize(
    ("child", "extra"),
    [
        (PARENT, 0),
        (
            SolverSchedule(PARENT.sigmas, (*STEPS[:4], SolverStep(3))),
            0,
        ),  # the last step decides after the last evaluation
        (SolverSchedule((*PARENT.sigmas[:5], 0.2), STEPS), 0),
        (SolverSchedule(PARENT.sigmas, (*STEPS[:3], SolverStep(1), STEPS[4])), 1),
        # A corrector acts after the evaluation at its step's end.
        (SolverSchedule(PARENT.sigmas, (*STEPS[:2], SolverStep(3, corrector=True), *STEPS[3:])), 1),
        (SolverSchedule((80.0, 20.0, 5.0, 1.5, 0.3, 0.1), STEPS), 2),
        (SolverSchedule((80.0, 19.0, 5.0, 1.0, 0.3, 0.1), STEPS), 4),
        (SolverSchedule(PARENT.sigmas[:3], STEPS[:2]), 0),
        (SolverSchedule((90.0, *PARENT.sigmas[1:]), STEPS), 5),
        # The analytical step leads elsewhere, for nothing.
        (SolverSchedule(PARENT.sigmas, STEPS, analytic_first_step=True), 4),
    ],
)
def test_only_what_differs_is_evaluated_again(child, extra):
    assert evaluations(PARENT) == 5
    assert evaluations(PARENT, child) == 5 + extra


def test_a_batch_is_never_larger_than_allowed_and_holds_several_times():
    network = Counting()
    model = NoiseModel(network, NoiseSchedule("ve"))
    other = SolverSchedule((80.0, 19.0, 5.0, 1.0, 0.3, 0.1), STEPS)
    sample_schedules(model, [PARENT, other], torch.ones(4, 3), batch=6)
    assert [len(times) for times in network.calls] == [4, 6, 2, 6, 2, 6, 2, 6, 2]
    assert network.calls[1] == [20.0] * 4 + [19.0] * 2


def test_no_schedules_are_no_samples():
    sampled = sample_schedules(NoiseModel(Counting(), NoiseSchedule("ve")), [], torch.ones(2, 3))
    assert (sampled.samples.shape, sampled.evaluations) == ((0, 2, 3), 0)


def test_wrong_arguments_are_refused():
    model = NoiseModel(Counting(), NoiseSchedule("ve"))
    with pytest.raises(InvalidSettings, match="noise must be floats"):
        sample_schedules(model, [PARENT], torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(InvalidSettings, match="one row per noise, 2"):
        sample_schedules(model, [PARENT], torch.ones(2, 3), conditioning={"label": torch.ones(3)})
    with pytest.raises(InvalidSettings, match="batch must be"):
        sample_schedules(model, [PARENT], torch.ones(2, 3), batch=0)
