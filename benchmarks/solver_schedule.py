"""USF and S³: every known solver, and searches over schedules, at few network evaluations per image."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import joblib
import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray

from benchmarks.small_diffusion import EMA_RATES, Recipe, digits, feature_net, noise_scheduler, trained
from benchmarks.speed_clock import threads
from benchmarks.table import Table, paired_lower_bound
from searchlib import Algorithm, Cases, Evolution, PredictorGuided, RandomSearch, Split, search
from searchlib.objectives import (
    FrechetDistance,
    NoiseCases,
    NoiseModel,
    PairedDistance,
    PipelineSampler,
    SolverSearch,
    sample_schedules,
)
from searchlib.objectives.known_solvers import noise_levels, schedule_from_sigmas
from searchlib.objectives.solver_search import SEED_SOLVERS, searched_space
from searchlib.spaces import SolverSchedules
from searchlib.spaces.solver_schedule import SolverSchedule

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = "USF / S3: a solver and a noise level for every step of a diffusion sampler"

OURS, PLAIN, RANDOM = "S3 (ours)", "evolution", "random search"
TIMES, DECISIONS = "S3, noise levels only", "S3, decisions only"
BEST_KNOWN = "best known solver"
#: Families of known solvers; each row is the best of a family over its variants, grids and ends, on the SEARCH noises.
FAMILIES = {"DDIM": "ddim", "DPM-Solver": "dpm", "DPM-Solver++": "dpm++", "UniPC": "unipc"}
#: As they are used, whatever suits this model.
DEFAULTS = {
    "DPM-Solver++(2M), defaults": "dpm++2m-midpoint/time/zero", "UniPC, defaults": "unipc2-bh2-data/time/zero",
}  # fmt: skip
#: Times of the model (of 1000) at which sampling may start.
STARTS = (960, 930, 900, 850)
LONG = 100  # evaluations of the reference trajectory


@dataclass(frozen=True)
class Preset:
    """How much is run."""

    nfes: tuple[int, ...]
    evaluations: int
    noises: int
    holdout: int
    recipe: Recipe
    methods: tuple[str, ...] = (RANDOM, PLAIN, TIMES, DECISIONS, OURS)


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset((4,), 36, 64, 128, Recipe(steps=120, window=(60, 120), interval=20), (RANDOM, PLAIN, OURS)),
    "small": Preset((5,), 120, 384, 1024, Recipe(), (PLAIN, OURS, TIMES)),
    "paper": Preset((4, 5, 7, 10), 120, 384, 2048, Recipe()),
}


class Job(NamedTuple):
    """One search, or (without a method) the known solvers."""

    nfe: int
    method: str | None
    seed: int


class Row(NamedTuple):
    """What a row says of one schedule."""

    holdout: float
    other_features: float
    trajectory: float
    search: float
    evaluations: int
    network_evaluations: float
    cpu_seconds: float


class Outcome(NamedTuple):
    """What a job brings home: rows by method, and how the search went."""

    rows: dict[str, Row]
    curve: NDArray[np.float64]
    notes: Mapping[str, Any]
    schedule: SolverSchedule | None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="searches side by side (%(default)s)")
    group = parser.add_argument_group("preset full: a pipeline of one's own")
    group.add_argument("--pipeline", metavar="FOLDER", help="folder or name of a diffusers pipeline")
    group.add_argument("--reference", metavar="NPZ", help="features of reference images, array 'features' (m, k)")
    group.add_argument("--features", metavar="MODULE:NAME", help="function from images (n, c, h, w) to features (n, k)")
    group.add_argument("--nfe", type=int, default=10, help="network evaluations per image (%(default)s)")
    group.add_argument("--prompts", metavar="FILE", help="one prompt per line")
    group.add_argument("--budget", type=int, default=300, help="evaluations (%(default)s)")
    group.add_argument("--noises", type=int, default=1000, help="images per evaluation (%(default)s)")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    table = Table("solver_schedule", arguments.preset, arguments.seeds)
    if arguments.preset == "full":
        _full(table, arguments)
        return table
    preset, seeds = PRESETS[arguments.preset], range(arguments.seeds)
    trained(preset.recipe)  # once, before there are workers
    jobs = [Job(nfe, None, 0) for nfe in preset.nfes]
    jobs += [Job(nfe, method, seed) for nfe in preset.nfes for method in preset.methods for seed in seeds]
    calls = (joblib.delayed(_run_job)(preset, job) for job in jobs)
    outcomes: dict[Job, Outcome] = {}
    for job, outcome in zip(jobs, joblib.Parallel(arguments.jobs, return_as="generator")(calls), strict=True):
        outcomes[job] = outcome
        for method, row in outcome.rows.items():
            table.add(f"{job.nfe} NFE", method, **row._asdict())
    _say_quality(table, preset)
    _claims(table, preset, outcomes, list(seeds))
    _transfer(table, preset, outcomes, list(seeds))
    return table


@lru_cache(maxsize=2)
def _model(recipe: Recipe, part: str = "full") -> NoiseModel:
    """The average of the fully trained model, or that of its first quarter."""
    step = recipe.steps if part == "full" else recipe.window[1]
    unet = UNet2DModel.from_pretrained(trained(recipe).ema(EMA_RATES[-1], step)).eval().requires_grad_(False)
    return NoiseModel.from_diffusers(unet, noise_scheduler().config)


class _Counted:
    """A network that counts the images that go through it."""

    def __init__(self, network: Any) -> None:
        self.network, self.images = network, 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        return self.network(x, t)  # type: ignore[no-any-return]


def _objective(
    preset: Preset,
    nfe: int,
    *,
    start: float | None = None,
    space: SolverSchedules | None = None,
    model: NoiseModel | None = None,
    holdout: int = 0,
) -> SolverSearch:
    """On the SEARCH noises alone unless ``holdout`` is given: schedules are compared on others by :func:`_scored`."""
    score = FrechetDistance(feature_net(0), torch.from_numpy(digits()))
    noises = NoiseCases(search=preset.noises, holdout=holdout)
    model = model or _model(preset.recipe)
    return SolverSearch(model, nfe, score, noises, shape=(1, 8, 8), start=start, space=space)


def _algorithm(method: str) -> Algorithm:
    if method == RANDOM:
        return RandomSearch()
    return Evolution() if method == PLAIN else PredictorGuided(population=24, stage=12)


def _run_job(preset: Preset, job: Job) -> Outcome:
    with threads(1):
        return _known(preset, job.nfe) if job.method is None else _search(preset, job)


def _search(preset: Preset, job: Job) -> Outcome:
    assert job.method is not None
    plain = _model(preset.recipe)
    counted = _Counted(plain.network)
    model = NoiseModel(counted, plain.schedule, plain.prediction)
    space, level = None, _start(preset, job.nfe)
    if job.method in (TIMES, DECISIONS):
        vary = ("times",) if job.method == TIMES else ("decisions",)
        base = _known_values(preset, job.nfe)[0][1]
        space = searched_space(job.nfe, plain.schedule.starting_at(level), vary=vary, base=base)
    objective = _objective(preset, job.nfe, start=level, space=space, model=model)
    start = time.process_time()
    result = search(objective, _algorithm(job.method), budget=preset.evaluations, seed=job.seed, shortlist=1)
    seconds = time.process_time() - start
    schedule = objective.space.decode(np.asarray(result.row))
    spent = counted.images / preset.noises
    row = _scored(preset, schedule, result.value, result.history.evaluations, spent, seconds)
    return Outcome({job.method: row}, np.minimum.accumulate(result.history.values[:, 0]), result.notes, schedule)


@lru_cache(maxsize=8)
def _known_values(preset: Preset, nfe: int) -> list[tuple[float, SolverSchedule, str]]:
    """Distance, schedule and name of every known solver from the best level, on the SEARCH noises, best first."""
    return _ranked(_objective(preset, nfe, start=_start(preset, nfe)))


@lru_cache(maxsize=8)
def _start(preset: Preset, nfe: int) -> float:
    """The level to start at that suits the best of six known solvers: it makes all baselines better."""
    schedule = _model(preset.recipe).schedule
    # The last is where diffusers' "leading" spacing starts.
    levels = [schedule.table[-1], *(schedule.sigma(time) for time in (*STARTS, 1000 * (nfe - 1) / nfe + 1))]
    best = [
        _ranked(_objective(preset, nfe, start=level), solvers=SEED_SOLVERS, finals=("sigma_min",))[0][0]
        for level in levels
    ]
    return levels[int(np.argmin(best))]


def _ranked(objective: SolverSearch, **settings: Any) -> list[tuple[float, SolverSchedule, str]]:
    cases, known = objective.cases(Split.SEARCH), objective.known(**settings)
    names = list(known)
    values: list[float] = []
    for start in range(0, len(names), 12):
        part = [known[name] for name in names[start : start + 12]]
        values += objective.aggregate(objective.observe(part, cases))[:, 0].tolist()
    rows = [(value, known[name], name) for value, name in zip(values, names, strict=True) if np.isfinite(value)]
    return sorted(rows, key=lambda row: row[0])


def _known(preset: Preset, nfe: int) -> Outcome:
    start = time.process_time()
    ranked = _known_values(preset, nfe)
    spent, seconds = len(ranked) + 18 * (len(STARTS) + 2), time.process_time() - start
    rows = {}
    for label, solver in FAMILIES.items():
        # "dpm2m-…" is of DPM-Solver, "dpm++2m-…" is not.
        family = [row for row in ranked if row[2].startswith(solver)
                  and not (solver == "dpm" and row[2].startswith("dpm++"))]  # fmt: skip
        value, schedule, _ = family[0]
        rows[f"{label}, best of {len(family)}"] = _scored(preset, schedule, value, len(family), 0.0, 0.0)
    for label, name in DEFAULTS.items():
        solver, grid, final = name.split("/")
        schedule = schedule_from_sigmas(solver, noise_levels(grid, _model(preset.recipe).schedule, nfe, final=final))
        rows[label] = _scored(preset, schedule, float("nan"), 1, nfe, 0.0)
    rows[BEST_KNOWN] = _scored(preset, ranked[0][1], ranked[0][0], spent, 0.0, seconds)
    notes = {"best": ranked[0][2], "start": _start(preset, nfe)}
    return Outcome(rows, np.array([ranked[0][0]]), notes, ranked[0][1])


def _scored(
    preset: Preset, schedule: SolverSchedule, value: float, evaluations: int, network: float, seconds: float,
    model: NoiseModel | None = None,
) -> Row:  # fmt: skip
    """A schedule on the held-out noises, by the score that was searched and by two that were not."""
    model = model or _model(preset.recipe)
    images, noise, cases = _held_out_images(preset, schedule, model)
    data = torch.from_numpy(digits())
    distances = [
        float(score.aggregate(score.observe(images, None, ())[None])[0])
        for score in (FrechetDistance(feature_net(seed), data) for seed in (0, 1))
    ]
    paired = _long_score(model)
    trajectory = float(paired.aggregate(paired.observe(images, noise, [None] * len(cases))[None])[0])
    return Row(distances[0], distances[1], trajectory, value, evaluations, network, seconds)


def _held_out_images(
    preset: Preset, schedule: SolverSchedule, model: NoiseModel
) -> tuple[torch.Tensor, torch.Tensor, Cases]:
    objective = _objective(preset, max(schedule.nfe, 2), model=model, holdout=preset.holdout)
    cases = objective.cases(Split.HOLDOUT)
    noise = objective.judge.noise(cases)
    return sample_schedules(model, [schedule], noise).samples[0].clamp(-1, 1), noise, cases


@lru_cache(maxsize=4)
def _long_score(model: NoiseModel) -> PairedDistance:
    """The distance to a long trajectory; it remembers the reference images."""
    fine = schedule_from_sigmas("dpm++2m-midpoint", noise_levels("logsnr", model.schedule, LONG))
    return PairedDistance(lambda noise, conditions: sample_schedules(model, [fine], noise).samples[0].clamp(-1, 1))


def _say_quality(table: Table, preset: Preset) -> None:
    """Whether the model is well trained: more steps must not be worse."""
    schedule_of = _model(preset.recipe).schedule
    values = {}
    for nfe in (10, 50):
        levels = noise_levels("logsnr", schedule_of.starting_at(schedule_of.sigma(STARTS[0])), nfe)
        schedule = schedule_from_sigmas("dpm++2m-midpoint", levels)
        row = _scored(preset, schedule, float("nan"), 1, nfe, 0.0)
        table.add(f"{nfe} NFE, for scale", "DPM-Solver++(2M), logSNR", **row._asdict())
        values[nfe] = row.holdout
    table.claim(
        "the model is well trained: 50 steps of DPM-Solver++(2M) are at least as good as 10", value=values[50],
        bound=values[10], n=preset.holdout, test="held-out Fréchet distances", holds=values[50] <= values[10],
        preset="paper",
    )  # fmt: skip


def _claims(table: Table, preset: Preset, outcomes: Mapping[Job, Outcome], seeds: Sequence[int]) -> None:
    test = "one-sided 95 % t over search seeds"
    for nfe in preset.nfes:
        known = outcomes[Job(nfe, None, 0)].rows[BEST_KNOWN]
        ours = [outcomes[Job(nfe, OURS, seed)].rows[OURS] for seed in seeds]
        for metric in ("holdout", "other_features"):
            gains = [getattr(known, metric) - getattr(row, metric) for row in ours]
            bound = paired_lower_bound(gains) if len(gains) > 1 else gains[0]
            what = "the searched features" if metric == "holdout" else "features that no search saw"
            table.claim(
                f"{nfe} NFE: S3 is below the best of all known solvers and grids on held-out noises ({what})",
                value=float(np.mean(gains)), bound=bound, n=len(gains), test=test, holds=bound > 0,
                preset="paper",
            )  # fmt: skip
        gained = [float(c[min(23, len(c) - 1)] - c[-1]) for c in (outcomes[Job(nfe, OURS, i)].curve for i in seeds)]
        table.claim(
            f"{nfe} NFE: S3 improves on its first population, known solvers among it, on the SEARCH noises",
            value=float(np.mean(gained)), bound=0.0, n=len(gained), test="least over search seeds",
            holds=min(gained) > 0,
        )  # fmt: skip
        shares = []
        for seed in seeds:
            goal = outcomes[Job(nfe, PLAIN, seed)].curve[-1]
            reached = np.flatnonzero(outcomes[Job(nfe, OURS, seed)].curve <= goal)
            shares.append((int(reached[0]) + 1) / preset.evaluations if len(reached) else np.inf)
        finite = [share for share in shares if np.isfinite(share)]
        table.add(f"{nfe} NFE", "S3's share of evaluations to evolution's final value", share=_median(shares))
        table.claim(
            f"{nfe} NFE: S3 reaches the final value of plain evolution with at most half its evaluations (median)",
            value=_median(shares), bound=0.5, n=len(shares), test=f"median over seeds; {len(finite)} reach it at all",
            holds=_median(shares) <= 0.5, preset="paper",
        )  # fmt: skip
        taus = [stage["tau"] for seed in seeds for stage in outcomes[Job(nfe, OURS, seed)].notes["stages"]
                if not stage["cross_validated"] and stage["tau"] is not None]  # fmt: skip
        for tau in taus:
            table.add(f"{nfe} NFE, predictor", "Kendall tau on the next stage", tau=tau)
    if {7, 10} <= set(preset.nfes):
        ten = outcomes[Job(10, None, 0)].rows[BEST_KNOWN].holdout
        gains = [ten - outcomes[Job(7, OURS, seed)].rows[OURS].holdout for seed in seeds]
        bound = paired_lower_bound(gains) if len(gains) > 1 else gains[0]
        table.claim(
            "S3 at 7 NFE is at least as good as the best of all known solvers and grids at 10 NFE (held-out)",
            value=float(np.mean(gains)), bound=bound, n=len(gains), test=test, holds=bound >= 0, preset="paper",
        )  # fmt: skip


def _median(shares: Sequence[float]) -> float:
    return float(np.median(shares))


def _transfer(table: Table, preset: Preset, outcomes: Mapping[Job, Outcome], seeds: Sequence[int]) -> None:
    """Schedules that were searched on the full model, on the average at a quarter of its training."""
    other = _model(preset.recipe, "quarter")
    gains: list[float] = []
    for nfe in preset.nfes:
        known = outcomes[Job(nfe, None, 0)].schedule
        assert known is not None
        row = _scored(preset, known, float("nan"), 0, nfe, 0.0, other)
        table.add(f"{nfe} NFE, on another checkpoint", f"{BEST_KNOWN} (of the first model)", **row._asdict())
        for seed in seeds:
            schedule = outcomes[Job(nfe, OURS, seed)].schedule
            assert schedule is not None
            mine = _scored(preset, schedule, float("nan"), 0, nfe, 0.0, other)
            table.add(f"{nfe} NFE, on another checkpoint", f"{OURS}, searched on the first model", **mine._asdict())
            gains.append(row.holdout - mine.holdout)
    table.claim(
        "a schedule that was searched on one model is better than the best known solver on another checkpoint, too",
        value=float(np.mean(gains)), bound=paired_lower_bound(gains) if len(gains) > 1 else gains[0], n=len(gains),
        test="one-sided 95 % t over search seeds and NFE", preset="paper",
        holds=len(gains) > 1 and paired_lower_bound(gains) > 0,
    )  # fmt: skip


def _full(table: Table, arguments: argparse.Namespace) -> None:
    """A pipeline of one's own, Fréchet distance on features of one's own."""
    if not (arguments.pipeline and arguments.reference and arguments.features):
        raise SystemExit("preset full needs --pipeline, --reference and --features; see --help")
    import importlib
    from pathlib import Path

    from diffusers import DiffusionPipeline

    module, _, name = arguments.features.partition(":")
    features = getattr(importlib.import_module(module), name)
    with np.load(arguments.reference, allow_pickle=False) as data:
        score = FrechetDistance(features, data["features"])
    prompts = Path(arguments.prompts).read_text(encoding="utf-8").splitlines() if arguments.prompts else ()
    pipe = DiffusionPipeline.from_pretrained(arguments.pipeline)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    noises = NoiseCases(search=arguments.noises, holdout=2 * arguments.noises, conditions=prompts)
    for seed in range(arguments.seeds):
        objective = SolverSearch(PipelineSampler(pipe), arguments.nfe, score, noises)
        result = search(objective, budget=arguments.budget, seed=seed)
        assert result.holdout is not None
        for row in result.holdout.rows:
            table.add(f"{arguments.nfe} NFE", row.name, holdout=row.value)
