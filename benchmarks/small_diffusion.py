"""Small diffusion and consistency models of 8 × 8 digits, trained here from scratch, with all their checkpoints.

A real diffusers ``UNet2DModel`` (160 thousand parameters) on scikit-learn's 1797 digits, saved and loaded as diffusers
folders. A :class:`Recipe` is one training run:

* ``"diffusion"``: noise prediction (DDPM) on the cosine or the linear schedule, Adam at a constant or a falling rate.
* ``"consistency"``: consistency training (Song et al. 2023, arXiv 2303.01469, Algorithm 3, with the teacher, the
  pseudo-Huber loss, the noise levels and the weights of arXiv 2310.14189); the parameterization is that of
  ``CMStochasticIterativeScheduler``, so diffusers samples from it in one step.

A run keeps a checkpoint every 50 steps of its window, exponential averages at four rates, as an online EMA would give
them, at the end of the window and at the end of the run, and the last weights.

The weights are a function of the recipe, the library versions and the kind of processor, which decides how sums are
rounded. Trained once, on one thread, and cached below ``$XDG_CACHE_HOME/searchlib``.

Run ``python -m benchmarks.small_diffusion [KIND [SEED]]`` to train them and print what they can do.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import math
import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from diffusers import CMStochasticIterativeScheduler, DDPMScheduler, UNet2DModel
from torch import Tensor

from benchmarks.model_cache import is_complete, store, user_cache
from benchmarks.speed_clock import threads
from searchlib.errors import InvalidSettings

__all__ = ["EMA_RATES", "DigitFeatures", "Recipe", "Run", "digits", "feature_net", "noise_scheduler", "trained"]

#: Rates of the online exponential averages, per training step.
EMA_RATES = (0.99, 0.995, 0.998, 0.999)

Kind = Literal["diffusion", "consistency"]
#: Diffusers' names of noise schedules.
Betas = Literal["squaredcos_cap_v2", "linear"]


@final
@dataclass(frozen=True)
class Recipe:
    """One training run.

    Arguments:
        kind: what is trained.
        seed: of initial weights, batches and noises.
        steps: training steps in all.
        window: (first, last) step of the checkpoints that are kept; they end before the run does.
        interval: steps between checkpoints.
        batch: images per step.
        rate: Adam's; the highest, where it falls.
        betas: noise schedule of a diffusion model.
        annealed: whether the rate rises over 200 steps and then falls to zero along a cosine (the window does not
            notice where training ends then, so its weights are not those of a shorter run).
    """

    kind: Kind = "diffusion"
    seed: int = 0
    steps: int = 12_000
    window: tuple[int, int] = (1_000, 3_000)
    interval: int = 50
    batch: int = 64
    rate: float = 1e-3
    betas: Betas = "squaredcos_cap_v2"
    annealed: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("diffusion", "consistency"):
            raise InvalidSettings(f"kind must be 'diffusion' or 'consistency', but is {self.kind!r}")
        if self.betas not in ("squaredcos_cap_v2", "linear"):
            raise InvalidSettings(f"betas must be 'squaredcos_cap_v2' or 'linear', but is {self.betas!r}")
        if not 0 < self.window[0] <= self.window[1] <= self.steps:
            raise InvalidSettings(f"window must lie in 1..{self.steps}, but is {self.window}")

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """The steps after which weights are kept."""
        return tuple(range(self.window[0], self.window[1] + 1, self.interval))

    def rate_at(self, step: int) -> float:
        """Adam's rate at a training step, counted from 1."""
        if not self.annealed:
            return self.rate
        return self.rate * min(1, step / 200) * (1 + math.cos(math.pi * step / self.steps)) / 2

    def key(self) -> str:
        """What the weights are a function of."""
        versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "scikit-learn")}
        told = json.dumps([asdict(self), versions, platform.machine(), 1], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:20]


