"""The runs behind the benchmark of mixed precision: every row of one trained model, held out."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.model_cache import user_cache
from benchmarks.small_transformers import (
    SHAPES,
    Kind,
    Recipe,
    conditions,
    frame_changes,
    loaded,
    log_probabilities,
    sample,
)
from benchmarks.speed_clock import threads
from searchlib import AdditiveProfile, Cases, ExactAllocation, Split, measure_profile, search
from searchlib.objectives import (
    ChannelBalancing,
    ImageReward,
    MixedPrecision,
    NoiseCases,
    PairedError,
    decoupled_allocations,
    decoupled_weights,
)
from searchlib.objectives.fake_quantize import fake_quantize
from searchlib.objectives.image_scores import ImageScore
from searchlib.objectives.input_moments import measure_moments
from searchlib.objectives.metric_decoupling import MIXDQ, VIDIT_Q
from searchlib.objectives.paired_features import PairedFeatures
from searchlib.objectives.quantizable_layers import rows_of
from searchlib.spaces import BitPlan

__all__ = [
    "DECOUPLED",
    "HAWQ",
    "METRICS",
    "MSE",
    "OURS",
    "RANDOM",
    "SUM",
    "TASKS",
    "UNIFORM",
    "ConditionDrift",
    "Outcome",
    "Preset",
    "model_of",
    "run_model",
    "stored_bytes_of",
]

TASKS: Mapping[Kind, str] = {"digits": "DiT, digits", "video": "Latte, moving shapes"}
METRICS: Mapping[Kind, tuple[str, ...]] = {
    "digits": ("quality", "alignment"), "video": ("quality", "alignment", "temporal"),
}  # fmt: skip
UNIFORM, MSE, RANDOM, HAWQ = "uniform", "MSE only", "random, best of 30", "HAWQ-like, no images"
SUM, DECOUPLED, OURS = "sum of all metrics", "metric-decoupled", "ours"

#: Which metric counts for which layers, by the papers and turned round; which suits a model is decided on SELECT.
ASSIGNMENTS: Mapping[Kind, Mapping[str, Mapping[str, str]]] = {
    "digits": {
        "MixDQ": MIXDQ,
        "turned round": {"alignment": r".*\battn1\b.*", "quality": r".*"},
        "late blocks": {"alignment": r"transformer_blocks\.[23]\b.*", "quality": r".*"},
    },
    "video": {
        "ViDiT-Q": VIDIT_Q,
        "temporal blocks": {"alignment": r".*\battn2\b.*", "temporal": r"temporal_transformer_blocks\b.*",
                            "quality": r".*"},
        "MixDQ, temporal": {"temporal": r"temporal_transformer_blocks\.\d+\.attn1\b.*",
                            "alignment": MIXDQ["alignment"], "quality": r".*"},
    },
}  # fmt: skip
#: Of held-out noises; nothing else in this repository draws from it.
FRESH = 2**22


@final
@dataclass(frozen=True)
class Preset:
    """How much is run.

    Arguments:
        noises: (SEARCH, SELECT, held out) of each kind of model.
        evaluations: plans that ours evaluates, beside the profile.
        options: bits of a weight.
        rounds: parts of the SEARCH noises that the profile is measured in.
        training: (steps, batch); None: the usual.
        models: at most so many of a kind, whatever the number of seeds.
        cache: below the user's cache.
    """

    noises: Mapping[Kind, tuple[int, int, int]]
    evaluations: int = 24
    options: tuple[int, ...] = (2, 3, 4, 6, 8)
    bits: tuple[float, ...] = (4.0, 3.0)
    random: int = 30
    rounds: int = 2
    tilts: Mapping[Kind, tuple[float, ...]] = field(
        default_factory=lambda: {"digits": (0.1, 0.3, 1.0, 3.0, 10.0), "video": (0.2, 1.0, 5.0)}
    )
    training: tuple[int, int] | None = None
    models: Mapping[Kind, int] = field(default_factory=dict)
    cache: str = ""


class Outcome(NamedTuple):
    """What one model brings home.

    Arguments:
        rows: by (task, method); the values are those of the table.
        cases: of the rows that spend a budget the losses ``(n, metrics)`` of every held-out noise.
        pairs: what full precision and W8A8 are worth, case by case: by name two arrays of shape ``(n,)``, or of
            features ``(n, k)`` for a Fréchet distance.
        notes: what was chosen on SELECT, and how additive the losses are.
    """

    rows: dict[tuple[str, str], dict[str, float]]
    cases: dict[tuple[str, str], NDArray[np.float64]]
    pairs: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
    notes: dict[str, Any]


@final
class ConditionDrift(ImageScore):
    """How far the log-probability of what was asked for is from that of the full-precision image, in nats.

    Not the log-probability itself: quantization can raise it above full precision's, by images that look more like the
    mean of their class, and an allocation by it would pay for that with the likeness of the images (seen here: a class
    NLL of 0.31 instead of 0.38, at three times the squared error). Not its square: a few images that change their class
    would outweigh all others, and of 96 noises a third of a profile's entries stood out of their errors.

    Arguments:
        sample: the full-precision model's.
        judge: images to log-probabilities ``(n, classes)``.
    """

    additive = True

    def __init__(
        self, sample: Callable[[Tensor, Sequence[Any]], Tensor], *, judge: Callable[[Tensor], Tensor]
    ) -> None:
        self._judge, self._full = judge, PairedFeatures(sample, judge, 256)

    def observe(self, images: Tensor, noise: Tensor | None, conditions: Sequence[Any]) -> NDArray[np.float64]:
        """The difference of every image, shape ``(images, 1)``."""
        apart = self._judge(images).double().numpy() - self._full.of(noise, conditions)
        return np.abs(apart[np.arange(len(images)), list(conditions)])[:, None]

    def aggregate(self, observations: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over images."""
        return np.asarray(observations[..., 0].mean(axis=1))

    def fingerprint(self) -> Mapping[str, Any]:
        """Kind."""
        return {"score": "ConditionDrift"}


