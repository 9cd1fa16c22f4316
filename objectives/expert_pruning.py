"""Efficient Expert Pruning: which experts of a mixture-of-experts model to keep, and how to merge the rest into them.

*Efficient Expert Pruning for Sparse Mixture-of-Experts Language Models: Enhancing Performance and Reducing Inference
Costs*, Liu et al., arXiv 2407.00945, https://github.com/imagination-research/EEP (Apache-2.0).

Reproduced: the parameterisation by router-mapping and expert-merging matrices per group of layers (section 4.2), both
phases of the search (pruning, then merging; Algorithm 1), fewer active experts and gradient-free fine-tuning
(``keep`` = all experts; section 5.3), the baselines (random, frequency, soft activation, NAEE) and, in
:mod:`searchlib.objectives.expert_released_loop`, the search as released. Added: a loss that breaks ties between equal
accuracies, baselines as seeds, a SELECT split for the winner, held-out cases for everything.
Not reproduced: NAEE's dynamic skipping, and the paper's prompts and datasets (bring your own cases).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from searchlib.algorithms import Algorithm, Evolution, Pool, Stages
from searchlib.cases import Cases, Split
from searchlib.errors import InvalidSettings, UnsupportedModel
from searchlib.objective import Objective, Scores
from searchlib.objectives.answer_scoring import AnswerScorer, Case, Metric
from searchlib.objectives.expert_baselines import frequency, naee, random_subsets, soft_activation
from searchlib.objectives.expert_matrices import one_hot_matrices
from searchlib.objectives.expert_plan import ExpertPlan
from searchlib.objectives.moe_model import MoeModel
from searchlib.objectives.router_statistics import RouterStatistics
from searchlib.space import Candidates, Population
from searchlib.spaces import ExpertMatrices, ExpertMerges, ExpertSubsets

__all__ = ["Case", "ExpertPruning", "split_cases"]

#: Draws behind the reference "random" (the paper's Table 11).
RANDOM_DRAWS = 30

#: The paper's baselines that need no search: frequency and soft activation from the routers, NAEE by reconstruction.
HEURISTICS = ("frequency", "soft activation", "naee")

Loader = Callable[[], tuple[nn.Module, Any]]


def split_cases(
    cases: Sequence[Case], shares: tuple[float, float, float] = (0.5, 0.2, 0.3), *, seed: int = 0
) -> dict[Split, list[Case]]:
    """Shuffle cases into SEARCH, SELECT and HOLDOUT.

    Arguments:
        cases: at least one per split with a positive share.
        shares: positive for SEARCH, non-negative for the others; they sum to one.
        seed: decides the shuffle.

    Raises:
        InvalidSettings: shares that are none, or too few cases for them.

    Example:
        >>> parts = split_cases([Case(str(i), "yes") for i in range(10)])
        >>> [len(part) for part in parts.values()]
        [5, 2, 3]
    """
    if len(shares) != 3 or min(shares) < 0 or shares[0] <= 0 or not abs(sum(shares) - 1) <= 1e-6:
        raise InvalidSettings(f"shares must be three parts that sum to one, the first positive, but are {shares}")
    if not _fills(shares, len(cases)):
        enough = next(n for n in itertools.count(len(cases) + 1) if _fills(shares, n))
        raise InvalidSettings(
            f"too few cases ({len(cases)}) to be split into SEARCH, SELECT and HOLDOUT by the shares {shares}: give "
            f"{enough} or more, or split them yourself with cases={{Split.SEARCH: […], Split.SELECT: […], "
            f"Split.HOLDOUT: […]}}, where only SEARCH must have any"
        )
    order = np.random.default_rng(seed).permutation(len(cases))
    ends = _ends(shares, len(cases))
    return {
        split: [cases[int(i)] for i in order[start:end]]
        for split, start, end in zip(Split, ends[:-1], ends[1:], strict=True)
    }


@final
class ExpertPruning(Objective):
    """Held-out-honest accuracy of a mixture-of-experts model with fewer, or merged, experts.

    The model is used as it is: phase one only re-maps router indices, phase two re-merges the layers whose group
    changed. It is bit-identical again when the objective is closed, also after an exception.

    Arguments:
        model: a transformers causal language model with fused experts (Mixtral, Qwen2/3-MoE, OLMoE, DeepSeek-V2/V3
            and others of the same structure); or a checkpoint's name or path; or a function that returns
            ``(model, tokenizer)``. Only the last two can be sent to worker processes.
        tokenizer: of the model; None where the cases are token ids, or where the model brings its own.
        cases: what the model should stay good at: a sequence (shuffled into SEARCH, SELECT and HOLDOUT by
            :func:`split_cases`), or a mapping from split to cases.
        keep: experts left per layer; all of them for gradient-free fine-tuning.
        groups: layer groups that share one pair of matrices; by default one group per layer (the paper: 4, or one per
            layer, which found better subsets in Table 13).
        top_k: active experts per token; by default the model's own, or ``keep`` where that is less.
        phases: ``("prune", "merge")``, or only ``("prune",)``: then experts are dropped and never mixed.
        metric: ``"exact"``, or a function of (generated, case) that gives a score in [0, 1]; see
            :class:`~searchlib.objectives.answer_scoring.AnswerScorer`.
        end: token that ends an answer.
        batch_tokens, max_new_tokens: as for the scorer.
        lazy: merge layers as they run instead of holding all merged layers: one layer of extra memory at most.
        seeded: whether the baselines start the first population.
        compare_with: which references to score on the held-out cases; by default all that apply.

    Raises:
        UnsupportedModel: the model's layers cannot be steered (or merged); the message names the layer and the reason.
        InvalidSettings: arguments that do not fit the model, with both numbers.

    Example:
        >>> from searchlib import search
        >>> objective = ExpertPruning.smoke()
        >>> result = search(objective, budget=12)
        >>> sorted(row.name for row in result.holdout.rows)
        ['best', 'frequency', 'full', 'naee', 'random', 'soft activation']
        >>> result.best.keep
        2
    """

    direction = "maximize"
    chunk_rows = 1

    def __init__(
        self,
        model: nn.Module | str | Loader,
        tokenizer: Any = None,
        cases: Sequence[Case] | Mapping[Split, Sequence[Case]] = (),
        *,
        keep: int,
        groups: int | None = None,
        top_k: int | None = None,
        phases: tuple[Literal["prune", "merge"], ...] = ("prune", "merge"),
        metric: Literal["exact"] | Metric = "exact",
        end: str | int | None = None,
        batch_tokens: int = 8192,
        max_new_tokens: int = 32,
        lazy: bool = False,
        seeded: bool = True,
        compare_with: Sequence[str] | None = None,
    ) -> None:
        self._recipe = None if isinstance(model, nn.Module) else (model, tokenizer)
        self._settings = {
            "keep": keep, "groups": groups, "top_k": top_k, "phases": tuple(phases), "metric": metric, "end": end,
            "batch_tokens": batch_tokens, "max_new_tokens": max_new_tokens, "lazy": lazy, "seeded": seeded,
            "compare_with": None if compare_with is None else tuple(compare_with),
        }  # fmt: skip
        self.model, self.tokenizer = _loaded(model, tokenizer)
        self._moe = MoeModel(self.model, lazy=lazy)
        self.top_k = _checked_top_k(top_k, keep, self._moe)
        self.space = self._space(keep, groups, tuple(phases))
        self._parts = (
            {Split(k): list(v) for k, v in cases.items()} if isinstance(cases, Mapping) else split_cases(cases)
        )
        self._cases = _numbered(self._parts)
        every = [case for split in Split for case in self._parts.get(split, ())]
        self._scorer = AnswerScorer(
            self.model, self.tokenizer, every, batch_tokens=batch_tokens, metric=metric,
            max_new_tokens=max_new_tokens, end=end,
        )  # fmt: skip
        self._seeded = seeded
        self._baselines: dict[str, NDArray[Any]] = {}
        self._compared = self._checked_references(compare_with)

    @classmethod
    def smoke(cls) -> Self:
        """A tiny random Mixtral on token ids, for conformance tests and examples."""
        rng = np.random.default_rng(0)
        words = [tuple(int(token) for token in rng.integers(2, 20, size=5)) for _ in range(30)]
        return cls(_smoke_model, None, split_cases([Case(word[:4], word[4:]) for word in words]), keep=2)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._recipe is None:
            raise InvalidSettings(
                "this ExpertPruning holds a model that was given as an object; give a checkpoint's name or path, or a "
                "function that returns (model, tokenizer), so that every worker can load its own"
            )
        return _rebuilt, (*self._recipe, self._parts, self._settings)

    def cases(self, split: Split) -> Cases:
        """The cases of a split, numbered over all splits."""
        return self._cases[split]

    def evaluate(self, candidates: Candidates, cases: Cases) -> Scores:
        """Accuracy ``(n, c)`` of every candidate, with the loss of the right answers as the secondary score."""
        accuracy, loss = np.empty((2, len(candidates), len(cases)))
        for row, value in enumerate(candidates):
            accuracy[row], loss[row] = self.score(value, cases)
        return Scores(accuracy, secondary=loss)

    def score(self, value: Any, cases: Cases) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Accuracy and loss ``(c,)`` of one candidate: its matrices, or kept experts ``(groups, keep)``."""
        self._moe.apply(*self._matrices(value), self._subsets.layer_groups, self.top_k)
        return self._scorer.score(_columns(cases))

    def references(self) -> tuple[str, ...]:
        """What the winner is compared with: by default the full model and the paper's baselines at the same size."""
        return self._compared

    def _checked_references(self, names: Sequence[str] | None) -> tuple[str, ...]:
        reduced = ("full, fewer active",) if self.top_k < self._moe.top_k else ()
        pruned = ("random", *HEURISTICS) if self.keep < self._moe.experts else ()
        every = ("full", *reduced, *pruned)
        unknown = [name for name in names or () if name not in every]
        if unknown:
            raise InvalidSettings(f"compare_with names {unknown}, but here there are only {list(every)}")
        return every if names is None else tuple(names)

    def evaluate_reference(self, name: str, cases: Cases) -> NDArray[np.float64]:
        """Accuracy ``(c,)`` of a reference; for ``"random"`` the mean over 30 draws."""
        if name.startswith("full"):
            self._moe.identity(self._moe.top_k if name == "full" else self.top_k)
            return self._scorer.score(_columns(cases))[0]
        draws = self.random_draws() if name == "random" else self.baseline(name)[None]
        scores = [self.score(kept, cases)[0] for kept in draws]
        return np.asarray(np.mean(scores, axis=0))

    def random_draws(self, seed: int = 0, draws: int = RANDOM_DRAWS) -> NDArray[Any]:
        """Random kept experts, shape ``(draws, groups, keep)``."""
        shape = {"experts": self._moe.experts, "keep": self.keep, "groups": self._subsets.groups}
        return np.asarray(random_subsets(np.random.default_rng(seed), **shape, draws=draws))

    def baseline(self, name: str) -> NDArray[Any]:
        """Kept experts ``(groups, keep)`` by a heuristic: "frequency", "soft activation" or "naee"."""
        if name not in HEURISTICS:
            raise InvalidSettings(f"there is no baseline {name!r}, only {list(HEURISTICS)}")
        if name not in self._baselines:
            self._baselines[name] = self._by_heuristic(name)
        return self._baselines[name]

    def seeds(self) -> Population:
        """The baselines that need no search, or the identity where all experts are kept."""
        if not self._seeded:
            return super().seeds()
        if self.keep == self._moe.experts:
            rows = self._subsets.sample(np.random.default_rng(0), 1)
        else:
            rows = self._subsets.encode([self.baseline(name).tolist() for name in HEURISTICS])
        return self.space.embed(rows) if isinstance(self.space, ExpertMerges) else rows

    def algorithm(self, evaluations: int | None) -> Algorithm:
        """Prune first, then merge from everything that pruning learned; of 400 evaluations, the first 100 prune."""
        # Settings and weight were chosen on other cases than any benchmark opens (docs/expert_pruning.md).
        evolution = Evolution(
            population=12, offspring=4, mutation_pool=Pool(at_least=2), crossover_pool=Pool(at_least=4),
            secondary_weight=0.3,
        )  # fmt: skip
        if not isinstance(self.space, ExpertMerges):
            return evolution
        return Stages(evolution, evolution, share=0.25, first_evaluations=None if evaluations else 100)

    def artifact(self, value: Any) -> ExpertPlan:
        """The winner as a plan that can be applied to the model, saved, or written down for a serving engine."""
        return ExpertPlan.of(self._moe, *self._matrices(value), self._subsets.layer_groups, self.top_k)

    def fingerprint(self) -> Mapping[str, Any]:
        """Model (architecture, size, router weights), settings and the content of all cases."""
        routers = hashlib.blake2b(digest_size=8)
        for layer in self._moe.layers:
            weight = layer.router.weight
            assert isinstance(weight, torch.Tensor)
            routers.update(weight.detach().float().cpu().numpy().tobytes())
        text = repr([(split.value, self._parts.get(split, [])) for split in Split])
        neutral = ("metric", "phases", "lazy", "compare_with")
        settings = {name: value for name, value in self._settings.items() if name not in neutral}
        return {
            "objective": "ExpertPruning",
            "model": type(self.model).__name__,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "routers": routers.hexdigest(),
            "cases": hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
            "metric": getattr(self._scorer.metric, "__qualname__", str(self._scorer.metric)),
            **settings,
        }

    def __enter__(self) -> Self:
        self._moe.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._moe.__exit__(kind, error, trace)

    @property
    def keep(self) -> int:
        """Experts left per layer."""
        return self._subsets.keep

    @property
    def _subsets(self) -> ExpertSubsets:
        space: Any = self.space
        subsets: ExpertSubsets = space.first if isinstance(space, ExpertMerges) else space
        return subsets

    def _by_heuristic(self, name: str) -> NDArray[Any]:
        keep, groups, statistics = self.keep, self._subsets.layer_groups, self._statistics
        if name == "frequency":
            return frequency(statistics, keep, groups)
        if name == "soft activation":
            return soft_activation(statistics, keep, groups)
        return naee(self._moe, statistics, keep, groups, rng=np.random.default_rng(0), top_k=self.top_k)

    @cached_property
    def _statistics(self) -> RouterStatistics:
        """What the full model's routers do on the SEARCH cases."""
        return self._moe.statistics(self._scorer.inputs(_columns(self._cases[Split.SEARCH])))

    def _space(self, keep: int, groups: int | None, phases: tuple[str, ...]) -> ExpertSubsets | ExpertMerges:
        layers, experts = len(self._moe.layers), self._moe.experts
        if phases not in (("prune",), ("prune", "merge")):
            raise InvalidSettings(f"phases must be ('prune',) or ('prune', 'merge'), but are {phases}")
        if phases == ("prune",):
            return ExpertSubsets(layers, experts, keep, groups or layers)
        for layer in self._moe.layers:
            if layer.unmergeable is not None:
                raise UnsupportedModel(
                    f"{layer.name}: its experts cannot be merged ({layer.unmergeable}); pass phases=('prune',)"
                )
        return ExpertMerges(layers, experts, keep, groups or layers)

    def _matrices(self, value: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return (value.router, value.merging) if isinstance(value, ExpertMatrices) else self._one_hot(value)

    def _one_hot(self, kept: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        matrices = one_hot_matrices(kept, self._moe.experts)
        return matrices, matrices



def _loaded(model: nn.Module | str | Loader, tokenizer: Any) -> tuple[nn.Module, Any]:
    if isinstance(model, nn.Module):
        return model, tokenizer
    if isinstance(model, str):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        loaded = AutoModelForCausalLM.from_pretrained(model).eval()
        named = model if tokenizer is None else tokenizer
        return loaded, AutoTokenizer.from_pretrained(named) if isinstance(named, str) else named
    own, tokens = model()
    return own, tokens if tokenizer is None else tokenizer


def _rebuilt(model: Any, tokenizer: Any, parts: Any, settings: dict[str, Any]) -> ExpertPruning:
    return ExpertPruning(model, tokenizer, parts, **settings)


def _checked_top_k(top_k: int | None, keep: int, moe: MoeModel) -> int:
    if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep <= moe.experts:
        raise InvalidSettings(f"keep must lie between 1 and the model's {moe.experts} experts, but is {keep!r}")
    if top_k is None:
        return min(moe.top_k, keep)
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= keep:
        raise InvalidSettings(
            f"top_k={top_k!r} active experts cannot be chosen from keep={keep}; it must lie between 1 and {keep}"
        )
    return top_k


def _ends(shares: tuple[float, float, float], cases: int) -> NDArray[np.int64]:
    return np.rint(np.cumsum((0.0, *shares)) * cases).astype(np.int64)


def _fills(shares: tuple[float, float, float], cases: int) -> bool:
    """Whether every split with a share gets a case."""
    return bool((np.diff(_ends(shares, cases)) > 0)[np.array(shares) > 0].all())


def _numbered(parts: Mapping[Split, Sequence[Case]]) -> dict[Split, Cases]:
    numbered, start = {}, 0
    for split in Split:
        mine = parts.get(split, ())
        numbered[split] = Cases(tuple(range(start, start + len(mine))), mine)
        start += len(mine)
    if not len(numbered[Split.SEARCH]):
        raise InvalidSettings(
            "there are no SEARCH cases, so there is nothing to search on; pass cases={Split.SEARCH: [Case(…), …], …}"
        )
    return numbered


def _columns(cases: Cases) -> NDArray[np.int64]:
    return np.array(cases.ids, np.int64)


def _smoke_model() -> tuple[nn.Module, None]:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=20, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=32,
        pad_token_id=None, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MixtralForCausalLM(config).eval(), None
