"""Combined checkpoints against the last one, every average, and the searches that others would use.

Small diffusion and consistency models of digits, trained here (:mod:`benchmarks.small_diffusion`) and stopped at a
quarter of their training; searched on fixed noises, compared on other ones, which are opened once per row. Three judges
there: the Fréchet distance that is searched for; the same in the features of another network, which no search has seen;
and the unbiased kernel distance in the first features. Evaluations are counted by the images that were drawn for them.
LCSC's search was never released: its row follows the paper's description.
"""

from __future__ import annotations

import argparse
import glob
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

import joblib
import numpy as np
import torch
from diffusers import CMStochasticIterativeScheduler, DDIMScheduler, UNet2DModel
from numpy.typing import NDArray
from torch import Tensor

from benchmarks import small_diffusion
from benchmarks.model_cache import user_cache
from benchmarks.small_diffusion import EMA_RATES, Recipe, digits, feature_net
from benchmarks.speed_clock import threads
from benchmarks.speed_combination import CombinationSize, measure, report
from benchmarks.table import Table, paired_lower_bound
from searchlib import CMAES, Candidates, Nevergrad, RandomSearch, Split, search
from searchlib.algorithms import Algorithm
from searchlib.objectives import (
    CheckpointCombination,
    FrechetDistance,
    GeneratedImages,
    KernelDistance,
    NoiseCases,
    PipelineSampler,
)
from searchlib.objectives.checkpoint_described_loop import DescribedLoop

__all__ = ["DESCRIPTION", "SEEDS", "Sampler", "add_arguments", "run"]

DESCRIPTION = "combine the checkpoints of a diffusion or consistency model, beyond every average (LCSC)"

#: Training runs where the command line names no number: every seed is a model of its own.
SEEDS: Mapping[str, int] = {"smoke": 1, "small": 1, "paper": 3, "full": 3}

Kind = Literal["consistency", "diffusion"]
TASKS: Mapping[Kind, str] = {"consistency": "consistency, 1 step", "diffusion": "diffusion, DDIM 5 steps"}
STEPS = 5

LAST, EMA_STAR, OURS, PAPERS = "last checkpoint", "EMA*", "ours", "LCSC's loop"
FULL_LAST, FULL_EMA = "full run, last weights", "full run, best online EMA"
#: What is searched with; None is what the objective recommends. CMA-ES in white coordinates, whose unit is 1/K.
METHODS: Mapping[str, Algorithm | None] = {
    "random": RandomSearch(),
    "nevergrad": Nevergrad("NGOpt"),
    "CMA-ES": CMAES(sigma=2.0),
    PAPERS: DescribedLoop(),
    OURS: None,
}


@dataclass(frozen=True)
class Preset:
    """How much is run."""

    evaluations: Mapping[Kind, int]  # of every search, its seeds included
    search: int = 1024  # noises
    holdout: int = 2048
    finer: tuple[int, ...] = (6, 8, 10)  # DDIM steps of EMA*
    recipe: Mapping[str, Any] = field(default_factory=dict)
    cache: str = ""  # below the user's cache
    speed: CombinationSize | None = None


PRESETS: Mapping[str, Preset] = {
    "smoke": Preset(
        {"consistency": 14, "diffusion": 12}, 32, 48, (6,), {"steps": 60, "window": (30, 50), "interval": 5}, "smoke"
    ),
    "small": Preset({"consistency": 150}, speed=CombinationSize()),
    "paper": Preset({"consistency": 300, "diffusion": 120}, speed=CombinationSize()),
}


class Scored(NamedTuple):
    """One row of the table for one training run; the first three on the HOLDOUT noises."""

    holdout: float
    other_features: float
    kernel: float
    search: float
    evaluations: float
    cpu_seconds: float


