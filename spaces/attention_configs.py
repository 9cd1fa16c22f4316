"""Which span rule every attention head gets, within an average span at several lengths: MoA's space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import cached_property
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from searchlib.arguments import listed, shown
from searchlib.errors import InvalidCandidate, InvalidSettings
from searchlib.space import Population
from searchlib.spaces.allocation import Allocation
from searchlib.spaces.allocation_view import AllocationView
from searchlib.spaces.arguments import flag, fraction, real, whole
from searchlib.spaces.attention_plan import AttentionPlan, spans
from searchlib.spaces.codec import stack

__all__ = ["AttentionConfigs", "elastic_rules"]


def elastic_rules(
    profile_lengths: Sequence[int],
    extend_lengths: Sequence[int] = (),
    *,
    step: int = 1024,
    betas: int = 9,
) -> tuple[tuple[float, float], ...]:
    """The grid of rules ``(alpha, beta)`` of MoA's released code, without those that any length makes senseless.

    ``alpha`` runs over multiples of ``step`` from minus the shortest to the longest profiled length, ``beta`` from 0 to
    1. A rule stays if its span is positive at the shortest length, and no longer than the sequence at the longest
    profiled length and at the longest of all; ``(0, 1)``, which sees everything, always does. Ascending by the span at
    the longest length.

    Arguments:
        profile_lengths: lengths that are measured, in tokens.
        extend_lengths: longer lengths that only the budgets look at.
        step: tokens between two alphas.
        betas: how many betas, at least 2.

    Raises:
        InvalidSettings: no lengths, or other numbers.

    Example:
        >>> len(elastic_rules((2048, 4096, 8192), (16384,)))  # the paper's setting
        48
    """
    measured = [whole("length", length) for length in listed("profile_lengths", profile_lengths)]
    if not measured:
        raise InvalidSettings(f"profile_lengths must hold at least one length, but are {shown(profile_lengths)}")
    every = measured + [whole("length", length) for length in listed("extend_lengths", extend_lengths)]
    shortest, profiled, longest = min(every), max(measured), max(every)
    step, betas = whole("step", step), whole("betas", betas, low=2)
    alphas = step * np.arange(-(shortest // step), profiled // step + 1)
    grid = [(float(a), float(b)) for a in alphas for b in np.linspace(0, 1, betas)]
    kept = [
        (a, b)
        for a, b in grid
        if a + b * profiled <= profiled and a + b * longest <= longest and a + b * shortest > 0
    ]
    return tuple(sorted(kept, key=lambda rule: (rule[0] + rule[1] * longest, rule)))


@final
@dataclass(frozen=True)
class AttentionConfigs(AllocationView):
    """A rule ``span = alpha + beta * length`` for every head, such that the average of what heads keep fits a budget.

    The space of MoA (*Mixture of Attention Spans*, arXiv 2406.14909, sections 3 and 4). A value is an
    :class:`AttentionPlan`. At each of ``lengths`` the heads keep ``density`` of the keys on average, sinks included,
    counted as the plan counts (:meth:`AttentionPlan.kept`) and as its masks mask. The operators are those of
    :class:`Allocation`, whose parts are the heads (with grouped queries the key-value heads, whose cache it is), layer
    by layer, and whose options are the rules.

    Arguments:
        layers, heads: of the model; ``heads`` are query heads.
        rules: ``(alpha, beta)``, alpha in tokens; :func:`elastic_rules` makes the paper's grid.
        lengths: where the budget holds, in tokens.
        density: share of the keys kept, in (0, 1]; None for no budget.
        sink: tokens at the beginning that every head keeps in addition.
        block: spans are rounded up to multiples of so many tokens.
        max_rules_per_layer: the most different rules in a layer (MoA's kernels: 2); None for no limit.
        same_per_layer: one rule for all heads of a layer.
        kv_groups: query heads per key-value head; they are consecutive and share a rule.

    Raises:
        InvalidSettings: such numbers cannot be meant, or even the smallest rules exceed a budget.

    Example:
        >>> rules = elastic_rules((64, 128), (256,), step=16, betas=5)
        >>> space = AttentionConfigs(4, 8, rules, lengths=(64, 128, 256), density=0.5, sink=4)
        >>> plan = space.decode(space.sample(np.random.default_rng(0), 1)[0])
        >>> len(rules), all(plan.density(length) <= 0.5 for length in space.lengths)
        (30, True)
    """

    layers: int
    heads: int
    rules: tuple[tuple[float, float], ...]
    _: KW_ONLY
    lengths: tuple[int, ...]
    density: float | None = 0.5
    sink: int = 0
    block: int = 1
    max_rules_per_layer: int | None = None
    same_per_layer: bool = False
    kv_groups: int = 1

    def __post_init__(self) -> None:
        for name, low in (("layers", 1), ("heads", 1), ("sink", 0), ("block", 1), ("kv_groups", 1)):
            object.__setattr__(self, name, whole(name, getattr(self, name), low=low))
        pairs = [listed("each of rules", pair) for pair in listed("rules", self.rules)]
        if any(len(pair) != 2 for pair in pairs):
            raise InvalidSettings(f"each of rules must be (alpha, beta), but rules are {shown(self.rules)}")
        rules = tuple((real("alpha", a), real("beta", b)) for a, b in pairs)
        if not rules or len(set(rules)) < len(rules):
            raise InvalidSettings(f"rules must be one or more different (alpha, beta), but are {shown(self.rules)}")
        object.__setattr__(self, "rules", rules)
        lengths = tuple(sorted({whole("length", length) for length in listed("lengths", self.lengths)}))
        if not lengths:
            raise InvalidSettings(f"lengths must hold at least one length, but are {shown(self.lengths)}")
        object.__setattr__(self, "lengths", lengths)
        if self.density is not None:
            object.__setattr__(self, "density", fraction("density", self.density))
        if self.max_rules_per_layer is not None:
            object.__setattr__(self, "max_rules_per_layer", whole("max_rules_per_layer", self.max_rules_per_layer))
        flag("same_per_layer", self.same_per_layer)
        if self.heads % self.kv_groups:
            raise InvalidSettings(f"kv_groups must divide the heads, but got (heads={self.heads}, {self.kv_groups=})")
        if self.density is not None and (needed := self._least_density()) > self.density:
            raise InvalidSettings(
                f"density={self.density} is less than the {needed:.4g} that the smallest rule and {self.sink} sinks "
                f"keep at one of the lengths {self.lengths}"
            )
        _ = self.allocation

    def _least_density(self) -> float:
        return float((self.kept_array.min(axis=1) / np.array(self.lengths)).max())

    @cached_property
    def kept_array(self) -> NDArray[np.int64]:
        """Keys that a head with each rule keeps at each length, sinks included, shape ``(lengths, rules)``."""
        alphas, betas = np.array(self.rules).T
        kept = [np.minimum(spans(alphas, betas, n, self.block) + self.sink, n) for n in self.lengths]
        return np.stack(kept)

    @property
    def parts_per_layer(self) -> int:
        """How many rules a layer is given: one per key-value head, or one."""
        return 1 if self.same_per_layer else self.heads // self.kv_groups

    @cached_property
    def allocation(self) -> Allocation:
        """The plain space with the same rows: heads are parts, rules are options, kept keys are costs."""
        per_layer = self.parts_per_layer
        names = [f"layer {i}" for i in range(self.layers)]
        if not self.same_per_layer:
            names = [f"{layer} head {h}" for layer in names for h in range(per_layer)]
        costs: tuple[Any, ...] = ()
        budgets: tuple[float, ...] = ()
        if self.density is not None:
            costs = tuple((tuple(map(float, kept)),) * len(names) for kept in self.kept_array.tolist())
            budgets = tuple(float(np.floor(self.density * n * len(names) + 1e-9)) for n in self.lengths)
        groups = tuple(i // per_layer for i in range(len(names)))
        limit = None if self.same_per_layer else self.max_rules_per_layer
        return Allocation(
            tuple(names), self._option_labels, costs=costs, budgets=budgets, groups=groups, max_distinct=limit
        )

    @cached_property
    def _option_labels(self) -> tuple[str, ...]:
        return tuple(f"{alpha!r} + {beta!r} N" for alpha, beta in self.rules)

    @property
    def unlimited(self) -> AttentionConfigs:
        return replace(self, density=None, max_rules_per_layer=None)

    def uniform(self) -> Population:
        """The rows in which all heads have the same rule and no other such row sees more at every length.

        With ``beta = 0`` these are StreamingLLM's windows (arXiv 2309.17453). The densest at the longest length come
        first.
        """
        rows = np.repeat(np.arange(len(self.rules), dtype=self.dtype)[:, None], self.dimension, axis=1)
        rows = rows[self.contains(rows)]
        kept = self.kept_array[:, rows[:, 0]].T
        above = (kept[:, None] <= kept).all(axis=2) & (kept[:, None] < kept).any(axis=2)
        best = ~np.any(above, axis=1)
        rows, kept = rows[best], kept[best]
        return np.asarray(rows[np.argsort(-kept[:, -1], kind="stable")])

    def encode(self, values: Sequence[Any]) -> Population:
        return stack(self, values, self._genes)

    def _genes(self, plan: Any) -> NDArray[Any]:
        if not isinstance(plan, AttentionPlan):
            raise TypeError(f"a value is an AttentionPlan, not {plan!r:.80}")
        if (plan.layers, plan.heads) != (self.layers, self.heads):
            raise ValueError(f"the plan is for {plan.layers} layers of {plan.heads} heads")
        if (plan.sink, plan.block) != (self.sink, self.block):
            raise ValueError(f"the plan has (sink={plan.sink}, block={plan.block})")
        index = {rule: i for i, rule in enumerate(self.rules)}
        genes = np.array([[index[rule] for rule in row] for row in plan.rules()], self.dtype)
        first = genes.reshape(self.layers, self.parts_per_layer, -1)
        if not np.array_equal(first.min(axis=2), first.max(axis=2)):
            raise ValueError("heads that share a rule in this space have different ones")
        return np.asarray(first[:, :, 0].ravel())

    def decode(self, row: NDArray[Any]) -> AttentionPlan:
        table = np.array(self.rules)[row.astype(np.intp)].reshape(self.layers, self.parts_per_layer, 2)
        rules = np.repeat(table, self.heads // self.parts_per_layer, axis=1)
        alphas, betas = rules[:, :, 0].tolist(), rules[:, :, 1].tolist()
        return AttentionPlan(alphas, betas, sink=self.sink, block=self.block, kv_groups=self.kv_groups)

    def nearest(self, plan: AttentionPlan) -> NDArray[Any]:
        """The row whose rules are nearest to a plan's at all lengths, repaired onto the budgets.

        Plans of other rules, sinks or blocks: a released one, or one for another density.

        Raises:
            InvalidCandidate: a plan for a model of another shape.
        """
        if (plan.layers, plan.heads) != (self.layers, self.heads):
            raise InvalidCandidate(f"the plan is for {plan.layers} layers of {plan.heads} heads, not for {self!r:.80}")
        wanted = np.stack([plan.kept(n) / n for n in self.lengths], axis=-1)
        wanted = wanted.reshape(self.dimension, -1, len(self.lengths)).mean(axis=1)
        have = (self.kept_array / np.array(self.lengths)[:, None]).T
        genes = np.abs(wanted[:, None] - have).sum(axis=2).argmin(axis=1).astype(self.dtype)
        return np.asarray(self.repair(genes[None])[0])
