"""What every head would lose by a shorter span, estimated from a single pass: attention mass, and MoA's Taylor series.

The reference is measured head by head (:func:`searchlib.measure_profile`), which needs no gradients but a pass per head
and rule. These two need one pass in all. Both sum, over the keys that a rule masks out, a number per entry of the
attention matrix, so losses fall as spans grow:

* attention mass: the entry ``A_ij`` itself. Forward only.
* Taylor: ``|E_ij|`` with ``E_ij = A_ij (sum_n A_in G_in - G_ij) / (1 - A_ij)`` and ``G = dL/dA``: the first-order
  change of the loss when an entry is removed and its row is normalized again (MoA, arXiv 2406.14909, section 4.1). The
  released code takes absolute values, the paper's formula does not; signed sums over a masked set are minus those over
  the kept set and say next to nothing (rank correlation with the truth below zero where it was measured).

Both hold whole attention matrices: all layers' at once for Taylor, one layer's at a time for the mass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from searchlib.cases import Cases, Split
from searchlib.objectives.attention_switch import AttentionSwitch, attention_shape
from searchlib.objectives.evaluation_mode import evaluating
from searchlib.objectives.token_cases import TokenCase, batches_by_length
from searchlib.spaces.attention_configs import AttentionConfigs
from searchlib.spaces.attention_plan import spans

if TYPE_CHECKING:
    from searchlib.objectives.sparse_attention import SparseAttention

__all__ = ["attention_mass_profile", "taylor_profile"]

_NUMBERS = 2**26  # entries of attention matrices held at once


def attention_mass_profile(objective: SparseAttention, cases: Cases | None = None) -> NDArray[np.float64]:
    """The attention of each part that each rule masks out, per query, mean over cases: ``(1, parts, options)``.

    Arguments:
        objective: closed or open.
        cases: by default its SEARCH cases.
    """
    return _profile(objective, cases, gradients=False)


def taylor_profile(objective: SparseAttention, cases: Cases | None = None) -> NDArray[np.float64]:
    """The first-order change of the loss by each rule for each part, mean over cases: ``(1, parts, options)``.

    The one estimate that needs gradients; those of the parameters are not computed and ``.grad`` is left alone.

    Arguments:
        objective: closed or open.
        cases: by default its SEARCH cases.
    """
    return _profile(objective, cases, gradients=True)


def _profile(objective: SparseAttention, cases: Cases | None, *, gradients: bool) -> NDArray[np.float64]:
    chosen = objective.cases(Split.SEARCH) if cases is None else cases
    payload: list[TokenCase] = list(chosen.payload or ())
    space, model = objective.space, objective.model
    layers, heads, _ = attention_shape(model)
    device = model.get_input_embeddings().weight.device
    total = np.zeros((space.dimension, len(space.rules)))
    with evaluating(model):
        longest = max(map(len, payload))
        # A batch's matrices of all layers, or of one.
        most = _NUMBERS // (heads * longest * (layers if gradients else 1))
        for index, tokens in batches_by_length(payload, max(longest, most)):
            watch = _Watch(space.sink, layers, gradients)
            with AttentionSwitch(model, watch.attend), torch.set_grad_enabled(gradients):
                batch = [payload[i] for i in index]
                if gradients:
                    watch.differentiate(_losses(model, tokens.to(device), batch))
                else:
                    model(tokens.to(device), use_cache=False)
                far = watch.distances()
            total += _masked_out(far, space, tokens.shape[1])
    return total[None] / len(payload)


def _losses(model: Any, tokens: Tensor, cases: list[TokenCase]) -> Tensor:
    """The sum over cases of the mean loss of their responses."""
    logits = model(tokens, use_cache=False).logits[:, :-1].float()
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    counts = torch.tensor([case.response for case in cases], device=tokens.device)[:, 1:]
    return ((each * counts).sum(dim=1) / counts.sum(dim=1)).sum()


def _masked_out(far: NDArray[np.float64], space: AttentionConfigs, length: int) -> NDArray[np.float64]:
    """What lies outside of every rule's span, ``(parts, options)``; ``far`` holds sums by distance."""
    alphas, betas = np.array(space.rules).T
    beyond = np.zeros((*far.shape[:2], length + 1))
    beyond[:, :, :-1] = far[:, :, ::-1].cumsum(axis=2)[:, :, ::-1]  # at d: the sum over distances of d and more
    outside = beyond[:, :, spans(alphas, betas, length, space.block)]
    return outside.reshape(space.dimension, -1, len(space.rules)).sum(axis=1)


@final
class _Watch:
    """An attention function that looks at its own matrices."""

    def __init__(self, sink: int, layers: int, gradients: bool) -> None:
        self._sink, self._gradients = sink, gradients
        self._seen: list[Any] = [None] * layers

    def attend(
        self, module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **settings: Any
    ) -> tuple[Tensor, None]:
        shares = query.shape[1] // key.shape[1]
        keys, values = (states.repeat_interleave(shares, dim=1) for states in (key, value))
        scaling = settings.get("scaling")
        scores = query @ keys.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        weights = scores.masked_fill(future, -torch.inf).softmax(dim=-1, dtype=torch.float32)
        if self._gradients:
            if not weights.requires_grad:  # a model whose parameters are frozen
                weights.requires_grad_()
            self._seen[module.layer_idx] = weights
        else:
            self._seen[module.layer_idx] = _by_distance(weights, self._sink) / weights.shape[-1]
        return (weights.to(values.dtype) @ values).transpose(1, 2).contiguous(), None

    def differentiate(self, loss: Tensor) -> None:
        """Put what the loss changes by in place of the attention itself."""
        slopes = torch.autograd.grad(loss, self._seen)
        self._seen = [
            _by_distance(_removal(weights.detach(), slope), self._sink)
            for weights, slope in zip(self._seen, slopes, strict=True)
        ]

    def distances(self) -> NDArray[np.float64]:
        """Sums of entries by their distance from the diagonal, ``(layers, heads, length)``."""
        return torch.stack(self._seen).double().cpu().numpy()


def _removal(weights: Tensor, slope: Tensor) -> Tensor:
    """MoA's ``|E|``; a row's only entry is lost with nothing in its place."""
    row = (weights * slope).sum(dim=-1, keepdim=True)
    rest = 1 - weights
    alone = rest <= 1e-6
    exact = weights * (row - slope) / rest.masked_fill(alone, 1)
    return torch.where(alone, weights * slope, exact).abs()


def _by_distance(entries: Tensor, sink: int) -> Tensor:
    """Entries ``(batch, heads, queries, keys)`` summed over the batch and by distance, sinks left out."""
    total = entries.sum(dim=0)
    total[..., :sink] = 0
    length = total.shape[-1]
    place = torch.arange(length, device=total.device)
    back = (place[:, None] - place).clamp(min=0)  # what lies above the diagonal is zero
    return total.new_zeros(len(total), length).index_add_(1, back.flatten(), total.flatten(1))
