"""The loss of a language model on token cases, and how far its predictions are from the full-precision model's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from searchlib.objectives.token_cases import TokenCase

__all__ = ["METRICS", "TokenBatch", "batches", "log_probabilities", "measured"]

#: What is measured of every sequence: the loss of its scored tokens in nats, the divergence KL(full precision ‖
#: quantized) of the next token's distribution, and how often the likeliest next token is another one.
METRICS = ("nll", "kl", "disagreement")
#: Logits of a batch up to which all are computed, those of the prompts too: 512 MiB in single precision.
_LOGITS = 2**27


@final
class TokenBatch(NamedTuple):
    """Sequences of similar length that go through the model together.

    Arguments:
        columns: their places among the cases.
        ids: tokens, padded on the right, shape ``(batch, length)``. The batch has a fixed size, whoever is in it.
        rows, places: where predictions count: their sequence in the batch and the position that makes them.
        targets: what should be predicted there.
    """

    columns: tuple[int, ...]
    ids: Tensor
    rows: Tensor
    places: Tensor
    targets: Tensor


def batches(
    cases: Sequence[TokenCase],
    size: int,
    device: torch.device | str,
    *,
    step: int = 32,
    longest: int | None = None,
) -> Iterator[TokenBatch]:
    """Batches of equal shape for sequences of similar length.

    A sequence is padded to a length that only its own decides, and a batch is filled up: rounding errors then do not
    depend on who is evaluated together, which few bits would blow up. Padding lies on the right, where a causal model
    does not look.

    Arguments:
        cases: the sequences.
        size: sequences in a batch.
        device: of the model.
        step: lengths are multiples of it.
        longest: positions that the model has; None: no limit.
    """
    padded = [-(-len(case.tokens) // step) * step for case in cases]
    if longest is not None:
        padded = [max(min(length, longest), len(own.tokens)) for length, own in zip(padded, cases, strict=True)]
    lengths = np.array(padded)
    for length in np.unique(lengths).tolist():
        members = np.flatnonzero(lengths == length)
        for start in range(0, len(members), size):
            yield _batch(cases, members[start : start + size].tolist(), size, int(length), device)


def _batch(
    cases: Sequence[TokenCase], columns: list[int], size: int, length: int, device: torch.device | str
) -> TokenBatch:
    ids = np.zeros((size, length), np.int64)
    rows, places, targets = [], [], []
    for row, column in enumerate(columns):
        tokens = np.array(cases[column].tokens, np.int64)
        ids[row, : len(tokens)] = tokens
        counted = np.flatnonzero(cases[column].response)
        rows.append(np.full(len(counted), row))
        places.append(counted - 1)
        targets.append(tokens[counted])
    joined = [torch.from_numpy(np.concatenate(part)).to(device) for part in (rows, places, targets)]
    return TokenBatch(tuple(columns), torch.from_numpy(ids).to(device), *joined)


def log_probabilities(model: Any, batch: TokenBatch) -> Tensor:
    """The model's predictions where they count, shape ``(predictions, vocabulary)``, in single precision."""
    if batch.ids.numel() * int(getattr(model.config, "vocab_size", 0)) <= _LOGITS or not _keeps_logits(model):
        logits = model(batch.ids, use_cache=False).logits
        return torch.log_softmax(logits[batch.rows, batch.places].float(), dim=-1)
    places, where = batch.places.unique(return_inverse=True)
    logits = model(batch.ids, use_cache=False, logits_to_keep=places).logits
    return torch.log_softmax(logits[batch.rows, where].float(), dim=-1)


def _keeps_logits(model: Any) -> bool:
    return "logits_to_keep" in inspect.signature(model.forward).parameters


def measured(own: Tensor, full: Tensor, batch: TokenBatch) -> NDArray[np.float64]:
    """The :data:`METRICS` of every sequence of a batch, shape ``(columns, 3)``.

    Arguments:
        own, full: log probabilities of the quantized and of the full-precision model.
    """
    loss = -own.gather(1, batch.targets[:, None])[:, 0]
    divergence = torch.where(full.isfinite(), full.exp() * (full - own), 0).sum(dim=-1)
    other = own.argmax(dim=-1) != full.argmax(dim=-1)
    table = torch.stack([loss.double(), divergence.double(), other.double()], dim=1)
    sums = torch.zeros(len(batch.columns), 3, dtype=torch.float64, device=own.device).index_add_(0, batch.rows, table)
    counts = torch.bincount(batch.rows, minlength=len(batch.columns))
    return np.asarray((sums / counts[:, None]).cpu().numpy())