def model_of(preset: Preset, kind: Kind, seed: int) -> Any:
    """The trained model."""
    recipe = Recipe(kind, seed, *preset.training) if preset.training else Recipe.usual(kind, seed)
    return loaded(recipe, user_cache() / preset.cache)


def run_model(preset: Preset, kind: Kind, seed: int) -> Outcome:
    """All rows of one model, on one thread."""
    with threads(1):
        trial = _Trial(preset, kind, seed)
        rows = trial.references()
        profile = trial.profile()
        for bits in preset.bits:
            rows |= trial.allocations(profile, bits)
        return Outcome(rows, trial.cases, trial.pairs(), trial.notes)


@final
class _Trial:
    """One model, its noises, and the objectives that judge its plans."""

    def __init__(self, preset: Preset, kind: Kind, seed: int) -> None:
        self.preset, self.kind, self.seed = preset, kind, seed
        self.model, self.metrics = model_of(preset, kind, seed), METRICS[kind]
        few, select, holdout = preset.noises[kind]
        told = conditions(kind)
        self.noises = NoiseCases(search=few, select=select, holdout=0, conditions=told, seed=seed)
        self.fresh = NoiseCases(search=2, holdout=holdout, conditions=told, seed=FRESH + seed).of(Split.HOLDOUT)
        self.judge = log_probabilities(kind)
        self.notes: dict[str, Any] = {}
        self.cases: dict[tuple[str, str], NDArray[np.float64]] = {}

    def objective(self, **settings: Any) -> MixedPrecision:
        """What plans are judged by; by default every metric apart."""
        metrics: dict[str, Any] = {
            "quality": PairedError,
            "alignment": partial(ConditionDrift, judge=self.judge),
            "temporal": partial(PairedError, features=frame_changes),
        }
        given: dict[str, Any] = {name: metrics[name] for name in self.metrics} | {"nll": ImageReward(self._told)}
        options = {"weight": self.preset.options, "value": self.metrics, "shape": SHAPES[self.kind], **settings}
        return MixedPrecision(self.model, sample, self.noises, metrics=given, **options)

    def _told(self, images: Tensor, labels: Sequence[int]) -> Tensor:
        return self.judge(images)[torch.arange(len(images)), torch.tensor(list(labels))]

    def references(self) -> dict[tuple[str, str], dict[str, float]]:
        """Full precision, and uniform bits of weights and inputs, with and without balanced channels."""
        task = f"{TASKS[self.kind]}: uniform"
        rows: dict[tuple[str, str], dict[str, float]] = {}
        for suffix, balancing in (
            ("", None), (", scale", ChannelBalancing(0.5)), (", scale + rotation", ChannelBalancing(0.5, rotate=True)),
        ):  # fmt: skip
            with self.objective(weight=(4, 6, 8), activation=(6, 8), balancing=balancing) as opened:
                plans = {
                    f"W{w}A{a}{suffix}": opened.space.uniform(weight=w, activation=a)
                    for w, a in ((8, 8), (6, 6), (4, 8))
                }
                plans = plans if balancing else {"full precision": BitPlan(), **plans}
                rows |= {(task, name): row for name, row in self._held_out(opened, plans)[0].items()}
        return rows

    def profile(self) -> AdditiveProfile:
        """The losses of all parts and options by every metric, for all budgets; without what noise contradicts."""
        start = time.process_time()
        opened = self.objective(mean_bits=self.preset.bits[0])
        budgets = [opened.space.memory_at(weight=bits) for bits in self.preset.bits]
        measured = measure_profile(
            opened, rounds=self.preset.rounds, budgets=[[budget] for budget in budgets], metrics=self.metrics,
            seed=self.seed,
        )  # fmt: skip
        self.notes["profile seconds"] = time.process_time() - start
        return _squared(measured, self.metrics.index("alignment")).monotone()

    def allocations(self, profile: AdditiveProfile, bits: float) -> dict[tuple[str, str], dict[str, float]]:
        """Every way to spend a budget."""
        task = f"{TASKS[self.kind]}: {bits:g} bits"
        opened = self.objective(mean_bits=bits)
        budget, decode = opened.space.budgets_array, opened.space.decode
        hawq = self._without_images(opened)
        with opened:
            plans = {UNIFORM: opened.space.uniform(weight=int(bits))}
            usual = opened.observe([plans[UNIFORM]], opened.cases(Split.SEARCH))[0].mean(axis=0)
            weights = {name: 1 / (len(self.metrics) * usual[i]) for i, name in enumerate(self.metrics)}
            for name in self.metrics:
                method = MSE if name == "quality" else f"{name} only"
                plans[method] = decode(profile.allocate(budget, {name: 1.0}).choice)
            plans[HAWQ] = decode(hawq.allocate(budget).choice)
            # To first order around uniform bits; the profile has the square of alignment.
            slopes = {name: weight / (usual[i] if name == "alignment" else 1.0)
                      for i, (name, weight) in enumerate(weights.items())}  # fmt: skip
            plans[SUM] = decode(profile.allocate(budget, slopes).choice)
            drawn = opened.space.sample(np.random.default_rng(self.seed), self.preset.random)
            plans[RANDOM] = self._best(opened, [decode(row) for row in drawn], weights)[0]
            found = {
                name: self._best(opened, [decode(row) for row in self._sweep(profile, budget, name)], weights)
                for name in ASSIGNMENTS[self.kind]
            }
            chosen = min(found, key=lambda name: found[name][1])
            plans[DECOUPLED] = found[chosen][0]
        plans[OURS] = self._searched(profile, bits, weights, chosen, list(plans.values()))
        with opened:
            rows, cases = self._held_out(opened, plans, plans[UNIFORM])
        self.notes[f"{bits:g} bits, assignment"] = chosen
        self.cases |= {(task, name): losses for name, losses in zip(plans, cases, strict=True)}
        return {(task, name): row for name, row in rows.items()}

    def _sweep(self, profile: AdditiveProfile, budget: NDArray[np.float64], name: str) -> NDArray[np.int16]:
        tilts = self.preset.tilts[self.kind]
        return decoupled_allocations(profile, ASSIGNMENTS[self.kind][name], budgets=budget, tilts=tilts)

    def _searched(
        self, profile: AdditiveProfile, bits: float, weights: Mapping[str, float], chosen: str, known: list[BitPlan]
    ) -> BitPlan:
        """Exact allocations of the decoupled profile, true evaluations of the aggregate, the winner picked on SELECT.

        It begins with the allocations that cost no evaluation of their own but the profile.
        """
        own = decoupled_weights(profile, ASSIGNMENTS[self.kind][chosen])
        result = search(
            self.objective(mean_bits=bits, value=weights), ExactAllocation(profile, own),
            budget=self.preset.evaluations, seed=self.seed, seeds=known,
        )  # fmt: skip
        self.notes[f"{bits:g} bits, search"] = dict(result.notes)
        plan: BitPlan = result.best.plan
        return plan

    def _best(
        self, opened: MixedPrecision, plans: list[BitPlan], weights: Mapping[str, float]
    ) -> tuple[BitPlan, float]:
        """The plan of least aggregate on SELECT, and that."""
        means = opened.observe(plans, opened.cases(Split.SELECT)).mean(axis=1)
        values = means[:, : len(weights)] @ np.array(list(weights.values()))
        return plans[int(values.argmin())], float(values.min())

    def _without_images(self, opened: MixedPrecision) -> AdditiveProfile:
        """The squared error of rounded weights, times the mean square of the input that each meets (no Hessian)."""
        noise, labels = self._inputs(opened.cases(Split.SEARCH).take(range(min(16, self.noises.search))))
        moments = measure_moments(opened.layers, lambda: sample(self.model, noise, labels))
        loss = []
        for name, layer in opened.layers.items():
            rows, squares = rows_of(layer), moments[name].second.diagonal()
            errors = [(rows - fake_quantize(rows, bits)).double().square() for bits in sorted(self.preset.options)]
            loss.append([float((error * squares).sum()) for error in errors])
        return AdditiveProfile.of(opened.space, loss)

    def _held_out(
        self, opened: MixedPrecision, plans: Mapping[str, BitPlan], usual: BitPlan | None = None
    ) -> tuple[dict[str, dict[str, float]], NDArray[np.float64]]:
        """Values on the fresh noises, with ``usual`` also the mean of their ratios to its; and every case."""
        columns = [*self.metrics, "nll"]
        observed = opened.observe(list(plans.values()), self.fresh)
        means = observed.mean(axis=1)
        rows = {name: dict(zip(columns, mean.tolist(), strict=True)) for name, mean in zip(plans, means, strict=True)}
        for name, row in rows.items():
            row["nll"] *= -1
            row["bits"] = plans[name].mean_bits(opened.tensors)
            if usual is not None:
                row["aggregate"] = float(np.mean([row[metric] / rows[UNIFORM][metric] for metric in self.metrics]))
        return rows, observed[:, :, : len(self.metrics)]

    def pairs(self) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """What the images of full precision and of W8A8 are worth."""
        opened = self.objective(weight=(4, 8), activation=(4, 8))
        noise, labels = self._inputs(self.fresh)
        with torch.inference_mode():
            full = sample(self.model, noise, labels)
            with opened.artifact(opened.space.uniform(weight=8, activation=8)).attached(self.model):
                rounded = sample(self.model, noise, labels)
        both = {"class NLL": tuple(-self._told(images, labels).double().numpy() for images in (full, rounded))}
        if self.kind == "digits":
            from benchmarks.small_diffusion import feature_net

            both["Fréchet distance"] = tuple(feature_net(0)(images).double().numpy() for images in (full, rounded))
        else:
            both["motion"] = tuple(
                frame_changes(images).square().mean(dim=1).double().numpy() for images in (full, rounded)
            )
        return both  # type: ignore[return-value]

    def _inputs(self, cases: Cases) -> tuple[Tensor, list[int]]:
        from searchlib.objectives.noise_cases import noises

        return noises(cases, SHAPES[self.kind]), [case.condition for case in cases.payload or ()]

    def stored(self) -> dict[str, float]:
        """Bytes of the quantized layers: in 16 bits, exported with weights of 4 bits, and as they would be packed."""
        from searchlib.objectives.torchao_export import stored_bytes

        opened = self.objective(weight=(4, 8), activation=(8, 16))
        found = opened.artifact(opened.space.uniform(weight=4, activation=8))
        model = copy.deepcopy(self.model).half()

        def taken() -> float:
            return float(stored_bytes(torch.nn.ModuleList([model.get_submodule(name) for name in opened.layers])))

        half = taken()
        model = found.export(copy.deepcopy(self.model))
        return {"half": half, "exported": taken(), "packed": found.memory}


def _squared(profile: AdditiveProfile, metric: int) -> AdditiveProfile:
    """With the square of one metric: of drifts that have nothing to do with each other it is squares that add up."""
    loss, error = profile.loss.copy(), profile.errors.copy()
    known = np.where(np.isfinite(loss[metric]), loss[metric].clip(min=0), np.inf)
    loss[metric], error[metric] = known**2, 2 * known * error[metric]
    return replace(profile, loss=loss, error=error)


def stored_bytes_of(preset: Preset, kind: Kind, seed: int) -> dict[str, float]:
    """Bytes of the quantized layers of a model."""
    return _Trial(preset, kind, seed).stored()
