"""Many solver schedules at once, on the same noises, without evaluating the network twice for the same thing.

Schedules that agree so far are at the same samples, so they share their evaluations: all that start at one noise
level share the first one, a child that changed the last step of its parent costs one evaluation. At every step the
distinct samples of all schedules go through the network together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import torch

from searchlib.errors import InvalidSettings
from searchlib.objectives.noise_schedules import NoiseSchedule, prediction_type_of, split_prediction
from searchlib.objectives.solver_formulas import CompiledStep, LinearUpdate, compile_schedule
from searchlib.spaces.solver_schedule import MAX_ORDER, SolverSchedule

__all__ = ["Evaluation", "NoiseModel", "Sampled", "apply_update", "sample_schedules"]


@final
@dataclass(frozen=True)
class NoiseModel:
    """A diffusion network as sampling sees it.

    Arguments:
        network: ``network(x, t, **conditioning)`` with x of shape (batch, ...), one float time per image; returns
            the prediction, of x's shape.
        schedule: its noise schedule.
        prediction: "epsilon", "v_prediction", "sample" or "flow_prediction".
    """

    network: Callable[..., torch.Tensor]
    schedule: NoiseSchedule
    prediction: str = "epsilon"

    @staticmethod
    def from_diffusers(unet: Any, config: Mapping[str, Any]) -> NoiseModel:
        """From a network of diffusers (UNet2DModel, UNet2DConditionModel …) and its ``scheduler.config``.

        Conditioning is passed to the network by name, such as ``encoder_hidden_states`` or ``class_labels``.
        """
        return NoiseModel(_FirstOutput(unet), NoiseSchedule.from_config(config), prediction_type_of(config))


@final
@dataclass(frozen=True, eq=False)
class _FirstOutput:
    """A network of diffusers as a function, without a learned variance."""

    network: Any

    def __call__(self, x: torch.Tensor, t: torch.Tensor, **conditioning: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.network(x, t, return_dict=False, **conditioning)[0]
        return output[:, : x.shape[1]]


class Evaluation(NamedTuple):
    """One evaluated sample: the sample (after correction), α there, and both predictions."""

    sample: Any
    alpha: float
    noise: Any
    data: Any


class Sampled(NamedTuple):
    """What sampling returns.

    Arguments:
        samples: shape (n, c, ...): schedule × noise.
        evaluations: images that went through the network.
        unshared: what it would have been without sharing, Σ nfe · c.
    """

    samples: torch.Tensor
    evaluations: int
    unshared: int


def apply_update(update: LinearUpdate, history: Sequence[Evaluation], newest: int, alpha: float) -> Any:
    """The linear combination ``update`` of a history that ends with evaluation number ``newest``, in x = α·y.

    Arguments:
        update: from :func:`~searchlib.objectives.solver_formulas.compile_schedule`.
        history: the latest evaluations, oldest first.
        newest: number of the last of them.
        alpha: α of the result.
    """
    start = history[update.start - newest - 1]
    result = (alpha / start.alpha * update.scale) * start.sample
    for point, weight in zip(update.points, update.weights, strict=True):
        evaluation = history[point - newest - 1]
        result = result + (alpha * weight) * (evaluation.data if update.prediction == "data" else evaluation.noise)
    return result


@dataclass(eq=False)
class _State:
    """Where one or more schedules are: a sample to be evaluated and what came before."""

    sample: torch.Tensor
    sigma: float
    analytic: bool
    history: tuple[Evaluation, ...]


def sample_schedules(
    model: NoiseModel,
    schedules: Sequence[SolverSchedule],
    noise: torch.Tensor,
    *,
    batch: int = 256,
    conditioning: Mapping[str, torch.Tensor] | None = None,
) -> Sampled:
    """Sample from every noise with every schedule.

    Arguments:
        model: the network.
        schedules: n of them; their lengths and first noise levels may differ.
        noise: standard normal, shape (c, ...), in the dtype and on the device to sample with.
        batch: largest number of images per call of the network.
        conditioning: by name, one row per noise: shape (c, ...).

    Raises:
        InvalidSettings: no noise, a batch below 1, or conditioning of another length than the noise.

    Example:
        >>> from searchlib.spaces.solver_schedule import SolverStep
        >>> exact = NoiseModel(lambda x, t: x * 0, NoiseSchedule("ve"), "sample")
        >>> two = SolverSchedule((4.0, 1.0, 0.5), (SolverStep(), SolverStep(2)))
        >>> sampled = sample_schedules(exact, [two, SolverSchedule((4.0, 2.0), (SolverStep(),))], torch.ones(3, 1))
        >>> sampled.samples[:, 0, 0].tolist(), sampled.evaluations, sampled.unshared
        ([0.5, 2.0], 6, 9)
    """
    _check(noise, batch, conditioning)
    compiled = [compile_schedule(schedule) for schedule in schedules]
    states = _starts(model, schedules, noise)
    finished: dict[int, torch.Tensor] = {}
    active = list(range(len(schedules)))
    evaluations = 0
    number = 0
    with torch.no_grad():
        while active:
            reached = list(dict.fromkeys(states[index] for index in active))
            evaluated = dict(zip(reached, _evaluate(model, reached, noise, batch, conditioning), strict=True))
            evaluations += len(noise) * sum(not state.analytic for state in reached)
            moved = _Moves(model, number, evaluated)
            for index in active:
                states[index] = moved.after(states[index], compiled[index][number])
            number += 1
            finished.update({index: states[index].sample for index in active if len(compiled[index]) == number})
            active = [index for index in active if len(compiled[index]) > number]
    samples = torch.stack([finished[index] for index in range(len(schedules))]) if schedules else noise.new_empty(
        (0, *noise.shape)
    )  # fmt: skip
    return Sampled(samples, evaluations, len(noise) * sum(schedule.nfe for schedule in schedules))


def _check(noise: torch.Tensor, batch: int, conditioning: Mapping[str, torch.Tensor] | None) -> None:
    if noise.ndim < 1 or len(noise) < 1 or not noise.is_floating_point():
        raise InvalidSettings(f"noise must be floats of shape (c, ...), but got {noise.dtype} {tuple(noise.shape)}")
    if batch < 1:
        raise InvalidSettings(f"batch must be at least 1, but got (batch={batch})")
    for name, rows in (conditioning or {}).items():
        if len(rows) != len(noise):
            raise InvalidSettings(
                f"conditioning must have one row per noise, {len(noise)}, but {name!r} has {len(rows)}"
            )


def _starts(model: NoiseModel, schedules: Sequence[SolverSchedule], noise: torch.Tensor) -> list[_State]:
    """The first state of every schedule, shared where noise level and kind of start are."""
    shared: dict[tuple[float, bool], _State] = {}
    for schedule in schedules:
        key = (schedule.sigmas[0], schedule.analytic_first_step)
        if key not in shared:
            shared[key] = _State(model.schedule.initial_scale(key[0]) * noise, *key, ())
    return [shared[schedule.sigmas[0], schedule.analytic_first_step] for schedule in schedules]


def _evaluate(
    model: NoiseModel,
    states: Sequence[_State],
    noise: torch.Tensor,
    batch: int,
    conditioning: Mapping[str, torch.Tensor] | None,
) -> list[Evaluation]:
    """Every state's sample through the network, blocks of ``batch`` images with their own times."""
    through = [state for state in states if not state.analytic]
    outputs: list[torch.Tensor] = []
    if through:
        count = len(noise)
        images = torch.cat([state.sample for state in through])
        times = torch.tensor([model.schedule.time(state.sigma) for state in through], dtype=noise.dtype)
        times = times.to(noise.device).repeat_interleave(count)
        case = torch.arange(len(images), device=noise.device) % count
        blocks = []
        for first in range(0, len(images), batch):
            block = slice(first, first + batch)
            extra = {name: rows[case[block]] for name, rows in (conditioning or {}).items()}
            blocks.append(model.network(images[block], times[block], **extra).to(noise.dtype))
        outputs = list(torch.cat(blocks).split(count))
    results = iter(outputs)
    return [_evaluation(model, state, None if state.analytic else next(results)) for state in states]