@final
@dataclass(frozen=True)
class Run:
    """Where the weights of a training run are: diffusers folders below ``folder``."""

    recipe: Recipe
    folder: Path

    @property
    def checkpoints(self) -> list[Path]:
        """The checkpoints of the window, oldest first."""
        return [self.folder / f"step-{step:05}" for step in self.recipe.checkpoints]

    def ema(self, rate: float, step: int) -> Path:
        """The online average at one of :data:`EMA_RATES`, at the end of the window or of the run."""
        return self.folder / f"ema-{rate}-step-{step:05}"

    @property
    def last(self) -> Path:
        """The weights at the end of the whole run."""
        return self.folder / f"step-{self.recipe.steps:05}"


def digits() -> np.ndarray[Any, np.dtype[np.float32]]:
    """All 1797 images in [-1, 1], shape ``(1797, 1, 8, 8)``."""
    from sklearn.datasets import load_digits

    images = load_digits().images.astype(np.float32) / 8 - 1
    return images[:, None]


def noise_scheduler(betas: Betas = "squaredcos_cap_v2") -> DDPMScheduler:
    """The noise that the diffusion models have learned to predict."""
    return DDPMScheduler(num_train_timesteps=1000, beta_schedule=betas, prediction_type="epsilon")


def trained(recipe: Recipe, cache: str | os.PathLike[str] | None = None) -> Run:
    """The run of this recipe: from the cache, or trained now."""
    folder = (user_cache() if cache is None else Path(cache)) / f"small-{recipe.kind}-{recipe.key()}"
    if not is_complete(folder):
        store(folder, lambda fresh: _train(recipe, Run(recipe, fresh)))
    return Run(recipe, folder)


def new_model() -> UNet2DModel:
    """The network, with random weights."""
    return UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )


def _train(recipe: Recipe, run: Run) -> None:
    loss = {"diffusion": _DiffusionLoss, "consistency": _ConsistencyLoss}[recipe.kind](recipe)
    images = torch.from_numpy(digits())
    generator = torch.Generator().manual_seed(recipe.seed)
    with threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = new_model().train()
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate)
        parameters = list(model.parameters())
        averages = {rate: [parameter.detach().clone() for parameter in parameters] for rate in EMA_RATES}
        for step in range(1, recipe.steps + 1):
            batch = images[torch.randint(len(images), (recipe.batch,), generator=generator)]
            for group in optimizer.param_groups:
                group["lr"] = recipe.rate_at(step)
            optimizer.zero_grad()
            loss(model, batch, step, generator).backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            with torch.no_grad():
                for rate, average in averages.items():
                    # A young average would remember the random start: the usual warm-up.
                    torch._foreach_lerp_(average, parameters, 1 - min(rate, (1 + step) / (10 + step)))
            if step in recipe.checkpoints or step == recipe.steps:
                model.save_pretrained(run.folder / f"step-{step:05}")
            if step in (recipe.window[1], recipe.steps):
                _save_averages(averages, run, step)
            if step % 100 == 0 and sys.stderr.isatty():
                print(f"\rtraining the {recipe.kind} model: step {step}", end="", file=sys.stderr, flush=True)


def _save_averages(averages: Mapping[float, list[Tensor]], run: Run, step: int) -> None:
    twin = new_model()
    for rate, average in averages.items():
        with torch.no_grad():
            for parameter, value in zip(twin.parameters(), average, strict=True):
                parameter.copy_(value)
        twin.save_pretrained(run.ema(rate, step))


class _DiffusionLoss:
    """The mean squared error of the predicted noise."""

    def __init__(self, recipe: Recipe) -> None:
        self._scheduler = noise_scheduler(recipe.betas)

    def __call__(self, model: Any, images: Tensor, step: int, generator: torch.Generator) -> Tensor:
        del step
        noise = torch.randn(images.shape, generator=generator)
        times = torch.randint(1000, (len(images),), generator=generator)
        noisy = self._scheduler.add_noise(images, noise, times)
        return (model(noisy, times).sample - noise).square().mean()


