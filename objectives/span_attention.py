"""A span of its own for every attention head of a loaded causal language model, and taken back without a trace.

MoA (*Mixture of Attention Spans*, Fu et al., arXiv 2406.14909, https://github.com/thu-nics/MoA, MIT), section 3. No
class is rewritten: the attention function is registered with transformers
(:mod:`searchlib.objectives.attention_switch`). On processors it is SDPA with one mask per head; on CUDA, flex_attention
with one block mask per head, which skips what no query sees. A plan whose spans cover everything computes with the
model's own SDPA path, to the bit.
"""

from __future__ import annotations

from collections import OrderedDict
from types import TracebackType
from typing import Any, Literal, Self, final

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objectives.attention_switch import AttentionSwitch, attention_shape
from searchlib.objectives.grouped_cache import GroupedStates
from searchlib.objectives.span_blocks import attend_blocks, padded_blocks, span_blocks
from searchlib.objectives.span_masks import Padding, SpanMasks
from searchlib.spaces.attention_plan import AttentionPlan

__all__ = ["SpanAttention", "check_plan"]

Backend = Literal["auto", "sdpa", "flex"]

_CACHED_BLOCK_MASKS = 64
_SMALLEST_COMPILED_HEAD = 16


@final
class SpanAttention:
    """While it is open, the heads of a model see only the spans and sinks of a plan.

    Left padding, caches and grouped queries work as in the model itself. With ``length`` given, or with rules whose
    ``beta`` is 0, decoding token by token computes what one pass over the whole sequence computes. Packed sequences
    count as one sequence. Afterwards the model, its configuration and the registries are what they were.

    Arguments:
        model: a transformers causal language model whose layers all see all tokens before them.
        plan: spans and sinks; None sees everything.
        length: tokens of the whole sequence, prompt and reply, from which spans are computed; None takes the number
            of tokens so far, without padding, sequence by sequence.
        backend: ``"sdpa"``, ``"flex"`` (flex_attention's block masks; compiled on CUDA), or ``"auto"``: flex on CUDA
            for more than one query at a time without gradients and heads of at least 16 numbers, SDPA otherwise.

    Raises:
        UnsupportedModel: a model that is not like this, or, on entering, one whose attention cannot be switched.
        InvalidSettings: a plan for a model of another shape.

    Example::

        plan = AttentionPlan.load("moa_alpha_beta.json")
        with SpanAttention(model, plan, length=8192 + 1024):
            model.generate(**inputs, max_new_tokens=1024)
    """

    def __init__(
        self, model: Any, plan: AttentionPlan | None = None, *, length: int | None = None, backend: Backend = "auto"
    ) -> None:
        if backend not in ("auto", "sdpa", "flex"):
            raise InvalidSettings(f"backend must be 'auto', 'sdpa' or 'flex', but is {backend!r}")
        self.layers, self.heads, self.kv_groups = attention_shape(model)
        self.model, self.backend = model, backend
        self._masks = SpanMasks(AttentionPlan.dense(self.layers, self.heads))
        self._blocks: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._switch = AttentionSwitch(model, self._attend)
        self.use(plan, length)

    def use(self, plan: AttentionPlan | None, length: int | None = None) -> None:
        """Put another plan in force; None sees everything. Takes effect at the next call of the model."""
        chosen = AttentionPlan.dense(self.layers, self.heads) if plan is None else plan
        check_plan(chosen, self.model)
        self._masks.use(chosen, None if length is None else whole_number("length", length, 1))

    @property
    def plan(self) -> AttentionPlan:
        """The plan in force."""
        return self._masks.plan

    def __enter__(self) -> Self:
        self._switch.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._switch.__exit__(kind, error, trace)

    def _attend(
        self, module: nn.Module, query: Tensor, key: Any, value: Any, attention_mask: Tensor | None, **settings: Any
    ) -> tuple[Tensor, Tensor | None]:
        layer = _layer(module, self.layers, settings)
        if isinstance(key, GroupedStates):
            return key.attend(query, attention_mask, settings.get("scaling")), None
        given = None if attention_mask is None else _seen(attention_mask)
        if self._flexes(query):
            mask = self._block_mask(layer, query, key, given)
            return attend_blocks(query, key, value, mask, settings.get("scaling")), None
        mask = self._masks.layer(layer, query.shape[2], key.shape[2], given, query.device)
        if mask is None and query.shape[2] not in (1, key.shape[2]):
            # SDPA's own causal mask puts the first query at the first key; ours are the last ones.
            mask = self._masks.causal(query.shape[2], key.shape[2], query.device)
        return sdpa_attention_forward(module, query, key, value, mask, **settings)

    def _flexes(self, query: Tensor) -> bool:
        _, _, queries, width = query.shape
        too_small = query.is_cuda and width < _SMALLEST_COMPILED_HEAD
        if self.backend == "auto":
            return query.is_cuda and queries > 1 and not too_small and not torch.is_grad_enabled()
        if self.backend == "flex" and too_small:
            raise UnsupportedModel(
                f"flex_attention on CUDA takes heads of at least {_SMALLEST_COMPILED_HEAD} numbers, but those of this "
                f"model have {width}; pass backend='sdpa'"
            )
        return self.backend == "flex"

    def _block_mask(self, layer: int, query: Tensor, key: Tensor, given: Tensor | None) -> Any:
        queries, keys, sink = query.shape[2], key.shape[2], self.plan.sink
        if given is not None or queries < keys:
            seen = _causal(queries, keys, query.device) if given is None else given
            spans = self._masks.batch_spans(layer, Padding.of(seen)).to(query.device)
            return padded_blocks(spans, queries, keys, sink, seen)
        row = self._masks.spans(layer, self._masks.length or keys)
        known = (row.tobytes(), sink, keys, query.device)
        if known not in self._blocks:
            self._blocks[known] = span_blocks(torch.from_numpy(row).to(query.device), keys, sink)
            if len(self._blocks) > _CACHED_BLOCK_MASKS:
                self._blocks.popitem(last=False)
        return self._blocks[known]


def check_plan(plan: AttentionPlan, model: Any) -> None:
    """Refuse a plan that is for a model of another shape.

    Raises:
        InvalidSettings: with both shapes.
    """
    layers, heads, _ = attention_shape(model)
    if (plan.layers, plan.heads) != (layers, heads):
        raise InvalidSettings(
            f"the plan is for {plan.layers} layers of {plan.heads} heads, but {type(model).__name__} has {layers} "
            f"layers of {heads} heads"
        )


def _layer(module: Any, layers: int, settings: dict[str, Any]) -> int:
    layer = getattr(module, "layer_idx", None)
    if layer is None or not 0 <= layer < layers:
        raise UnsupportedModel(f"{type(module).__name__} does not say which of the {layers} layers it belongs to")
    odd = [name for name in ("softcap", "s_aux", "position_bias", "cache") if settings.get(name) is not None]
    if odd:
        raise UnsupportedModel(f"{type(module).__name__} needs {odd[0]!r}, which spans of attention heads do not know")
    return int(layer)


def _seen(mask: Tensor) -> Tensor:
    """A mask as booleans; an additive one is 0 where a query may look."""
    return mask if mask.dtype == torch.bool else mask == 0


def _causal(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.ones(1, 1, queries, keys, dtype=torch.bool, device=device).tril(keys - queries)
