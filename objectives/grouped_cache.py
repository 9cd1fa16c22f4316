"""A cache that forgets what no query will see again: real memory for plans of few rules per layer.

The caches of transformers are rectangular: one head with a long span makes all heads of its layer keep everything. Here
the key-value heads of a layer are stored in groups of equal span (MoA allows two rules per layer, arXiv 2406.14909,
section 4), each with the sinks and its newest keys only. Keys keep the rotary positions they were computed with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from searchlib.errors import InvalidSettings
from searchlib.objectives.attention_switch import attention_shape
from searchlib.spaces.attention_plan import AttentionPlan

__all__ = ["GroupedCache", "GroupedStates"]


@final
@dataclass(frozen=True)
class _Group:
    """Heads of one span: their key-value heads, keys and values ``(batch, heads, kept, dim)``, and positions."""

    heads: Tensor
    span: int
    keys: Tensor
    values: Tensor
    places: Tensor


@final
@dataclass(frozen=True)
class GroupedStates:
    """What the attention of one layer looks at: the groups, stored and new keys together.

    Arguments:
        groups: heads of equal span.
        sink: tokens that stay visible.
        kv_heads: key-value heads in all.
    """

    groups: tuple[_Group, ...]
    sink: int
    kv_heads: int

    def attend(self, query: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
        """The output ``(batch, queries, heads, dim)`` for queries ``(batch, heads, queries, dim)``."""
        if mask is not None and not bool(mask[:, :, -1].all()):
            raise InvalidSettings("a cache in groups holds no padding; give sequences of one length, or another cache")
        batch, heads, queries, _ = query.shape
        shares = heads // self.kv_heads
        rows = query.unflatten(1, (self.kv_heads, shares))
        output = query.new_empty(batch, self.kv_heads, shares, queries, self.groups[0].values.shape[-1])
        for group in self.groups:
            last = group.places[-1]
            back = torch.arange(int(last) - queries + 1, int(last) + 1, device=query.device)[:, None] - group.places
            seen = ((back < group.span) | (group.places < self.sink)) & (back >= 0)
            output[:, group.heads] = torch.nn.functional.scaled_dot_product_attention(
                rows[:, group.heads], group.keys[:, :, None], group.values[:, :, None], seen, scale=scaling
            )
        return output.flatten(1, 2).transpose(1, 2).contiguous()


@final
class _GroupedLayer(DynamicLayer):
    """One layer; ``update`` gives :class:`GroupedStates` instead of tensors, which only ``SpanAttention`` reads."""

    is_croppable = False

    def __init__(self, spans: Tensor, sink: int) -> None:
        super().__init__()
        self.spans, self.sink, self.seen = spans, sink, 0
        self.groups: tuple[_Group, ...] = ()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        device, new = key_states.device, key_states.shape[2]
        if not self.groups:
            nothing = torch.empty(0, dtype=torch.long, device=device)
            by_span = [(int(span), (self.spans == span).nonzero()[:, 0].to(device)) for span in self.spans.unique()]
            self.groups = tuple(
                _Group(heads, span, key_states[:, heads, :0], value_states[:, heads, :0], nothing)
                for span, heads in by_span
            )
        places = torch.arange(self.seen, self.seen + new, device=device)
        full = tuple(self._longer(group, key_states, value_states, places) for group in self.groups)
        self.groups = tuple(self._shorter(group) for group in full)
        self.seen += new
        return GroupedStates(full, self.sink, key_states.shape[1]), None

    def _longer(self, group: _Group, keys: Tensor, values: Tensor, places: Tensor) -> _Group:
        return _Group(
            group.heads,
            group.span,
            torch.cat([group.keys, keys[:, group.heads]], dim=2),
            torch.cat([group.values, values[:, group.heads]], dim=2),
            torch.cat([group.places, places]),
        )

    def _shorter(self, group: _Group) -> _Group:
        """What the next query sees, which brings its own key: the sinks and ``span - 1`` keys."""
        stays = (group.places < self.sink) | (group.places > group.places[-1] + 1 - group.span)
        if bool(stays.all()):
            return group
        keys, values = group.keys[:, :, stays], group.values[:, :, stays]  # copies, so that the rest is freed
        return _Group(group.heads, group.span, keys, values, group.places[stays])

    def get_seq_length(self) -> int:
        return self.seen

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.seen + query_length, 0

    def reset(self) -> None:
        self.groups, self.seen = (), 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def crop(self, tokens_to_remove: int) -> None:
        raise InvalidSettings("a cache in groups has forgotten what it would need to take tokens back")

    def batch_repeat_interleave(self, repeats: int) -> None:
        rows = [group.keys.shape[0] for group in self.groups[:1]]
        for count in rows:
            self.batch_select_indices(torch.arange(count).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        self.groups = tuple(
            _Group(g.heads, g.span, g.keys[indices.to(g.keys.device)], g.values[indices.to(g.keys.device)], g.places)
            for g in self.groups
        )


@final
class GroupedCache(Cache):
    """``past_key_values`` for a model under ``SpanAttention``; pass it to ``generate`` or to the model.

    Holds no padding: prompts of a batch must be of one length. Tokens cannot be taken back (no assisted decoding).

    Arguments:
        model: the model.
        plan: spans and sinks; with grouped queries a key-value head keeps what its widest head needs, and all its
            heads see that.
        length: tokens of the whole sequence, prompt and reply.

    Raises:
        InvalidSettings: a plan of another shape, or heads of one key-value head with different spans.

    Example::

        with SpanAttention(model, plan, length=length):
            cache = GroupedCache(model, plan, length)
            model.generate(prompt, past_key_values=cache, max_new_tokens=length - prompt.shape[1])
            print(cache.stored_bytes)
    """

    def __init__(self, model: Any, plan: AttentionPlan, length: int) -> None:
        layers, heads, shares = attention_shape(model)
        if (plan.layers, plan.heads) != (layers, heads):
            shapes = f"{plan.layers} × {plan.heads} heads, but the model has {layers} × {heads}"
            raise InvalidSettings(f"the plan is for {shapes}")
        spans = torch.from_numpy(plan.span(length)).unflatten(1, (heads // shares, shares))
        if not bool((spans == spans[:, :, :1]).all()):
            raise InvalidSettings(
                f"the {shares} heads of a key-value head must have one span; take plan.shared({shares}, {length})"
            )
        super().__init__(layers=[_GroupedLayer(row, plan.sink) for row in spans[:, :, 0]])

    @property
    def stored_bytes(self) -> int:
        """Bytes of all keys and values that are held, measured on the tensors' storage."""
        layers: list[Any] = self.layers
        groups = [group for layer in layers for group in layer.groups]
        return sum(t.untyped_storage().nbytes() for group in groups for t in (group.keys, group.values))
