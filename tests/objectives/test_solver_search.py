"""Searching solver schedules, on a model whose score is known, and through stock pipelines."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from searchlib import Candidates, Evolution, Search, Split, search  # noqa: E402
from searchlib.errors import InvalidSettings  # noqa: E402
from searchlib.objectives import (  # noqa: E402
    FrechetDistance,
    ImageReward,
    NoiseCases,
    NoiseModel,
    PairedDistance,
    PipelineSampler,
    SearchedScheduler,
    SolverSearch,
    sample_schedules,
)
from searchlib.objectives.known_solvers import schedule_from_sigmas  # noqa: E402
from searchlib.objectives.noise_schedules import NoiseSchedule  # noqa: E402
from searchlib.objectives.solver_search import _as_they_are, _smoke_model, _smoke_samples, searched_space  # noqa: E402
from searchlib.spaces import SolverSchedule  # noqa: E402
from searchlib.testing import check_objective  # noqa: E402

pytestmark = pytest.mark.usefixtures("_one_thread")


def mixture(nfe=4, search_noises=64, **settings):
    noises = NoiseCases(search=search_noises, holdout=8 * search_noises)
    return SolverSearch(
        _smoke_model, nfe, PairedDistance(_smoke_samples), noises, shape=(2,), to_images=_as_they_are, **settings
    )


def test_the_contract_holds():
    check_objective(SolverSearch.smoke())


@pytest.mark.parametrize("nfe", [4, 6])
def test_the_searched_schedule_is_closer_to_the_long_trajectory_than_every_known_solver(nfe):
    """The analytic check: an exact score, noises that the search has not seen, equal evaluations of the network."""
    for seed in range(3):
        result = search(mixture(nfe, 96), Evolution(population=24), budget=360, seed=seed)
        assert result.best.schedule.nfe <= nfe
        for rival in ("DDIM", "DPM-Solver++(2M)", "UniPC", "best known solver"):
            low, high = result.holdout.against(rival).difference_interval
            assert low <= high < 0, (rival, seed)
        # And without our tables: the distance itself, on other noises.
        noise = torch.randn(200, 2, generator=torch.Generator().manual_seed(1000 + seed))
        wanted = _smoke_samples(noise, [])
        known = min(distance(schedule, noise, wanted) for schedule in mixture(nfe).known().values())
        assert distance(result.best.schedule, noise, wanted) < known


def distance(schedule, noise, wanted):
    samples = sample_schedules(_smoke_model(), [schedule], noise).samples[0]
    found = float((samples - wanted).square().mean(dim=1).sqrt().mean())
    return found if math.isfinite(found) else math.inf


def test_the_recommended_algorithm_finds_such_a_schedule_too():
    result = search(mixture(), budget=72)
    assert result.notes["stages"]
    assert result.holdout.against("best known solver").difference < 0


def test_the_winner_is_a_scheduler_that_samples_what_was_scored():
    objective = mixture()
    result = search(objective, Evolution(population=12), budget=60)
    assert isinstance(result.best, SearchedScheduler)
    noise = objective.judge.noise(objective.cases(Split.SEARCH))
    scheduler, model = result.best, _smoke_model()
    scheduler.set_timesteps(scheduler.schedule.nfe)
    x = noise * scheduler.init_noise_sigma
    for time in scheduler.timesteps:
        x = scheduler.step(model.network(x, time.repeat(len(x)).double()).float(), time, x).prev_sample
    apart = (x - _smoke_samples(noise, [])).square().mean(dim=1).sqrt()
    assert float(apart.mean()) == pytest.approx(result.value, rel=1e-3)


def test_the_saved_scheduler_is_the_winner(tmp_path):
    result = search(mixture(), Evolution(population=12), budget=40)
    result.best.save_pretrained(tmp_path)
    loaded = SearchedScheduler.from_pretrained(tmp_path)
    assert loaded.schedule == result.best.schedule
    stored = json.loads((tmp_path / "scheduler_config.json").read_text())["schedule"]
    assert SolverSchedule.from_json(stored) == result.best.schedule


def test_seeds_are_known_solvers_and_lie_in_the_space():
    objective = mixture(5)
    seeds = objective.seeds()
    assert len(seeds) >= 12
    assert objective.space.contains(seeds).all()
    known = set(objective.known().values())
    assert all(schedule in known for schedule in Candidates(objective.space, seeds))
    assert not len(mixture(5, seeded=False).seeds())


def test_a_search_can_start_from_the_best_known_solvers():
    objective = mixture(5, seeded="best")
    cases = objective.cases(Split.SEARCH)
    known = list(objective.known().values())
    values = objective.aggregate(objective.observe(known, cases))[:, 0]
    assert objective.ranked()[0] == known[int(np.nanargmin(values))] == objective.best_known()
    seeds = objective.seeds()
    assert len(seeds) == 24
    started = objective.aggregate(objective.evaluate(Candidates(objective.space, seeds), cases))[:, 0]
    np.testing.assert_allclose(started, np.sort(values)[:24], rtol=1e-5)
    with pytest.raises(InvalidSettings, match="'best'"):
        mixture(5, seeded="worst")


BASE = "unipc2-bh2-data"


def restricted(vary, nfe=5):
    noise = _smoke_model().schedule
    objective = mixture(nfe)
    base = objective.known()[f"{BASE}/time/sigma_min"]
    return mixture(nfe, space=searched_space(nfe, noise, vary=(vary,), base=base)), base


def test_time_steps_alone_can_be_searched():
    objective, base = restricted("times")
    result = search(objective, Evolution(population=12), budget=120)
    assert result.best.schedule.steps == base.steps
    assert result.best.schedule.sigmas != base.sigmas
    first = objective.space.decode(result.history.population[0])
    assert first == base
    assert result.value < result.history.values[0, 0]
    grids = {schedule.sigmas for schedule in Candidates(objective.space, objective.seeds())}
    assert {objective.known()[f"{BASE}/{grid}/sigma_min"].sigmas for grid in ("time", "logsnr", "karras")} == grids


def test_decisions_alone_can_be_searched():
    objective, base = restricted("decisions")
    result = search(objective, Evolution(population=12), budget=120)
    assert result.best.schedule.sigmas == base.sigmas
    assert result.best.schedule.steps != base.steps
    assert result.value < result.history.values[0, 0]
    seeds = list(Candidates(objective.space, objective.seeds()))
    assert len(seeds) >= 4
    assert schedule_from_sigmas("dpm++2m-midpoint", base.sigmas) in seeds


class Diverges:
    """A network that leaves the numbers once it has been at low noise."""

    def __init__(self, model, below):
        self.model, self.below = model, below

    def __call__(self, x, t):
        output = self.model.network(x, t)
        return torch.where((t < self.below)[:, None], torch.nan, output)


@pytest.mark.parametrize("frechet", [False, True])
def test_schedules_that_diverge_are_failures(frechet):
    model = _smoke_model()
    broken = NoiseModel(Diverges(model, 40.0), model.schedule)
    score = PairedDistance(_smoke_samples)
    if frechet:
        score = FrechetDistance(torch.nn.Flatten(), np.random.default_rng(0).normal(size=(100, 2)))
    objective = SolverSearch(broken, 4, score, NoiseCases(search=32, holdout=32), shape=(2,), to_images=_as_they_are)
    result = search(objective, Evolution(population=12), budget=60, max_failures=60)
    assert 0 < result.history.failures < result.history.evaluations
    assert math.isfinite(result.value)
    assert all(math.isfinite(row.value) for row in result.holdout.rows)
    assert "best known solver" in {row.name for row in result.holdout.rows}


def test_the_history_is_the_same_on_workers():
    digests = [search(SolverSearch.smoke(), Evolution(population=12), budget=36, workers=workers).history.digest
               for workers in (1, 2)]  # fmt: skip
    assert digests[0] == digests[1]


def test_a_study_goes_on_bit_for_bit(tmp_path):
    def run(name, stop_after=None):
        searching = Search(mixture(), Evolution(population=12), budget=48, study=tmp_path / name, batch_size=8)
        for number, _ in enumerate(searching, start=1):
            if number == stop_after:
                break
        digest = searching.history.digest
        searching.close()
        return digest

    whole = run("whole.db")
    assert run("part.db", 3) != whole
    assert run("part.db") == whole


PROGRAM = next(
    program
    for program in re.findall(
        r"```python\n(.*?)```", (Path(__file__).parents[2] / "README.md").read_text("utf-8"), flags=re.DOTALL
    )
    if "SolverSearch" in program
)


def test_the_program_in_the_readme_runs_and_the_saved_pipeline_samples_the_same(latent, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = PROGRAM.replace("search=1000, holdout=2000", "search=4, holdout=0").replace("budget=150", "budget=12")
    assert small.count("=4, ") == small.count("=12,") == 1
    names = {"pipe": latent, "features": moments, "prompts": (), "real_images": torch.rand(9, 1, 4, 4)}
    exec(small, names)
    assert latent.scheduler is names["result"].best
    loaded = diffusers.LDMPipeline.from_pretrained(tmp_path / "model-in-7-steps", local_files_only=True)
    assert loaded.scheduler.schedule == latent.scheduler.schedule
    images = [part(2, num_inference_steps=latent.scheduler.schedule.nfe, output_type="np",
                   generator=torch.Generator().manual_seed(0)).images for part in (latent, loaded)]  # fmt: skip
    np.testing.assert_allclose(images[0], images[1], atol=1e-6)


def test_the_schedule_in_the_documentation_is_the_solver_that_it_says():
    text = (Path(__file__).parents[2] / "docs" / "solver_search.md").read_text("utf-8")
    schedule = SolverSchedule.from_json(re.findall(r"```json\n(.*?)```", text, flags=re.DOTALL)[0])
    assert schedule == schedule_from_sigmas("unipc2-bh2-data", (14.6, 5.0, 1.0, 0.1))


@pytest.fixture(scope="module")
def unet():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return diffusers.UNet2DModel(
            sample_size=4, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, dropout=0.0,
            down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), layers_per_block=1, num_class_embeds=3,
        ).eval()  # fmt: skip


@pytest.fixture
def pipe(unet):
    plain = diffusers.UNet2DModel.from_config({**unet.config, "num_class_embeds": None}).eval()
    return diffusers.DDIMPipeline(plain, diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction"))


def moments(images):
    return images.flatten(1)[:, :4].double()


def images_of(samples):
    return (samples / 2 + 0.5).clamp(0, 1)


def both(pipe, noises=None):
    """The same search through the pipeline, and on its network."""
    score = FrechetDistance(moments, np.random.default_rng(0).uniform(size=(50, 4)))
    noises = noises or NoiseCases(search=8, holdout=4)
    through = SolverSearch(PipelineSampler(pipe, batch=3), 4, score, noises)
    model = NoiseModel.from_diffusers(pipe.unet, pipe.scheduler.config)
    beside = SolverSearch(model, 4, score, noises, shape=(1, 4, 4), to_images=images_of, space=through.space)
    return through, beside


def test_a_stock_pipeline_and_its_network_score_alike(pipe):
    through, beside = both(pipe)
    assert not through.space.analytic_first_step  # DDIMPipeline does not multiply its noise
    rows = np.concatenate([through.seeds()[:4], through.space.sample(np.random.default_rng(0), 6)])
    own, config = pipe.scheduler, dict(pipe.config)
    candidates = Candidates(through.space, rows)
    found, wanted = (o.evaluate(candidates, o.cases(Split.SEARCH)) for o in (through, beside))
    assert found.shape == (10, 8, 4)
    np.testing.assert_allclose(found, wanted, atol=2e-4)
    assert np.abs(found[0] - found[5]).max() > 1e-3
    assert pipe.scheduler is own
    assert dict(pipe.config) == config


@pytest.fixture
def latent(pipe):
    coder = diffusers.VQModel(
        in_channels=1, out_channels=1, latent_channels=1, norm_num_groups=4, block_out_channels=(8,),
        num_vq_embeddings=4,
    ).eval()  # fmt: skip
    return diffusers.LDMPipeline(vqvae=coder, unet=pipe.unet, scheduler=pipe.scheduler)


def test_latent_pipelines_multiply_their_noise_so_the_first_step_may_be_analytical(latent):
    score = ImageReward(lambda images, conditions: images.flatten(1).mean(dim=1))
    objective = SolverSearch(PipelineSampler(latent), 4, score, NoiseCases(search=4, holdout=0))
    assert objective.space.analytic_first_step
    result = search(objective, Evolution(population=8), budget=24)
    assert result.history.failures == 0
    assert isinstance(result.best, SearchedScheduler)
    latent.scheduler = result.best
    assert np.isfinite(latent(num_inference_steps=result.best.schedule.nfe, output_type="np").images).all()


def test_a_pipeline_has_its_own_scheduler_back_after_an_exception(pipe):
    def explodes(images):
        raise RuntimeError("no features today")

    own, steps = pipe.scheduler, {"eta": 0.0}
    sampler = PipelineSampler(pipe, **steps)
    score = FrechetDistance(explodes, np.random.default_rng(0).normal(size=(9, 4)))
    objective = SolverSearch(sampler, 4, score, NoiseCases(search=4, holdout=0))
    with pytest.raises(RuntimeError, match="no features today"):
        objective.evaluate(Candidates(objective.space, objective.seeds()[:1]), objective.cases(Split.SEARCH))
    assert pipe.scheduler is own
    assert sampler.settings == steps


def test_a_search_through_a_pipeline_gives_a_scheduler_for_it(pipe):
    through, _ = both(pipe, noises=NoiseCases(search=4, holdout=0))
    result = search(through, Evolution(population=8), budget=24)
    assert result.history.failures == 0
    assert result.best.config["prediction_type"] == "v_prediction"
    pipe.scheduler = result.best
    assert np.isfinite(pipe(2, num_inference_steps=result.best.schedule.nfe, output_type="np").images).all()


def test_a_paired_distance_works_through_a_pipeline_that_says_the_shape_of_its_noise(pipe):
    model = NoiseModel.from_diffusers(pipe.unet, pipe.scheduler.config)
    fine = schedule_from_sigmas("ddim", np.geomspace(model.schedule.sigma_max, model.schedule.sigma_min, 5))

    def reference(noise, conditions):
        return images_of(sample_schedules(model, [fine], noise).samples[0])

    noises = NoiseCases(search=4, holdout=2)
    objective = SolverSearch(PipelineSampler(pipe), 4, PairedDistance(reference), noises, shape=(1, 4, 4))
    assert objective.observe([fine], objective.cases(Split.SEARCH)).max() < 1e-3


def test_conditions_reach_the_network(unet):
    schedule = NoiseSchedule.from_config(diffusers.DDIMScheduler().config)

    def labelled(conditions):
        return {"class_labels": torch.tensor(conditions)}

    noises = NoiseCases(search=6, holdout=0, conditions=(0, 2))
    score = ImageReward(lambda images, conditions: images.flatten(1).mean(dim=1).detach())
    model = NoiseModel.from_diffusers(unet, diffusers.DDIMScheduler().config)
    objective = SolverSearch(model, 3, score, noises, shape=(1, 4, 4), conditioning=labelled, batch=4)
    known = list(objective.known().values())[:2]
    cases = objective.cases(Split.SEARCH)
    found = objective.observe(known, cases)
    noise = objective.judge.noise(cases)
    for index, label in enumerate([0, 2, 0, 2, 0, 2]):
        fixed = NoiseModel(
            lambda x, t, label=label: unet(x, t, class_labels=torch.full((len(x),), label)).sample, schedule
        )
        alone = sample_schedules(fixed, known, noise[index : index + 1]).samples.clamp(-1, 1)
        np.testing.assert_allclose(found[:, index, 0], alone.flatten(1).mean(dim=1).detach(), atol=1e-5)
    with pytest.raises(InvalidSettings, match="pass conditioning="):
        SolverSearch(model, 3, score, noises, shape=(1, 4, 4))


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(InvalidSettings, match="nfe"):
        mixture(1)
    with pytest.raises(InvalidSettings, match="NoiseModel or a PipelineSampler"):
        SolverSearch(dict, 4, PairedDistance(_smoke_samples), NoiseCases(2, 0), shape=(2,))
    with pytest.raises(InvalidSettings, match="space must have nfe=4"):
        mixture(4, space=searched_space(5, _smoke_model().schedule))
    given = SolverSearch(_smoke_model(), 4, PairedDistance(_smoke_samples), NoiseCases(search=4, holdout=0), shape=(2,))
    with pytest.raises(InvalidSettings, match="function that returns"):
        search(given, budget=4, workers=2)


def test_a_search_that_starts_lower_holds_what_diffusers_leading_spacing_does():
    """DDIM's default spacing begins below the highest level: its five steps are a point of the space from there on."""
    ddim = diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", clip_sample=False)
    whole = NoiseSchedule.from_config(ddim.config)

    def network(x, t):
        return 0.7 * x - 0.1 * torch.sin(x * 3 + t[:, None] / 500)

    ddim.set_timesteps(5)
    noises = NoiseCases(search=6, holdout=0)
    objective = SolverSearch(
        NoiseModel(network, whole), 5, ImageReward(lambda images, c: images.sum(1)), noises, shape=(3,),
        start=whole.sigma(float(ddim.timesteps[0])), to_images=_as_they_are,
    )  # fmt: skip
    cases = objective.cases(Split.SEARCH)
    x = objective.judge.noise(cases)
    for t in ddim.timesteps:
        x = ddim.step(network(x, t.expand(len(x)).float()), t, x).prev_sample
    levels = [whole.sigma(float(t)) for t in ddim.timesteps]
    leading = schedule_from_sigmas("ddim", (*levels, 0.0))
    row = objective.space.encode([leading])
    observed = objective.evaluate(Candidates(objective.space, row), cases)
    np.testing.assert_allclose(observed[0, :, 0], x.sum(1).numpy(), rtol=1e-4, atol=1e-5)
    assert {schedule.sigmas[0] for schedule in objective.known().values()} == {leading.sigmas[0]}
    assert len(objective.seeds()) > 10
