"""The runs behind the benchmark of solver schedules: known solvers, searches, and what a schedule is worth held out."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import UNet2DModel
from numpy.typing import NDArray

from benchmarks.small_diffusion import EMA_RATES, Recipe, digits, feature_net, noise_scheduler, trained
from benchmarks.speed_clock import threads
from searchlib import Algorithm, Evolution, History, PredictorGuided, RandomSearch, Split, search
from searchlib.objectives import (
    ControlledFrechetDistance,
    FrechetDistance,
    NoiseCases,
    NoiseModel,
    PairedDistance,
    SolverSearch,
    sample_schedules,
)
from searchlib.objectives.known_solvers import noise_levels, schedule_from_sigmas
from searchlib.objectives.paired_features import features_of
from searchlib.objectives.solver_search import BEST_SEEDS, SEED_SOLVERS, searched_space
from searchlib.spaces.solver_schedule import SolverSchedule

__all__ = [
    "BEST_KNOWN",
    "LONG",
    "METHODS",
    "OURS",
    "OURS_FROM_BEST",
    "PLAIN",
    "PLAIN_FROM_BEST",
    "RANDOM",
    "TIMES",
    "UNCONTROLLED",
    "Job",
    "Outcome",
    "Preset",
    "Row",
    "held_out_features",
    "long_schedule",
    "model_of",
    "run_job",
    "scored",
]

OURS, PLAIN, RANDOM = "S3 (ours)", "evolution", "random search"
TIMES, DECISIONS = "S3, noise levels only", "S3, decisions only"
UNCONTROLLED = "S3, plain Fréchet distance"
#: Started from the best known solvers of this model instead of well-known ones; their evaluations are not counted.
PLAIN_FROM_BEST, OURS_FROM_BEST = "evolution, from the best known", "S3 (ours), from the best known"
METHODS = (RANDOM, PLAIN, TIMES, DECISIONS, OURS, PLAIN_FROM_BEST, OURS_FROM_BEST)
BEST_KNOWN = "best known solver"
#: Families of known solvers; each row is the best of a family over its variants, grids and ends, on the SEARCH noises.
FAMILIES = {"DDIM": "ddim", "DPM-Solver": "dpm", "DPM-Solver++": "dpm++", "UniPC": "unipc"}
#: As they are used, whatever suits this model.
DEFAULTS = {
    "DPM-Solver++(2M), defaults": "dpm++2m-midpoint/time/zero", "UniPC, defaults": "unipc2-bh2-data/time/zero",
}  # fmt: skip
#: Times of the model (of 1000) at which sampling may start, beside the last.
STARTS = (930, 850, 750, 650)
LONG = 50  # evaluations of the long trajectory, from the last time
#: Candidates of a search, and known solvers, that are looked at on the SELECT noises.
SHORTLIST = 5


@dataclass(frozen=True)
class Preset:
    """How much is run.

    Arguments:
        nfes: evaluations of the network per image.
        evaluations: schedules per search.
        noises, select, holdout: of each split.
        control: noises that the long trajectory is sampled from once, to correct for the luck of the others.
        recipe: of the model.
        methods: the searches.
    """

    nfes: tuple[int, ...]
    evaluations: int
    noises: int
    select: int
    holdout: int
    control: int
    recipe: Recipe
    methods: tuple[str, ...] = METHODS


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
    select: float
    evaluations: int
    network_evaluations: float
    cpu_seconds: float


class Outcome(NamedTuple):
    """What a job brings home: rows by method, and how the search went.

    Arguments:
        rows: by name.
        curve: after every evaluation, what the best schedule so far is worth on the SELECT noises; of S³ and evolution.
        gained: how much lower the best of a search is than the best of its first population, on the SEARCH noises.
        notes: of the algorithm, or on the known solvers.
        schedule: the one that was chosen.
    """

    rows: dict[str, Row]
    curve: NDArray[np.float64]
    gained: float
    notes: Mapping[str, Any]
    schedule: SolverSchedule


def run_job(preset: Preset, job: Job) -> Outcome:
    """Run it, on one thread."""
    with threads(1):
        return _known(preset, job.nfe) if job.method is None else _search(preset, job, job.method)


@lru_cache(maxsize=2)
def model_of(recipe: Recipe, part: str = "full") -> NoiseModel:
    """The average of the fully trained model, or that of its first quarter."""
    step = recipe.steps if part == "full" else recipe.window[1]
    unet = UNet2DModel.from_pretrained(trained(recipe).ema(EMA_RATES[-1], step)).eval().requires_grad_(False)
    return NoiseModel.from_diffusers(unet, noise_scheduler(recipe.betas).config)


def long_schedule(recipe: Recipe, nfe: int = LONG) -> SolverSchedule:
    """DPM-Solver++(2M) on many levels, even in λ."""
    return schedule_from_sigmas("dpm++2m-midpoint", noise_levels("logsnr", model_of(recipe).schedule, nfe))


class _Counted:
    """A network that counts the images that go through it."""

    def __init__(self, network: Any) -> None:
        self.network, self.images = network, 0

    def __call__(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        self.images += len(x)
        return self.network(x, t)  # type: ignore[no-any-return]


class _Long:
    """The long trajectory of a model, as a sampler."""

    def __init__(self, model: NoiseModel, recipe: Recipe) -> None:
        self.model, self.recipe = model, recipe

    def __call__(self, noise: torch.Tensor, conditions: Any) -> torch.Tensor:
        del conditions
        return sample_schedules(self.model, [long_schedule(self.recipe)], noise).samples[0].clamp(-1, 1)


@lru_cache(maxsize=2)
def _controlled(preset: Preset) -> ControlledFrechetDistance:
    many = torch.randn((preset.control, 1, 8, 8), generator=torch.Generator().manual_seed(2**20))
    sampler = _Long(model_of(preset.recipe), preset.recipe)
    return ControlledFrechetDistance(feature_net(0), torch.from_numpy(digits()), sampler, many)


def _objective(preset: Preset, nfe: int, *, controlled: bool = True, **settings: Any) -> SolverSearch:
    score = _controlled(preset) if controlled else FrechetDistance(feature_net(0), torch.from_numpy(digits()))
    noises = NoiseCases(search=preset.noises, select=preset.select, holdout=0)  # held out: by :func:`scored`
    return SolverSearch(settings.pop("model", model_of(preset.recipe)), nfe, score, noises, shape=(1, 8, 8), **settings)


def _algorithm(method: str) -> Algorithm:
    if method == RANDOM:
        return RandomSearch()
    return Evolution() if method in (PLAIN, PLAIN_FROM_BEST) else PredictorGuided(population=24, stage=12)


def _search(preset: Preset, job: Job, method: str) -> Outcome:
    plain = model_of(preset.recipe)
    counted = _Counted(plain.network)
    model = NoiseModel(counted, plain.schedule, plain.prediction)
    space, level = None, _start(preset, job.nfe)
    if method in (TIMES, DECISIONS):
        vary = ("times",) if method == TIMES else ("decisions",)
        base = _known_values(preset, job.nfe)[0][1]
        space = searched_space(job.nfe, plain.schedule.starting_at(level), vary=vary, base=base)
    from_best = method in (PLAIN_FROM_BEST, OURS_FROM_BEST)
    objective = _objective(
        preset, job.nfe, start=level, space=space, model=model, controlled=method != UNCONTROLLED, seeded=not from_best
    )
    first = [row[1] for row in _known_values(preset, job.nfe)[:BEST_SEEDS]] if from_best else None
    start = time.process_time()
    result = search(
        objective, _algorithm(method), budget=preset.evaluations, seed=job.seed, shortlist=SHORTLIST, seeds=first
    )
    seconds, spent = time.process_time() - start, counted.images / preset.noises
    schedule = objective.space.decode(np.asarray(result.row))
    row = scored(preset, schedule, result.value, result.history.evaluations, spent, seconds)
    curve, gained = np.empty(0), 0.0
    if method in (PLAIN, OURS, PLAIN_FROM_BEST, OURS_FROM_BEST):
        curve, gained = _curve(preset, job.nfe, level, result.history, objective)
    return Outcome({method: row}, curve, gained, result.notes, schedule)


def _curve(
    preset: Preset, nfe: int, level: float, history: History, objective: SolverSearch
) -> tuple[NDArray[np.float64], float]:
    """What the best candidate so far is worth on the SELECT noises, and what the search gained on the SEARCH ones."""
    values = np.where(np.isfinite(history.values[:, 0]), history.values[:, 0], np.inf)
    so_far = np.minimum.accumulate(values)
    changes = np.flatnonzero(np.diff(so_far, prepend=np.inf) < 0)
    judge = _objective(preset, nfe, start=level)
    cases = judge.cases(Split.SELECT)
    best = [objective.space.decode(history.population[place]) for place in changes]
    found = np.concatenate([
        judge.aggregate(judge.observe(best[start : start + 12], cases))[:, 0] for start in range(0, len(best), 12)
    ])  # fmt: skip
    curve = found[np.searchsorted(changes, np.arange(len(values)), side="right") - 1]
    return curve, float(so_far[min(23, len(so_far) - 1)] - so_far[-1])


@lru_cache(maxsize=8)
def _known_values(preset: Preset, nfe: int) -> list[tuple[float, SolverSchedule, str]]:
    """Distance, schedule and name of every known solver from the best level, on the SEARCH noises, best first."""
    return _ranked(_objective(preset, nfe, start=_start(preset, nfe)))


@lru_cache(maxsize=8)
def _start(preset: Preset, nfe: int) -> float:
    """The level to start at that suits the best of seven known solvers: it makes all baselines better."""
    schedule = model_of(preset.recipe).schedule
    # The last is where diffusers' "leading" spacing starts.
    levels = [schedule.table[-1], *(schedule.sigma(time) for time in (*STARTS, 1000 * (nfe - 1) / nfe + 1))]
    best = [
        _ranked(_objective(preset, nfe, start=level), solvers=SEED_SOLVERS, finals=("sigma_min",))[0][0]
        for level in levels
    ]
    return levels[int(np.argmin(best))]


def _ranked(objective: SolverSearch, **settings: Any) -> list[tuple[float, SolverSchedule, str]]:
    known = objective.known(**settings)
    return _ordered(objective, list(known.values()), list(known), Split.SEARCH)


def _ordered(
    objective: SolverSearch, schedules: list[SolverSchedule], names: list[str], split: Split
) -> list[tuple[float, SolverSchedule, str]]:
    cases, values = objective.cases(split), list[float]()
    for start in range(0, len(names), 12):
        values += objective.aggregate(objective.observe(schedules[start : start + 12], cases))[:, 0].tolist()
    rows = [row for row in zip(values, schedules, names, strict=True) if np.isfinite(row[0])]
    return sorted(rows, key=lambda row: row[0])


def _known(preset: Preset, nfe: int) -> Outcome:
    start = time.process_time()
    ranked = _known_values(preset, nfe)
    spent = len(ranked) + 3 * len(SEED_SOLVERS) * (len(STARTS) + 2)
    shortlist = ranked[:SHORTLIST]
    objective = _objective(preset, nfe, start=_start(preset, nfe))
    best = _ordered(objective, [row[1] for row in shortlist], [row[2] for row in shortlist], Split.SELECT)[0]
    seconds = time.process_time() - start
    rows = {}
    for label, solver in FAMILIES.items():
        # "dpm2m-…" is of DPM-Solver, "dpm++2m-…" is not.
        family = [row for row in ranked if row[2].startswith(solver)
                  and not (solver == "dpm" and row[2].startswith("dpm++"))]  # fmt: skip
        rows[f"{label}, best of {len(family)}"] = scored(preset, family[0][1], float("nan"), len(family), nfe, 0.0)
    for label, name in DEFAULTS.items():
        solver, grid, final = name.split("/")
        levels = noise_levels(grid, model_of(preset.recipe).schedule, nfe, final=final)
        rows[label] = scored(preset, schedule_from_sigmas(solver, levels), float("nan"), 1, nfe, 0.0)
    rows[BEST_KNOWN] = scored(preset, best[1], best[0], spent, nfe * spent, seconds)
    notes = {"best": best[2], "start": _start(preset, nfe)}
    return Outcome(rows, np.array([best[0]]), 0.0, notes, best[1])


def scored(
    preset: Preset, schedule: SolverSchedule, select: float, evaluations: int, network: float, seconds: float,
    model: NoiseModel | None = None,
) -> Row:  # fmt: skip
    """A schedule on the held-out noises: plain Fréchet distances in two feature spaces, one of them new to all."""
    model = model or model_of(preset.recipe)
    noise = _held_out_noise(preset)
    images = _held_out_images(preset, schedule, model)
    data = torch.from_numpy(digits())
    distances = [
        float(score.aggregate(score.observe(images, None, ())[None])[0])
        for score in (FrechetDistance(feature_net(seed), data) for seed in (0, 1))
    ]
    paired = _paired(model, preset.recipe)
    trajectory = float(paired.aggregate(paired.observe(images, noise, [None] * len(noise))[None])[0])
    return Row(distances[0], distances[1], trajectory, select, evaluations, network, seconds)


def held_out_features(preset: Preset, schedule: SolverSchedule) -> NDArray[np.float64]:
    """Features ``(images, k)`` of a schedule's images of the held-out noises."""
    return features_of(feature_net(0), _held_out_images(preset, schedule, model_of(preset.recipe)), 256)


def _held_out_images(preset: Preset, schedule: SolverSchedule, model: NoiseModel) -> torch.Tensor:
    return sample_schedules(model, [schedule], _held_out_noise(preset)).samples[0].clamp(-1, 1)


@lru_cache(maxsize=1)
def _held_out_noise(preset: Preset) -> torch.Tensor:
    return torch.randn((preset.holdout, 1, 8, 8), generator=torch.Generator().manual_seed(2**21))


@lru_cache(maxsize=4)
def _paired(model: NoiseModel, recipe: Recipe) -> PairedDistance:
    """The distance to the long trajectory; it remembers the reference images."""
    return PairedDistance(_Long(model, recipe))
