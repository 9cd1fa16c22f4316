"""A forward hook by which a router chooses slots instead of experts."""

from __future__ import annotations

from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from searchlib.objectives.expert_matrices import Matrix, one_hot_index
from searchlib.objectives.moe_layers import MoeLayer

__all__ = ["RouterHook"]


@final
class RouterHook:
    """Forward hook on a router that replaces its weights and indices by those of the mapped slots.

    Inert until :meth:`set` is called. The logits pass through unchanged, so that ``output_router_logits=True`` still
    records those of all experts.
    """

    def __init__(self, layer: MoeLayer) -> None:
        self._layer = layer
        self._mapping: Tensor | None = None
        self._experts: Tensor | None = None
        self._top_k = 0

    def set(self, router: Matrix, experts: NDArray[np.int64] | None, top_k: int) -> None:
        """Route to slots from now on.

        Arguments:
            router: ``W_RM``, shape ``(keep, experts)``.
            experts: the stored expert of every slot, shape ``(keep,)``; None where slot j is stored as expert j.
            top_k: slots per token.
        """
        index = one_hot_index(router)
        self._mapping = torch.tensor(router, dtype=torch.float32) if index is None else torch.from_numpy(index.copy())
        self._experts = None if experts is None else torch.from_numpy(experts.copy())
        self._top_k = top_k

    def clear(self) -> None:
        """Leave the router alone again."""
        self._top_k = 0

    def __call__(self, module: nn.Module, arguments: Any, output: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Called by torch after the router has run."""
        del module, arguments
        if not self._top_k:
            return None
        logits, weights, index = output[:3]
        assert self._mapping is not None
        self._mapping = self._mapping.to(logits.device)
        layer = self._layer
        own_weights, slots = layer.rule.route(logits, self._top_k, self._mapping, layer.correction)
        if self._experts is not None:
            self._experts = self._experts.to(logits.device)
            slots = self._experts[slots]
        return (logits, own_weights.to(weights.dtype), slots.to(index.dtype), *output[3:])
