"""Spans of attention heads as block masks of flex_attention, which skips blocks that no query sees.

Blocks are counted from the spans (no mask of queries × keys is made), so masks of long sequences cost next to nothing:
one integer per head and pair of blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from searchlib.objectives.span_masks import Padding

__all__ = ["attend_blocks", "padded_blocks", "span_blocks"]

_BLOCK = 128


def span_blocks(spans: Tensor, length: int, sink: int) -> BlockMask:
    """The block mask of heads ``(1, heads, length, length)`` for a sequence without padding.

    Arguments:
        spans: newest keys each head sees, shape ``(heads,)``.
        length: queries and keys.
        sink: first tokens that stay visible.
    """
    count = -(-length // _BLOCK)
    place = torch.arange(count, device=spans.device)
    row, column = place[:, None], place
    nearest = ((row - column) * _BLOCK - (_BLOCK - 1)).clamp(min=0)  # keys back from the query, at least and at most
    farthest = (row - column) * _BLOCK + _BLOCK - 1
    width = spans[:, None, None]
    before = column < row
    some = (column <= row) & ((nearest < width) | (column * _BLOCK < sink))
    whole_row = (row + 1) * _BLOCK <= length
    every = before & whole_row & ((farthest < width) | ((column + 1) * _BLOCK <= sink))
    counts = [_listed(part[None]) for part in (some & ~every, every)]
    rule = partial(_near_or_sink, spans, 0, sink)
    return BlockMask.from_kv_blocks(
        *counts[0], *counts[1], BLOCK_SIZE=_BLOCK, mask_mod=rule, seq_lengths=(length, length)
    )


def padded_blocks(spans: Tensor, queries: int, keys: int, sink: int, given: Tensor) -> BlockMask:
    """The block mask of a batch with padding, or of queries that are the last of more keys.

    Arguments:
        spans: shape ``(batch, heads)``.
        queries, keys: how many.
        sink: first real tokens that stay visible.
        given: True where a query may look at all, shape ``(batch, 1, queries, keys)``.
    """
    before = Padding.of(given).before
    rule = partial(_near_or_sink_padded, spans, keys - queries, sink, before, given.expand(len(spans), 1, -1, -1))
    batch, heads = spans.shape
    return create_block_mask(rule, batch, heads, queries, keys, device=str(spans.device))


def attend_blocks(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float | None) -> Tensor:
    """The output ``(batch, queries, heads, dim)``; compiled on CUDA, where only then blocks are skipped."""
    function: Any = _compiled() if query.is_cuda else flex_attention
    grouped = query.shape[1] != key.shape[1]
    output: Tensor = function(query, key, value, block_mask=mask, scale=scaling, enable_gqa=grouped)
    return output.transpose(1, 2).contiguous()


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """How many blocks each row has, and their columns first among all."""
    return blocks.sum(dim=-1).int(), blocks.int().argsort(dim=-1, descending=True, stable=True).int()


def _near_or_sink(spans: Tensor, offset: int, sink: int, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    back = q + offset - k
    return ((back < spans[h]) | (k < sink)) & (back >= 0)


def _near_or_sink_padded(
    spans: Tensor, offset: int, sink: int, before: Tensor, given: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor
) -> Tensor:
    back = q + offset - k
    seen = ((back < spans[b, h]) | (k - before[b] < sink)) & (back >= 0) & given[b, 0, q, k]
    return seen | (back == 0)


@cache
def _compiled() -> Callable[..., Any]:
    return torch.compile(flex_attention, dynamic=False)
