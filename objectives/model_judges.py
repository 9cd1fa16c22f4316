"""What one set of weights is worth: a loss or an accuracy on cases; for images see :mod:`.generated_images`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings

__all__ = ["CaseLoss", "ModelJudge"]


@runtime_checkable
class ModelJudge(Protocol):
    """Says how good a model is, case by case: what :class:`CaseLoss` and ``GeneratedImages`` have in common."""

    @property
    def direction(self) -> str:
        """``"minimize"`` or ``"maximize"``."""

    @property
    def additive(self) -> bool:
        """Whether the value is the mean over cases."""

    @property
    def differentiable(self) -> bool:
        """Whether :meth:`slope` is known."""

    def slope(self, scores: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.floating[Any]]]:
        """The value of one table of observations ``(c, k)`` and its derivative."""

    def cases(self, split: Split) -> Cases:
        """The cases of a split."""

    def observe(self, model: Any, cases: Cases) -> NDArray[np.float64]:
        """An observation of the model for every case, shape ``(c, k)``."""

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Observations ``(n, c, k)`` to values ``(n, 1)``."""

    def fingerprint(self) -> Mapping[str, Any]:
        """JSON values that say which judge this is."""


@final
class CaseLoss:
    """A loss, a perplexity's logarithm, an accuracy: a number per case, and their mean.

    Arguments:
        loss: of (model, list of payloads) to one number per payload. Called without gradients.
        cases: payloads by split (``"search"``, ``"select"``, ``"holdout"``, or :class:`~searchlib.Split`): batches,
            sentences, images with labels, whatever ``loss`` takes.
        direction: which way is better.

    Raises:
        InvalidSettings: no SEARCH cases, an unknown split or direction.

    Example:
        >>> squared = lambda model, numbers: (model(torch.tensor(numbers)[:, None]) ** 2)[:, 0]
        >>> judge = CaseLoss(squared, {"search": [1.0, 2.0], "holdout": [3.0]})
        >>> judge.observe(torch.nn.Identity(), judge.cases(Split.SEARCH)).tolist()
        [[1.0], [4.0]]
    """

    additive = True
    differentiable = False

    def __init__(
        self,
        loss: Callable[[Any, Sequence[Any]], Any],
        cases: Mapping[Any, Sequence[Any]],
        *,
        direction: str = "minimize",
    ) -> None:
        if direction not in ("minimize", "maximize"):
            raise InvalidSettings(f"direction must be 'minimize' or 'maximize', but is {direction!r}")
        names = [split.value for split in Split]
        unknown = [key for key in cases if key not in names]
        if unknown:
            raise InvalidSettings(f"cases are given by split ({', '.join(names)}), but one is called {unknown[0]!r}")
        parts = {Split(key): tuple(payload) for key, payload in cases.items()}
        if not parts.get(Split.SEARCH):
            raise InvalidSettings("there are no SEARCH cases; pass cases={'search': […], 'holdout': […]}")
        self.loss, self.direction, self._parts = loss, direction, parts

    def cases(self, split: Split) -> Cases:
        """The cases of a split."""
        payload = self._parts.get(split, ())
        return Cases(tuple(f"{split.value} {i}" for i in range(len(payload))), payload)

    def observe(self, model: Any, cases: Cases) -> NDArray[np.float64]:
        """The loss of every case, shape ``(c, 1)``."""
        with torch.inference_mode():
            losses = torch.as_tensor(self.loss(model, list(cases.payload or ()))).double().cpu().numpy()
        if losses.shape != (len(cases),):
            raise InvalidSettings(f"the loss must give {len(cases)} numbers, one per case, but gave {losses.shape}")
        return np.asarray(losses[:, None])

    def aggregate(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The mean over cases."""
        return np.asarray(scores.reshape(*scores.shape[:2], -1).mean(axis=1))

    def slope(self, scores: NDArray[np.floating[Any]]) -> tuple[float, NDArray[np.floating[Any]]]:
        """Not offered: a mean is linear in its losses, so modelling them tells no more than modelling it."""
        raise NotImplementedError("CaseLoss is not differentiable")

    def fingerprint(self) -> Mapping[str, Any]:
        """The name of the loss, and the cases."""
        digest = hashlib.blake2b(digest_size=8)
        for split in Split:
            digest.update(split.value.encode())
            _tell(digest, self._parts.get(split, ()))
        return {
            "judge": getattr(self.loss, "__qualname__", type(self.loss).__name__),
            "cases": digest.hexdigest(),
        }


def _tell(digest: Any, value: Any) -> None:
    """Add a payload's content; of objects that have none that is the same in every process, their type."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().float().numpy()
    if isinstance(value, np.ndarray):
        digest.update(repr(value.shape).encode() + np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            digest.update(str(key).encode())
            _tell(digest, item)
    elif isinstance(value, list | tuple):
        digest.update(str(len(value)).encode())
        for item in value:
            _tell(digest, item)
    elif isinstance(value, str | bytes | int | float | bool | None):
        digest.update(repr(value).encode())
    else:
        digest.update(type(value).__qualname__.encode())
