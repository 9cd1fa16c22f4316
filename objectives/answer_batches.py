"""Tokenized cases packed into padded batches, and the scores of a batch put together case by case.

The padding comes after the tokens, so no token ever sees it. Continuations of one prompt that share their beginning
share the row, and logits are asked for only at the places that predict a token of an answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["AnswerBatch", "TokenizedCase", "within_budget"]


@final
@dataclass(frozen=True)
class TokenizedCase:
    """A case in tokens.

    ``rows`` are fed to the model; continuation ``j`` (the answer, or option ``j``) consists of the triples
    ``continuations[j]``: (row, place, token), the token being predicted at the place. ``right`` is the index of the
    right option, None where the answer is to be produced.
    """

    prompt: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    continuations: tuple[tuple[tuple[int, int, int], ...], ...]
    right: int | None

    @classmethod
    def of(cls, prompt: tuple[int, ...], answers: list[tuple[int, ...]], right: int | None) -> TokenizedCase:
        """Feed the prompt with each answer but its last token, which is predicted only; shared beginnings once."""
        fed = [prompt + answer[:-1] for answer in answers]
        rows: list[tuple[int, ...]] = []
        for tokens in sorted(fed, key=len, reverse=True):
            if not any(row[: len(tokens)] == tokens for row in rows):
                rows.append(tokens)
        continuations = []
        for tokens, answer in zip(fed, answers, strict=True):
            row = next(r for r, held in enumerate(rows) if held[: len(tokens)] == tokens)
            continuations.append(tuple((row, len(prompt) - 1 + j, token) for j, token in enumerate(answer)))
        return cls(prompt, tuple(rows), tuple(continuations), right)

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return max(map(len, self.rows))


@final
@dataclass(frozen=True)
class AnswerBatch:
    """Padded rows of some cases, where to read the logits, and how to put scores together.

    Logits are needed at the positions ``(rows[p], places[p])``, which in the trimmed logits are
    ``(rows[p], places_trimmed[p])`` as ``columns`` are the only places kept. Token ``t`` of all continuations, laid
    end to end, is ``targets[t]`` and is predicted at position ``which[t]``. Continuation ``j`` begins at ``starts[j]``.
    """

    cases: list[int]
    right: list[int | None]
    options: list[int]
    tokens: Tensor
    mask: Tensor
    columns: Tensor
    rows: Tensor
    places: Tensor
    places_trimmed: Tensor
    which: Tensor
    targets: Tensor
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @classmethod
    def of(cls, cases: list[int], tasks: list[TokenizedCase]) -> AnswerBatch:
        """Pack tokenized cases, ``cases`` being the numbers by which the caller knows them."""
        rows = [row for task in tasks for row in task.rows]
        width = max(map(len, rows))
        first_row = np.cumsum([0, *(len(task.rows) for task in tasks)])
        continuations = [
            [(first_row[i] + row, place, token) for row, place, token in continuation]
            for i, task in enumerate(tasks)
            for continuation in task.continuations
        ]
        triples = np.array([triple for continuation in continuations for triple in continuation], np.int64)
        positions, which = np.unique(triples[:, 0] * width + triples[:, 1], return_inverse=True)
        columns, trimmed = np.unique(positions % width, return_inverse=True)
        lengths = np.array([len(continuation) for continuation in continuations], np.int64)
        return cls(
            cases=cases,
            right=[task.right for task in tasks],
            options=[len(task.continuations) for task in tasks],
            tokens=torch.tensor([row + (0,) * (width - len(row)) for row in rows]),
            mask=torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
            columns=torch.from_numpy(columns),
            rows=torch.from_numpy(positions // width),
            places=torch.from_numpy(positions % width),
            places_trimmed=torch.from_numpy(trimmed),
            which=torch.from_numpy(which),
            targets=torch.from_numpy(triples[:, 2].copy()),
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
        )

    def reduce(
        self, likelihood: NDArray[np.float64], greedy: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Accuracy and loss per case, from log-likelihood and greedy choice per token."""
        totals = np.add.reduceat(likelihood, self.starts)
        produced = np.logical_and.reduceat(greedy, self.starts)
        accuracy, loss = np.empty(len(self.cases)), np.empty(len(self.cases))
        first = 0
        for i, (right, options) in enumerate(zip(self.right, self.options, strict=True)):
            if right is None:
                accuracy[i], loss[i] = produced[first], -totals[first] / self.lengths[first]
            else:
                accuracy[i], loss[i] = _choice(totals[first : first + options], right)
            first += options
        # Among numbers that are not numbers argmax still names one; that is no answer.
        accuracy[np.isnan(loss)] = 0.0
        return accuracy, loss


def within_budget(sizes: list[tuple[int, int]], budget: int) -> Iterator[list[int]]:
    """Consecutive items whose rows, all padded to the widest, stay within the budget; at least one in each group."""
    group: list[int] = []
    rows = width = 0
    for i, (more, wide) in enumerate(sizes):
        if group and (rows + more) * max(width, wide) > budget:
            yield group
            group, rows, width = [], 0, 0
        group.append(i)
        rows, width = rows + more, max(width, wide)
    if group:
        yield group


def _choice(likelihoods: NDArray[np.float64], right: int) -> tuple[float, float]:
    """Whether the right option is the most likely one, and its cross-entropy under the softmax."""
    with np.errstate(invalid="ignore"):
        loss = np.logaddexp.reduce(likelihoods) - likelihoods[right]
    return float(np.argmax(likelihoods) == right), float(loss)
