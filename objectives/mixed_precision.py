"""How many bits every layer of a diffusion model needs.

*ViDiT-Q: Efficient and Accurate Quantization of Diffusion Transformers for Image and Video Generation*, Zhao et al.,
ICLR 2025, arXiv 2406.02540, https://github.com/thu-nics/ViDiT-Q; and *MixDQ*, Zhao et al., ECCV 2024, arXiv 2405.17873,
https://github.com/A-suozhang/MixDQ.

Reproduced: quantizers (weights per channel, inputs per token and dynamic), static-dynamic channel balancing, ranges of
timesteps, metric decoupling (:mod:`searchlib.objectives.metric_decoupling`), and allocation by integer programming as
MixDQ does it (``measure_profile``, ``ExactAllocation``). Where the released code differs is said in
:mod:`~searchlib.objectives.fake_quantize`, :mod:`~searchlib.objectives.fake_quantization` and
:mod:`~searchlib.objectives.channel_balancing`; its sensitivities of weights are noise (10 prompts, one seed: 4 bits
"better" than 8 in half of the cells), so profiles here are paired on the same noises and have standard errors. Not
reproduced: the CUDA kernels, the treatment of the first token of a prompt (MixDQ), and the prompts.

At full scale::

    pipe = PixArtSigmaPipeline.from_pretrained("PixArt-alpha/PixArt-Sigma-XL-2-512-MS", torch_dtype=torch.float16)
    objective = MixedPrecision(
        None, PipelineSampler(pipe.to("cuda"), num_inference_steps=20),
        NoiseCases(search=32, select=32, holdout=64, conditions=prompts), shape=(4, 64, 64),
        metrics={"quality": PairedError, "alignment": ImageReward(clip_score)},
        weight=(4, 6, 8), activation=(8,), mean_bits=5, balancing=ChannelBalancing(0.99, rotate=True),
    )
    result = search(objective, budget=500)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objective import Direction, Objective
from searchlib.objectives.channel_balancing import ChannelBalancing
from searchlib.objectives.evaluation_mode import evaluating
from searchlib.objectives.generated_images import GeneratedImages, PipelineSampler
from searchlib.objectives.image_scores import ImageScore
from searchlib.objectives.noise_cases import NoiseCase, NoiseCases
from searchlib.objectives.paired_error import PairedError
from searchlib.objectives.quantizable_layers import DIFFUSION_FULL, count_tokens, find_layers, layer_sizes
from searchlib.objectives.quantized_model import QuantizationPlan, QuantizedModel
from searchlib.objectives.timestep_watch import inputs_in_ranges, range_shares
from searchlib.objectives.uniform_plans import uniform_plans
from searchlib.objectives.weight_sample import weight_sample
from searchlib.space import Candidates, Population
from searchlib.spaces import BitPlan, BitWidths
from searchlib.spaces.bit_plan import Option, checked_ranges

__all__ = ["MixedPrecision"]

#: SEARCH cases on which inputs are measured for balancing and static ranges.
CALIBRATION = 16

FULL_PRECISION, BEST_UNIFORM = "full precision", "best uniform"

#: A score, or what makes one of a sampler of the full-precision model (``PairedError`` is such a thing).
Metric = ImageScore | Callable[[Callable[[Tensor, Sequence[Any]], Tensor]], ImageScore]


@final
class MixedPrecision(Objective):
    """What a diffusion model's images lose when its layers have few bits, each its own.

    Every candidate samples from the same noises. A case gives one observation per metric. The model is used as it is,
    and is bit-identical again when the objective is closed.

    Arguments:
        model: a diffusers transformer or UNet, or any module with linear or convolutional layers; a function that
            returns one (which can be sent to workers); or None with a :class:`PipelineSampler`, whose ``transformer``
            or ``unet`` it then is.
        sample: function of (model, noise, conditions) to images, or a PipelineSampler.
        noises: the cases.
        shape: of one noise.
        metrics: image scores by name, or functions that make one of a sampler of the full-precision model: by default
            ``{"quality": PairedError}``, the squared distance to the full-precision model's image of the same noise.
            Scores of whole sets (a Fréchet distance) need ``images_per_case`` of the noises.
        value: which metric counts; several for a front (and for profiles, which have one table per metric); or weights
            by name, for a sum that is minimized (metrics where more is better count negatively). By default all.
        weight, activation: options of each kind, bits or ``"bits@group"``; those left out stay at 16 bits.
        ranges: where ranges of timesteps begin, descending, without the first, in the units of the model's
            ``timestep``: activations may have other bits in each.
        memory, compute, mean_bits: budgets, see :class:`~searchlib.spaces.BitWidths`.
        full: expression of the names of layers that stay in full precision.
        only: options of some layers.
        balancing: how channels are balanced, measured on the first SEARCH noises.
        static: whether activations have one static scale per tensor and range, the papers' baseline.
        symmetric: whether weights have no zero point.
        batch: images per call.
        seeded: whether uniform plans start the first population.

    Raises:
        UnsupportedModel: layers that cannot be quantized.
        InvalidSettings: metrics, budgets or ranges that cannot be meant.

    Example:
        >>> from searchlib import search
        >>> result = search(MixedPrecision.smoke(), budget=20)
        >>> result.best.mean_bits <= 3.3, result.holdout.against("full precision").difference > 0
        (True, True)
    """

    space: BitWidths
    direction: Direction | tuple[Direction, ...] = "minimize"
    chunk_rows = 8

    def __init__(
        self,
        model: nn.Module | Callable[[], nn.Module] | None,
        sample: Callable[[Any, Tensor, Sequence[Any]], Tensor] | PipelineSampler,
        noises: NoiseCases,
        *,
        shape: Sequence[int],
        metrics: Mapping[str, Metric] | None = None,
        value: str | Sequence[str] | Mapping[str, float] | None = None,
        weight: Sequence[Option] = (),
        activation: Sequence[Option] = (),
        ranges: Sequence[float] = (),
        memory: float | None = None,
        compute: float | None = None,
        mean_bits: float | None = None,
        full: str = DIFFUSION_FULL,
        only: Sequence[tuple[str, Sequence[Option]]] = (),
        balancing: ChannelBalancing | None = None,
        static: bool = False,
        symmetric: bool = False,
        batch: int = 256,
        seeded: bool = True,
    ) -> None:
        self._recipe = None if isinstance(model, nn.Module | None) else (
            model, sample, noises, {"shape": tuple(shape), "metrics": metrics, "value": value, "weight": tuple(weight),
            "activation": tuple(activation), "ranges": tuple(ranges), "memory": memory, "compute": compute,
            "mean_bits": mean_bits, "full": full, "only": tuple(only), "balancing": balancing, "static": static,
            "symmetric": symmetric, "batch": batch, "seeded": seeded},
        )  # fmt: skip
        self.model = _module(model, sample)
        self._sample = sample
        self._seeds: dict[bytes, int] = {}
        given = dict(metrics or {"quality": PairedError})
        scores = {name: _score(metric, self._sample_full) for name, metric in given.items()}
        self.judges = {
            name: GeneratedImages(sample, score, noises, shape=shape, batch=batch) for name, score in scores.items()
        }
        self._check_metrics(value)
        self.layers = find_layers(self.model, full)
        self._full, self._symmetric, self._seeded = full, symmetric, seeded
        first = self.cases(Split.SEARCH).take([0])
        with evaluating(self.model):
            shares = range_shares(self.model, self.layers, checked_ranges(ranges), lambda: self._images(first))
            tokens = count_tokens(self.model, self.layers, lambda _: self._images(first))
        self.tensors = tuple(layer_sizes(self.layers, ("weight", "activation"), tokens))
        options: dict[str, Any] = {"weight": weight, "activation": activation, "ranges": ranges, "only": only}
        space = BitWidths(self.tensors, **options, shares=shares)
        self.space = space.within(memory=memory, compute=compute, mean_bits=mean_bits)
        with evaluating(self.model):
            self._calibrated = self._calibrate(balancing, static)
        self.quantized = QuantizedModel(self.model, self.layers, **self._calibrated)
        self._uniform: BitPlan | None = None
        self._undo = ExitStack()
        self._balancing = repr((balancing, static, symmetric))

    @classmethod
    def smoke(cls) -> Self:
        """A tiny random DiT, for conformance tests and examples."""
        noises = NoiseCases(search=6, select=4, holdout=4, conditions=(0, 1, 2))
        return cls(_smoke_model, _smoke_sample, noises, shape=(1, 8, 8), weight=(2, 3, 4, 8), mean_bits=3)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is None:
            raise InvalidSettings(
                "this MixedPrecision holds a model that was given as an object; give a function that returns the "
                "model, so that every worker can load its own"
            )
        return _rebuilt, self._recipe

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names of the metrics, in the order of the observations."""
        return tuple(self.judges)

    def cases(self, split: Split) -> Cases:
        """The noises of a split."""
        return next(iter(self.judges.values())).cases(split)

    def evaluate(self, candidates: Candidates, cases: Cases) -> NDArray[np.float64]:
        """Observations ``(n, c, metrics)``, each in the direction of its metric."""
        return self.observe(list(candidates), cases)

    def observe(self, plans: Sequence[BitPlan], cases: Cases) -> NDArray[np.float64]:
        """Observations ``(n, c, metrics)`` of any plans, also of such that lie in no space."""
        table = np.empty((len(plans), len(cases), len(self.judges)))
        for row, plan in enumerate(plans):
            self.quantized.set(plan)
            images, noise = self._images(cases)
            for column, judge in enumerate(self.judges.values()):
                table[row, :, column] = judge.observed(images, noise, cases)[:, 0]
        self.quantized.set(BitPlan())
        return table

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean of what counts, ``(n, values)``."""
        means = scores.reshape(*scores.shape[:2], -1).mean(axis=1)
        if isinstance(self.value, Mapping):
            signs = {name: 1 if judge.direction == "minimize" else -1 for name, judge in self.judges.items()}
            weights = [signs[name] * self.value.get(name, 0.0) for name in self.judges]
            return np.asarray(means @ np.array(weights)[:, None])
        return np.asarray(means[:, [self.metrics.index(name) for name in self.value]])

    def seeds(self) -> Population:
        """The uniform plans within the budgets that no other one has more bits than."""
        return self.space.encode(uniform_plans(self.space) if self._seeded else [])

    def references(self) -> tuple[str, ...]:
        """The full-precision model, and the uniform plan within the budgets that is best on the SEARCH noises."""
        return (FULL_PRECISION, BEST_UNIFORM) if uniform_plans(self.space) else (FULL_PRECISION,)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Observations ``(c, metrics)`` of a reference."""
        plan = self.best_uniform() if name == BEST_UNIFORM else BitPlan()
        return np.asarray(self.observe([plan], cases)[0])

    def best_uniform(self) -> BitPlan:
        """The uniform plan within the budgets that is best on the SEARCH noises, by what counts first."""
        if self._uniform is None:
            plans = uniform_plans(self.space)
            values = self.aggregate(self.observe(plans, self.cases(Split.SEARCH)))[:, 0]
            first = self.direction if isinstance(self.direction, str) else self.direction[0]
            self._uniform = plans[int(values.argmin() if first == "minimize" else values.argmax())]
        return self._uniform

    def artifact(self, value: Any) -> QuantizationPlan:
        """The winner: bits that can be applied, saved, or exported."""
        return QuantizationPlan(value, self.tensors, self._full, **self._calibrated)

    def cost(self, candidates: Candidates, cases: Cases) -> float:
        """Images."""
        noises = next(iter(self.judges.values())).noises
        return float(len(candidates) * len(cases) * noises.images_per_case)

    def fingerprint(self) -> Mapping[str, Any]:
        """Architecture, a sample of every weight, metrics, noises and how is quantized."""
        return {
            "objective": "MixedPrecision",
            "model": type(self.model).__name__,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "weights": weight_sample(self.model),
            "metrics": {name: dict(judge.fingerprint()) for name, judge in self.judges.items()},
            "value": dict(self.value) if isinstance(self.value, Mapping) else list(self.value),
            "full": self._full,
            "balancing": self._balancing,
        }

    def __enter__(self) -> Self:
        with ExitStack() as opening:
            opening.enter_context(self.quantized)
            opening.enter_context(evaluating(self.model))
            self._undo = opening.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._undo.close()

    def _check_metrics(self, value: str | Sequence[str] | Mapping[str, float] | None) -> None:
        names = self.metrics
        for name, judge in self.judges.items():
            if not judge.additive:
                raise InvalidSettings(
                    f"the metric {name!r} scores sets of images, not each: give every case several, with "
                    f"NoiseCases(…, images_per_case=…)"
                )
        chosen: Any = names if value is None else (value,) if isinstance(value, str) else value
        if not chosen or not set(chosen) <= set(names):
            raise InvalidSettings(f"value must be among the metrics {list(names)}, but is {value!r}")
        self.value: tuple[str, ...] | Mapping[str, float] = (
            dict(chosen) if isinstance(chosen, Mapping) else tuple(chosen)
        )
        if not isinstance(self.value, Mapping):
            directions: Any = tuple(self.judges[name].direction for name in self.value)
            self.direction = directions[0] if len(directions) == 1 else directions

    def _images(self, cases: Cases) -> tuple[Tensor, Tensor]:
        """Images of the cases by the plan in force, and their noise."""
        judge = next(iter(self.judges.values()))
        noise = judge.noise(cases)
        if isinstance(self._sample, PipelineSampler):
            seeds = [seed for case in cases.payload or () for seed in case.seeds]
            self._seeds.update(zip(map(_key, noise), seeds, strict=True))
            return self._sample.draw(cases), noise
        return self._sampled(noise, [case.condition for case in cases.payload or () for _ in case.seeds]), noise

    def _sampled(self, noise: Tensor, conditions: Sequence[Any]) -> Tensor:
        if isinstance(self._sample, PipelineSampler):
            # A pipeline draws its own noise: the seed of each tells it which.
            drawn = [NoiseCase((self._seeds[_key(row)],), told) for row, told in zip(noise, conditions, strict=True)]
            return self._sample.draw(Cases(tuple(range(len(drawn))), drawn))
        size = next(iter(self.judges.values())).batch
        with torch.inference_mode():
            parts = [
                self._sample(self.model, part, conditions[start : start + size])
                for start, part in zip(range(0, len(noise), size), noise.split(size), strict=True)
            ]
        return torch.cat(parts)

    def _sample_full(self, noise: Tensor, conditions: Sequence[Any]) -> Tensor:
        """What the full-precision model makes of noises."""
        plan = self.quantized.layers.plan
        self.quantized.set(BitPlan())
        try:
            return self._sampled(noise, conditions)
        finally:
            self.quantized.set(plan)

    def _calibrate(self, balancing: ChannelBalancing | None, static: bool) -> dict[str, Any]:
        """Settings of the quantization that come from the first SEARCH noises."""
        settings: dict[str, Any] = {"symmetric": self._symmetric}
        if balancing is None and not static:
            return settings
        cases = self.cases(Split.SEARCH)
        some = cases.take(range(min(CALIBRATION, len(cases))))
        measured = inputs_in_ranges(self.model, self.layers, self.space.ranges, lambda: self._images(some))
        if static:
            settings["static"] = measured
        if balancing is not None:
            settings["balances"] = {
                name: balancing.of(layer, measured.largest[name]) for name, layer in self.layers.items()
            }
        return settings


