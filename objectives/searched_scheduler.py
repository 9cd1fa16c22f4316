"""A searched schedule as a scheduler of diffusers: put it into any pipeline and sample as before.

::

    pipe.scheduler = SearchedScheduler.from_config(pipe.scheduler.config, schedule=result.best)
    image = pipe(prompt, num_inference_steps=result.best.nfe).images[0]
    pipe.save_pretrained("model-in-7-steps")  # the schedule is readable JSON in scheduler/scheduler_config.json

Deterministic; works with networks that predict the noise, v, the data, or a flow. Times are floats, which networks of
diffusers accept: levels between the training steps are not rounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers, SchedulerMixin, SchedulerOutput

from searchlib.errors import InvalidSettings
from searchlib.objectives.noise_schedules import NoiseSchedule, is_flow, prediction_type_of, split_prediction
from searchlib.objectives.schedule_sampling import Evaluation, apply_update
from searchlib.objectives.solver_formulas import compile_schedule
from searchlib.spaces.solver_schedule import MAX_ORDER, SolverSchedule

__all__ = ["SearchedScheduler"]


@final
class SearchedScheduler(SchedulerMixin, ConfigMixin):  # type: ignore[misc]  # as every scheduler of diffusers
    """Samples with a :class:`~searchlib.spaces.solver_schedule.SolverSchedule`.

    An analytical first step needs no evaluation: ``timesteps`` begin after it, and ``init_noise_sigma``, by which
    pipelines multiply their noise, takes the sample there. (``DDPMPipeline`` and ``DDIMPipeline`` do not multiply;
    they are not for such schedules.) Where a pipeline starts in the middle (image to image, inpainting), the history
    starts there as well, and orders are clipped to it.

    Arguments:
        schedule: a :class:`~searchlib.spaces.solver_schedule.SolverSchedule`, or the dict of its ``to_json``.
        prediction_type: "epsilon", "v_prediction", "sample" or "flow_prediction".
        use_flow_sigmas: whether the model is a flow (x = (1 - s)·data + s·noise) instead of variance-preserving.
        num_train_timesteps: as in diffusers, like all that follow.
        beta_start: of the training schedule.
        beta_end: of the training schedule.
        beta_schedule: of the training schedule.
        trained_betas: of the training schedule, instead of those three.
        rescale_betas_zero_snr: of the training schedule.
        variance_type: "learned" and "learned_range" drop the second half of the network's channels.

    Raises:
        InvalidSettings: no schedule, or a prediction type that does not fit the kind of model.
        UnsupportedModel: another prediction type.

    Example:
        >>> from searchlib.objectives.known_solvers import schedule_from_sigmas
        >>> schedule = schedule_from_sigmas("unipc2-bh2-data", (14.6, 5.0, 1.0, 0.1))
        >>> scheduler = SearchedScheduler(schedule, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        >>> scheduler.set_timesteps(3)
        >>> [round(float(t), 1) for t in scheduler.timesteps], scheduler.config["schedule"]["steps"][1]["order"]
        ([998.8, 795.2, 353.9], 2)
    """

    _compatibles = [kind.name for kind in KarrasDiffusionSchedulers]  # noqa: RUF012 (as in diffusers)
    order = 1

    @register_to_config
    def __init__(
        self,
        schedule: SolverSchedule | Mapping[str, Any] | None = None,
        prediction_type: str = "epsilon",
        use_flow_sigmas: bool = False,
        num_train_timesteps: int = 1000,
        beta_start: float = 0.0001,
        beta_end: float = 0.02,
        beta_schedule: str = "linear",
        trained_betas: list[float] | None = None,
        rescale_betas_zero_snr: bool = False,
        variance_type: str | None = None,
    ) -> None:
        if schedule is None:
            raise InvalidSettings("a schedule is needed: SearchedScheduler.from_config(config, schedule=...)")
        value = schedule if isinstance(schedule, SolverSchedule) else SolverSchedule.from_json(schedule)
        self.register_to_config(schedule=value.to_json())
        kind = prediction_type_of(self.config)
        if use_flow_sigmas != (kind == "flow_prediction"):
            raise InvalidSettings(
                f"use_flow_sigmas belongs to the prediction type 'flow_prediction', but got (use_flow_sigmas="
                f"{use_flow_sigmas}, prediction_type={prediction_type!r})"
            )
        self.schedule = value
        self.noise_schedule = NoiseSchedule.from_config(self.config)
        #: Noise standard deviation for pipelines; with an analytical first step, the factor of that step.
        self.init_noise_sigma = self._first_factor() if value.analytic_first_step else 1.0
        self.num_inference_steps: int | None = None
        skipped = int(value.analytic_first_step)
        times = [self.noise_schedule.time(sigma) for sigma in value.sigmas[skipped:-1]]
        self.timesteps = torch.tensor(times, dtype=torch.float32)
        self._restart()

    def _first_factor(self) -> float:
        """x after an analytical first step over x before: σ_1/σ_0, its data prediction being 0."""
        (_, before), (_, after) = (self.noise_schedule.alpha_sigma(sigma) for sigma in self.schedule.sigmas[:2])
        return after / before

    def _restart(self) -> None:
        self._step_index: int | None = None
        self._begin_index: int | None = None
        self._from_data = False
        self._first = 0
        self._history: tuple[Evaluation, ...] = ()

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """From the config of the scheduler that this one replaces, and a ``schedule``.

        Betas, prediction type and flow settings are the replaced scheduler's, its class's defaults included.
        """
        if isinstance(config, Mapping):
            # Diffusers drops values that were defaults of the other class, although this class's defaults differ.
            config = {name: value for name, value in config.items() if name != "_use_default_values"}
            if is_flow(config):
                config |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        return super().from_config(config, return_unused_kwargs, **kwargs)

    @property
    def step_index(self) -> int | None:
        """Number of the next step, counted in ``timesteps``; None before the first."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """Number of the first step that a pipeline makes, counted in ``timesteps``."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Start in the middle: called by pipelines before the first step."""
        self._begin_index = begin_index

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: Any = None,
        mu: float | None = None,
    ) -> None:
        """Get ready to sample.

        Arguments:
            num_inference_steps: evaluations; a schedule has one number of them.
            device: of ``timesteps``.
            sigmas: what pipelines of flow models propose; only their number is looked at.
            mu: the resolution's shift that they propose; the schedule has its own levels.

        Raises:
            InvalidSettings: another number of steps than the schedule's.
        """
        wanted = len(sigmas) if num_inference_steps is None and sigmas is not None else num_inference_steps
        if wanted not in (None, self.schedule.nfe):
            raise InvalidSettings(
                f"this schedule was searched for {self.schedule.nfe} evaluations; call the pipeline with "
                f"num_inference_steps={self.schedule.nfe}, but got {wanted}"
            )
        self.num_inference_steps = self.schedule.nfe
        self.timesteps = self.timesteps.to(device)
        self._restart()

    def scale_model_input(self, sample: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The sample as it is."""
        return sample

    def step(
        self,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        return_dict: bool = True,
        generator: Any = None,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
    ) -> SchedulerOutput | tuple[torch.Tensor]:
        """The next sample.

        Arguments:
            model_output: of the network at ``sample``.
            timestep: one of ``timesteps``; where sampling starts is read from the first.
            sample: as it is now, even where the pipeline changed it since the last step.
            return_dict: whether to return a ``SchedulerOutput``.
            generator: not used; no noise is added.
            eta: 0; pipelines made for DDIM pass it.
            use_clipped_model_output: not used; pipelines made for DDIM pass it.

        Raises:
            InvalidSettings: ``set_timesteps`` was not called, or noise is asked for.
        """
        if self.num_inference_steps is None or eta:
            raise InvalidSettings(f"call set_timesteps() first, and with eta = 0: no noise is added, but got {eta=}")
        x = sample if sample.dtype == torch.float64 else sample.float()
        number = self._next(timestep, x)
        step = compile_schedule(self.schedule, self._first)[number - self._first]
        newest = self._evaluated(model_output.to(x.dtype), x, step.sigma)
        self._history = (*self._history[-MAX_ORDER:], newest)
        if step.corrector is not None:
            corrected = apply_update(step.corrector, self._history, number, newest.alpha)
            self._history = (*self._history[:-1], newest._replace(sample=corrected))
        alpha, _ = self.noise_schedule.alpha_sigma(step.next_sigma)
        previous = apply_update(step.predictor, self._history, number, alpha).to(sample.dtype)
        self._step_index = number - self._skipped + 1
        return SchedulerOutput(prev_sample=previous) if return_dict else (previous,)

    @property
    def _skipped(self) -> int:
        """Steps of the schedule before the first of ``timesteps``."""
        return int(self.schedule.analytic_first_step)

    def _next(self, timestep: Any, x: torch.Tensor) -> int:
        """Number of this step in the schedule; at the first call, where sampling starts."""
        if self._step_index is None:
            begin = self._index(timestep) if self._begin_index is None else self._begin_index
            self._step_index = begin
            self._first = begin + self._skipped
            if self._skipped and begin == 0 and not self._from_data:
                self._first = 0
                sigma = self.schedule.sigmas[0]
                start = x / self.init_noise_sigma
                alpha, s = self.noise_schedule.alpha_sigma(sigma)
                self._history = (Evaluation(start, alpha, start / s, torch.zeros_like(start)),)
        return self._step_index + self._skipped

    def _evaluated(self, output: torch.Tensor, x: torch.Tensor, sigma: float) -> Evaluation:
        if self.config["variance_type"] in ("learned", "learned_range"):
            output = output[:, : x.shape[1]]
        alpha, s = self.noise_schedule.alpha_sigma(sigma)
        return Evaluation(x, alpha, *split_prediction(self.config["prediction_type"], output, x, alpha, s))

    def _index(self, timestep: Any) -> int:
        """The place of a time in ``timesteps``: the nearest."""
        # On the processor: some devices have no float64.
        return int((self.timesteps.cpu().double() - torch.as_tensor(timestep).cpu().double()).abs().argmin())

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """α·data + s·noise at the given times, any times of the model; where pipelines start from data."""
        if self._step_index is None:
            self._from_data = True
        levels = [self._level(float(time)) for time in torch.as_tensor(timesteps).flatten().tolist()]
        shape = (-1, *[1] * (original_samples.ndim - 1))
        pairs = torch.tensor([self.noise_schedule.alpha_sigma(sigma) for sigma in levels], dtype=torch.float64)
        alpha, s = pairs.to(original_samples.dtype).to(original_samples.device).T
        return alpha.reshape(shape) * original_samples + s.reshape(shape) * noise

    def _level(self, time: float) -> float:
        """σ/α at a time: the schedule's own where it has that time."""
        index = self._index(time)
        own = abs(float(self.timesteps[index]) - time) < 1e-6 * max(1.0, time)
        return self.schedule.sigmas[index + self._skipped] if own else self.noise_schedule.sigma(time)

    def scale_noise(self, sample: torch.Tensor, timestep: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """What pipelines of flow models call :meth:`add_noise`."""
        return self.add_noise(sample, noise, timestep)

    def __len__(self) -> int:
        """Training steps of the model."""
        return int(self.config["num_train_timesteps"])
