"""Putting prompts through a causal language model and letting it write, in the two ways there are.

:class:`HeadDecoder` computes the keys and values of each head once and hands them to every row that begins with it;
rows that have ended leave the batch. That is possible only where the whole memory of the model is keys and values, of
all tokens, in every layer (:func:`attends_to_all`). Models with sliding windows, recurrent states or caches of their
own go through ``model.generate`` (:func:`generate`), with the same draws and the same ends.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, StoppingCriteria
from transformers.cache_utils import DynamicLayer

from searchlib.objectives.completions import Completions

__all__ = ["HeadDecoder", "Heads", "attends_to_all", "generate"]


def attends_to_all(model: Any) -> bool:
    """Whether keys and values of some tokens are all that the model needs to know to go on from there.

    Example:
        >>> from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM
        >>> sizes = dict(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
        >>> sizes |= dict(num_key_value_heads=2)
        >>> attends_to_all(LlamaForCausalLM(LlamaConfig(**sizes)))
        True
        >>> attends_to_all(MistralForCausalLM(MistralConfig(**sizes, sliding_window=4)))
        False
    """
    layers = DynamicCache(config=_text_config(model)).layers
    # Exactly this type: those derived from it drop old tokens or remember something besides.
    plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
    arguments = {"past_key_values", "position_ids", "attention_mask"}
    return plain and not getattr(model, "_is_stateful", False) and arguments <= _arguments(model)


@final
@dataclass(frozen=True)
class Heads:
    """What a model remembers of some heads: a mask, shape ``(heads, longest)``, and keys and values of the same."""

    mask: Tensor
    cache: DynamicCache

    def handed_to(self, rows: Sequence[int], *, keep: bool) -> Heads:
        """The heads with these numbers, any of them any number of times; these here are used up unless ``keep``."""
        if not self.mask.shape[1]:
            return Heads(self.mask.new_zeros(len(rows), 0), copy.deepcopy(self.cache))
        cache = self.cache
        if keep:
            cache = copy.copy(cache)
            cache.layers = [copy.copy(layer) for layer in cache.layers]  # selecting rebinds; no tensor is written to
        index = torch.tensor(rows)
        cache.batch_select_indices(index)
        return Heads(self.mask[index], cache)


@final
class HeadDecoder:
    """Computes heads, and lets rows that go on from them write.

    Arguments:
        model: a model that :func:`attends_to_all`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._trims_logits = "logits_to_keep" in _arguments(model)

    def compute(self, heads: Sequence[Sequence[int]]) -> Heads:
        """Put heads through the model, each once; they are all empty, or none is."""
        cache = DynamicCache(config=_text_config(self._model))
        tokens, mask = _left_padded(heads)
        if mask.shape[1]:
            self._forward(tokens, mask, cache)
        return Heads(mask, cache)

    def write(self, writing: Completions, tails: Sequence[Sequence[int]], heads: Heads) -> None:
        """Feed each row's tail after its head, then every token that is drawn, until all rows have ended."""
        seen, cache = heads.mask, heads.cache
        tokens, new = _left_padded(tails)
        while writing.live:
            seen = torch.cat([seen, new], dim=1)
            drawn, going_on = writing.extend(self._forward(tokens, seen, cache))
            if going_on and len(going_on) < len(drawn):
                cache.batch_select_indices(torch.tensor(going_on))
                seen = seen[going_on]
            tokens = torch.tensor([[drawn[i]] for i in going_on])
            new = torch.ones_like(tokens)

    def _forward(self, tokens: Tensor, seen: Tensor, cache: DynamicCache) -> Tensor:
        """Logits after the last of these tokens, ``seen`` being the mask of all that was fed, these included.

        There may be padding between head and tail: the mask hides it, and positions count what is not hidden.
        """
        positions = (seen.cumsum(1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        device = _device(self._model)
        output = self._model(
            input_ids=tokens.to(device),
            attention_mask=seen.to(device),
            position_ids=positions.to(device),
            past_key_values=cache,
            use_cache=True,
            **({"logits_to_keep": 1} if self._trims_logits else {}),
        )
        logits: Tensor = output.logits[:, -1]
        return logits


def generate(
    model: Any, writing: Completions, prompts: Sequence[Sequence[int]], max_tokens: int, padding: int | None
) -> None:
    """Let rows write by ``model.generate``, which knows how to run any model, while the tokens are drawn here."""
    tokens, mask = _left_padded(prompts)
    device = _device(model)
    ends = sorted(writing.ends)
    model.generate(
        input_ids=tokens.to(device),
        attention_mask=mask.to(device),
        max_new_tokens=max_tokens,
        logits_processor=[_Drawing(writing)],
        stopping_criteria=[_Ending(writing)],
        eos_token_id=ends or None,
        pad_token_id=padding if padding is not None else ends[0] if ends else 0,
        do_sample=False,
        num_beams=1,
        # A model's own generation settings may hold penalties, which are no part of the sampling that is asked for.
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
    )


@final
class _Drawing(LogitsProcessor):
    """Leaves greedy decoding no choice but the tokens that are drawn here."""

    def __init__(self, writing: Completions) -> None:
        self._writing = writing

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        live = list(self._writing.live)
        if not live:
            return scores
        drawn, _ = self._writing.extend(scores[live])
        chosen = torch.full_like(scores, -torch.inf)
        chosen[live, drawn] = 0.0
        # Rows that have ended are padded by the caller, but must not be without any possible token.
        chosen[[i for i in range(len(scores)) if i not in set(live)], 0] = 0.0
        return chosen


@final
class _Ending(StoppingCriteria):
    """Ends the rows that have ended here."""

    def __init__(self, writing: Completions) -> None:
        self._writing = writing

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        ended = torch.ones(len(input_ids), dtype=torch.bool, device=input_ids.device)
        ended[self._writing.live] = False
        return ended


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Tokens and mask, both ``(rows, longest)``, all rows ending in the last column."""
    width = max(map(len, rows))
    # The mask hides the padding, so any token of the vocabulary will do.
    tokens = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], dtype=torch.long)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], dtype=torch.long)
    return tokens, mask


def _text_config(model: Any) -> Any:
    return model.config.get_text_config(decoder=True)


def _arguments(model: Any) -> set[str]:
    return set(inspect.signature(model.forward).parameters)


def _device(model: Any) -> torch.device:
    device: torch.device = model.get_input_embeddings().weight.device
    # Weights that accelerate has offloaded are on no device; it moves the inputs by itself.
    return torch.device("cpu") if device.type == "meta" else device
