"""ViDiT-Q and MixDQ: bits of every layer of a diffusion transformer, against uniform bits and simpler allocations.

A class-conditional DiT of digits and a Latte of moving shapes, trained here (:mod:`benchmarks.small_transformers`), one
model per seed. Everything is compared with the full-precision model's images of the same noises: ``quality`` is the
squared error of pixels, ``temporal`` that of the differences between frames, ``alignment`` how far the log-probability
of what was asked for has moved, ``aggregate`` the mean of their ratios to uniform bits. Profiles and searches see
SEARCH noises, choices are made on SELECT, rows are of noises that are opened once.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.precision_runs import (
    DECOUPLED,
    METRICS,
    MSE,
    OURS,
    RANDOM,
    SUM,
    TASKS,
    UNIFORM,
    Outcome,
    Preset,
    model_of,
    run_model,
    stored_bytes_of,
)
from benchmarks.small_diffusion import digits, feature_net
from benchmarks.small_transformers import Kind
from benchmarks.table import Table, paired_lower_bound
from searchlib import ExactAllocation, Split, measure_profile, search
from searchlib.errors import MissingDependency
from searchlib.objectives import (
    FrechetDistance,
    ImageReward,
    MixedPrecision,
    NoiseCases,
    PairedError,
    PipelineSampler,
    decoupled_weights,
)
from searchlib.objectives.metric_decoupling import MIXDQ

__all__ = ["DESCRIPTION", "PRESETS", "SEEDS", "add_arguments", "run"]

DESCRIPTION = "ViDiT-Q / MixDQ: bits of every layer of a diffusion transformer by metric-decoupled sensitivities"

PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        {"digits": (6, 6, 8), "video": (3, 3, 6)}, evaluations=8, options=(2, 3, 4, 8), random=4, rounds=1,
        tilts={"digits": (0.25, 4.0), "video": (1.0,)}, training=(12, 16), cache="smoke",
    ),
    "small": Preset({"digits": (80, 80, 200)}),
    "paper": Preset({"digits": (80, 80, 200), "video": (40, 48, 120)}, models={"video": 1}),
}  # fmt: skip
#: Models where the command line names no number: every seed is a training run of its own.
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 1, "paper": 8, "full": 1}
#: "Lossless".
MARGIN = 0.01
#: How much less memory than in 16 bits is asked for, where kernels pack bits.
SMALLER = 2.5

Results = dict[tuple[Kind, int], Outcome]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="models side by side (%(default)s)")
    group = parser.add_argument_group("preset full: a pipeline of one's own")
    group.add_argument("--pipeline", metavar="FOLDER", help="folder or name of a diffusers pipeline")
    group.add_argument("--prompts", type=Path, metavar="FILE", help="one prompt per line")
    group.add_argument("--argument", default="prompt", help="that lines go to; class_labels are numbers (%(default)s)")
    group.add_argument("--reward", metavar="MODULE:NAME", help="of (images, prompts): alignment, more is better")
    group.add_argument("--shape", default="4,64,64", help="of one noise (%(default)s)")
    group.add_argument("--steps", type=int, default=20, help="inference steps (%(default)s)")
    group.add_argument("--bits", type=float, default=5.0, help="mean bits of weights (%(default)s)")
    group.add_argument("--options", default="4,6,8", help="bits of a weight (%(default)s)")
    group.add_argument("--noises", type=int, default=32, help="to search and select on; held out twice (%(default)s)")
    group.add_argument("--budget", type=int, default=100, help="evaluations beside the profile (%(default)s)")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    table = Table("mixed_precision", arguments.preset, arguments.seeds)
    if arguments.preset == "full":
        _full(table, arguments)
        return table
    preset, seeds = PRESETS[arguments.preset], range(arguments.seeds)
    jobs: list[tuple[Kind, int]] = [
        (kind, seed) for seed in seeds for kind in preset.noises if seed < preset.models.get(kind, arguments.seeds)
    ]  # fmt: skip
    for kind, seed in jobs:  # once, before there are workers
        model_of(preset, kind, seed)
        table.progress(f"{kind} model {seed} is trained")
    calls = (joblib.delayed(run_model)(preset, kind, seed) for kind, seed in jobs)
    results: Results = {}
    for job, outcome in zip(jobs, joblib.Parallel(arguments.jobs, return_as="generator")(calls), strict=True):
        results[job] = outcome
        for (task, method), row in outcome.rows.items():
            table.add(task, method, **row)
    for kind in preset.noises:
        mine = [results[job] for job in jobs if job[0] == kind]
        _claim_order(table, kind, mine)
        _claim_lossless(table, kind, mine)
        for bits in preset.bits:
            _claim_better(table, kind, bits, mine)
    _claim_memory(table, preset)
    return table


def _claim_order(table: Table, kind: Kind, outcomes: Sequence[Outcome]) -> None:
    """What any run must show."""
    task, names = f"{TASKS[kind]}: uniform", ("W8A8", "W6A6", "W4A8")
    steps = [
        outcome.rows[task, more]["quality"] / outcome.rows[task, fewer]["quality"]
        for outcome in outcomes for more, fewer in itertools.pairwise(names)
    ]  # fmt: skip
    table.claim(
        f"{TASKS[kind]}: the fewer bits, the larger the error: {' < '.join(names)}", value=max(steps), bound=1.0,
        n=len(outcomes), test="largest ratio of neighbors, over models", holds=max(steps) < 1.0,
    )  # fmt: skip


def _claim_lossless(table: Table, kind: Kind, outcomes: Sequence[Outcome]) -> None:
    for name in outcomes[0].pairs:
        pairs = [outcome.pairs[name] for outcome in outcomes]
        if pairs[0][0].ndim > 1:
            distance = FrechetDistance(feature_net(0), torch.from_numpy(digits())).aggregate
            value, low, high = _relative(pairs, lambda images, of=distance: float(of(images[None])[0]), 200)  # type: ignore[misc]
        else:
            value, low, high = _relative(pairs, lambda numbers: float(numbers.mean()), 2000)
        table.claim(
            f"{TASKS[kind]}: W8A8 without balancing is lossless: its {name} is within {MARGIN:.0%} of full precision's",
            value=value, bound=MARGIN, interval=(low, high), n=sum(len(one[0]) for one in pairs), preset="paper",
            test="relative change, mean over models; 95 % by paired bootstrap over noises",
            holds=-MARGIN < low <= high < MARGIN,
        )  # fmt: skip


def _relative(
    pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]],
    statistic: Callable[[NDArray[np.float64]], float], resamples: int,
) -> tuple[float, float, float]:
    """The relative change of a statistic, mean over models, and its 95 % interval."""
    rng = np.random.default_rng(0)

    def change(rows: Sequence[NDArray[np.intp]]) -> float:
        return float(np.mean([statistic(b[i]) / statistic(a[i]) - 1 for (a, b), i in zip(pairs, rows, strict=True)]))

    value = change([np.arange(len(first)) for first, _ in pairs])
    drawn = [change([rng.integers(len(a), size=len(a)) for a, _ in pairs]) for _ in range(resamples)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value, float(low), float(high)


def _gains(outcomes: Sequence[Outcome], task: str, rival: str, method: str, metric: str) -> tuple[float, float]:
    """The rival's loss over the method's, and its one-sided 95 % lower bound."""
    if len(outcomes) > 1:
        logs = [np.log(one.rows[task, rival][metric] / one.rows[task, method][metric]) for one in outcomes]
        return float(np.exp(np.mean(logs))), float(np.exp(paired_lower_bound(logs)))
    (one,), rng = outcomes, np.random.default_rng(0)
    names = list(METRICS[next(kind for kind, own in TASKS.items() if task.startswith(own))])
    columns = list(range(len(names))) if metric == "aggregate" else [names.index(metric)]
    rows = rng.integers(len(one.cases[task, rival]), size=(2000, len(one.cases[task, rival])))
    theirs, ours, usual = (one.cases[task, name][rows][:, :, columns].mean(axis=1) for name in (rival, method, UNIFORM))
    drawn = (theirs / usual).mean(axis=1) / (ours / usual).mean(axis=1)
    return one.rows[task, rival][metric] / one.rows[task, method][metric], float(np.quantile(drawn, 0.05))


def _claim_better(table: Table, kind: Kind, bits: float, outcomes: Sequence[Outcome]) -> None:
    task = f"{TASKS[kind]}: {bits:g} bits"
    for method in (OURS, DECOUPLED):
        for rival in (UNIFORM, MSE, RANDOM, SUM):
            gain = _gains(outcomes, task, rival, method, "aggregate")
            _claim_ratio(table, f"{task}: {method} is better than {rival} on the aggregate", [gain], len(outcomes))
    for rival in (UNIFORM, MSE, RANDOM):
        gains = [_gains(outcomes, task, rival, OURS, metric) for metric in METRICS[kind]]
        said = f"{task}: {OURS} is better than {rival} on each of {', '.join(METRICS[kind])}"
        _claim_ratio(table, said, gains, len(outcomes))
    for metric in METRICS[kind][1:]:
        only = f"{metric} only"
        gains = [_gains(outcomes, task, only, MSE, "quality"), _gains(outcomes, task, MSE, only, metric)]
        said = f"{task}: metrics conflict: {MSE} is better than {only} on quality, and worse on {metric}"
        _claim_ratio(table, said, gains, len(outcomes))


def _claim_ratio(table: Table, said: str, gains: Sequence[tuple[float, float]], models: int) -> None:
    """Ratios of losses are above 1; of several the least counts."""
    value, low = min(gain[0] for gain in gains), min(gain[1] for gain in gains)
    how = "paired t of logarithms over models" if models > 1 else "paired bootstrap over the noises of one model"
    table.claim(
        f"{said} (held out)", value=value, bound=1.0, interval=(low, None), n=models,
        test=f"{'ratio' if len(gains) == 1 else 'least ratio'} of losses; one-sided 95 % by {how}",
        holds=low > 1.0, preset="paper",
    )  # fmt: skip


def _claim_memory(table: Table, preset: Preset) -> None:
    """What torchao stores, as it is stored."""
    kind: Kind = next(iter(preset.noises))
    try:
        taken = stored_bytes_of(preset, kind, 0)
    except MissingDependency:
        return
    task = f"{TASKS[kind]}: memory of the quantized layers"
    table.add(task, "16 bits", bytes=taken["half"])
    ratio = taken["half"] / taken["exported"]
    table.add(task, "W4A8, exported by torchao, as stored", bytes=taken["exported"], smaller=ratio)
    table.add(task, "W4A8, packed (computed)", bytes=taken["packed"], smaller=taken["half"] / taken["packed"])
    table.claim(
        f"the W4A8 model that torchao exports takes at least {SMALLER} times less memory than in 16 bits, as stored on "
        f"this processor (whose kernels pack nothing: one byte per weight)",
        value=ratio, bound=SMALLER, n=1, test="measured bytes of the quantized layers", holds=ratio >= SMALLER,
        preset="paper",
    )  # fmt: skip


def _full(table: Table, arguments: argparse.Namespace) -> None:
    """A pipeline of one's own: profile, exact allocation and search, beside the best uniform bits."""
    if not (arguments.pipeline and arguments.prompts):
        raise SystemExit("preset full needs --pipeline FOLDER and --prompts FILE; see --help")
    from diffusers import DiffusionPipeline

    lines = [line for line in arguments.prompts.read_text(encoding="utf-8").splitlines() if line.strip()]
    prompts: list[Any] = [int(line) for line in lines] if arguments.argument == "class_labels" else lines
    pipe = DiffusionPipeline.from_pretrained(arguments.pipeline)
    if torch.cuda.is_available():
        pipe.to("cuda", torch.float16)
    metrics: dict[str, Any] = {"quality": PairedError}
    if arguments.reward:
        metrics["alignment"] = ImageReward(_named(arguments.reward), name=arguments.reward)
    noises = NoiseCases(
        search=arguments.noises, select=arguments.noises, holdout=2 * arguments.noises, conditions=prompts
    )  # fmt: skip

    sampler = PipelineSampler(pipe, batch=8, prompt=arguments.argument, num_inference_steps=arguments.steps)

    def objective(**settings: Any) -> MixedPrecision:
        return MixedPrecision(
            None, sampler, noises,
            shape=[int(size) for size in arguments.shape.split(",")], metrics=metrics,
            weight=[int(bits) for bits in arguments.options.split(",")], mean_bits=arguments.bits, **settings,
        )  # fmt: skip

    opened = objective()
    profile = measure_profile(opened, metrics=opened.metrics).monotone()
    with opened:
        cases = opened.cases(Split.SEARCH)
        full, uniform = (opened.evaluate_reference(name, cases).mean(axis=0) for name in opened.references())
    # Each metric by what the best uniform bits lose of it.
    lost = np.maximum(np.abs(uniform - full), 1e-12).tolist()
    weights = {name: 1 / one for name, one in zip(opened.metrics, lost, strict=True)}
    for seed in range(arguments.seeds):
        algorithm = ExactAllocation(profile, decoupled_weights(profile, MIXDQ))
        result = search(objective(value=weights), algorithm, budget=arguments.budget, seed=seed)
        assert result.holdout is not None
        for row in result.holdout.rows:
            table.add(f"{arguments.bits:g} bits", row.name, aggregate=row.value)
        arguments.out.mkdir(parents=True, exist_ok=True)
        result.best.save(arguments.out / f"plan-{seed}.json")


def _named(name: str) -> Callable[..., Any]:
    import importlib

    module, _, function = name.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), function)
    return found