Results = dict[tuple[str, str], list[Scored]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this benchmark."""
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="training runs side by side (%(default)s)")
    group = parser.add_argument_group("preset full: checkpoints of one's own")
    group.add_argument("--pipeline", metavar="FOLDER", help="diffusers pipeline, a folder or a name")
    group.add_argument("--checkpoints", metavar="GLOB", help="its denoiser's checkpoints; sorted, oldest first")
    group.add_argument("--reference", type=Path, metavar="NPZ", help="'images' of the data: (n, h, w, c), 0 to 255")
    group.add_argument("--features", default="openai/clip-vit-base-patch32", help="a CLIP vision model (%(default)s)")
    group.add_argument("--steps", type=int, default=15, help="inference steps (%(default)s)")
    group.add_argument("--batch", type=int, default=16, help="images at once (%(default)s)")
    group.add_argument("--noises", type=int, default=5000, help="to search on; twice as many held out (%(default)s)")
    group.add_argument("--budget", type=int, default=200, help="evaluations (%(default)s)")


def run(arguments: argparse.Namespace) -> Table:
    """Run the benchmark."""
    table = Table("checkpoint_combination", arguments.preset, arguments.seeds)
    if arguments.preset == "full":
        return _run_full(table, arguments)
    preset = PRESETS[arguments.preset]
    # The models come first, one after the other: two processes must not train the same one.
    for kind in preset.evaluations:
        for seed in range(arguments.seeds):
            _trained(preset, kind, seed)
    jobs = [(kind, seed) for seed in range(arguments.seeds) for kind in preset.evaluations]
    calls = (joblib.delayed(_rows)(preset, kind, seed) for kind, seed in jobs)
    results: Results = {}
    for (kind, seed), rows in zip(
        jobs, joblib.Parallel(n_jobs=arguments.jobs, return_as="generator")(calls), strict=True
    ):
        for method, scored in rows.items():
            table.add(TASKS[kind], method, **scored._asdict())
            results.setdefault((TASKS[kind], method), []).append(scored)
        table.progress(f"{kind}, training run {seed}")
    for kind in preset.evaluations:
        _claim(table, kind, results, preset)
    if preset.speed is not None:
        report(table, measure(preset.speed))
    return table


def _trained(preset: Preset, kind: Kind, seed: int) -> small_diffusion.Run:
    return small_diffusion.trained(Recipe(kind, seed, **preset.recipe), user_cache() / preset.cache)


@final
class Sampler:
    """Images from noises: one step of a consistency model, or DDIM (eta 0) of a diffusion model."""

    def __init__(self, kind: Kind, steps: int = STEPS) -> None:
        self.kind = kind
        self.images = 0
        self._consistency = CMStochasticIterativeScheduler()
        self._ddim = DDIMScheduler.from_config(small_diffusion.noise_scheduler().config, clip_sample=False)
        self._ddim.set_timesteps(steps)

    def __call__(self, model: Any, noise: Tensor, conditions: Sequence[Any] = ()) -> Tensor:
        """One image per noise, in [-1, 1]."""
        del conditions
        self.images += len(noise)
        if self.kind == "consistency":
            highest = float(self._consistency.config.sigma_max)
            sigma = torch.full((len(noise),), highest)
            return small_diffusion.denoised(model, noise * highest, sigma, self._consistency).clamp(-1, 1)
        images = noise
        for time_step in self._ddim.timesteps:
            images = self._ddim.step(model(images, time_step).sample, time_step, images).prev_sample
        return images.clamp(-1, 1)


@final
class _Trial:
    """One training run, one sampler, and the noises that its weights are judged on."""

    def __init__(self, preset: Preset, kind: Kind, seed: int, steps: int = STEPS) -> None:
        self.run = _trained(preset, kind, seed)
        self.sampler = Sampler(kind, steps)
        images = torch.from_numpy(digits())
        self.scores = {
            "holdout": FrechetDistance(feature_net(0), images),
            "other_features": FrechetDistance(feature_net(1), images),
            "kernel": KernelDistance(feature_net(0), images),
        }
        # Of other noises for every run: what is claimed must not hang on one draw of them.
        noises = NoiseCases(search=preset.search, holdout=preset.holdout, seed=seed)
        self.judge = GeneratedImages(self.sampler, self.scores["holdout"], noises, shape=(1, 8, 8))
        without = NoiseCases(search=preset.search, holdout=0, seed=seed)
        searched = GeneratedImages(self.sampler, self.scores["holdout"], without, shape=(1, 8, 8))
        self.objective = CheckpointCombination(small_diffusion.new_model, self.run.checkpoints, searched)
        self.space = self.objective.space

    def value(self, model: Any) -> float:
        """The distance on the SEARCH noises."""
        observed = self.judge.observe(model, self.judge.cases(Split.SEARCH))
        return float(self.judge.aggregate(observed[None])[0, 0])

    def values(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same of combinations."""
        with self.objective as objective:
            observed = objective.evaluate(Candidates(self.space, rows), self.judge.cases(Split.SEARCH))
        return objective.aggregate(observed)[:, 0]

    def combined(self, row: NDArray[np.float64]) -> Any:
        """The model of a combination, as a user would get it."""
        return self.objective.artifact(self.space.decode(row)).apply(small_diffusion.new_model()).eval()

    def scored(self, find: Callable[[], Any]) -> Scored:
        """Find a model (or a row of the space), and judge it; what finding it took is counted."""
        self.sampler.images = 0
        start = time.process_time()
        found = find()
        seconds, evaluations = time.process_time() - start, self.sampler.images / self.judge.noises.search
        model = self.combined(found) if isinstance(found, np.ndarray) else found
        noise = self.judge.noise(self.judge.cases(Split.HOLDOUT))
        with torch.inference_mode():
            images = torch.cat([self.sampler(model, part) for part in noise.split(256)])
        held_out = [
            float(score.aggregate(score.observe(images, None, ())[None])[0]) for score in self.scores.values()
        ]
        return Scored(*held_out, self.value(model), evaluations, seconds)

    def best_ema(self) -> NDArray[np.float64]:
        """EMA*."""
        with self.objective as objective:
            return objective.best_ema()

    def greedy_soup(self) -> NDArray[np.float64]:
        """Wortsman et al., ICML 2022 (arXiv 2203.05482), Recipe 1: best first, each kept that does not harm."""
        each = np.eye(self.space.checkpoints)
        alone = self.values(each)
        kept: list[int] = []
        best = np.inf
        for index in np.argsort(alone, kind="stable"):
            mixed = each[[*kept, index]].mean(axis=0)
            value = self.values(mixed[None])[0] if kept else alone[index]
            if value <= best:
                kept, best = [*kept, int(index)], value
        return np.asarray(each[kept].mean(axis=0))

    def searched(self, algorithm: Algorithm | None, evaluations: int, seed: int) -> NDArray[np.float64]:
        """The winner of a search."""
        # One at a time, nevergrad and the paper's loop learn from every value before the next candidate.
        one = isinstance(algorithm, Nevergrad | DescribedLoop)
        result = search(self.objective, algorithm, budget=evaluations, seed=seed, batch_size=1 if one else None)
        if result.row is None:
            raise RuntimeError(f"no candidate of {algorithm!r} succeeded")
        return np.asarray(result.row)

    def best_of(self, folders: Iterable[Path]) -> Any:
        """The best of saved models on the SEARCH noises."""
        return min(map(_loaded, folders), key=self.value)


def _loaded(folder: Path) -> Any:
    return UNet2DModel.from_pretrained(folder).eval()


def _rows(preset: Preset, kind: Kind, seed: int) -> dict[str, Scored]:
    """All rows of one training run."""
    with threads(1):  # also where another process runs beside this one
        trial, budget = _Trial(preset, kind, seed), preset.evaluations[kind]
        stopped, ended = trial.run.recipe.window[1], trial.run.recipe.steps
        rows = {LAST: trial.scored(trial.space.last)}
        for rate in EMA_RATES:
            rows[f"online EMA {rate}"] = trial.scored(lambda rate=rate: _loaded(trial.run.ema(rate, stopped)))  # type: ignore[misc]
        rows[EMA_STAR] = trial.scored(trial.best_ema)
        rows["average of all (SWA)"] = trial.scored(trial.space.average)
        rows["greedy soup"] = trial.scored(trial.greedy_soup)
        for name, algorithm in METHODS.items():
            rows[name] = trial.scored(lambda chosen=algorithm: trial.searched(chosen, budget, seed))  # type: ignore[misc]
        rows[FULL_LAST] = trial.scored(lambda: _loaded(trial.run.last))
        rows[FULL_EMA] = trial.scored(lambda: trial.best_of(trial.run.ema(rate, ended) for rate in EMA_RATES))
        if kind == "diffusion":
            for steps in preset.finer:
                other = _Trial(preset, kind, seed, steps)
                rows[f"{EMA_STAR}, {steps} steps"] = other.scored(other.best_ema)
    return rows


def _claim(table: Table, kind: Kind, results: Results, preset: Preset) -> None:
    """Everything said of one task, in both feature spaces."""
    task = TASKS[kind]
    for metric, where in (("holdout", "on held-out noises"), ("other_features", "by features never searched on")):
        _claim_better(table, results, task, EMA_STAR, metric, f"ours is below the best EMA (EMA*) {where}")
        for rival in METHODS:
            if rival != OURS:
                said = f"ours is below {rival} at equal evaluations {where}"
                _claim_better(table, results, task, rival, metric, said)
        for rival, name in ((FULL_LAST, "last weights"), (FULL_EMA, "best online EMA")):
            said = f"ours at a quarter of the training is below the full run's {name} {where}"
            _claim_better(table, results, task, rival, metric, said)
        if kind == "diffusion":
            _claim_steps(table, results, task, metric, where, preset.finer)
    ours, ema = results[task, OURS], results[task, EMA_STAR]
    gained = [theirs.search / own.search for own, theirs in zip(ours, ema, strict=True)]
    table.claim(
        f"{task}: on the noises it searches on, ours is at most the best EMA in every run",
        value=min(gained), bound=1.0, n=len(gained), holds=min(gained) >= 1,
        test="least ratio of distances, EMA* to ours",
    )  # fmt: skip


def _claim_steps(
    table: Table, results: Results, task: str, metric: str, where: str, finer: Sequence[int]
) -> None:
    """Use case b of the paper: fewer steps. The claims are for 6 and 8; further ones are only looked at."""
    held = [
        steps for steps in finer
        if (_ratio(results, task, f"{EMA_STAR}, {steps} steps", metric)[1] or 0.0) >= 1.0
    ]  # fmt: skip
    for steps in finer:
        if steps in (6, 8):
            most = f"; the most steps that it holds for is {max(held)}" if held else "; it holds for no more steps"
            said = f"ours with {STEPS} steps is at most the best EMA with {steps} steps {where}{most}"
            _claim_better(table, results, task, f"{EMA_STAR}, {steps} steps", metric, said, strict=False)


def _claim_better(
    table: Table, results: Results, task: str, rival: str, metric: str, said: str, *, strict: bool = True
) -> None:
    value, low = _ratio(results, task, rival, metric)
    table.claim(
        f"{task}: {said}", value=value, bound=1.0, interval=None if low is None else (low, None),
        n=len(results[task, OURS]),
        test="theirs over ours, geometric mean; "
        + ("a single training run proves nothing" if low is None else "paired t of logarithms, one-sided 95 %"),
        preset="paper", holds=low is not None and (low > 1.0 if strict else low >= 1.0),
    )  # fmt: skip


def _ratio(results: Results, task: str, rival: str, metric: str) -> tuple[float, float | None]:
    """Geometric mean of the rival's distance over ours, and its lower bound; no bound for a single run."""
    theirs, ours = (
        np.log([getattr(scored, metric) for scored in results[task, method]]) for method in (rival, OURS)
    )
    gained = theirs - ours
    low = float(np.exp(paired_lower_bound(gained))) if len(gained) > 1 else None
    return float(np.exp(gained.mean())), low


def _run_full(table: Table, arguments: argparse.Namespace) -> Table:
    """Checkpoints of one's own pipeline, without conditions; for prompts write the call in docs."""
    from diffusers import DiffusionPipeline

    if not (arguments.pipeline and arguments.checkpoints and arguments.reference):
        raise SystemExit("--preset full needs --pipeline FOLDER, --checkpoints GLOB and --reference NPZ")
    paths = sorted(glob.glob(arguments.checkpoints))
    pipe = DiffusionPipeline.from_pretrained(arguments.pipeline)
    with np.load(arguments.reference, allow_pickle=False) as data:
        reference = torch.from_numpy(data["images"]).permute(0, 3, 1, 2) / 255
    judge = GeneratedImages(
        PipelineSampler(pipe, batch=arguments.batch, num_inference_steps=arguments.steps),
        FrechetDistance(_clip_features(arguments.features), reference, batch=arguments.batch),
        NoiseCases(search=arguments.noises, holdout=2 * arguments.noises),
    )
    for seed in range(arguments.seeds):
        objective = CheckpointCombination.from_checkpoints(pipe, paths, judge)
        result = search(objective, budget=arguments.budget, seed=seed)
        for row in _compared(result):
            table.add("own checkpoints", row.name, holdout=row.value, difference=row.difference)
        result.best.save_pretrained(arguments.out / f"combined-{seed}")
    return table


def _compared(result: Any) -> Iterator[Any]:
    if result.holdout is None:
        raise RuntimeError("the winner failed on the held-out noises")
    yield from result.holdout.rows


def _clip_features(name: str) -> Callable[[Tensor], Tensor]:
    """Embeddings of a CLIP vision model for images in [0, 1]."""
    from transformers import CLIPVisionModelWithProjection

    model = CLIPVisionModelWithProjection.from_pretrained(name).eval()
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    spread = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]

    def features(images: Tensor) -> Tensor:
        size = (model.config.image_size,) * 2
        resized = torch.nn.functional.interpolate(images.float(), size, mode="bicubic", antialias=True).clamp(0, 1)
        color = resized.expand(-1, 3, -1, -1)
        return model((color - mean) / spread).image_embeds  # type: ignore[no-any-return]

    return features
