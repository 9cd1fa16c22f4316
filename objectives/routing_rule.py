"""How a router turns logits over all experts into the weights of a few slots.

Semantics for every family, *after* the scoring function as in equation 5 of Efficient Expert Pruning (EEP, arXiv
2407.00945): ``mapped = score(logits) @ W_RM.T``, the ``top_k`` largest slots are chosen, and their weights are
renormalized and scaled exactly where the model's own router does so. Three consequences are worth knowing:

- Where the router does not renormalize (``norm_topk_prob=False``), pruned experts keep their share of the softmax,
  so the kept weights do not grow. Masking logits with minus infinity, as other tools do, is a different operation.
- Negative mapped scores count as zero weight, and chosen slots whose weights all vanish share equally where the
  router renormalizes. The paper leaves both open; for non-negative matrices nothing changes.
- Group-limited routing (DeepSeek) holds while the number of slots equals the number of experts, slot j standing in
  the group of expert j; with fewer slots there is no such grouping, and it is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor

__all__ = ["RoutingRule"]


@final
@dataclass(frozen=True)
class RoutingRule:
    """How a router turns logits over experts into ``top_k`` weights and indices (equation 5).

    Arguments:
        scoring: scores are the softmax over all experts, or a sigmoid of each logit.
        renormalize: whether the chosen weights are divided by their sum.
        scaling: factor on the weights (``routed_scaling_factor``).
        groups: number of expert groups of group-limited routing; 1 means none.
        top_groups: how many groups stay.
        group_score: a group's score is its largest score (DeepSeek-V2) or the sum of its two largest (DeepSeek-V3).
    """

    scoring: Literal["softmax", "sigmoid"] = "softmax"
    renormalize: bool = True
    scaling: float = 1.0
    groups: int = 1
    top_groups: int = 1
    group_score: Literal["max", "two largest"] = "max"

    @property
    def sliceable(self) -> bool:
        """Whether deleting rows of the gate equals a one-hot router mapping: the softmax's denominator must cancel."""
        return self.renormalize or self.scoring == "sigmoid"

    def scores(self, logits: Tensor) -> Tensor:
        """Scores of all experts in single precision, shape ``(…, experts)``."""
        logits = logits.float()
        return logits.softmax(dim=-1) if self.scoring == "softmax" else logits.sigmoid()

    def route(
        self,
        logits: Tensor,
        top_k: int,
        mapping: Tensor | None = None,
        correction: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Weights and indices of the chosen slots, both ``(…, top_k)``.

        Arguments:
            logits: the router's logits, ``(…, experts)``.
            top_k: slots per token.
            mapping: ``W_RM`` as a float tensor ``(keep, experts)``, or for one-hot rows the expert of every slot as an
                integer tensor ``(keep,)`` (more axes before the last route several mappings at once). None: every
                expert is a slot.
            correction: bias ``(experts,)`` on the scores that decides the choice but not the weights.
        """
        scores = self.scores(logits)
        mapped = _mapped(scores, mapping)
        choice = mapped if correction is None else _mapped(scores + correction.float(), mapping)
        if self.groups > 1 and choice.shape[-1] == logits.shape[-1]:
            choice = self._within_groups(choice)
        slots = choice.topk(top_k, dim=-1).indices
        return self._weights(mapped.gather(-1, slots)), slots

    def _within_groups(self, choice: Tensor) -> Tensor:
        grouped = choice.view(*choice.shape[:-1], self.groups, -1)
        if self.group_score == "max":
            group_scores = grouped.amax(dim=-1)
        else:
            group_scores = grouped.topk(2, dim=-1).values.sum(dim=-1)
        stay = torch.zeros_like(group_scores, dtype=torch.bool)
        stay.scatter_(-1, group_scores.topk(self.top_groups, dim=-1).indices, True)
        return grouped.masked_fill(~stay.unsqueeze(-1), float("-inf")).flatten(-2)

    def _weights(self, chosen: Tensor) -> Tensor:
        chosen = chosen.clamp_min(0)
        if self.renormalize:
            smallest = torch.finfo(chosen.dtype).tiny
            total = chosen.sum(dim=-1, keepdim=True)
            equal = torch.full_like(chosen, 1 / chosen.shape[-1])
            chosen = torch.where(total < smallest, equal, chosen / total.clamp_min(smallest))
        return chosen * self.scaling


def _mapped(scores: Tensor, mapping: Tensor | None) -> Tensor:
    if mapping is None:
        return scores
    return scores @ mapping.T if mapping.is_floating_point() else scores[..., mapping]
