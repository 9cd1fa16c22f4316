"""How many experts to keep, and which: accuracy versus size as a front, for pruned mixture-of-experts models.

Efficient Expert Pruning (EEP, arXiv 2407.00945) fixes the number of experts that every layer keeps. Here every group of
layers keeps as many as it likes, and the number is a second objective. Such a model needs no new mechanism: a slot
whose row of the router mapping (``W_RM``, section 4.2) is zero has no score, so no token goes there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import whole_number
from searchlib.errors import InvalidSettings
from searchlib.objectives.expert_pruning import ExpertPruning
from searchlib.space import Population
from searchlib.spaces import Allocation, ExpertMerges
from searchlib.with_cost import WithCost

__all__ = ["with_kept_experts"]

#: Options of an expert, in the order of genes.
DROP, KEEP = "drop", "keep"


def with_kept_experts(objective: ExpertPruning, *, least: int | None = None) -> WithCost:
    """Accuracy and the number of kept experts, summed over all layers, as two objectives.

    Arguments:
        objective: with ``keep`` all experts of the model, so that none is dropped before the search.
        least: experts that every group of layers keeps at least; by default as many as are active per token.

    Returns:
        an objective on a space of allocations: every expert of every group is kept or dropped. Artifacts are
        :class:`~searchlib.objectives.ExpertPlan` objects with one slot per expert, of which dropped ones are empty.
        Of the model as it is (everything kept) the search starts.

    Raises:
        InvalidSettings: an objective that drops or merges experts by itself, or ``least`` out of range.

    Example:
        >>> from searchlib import search
        >>> from searchlib.objectives.expert_pruning import _smoke_model
        >>> from searchlib.objectives import Case
        >>> cases = [Case((2 + i % 7, 3, 4), (5 + i % 3,)) for i in range(20)]
        >>> both = with_kept_experts(ExpertPruning(_smoke_model, None, cases, keep=4))
        >>> result = search(both, budget=20)
        >>> result.front.names, bool((result.front.values[:, 1] >= 4).all())
        (('accuracy', 'kept experts'), True)
    """
    space = objective.space
    if not isinstance(space, ExpertMerges) or space.keep != space.experts:
        raise InvalidSettings(
            f"the number of kept experts is free only where the objective drops none by itself: make it with keep= all "
            f"experts of the model, and both phases; its space is {space!r}"
        )
    least = whole_number("least", objective.top_k if least is None else least, objective.top_k)
    if least > space.experts:
        raise InvalidSettings(f"least must be at most the model's {space.experts} experts, but is {least}")
    names = tuple(f"group {group} expert {expert}" for group in range(space.groups) for expert in range(space.experts))
    owner = np.repeat(np.arange(space.groups), space.experts)
    dropped = tuple(tuple((float(own), 0.0) for own in owner == group) for group in range(space.groups))
    kept = Allocation(names, (DROP, KEEP), costs=dropped, budgets=(float(space.experts - least),) * space.groups)
    layers = np.bincount(space.layer_groups, minlength=space.groups)
    full = {name: float(layers.sum() * space.experts) for name in objective.references() if name.startswith("full")}
    everything = np.ones((1, kept.dimension), kept.dtype)
    return WithCost(
        objective, _Kept(tuple(layers.tolist())), name="kept experts", value_name="accuracy", batched=True,
        reference_costs=full, space=kept, translate=_Mapped(space.groups, space.experts), seeds=everything,
    )  # fmt: skip


@final
@dataclass(frozen=True)
class _Kept:
    """How many experts candidates keep, over the layers of every group."""

    layers: tuple[int, ...]

    def __call__(self, rows: Population) -> NDArray[np.float64]:
        counts = rows.reshape(len(rows), len(self.layers), -1).sum(axis=2)
        return np.asarray(counts @ np.array(self.layers), np.float64)


@final
@dataclass(frozen=True)
class _Mapped:
    """Kept experts as rows of :class:`ExpertMerges`: the router mapping of a dropped expert is zero."""

    groups: int
    experts: int

    def __call__(self, rows: Population) -> Population:
        same: NDArray[Any] = np.eye(self.experts, dtype=np.float32)
        router = rows.reshape(len(rows), self.groups, self.experts, 1) * same
        merging = np.broadcast_to(same, router.shape)
        return np.concatenate([router.reshape(len(rows), -1), merging.reshape(len(rows), -1)], axis=1, dtype=np.float32)