class _ConsistencyLoss:
    """The distance of denoised images at two neighboring noise levels; the teacher is the model itself.

    The number of levels doubles from 10 to 80 until the window of checkpoints begins (arXiv 2310.14189, section 3.4),
    and stays: all checkpoints have the same objective.
    """

    _FIRST, _LAST = 10, 80
    _MEAN, _SPREAD = -1.1, 2.0  # of log σ, section 3.5

    def __init__(self, recipe: Recipe) -> None:
        self._scheduler = CMStochasticIterativeScheduler()
        stages = int(math.log2(self._LAST / self._FIRST)) + 1
        self._stage_length = max(1, recipe.window[0] // stages)
        self._huber = 0.00054 * math.sqrt(64)  # section 3.3: 0.00054 √d

    def __call__(self, model: Any, images: Tensor, step: int, generator: torch.Generator) -> Tensor:
        levels = min(self._FIRST * 2 ** ((step - 1) // self._stage_length), self._LAST)
        config = self._scheduler.config
        ramp = torch.linspace(0, 1, levels + 1, dtype=torch.float64)
        low, high = config.sigma_min ** (1 / config.rho), config.sigma_max ** (1 / config.rho)
        sigmas = (low + ramp * (high - low)) ** config.rho
        edges = torch.erf((sigmas.log() - self._MEAN) / (math.sqrt(2) * self._SPREAD))
        chosen = torch.multinomial(edges.diff(), len(images), replacement=True, generator=generator)
        below, above = sigmas[chosen].float(), sigmas[chosen + 1].float()
        noise = torch.randn(images.shape, generator=generator)
        student = denoised(model, images + above[:, None, None, None] * noise, above, self._scheduler)
        with torch.no_grad():
            teacher = denoised(model, images + below[:, None, None, None] * noise, below, self._scheduler)
        distance = (student - teacher).square().sum(dim=(1, 2, 3))
        return ((torch.sqrt(distance + self._huber**2) - self._huber) / (above - below)).mean()


def denoised(model: Any, noisy: Tensor, sigma: Tensor, scheduler: CMStochasticIterativeScheduler) -> Tensor:
    """What a consistency model makes of noisy images ``(n, …)`` at noise levels ``(n,)``."""
    skip, out = scheduler.get_scalings_for_boundary_condition(sigma[:, None, None, None])
    scaled = noisy / torch.sqrt(sigma**2 + scheduler.config.sigma_data**2)[:, None, None, None]
    times = 1000 * 0.25 * torch.log(sigma + 1e-44)  # the scheduler's own embedding of sigma
    return out * model(scaled, times).sample + skip * noisy


@final
class DigitFeatures(torch.nn.Module):
    """A small classifier of digits; what a Fréchet distance compares are its 32 features before the last ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(1, 16, 3, padding=1), torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 3, padding=1, stride=2), torch.nn.ReLU(),
            torch.nn.Flatten(), torch.nn.Linear(512, 32),
        )  # fmt: skip
        self.head = torch.nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(n, 32)`` of images ``(n, 1, 8, 8)``."""
        return self.body(images)  # type: ignore[no-any-return]


@lru_cache(maxsize=4)
def feature_net(seed: int = 0) -> DigitFeatures:
    """A classifier trained from this seed, in about five seconds; another seed is an independent judge."""
    from sklearn.datasets import load_digits

    images, labels = torch.from_numpy(digits()), torch.from_numpy(load_digits().target.astype(np.int64))
    with threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 + seed)
        net = DigitFeatures()
        optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(15):
            for rows in torch.randperm(len(images), generator=generator).split(64):
                loss = torch.nn.functional.cross_entropy(net.head(net(images[rows]).relu()), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return net.eval().requires_grad_(False)


def _main(arguments: list[str]) -> None:
    kinds: tuple[Any, ...] = (arguments[0],) if arguments else ("diffusion", "consistency")
    seeds = [int(arguments[1])] if len(arguments) > 1 else [0, 1, 2]
    for kind in kinds:
        for seed in seeds:
            start, used = time.perf_counter(), time.process_time()
            run = trained(Recipe(kind, seed))
            seconds, cpu = time.perf_counter() - start, time.process_time() - used
            print(f"{kind} {seed}: {len(run.checkpoints)} checkpoints after {seconds:.1f} s ({cpu:.1f} s of processor)")


if __name__ == "__main__":
    _main(sys.argv[1:])
