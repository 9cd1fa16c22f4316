"""Cheap ways to choose the experts to keep, which a search has to beat.

The baselines of Efficient Expert Pruning (EEP, arXiv 2407.00945, section 5.1): random subsets, activation frequency,
soft activation, and NAEE (arXiv 2402.14800), which keeps the subset of each layer that changes the layer's output
least. All need only forward passes of the full model; none looks at the task's score.

What is reproduced: the four selections, per layer or pooled over the layers that share a group. What is not: NAEE's
dynamic skipping of the second expert.

Every function returns expert indices in ascending order, one row per layer group; turn them into matrices with
:func:`searchlib.objectives.expert_matrices.one_hot_matrices`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from searchlib.errors import InvalidSettings
from searchlib.objectives.expert_matrices import checked_groups
from searchlib.objectives.moe_layers import MoeLayer
from searchlib.objectives.moe_model import MoeModel
from searchlib.objectives.router_statistics import RouterStatistics

__all__ = ["discrepancies", "frequency", "naee", "random_subsets", "soft_activation"]

Kept = NDArray[np.int64]

_TOKENS_AT_ONCE = 256
_NUMBERS_AT_ONCE = 2**24


def random_subsets(rng: np.random.Generator, *, experts: int, keep: int, groups: int, draws: int = 30) -> Kept:
    """Uniformly random subsets, shape ``(draws, groups, keep)``; the paper reports the mean over 30 draws.

    Raises:
        InvalidSettings: not between 1 and ``experts`` experts to keep.

    Example:
        >>> random_subsets(np.random.default_rng(0), experts=8, keep=4, groups=2).shape
        (30, 2, 4)
    """
    _check_keep(keep, experts)
    ranks = rng.random((draws, groups, experts)).argsort(axis=-1)
    return np.sort(ranks[..., :keep], axis=-1)


def frequency(statistics: RouterStatistics, keep: int, layer_groups: ArrayLike | None = None) -> Kept:
    """Keep the experts that the router chose most often, shape ``(groups, keep)``.

    Arguments:
        statistics: of the full model on calibration cases.
        keep: experts to keep per layer.
        layer_groups: group of every layer; the counts of a group's layers are added. None means a group per layer.

    Raises:
        InvalidSettings: not between 1 and all experts to keep, or groups that do not fit the layers.
    """
    return _largest(statistics.frequency, keep, layer_groups)


def soft_activation(statistics: RouterStatistics, keep: int, layer_groups: ArrayLike | None = None) -> Kept:
    """Keep the experts with the largest accumulated router score, shape ``(groups, keep)``.

    Arguments and errors are those of :func:`frequency`; the scores are those before top-k.
    """
    return _largest(statistics.soft, keep, layer_groups)


def naee(
    moe: MoeModel,
    statistics: RouterStatistics,
    keep: int,
    layer_groups: ArrayLike | None = None,
    *,
    rng: np.random.Generator,
    top_k: int | None = None,
    max_subsets: int = 5000,
) -> Kept:
    """Keep the subset whose layer output is closest to that of all experts, shape ``(groups, keep)``.

    Every subset of a layer is tried on the calibration tokens ("Not All Experts are Equal", arXiv 2402.14800, section
    3.2), or ``max_subsets`` random ones where there are more (5000 as the EEP paper uses for Qwen1.5-MoE). Shared
    experts cancel out of the difference. The full model is put back first.

    Arguments:
        moe: the model, inside its context.
        statistics: of the same model on calibration cases.
        keep: experts to keep per layer.
        layer_groups: group of every layer; the discrepancies of a group's layers are added. None means a group per
            layer.
        rng: draws the random subsets.
        top_k: active experts per token of the pruned layer; None takes the model's own, or ``keep`` if that is less.
        max_subsets: enumerate up to so many subsets, else draw so many.

    Raises:
        InvalidSettings: outside the model's context, impossible ``keep`` or ``top_k``, or groups that do not fit.
    """
    _check_keep(keep, moe.experts)
    groups = checked_groups(layer_groups, len(moe.layers))
    active = min(moe.top_k, keep) if top_k is None else top_k
    if not 1 <= active <= keep:
        raise InvalidSettings(f"top_k must lie between 1 and keep ({keep}), got {active}")
    moe.identity()
    kept = []
    for group in range(int(groups.max()) + 1):
        subsets = _subsets(rng, moe.experts, keep, max_subsets)
        members = np.flatnonzero(groups == group)
        total = sum(
            discrepancies(moe.layers[i], statistics.inputs[i], statistics.logits[i], subsets, moe.top_k, active)
            for i in members
        )
        kept.append(subsets[np.argmin(total)])
    return np.stack(kept)


def discrepancies(
    layer: MoeLayer,
    inputs: Tensor,
    logits: Tensor,
    subsets: Kept,
    top_k: int,
    active: int,
) -> NDArray[np.float64]:
    """Frobenius norm of the change in a layer's routed output for every subset, shape ``(subsets,)``.

    Both outputs of a token are combinations of the same expert outputs, so the squared change is a quadratic form in
    the difference of their weights: experts run once, and a subset costs one product with an ``(experts, experts)``
    Gram matrix per token, whatever the hidden size.

    Arguments:
        layer: the layer, with its full weights.
        inputs: of the routed experts, ``(n, hidden)``.
        logits: of the router on the same tokens, ``(n, experts)``.
        subsets: expert indices, ``(subsets, keep)``.
        top_k: active experts of the full layer.
        active: active experts of the pruned layer.
    """
    gram = _gram(layer, inputs, logits.shape[-1])
    logits = logits.to(gram.device)
    correction = None if layer.correction is None else layer.correction.to(gram.device)
    full = torch.zeros_like(logits, dtype=torch.float32)
    weights, index = layer.rule.route(logits, top_k, correction=correction)
    full.scatter_(-1, index, weights)
    at_once = max(1, _NUMBERS_AT_ONCE // full.numel())
    squares = []
    for some in torch.from_numpy(subsets).to(gram.device).split(at_once):
        weights, slots = layer.rule.route(logits, active, some, correction)
        chosen = some.expand(len(logits), -1, -1).gather(-1, slots)
        change = -full[:, None].repeat(1, len(some), 1)
        change.scatter_add_(-1, chosen, weights)
        squares.append((torch.bmm(change, gram) * change).sum(dim=(0, 2), dtype=torch.float64))
    return torch.cat(squares).clamp_min(0).sqrt().cpu().numpy()


def _gram(layer: MoeLayer, inputs: Tensor, experts: int) -> Tensor:
    """Inner products of all experts' outputs on every token, ``(n, experts, experts)``."""
    place = layer.weights()[0].device
    device = torch.device("cpu") if place.type == "meta" else place
    return torch.cat([_gram_of(layer, part.to(device), experts) for part in inputs.split(_TOKENS_AT_ONCE)])


