"""The winner of a search over attention spans as something to keep: apply it, save it, decode with less memory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self, final

from searchlib.objectives.grouped_cache import GroupedCache
from searchlib.objectives.span_attention import Backend, SpanAttention
from searchlib.spaces.attention_plan import AttentionPlan

__all__ = ["SpanPlan"]


@final
@dataclass(frozen=True)
class SpanPlan:
    """A plan and what can be done with it.

    Arguments:
        plan: the rules of all heads.

    Example::

        best = search(objective, budget=400).best
        best.save("plan.json")                                     # alphas and betas as MoA's released code reads them
        with best.attached(model, length=9216):                    # for a while …
            model.generate(**prompt, past_key_values=best.cache(model, 9216), max_new_tokens=1024)
        best.apply(model)                                          # … or for good
    """

    plan: AttentionPlan

    def attached(self, model: Any, length: int | None = None, *, backend: Backend = "auto") -> SpanAttention:
        """A context in which the model attends by the plan; ``length`` as of :class:`SpanAttention`."""
        return SpanAttention(model, self.plan, length=length, backend=backend)

    def apply(self, model: Any, length: int | None = None) -> Any:
        """Let the model attend by the plan from now on, and return it, the same object.

        Weights are not touched and ``save_pretrained`` saves the dense model: save the plan beside it.
        ``model.set_attn_implementation("sdpa")`` takes it back.
        """
        self.attached(model, length).__enter__()
        return model

    def cache(self, model: Any, length: int) -> GroupedCache:
        """An empty ``past_key_values`` that keeps only what the heads will see again."""
        return GroupedCache(model, self.plan, length)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, in the layout of the released files."""
        self.plan.save(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a plan: ours, or a released one."""
        return cls(AttentionPlan.load(path))
