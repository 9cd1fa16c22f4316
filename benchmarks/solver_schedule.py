"""USF and S³: every known solver, and searches over schedules, at few network evaluations per image."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace

import joblib
import numpy as np
import torch

from benchmarks.schedule_runs import (
    BEST_KNOWN,
    LONG,
    METHODS,
    OURS,
    OURS_FROM_BEST,
    PLAIN,
    PLAIN_FROM_BEST,
    RANDOM,
    TIMES,
    UNCONTROLLED,
    Job,
    Outcome,
    Preset,
    held_out_features,
    long_schedule,
    model_of,
    run_job,
    scored,
)
from benchmarks.small_diffusion import Recipe, digits, feature_net, trained
from benchmarks.table import Table, paired_lower_bound
from searchlib import search
from searchlib.objectives import FrechetDistance, NoiseCases, PipelineSampler, SolverSearch

__all__ = ["DESCRIPTION", "add_arguments", "run"]

DESCRIPTION = "USF / S3: a solver and a noise level for every step of a diffusion sampler"

#: Long enough that many steps are better than few: the linear schedule, whose highest level samplers can start from.
MODEL = Recipe(steps=40_000, window=(10_000, 10_000), rate=2e-3, betas="linear", annealed=True)

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        (4,), 60, noises=64, select=64, holdout=128, control=256,
        recipe=Recipe(steps=120, window=(60, 120), interval=20, betas="linear"), methods=(RANDOM, PLAIN, OURS),
    ),
    "small": Preset((5,), 120, noises=384, select=1024, holdout=2048, control=4096, recipe=MODEL,
                    methods=(PLAIN, TIMES, UNCONTROLLED, OURS)),
    "paper": Preset((4, 5, 7, 10), 120, noises=1536, select=2048, holdout=4096, control=8192, recipe=MODEL),
}  # fmt: skip
#: "At least as good" for the longest sampling: not worse by more than this share.
MARGIN = 0.05


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="searches side by side (%(default)s)")
    parser.add_argument("--method", choices=METHODS, action="append", help="only these searches (may be repeated)")
    parser.add_argument("--images", type=int, metavar="N", help="SEARCH noises instead of the preset's")
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
    if arguments.method:
        preset = replace(preset, methods=tuple(method for method in METHODS if method in arguments.method))
    if arguments.images:
        preset = replace(preset, noises=arguments.images)
    trained(preset.recipe)  # once, before there are workers
    jobs = [Job(nfe, None, 0) for nfe in preset.nfes]
    jobs += [Job(nfe, method, seed) for nfe in preset.nfes for method in preset.methods for seed in seeds]
    calls = (joblib.delayed(run_job)(preset, job) for job in jobs)
    outcomes: dict[Job, Outcome] = {}
    for job, outcome in zip(jobs, joblib.Parallel(arguments.jobs, return_as="generator")(calls), strict=True):
        outcomes[job] = outcome
        for method, row in outcome.rows.items():
            table.add(f"{job.nfe} NFE", method, **row._asdict())
    _say_quality(table, preset)
    for ours, plain in ((OURS, PLAIN), (OURS_FROM_BEST, PLAIN_FROM_BEST)):
        plain = plain if plain in preset.methods else PLAIN
        if {ours, plain} <= set(preset.methods):
            _claim_search(table, preset, ours, plain, outcomes, seeds)
    if UNCONTROLLED in preset.methods:
        gains = [
            outcomes[Job(nfe, UNCONTROLLED, seed)].rows[UNCONTROLLED].holdout
            - outcomes[Job(nfe, OURS, seed)].rows[OURS].holdout
            for nfe in preset.nfes for seed in seeds
        ]  # fmt: skip
        _claim(table, "schedules searched with the corrected distance are better than with the plain one", gains)
    return table


def _claim_search(
    table: Table, preset: Preset, ours: str, plain: str, outcomes: Mapping[Job, Outcome], seeds: Sequence[int]
) -> None:
    for nfe in preset.nfes:
        _claim_better(table, nfe, ours, outcomes, seeds)
        _claim_sooner(table, nfe, ours, plain, outcomes, seeds)
    if {7, 10} <= set(preset.nfes):
        ten = outcomes[Job(10, None, 0)].rows[BEST_KNOWN].holdout
        gains = [ten - outcomes[Job(7, ours, seed)].rows[ours].holdout for seed in seeds]
        _claim(table, f"{ours}: 7 NFE are at least as good as the best of all known solvers and grids at 10", gains)
    _transfer(table, preset, ours, outcomes, seeds)


def _claim(table: Table, text: str, gains: Sequence[float]) -> None:
    """Held-out gains, one per search seed, are above 0."""
    bound = paired_lower_bound(gains) if len(gains) > 1 else gains[0]
    table.claim(
        f"{text} (held out)", value=float(np.mean(gains)), bound=bound, n=len(gains),
        test="one-sided 95 % t over searches", holds=bound > 0, preset="paper",
    )  # fmt: skip


def _say_quality(table: Table, preset: Preset) -> None:
    """Whether the model is well trained: more steps must not be worse."""
    reference = FrechetDistance(feature_net(0), torch.from_numpy(digits()))
    features = {}
    for nfe in (10, LONG):
        schedule = long_schedule(preset.recipe, nfe)
        row = scored(preset, schedule, float("nan"), 1, nfe, 0.0)
        table.add(f"{nfe} NFE, for scale", "DPM-Solver++(2M), logSNR", **row._asdict())
        features[nfe] = held_out_features(preset, schedule)
    rng, worse = np.random.default_rng(0), []
    for _ in range(200):
        rows = rng.integers(preset.holdout, size=preset.holdout)
        ten, long = reference.aggregate(np.stack([features[10][rows], features[LONG][rows]]))
        worse.append(long / ten - 1)
    bound = float(np.quantile(worse, 0.95))
    ten, long = reference.aggregate(np.stack([features[10], features[LONG]]))
    table.claim(
        f"the model is well trained: {LONG} steps of DPM-Solver++(2M) are not worse than 10 by more than {MARGIN:.0%}",
        value=float(long / ten - 1), bound=bound, n=preset.holdout,
        test="relative difference; upper 95 % by paired bootstrap over noises", holds=bound <= MARGIN, preset="paper",
    )  # fmt: skip


def _claim_better(
    table: Table, nfe: int, method: str, outcomes: Mapping[Job, Outcome], seeds: Sequence[int]
) -> None:
    known = outcomes[Job(nfe, None, 0)].rows[BEST_KNOWN]
    ours = [outcomes[Job(nfe, method, seed)].rows[method] for seed in seeds]
    for metric, what in (("holdout", "the searched features"), ("other_features", "features that no search saw")):
        gains = [getattr(known, metric) - getattr(row, metric) for row in ours]
        _claim(table, f"{nfe} NFE: {method} is below the best of all known solvers and grids by {what}", gains)
    gained = [outcomes[Job(nfe, method, seed)].gained for seed in seeds]
    table.claim(
        f"{nfe} NFE: {method} improves on its first population, known solvers among it, on the SEARCH noises",
        value=float(np.mean(gained)), bound=0.0, n=len(gained), test="least over search seeds", holds=min(gained) > 0,
    )  # fmt: skip


def _claim_sooner(
    table: Table, nfe: int, method: str, plain: str, outcomes: Mapping[Job, Outcome], seeds: Sequence[int]
) -> None:
    """How many evaluations S³ needs for the value on SELECT that plain evolution ends with."""
    shares = []
    for seed in seeds:
        theirs, ours = outcomes[Job(nfe, plain, seed)].curve, outcomes[Job(nfe, method, seed)].curve
        reached = np.flatnonzero(ours <= theirs[-1])
        shares.append((int(reached[0]) + 1) / len(theirs) if len(reached) else np.inf)
    middle = float(np.median(shares))
    table.add(f"{nfe} NFE", f"{method}: share of the evaluations of: {plain}", share=middle)
    table.claim(
        f"{nfe} NFE: {method} reaches the final value of {plain} with at most half its evaluations (median, SELECT)",
        value=middle, bound=0.5, n=len(shares), holds=middle <= 0.5, preset="paper",
        test=f"median over seeds; {int(np.isfinite(shares).sum())} reach it at all",
    )  # fmt: skip
    for seed in seeds:
        for stage in outcomes[Job(nfe, method, seed)].notes["stages"]:
            if not stage["cross_validated"] and stage["tau"] is not None:
                table.add(f"{nfe} NFE, predictor", f"{method}: Kendall tau on the next stage", tau=stage["tau"])


def _transfer(
    table: Table, preset: Preset, method: str, outcomes: Mapping[Job, Outcome], seeds: Sequence[int]
) -> None:
    """Schedules that were searched on the full model, on the average at a quarter of its training."""
    other = model_of(preset.recipe, "quarter")
    gains: list[float] = []
    for nfe in preset.nfes:
        row = scored(preset, outcomes[Job(nfe, None, 0)].schedule, float("nan"), 0, nfe, 0.0, other)
        table.add(f"{nfe} NFE, on another checkpoint", f"{BEST_KNOWN} (of the first model)", **row._asdict())
        for seed in seeds:
            mine = scored(preset, outcomes[Job(nfe, method, seed)].schedule, float("nan"), 0, nfe, 0.0, other)
            table.add(f"{nfe} NFE, on another checkpoint", f"{method}, searched on the first model", **mine._asdict())
            gains.append(row.holdout - mine.holdout)
    _claim(table, f"{method}: what is searched on one model beats the best known solver on another checkpoint", gains)


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
