"""The matrices that describe a smaller mixture-of-experts layer, and the layer groups that share them.

Efficient Expert Pruning (EEP, arXiv 2407.00945, section 4.2) describes a smaller mixture-of-experts layer by two
matrices of shape ``(keep, experts)``: the router mapping ``W_RM``, which turns the router's probabilities over all
experts into scores of ``keep`` slots, and the expert merging ``W_EM``, whose row j holds the coefficients of the
parameters of slot j. One-hot rows keep experts as they are (pruning), dense ones mix them (merging).

Here: making and recognizing such matrices, and equation 6, which applies ``W_EM`` to stacked expert weights. Equation
5, which applies ``W_RM`` to a router's scores, is :mod:`searchlib.objectives.routing_rule`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from searchlib.errors import InvalidSettings

__all__ = [
    "Matrix",
    "checked_groups",
    "consecutive_groups",
    "merge_experts",
    "one_hot_index",
    "one_hot_matrices",
    "smaller_experts",
]

#: ``W_RM`` or ``W_EM`` of one layer, shape ``(keep, experts)``, or of all layer groups, ``(groups, keep, experts)``.
Matrix = NDArray[np.float32]


def consecutive_groups(layers: int, groups: int) -> NDArray[np.int64]:
    """Group index of every layer when consecutive layers share a group, shape ``(layers,)``.

    The paper's default is 4 groups (0-7, 8-15, 16-23, 24-31 for 32 layers); appendix A.1 uses one per layer.

    Raises:
        InvalidSettings: not between 1 and ``layers`` groups.

    Example:
        >>> consecutive_groups(6, 3).tolist()
        [0, 0, 1, 1, 2, 2]
    """
    if not 1 <= groups <= layers:
        raise InvalidSettings(f"expected between 1 and {layers} layer groups, got {groups}")
    return np.arange(layers, dtype=np.int64) * groups // layers


def one_hot_matrices(kept: ArrayLike, experts: int) -> Matrix:
    """Matrices that keep experts unchanged: ``(groups, keep)`` expert indices to ``(groups, keep, experts)``.

    Raises:
        InvalidSettings: an index lies outside ``0 … experts - 1``.

    Example:
        >>> one_hot_matrices([[2, 0]], experts=3).tolist()
        [[[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]
    """
    index = np.asarray(kept, dtype=np.int64)
    if index.size and (index.min() < 0 or index.max() >= experts):
        raise InvalidSettings(f"expected expert indices from 0 to {experts - 1}, got {index.min()} to {index.max()}")
    return np.eye(experts, dtype=np.float32)[index]


def one_hot_index(matrix: Matrix) -> NDArray[np.int64] | None:
    """The expert of every row where each row holds a single 1 and zeros, shape ``(keep,)``; None for other matrices.

    Example:
        >>> one_hot_index(np.array([[0, 1, 0], [1, 0, 0]], np.float32)).tolist()
        [1, 0]
    """
    single = (np.count_nonzero(matrix, axis=1) == 1) & (matrix.max(axis=1) == 1)
    return matrix.argmax(axis=1) if single.all() else None


def checked_groups(layer_groups: ArrayLike | None, layers: int, groups: int | None = None) -> NDArray[np.int64]:
    """The group index of every layer as an array ``(layers,)``; None means a group per layer.

    Arguments:
        layer_groups: one index per layer, from 0 on.
        layers: number of mixture-of-experts layers.
        groups: how many groups there must be; None takes the largest index plus one.

    Raises:
        InvalidSettings: the wrong number of entries, or indices outside the groups.
    """
    index = np.arange(layers) if layer_groups is None else np.asarray(layer_groups)
    if index.shape != (layers,) or not np.issubdtype(index.dtype, np.integer):
        raise InvalidSettings(f"layer_groups must hold one integer for each of {layers} layers, got {layer_groups!r}")
    count = int(index.max()) + 1 if groups is None else groups
    if index.min() < 0 or index.max() >= count or len(np.unique(index)) != count:
        raise InvalidSettings(f"layer_groups must use every group from 0 to {count - 1}, got {index.tolist()}")
    return index.astype(np.int64)


def merge_experts(weight: Tensor, matrix: Matrix, out: Tensor | None = None) -> Tensor:
    """Linear combinations of experts, equation 6: ``(experts, a, b)`` and ``(keep, experts)`` to ``(keep, a, b)``.

    One matrix product per weight tensor, in the tensor's own type: coefficients are rounded to that type once and
    products are accumulated in single precision, where adding expert by expert would round after every step.

    Arguments:
        weight: stacked expert weights.
        matrix: merging coefficients.
        out: where to write; None allocates.
    """
    with torch.inference_mode(False), torch.no_grad():
        if out is None:
            out = torch.empty(len(matrix), *weight.shape[1:], dtype=weight.dtype, device=weight.device)
        rows = torch.tensor(matrix, device=weight.device, dtype=weight.dtype)
        torch.mm(rows, weight.detach().reshape(len(weight), -1), out=out.view(len(matrix), -1))
    return out


def smaller_experts(weight: Tensor, matrix: Matrix) -> Tensor:
    """The experts of a smaller layer, ``(keep, a, b)``: sliced where the matrix is one-hot, merged otherwise."""
    index = one_hot_index(matrix)
    if index is None:
        return merge_experts(weight, matrix)
    return weight.index_select(0, torch.from_numpy(index).to(weight.device))
