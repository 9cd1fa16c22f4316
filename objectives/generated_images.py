"""Judging whatever generates images: cases are noises, observations are what an image score makes of their images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from searchlib.arguments import whole_number
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings
from searchlib.objectives.image_scores import ImageScore
from searchlib.objectives.noise_cases import NoiseCases, generators, noises

__all__ = ["GeneratedImages", "PipelineSampler"]

Sampler = Callable[[Any, Tensor, Sequence[Any]], Tensor]


@final
class PipelineSampler:
    """Samples with a diffusers pipeline, every image from a generator of its own.

    Arguments:
        pipe: any pipeline whose call takes ``generator`` and returns ``images`` (an attribute that nearly all have).
        batch: images per call.
        prompt: the name of the argument that conditions go to (``"prompt"``, ``"class_labels"``); None where they are
            ignored. By default ``"prompt"`` where there are conditions.
        settings: further arguments of every call: ``num_inference_steps``, ``guidance_scale``, …

    Example:
        >>> from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
        >>> unet = UNet2DModel(sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4,
        ...                    down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",))
        >>> pipe = DDIMPipeline(unet, DDIMScheduler())
        >>> sample = PipelineSampler(pipe, batch=2, num_inference_steps=2)
        >>> sample.draw(NoiseCases(search=3, holdout=0).of(Split.SEARCH)).shape
        torch.Size([3, 1, 8, 8])
    """

    def __init__(self, pipe: Any, *, batch: int = 64, prompt: str | None = "prompt", **settings: Any) -> None:
        self.pipe, self.batch, self.prompt, self.settings = pipe, whole_number("batch", batch, 1), prompt, settings

    def draw(self, cases: Cases) -> Tensor:
        """The images of the cases in [0, 1], shape ``(images, channels, height, width)``, on the CPU."""
        drawn = generators(cases)
        conditions = _conditions(cases)
        told = self.prompt if any(condition is not None for condition in conditions) else None
        quiet = getattr(self.pipe, "_progress_bar_config", {})
        self.pipe.set_progress_bar_config(disable=True)
        try:
            parts = [
                self._call(drawn[start : start + self.batch], conditions[start : start + self.batch], told)
                for start in range(0, len(drawn), self.batch)
            ]
        finally:
            self.pipe.set_progress_bar_config(**quiet)
        return torch.cat(parts)

    def _call(self, drawn: list[torch.Generator], conditions: list[Any], told: str | None) -> Tensor:
        # Pipelines of text take one image per prompt, the others a batch size.
        size = {told: conditions} if told else {"batch_size": len(drawn)}
        with torch.inference_mode():
            made = self.pipe(**size, generator=drawn, output_type="np", **self.settings).images
        return torch.from_numpy(np.asarray(made)).permute(0, 3, 1, 2)


@final
class GeneratedImages:
    """What a generative model is worth: it makes an image of every noise, and a score says how good they are.

    Arguments:
        sample: a function of (model, noise, conditions) that returns one image per noise; or a
            :class:`PipelineSampler`, whose pipeline holds the model.
        score: what the images are worth: :class:`~searchlib.objectives.image_scores.FrechetDistance` and others.
        noises: how many noises of each split.
        shape: of one noise, for a function; a pipeline knows its own, but a score that compares noise by noise asks for
            it.
        batch: images per call of the function. On a CPU 256 small images; where memory is short, fewer.

    Raises:
        InvalidSettings: a function without a shape.
    """

    def __init__(
        self,
        sample: Sampler | PipelineSampler,
        score: ImageScore,
        noises: NoiseCases,
        *,
        shape: Sequence[int] | None = None,
        batch: int = 256,
    ) -> None:
        if not isinstance(score, ImageScore):
            raise InvalidSettings(f"score must be an ImageScore such as FrechetDistance(…), but is {score!r}")
        if not isinstance(noises, NoiseCases):
            raise InvalidSettings(f"noises must be NoiseCases(search=…, holdout=…), but is {noises!r}")
        if shape is None and not isinstance(sample, PipelineSampler):
            raise InvalidSettings("sample is a function: shape= must say the shape of one noise, such as (3, 32, 32)")
        self.sample, self.score, self.noises = sample, score, noises
        self.shape = None if shape is None else tuple(shape)
        self.batch = whole_number("batch", batch, 1)

    @property
    def direction(self) -> str:
        """That of the score."""
        return self.score.direction

    @property
    def additive(self) -> bool:
        """Whether the value is the mean over cases."""
        return self.score.additive or self.noises.images_per_case > 1

    @property
    def differentiable(self) -> bool:
        """Whether :meth:`slope` is known: that of the score, of features that are kept."""
        return self.score.differentiable and self.noises.images_per_case == 1

    def slope(self, scores: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.floating[Any]]]:
        """The value of one table of observations ``(c, k)`` and its derivative."""
        return self.score.slope(scores)

    def cases(self, split: Split) -> Cases:
        """The noises of a split."""
        return self.noises.of(split)

    def observe(self, model: Any, cases: Cases) -> NDArray[np.float64]:
        """Sample from the model, and observe: shape ``(c, k)``."""
        if isinstance(self.sample, PipelineSampler):
            noise = None if self.shape is None else self.noise(cases)  # a pipeline draws the same
            return self.observed(self.sample.draw(cases), noise, cases)
        noise, conditions = self.noise(cases), _conditions(cases)
        with torch.inference_mode():
            images = torch.cat([
                self.sample(model, part, conditions[start : start + self.batch])
                for start, part in zip(range(0, len(noise), self.batch), noise.split(self.batch), strict=True)
            ])  # fmt: skip
        return self.observed(images, noise, cases)

    def noise(self, cases: Cases) -> Tensor:
        """The noise of every image of the cases."""
        if self.shape is None:
            raise InvalidSettings("a pipeline draws its own noise; pass shape= to have it here")
        return noises(cases, self.shape)

    def observed(self, images: Tensor, noise: Tensor | None, cases: Cases) -> NDArray[np.float64]:
        """What the score makes of images that were generated for the cases, shape ``(c, k)``."""
        observations = self.score.observe(images, noise, _conditions(cases))
        each = self.noises.images_per_case
        if each == 1:
            return observations
        return self.score.aggregate(observations.reshape(len(cases), each, -1))[:, None]

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Observations ``(n, c, k)`` to values ``(n, 1)``."""
        if self.noises.images_per_case > 1:
            return np.asarray(scores.reshape(*scores.shape[:2], -1).mean(axis=1))
        return self.score.aggregate(scores.reshape(*scores.shape[:2], -1))[:, None]

    def fingerprint(self) -> Mapping[str, Any]:
        """What makes values comparable: the score, and the noises."""
        conditions = hashlib.blake2b(repr(self.noises.conditions).encode(), digest_size=8).hexdigest()
        return {
            **self.score.fingerprint(),
            **_described(self.sample),
            "noises": [self.noises.search, self.noises.select, self.noises.holdout, self.noises.images_per_case],
            "noise_seed": self.noises.seed,
            "conditions": conditions,
        }


def _described(sample: Sampler | PipelineSampler) -> dict[str, Any]:
    """What says how images are made, as far as that is the same in every process."""
    if not isinstance(sample, PipelineSampler):
        return {"sampler": getattr(sample, "__qualname__", type(sample).__name__)}
    plain = {name: value for name, value in sample.settings.items() if isinstance(value, str | int | float | None)}
    return {"sampler": type(sample.pipe).__name__, "settings": dict(sorted(plain.items()))}


def _conditions(cases: Cases) -> list[Any]:
    """The condition of every image."""
    return [case.condition for case in cases.payload or () for _ in case.seeds]
