"""How a diffusion model mixes data and noise: x = α·data + s·noise, and at which time it sees which σ = s/α.

Schedules of solvers speak of σ = s/α only (:mod:`searchlib.spaces.solver_schedule`); a noise schedule says what that
means for one model:

=======  =====================================  ==========================================
kind     α and s                                time of the model
=======  =====================================  ==========================================
"vp"     α² + s² = 1 (DDPM, Stable Diffusion)   place in a table of σ, between whole numbers
                                                log σ is interpolated
"flow"   α + s = 1 (SD3, FLUX)                  s times the number of training steps
"ve"     α = 1 (EDM's denoisers)                σ itself
=======  =====================================  ==========================================
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

import numpy as np

from searchlib.arguments import listed, numbers, one_of, shown, whole_number
from searchlib.errors import InvalidSettings, UnsupportedModel

__all__ = ["KINDS", "PREDICTION_TYPES", "NoiseSchedule", "is_flow", "prediction_type_of", "split_prediction"]

KINDS = ("vp", "flow", "ve")
PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow_prediction")
#: Diffusers cuts a zero terminal signal-to-noise ratio here (UniPC; lower where the step before is), and a flow at
#: s = 1 - 1e-6.
LEAST_ALPHA_BAR = 2.0**-24
LARGEST_FLOW_SIGMA = (1 - 1e-6) / 1e-6
BETA_FIELDS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas",
               "rescale_betas_zero_snr")  # fmt: skip


@final
@dataclass(frozen=True)
class NoiseSchedule:
    """The noise schedule of one model.

    Arguments:
        kind: "vp", "flow" or "ve".
        table: σ/α at the times 0, 1, 2 …, strictly ascending; for "vp" only.
        train_steps: times run up to this; for "flow" only.

    Raises:
        InvalidSettings: another kind, or no such table.

    Example:
        >>> schedule = NoiseSchedule.from_sigmas([0.1, 1.0, 10.0])
        >>> round(schedule.time(10**0.5), 6), round(schedule.sigma(1.5), 6)
        (1.5, 3.162278)
        >>> NoiseSchedule("flow").time(1.0)
        500.0
    """

    kind: str
    table: tuple[float, ...] = field(default=(), repr=False)
    train_steps: int = 1000

    def __post_init__(self) -> None:
        one_of("kind", self.kind, KINDS)
        whole_number("train_steps", self.train_steps, 1)
        table = numbers("table", listed("table", self.table))
        logs = np.log(table) if table.size and (table > 0).all() else np.full(table.shape, np.nan)
        ascending = logs.ndim == 1 and np.isfinite(logs).all() and (np.diff(logs) > 0).all()
        if not ascending or (self.kind == "vp") != (len(logs) > 1):
            raise InvalidSettings(
                f"a schedule of kind 'vp', and no other, needs a table of at least 2 positive, strictly ascending "
                f"noise levels, but got {shown(self.table)} for (kind={self.kind!r})"
            )
        object.__setattr__(self, "_logs", logs)

    @staticmethod
    def from_sigmas(sigmas: Sequence[float]) -> NoiseSchedule:
        """A variance-preserving schedule from σ/α at the times 0, 1, 2 …"""
        return NoiseSchedule("vp", tuple(numbers("sigmas", listed("sigmas", sigmas)).tolist()))

    @staticmethod
    def from_alphas_cumprod(alphas_cumprod: Any) -> NoiseSchedule:
        """From ᾱ at the times 0, 1, 2 …, such as ``scheduler.alphas_cumprod`` of diffusers."""
        bars = numbers("alphas_cumprod", [float(bar) for bar in alphas_cumprod])
        if len(bars) < 2 or not ((bars >= 0) & (bars < 1)).all() or not bars[:-1].all():
            raise InvalidSettings(f"alphas_cumprod must be two or more numbers between 0 and 1, but are {shown(bars)}")
        if bars[-1] == 0:
            bars[-1] = min(LEAST_ALPHA_BAR, bars[-2] / 4)
        return NoiseSchedule.from_sigmas(np.sqrt((1 - bars) / bars).tolist())

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> NoiseSchedule:
        """From the ``scheduler.config`` of diffusers: its betas, or flow matching.

        Raises:
            UnsupportedModel: a scheduler of EDM's, which scales what goes into the network and what comes out.
        """
        if "sigma_data" in config:
            raise UnsupportedModel(
                "EDM's schedulers scale inputs and outputs of the network; wrap the network into a denoiser of x at σ "
                "and use NoiseSchedule('ve') with the prediction type 'sample'"
            )
        if is_flow(config):
            return NoiseSchedule("flow", train_steps=config.get("num_train_timesteps", 1000))
        from diffusers import DDPMScheduler  # its float32 betas are what every scheduler of diffusers computes

        fields = {key: config[key] for key in BETA_FIELDS if config.get(key) is not None}
        try:
            scheduler: Any = DDPMScheduler(**fields)
        except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError) as error:
            raise InvalidSettings(f"diffusers makes no betas of {shown(fields)}: {error}") from error
        return NoiseSchedule.from_alphas_cumprod(scheduler.alphas_cumprod)

    def starting_at(self, sigma: float) -> NoiseSchedule:
        """The part of a "vp" schedule up to the time whose noise level is nearest to ``sigma``.

        Samplers of few steps do better to take noise for an image at a level below the highest, where hardly a trace
        of an image is left, than to spend a step above it; diffusers' "leading" spacing does that.

        Raises:
            InvalidSettings: another kind of schedule, or a level that leaves fewer than two times.
        """
        if self.kind != "vp" or not sigma > self.table[1]:
            raise InvalidSettings(
                f"a starting level needs a 'vp' schedule and must be above {self.table[1:2]}, but got (sigma={sigma}, "
                f"kind={self.kind!r})"
            )
        last = int(np.abs(self._logs - math.log(sigma)).argmin())  # type: ignore[attr-defined]
        return NoiseSchedule("vp", self.table[: last + 1])

    @property
    def sigma_max(self) -> float:
        """The largest σ/α to start from."""
        return {"vp": self.table[-1:], "flow": (LARGEST_FLOW_SIGMA,), "ve": (80.0,)}[self.kind][0]

    @property
    def sigma_min(self) -> float:
        """The smallest σ/α that the model was trained at."""
        return {"vp": self.table[:1], "flow": (1 / (self.train_steps - 1),), "ve": (0.002,)}[self.kind][0]

    def alpha_sigma(self, sigma: float) -> tuple[float, float]:
        """α and s at a noise level σ = s/α."""
        if self.kind == "vp":
            alpha = 1 / math.sqrt(1 + sigma * sigma)
        else:
            alpha = 1 / (1 + sigma) if self.kind == "flow" else 1.0
        return alpha, sigma * alpha

    def time(self, sigma: float) -> float:
        """The model's time at a noise level, kept within the table."""
        if self.kind == "vp":
            return float(np.interp(math.log(sigma), self._logs, np.arange(len(self._logs))))  # type: ignore[attr-defined]
        return self.alpha_sigma(sigma)[1] * self.train_steps if self.kind == "flow" else sigma

    def sigma(self, time: float) -> float:
        """The noise level at a time: the inverse of :meth:`time`."""
        if self.kind == "vp":
            return math.exp(np.interp(time, np.arange(len(self._logs)), self._logs))  # type: ignore[attr-defined]
        if self.kind == "ve":
            return float(time)
        s = min(time / self.train_steps, 1 - 1e-6)
        return s / (1 - s)

    def initial_scale(self, sigma: float) -> float:
        """What standard normal noise is multiplied by to start at ``sigma``: 1 except for "ve", as in diffusers."""
        return sigma if self.kind == "ve" else 1.0


