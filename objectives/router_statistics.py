"""What the routers of a full model do on calibration cases: how often they choose each expert, and on which inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objectives.moe_layers import MoeLayer

__all__ = ["RouterRecorder", "RouterStatistics"]


@final
@dataclass(frozen=True, eq=False)
class RouterStatistics:
    """What the routers of the full model did on calibration cases.

    Arguments:
        frequency: how often each expert was among the chosen, ``(layers, experts)``.
        soft: accumulated scores of each expert over all tokens (the softmax before top-k), ``(layers, experts)``.
        tokens: number of tokens counted; padding is not.
        inputs: for every layer the inputs of the routed experts on the calibration tokens, ``(n, hidden)``, in main
            memory.
        logits: for every layer the router's logits on the same tokens, ``(n, experts)``.
    """

    frequency: NDArray[np.float64]
    soft: NDArray[np.float64]
    tokens: int
    inputs: tuple[Tensor, ...]
    logits: tuple[Tensor, ...]


@final
class RouterRecorder:
    """Hooks that count what routers choose and keep the calibration tokens.

    Arguments:
        layers: the layers to watch, with their full experts.
        experts: number of experts in each.
        sequences: how many sequences contribute calibration tokens, the first ones.
        per_sequence: most calibration tokens of each, evenly spaced.
    """

    def __init__(self, layers: tuple[MoeLayer, ...], experts: int, sequences: int, per_sequence: int) -> None:
        self._layers = layers
        self._per_sequence = per_sequence
        self._left = sequences
        self._tokens = 0
        self._mask = torch.ones(0, dtype=torch.bool)
        self._kept = torch.zeros(0, dtype=torch.int64)
        self._frequency = torch.zeros(len(layers), experts, dtype=torch.float64)
        self._soft = torch.zeros(len(layers), experts, dtype=torch.float64)
        self._inputs: list[list[Tensor]] = [[] for _ in layers]
        self._logits: list[list[Tensor]] = [[] for _ in layers]

    @contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Record every forward pass of the model inside the context.

        Raises:
            InvalidSettings: from a forward pass without tokens, or with a mask that is not one number per token.
            UnsupportedModel: from a forward pass in which a router sees other tokens than the model was given.
        """
        with ExitStack() as undo:
            undo.callback(model.register_forward_pre_hook(self._begin, with_kwargs=True).remove)
            for number, layer in enumerate(self._layers):
                undo.callback(layer.router.register_forward_hook(self._router_hook(number)).remove)
                hook = layer.experts.register_forward_pre_hook(self._experts_hook(number), with_kwargs=True)
                undo.callback(hook.remove)
            yield

    def _begin(self, model: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        del model
        given = keywords.get("input_ids")
        given = keywords.get("inputs_embeds") if given is None else given
        given = arguments[0] if given is None and arguments else given
        if given is None:
            raise InvalidSettings("statistics need forward passes with input_ids or inputs_embeds")
        rows, columns = given.shape[:2]
        mask = keywords.get("attention_mask")
        if mask is None:
            mask = torch.ones(rows, columns)
        elif not isinstance(mask, Tensor) or mask.ndim != 2:
            raise InvalidSettings("statistics need a two-dimensional attention_mask, 1 for tokens and 0 for padding")
        mask = mask[:, -columns:].bool().cpu()
        self._kept = self._calibration_tokens(mask)
        self._mask = mask.reshape(-1)
        self._tokens += int(mask.sum())

    def _calibration_tokens(self, mask: Tensor) -> Tensor:
        chosen = []
        for row, valid in enumerate(mask[: self._left]):
            positions = valid.nonzero().reshape(-1)
            spaced = torch.linspace(0, len(positions) - 1, min(self._per_sequence, len(positions))).round().long()
            chosen.append(row * mask.shape[1] + positions[spaced])
        self._left -= len(chosen)
        return torch.cat(chosen) if chosen else torch.zeros(0, dtype=torch.int64)

    def _router_hook(self, number: int) -> Callable[..., None]:
        def record(router: nn.Module, arguments: Any, output: tuple[Tensor, ...]) -> None:
            del router, arguments
            logits, _, index = output[:3]
            if len(logits) != len(self._mask):
                name = self._layers[number].name
                raise UnsupportedModel(f"{name}: expected {len(self._mask)} tokens at its router, got {len(logits)}")
            valid = self._mask.to(logits.device)
            experts = logits.shape[-1]
            self._frequency[number] += torch.bincount(index[valid].reshape(-1), minlength=experts).cpu()
            scores = self._layers[number].rule.scores(logits[valid])
            self._soft[number] += scores.sum(dim=0, dtype=torch.float64).cpu()
            self._logits[number].append(logits[self._kept.to(logits.device)].cpu())

        return record

    def _experts_hook(self, number: int) -> Callable[..., None]:
        def record(experts: nn.Module, arguments: tuple[Tensor, ...], keywords: dict[str, Tensor]) -> None:
            del experts
            hidden = arguments[0] if arguments else keywords["hidden_states"]
            hidden = hidden.reshape(-1, hidden.shape[-1])
            self._inputs[number].append(hidden[self._kept.to(hidden.device)].cpu())

        return record

    def statistics(self) -> RouterStatistics:
        """What was recorded so far.

        Raises:
            InvalidSettings: nothing was.
        """
        if not self._tokens:
            raise InvalidSettings("statistics need at least one forward pass of the model with tokens, got none")
        return RouterStatistics(
            frequency=self._frequency.numpy(),
            soft=self._soft.numpy(),
            tokens=self._tokens,
            inputs=tuple(torch.cat(parts) for parts in self._inputs),
            logits=tuple(torch.cat(parts) for parts in self._logits),
        )
