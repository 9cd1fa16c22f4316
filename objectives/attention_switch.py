"""Another attention function inside a loaded transformers model, for a while.

Models of ``transformers`` look up their attention by name in ``AttentionInterface``, and their masks by the same name
in ``AttentionMaskInterface``. A name that is registered only in the first gets *no mask at all*: every token then sees
the future, silently. So both are registered here, under a name of their own, and taken back together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, final

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from searchlib.errors import InvalidSettings, UnsupportedModel

__all__ = ["AttentionFunction", "AttentionSwitch", "attention_shape"]

#: ``(module, query, key, value, attention_mask, scaling=…, dropout=…, **more) -> (output, weights or None)``.
AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


def attention_shape(model: Any) -> tuple[int, int, int]:
    """Layers, query heads and query heads per key-value head of a causal language model.

    Raises:
        UnsupportedModel: not a transformers model, one with an encoder, or one whose layers do not all see all tokens
            before them (sliding windows, chunks, linear attention): spans of their own would be mixed with ours.
    """
    name = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise UnsupportedModel(f"{name} is not a transformers model, so its attention cannot be switched")
    config: Any = model.config.get_text_config(decoder=True)
    if getattr(model.config, "is_encoder_decoder", False):
        raise UnsupportedModel(f"{name} has an encoder, but a causal language model is needed")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"]) - {"full_attention"}
    window = getattr(config, "sliding_window", None)
    if kinds or (window is not None and getattr(config, "use_sliding_window", True)):
        limit = f"layers of the kind {sorted(kinds)}" if kinds else f"sliding_window={window}"
        raise UnsupportedModel(f"{name} has {limit}; only models whose layers all see all tokens before them are known")
    try:
        layers, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
    except AttributeError as error:
        raise UnsupportedModel(f"the configuration of {name} does not say its layers and heads: {error}") from error
    return layers, heads, heads // int(getattr(config, "num_key_value_heads", None) or heads)


@final
class AttentionSwitch:
    """While it is open, a model computes attention with another function; afterwards everything is as it was.

    No class is rewritten. The function gets keys and values of ``num_key_value_heads`` heads, rotated and with the
    cache's, and ``attention_mask``: None, or True where a query may look, ``(batch, 1, queries, keys)``. **None means
    causal**, not unmasked: the function must mask the future itself.

    Arguments:
        model: any causal language model of transformers that looks up its attention by name.
        function: see :data:`AttentionFunction`.

    Raises:
        UnsupportedModel: on entering; the model's attention cannot be switched.
    """

    def __init__(self, model: Any, function: AttentionFunction) -> None:
        attention_shape(model)
        self.model, self.function = model, function
        self._undo = ExitStack()
        self._open = False

    def __enter__(self) -> Self:
        if self._open:
            raise InvalidSettings("this attention is switched already; leave its context before entering it again")
        with ExitStack() as undo:
            name = f"searchlib_attention_{id(self)}"
            for interface, function in ((AttentionInterface, self.function), (AttentionMaskInterface, _mask)):
                interface.register(name, function)
                undo.callback(interface._global_mapping.pop, name)
            for config in _configs(self.model):
                own = config._attn_implementation_internal
                undo.callback(setattr, config, "_attn_implementation_internal", own)
            self._switch(name)
            self._open = True
            self._undo = undo.pop_all()
        return self

    def _switch(self, name: str) -> None:
        model, kind = self.model, type(self.model).__name__
        if not model._can_set_attn_implementation():
            raise UnsupportedModel(f"{kind} does not look up its attention by name, so it cannot be switched")
        try:
            model.set_attn_implementation(name)
        except (ValueError, KeyError, ImportError) as error:
            raise UnsupportedModel(f"the attention of {kind} cannot be switched: {error}") from error
        stubborn = [type(config).__name__ for config in _configs(model) if config._attn_implementation != name]
        if stubborn:
            raise UnsupportedModel(f"the attention of {kind} cannot be switched: {stubborn} kept another one")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._undo.close()


def _configs(model: Any) -> Iterator[Any]:
    """Every configuration that names an attention: the model's, its parts', and those nested in them, once each."""
    waiting = [module.config for module in model.modules() if isinstance(module, PreTrainedModel)]
    seen: set[int] = set()
    while waiting:
        config = waiting.pop(0)
        if id(config) not in seen:
            seen.add(id(config))
            waiting += [part for key in config.sub_configs if (part := getattr(config, key, None)) is not None]
            yield config


def _mask(batch_size: int, q_length: int, kv_length: int, *rest: Any, **settings: Any) -> Tensor | None:
    """The mask of SDPA; None where it is causal and nothing else."""
    offset = settings.get("q_offset", 0)
    if isinstance(offset, torch.Tensor) or settings.get("kv_offset", 0) != 0 or kv_length != offset + q_length:
        raise UnsupportedModel(
            f"keys must be all tokens so far, but there are {kv_length} of them for {q_length} new tokens after "
            f"{offset}; use a dynamic cache, not a static or a sliding one"
        )
    return sdpa_mask(batch_size, q_length, kv_length, *rest, **settings)
