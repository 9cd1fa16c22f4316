"""Sequences of tokens of which some are answers: what a loss over a reply is measured on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self, final

import numpy as np
import torch

from searchlib.arguments import numbers, shown
from searchlib.errors import InvalidSettings
from searchlib.objectives.answer_cases import Case, answer_tokens, prompt_tokens

__all__ = ["TokenCase", "batches_by_length", "own_answers", "token_cases"]


@final
@dataclass(frozen=True)
class TokenCase:
    """A sequence, and which of its tokens count.

    Arguments:
        tokens: two or more token ids.
        response: one bool per token: those the model should predict. The first cannot be, nothing comes before it.

    Raises:
        InvalidSettings: lengths that differ, or no token that counts.

    Example:
        >>> TokenCase.answered((5, 6, 7), (8, 9)).response
        (False, False, False, True, True)
    """

    tokens: tuple[int, ...]
    response: tuple[bool, ...]

    def __post_init__(self) -> None:
        tokens, response = numbers("tokens", self.tokens, np.int64), numbers("response", self.response, np.bool_)
        if tokens.ndim != 1 or response.ndim != 1:
            raise InvalidSettings(
                f"tokens and response must have one entry per token, but are {shown(self.tokens)} and "
                f"{shown(self.response)}"
            )
        object.__setattr__(self, "tokens", tuple(tokens.tolist()))
        object.__setattr__(self, "response", tuple(response.tolist()))
        if len(self.tokens) != len(self.response) or not any(self.response) or self.response[0]:
            raise InvalidSettings(
                f"a case needs one bool per token, some of them True, the first False, but there are "
                f"{len(self.tokens)} tokens and {sum(self.response)} True of {len(self.response)} bools"
            )

    @classmethod
    def answered(cls, prompt: Sequence[int], answer: Sequence[int]) -> Self:
        """A prompt and its answer, which counts."""
        return cls((*prompt, *answer), (False,) * len(prompt) + (True,) * len(answer))

    @classmethod
    def whole(cls, tokens: Sequence[int]) -> Self:
        """Every token but the first counts: perplexity."""
        return cls(tuple(tokens), (False,) + (True,) * (len(tokens) - 1))

    def __len__(self) -> int:
        return len(self.tokens)


def token_cases(cases: Sequence[TokenCase | Case], tokenizer: Any = None) -> list[TokenCase]:
    """Cases as tokens; of questions with answers, the answer counts.

    Raises:
        InvalidSettings: strings without a tokenizer, or other objects.
    """
    found = []
    for i, case in enumerate(cases):
        if isinstance(case, Case):
            answer = answer_tokens(tokenizer, case.prompt, case.answer)
            case = TokenCase.answered(prompt_tokens(tokenizer, case.prompt), answer)
        if not isinstance(case, TokenCase):
            raise InvalidSettings(f"cases must be TokenCase or Case objects, but cases[{i}] is {case!r:.80}")
        found.append(case)
    return found


def batches_by_length(cases: Sequence[TokenCase], batch_tokens: int) -> Iterator[tuple[list[int], torch.Tensor]]:
    """Indices and tokens ``(batch, length)`` of cases of one length, so that there is no padding, shortest first."""
    lengths = np.array([len(case) for case in cases])
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        size = max(1, batch_tokens // int(length))
        for start in range(0, len(same), size):
            index = same[start : start + size].tolist()
            yield index, torch.tensor([cases[i].tokens for i in index])


def own_answers(model: Any, cases: Sequence[TokenCase], *, batch_tokens: int = 8192) -> list[TokenCase]:
    """The cases with the model's own greedy answers, of the same lengths, in place of those given.

    MoA measures spans on what the dense model itself replies: with human answers it found plans half as good (arXiv
    2406.14909, section 4.2 and Table 6). End tokens are treated as any other.

    Raises:
        InvalidSettings: a case whose response is not its end.
    """
    starts = []
    for i, case in enumerate(cases):
        start = case.response.index(True)
        if not all(case.response[start:]):
            raise InvalidSettings(f"a reply can be written only at the end, but cases[{i}] counts other tokens")
        starts.append(start)
    answered = list(cases)
    for start in sorted(set(starts)):
        group = [i for i, own in enumerate(starts) if own == start]
        for index, tokens in batches_by_length([cases[i] for i in group], batch_tokens):
            written = _greedy(model, tokens[:, :start], tokens.shape[1] - start)
            for row, i in enumerate(index):
                case = cases[group[i]]
                answered[group[i]] = TokenCase((*case.tokens[:start], *written[row].tolist()), case.response)
    return answered


def _greedy(model: Any, prompt: torch.Tensor, new: int) -> torch.Tensor:
    """The ``new`` likeliest tokens one after the other, shape ``(batch, new)``."""
    device = model.get_input_embeddings().weight.device
    written: list[torch.Tensor] = []
    with torch.inference_mode():
        tokens, cache = prompt.to(device), None
        for _ in range(new):
            output = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            tokens, cache = output.logits[:, -1:].argmax(-1), output.past_key_values
            written.append(tokens.cpu())
    return torch.cat(written, dim=1)
