"""Small diffusion transformers, trained here from scratch: a DiT of 8 × 8 digits, and a Latte of moving shapes.

Real diffusers classes, ``DiTTransformer2DModel`` (0.65 million parameters, class-conditional by adaptive norms) and
``LatteTransformer3DModel`` (spatial and temporal blocks; the condition is two tokens that cross-attention reads), with
noise prediction on the cosine schedule, saved and loaded as diffusers folders. Videos are generated: a ring or a cross
of any brightness enters from one of the four sides and crosses 8 frames of 8 × 8 pixels, one pixel per frame.

The weights are a function of the recipe, the library versions and the kind of processor. Trained once, on one thread,
and cached below ``$XDG_CACHE_HOME/searchlib``. Run ``python -m benchmarks.small_transformers`` to train them all.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, final

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiTTransformer2DModel, LatteTransformer3DModel
from torch import Tensor

from benchmarks.model_cache import is_complete, store, user_cache
from benchmarks.small_diffusion import digits
from benchmarks.speed_clock import threads

__all__ = ["SHAPES", "Kind", "Recipe", "conditions", "frame_changes", "loaded", "log_probabilities", "sample", "videos"]

Kind = Literal["digits", "video"]
#: Of one noise.
SHAPES: dict[Kind, tuple[int, ...]] = {"digits": (1, 8, 8), "video": (1, 8, 8, 8)}
#: Evaluations of the network per image.
STEPS = 5
#: Share of every judge's probability that is spread over all classes: log-probabilities are bounded below.
SMOOTHING = 0.05
#: Directions (rows, columns) that shapes move in; a video's class is 2 · direction + shape.
MOVES = ((0, 1), (0, -1), (1, 0), (-1, 0))


@final
@dataclass(frozen=True)
class Recipe:
    """One training run; Adam, whose rate falls linearly to 0."""

    kind: Kind
    seed: int
    steps: int
    batch: int
    rate: float = 2e-3

    @classmethod
    def usual(cls, kind: Kind, seed: int) -> Recipe:
        """About a minute of one core."""
        return cls(kind, seed, *((800, 96) if kind == "digits" else (600, 48)))

    def key(self) -> str:
        """What the weights are a function of."""
        versions = {name: importlib.metadata.version(name) for name in ("torch", "diffusers", "scikit-learn")}
        told = json.dumps([asdict(self), versions, platform.machine(), 1], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:20]


def loaded(recipe: Recipe, cache: str | os.PathLike[str] | None = None) -> Any:
    """The model of this recipe: from the cache, or trained now."""
    folder = (user_cache() if cache is None else Path(cache)) / f"small-{recipe.kind}-transformer-{recipe.key()}"
    if not is_complete(folder):
        store(folder, lambda fresh: _train(recipe, fresh))
    kind: Any = DiTTransformer2DModel if recipe.kind == "digits" else LatteTransformer3DModel
    return kind.from_pretrained(folder).eval().requires_grad_(False)


def conditions(kind: Kind) -> tuple[int, ...]:
    """All classes."""
    return tuple(range(10 if kind == "digits" else 2 * len(MOVES)))


def new_model(kind: Kind) -> Any:
    """The network, with random weights."""
    size: dict[str, Any] = {"num_attention_heads": 4, "attention_head_dim": 16, "in_channels": 1, "out_channels": 1}
    if kind == "digits":
        return DiTTransformer2DModel(**size, num_layers=4, sample_size=8, patch_size=2, num_embeds_ada_norm=1000)
    return LatteTransformer3DModel(
        **size, num_layers=2, sample_size=8, patch_size=4, video_length=8, cross_attention_dim=64, caption_channels=8,
        norm_type="ada_norm_single", norm_elementwise_affine=False, attention_bias=True,
    )  # fmt: skip


def predicted(model: Any, noisy: Tensor, times: Tensor, labels: Tensor) -> Tensor:
    """The noise that a model of either kind sees."""
    if noisy.ndim == 4:
        return model(noisy, timestep=times, class_labels=labels).sample  # type: ignore[no-any-return]
    direction, shape = torch.eye(8)[labels // 2], torch.eye(8)[4 + labels % 2]
    told = torch.stack([direction, shape], dim=1)
    return model(noisy, timestep=times, encoder_hidden_states=told).sample  # type: ignore[no-any-return]


def sample(model: Any, noise: Tensor, labels: Sequence[int]) -> Tensor:
    """Images or videos in [-1, 1], by DDIM."""
    scheduler: Any = DDIMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", clip_sample=True)
    scheduler.set_timesteps(STEPS)
    x, told = noise, torch.tensor(list(labels))
    for time_ in scheduler.timesteps:
        x = scheduler.step(predicted(model, x, time_.expand(len(x)), told), time_, x).prev_sample
    return x.clamp(-1, 1)


@lru_cache(maxsize=1)
def videos() -> tuple[Tensor, Tensor]:
    """All videos of full brightness, shape ``(64, 1, 8, 8, 8)`` (frames first), and their classes."""
    ring, cross = -torch.ones(2, 8, 8)
    ring[:3, :3], ring[1, 1] = 1.0, -1.0
    cross[1, :3] = cross[:3, 1] = 1.0
    made, classes = [], []
    for move, (down, right) in enumerate(MOVES):
        for shape, still in enumerate((ring, cross)):
            for beside in range(8):
                first = still.roll((beside * abs(right), beside * abs(down)), (0, 1))
                made.append(torch.stack([first.roll((down * t, right * t), (0, 1)) for t in range(8)]))
                classes.append(2 * move + shape)
    return torch.stack(made)[:, None], torch.tensor(classes)


def log_probabilities(kind: Kind) -> Callable[[Tensor], Tensor]:
    """The judge of alignment: log-probabilities ``(n, classes)`` of what images show, bounded below (SMOOTHING).

    Digits: a logistic regression of the data's pixels. Videos: how well each of the 64 possible ones fits, summed over
    those of a class.
    """
    count = len(conditions(kind))
    probabilities = _digit_probabilities() if kind == "digits" else _video_probabilities
    return lambda images: ((1 - SMOOTHING) * probabilities(images) + SMOOTHING / count).log()


@lru_cache(maxsize=1)
def _digit_probabilities() -> Callable[[Tensor], Tensor]:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    regression = LogisticRegression(C=0.1, max_iter=2000).fit(digits().reshape(-1, 64), load_digits().target)
    weight, bias = torch.tensor(regression.coef_).double(), torch.tensor(regression.intercept_).double()
    return lambda images: (images.flatten(1).double() @ weight.T + bias).softmax(dim=1)


def _video_probabilities(images: Tensor) -> Tensor:
    known, classes = videos()
    centered = known.flatten(1) - known.mean()
    fit = images.flatten(1) @ (centered / centered.norm(dim=1, keepdim=True)).T
    each = fit.double().softmax(dim=1)
    return torch.zeros(len(images), len(conditions("video")), dtype=torch.float64).index_add_(1, classes, each)


def frame_changes(images: Tensor) -> Tensor:
    """Differences between neighboring frames, ``(n, k)``."""
    return images.diff(dim=2).flatten(1)


def _data(recipe: Recipe) -> Callable[[torch.Generator], tuple[Tensor, Tensor]]:
    """A function that draws a batch."""
    if recipe.kind == "digits":
        from sklearn.datasets import load_digits

        images, labels = torch.from_numpy(digits()), torch.from_numpy(load_digits().target.astype(np.int64))
    else:
        images, labels = videos()

    def draw(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(images), (recipe.batch,), generator=generator)
        batch = images[rows]
        if recipe.kind == "video":
            bright = 0.5 + 0.5 * torch.rand((len(batch), 1, 1, 1, 1), generator=generator)
            batch = (batch + 1) * bright - 1
        return batch, labels[rows]

    return draw


def _train(recipe: Recipe, folder: Path) -> None:
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="epsilon")
    draw, generator = _data(recipe), torch.Generator().manual_seed(recipe.seed)
    with threads(1), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model = new_model(recipe.kind).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=recipe.rate)
        falling = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / 50) * max(0.0, 1 - step / recipe.steps)
        )  # fmt: skip
        for step in range(1, recipe.steps + 1):
            images, labels = draw(generator)
            noise = torch.randn(images.shape, generator=generator)
            times = torch.randint(1000, (len(images),), generator=generator)
            loss = (predicted(model, scheduler.add_noise(images, noise, times), times, labels) - noise).square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            falling.step()
            if step % 100 == 0 and sys.stderr.isatty():
                print(f"\rtraining the {recipe.kind} model: step {step}", end="", file=sys.stderr, flush=True)
        model.save_pretrained(folder)


def _main() -> None:
    kinds: tuple[Kind, ...] = ("digits", "video")
    for seed in range(3):
        for kind in kinds:
            judge, labels = log_probabilities(kind), conditions(kind) * 20
            used = time.process_time()
            model = loaded(Recipe.usual(kind, seed))
            used = time.process_time() - used
            noise = torch.randn((len(labels), *SHAPES[kind]), generator=torch.Generator().manual_seed(1))
            with torch.inference_mode():
                images = sample(model, noise, labels)
            loss = -float(judge(images)[torch.arange(len(images)), torch.tensor(labels)].mean())
            print(f"{kind} {seed}: class NLL {loss:.3f} ({used:.1f} s of processor)", flush=True)


if __name__ == "__main__":
    _main()
