"""The completions of a batch while they are written: which token comes next, and when a row has ended.

A token is drawn by inverting the distribution function: the tokens that temperature, top-k and top-p have left are laid
end to end by id, each as wide as its probability, and a number from [0, 1) says where to look. There is one such
number per row and step, from a generator of the row's own that starts from its seed and the tokens of its prompt. So a
row draws the same whichever rows are beside it, and two prompts with the same seed draw independently.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from searchlib.errors import UnsupportedModel
from searchlib.objectives.text_model import Sampling, before_stop

__all__ = ["Completions"]


@final
class Completions:
    """The rows of a batch, each getting longer by a token per step until it ends.

    A row ends with an end token, with ``sampling.max_tokens`` tokens, or as soon as a stop string is in its text.

    Arguments:
        tokenizer: turns tokens into text.
        prompts: the tokens of each row's prompt.
        sampling: how tokens are drawn.
        seeds: one integer per row.
        ends: the tokens that end a row; they are no part of its text.

    Example:
        >>> class Letters:
        ...     def decode(self, tokens, skip_special_tokens):
        ...         return "".join("ab."[token] for token in tokens)
        >>> greedy = Sampling(temperature=0, stop=(".",))
        >>> rows = Completions(Letters(), [[0], [1]], greedy, seeds=[0, 0], ends=())
        >>> rows.extend(torch.tensor([[0.0, 2.0, 1.0], [2.0, 0.0, 1.0]]))
        ([1, 0], [0, 1])
        >>> rows.extend(torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 2.0]]))
        ([0, 2], [0])
        >>> rows.text(0), rows.text(1)
        ('ba', 'a')
    """

    def __init__(
        self,
        tokenizer: Any,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        ends: Collection[int],
    ) -> None:
        self.tokens: list[list[int]] = [[] for _ in prompts]
        self.live = list(range(len(prompts)))  # rows that have not ended
        self.drawn = 0  # tokens in all rows, end tokens included
        self.ends = ends
        self._steps = 0
        self._sampling = sampling
        self._decode: Callable[[list[int]], str] = lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True)
        self._last = [prompt[-1] for prompt in prompts]
        self._stop = _StopStrings(self._decode, sampling.stop)
        if sampling.temperature > 0:
            drawn = [_uniforms(prompt, seed, sampling.max_tokens) for prompt, seed in zip(prompts, seeds, strict=True)]
            self._uniforms = torch.from_numpy(np.array(drawn))
            self._restrictions = _restrictions(sampling)

    def extend(self, logits: Tensor) -> tuple[list[int], list[int]]:
        """Write one more token in every row that has not ended.

        Arguments:
            logits: shape ``(len(live), vocabulary)``.

        Returns:
            the token of each of these rows, and which of them (as positions in ``live`` before the call) go on.

        Raises:
            UnsupportedModel: logits that are not numbers.
        """
        tokens = self._next(logits.float())
        going_on = [i for i, token in enumerate(tokens) if not self._ended(self.live[i], token)]
        self.live = [self.live[i] for i in going_on]
        self._steps += 1
        self.drawn += len(tokens)
        return tokens, going_on

    def text(self, row: int) -> str:
        """What the row says, before its first stop string."""
        return before_stop(self._written(row), self._sampling.stop)

    def _next(self, logits: Tensor) -> list[int]:
        if self._sampling.temperature == 0:
            tokens = logits.argmax(-1)
            valid = logits.gather(-1, tokens[:, None]).isfinite()
        else:
            tokens, valid = self._draw(logits)
        if not bool(valid.all()):
            raise UnsupportedModel(
                f"the logits of token {self._steps} of a completion are not finite numbers: the weights are broken, or "
                "the model's number type is too narrow for it (try bfloat16 or float32)"
            )
        chosen: list[int] = tokens.tolist()
        return chosen

    def _draw(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The drawn tokens, and whether the distributions were valid."""
        # Apple's devices have no float64; elsewhere it keeps the sum over a large vocabulary exact.
        exact = torch.float32 if logits.device.type == "mps" else torch.float64
        reached = self._restricted(logits).softmax(-1, dtype=exact).cumsum(-1)
        total = reached[:, -1:].contiguous()
        where = self._uniforms[self.live, self._steps].to(logits.device, exact)[:, None] * total
        # Rounding may put the place at the very end: then the last token that has a probability is meant.
        tokens = torch.minimum(torch.searchsorted(reached, where, right=True), torch.searchsorted(reached, total))
        return tokens[:, 0], total.isfinite()

    def _restricted(self, logits: Tensor) -> Tensor:
        """Temperature, then top-k, then top-p of what is left: the order of ``generate``."""
        for step in self._restrictions:
            logits = step(None, logits)
        return logits

    def _ended(self, row: int, token: int) -> bool:
        if token in self.ends:
            return True
        self.tokens[row].append(token)
        full = len(self.tokens[row]) == self._sampling.max_tokens
        return full or self._stop.reached(token, lambda: self._written(row))

    def _written(self, row: int) -> str:
        """The text of the row's tokens, as it continues the prompt."""
        # Some tokenizers drop a space that begins what they decode, so the prompt's last token is decoded along.
        before = self._decode([self._last[row]])
        both = self._decode([self._last[row], *self.tokens[row]])
        return both[len(before) :] if both.startswith(before) else self._decode(self.tokens[row])


@final
class _StopStrings:
    """Notices stop strings, decoding a whole row only where the last character of one may just have come."""

    def __init__(self, decode: Callable[[list[int]], str], stop: Sequence[str]) -> None:
        self._decode = decode
        self._stop = stop
        self._last_characters = {string[-1] for string in stop}
        self._known: dict[int, bool] = {}

    def reached(self, token: int, text: Callable[[], str]) -> bool:
        """Whether ``text()``, to which ``token`` has just been added, holds a stop string."""
        if not self._stop:
            return False
        if token not in self._known:
            self._known[token] = self._may_end_one(self._decode([token]))
        if not self._known[token]:
            return False
        said = text()
        return any(string in said for string in self._stop)

    def _may_end_one(self, alone: str) -> bool:
        # Decoded alone, a part of a character is a replacement mark, and a space may be lost.
        unclear = not alone or "\ufffd" in alone or " " in self._last_characters
        return unclear or not self._last_characters.isdisjoint(alone)


def _uniforms(prompt: Sequence[int], seed: int, n: int) -> np.ndarray:
    """``n`` numbers from [0, 1) that belong to this prompt and seed; of different ``n``, the same beginning."""
    key = hashlib.blake2b(repr((int(seed), [int(token) for token in prompt])).encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(key, "little")).random(n)


def _restrictions(sampling: Sampling) -> list[Any]:
    steps: list[Any] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_k is not None:
        steps.append(TopKLogitsWarper(int(sampling.top_k)))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(float(sampling.top_p)))
    return steps