def _evaluation(model: NoiseModel, state: _State, output: torch.Tensor | None) -> Evaluation:
    alpha, s = model.schedule.alpha_sigma(state.sigma)
    if output is None:  # analytical first step: data 0
        return Evaluation(state.sample, alpha, state.sample / s, torch.zeros_like(state.sample))
    return Evaluation(state.sample, alpha, *split_prediction(model.prediction, output, state.sample, alpha, s))


class _Moves:
    """One step of all schedules; what two of them do alike is done once."""

    def __init__(self, model: NoiseModel, number: int, evaluated: Mapping[_State, Evaluation]) -> None:
        self.model, self.number, self.evaluated = model, number, evaluated
        self.corrected: dict[tuple[_State, LinearUpdate | None], tuple[Evaluation, ...]] = {}
        self.predicted: dict[tuple[_State, CompiledStep], _State] = {}

    def after(self, state: _State, step: CompiledStep) -> _State:
        if (state, step) not in self.predicted:
            history = self._history(state, step.corrector)
            alpha, _ = self.model.schedule.alpha_sigma(step.next_sigma)
            sample = apply_update(step.predictor, history, self.number, alpha)
            self.predicted[state, step] = _State(sample, step.next_sigma, False, history[-MAX_ORDER:])
        return self.predicted[state, step]

    def _history(self, state: _State, corrector: LinearUpdate | None) -> tuple[Evaluation, ...]:
        """What the state has behind it, its own evaluation last, with the sample corrected."""
        if (state, corrector) not in self.corrected:
            newest = self.evaluated[state]
            history = (*state.history, newest)
            if corrector is not None:
                sample = apply_update(corrector, history, self.number, newest.alpha)
                history = (*state.history, newest._replace(sample=sample))
            self.corrected[state, corrector] = history
        return self.corrected[state, corrector]
