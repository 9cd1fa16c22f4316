"""Which keys every head's queries see: causal, within the span or among the sinks, and not padding."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from searchlib.spaces.attention_plan import AttentionPlan

__all__ = ["Padding", "SpanMasks", "visible"]

_CACHED_BYTES = 2**28
_KNOWN_LENGTHS = 64


class Padding(NamedTuple):
    """Where the real tokens of each sequence of a batch are.

    Arguments:
        before: padding tokens to the left, shape ``(batch,)``.
        lengths: real tokens so far, shape ``(batch,)``.
    """

    before: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> Padding:
        """What a mask ``(batch, 1, queries, keys)`` says: a key that no query may see is padding."""
        real = mask.any(dim=-2).any(dim=1)
        return cls(real.int().argmax(dim=-1), real.sum(dim=-1))


def visible(spans: Tensor, queries: int, keys: int, sink: int, before: Tensor | None = None) -> Tensor:
    """True where a query sees a key, shape ``(batch or 1, heads, queries, keys)``.

    The last query is at the position of the last key. Every query sees itself, padding included, so that no row is
    empty.

    Arguments:
        spans: newest keys each head sees, shape ``(heads,)`` or ``(batch, heads)``.
        queries, keys: how many; queries are the last ones.
        sink: first real tokens that stay visible.
        before: padding to the left of each sequence, shape ``(batch,)``.

    Example:
        >>> visible(torch.tensor([2]), 4, 4, sink=1)[0, 0].int().tolist()
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 1, 1]]
    """
    place = torch.arange(keys, device=spans.device)
    back = place[keys - queries :, None] - place
    near = back < spans.reshape(-1, spans.shape[-1], 1, 1)
    first = place if before is None else place - before[:, None, None, None]
    return (near | (first < sink)) & (back >= 0)


@final
class SpanMasks:
    """The masks of one plan, made when they are needed; without padding each is made once.

    Arguments:
        plan: spans and sinks.
        length: tokens of the whole sequence, prompt and reply; None takes the tokens so far, per sequence. Then a
            rule with ``beta > 0`` grows while a reply is written, and what was computed with a smaller span stays.
    """

    def __init__(self, plan: AttentionPlan, length: int | None = None) -> None:
        self.plan, self.length = plan, length
        self._spans: dict[int, NDArray[np.int64]] = {}
        self._made: OrderedDict[tuple[object, ...], Tensor] = OrderedDict()
        self._bytes = 0

    def use(self, plan: AttentionPlan, length: int | None = None) -> None:
        """Another plan; masks that both have in common are kept."""
        self.plan, self.length = plan, length
        self._spans = {}

    def spans(self, layer: int, length: int) -> NDArray[np.int64]:
        """Spans of the heads of a layer, shape ``(heads,)``."""
        if length not in self._spans:
            if len(self._spans) == _KNOWN_LENGTHS:  # a reply without a planned length meets a new one at every token
                self._spans.clear()
            self._spans[length] = self.plan.span(length)
        return np.asarray(self._spans[length][layer])

    def layer(self, layer: int, queries: int, keys: int, given: Tensor | None, device: torch.device) -> Tensor | None:
        """The mask of a layer for SDPA; ``given`` itself where every head sees everything."""
        if given is None:
            length = self.length or keys
            row = self.spans(layer, length)
            if (row + self.plan.sink >= min(keys, length)).all() and keys <= length:
                return None
            return self._kept(row, queries, keys, device)
        padding = Padding.of(given)
        rows = self.batch_spans(layer, padding)
        if bool((rows + self.plan.sink >= padding.lengths.cpu()[:, None]).all()):
            return given
        return visible(rows.to(device), queries, keys, self.plan.sink, padding.before) & given | _itself(
            queries, keys, device
        )

    def causal(self, queries: int, keys: int, device: torch.device) -> Tensor:
        """The mask of a layer where every head sees everything, for queries that are the last of more keys."""
        return self._kept(np.array([keys]), queries, keys, device)

    def batch_spans(self, layer: int, padding: Padding) -> Tensor:
        """Spans of the heads of a layer, per sequence, shape ``(batch, heads)``."""
        lengths = [self.length] * len(padding.lengths) if self.length else padding.lengths.tolist()
        return torch.from_numpy(np.stack([self.spans(layer, max(1, int(length))) for length in lengths]))

    def _kept(self, row: NDArray[np.int64], queries: int, keys: int, device: torch.device) -> Tensor:
        key = (row.tobytes(), self.plan.sink, queries, keys, device)
        if key in self._made:
            self._made.move_to_end(key)
            return self._made[key]
        mask = visible(torch.from_numpy(row).to(device), queries, keys, self.plan.sink)
        self._made[key] = mask
        self._bytes += mask.numel()
        while self._bytes > _CACHED_BYTES and len(self._made) > 1:
            self._bytes -= self._made.popitem(last=False)[1].numel()
        return mask


def _itself(queries: int, keys: int, device: torch.device) -> Tensor:
    return torch.ones(queries, keys, dtype=torch.bool, device=device).triu(keys - queries).tril(keys - queries)
