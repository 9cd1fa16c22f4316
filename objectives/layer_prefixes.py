"""Running the last layers of a causal language model from hidden states that an earlier pass left behind.

Candidates that agree in their first layers compute the same there. Profiling one head at a time is the extreme case:
every layer before the changed one is the dense model's. No class is rewritten: for the length of one call the list of
layers in the model is a shorter one, and the hidden states go in as embeddings. Whether that gives the model's own
numbers is tried on a few tokens before it is relied on (models that scale or shift their embeddings fail, and then
every pass runs from the beginning).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, final

import torch
from torch import Tensor, nn

__all__ = ["LayerPrefixes"]


@final
class LayerPrefixes:
    """Passes of a model that begin where the last pass over the same tokens left off.

    Arguments:
        model: a transformers causal language model; reuse needs its decoder layers in ``model.model.layers``.
        reuse: whether to try at all.

    Attributes:
        works: whether hidden states are reused.
        layers_run: layers computed so far.
    """

    def __init__(self, model: Any, *, reuse: bool = True) -> None:
        self.model = model
        self.layers_run = 0
        self._layers = _decoder_layers(model)
        self._tokens: Tensor | None = None
        self._states: list[Tensor] = []
        self.works = reuse and self._layers is not None and self._agrees()

    def logits(self, tokens: Tensor, first: int, keep: Tensor) -> Tensor:
        """Logits ``(batch, positions, vocabulary)`` at some positions, for tokens without padding.

        Arguments:
            tokens: shape ``(batch, length)``.
            first: layers before this one compute what they did in the last call with the same tokens.
            keep: positions, shape ``(positions,)``.
        """
        if self._tokens is not tokens:
            self._tokens, self._states, first = tokens, [], 0
        if not self.works or self._layers is None:
            self.layers_run += self.model.config.get_text_config(decoder=True).num_hidden_layers
            return self.model(tokens, use_cache=False, logits_to_keep=keep).logits
        first = min(first, max(len(self._states) - 1, 0))
        self.layers_run += len(self._layers) - first
        with self._recorded(first), self._cut(first):
            given = {"inputs_embeds": self._states[first]} if first else {"input_ids": tokens}
            return self.model(**given, use_cache=False, logits_to_keep=keep).logits

    def forget(self) -> None:
        """Drop the hidden states."""
        self._tokens, self._states = None, []

    @contextmanager
    def _recorded(self, first: int) -> Iterator[None]:
        """Keep what goes into every layer from ``first`` on."""
        del self._states[first + 1 if first else 0 :]
        with ExitStack() as undo:
            for layer in list(self._layers or ())[first:]:
                hook = partial(self._record, skip=first > 0 and layer is (self._layers or ())[first])
                undo.callback(layer.register_forward_pre_hook(hook, with_kwargs=True).remove)
            yield

    def _record(self, module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], *, skip: bool) -> None:
        if not skip:
            self._states.append(arguments[0] if arguments else named["hidden_states"])

    @contextmanager
    def _cut(self, first: int) -> Iterator[None]:
        inner, full = self.model.model, self._layers
        if first and full is not None:
            inner.layers = nn.ModuleList(list(full)[first:])
        try:
            yield
        finally:
            inner.layers = full

    def _agrees(self) -> bool:
        """Whether starting at any layer gives the logits of starting at the first one."""
        device = self.model.get_input_embeddings().weight.device
        tokens = torch.arange(3, device=device)[None]
        keep = torch.arange(3, device=device)
        self.works = True
        try:
            with torch.inference_mode():
                whole = self.logits(tokens, 0, keep)
                own = self.model(tokens, use_cache=False).logits
                starts = {0, min(1, len(self._layers or ()) - 1), len(self._layers or ()) - 1}
                return torch.equal(whole, own) and all(
                    torch.equal(self.logits(tokens, first, keep), own) for first in sorted(starts)
                )
        except (TypeError, ValueError, AttributeError, KeyError, IndexError, RuntimeError):
            return False
        finally:
            self.forget()
            self.layers_run = 0


def _decoder_layers(model: Any) -> nn.ModuleList | None:
    layers = getattr(getattr(model, "model", None), "layers", None)
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    return layers if isinstance(layers, nn.ModuleList) and len(layers) == count else None