def _key(noise: Tensor) -> bytes:
    return hashlib.blake2b(noise.numpy().tobytes(), digest_size=16).digest()


def _module(model: Any, sample: Any) -> nn.Module:
    if model is None and isinstance(sample, PipelineSampler):
        model = getattr(sample.pipe, "transformer", None) or getattr(sample.pipe, "unet", None)
        if model is None:
            raise UnsupportedModel(f"{type(sample.pipe).__name__} has neither transformer nor unet; pass the model")
    made = model if isinstance(model, nn.Module) else model() if callable(model) else None
    if not isinstance(made, nn.Module):
        raise InvalidSettings(f"model must be a module, or a function that returns one, but is {model!r:.100}")
    return made


def _score(metric: Any, sample_full: Callable[[Tensor, Sequence[Any]], Tensor]) -> ImageScore:
    score = metric if isinstance(metric, ImageScore) else metric(sample_full) if callable(metric) else None
    if not isinstance(score, ImageScore):
        raise InvalidSettings(f"a metric must be an ImageScore, or a function that makes one, but is {metric!r:.100}")
    return score


def _rebuilt(model: Any, sample: Any, noises: Any, settings: dict[str, Any]) -> MixedPrecision:
    return MixedPrecision(model, sample, noises, **settings)


def _smoke_model() -> nn.Module:
    from diffusers import DiTTransformer2DModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=1, out_channels=1, num_layers=2, sample_size=8,
            patch_size=2, num_embeds_ada_norm=1000,
        )  # fmt: skip
        for parameter in model.parameters():
            if parameter.ndim == 1:
                nn.init.normal_(parameter, std=0.3)
        module: nn.Module = model.eval()
        return module


def _smoke_sample(model: Any, noise: Tensor, conditions: Sequence[Any]) -> Tensor:
    """Three steps of DDIM."""
    from diffusers import DDIMScheduler

    scheduler: Any = DDIMScheduler(num_train_timesteps=1000, clip_sample=False)
    scheduler.set_timesteps(3)
    x, labels = noise, torch.tensor(list(conditions))
    for time in scheduler.timesteps:
        predicted = model(x, timestep=time.expand(len(x)), class_labels=labels).sample
        x = scheduler.step(predicted, time, x).prev_sample
    return x