def is_flow(config: Mapping[str, Any]) -> bool:
    """Whether a ``scheduler.config`` of diffusers belongs to a flow model; those of FlowMatch… have no betas."""
    return bool(config.get("use_flow_sigmas")) or ("shift" in config and "beta_start" not in config)


def prediction_type_of(config: Mapping[str, Any]) -> str:
    """What the network behind a ``scheduler.config`` of diffusers predicts."""
    default = "flow_prediction" if is_flow(config) else "epsilon"
    kind = str(config.get("prediction_type") or default)
    if kind not in PREDICTION_TYPES:
        raise UnsupportedModel(f"prediction_type must be one of {PREDICTION_TYPES}, but the config says {kind!r}")
    return kind


def split_prediction(kind: str, output: Any, sample: Any, alpha: Any, s: Any) -> tuple[Any, Any]:
    """Noise and data prediction from a network's output at ``sample`` = α·data + s·noise.

    Works on anything with arithmetic: tensors, arrays, floats.

    Example:
        >>> alpha, s, data, noise = 0.6, 0.8, 2.0, -1.0
        >>> [round(part, 9) for part in split_prediction("v_prediction", alpha * noise - s * data, 0.4, alpha, s)]
        [-1.0, 2.0]
    """
    if kind == "epsilon":
        return output, (sample - s * output) / alpha
    if kind == "sample":
        return (sample - alpha * output) / s, output
    if kind == "v_prediction":  # v = α·noise - s·data, α² + s² = 1
        return alpha * output + s * sample, alpha * sample - s * output
    if kind == "flow_prediction":  # v = noise - data, α + s = 1
        return sample + alpha * output, sample - s * output
    raise UnsupportedModel(f"a prediction type must be one of {PREDICTION_TYPES}, but got {kind!r}")