def _gram_of(layer: MoeLayer, inputs: Tensor, experts: int) -> Tensor:
    outputs = []
    with torch.no_grad():
        for expert in range(experts):
            index = torch.full((len(inputs), 1), expert, device=inputs.device)
            outputs.append(layer.experts(inputs, index, torch.ones_like(index, dtype=inputs.dtype)).float())
    stacked = torch.stack(outputs, dim=1)
    return torch.bmm(stacked, stacked.transpose(1, 2))


def _subsets(rng: np.random.Generator, experts: int, keep: int, limit: int) -> Kept:
    if math.comb(experts, keep) > limit:
        return random_subsets(rng, experts=experts, keep=keep, groups=1, draws=limit)[:, 0]
    every: Iterator[tuple[int, ...]] = itertools.combinations(range(experts), keep)
    return np.array(list(every), dtype=np.int64)


def _largest(statistic: NDArray[np.float64], keep: int, layer_groups: ArrayLike | None) -> Kept:
    layers, experts = statistic.shape
    _check_keep(keep, experts)
    groups = checked_groups(layer_groups, layers)
    pooled = np.zeros((int(groups.max()) + 1, experts))
    np.add.at(pooled, groups, statistic)
    return np.sort(np.argsort(-pooled, axis=1, kind="stable")[:, :keep], axis=1)


def _check_keep(keep: int, experts: int) -> None:
    if not 1 <= keep <= experts:
        raise InvalidSettings(f"keep must lie between 1 and the number of experts ({experts}), got {keep}")
