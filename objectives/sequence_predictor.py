"""A recurrent predictor for candidates that are sequences of steps: solver schedules, layers, stages of a pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from searchlib import Predictor
from searchlib.algorithms import FittedPredictor
from searchlib.arguments import check_field, real_number, whole_number
from searchlib.errors import InvalidSettings

__all__ = ["SequencePredictor"]


@final
@dataclass(frozen=True, kw_only=True)
class SequencePredictor(Predictor):
    """OMS-DPM's predictor, which S³ uses for solver schedules: embedded steps, an LSTM, a ranking loss.

    Liu et al., *OMS-DPM: Optimizing the Model Schedule for Diffusion Probabilistic Models* (arXiv 2306.08860), with the
    sizes of its released code (configs/predictor_cifar10_dpm_solver.yml): every step is embedded by two layers of 64
    with sigmoids, one LSTM layer of 128 reads the steps, its outputs are normalized to length one, averaged over the
    active steps and normalized again, and three layers of 200 with ReLUs make a score of them. It is trained by Adam
    with the pairwise hinge loss mean max(0, m − y (s_i − s_j)) and margin m = 1, on pairs whose values differ by more
    than a threshold. Their threshold is 0.25 FID; here it is a quantile, because values have any unit. They embed
    categories by tables; here a one-hot feature and the first linear layer do the same. They take 1000 epochs at a rate
    of 1e-3, here it is 200 steps at 3e-3, so that a search can afford a training per stage.

    It wants a few hundred evaluated candidates: on sequences whose pairs of neighbors matter it orders unseen ones
    with tau 0.9 after 300, and hardly at all after 60, where :class:`searchlib.GaussianProcess` is better.

    The features of a candidate are its steps one after the other, then features of the whole, if any. Where the number
    of active steps varies, one feature of every step says whether it is active (``mask``), and the predictor is shared
    over all numbers of steps.

    Arguments:
        steps: most steps of a candidate.
        features_per_step: features of one step.
        mask: which feature of a step is 1 where the step is active and 0 where it is not; None: all always are.
        hidden: units of the LSTM.
        iterations: gradient steps.
        rate: step size of Adam.
        margin: by how much the scores of a pair should differ.
        quantile: pairs whose values differ by less than this quantile of all differences do not count, in [0, 1).
        batch: candidates per gradient step; each of them is paired with two others.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> features = rng.random((40, 3 * 2))
        >>> predictor = SequencePredictor(steps=3, features_per_step=2, iterations=60)
        >>> fitted = predictor.fit(features, features.sum(axis=1), rng)
        >>> low, high = fitted.predict(np.stack([np.zeros(6), np.ones(6)]))
        >>> bool(low < high)
        True
    """

    steps: int
    features_per_step: int
    mask: int | None = None
    hidden: int = 128
    iterations: int = 200
    rate: float = 3e-3
    margin: float = 1.0
    quantile: float = 0.1
    batch: int = 128

    def __post_init__(self) -> None:
        for name in ("steps", "features_per_step", "hidden", "iterations", "batch"):
            check_field(self, name, whole_number, 1)
        try:
            check_field(self, "mask", whole_number, 0, self.features_per_step - 1, optional=True)
        except InvalidSettings as refusal:
            raise InvalidSettings(
                f"{refusal}; it is one of the {self.features_per_step} features of a step, or None"
            ) from None
        for name in ("rate", "margin"):
            check_field(self, name, real_number, "(0, inf)")
        check_field(self, "quantile", real_number, "[0, 1)")

    def check(self, features: int) -> None:
        """Say whether candidates with this many features can be such sequences.

        Raises:
            InvalidSettings: they have fewer features than the steps take.
        """
        if features < self.steps * self.features_per_step:
            raise InvalidSettings(
                f"{self.steps} steps of {self.features_per_step} features take {self.steps * self.features_per_step}, "
                f"but the space gives {features}; set SequencePredictor(steps=…, features_per_step=…) to its layout"
            )

    def fit(
        self, features: NDArray[np.float64], values: NDArray[np.float64], rng: np.random.Generator
    ) -> FittedPredictor:
        """Learn to rank candidates; on one thread, whatever else torch has been told.

        Raises:
            InvalidSettings: fewer features than the steps take.
        """
        self.check(features.shape[1])
        with _one_thread():
            return _Fitted(self, features, values, rng)


@final
class _Fitted:
    def __init__(
        self, settings: SequencePredictor, features: NDArray[np.float64], values: NDArray[np.float64],
        rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self._settings = settings
        steps, active, whole = self._layout(features)
        seen = steps[active]
        self._step_scale = _scale(seen if len(seen) else steps.reshape(-1, settings.features_per_step))
        self._whole_scale = _scale(whole)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        with torch.device("meta"):  # its usual initialization would draw from torch's global generator
            network = _Network(settings.features_per_step, whole.shape[1], settings.hidden)
        self._network = network.to_empty(device="cpu")
        _initialize(self._network, generator)
        self._train(features, values, rng)

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        with _one_thread(), torch.no_grad():
            return np.asarray(self._network(*self._tensors(features)).numpy(), np.float64)

    def _train(self, features: NDArray[np.float64], values: NDArray[np.float64], rng: np.random.Generator) -> None:
        settings, n = self._settings, len(values)
        inputs, told = self._tensors(features), torch.tensor(values, dtype=torch.float64)
        apart = np.abs(np.subtract(*values[rng.integers(n, size=(2, 4096))]))
        apart = apart[apart > 0]
        threshold = float(np.quantile(apart, settings.quantile)) if len(apart) and settings.quantile else 0.0
        optimizer = torch.optim.Adam(self._network.parameters(), lr=settings.rate)
        for _ in range(settings.iterations):
            drawn = torch.from_numpy(rng.permutation(n)[: settings.batch])
            scores, of = self._network(*(each[drawn] for each in inputs)), told[drawn]
            loss = scores.new_zeros(())
            for shift in (1, 2):  # two pairs per candidate, as in the released code
                difference = of - of.roll(shift)
                y = torch.where(difference.abs() >= threshold, difference.sign(), 0.0).to(scores.dtype)
                short = (settings.margin - y * (scores - scores.roll(shift))).clamp(min=0) * y.abs()
                loss = loss + short.sum() / (2 * y.abs().sum().clamp(min=1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def _tensors(self, features: NDArray[np.float64]) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled steps ``(n, steps, f)``, which are active ``(n, steps)``, and scaled features of the whole."""
        steps, active, whole = self._layout(features)
        scaled = (steps - self._step_scale[0]) / self._step_scale[1]
        return (
            torch.from_numpy(np.where(active[:, :, None], scaled, 0.0).astype(np.float32)),
            torch.from_numpy(active.astype(np.float32)),
            torch.from_numpy(((whole - self._whole_scale[0]) / self._whole_scale[1]).astype(np.float32)),
        )

    def _layout(
        self, features: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
        settings = self._settings
        width = settings.steps * settings.features_per_step
        steps = features[:, :width].reshape(len(features), settings.steps, settings.features_per_step)
        everywhere = np.ones(steps.shape[:2], np.bool_)
        active = everywhere if settings.mask is None else steps[:, :, settings.mask] > 0.5
        return steps, active, features[:, width:]


class _Network(nn.Module):
    def __init__(self, features: int, whole: int, hidden: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(features, 64), nn.Sigmoid(), nn.Linear(64, 64), nn.Sigmoid())
        self.recur = nn.LSTM(64, hidden, batch_first=True)
        wide = 200
        self.head = nn.Sequential(
            nn.Linear(hidden + whole, wide), nn.ReLU(), nn.Linear(wide, wide), nn.ReLU(), nn.Linear(wide, wide),
            nn.ReLU(), nn.Linear(wide, 1),
        )  # fmt: skip

    def forward(self, steps: Tensor, active: Tensor, whole: Tensor) -> Tensor:
        """Scores ``(n,)``; inactive steps are skipped by the LSTM, wherever they lie."""
        # Active steps first, in their order: what follows them in the sequence cannot reach them.
        order = torch.argsort(active, dim=1, descending=True, stable=True)
        outputs, _ = self.recur(self.embed(torch.take_along_dim(steps, order[:, :, None], dim=1)))
        outputs = nn.functional.normalize(outputs, dim=2) * torch.take_along_dim(active, order, dim=1)[:, :, None]
        mean = outputs.sum(dim=1) / active.sum(dim=1, keepdim=True).clamp(min=1)
        joined = torch.cat([nn.functional.normalize(mean, dim=1), whole], dim=1)
        scores: Tensor = self.head(joined)[:, 0]
        return scores


def _initialize(network: nn.Module, generator: torch.Generator) -> None:
    """torch's usual uniform initialization, drawn from a generator of one's own."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.LSTM):
                width = module.in_features if isinstance(module, nn.Linear) else module.hidden_size
                for parameter in module.parameters():
                    parameter.uniform_(-(width**-0.5), width**-0.5, generator=generator)


def _scale(features: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of every feature, 1 where it never differs."""
    spread = features.std(axis=0)
    return features.mean(axis=0), np.where(spread > 1e-12, spread, 1.0)


@contextmanager
def _one_thread() -> Iterator[Any]:
    """Sums must not depend on the number of cores, and small matrices gain nothing from them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
